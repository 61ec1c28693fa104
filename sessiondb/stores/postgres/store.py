"""One schema on a PostgreSQL server as a store."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
from typing_extensions import override

from sessiondb.engine.store import Store
from sessiondb.location import ServerLocation
from sessiondb.options import StoreOptions
from sessiondb.stores.postgres import schema
from sessiondb.stores.postgres.connection import Server
from sessiondb.stores.postgres.errors import translate
from sessiondb.stores.postgres.maintenance import vacuum
from sessiondb.stores.postgres.reader import PostgresReader
from sessiondb.stores.postgres.turns import PostgresTurnLocks
from sessiondb.stores.postgres.writer import PostgresWriter


def open_outside_reader(location: ServerLocation, timeout: float) -> PostgresReader:
    """Opens a schema for reading that no service of this process need have open."""
    return PostgresReader(Server(location), location.schema, timeout, outside=True)


def create_tables(location: ServerLocation, partitions: int, role: str | None) -> bool:
    """Creates the tables and functions where they are missing, and says whether they were.

    Args:
        location: The schema.
        partitions: Into how many parts new tables are divided; 0: they are not.
        role: Who may use them, too.

    Raises:
        StorageError: If the server refuses.
    """
    server = Server(location)
    try:
        with server.connect() as connection:
            created = schema.prepare(connection, location.schema, server.name, partitions)
            if role is not None:
                schema.run(connection, schema.grants(location.schema, role))
    except psycopg.Error as error:
        raise translate(error, server.name) from error
    return created


class PostgresStore(Store):
    """A schema, which is created where it is missing."""

    system = "postgresql"
    reads_inline = False

    def __init__(self, location: ServerLocation, options: StoreOptions) -> None:
        """Opens no connection.

        Args:
            location: The server, and how to log in.
            options: How to keep it.
        """
        self.name = str(location)
        self.label = location.label
        self.identity = location.identity
        self._schema = location.schema
        self._server = Server(location)
        self._options = options

    @override
    def writer(self) -> PostgresWriter:
        return PostgresWriter(self._server, self._options, self._schema)

    @override
    def reader(self, timeout: float) -> PostgresReader:
        return PostgresReader(self._server, self._schema, timeout)

    @override
    def turn_locks(self) -> PostgresTurnLocks:
        return PostgresTurnLocks(self._server, self._schema, self.label, self._options.busy_timeout)

    @override
    def file_bytes(self) -> int:
        return 0

    def vacuum(self, goes_on: Callable[[], bool]) -> bool | None:
        """See :class:`~sessiondb.engine.store.SupportsVacuum`."""
        return vacuum(self._server, self._schema, self._options.busy_timeout, goes_on)

    @override
    def close(self) -> None:
        pass
