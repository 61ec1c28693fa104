"""Checks a schema without changing anything: its tables and functions, and what must hold between its rows.

Pages and indexes are the server's to check (``pg_amcheck``).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator
from typing import Any

import psycopg

from sessiondb.location import ServerLocation
from sessiondb.model import columns
from sessiondb.model.event_identity import event_hash
from sessiondb.model.records import EventRow, SessionKey, named
from sessiondb.model.soundness import CheckReport, DecodeEvent, RowChecks
from sessiondb.stores.postgres import schema
from sessiondb.stores.postgres.connection import Link, Server
from sessiondb.stores.postgres.errors import is_connection_lost, translate
from sessiondb.stores.postgres.patience import AT_ONCE, Patience, stepwise

_LOOK_SECONDS = 5.0
"""How long to wait for rows until it is looked whether the server is still at them."""

_KEY = ", ".join(columns.SESSION_KEY)
_SESSIONS = f"SELECT {_KEY}, incarnation, revision, last_seq, log_epoch, cut_seq, cut_revision FROM @adk_sessions"
_EVENTS = (
    f"SELECT {_KEY}, incarnation, event_hash, {', '.join(columns.EVENT_ROW)} FROM @adk_events ORDER BY {_KEY}, seq"
)
_STATE = f"SELECT tableoid::regclass || ' ' || ctid, {_KEY}, scope, state_key, state_value FROM @adk_state"
_LAST_INCARNATION = "SELECT last_value FROM @sessiondb_incarnations"
_ORDER = ("schema", "sessions", "references", "events", "sequence", "state")

# What a service needs: tables and sequences, triggers that fire, functions, and indexes that can be used.
_OBJECTS = """
SELECT relname FROM pg_class WHERE relnamespace = %(schema)s::regnamespace AND relkind IN ('r', 'p', 'S')
UNION ALL
SELECT tgname FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = t.tgrelid
 WHERE c.relnamespace = %(schema)s::regnamespace AND t.tgenabled IN ('O', 'A') AND t.tgparentid = 0
UNION ALL
SELECT proname FROM pg_proc WHERE pronamespace = %(schema)s::regnamespace
UNION ALL
SELECT c.relname FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
 WHERE c.relnamespace = %(schema)s::regnamespace AND i.indisvalid
"""


def check(location: ServerLocation, decode: DecodeEvent, *, limit: int = 20) -> CheckReport:
    """Checks a schema. Nothing is changed, and services that use it meanwhile are not disturbed.

    Args:
        location: The schema.
        decode: Reads a row of the log as an event.
        limit: How many problems of each kind are listed; all are counted.

    Raises:
        UnsupportedDatabaseError: If it holds no sessions of sessiondb, or of another version.
        StorageError: If the server cannot be asked.
    """
    server = Server(location)
    try:
        with server.connect() as connection:
            schema.check_version(connection, location.schema, server.name)
            connection.autocommit = False
            # One snapshot for all.
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.read_only = True
            patience = Patience(server, Link(connection, reading=True), _LOOK_SECONDS)
            rows = RowChecks(decode, event_hash, limit)
            return _Inspection(connection, location.schema, rows, patience).run(server.name)
    except psycopg.Error as error:
        raise translate(error, server.name, reading=True) from error


class _Inspection:
    """One check of one schema. Each step goes on where another one failed."""

    def __init__(self, connection: psycopg.Connection, schema_name: str, rows: RowChecks, patience: Patience) -> None:
        self._connection = connection
        self._patience = patience
        self._schema = schema_name
        self._rows = rows
        self._log_is_read = False

    def run(self, name: str) -> CheckReport:
        steps: dict[str, Callable[[], None]] = {
            "schema": self._check_schema,
            "sessions": self._check_sessions,
            "events": self._check_events,
            "sequence": self._check_sequences,
            "state": self._check_state,
        }
        for step_name, step in steps.items():
            try:
                with self._connection.transaction():
                    step()
            except psycopg.Error as error:
                if is_connection_lost(error):
                    raise
                self._rows.add(step_name, f"cannot be read any further: {error.diag.message_primary or error}")
        return self._rows.report(name, _ORDER)

    def _check_schema(self) -> None:
        found = {name for (name,) in self._connection.execute(_OBJECTS, {"schema": f'"{self._schema}"'})}
        for kind, name in schema.objects():
            if name not in found:
                self._rows.add("schema", f"the {kind} {name} is missing, or switched off")

    def _check_sessions(self) -> None:
        ((last,),) = self._stream(_LAST_INCARNATION)
        for row in self._stream(_SESSIONS):
            self._rows.see_session(SessionKey._make(row[:3]), row[3:7], row[7:], last)

    def _check_events(self) -> None:
        for app_name, user_id, session_id, incarnation, hashed, *columns_of_row in self._stream(_EVENTS):
            self._rows.events += 1
            key = SessionKey(app_name, user_id, session_id)
            row = EventRow._make(columns_of_row)
            if not self._rows.has(key):
                self._rows.add("references", f"row {row.row_id} of adk_events: {named(key)} does not exist")
            self._rows.see_event(key, row, incarnation, hashed)
        self._log_is_read = True

    def _check_sequences(self) -> None:
        if self._log_is_read:
            self._rows.end_logs()

    def _check_state(self) -> None:
        for place, app_name, user_id, session_id, scope, name, value in self._stream(_STATE):
            self._rows.state_keys += 1
            self._rows.see_state(f"row {place}", scope, (app_name, user_id, session_id), name, is_json=_is_json(value))

    def _stream(self, statement: str) -> Iterator[tuple[Any, ...]]:
        return stepwise(self._fetched(statement), self._patience.watched)

    def _fetched(self, statement: str) -> Generator[tuple[Any, ...], None, None]:
        with self._connection.cursor(name="sessiondb_check") as cursor:
            cursor.itersize = AT_ONCE
            yield from cursor.execute(schema.rendered(statement, self._schema))


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
