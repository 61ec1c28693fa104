"""Maintenance of a schema, on a connection of its own: nobody who writes waits for it."""

from __future__ import annotations

import time
from collections.abc import Callable

import psycopg

from sessiondb.errors import StorageError
from sessiondb.stores.postgres import schema
from sessiondb.stores.postgres.connection import Link, Server, lock_timeout
from sessiondb.stores.postgres.errors import translate
from sessiondb.stores.postgres.patience import Patience, run_beside

_TABLES = ("adk_sessions", "adk_events", "adk_state", "sessiondb_writers")

_PATIENCE_SECONDS = 30.0

# To give up a lock that cannot be had is for whoever asks; to work for long is not.
_SETTINGS = {"statement_timeout": 0, "idle_session_timeout": 0}

FORGET_OLD = "DELETE FROM @sessiondb_writers WHERE seen < now() - interval '30 days'"
"""Processes that have not been seen for so long are forgotten by the ledger."""


def vacuum(server: Server, schema_name: str, timeout: float, goes_on: Callable[[], bool]) -> bool | None:
    """Vacuums and analyses all tables, one after the other.

    Args:
        server: The server.
        schema_name: The schema.
        timeout: How long to wait for the server and for a lock, in seconds.
        goes_on: Asked several times a second whether to go on.

    Returns:
        True; None if ``goes_on`` said no. What was done by then stays done.

    Raises:
        StorageError: If the server refuses, or has passed a table over that is not the role's own.
    """
    # To a role that does not own a table the server only says that it has passed it over.
    warnings: list[str] = []

    def note(diagnostic: psycopg.errors.Diagnostic) -> None:
        if diagnostic.severity_nonlocalized == "WARNING":
            warnings.append(diagnostic.message_primary or "")

    given_up = False

    def look() -> None:
        nonlocal given_up
        if not given_up and not goes_on():
            given_up = True
            link.cut_off()

    settings = {**_SETTINGS, "lock_timeout": lock_timeout(timeout)}
    try:
        with server.connect_until(time.monotonic() + timeout, settings) as connection:
            connection.add_notice_handler(note)
            link = Link(connection, reading=True)
            patience = Patience(server, link, _PATIENCE_SECONDS)
            for statement in (FORGET_OLD, *(f"VACUUM (ANALYZE) @{table}" for table in _TABLES)):
                # Reads all of a table, and takes as long as that takes.
                with patience.watched():
                    run_beside(connection, schema.rendered(statement, schema_name), look)
    except psycopg.Error as error:
        if given_up:
            return None
        raise translate(error, server.name) from error
    if warnings:
        raise StorageError(f"{server.name} was not vacuumed: {'; '.join(warnings)}")
    return True
