"""Making the index of texts of a schema, and removing it, beside services that use it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg

from sessiondb.engine.store import Progress
from sessiondb.errors import DatabaseBusyError
from sessiondb.location import ServerLocation
from sessiondb.stores.postgres import schema, text_index
from sessiondb.stores.postgres.connection import Server
from sessiondb.stores.postgres.errors import translate
from sessiondb.stores.postgres.patience import run_beside

_BUILD_LOCK = 0x5E551048
"""Held by who makes or removes an index: a second one would wait for the first, which waits for all who wait."""

_HOW_FAR = """
    SELECT blocks_done + tuples_done, greatest(blocks_total + tuples_total, 1) FROM pg_stat_progress_create_index
     WHERE pid = %(pid)s
"""


def build_index(location: ServerLocation, progress: Progress | None) -> bool:
    """Makes the index where it is missing; says whether there was anything to do.

    The server makes it while others write. Ended in between, it leaves a part that is no use, and the next time begins anew;
    of a divided table, with the part that it was at.

    Raises:
        ConfigurationError: If the role may not make it.
        DatabaseBusyError: If another one is at it.
        StorageError: If the server refuses.
    """
    with _connected(location) as (server, connection):
        name = location.schema
        if text_index.is_complete(connection, name):
            return False
        text_index.create_functions(connection, name)
        parts = text_index.parts(connection, name)
        for number, (of_part, part) in enumerate(parts or [(name, "adk_events")]):
            index = f"{part}_text" if parts else text_index.INDEX
            qualified = f"{schema.quoted(of_part)}.{schema.quoted(index)}"
            found = connection.execute(
                "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(%s)", (qualified,)
            ).fetchone()
            if found == (True,):
                continue
            if found is not None:
                # What an earlier attempt has left.
                schema.run(connection, f"DROP INDEX CONCURRENTLY {qualified}")
            table = f"{schema.quoted(of_part)}.{schema.quoted(part)}"
            statement = f"CREATE INDEX CONCURRENTLY {schema.quoted(index)} ON {table} USING gin ({text_index.VECTOR})"
            tell = None if progress is None else _share_of(progress, number, len(parts) or 1)
            _run(server, connection, schema.rendered(statement, name), tell)
        if parts:
            _join(connection, name, parts)
    return True


def drop_index(location: ServerLocation) -> bool:
    """Removes the index; says whether there was one.

    Raises:
        ConfigurationError: If the role may not remove it.
        DatabaseBusyError: If another one is at it.
        StorageError: If the server refuses.
    """
    with _connected(location) as (_, connection):
        return text_index.drop(connection, location.schema)


@contextmanager
def _connected(location: ServerLocation) -> Iterator[tuple[Server, psycopg.Connection]]:
    server = Server(location)
    try:
        with server.connect() as connection, text_index.allowed(server.name):
            schema.check_version(connection, location.schema, server.name)
            key = (_BUILD_LOCK, location.schema)
            # Not waited for: a statement that waits would be waited for by the one that makes the index.
            if connection.execute("SELECT pg_try_advisory_lock(%s, hashtext(%s))", key).fetchone() == (False,):
                raise DatabaseBusyError(
                    f"the index of texts on {server.name} is being made or removed by another session"
                )
            try:
                yield server, connection
            finally:
                if not connection.closed:
                    connection.execute("SELECT pg_advisory_unlock(%s, hashtext(%s))", key)
    except psycopg.Error as error:
        raise translate(error, server.name) from error


def _share_of(progress: Progress, part: int, parts: int) -> Callable[[float], None]:
    return lambda share: progress(int((part + share) * 1000), parts * 1000)


def _run(server: Server, connection: psycopg.Connection, statement: str, tell: Callable[[float], None] | None) -> None:
    """Runs a long statement, and tells now and then which share of it is done."""
    if tell is None:
        schema.run(connection, statement)
        return
    with server.connect() as other:

        def look() -> None:
            found = other.execute(_HOW_FAR, {"pid": connection.pgconn.backend_pid}).fetchone()
            if found is not None:
                tell(min(found[0] / found[1], 1.0))

        run_beside(connection, statement, look)
    tell(1.0)


def _join(connection: psycopg.Connection, schema_name: str, parts: list[tuple[str, str]]) -> None:
    """Makes one index of those of all parts."""
    parent = f"{schema.quoted(schema_name)}.{schema.quoted(text_index.INDEX)}"
    with connection.transaction():
        if text_index.is_complete(connection, schema_name) is None:
            statement = f"CREATE INDEX {text_index.INDEX} ON ONLY @adk_events USING gin ({text_index.VECTOR})"
            schema.run(connection, schema.rendered(statement, schema_name))
        for of_part, part in parts:
            # Again does no harm.
            index = f"{schema.quoted(of_part)}.{schema.quoted(f'{part}_text')}"
            schema.run(connection, f"ALTER INDEX {parent} ATTACH PARTITION {index}")
