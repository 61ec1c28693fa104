"""Putting whole sessions onto a server as they were elsewhere: each in one transaction, its log and state at once.

A session is there completely or not at all, so whoever loses the connection, and cannot know whether the last one is there,
starts again: what is there is left as it is.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain, islice

import psycopg
from typing_extensions import override

from sessiondb.engine.store import BulkImport
from sessiondb.errors import InvalidInputError, OutcomeUnknownError
from sessiondb.location import ServerLocation
from sessiondb.model import columns
from sessiondb.model.event_identity import event_hash
from sessiondb.model.records import NO_CUT, NewEvent, NewSession, SessionKey
from sessiondb.stores.postgres import schema
from sessiondb.stores.postgres.connection import Link, Server
from sessiondb.stores.postgres.errors import is_of_one_command, translate

_READ_AHEAD = 2000
"""Events at hand before the transaction begins: a slow source holds a session's rows for long logs only."""

# For this transaction alone: a pooler may hand on the connection after it.
_SETTINGS = (
    "SELECT set_config('lock_timeout', %(timeout)s, true), set_config('statement_timeout', '0', true),"
    " set_config('idle_in_transaction_session_timeout', '0', true), set_config('synchronous_commit',"
    " CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END, true)"
)
_SESSION_IS_THERE = "SELECT 1 FROM @adk_sessions WHERE app_name = %s AND user_id = %s AND session_id = %s"
_INSERT_SESSION = (
    "INSERT INTO @adk_sessions (app_name, user_id, session_id, created_at, updated_at, update_time, incarnation,"
    " initial_state, forked_user_id, forked_session_id, forked_seq, cut_seq, cut_revision, cut_time)"
    " VALUES (%s, %s, %s, %s, %s, %s, nextval('@sessiondb_incarnations'), %s, %s, %s, %s, %s, %s, %s)"
    " ON CONFLICT DO NOTHING RETURNING incarnation"
)
_EVENT = (*columns.SESSION_KEY, "seq", "revision", "incarnation", "event_hash", *columns.EVENT_RECORD)
_COPY_EVENTS = f"COPY @adk_events ({', '.join(_EVENT)}) FROM STDIN"
_SET_END = (
    "UPDATE @adk_sessions SET last_seq = %s, revision = %s WHERE app_name = %s AND user_id = %s AND session_id = %s"
)
# In the order of the keys, as everybody locks them. Whoever comes second waits for the first, and keeps what that has set.
_INSERT_STATE = (
    "INSERT INTO @adk_state SELECT %(app_name)s, %(user_id)s, %(session_id)s, %(scope)s, key, value, %(updated_at)s"
    ' FROM json_each_text(%(state)s::json) ORDER BY key COLLATE "C" ON CONFLICT DO NOTHING'
)
_KEPT_STATE = (
    "SELECT count(*) FROM @adk_state AS kept JOIN json_each_text(%(state)s::json) AS given ON given.key = kept.state_key"
    " WHERE kept.app_name = %(app_name)s AND kept.user_id IS NOT DISTINCT FROM %(user_id)s AND kept.session_id IS NULL"
    " AND kept.scope = %(scope)s AND kept.state_value <> given.value"
)


class PostgresImport(BulkImport):
    """A schema opened for putting sessions into it."""

    def __init__(self, location: ServerLocation, timeout: float) -> None:
        """Connects, creating the tables where they are missing."""
        self._server = Server(location)
        self._schema = location.schema
        self._timeout = timeout
        with ExitStack() as undo:
            try:
                connection = self._server.connect()
                undo.callback(connection.close)
                schema.prepare(connection, location.schema, self._server.name)
                connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
                connection.read_only = False
            except psycopg.Error as error:
                raise translate(error, self._server.name) from error
            undo.pop_all()
        self._link = Link(connection)

    @override
    def close(self) -> None:
        self._link.close()

    @override
    def __exit__(self, *_: object) -> None:
        self.close()

    @override
    def holds(self, key: SessionKey) -> bool:
        try:
            return self._run(_SESSION_IS_THERE, key).fetchone() is not None
        except psycopg.Error as error:
            raise translate(error, self._server.name) from error

    @override
    def put(self, session: NewSession, events: Iterator[NewEvent]) -> bool:
        at_hand = list(islice(events, _READ_AHEAD))
        with self._transaction():
            row = (
                *(*session.key, session.created_at, session.updated_at, session.update_time),
                *(session.initial_state, *(session.origin or (None, None, None)), *(session.cut or NO_CUT)),
            )
            found = self._run(_INSERT_SESSION, row).fetchone()
            if found is None:
                return False
            last_seq, revision, _ = session.cut or NO_CUT
            with self._link.connection.cursor() as cursor, cursor.copy(self._sql(_COPY_EVENTS)) as copy:
                for record, advances in chain(at_hand, events):
                    last_seq += 1
                    revision += advances
                    copy.write_row((*session.key, last_seq, revision, found[0], event_hash(record.event_id), *record))
            self._run(_SET_END, (last_seq, revision, *session.key))
            self._run(
                _INSERT_STATE,
                {**session.key._asdict(), "scope": "SESSION", "state": session.state, "updated_at": session.updated_at},
            )
        return True

    @override
    def put_scope_state(self, app_name: str, user_id: str | None, state: str, updated_at: str) -> int:
        parameters = {
            "app_name": app_name,
            "user_id": user_id,
            "session_id": None,
            "scope": "APP" if user_id is None else "USER",
            "state": state,
            "updated_at": updated_at,
        }
        with self._transaction():
            self._run(_INSERT_STATE, parameters)
            # Looked at afterwards: by then whoever was setting a key of these is done.
            (kept,) = self._run(_KEPT_STATE, parameters).fetchone() or (0,)
        return int(str(kept))

    @contextmanager
    def _transaction(self) -> Generator[None, None, None]:
        """Runs what is within as one transaction, durable when this is left.

        Raises:
            InvalidInputError: If the server cannot keep what it is given; nothing was written.
            OutcomeUnknownError: If it was to be committed, and whether it is cannot be told.
            StorageError: If the server refuses; nothing was written.
        """
        link = self._link
        link.warned = False
        is_committing = False
        try:
            with link.connection.transaction():
                self._run(_SETTINGS, {"timeout": f"{int(self._timeout * 1000) or 1}ms"})
                yield
                is_committing = True
        except psycopg.Error as error:
            failure = translate(error, self._server.name)
            if is_committing and link.connection.closed:
                raise self._unknown() from error
            if is_of_one_command(error) or isinstance(error, psycopg.DataError):
                raise InvalidInputError(str(failure)) from error
            raise failure from error
        if link.warned:
            raise self._unknown()

    def _unknown(self) -> OutcomeUnknownError:
        return OutcomeUnknownError(
            f"{self._server.name} has not said whether the last session is stored; what came before it is. Start again: what"
            " is there is left as it is"
        )

    def _run(self, statement: str, parameters: object = None) -> psycopg.Cursor[tuple[object, ...]]:
        return schema.run(self._link.connection, self._sql(statement), parameters)

    def _sql(self, text: str) -> str:
        return schema.rendered(text, self._schema)
