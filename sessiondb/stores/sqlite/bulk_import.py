"""Putting whole sessions into a file as they were elsewhere: each in one transaction, its log and state at once.

A service appends events one by one as they happen; what comes from another file has its own times and is complete.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

from typing_extensions import override

from sessiondb.engine.store import BulkImport
from sessiondb.model import columns
from sessiondb.model.event_identity import event_hash
from sessiondb.model.records import NO_CUT, NewEvent, NewSession, SessionKey
from sessiondb.stores.sqlite import schema
from sessiondb.stores.sqlite.connection import ClosedAtExit, closed_on_failure, open_writer, transaction
from sessiondb.stores.sqlite.errors import translated
from sessiondb.stores.sqlite.new_file import prepare_file
from sessiondb.stores.sqlite.sql import LAST_ID, names
from sessiondb.stores.sqlite.wal import WalKeeper

_READ_AHEAD = 2000
"""Events at hand before the transaction begins: a slow source holds up other writers for long sessions only."""


_SESSION_IS_THERE = "SELECT 1 FROM adk_sessions WHERE app_name = ? AND user_id = ? AND session_id = ?"
_NEXT_INCARNATION = "UPDATE sessiondb_meta SET value = value + 1 WHERE name = 'incarnations' RETURNING value"
_INSERT_SESSION = (
    "INSERT INTO adk_sessions (app_name, user_id, session_id, created_at, updated_at, update_time, incarnation,"
    " initial_state, forked_user_id, forked_session_id, forked_seq, cut_seq, cut_revision, cut_time, begun_after)"
    f" VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, {LAST_ID})"
)
_EVENT = (*columns.SESSION_KEY, "seq", "revision", "incarnation", "event_hash", *columns.EVENT_RECORD)
_INSERT_EVENT = f"INSERT INTO adk_events ({names(_EVENT)}) VALUES ({names('?' * len(_EVENT))})"
_SET_END = "UPDATE adk_sessions SET last_seq = ?, revision = ? WHERE app_name = ? AND user_id = ? AND session_id = ?"
_INSERT_STATE = (
    "INSERT INTO adk_state SELECT :app_name, :user_id, :session_id, :scope, key, value, :updated_at"
    " FROM json_each(:state) WHERE true ON CONFLICT DO NOTHING"
)
_KEPT_STATE = (
    "SELECT count(*) FROM adk_state AS kept JOIN json_each(:state) AS given ON given.key = kept.state_key"
    " WHERE kept.app_name = :app_name AND kept.user_id IS :user_id AND kept.session_id IS NULL"
    " AND kept.scope = :scope AND kept.state_value <> given.value"
)


class SqliteImport(ClosedAtExit, BulkImport):
    """A file opened for putting sessions into it."""

    def __init__(self, path: Path, busy_timeout: float) -> None:
        """Opens the file, creating it and its folders where they are missing."""
        prepare_file(path)
        self._path = path
        self._connection = open_writer(path, "full", busy_timeout)
        with closed_on_failure(self._connection):
            with translated(path):
                schema.prepare(self._connection, path)
            self._wal = WalKeeper(self._connection, path, "full")

    @override
    def close(self) -> None:
        self._wal.close()
        self._connection.close()

    @override
    def holds(self, key: SessionKey) -> bool:
        with translated(self._path):
            return self._connection.execute(_SESSION_IS_THERE, key).fetchone() is not None

    @override
    def put(self, session: NewSession, events: Iterator[NewEvent]) -> bool:
        at_hand = list(islice(events, _READ_AHEAD))
        with translated(self._path), transaction(self._connection):
            if self._connection.execute(_SESSION_IS_THERE, session.key).fetchone() is not None:
                return False
            (incarnation,) = self._connection.execute(_NEXT_INCARNATION).fetchone()
            self._connection.execute(
                _INSERT_SESSION,
                (
                    *(*session.key, session.created_at, session.updated_at, session.update_time, incarnation),
                    *(session.initial_state, *(session.origin or (None, None, None)), *(session.cut or NO_CUT)),
                ),
            )
            rows = _Rows(session, incarnation, chain(at_hand, events))
            self._connection.executemany(_INSERT_EVENT, rows)
            self._connection.execute(_SET_END, (rows.seq, rows.revision, *session.key))
            self._connection.execute(
                _INSERT_STATE,
                {**session.key._asdict(), "scope": "SESSION", "state": session.state, "updated_at": session.updated_at},
            )
        if self._wal.is_due(self._wal.size):
            self._wal.checkpoint()
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
        with translated(self._path), transaction(self._connection):
            (kept,) = self._connection.execute(_KEPT_STATE, parameters).fetchone()
            self._connection.execute(_INSERT_STATE, parameters)
        return int(kept)


class _Rows:
    """Turns events into the rows of a log, counting them."""

    def __init__(self, session: NewSession, incarnation: int, events: Iterator[NewEvent]) -> None:
        self.seq, self.revision, _ = session.cut or NO_CUT
        self._key = session.key
        self._incarnation = incarnation
        self._events = events

    def __iter__(self) -> Iterator[tuple[object, ...]]:
        for record, advances in self._events:
            self.seq += 1
            self.revision += advances
            yield (*self._key, self.seq, self.revision, self._incarnation, event_hash(record.event_id), *record)
