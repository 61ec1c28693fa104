"""SQLite's errors and what they are called in sessiondb: the only translation there is."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sessiondb.errors import (
    CorruptRowError,
    DatabaseBusyError,
    DatabaseCorruptError,
    StorageError,
    UnsupportedDatabaseError,
    WriteFailedError,
)

# Primary result codes, see https://www.sqlite.org/rescode.html; the low byte of an extended code.
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
NO_ACCESS = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM)

SYNC_FAILED = (sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_DIR_FSYNC)
"""Extended result codes of a sync that failed."""


def primary_code(error: sqlite3.Error) -> int:
    """Returns the primary result code of an error; 0 if SQLite had no part in it."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def is_not_utf8(error: sqlite3.Error) -> bool:
    """Whether a text that was read is not UTF-8. The error's message quotes it."""
    return isinstance(error, sqlite3.OperationalError) and "decode to UTF-8" in str(error)


def translate(error: sqlite3.Error, path: Path, *, reading: bool = False) -> StorageError:
    """Returns the sessiondb error for an error of SQLite."""
    code = primary_code(error)
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    where = f"{str(path)!r}: {error} ({name})"
    if code in _BUSY:
        return DatabaseBusyError(
            "another program held the lock for longer than busy_timeout; `fuser -v` or `lsof` with the file's path names"
            f" the programs that have it open: {where}"
        )
    if code == sqlite3.SQLITE_NOTADB:
        return UnsupportedDatabaseError(f"not an SQLite database; it was not changed: {where}")
    if code == sqlite3.SQLITE_CORRUPT:
        return DatabaseCorruptError(
            f"the file is damaged, and was not changed; restore a backup or recover into a new file: {where}"
        )
    if is_not_utf8(error):
        # SQLite's message quotes the text.
        return CorruptRowError(f"a text in {str(path)!r} is not UTF-8; it was edited outside sessiondb")
    if code in NO_ACCESS and reading:
        return StorageError(f"the file cannot be opened for reading: {where}")
    if code in NO_ACCESS:
        return WriteFailedError(
            "the file cannot be opened for writing: file and folder, and the file system they are on, must be readable"
            f" and writable (not read-only) for this process: {where}"
        )
    if reading:
        return StorageError(f"SQLite refused the read: {where}")
    return WriteFailedError(f"SQLite refused the write: {where}")


@contextmanager
def translated(path: Path, *, reading: bool = False) -> Iterator[None]:
    """Raises sessiondb's errors in place of SQLite's."""
    try:
        yield
    except sqlite3.Error as error:
        # A traceback shows the cause's message, too.
        raise translate(error, path, reading=reading) from (None if is_not_utf8(error) else error)
