"""A connection of the writer that fails at a chosen statement; everything else is real."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Any

from sessiondb import DatabaseSessionService
from tests.engine.tools import sqlite_writer


class SurpriseError(BaseException):
    """Not an Exception."""


class FailingConnection:
    """Raises ``error`` once instead of running a statement that begins with ``statement``; ``passes`` go through."""

    def __init__(self, connection: sqlite3.Connection, statement: str, error: BaseException, passes: int) -> None:
        self._connection = connection
        self._statement = statement
        self._error = error
        self._passes = passes

    def execute(self, statement: str, *parameters: Any) -> sqlite3.Cursor:
        if statement.startswith(self._statement):
            self._passes -= 1
            if self._passes == -1:
                raise self._error
        return self._connection.execute(statement, *parameters)

    def executemany(self, statement: str, rows: Iterable[Any]) -> None:
        for row in rows:
            self.execute(statement, row)

    def close(self) -> None:
        if self._statement == "close":
            self._connection.close()
            raise self._error
        self._connection.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def sqlite_error(code: int, name: str) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = code
    error.sqlite_errorname = name
    return error


def break_writer(service: DatabaseSessionService, statement: str, error: BaseException, passes: int = 0) -> None:
    writer = sqlite_writer(service)
    broken: Any = FailingConnection(writer._connection, statement, error, passes)
    writer._connection = broken
    writer._wal.connection = broken


FSYNC = sqlite_error(sqlite3.SQLITE_IOERR_FSYNC, "SQLITE_IOERR_FSYNC")
