"""Reads tables of other programs; nothing of them is changed."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import count
from typing import Any, Self

import psycopg
from psycopg import sql
from typing_extensions import override

from sessiondb.location import ServerLocation
from sessiondb.stores.postgres.connection import Link, Server
from sessiondb.stores.postgres.errors import translate
from sessiondb.stores.postgres.patience import AT_ONCE, Patience, stepwise

_LOOK_SECONDS = 5.0
"""How long to wait for rows until it is looked whether the server is still at them."""


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
        self._patience = Patience(self._server, Link(self._connection, reading=True), _LOOK_SECONDS)
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
            yield from stepwise(self._fetched(statement, parameters), self._patience.watched)
        except psycopg.Error as error:
            raise translate(error, self._server.name, reading=True) from error

    def _fetched(self, statement: str, parameters: Sequence[Any]) -> Generator[Any, None, None]:
        with self._connection.cursor(name=f"sessiondb_{next(self._cursors)}") as cursor:
            cursor.itersize = AT_ONCE
            yield from cursor.execute(statement, parameters)


def holds_sessions(location: ServerLocation) -> bool:
    """Whether a schema has the tables of sessiondb, of whatever version.

    Raises:
        StorageError: If the server cannot be asked.
    """
    with ForeignSchema(location) as schema:
        return bool(list(schema.rows("SELECT 1 WHERE to_regclass('sessiondb_meta') IS NOT NULL")))
