"""The one place that opens SQLite connections and sets their PRAGMAs."""

from __future__ import annotations

import sqlite3
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from sessiondb.errors import ConfigurationError, UnsupportedDatabaseError
from sessiondb.options import Durability
from sessiondb.stores.sqlite.errors import primary_code, translated

# Statements vary only in the number of rows of a batch, in a few steps; all of them stay prepared.
_CACHED_STATEMENTS = 256

_OLDEST_SQLITE = (3, 38, 0)
"""The first version with the ``->>`` operator."""

LARGEST_VALUE = 128 * 1024 * 1024
"""The longest text, in bytes, that is read of a file whose content nobody vouches for: twice the largest event."""

_INSTRUCTIONS_BETWEEN_SIGNALS = 100_000
"""Of SQLite's virtual machine: some milliseconds."""

_PAUSE_SECONDS = 0.005

let_pass = threading.Event().wait
"""Only lets seconds pass: nobody sets the event."""


def connect(
    path: Path, options: str, *, busy_timeout: float = 5.0, reading: bool = False, **pragmas: object
) -> sqlite3.Connection:
    """Opens a connection that manages no transactions by itself, and may go from thread to thread.

    Args:
        path: The file.
        options: Of SQLite's URI, such as ``mode=rw``.
        busy_timeout: How long SQLite waits for a lock before it gives up, in seconds.
        reading: Whether errors are to speak of reading.
        **pragmas: The settings of the connection, set in this order.
    """
    with translated(path, reading=reading):
        connection = sqlite3.connect(
            f"file:{quote(str(path))}?{options}",
            timeout=busy_timeout,
            uri=True,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=_CACHED_STATEMENTS,
        )
        with closed_on_failure(connection):
            for name, value in pragmas.items():
                connection.execute(f"PRAGMA {name}={value}")
    return connection


def open_writer(path: Path, durability: Durability, busy_timeout: float) -> sqlite3.Connection:
    """Opens a connection that writes. Nothing in the file is changed yet."""
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        raise ConfigurationError(
            f"SQLite {'.'.join(map(str, _OLDEST_SQLITE))} or newer is needed; this Python is linked with"
            f" {sqlite3.sqlite_version}"
        )
    return connect(
        path,
        "mode=rw",
        busy_timeout=busy_timeout,
        # Checkpoints are the writer's own, between batches: one inside COMMIT could raise though the data is committed.
        wal_autocheckpoint=0,
        synchronous=durability,
        foreign_keys="ON",
        temp_store="MEMORY",
        trusted_schema="OFF",
        cell_size_check="ON",
        cache_size=-65536,
    )


def open_reader(path: Path, busy_timeout: float) -> sqlite3.Connection:
    """Opens a connection that cannot write, beside a writer of this process.

    It takes part in the WAL, and would create ``-wal`` and ``-shm`` where they are missing.
    """
    return connect(
        path,
        "mode=ro",
        busy_timeout=busy_timeout,
        reading=True,
        query_only="ON",
        wal_autocheckpoint=0,
        trusted_schema="OFF",
        cache_size=-16384,
    )


def open_untouched(path: Path, options: str, busy_timeout: float) -> sqlite3.Connection:
    """Opens a connection that cannot write, for a file whose content nobody vouches for.

    ``options``, of SQLite's URI, say how the files beside it are treated.
    """
    connection = connect(path, options, reading=True, busy_timeout=busy_timeout, trusted_schema="OFF")
    # One value of a gigabyte would take several times that in memory.
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LARGEST_VALUE)
    # SQLite runs a statement to its end before Python sees a Ctrl-C. Asked now and then, Python does.
    connection.set_progress_handler(lambda: 0, _INSTRUCTIONS_BETWEEN_SIGNALS)
    return connection


def open_scratch(path: Path) -> sqlite3.Connection:
    """Opens a file that is thrown away when anything goes wrong: no journal, no sync."""
    return connect(path, "mode=rw", journal_mode="OFF", synchronous="OFF", cell_size_check="ON", trusted_schema="OFF")


def enter_wal_mode(connection: sqlite3.Connection, path: Path) -> None:
    """Switches a file to WAL mode, which lasts."""
    mode = _switched(connection)
    if mode != "wal":
        raise UnsupportedDatabaseError(
            f"{str(path)!r} cannot be kept in WAL mode (it stays in {mode!r}): WAL needs a local file system with shared"
            " memory, not a network mount"
        )
    # SQLite makes the WAL's file at the first access after the switch, and FileIdentity is to find it.
    connection.execute("PRAGMA schema_version").fetchone()


def _switched(connection: sqlite3.Connection) -> str:
    (milliseconds,) = connection.execute("PRAGMA busy_timeout").fetchone()
    give_up = time.monotonic() + milliseconds / 1000
    while True:
        try:
            mode: str = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
        except sqlite3.OperationalError as error:
            # Two that switch at once cannot wait for each other's locks, so SQLite fails one without its busy handler.
            if primary_code(error) != sqlite3.SQLITE_BUSY or time.monotonic() >= give_up:
                raise
            let_pass(_PAUSE_SECONDS)
        else:
            return mode


def set_busy_timeout(connection: sqlite3.Connection, seconds: float) -> None:
    """Sets how long SQLite waits for a lock before it gives up; 0: not at all."""
    connection.execute(f"PRAGMA busy_timeout={int(seconds * 1000)}")


@contextmanager
def closed_on_failure(opened: sqlite3.Connection | ExitStack | ClosedAtExit) -> Iterator[None]:
    """Closes what was opened if the rest of the opening fails; else it stays open."""
    with ExitStack() as undo:
        undo.callback(opened.close)
        yield
        undo.pop_all()


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Holds the write lock from the start; commits in the end, or takes all of it back."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    finally:
        # If it was not committed; and after some errors SQLite has rolled back already.
        if connection.in_transaction:
            connection.execute("ROLLBACK")


@contextmanager
def snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    """Makes all that is read within it be of one moment, unless that is so already."""
    if connection.in_transaction:
        yield
        return
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.execute("COMMIT")


class ClosedAtExit(ABC):
    """A context manager that is closed in the end."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Closes it. Idempotent."""


def stream(connection: sqlite3.Connection, statement: str, parameters: dict[str, Any]) -> Iterator[Any]:
    """Runs a statement, and yields what it finds as it is found; it is ended when whoever asks goes away."""
    with closing(connection.execute(statement, parameters)) as rows:
        yield from rows
