"""The SQLite files of ADK's own session services: reading them untouched, and writing those of one kind."""

from __future__ import annotations

import enum
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from google.adk.events import Event
from pydantic import ValidationError
from typing_extensions import override

from sessiondb.adk.fast_decode import event_validator
from sessiondb.errors import CorruptRowError, UnsupportedDatabaseError
from sessiondb.model.records import SessionKey
from sessiondb.stores.sqlite.connection import ClosedAtExit, closed_on_failure, connect, transaction
from sessiondb.stores.sqlite.errors import translated
from sessiondb.stores.sqlite.new_file import create_private
from sessiondb.stores.sqlite.readonly import ReadOnlyFile
from sessiondb.transfer.sources import ScopeState, Source, SourceSession, UnreadableError

_BUSY_TIMEOUT = 30.0
"""How long to wait for another program's lock, in seconds."""


class Layout(enum.Enum):
    """Which of ADK's services wrote a file; the values are for people."""

    SQLITE = "SqliteSessionService"
    DATABASE = "DatabaseSessionService, schema 1"
    PICKLED = "DatabaseSessionService, schema 0"


class AdkEvent(NamedTuple):
    """An event of a session, as a file holds it."""

    event_id: str
    invocation_id: str
    time: float
    data: str | None
    """The event as JSON."""


_TABLE_EXISTS = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?"
_COLUMNS_OF_EVENTS = "SELECT name FROM pragma_table_info('events')"
_SCHEMA_VERSION = "SELECT value FROM adk_internal_metadata WHERE key = 'schema_version'"
_SESSIONS = "SELECT app_name, user_id, id, create_time, update_time, state FROM sessions ORDER BY app_name, user_id, id"
# The order in which rows were added is the order of the conversation; times tie and go back.
_EVENTS = (
    "SELECT id, invocation_id, timestamp, event_data FROM events"
    " WHERE app_name = ? AND user_id = ? AND session_id = ? ORDER BY rowid"
)
_USER_STATES = "SELECT app_name, user_id, state FROM user_states ORDER BY app_name, user_id"
_APP_STATES = "SELECT app_name, NULL, state FROM app_states ORDER BY app_name"
_COUNT_EVENTS = "SELECT count(*) FROM events"


class AdkFile(ReadOnlyFile, Source):
    """A file of one of ADK's services, opened for reading only; a context manager."""

    def __init__(self, path: Path) -> None:
        """Opens the file and finds out which service wrote it.

        Raises:
            UnsupportedDatabaseError: If none of those that are known did.
            StorageError: If it cannot be read.
        """
        super().__init__(path, _BUSY_TIMEOUT)
        with closed_on_failure(self):
            self.layout = self._find_layout()

    @override
    def sessions(self) -> Iterator[SourceSession]:
        for *key, created, updated, state in self.rows(_SESSIONS):
            yield SourceSession(SessionKey(*key), _seconds(created), _seconds(updated), _object(state))

    @override
    def events(self, key: SessionKey) -> Iterator[Event]:
        for event_id, invocation_id, time, data in self.rows(_EVENTS, key):
            row = AdkEvent(event_id, invocation_id, _seconds(time), data)
            try:
                yield self._event(row)
            except (ValidationError, ValueError, TypeError) as error:
                raise UnreadableError(
                    f"event {event_id!r} cannot be read as an event ({type(error).__name__})"
                ) from None

    @override
    def scope_states(self) -> Iterator[ScopeState]:
        for statement in (_APP_STATES, _USER_STATES):
            for app_name, user_id, state in self.rows(statement):
                yield app_name, user_id, _object(state)

    def _event(self, row: AdkEvent) -> Event:
        if self.layout is Layout.SQLITE:
            return event_validator()(row.data or "")
        # As ADK's service puts it together: some columns count for more than the JSON.
        fields = json.loads(row.data or "{}")
        time = fields.get("timestamp", row.time)
        return Event.model_validate(
            {**fields, "id": row.event_id, "invocation_id": row.invocation_id, "timestamp": time}
        )

    def count_events(self) -> int:
        """Counts the events of all sessions."""
        return int(self._rows(_COUNT_EVENTS)[0][0])

    def _find_layout(self) -> Layout:
        columns = {name for (name,) in self._rows(_COLUMNS_OF_EVENTS)}
        if self._rows(_TABLE_EXISTS, ("adk_internal_metadata",)):
            versions = self._rows(_SCHEMA_VERSION)
            if versions == [("1",)]:
                return Layout.DATABASE
            raise UnsupportedDatabaseError(f"{str(self._path)!r} has a schema of ADK that is not known: {versions}")
        if "event_data" in columns:
            return Layout.SQLITE
        if "actions" in columns and self._rows(_TABLE_EXISTS, ("app_states",)):
            return Layout.PICKLED
        raise UnsupportedDatabaseError(f"{str(self._path)!r} is not a session database of ADK")

    def _rows(self, statement: str, parameters: tuple[object, ...] = ()) -> list[Any]:
        return list(self.rows(statement, parameters))


def _seconds(time: object) -> float:
    """Turns a time of either service into seconds since the epoch: a number, or UTC without saying so."""
    if isinstance(time, int | float):
        return float(time)
    try:
        return datetime.fromisoformat(str(time)).replace(tzinfo=UTC).timestamp()
    except ValueError:
        raise CorruptRowError(f"{time!r} stands where a time belongs") from None


def _object(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (TypeError, ValueError):
        return None
    return value if isinstance(value, dict) else None


_INSERT_SESSION = (
    "INSERT INTO sessions (app_name, user_id, id, state, create_time, update_time) VALUES (?, ?, ?, ?, ?, ?)"
    " ON CONFLICT DO NOTHING"
)
_INSERT_EVENT = (
    "INSERT INTO events (app_name, user_id, session_id, id, invocation_id, timestamp, event_data)"
    " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
)
# ADK reads back no time of a user's or an app's state.
_INSERT_APP_STATE = "INSERT INTO app_states (app_name, state, update_time) VALUES (?, ?, 0.0) ON CONFLICT DO NOTHING"
_INSERT_USER_STATE = (
    "INSERT INTO user_states (app_name, user_id, state, update_time) VALUES (?, ?, ?, 0.0) ON CONFLICT DO NOTHING"
)


class AdkFileWriter(ClosedAtExit):
    """A file of ADK's ``SqliteSessionService``, opened for putting whole sessions into it; a context manager."""

    def __init__(self, path: Path, schema: str) -> None:
        """Opens the file, creating it if it is missing.

        Args:
            path: The file.
            schema: ADK's own script that creates the tables where they are missing.

        Raises:
            UnsupportedDatabaseError: If it is another kind of file.
            StorageError: If it cannot be opened.
        """
        if not path.exists():
            create_private(path)
        elif path.stat().st_size:
            with AdkFile(path) as present:
                if present.layout is not Layout.SQLITE:
                    raise UnsupportedDatabaseError(f"{str(path)!r} is a file of {present.layout.value}")
        self._path = path
        self._connection = connect(path, "mode=rw", busy_timeout=_BUSY_TIMEOUT)
        with closed_on_failure(self._connection), translated(path):
            self._connection.executescript(schema)

    def close(self) -> None:
        """Closes the file. Idempotent."""
        self._connection.close()

    def put(self, session: SourceSession, events: Iterator[AdkEvent]) -> tuple[int, int] | None:
        """Puts a session with its events into the file, or nothing of it.

        Returns:
            How many events were put, and how many left out, since the session has one of the same id; None if the
            session was there.
        """
        with translated(self._path), transaction(self._connection):
            row = (*session.key, json.dumps(session.state), session.create_time, session.update_time)
            if self._connection.execute(_INSERT_SESSION, row).rowcount == 0:
                return None
            put = [self._connection.execute(_INSERT_EVENT, (*session.key, *event)).rowcount for event in events]
        return sum(put), put.count(0)

    def put_scope_state(self, app_name: str, user_id: str | None, state: str) -> None:
        """Sets the state of a user, or of an app if ``user_id`` is None, unless there is one."""
        with translated(self._path):
            if user_id is None:
                self._connection.execute(_INSERT_APP_STATE, (app_name, state))
            else:
                self._connection.execute(_INSERT_USER_STATE, (app_name, user_id, state))
