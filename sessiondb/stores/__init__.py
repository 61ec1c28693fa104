"""The stores, one package each, and the only place that picks one: by what a path or URL names.

A store is reached through the protocols of :mod:`sessiondb.engine.store`.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from sessiondb.errors import ConfigurationError
from sessiondb.location import Database, Location, ServerLocation, resolve_location
from sessiondb.options import StoreOptions

if TYPE_CHECKING:
    from sessiondb.engine.store import BulkImport, Progress, Reader, Store, Writer
    from sessiondb.model.soundness import CheckReport, DecodeEvent

# Each is imported when it is needed: a command that reads does without what writes.


def open_store(location: Location, options: StoreOptions) -> Store:
    """Makes a store for services, creating a file where it is missing.

    Args:
        location: Where it is.
        options: How to keep it.

    Raises:
        ConfigurationError: If the location cannot be used.
        StorageError: If the file cannot be created.
    """
    if isinstance(location, ServerLocation):
        with _with_driver():
            from sessiondb.stores.postgres.store import PostgresStore  # noqa: PLC0415  # as said above

        return PostgresStore(location, options)
    from sessiondb.stores.sqlite.store import SqliteStore  # noqa: PLC0415  # as said above

    return SqliteStore(location, options)


def open_reader(location: str | os.PathLike[str] | Database, timeout: float = 5.0) -> Reader:
    """Opens a database for reading, beside services that use it; nothing of it, and nothing beside it, is changed.

    Args:
        location: The database, which exists: a path or URL, as a service takes it, or what one was found to name.
        timeout: How long to wait for a lock, in seconds.

    Returns:
        A context manager that closes it. It answers the queries of :mod:`sessiondb.model.queries`, on one thread at a time.

    Raises:
        ConfigurationError: If the location cannot be used.
        UnsupportedDatabaseError: If it is not a database of sessiondb, or of another version.
        StorageError: If it cannot be read.
    """
    found = resolve_database(location)
    if isinstance(found, ServerLocation):
        with _with_driver():
            from sessiondb.stores.postgres.store import open_outside_reader  # noqa: PLC0415  # as said above

        return open_outside_reader(found, timeout)
    from sessiondb.stores.sqlite.reader import OutsideReader  # noqa: PLC0415  # as said above

    return OutsideReader(found, timeout)


@contextmanager
def open_writer(location: Database) -> Generator[Writer, None, None]:
    """Opens a database that exists for a command that changes it, beside services that use it.

    Args:
        location: The database.

    Raises:
        UnsupportedDatabaseError: If it is not a database of sessiondb.
        StorageError: If it cannot be opened.
    """
    if isinstance(location, ServerLocation):
        # To open a store creates what is missing: here, a schema of a mistyped name.
        with open_reader(location):
            pass
    with closing(open_store(location, StoreOptions())) as store, closing(store.writer()) as writer:
        yield writer


def open_import(location: str | os.PathLike[str] | Database, timeout: float = 30.0) -> BulkImport:
    """Opens a database for putting whole sessions into it, beside services that use it.

    Args:
        location: The database, as for :func:`open_reader`. It is created if it is missing.
        timeout: How long to wait for a lock, in seconds.

    Returns:
        A context manager that closes it.

    Raises:
        ConfigurationError: If the location cannot be used.
        StorageError: If the database cannot be opened, is damaged, or is not ours.
    """
    found = resolve_database(location)
    if isinstance(found, ServerLocation):
        with _with_driver():
            from sessiondb.stores.postgres.bulk_import import PostgresImport  # noqa: PLC0415  # as said above

        return PostgresImport(found, timeout)
    from sessiondb.stores.sqlite.bulk_import import SqliteImport  # noqa: PLC0415  # as said above

    return SqliteImport(found, timeout)


def server_script(location: ServerLocation, partitions: int, role: str | None) -> str:
    """Returns the SQL that creates everything on a server, as one transaction. Nothing is asked.

    Args:
        location: The server and the schema.
        partitions: Into how many parts the tables are divided; 0: they are not.
        role: Who may use them, too.

    Raises:
        ConfigurationError: If the driver is not installed.
    """
    with _with_driver():
        from sessiondb.stores.postgres import schema  # noqa: PLC0415  # as said above

    return schema.whole_script(location.schema, partitions, role)


def create_on_server(location: ServerLocation, partitions: int, role: str | None) -> bool:
    """Creates everything on a server, where it is missing.

    Args:
        location: The server and the schema.
        partitions: As for :func:`server_script`; what is there stays as it is.
        role: Who may use the tables, too.

    Returns:
        Whether anything was created.

    Raises:
        UnsupportedDatabaseError: If the schema holds other tables, or those of another version.
        StorageError: If the server refuses.
    """
    with _with_driver():
        from sessiondb.stores.postgres import store  # noqa: PLC0415  # as said above

    return store.create_tables(location, partitions, role)


def build_index(location: Database, progress: Progress | None = None) -> bool:
    """Makes the index of texts of a database that exists, beside services that use it, or goes on with one.

    Args:
        location: The database.
        progress: Called now and then with how much is done, and how much there is.

    Returns:
        Whether there was anything to do.

    Raises:
        ConfigurationError: If it cannot be made: SQLite lacks FTS5, or the role may not make it.
        UnsupportedDatabaseError: If it is not a database of sessiondb.
        StorageError: If the store refuses.
    """
    if isinstance(location, ServerLocation):
        with _with_driver():
            from sessiondb.stores.postgres import indexing as on_server  # noqa: PLC0415  # as said above

        return on_server.build_index(location, progress)
    from sessiondb.stores.sqlite import indexing as of_file  # noqa: PLC0415  # as said above

    return of_file.build_index(location, progress)


def drop_index(location: Database) -> bool:
    """Removes the index of texts of a database that exists, beside services that use it; says whether there was one.

    Raises:
        ConfigurationError: If the role may not remove it.
        UnsupportedDatabaseError: If it is not a database of sessiondb.
        StorageError: If the store refuses.
    """
    if isinstance(location, ServerLocation):
        with _with_driver():
            from sessiondb.stores.postgres import indexing as on_server  # noqa: PLC0415  # as said above

        return on_server.drop_index(location)
    from sessiondb.stores.sqlite import indexing as of_file  # noqa: PLC0415  # as said above

    return of_file.drop_index(location)


def check(location: Database, decode: DecodeEvent, *, limit: int = 20) -> CheckReport:
    """Checks a database that exists. Nothing is changed, and services that use it meanwhile are not disturbed.

    Args:
        location: The database.
        decode: Reads a row of the log as an event.
        limit: How many problems of each kind are listed.

    Raises:
        UnsupportedDatabaseError: If a schema on a server holds no sessions of sessiondb.
        StorageError: If it cannot be read.
    """
    if isinstance(location, ServerLocation):
        with _with_driver():
            from sessiondb.stores.postgres import check as on_server  # noqa: PLC0415  # as said above

        return on_server.check(location, decode, limit=limit)
    from sessiondb.stores.sqlite.repair import check as of_file  # noqa: PLC0415  # as said above

    return of_file.check(location, decode, limit=limit)


def holds_sessions(location: Database) -> bool:
    """Whether a database that exists is one of sessiondb, of whatever version.

    Raises:
        StorageError: If it cannot be read.
    """
    if isinstance(location, ServerLocation):
        with _with_driver():
            from sessiondb.stores.postgres import foreign  # noqa: PLC0415  # as said above

        return foreign.holds_sessions(location)
    from sessiondb.stores.sqlite.readonly import is_ours  # noqa: PLC0415  # as said above

    return is_ours(location)


def resolve_database(location: str | os.PathLike[str] | Database) -> Database:
    """Finds the database that a path or URL names.

    Raises:
        ConfigurationError: If it names none that other processes could open.
    """
    if isinstance(location, ServerLocation):
        return location
    found = resolve_location(location)
    if found is None:
        raise ConfigurationError("a database in memory belongs to the service that opened it; name a file")
    return found


@contextmanager
def _with_driver() -> Generator[None, None, None]:
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "psycopg":
            raise
        raise ConfigurationError(
            "a PostgreSQL server takes the driver psycopg, which is not installed: pip install 'sessiondb[postgres]'"
        ) from error
