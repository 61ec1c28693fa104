"""Things that are opened or begun, and must be ended again however it goes on."""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Protocol, Self


class _Closable(Protocol):
    def close(self) -> object: ...


@contextmanager
def closed_on_failure(opened: _Closable) -> Iterator[None]:
    """Closes what was opened if the rest of the opening fails; else it stays open."""
    try:
        yield
    except BaseException:  # a cancellation and an interrupt, too: it goes on to whoever raised it
        opened.close()
        raise


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Holds the write lock from the start; commits in the end, or takes all of it back."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:  # a cancellation and an interrupt, too: it goes on to whoever raised it
        # After some errors SQLite has rolled back already.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


class ClosedAtExit(ABC):
    """A context manager that is closed in the end."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Closes it. Idempotent."""
