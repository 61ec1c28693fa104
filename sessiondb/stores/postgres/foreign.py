"""Reads tables of other programs; nothing of them is changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import count
from typing import Any, Self

import psycopg
from psycopg import sql
from typing_extensions import override

from sessiondb.location import ServerLocation
from sessiondb.stores.postgres.connection import Server
from sessiondb.stores.postgres.errors import translate

_AT_ONCE = 1000
"""Rows that are fetched at a time."""


class ForeignSchema(AbstractContextManager["ForeignSchema"]):
    """A schema, all of which is read as it was at the opening."""

    def __init__(self, location: ServerLocation) -> None:
        """Connects.

        Raises:
            StorageError: If that cannot be done.
        """
        self._server = Server(location)
        self._cursors = count()
        try:
            self._connection = self._server.connect()
        except psycopg.Error as error:
            raise translate(error, self._server.name, reading=True) from error
        self._connection.autocommit = False
        self._connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        self._connection.read_only = True
        try:
            # For this transaction, the only one.
            self._connection.execute(sql.SQL("SET LOCAL search_path = {}").format(sql.Identifier(location.schema)))
        except psycopg.Error as error:
            self.close()
            raise translate(error, self._server.name, reading=True) from error

    @override
    def __enter__(self) -> Self:
        return self

    @override
    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection. Idempotent."""
        self._connection.close()

    def snapshot(self) -> AbstractContextManager[None]:
        """Makes all that is read within it be of one moment, as everything is."""
        return nullcontext()

    def rows(self, statement: str, parameters: Sequence[Any] = ()) -> Iterator[Any]:
        """Runs a statement, and yields what it finds as it is found."""
        try:
            with self._connection.cursor(name=f"sessiondb_{next(self._cursors)}") as cursor:
                cursor.itersize = _AT_ONCE
                yield from cursor.execute(statement, parameters)
        except psycopg.Error as error:
            raise translate(error, self._server.name, reading=True) from error


def holds_sessions(location: ServerLocation) -> bool:
    """Whether a schema has the tables of sessiondb, of whatever version.

    Raises:
        StorageError: If the server cannot be asked.
    """
    with ForeignSchema(location) as schema:
        return bool(list(schema.rows("SELECT 1 WHERE to_regclass('sessiondb_meta') IS NOT NULL")))
