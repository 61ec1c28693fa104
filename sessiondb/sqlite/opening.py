"""Things that are opened, and must be closed again however it goes on."""

from __future__ import annotations

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
    except BaseException:
        opened.close()
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
