"""Errors of SQLite, told by their codes."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from sessiondb.errors import DatabaseBusyError, DatabaseCorruptError, StorageError, UnsupportedDatabaseError
from sessiondb.stores.sqlite.errors import translate


def test_sqlite_error_codes_map_to_error_classes(database_path: Path) -> None:
    error = sqlite3.DatabaseError("malformed")
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT_INDEX
    assert isinstance(translate(error, database_path), DatabaseCorruptError)
    error.sqlite_errorcode = sqlite3.SQLITE_NOTADB
    assert isinstance(translate(error, database_path), UnsupportedDatabaseError)
    error.sqlite_errorcode = sqlite3.SQLITE_BUSY_SNAPSHOT
    assert isinstance(translate(error, database_path), DatabaseBusyError)
    assert type(translate(sqlite3.Error("none"), database_path, reading=True)) is StorageError
