"""Looking into a file from outside: connections of their own that cannot write, and leave nothing behind.

For commands, which run beside the programs that write. A service reads through its own pool instead.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

from sessiondb.errors import CorruptRowError, UnsupportedDatabaseError
from sessiondb.model.queries import MeasureStore
from sessiondb.model.records import SessionKey, StoreSize
from sessiondb.stores.sqlite import reads
from sessiondb.stores.sqlite.opening import ClosedAtExit, closed_on_failure
from sessiondb.stores.sqlite.quiet import QuietReader
from sessiondb.stores.sqlite.schema import APPLICATION_ID, SCHEMA_VERSION


class Selection(NamedTuple):
    """Which sessions, or events of which sessions, are meant; None stands for any."""

    app_name: str | None = None
    user_id: str | None = None
    session_id: str | None = None


EVERYTHING = Selection()


class SessionRow(NamedTuple):
    """A session in a listing."""

    key: SessionKey
    created_at: str
    updated_at: str
    update_time: float
    """Seconds since the epoch."""
    events: int
    """How many events were ever appended."""


class LoggedEvent(NamedTuple):
    """One event of the log, its JSON as it is stored."""

    row_id: int
    key: SessionKey
    seq: int
    revision: int
    timestamp: str
    event_id: str
    invocation_id: str
    author: str
    time: float
    content: str | None
    actions: str
    extra: str | None

    def as_dict(self) -> dict[str, Any]:
        """Returns the event as ADK writes one to JSON, fields that are unset left out.

        Raises:
            CorruptRowError: If a column does not hold what it should.
        """
        try:
            return {
                "id": self.event_id,
                "invocation_id": self.invocation_id,
                "author": self.author,
                "timestamp": self.time,
                **({} if self.content is None else {"content": _object(self.content)}),
                "actions": _object(self.actions),
                **({} if self.extra is None else _object(self.extra)),
            }
        except (TypeError, ValueError):
            raise CorruptRowError(
                f"row {self.row_id} of adk_events (event {self.seq} of session {self.key.session_id!r}, user"
                f" {self.key.user_id!r}, app {self.key.app_name!r}) does not hold JSON objects; it was edited outside"
                " sessiondb"
            ) from None


class StateRow(NamedTuple):
    """One key of state; its value is JSON as it is stored."""

    app_name: str
    user_id: str | None
    name: str
    value: str


def _object(text: str) -> dict[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise TypeError
    return value


_SESSIONS = "SELECT app_name, user_id, session_id, created_at, updated_at, update_time, last_seq FROM adk_sessions"
_KEYS = "SELECT app_name, user_id, session_id FROM adk_sessions"
_EVENT_COUNT = "SELECT count(*) FROM adk_events"
_STATE = "SELECT app_name, user_id, state_key, state_value FROM adk_state"
_EVENTS = (
    "SELECT id, app_name, user_id, session_id, seq, revision, timestamp, event_id, invocation_id, author, event_time,"
    " content, actions, extra FROM adk_events"
)
_HOLDS_KEY = (
    "json_valid(actions) AND EXISTS (SELECT 1 FROM json_each(actions, '$.state_delta') AS changed"
    " WHERE changed.key = :state_key)"
)


class Browser(ClosedAtExit):
    """A database opened for looking into it, also beside services that use it; a context manager.

    The file is not changed, and nothing is created beside it.
    """

    def __init__(self, path: Path, busy_timeout: float = 5.0) -> None:
        """Opens the file.

        Args:
            path: The file, which exists.
            busy_timeout: How long to wait for a lock, in seconds.

        Raises:
            UnsupportedDatabaseError: If it is not a database of sessiondb, or of another version.
            StorageError: If it cannot be read.
        """
        self._path = path
        self._reader = QuietReader(path, busy_timeout)
        with closed_on_failure(self):
            self._check_schema()

    def close(self) -> None:
        """Closes the file. Idempotent."""
        self._reader.close()

    @property
    def wal_bytes(self) -> int:
        """Bytes of the write-ahead log."""
        try:
            return self._path.with_name(self._path.name + "-wal").stat().st_size
        except FileNotFoundError:
            return 0

    def snapshot(self) -> AbstractContextManager[None]:
        """Makes all that is read within it be of one moment.

        Raises:
            DatabaseBusyError: At the end, if a program began to write meanwhile and what was read may be mixed up.
        """
        return self._reader.snapshot()

    def has_changed(self) -> bool:
        """Says whether something may have been written since this was last asked, or since the opening.

        Raises:
            FileLostError: If the file was removed.
            UnsupportedDatabaseError: If another kind of file has taken its place.
        """
        if not self._reader.has_changed():
            return False
        self._check_schema()
        return True

    def measure(self) -> StoreSize:
        """Counts sessions, events and state keys, and measures the file."""
        try:
            return reads.read(self._reader.connection, MeasureStore())
        except sqlite3.Error as error:
            raise self._reader.translated(error) from error

    def sessions(
        self, selection: Selection = EVERYTHING, *, limit: int | None = None, updated_before: float | None = None
    ) -> Iterator[SessionRow]:
        """Lists sessions, the one updated last first.

        Args:
            selection: Which ones.
            limit: At most this many.
            updated_before: Only those whose last update is before this moment, in seconds since the epoch; these come
                with the one updated longest ago first.
        """
        order, also = ("DESC", "") if updated_before is None else ("ASC", "update_time < :updated_before")
        statement = (
            f"{_SESSIONS} {_where(selection, also)} ORDER BY update_time {order}, app_name, user_id, session_id"
            " LIMIT :limit"
        )
        parameters = {"updated_before": updated_before, "limit": -1 if limit is None else limit}
        for app_name, user_id, session_id, *rest in self._rows(statement, selection, parameters):
            yield SessionRow(SessionKey(app_name, user_id, session_id), *rest)

    def session_keys(self, selection: Selection = EVERYTHING) -> Iterator[SessionKey]:
        """Lists the keys of sessions in their own order."""
        statement = f"{_KEYS} {_where(selection)} ORDER BY app_name, user_id, session_id"
        return map(SessionKey._make, self._rows(statement, selection))

    def events(self, selection: Selection = EVERYTHING, *, after: int = 0) -> Iterator[LoggedEvent]:
        """Reads events in the order of the log.

        Args:
            selection: Of which sessions.
            after: Only those whose ``row_id`` is above this.
        """
        return self._events(f"{_EVENTS} {_where(selection, 'id > :after')} ORDER BY id", selection, {"after": after})

    def newest_events(self, count: int, selection: Selection = EVERYTHING) -> Iterator[LoggedEvent]:
        """Reads the last events of the log, in its order; all that is read is kept in memory."""
        newest = f"{_EVENTS} {_where(selection)} ORDER BY id DESC LIMIT :count"
        return reversed(list(self._events(newest, selection, {"count": count})))

    def last_row_id(self) -> int:
        """Returns the ``row_id`` of the newest event; 0 if there is none."""
        ((newest,),) = self._rows("SELECT coalesce(max(id), 0) FROM adk_events")
        return int(newest)

    def changes(self, state_key: str, selection: Selection = EVERYTHING) -> Iterator[LoggedEvent]:
        """Reads, in the order of the log, the events whose state delta holds a key, given with its prefix."""
        statement = f"{_EVENTS} {_where(selection, _HOLDS_KEY)} ORDER BY id"
        return self._events(statement, selection, {"state_key": state_key})

    def count_events(self, key: SessionKey) -> int:
        """Counts the events of a session."""
        selection = Selection(*key)
        ((count,),) = self._rows(f"{_EVENT_COUNT} {_where(selection)}", selection)
        return int(count)

    def session_state(self, key: SessionKey) -> Iterator[StateRow]:
        """Reads the state of a session's own scope, by key."""
        selection = Selection(*key)
        return self._state(f"{_where(selection)} AND scope = 'SESSION'", selection)

    def user_state(self, selection: Selection = EVERYTHING) -> Iterator[StateRow]:
        """Reads the state of users, user by user; a session id in the selection has no meaning."""
        selection = selection._replace(session_id=None)
        return self._state(_where(selection, "scope = 'USER'"), selection)

    def app_state(self, selection: Selection = EVERYTHING) -> Iterator[StateRow]:
        """Reads the state of apps, app by app; only the app in the selection has a meaning."""
        selection = Selection(selection.app_name)
        return self._state(_where(selection, "scope = 'APP'"), selection)

    def _state(self, where: str, selection: Selection) -> Iterator[StateRow]:
        statement = f"{_STATE} {where} ORDER BY app_name, user_id, state_key"
        return map(StateRow._make, self._rows(statement, selection))

    def _events(self, statement: str, selection: Selection, parameters: dict[str, Any]) -> Iterator[LoggedEvent]:
        for row_id, app_name, user_id, session_id, *rest in self._rows(statement, selection, parameters):
            yield LoggedEvent(row_id, SessionKey(app_name, user_id, session_id), *rest)

    def _check_schema(self) -> None:
        ((application,),) = self._rows("PRAGMA application_id")
        ((version,),) = self._rows("PRAGMA user_version")
        if application != APPLICATION_ID:
            raise UnsupportedDatabaseError(f"{str(self._path)!r} is not a database of sessiondb")
        if version > SCHEMA_VERSION:
            raise UnsupportedDatabaseError(
                f"{str(self._path)!r} has schema version {version}; this version of sessiondb knows {SCHEMA_VERSION}:"
                " install a newer sessiondb"
            )
        if version < SCHEMA_VERSION:
            raise UnsupportedDatabaseError(
                f"{str(self._path)!r} has schema version {version}, an earlier one than {SCHEMA_VERSION}, which this version"
                " of sessiondb reads: it is brought up to date, and a copy kept, by the next service that opens it, or by"
                " `sessiondb vacuum`"
            )

    def _rows(
        self, statement: str, selection: Selection = EVERYTHING, parameters: dict[str, Any] | None = None
    ) -> Iterator[Any]:
        return self._reader.rows(statement, {**selection._asdict(), **(parameters or {})})


def _where(selection: Selection, *also: str) -> str:
    conditions = [f"{column} = :{column}" for column, value in selection._asdict().items() if value is not None]
    conditions += filter(None, also)
    return f"WHERE {' AND '.join(conditions)}" if conditions else ""
