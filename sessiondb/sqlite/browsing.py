"""Looking into a file from outside: connections of their own that cannot write, and leave nothing behind.

For commands, which run beside the programs that write. A service reads through its own pool instead.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import quote

from sessiondb.errors import CorruptRowError, DatabaseBusyError, FileLostError, StorageError, UnsupportedDatabaseError
from sessiondb.queries import MeasureStore
from sessiondb.records import SessionKey, StoreSize
from sessiondb.sqlite import reads
from sessiondb.sqlite.connection import open_reader, primary_code, translate
from sessiondb.sqlite.schema import APPLICATION_ID, SCHEMA_VERSION

_UNREADABLE = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY)


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
                f" {self.key.user_id!r}, app {self.key.app_name!r}) does not hold JSON objects; it was changed by hand"
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


class Browser:
    """A database opened for looking into it; a context manager. Not for several threads at once.

    A file whose write-ahead log exists is in use, or was when its last program died: it is read as the log says, with
    SQLite's locks. Otherwise all there is stands in the file itself, and is read without locks and without creating
    anything; a program that begins to write meanwhile is noticed.
    """

    def __init__(self, path: Path, busy_timeout: float = 5.0) -> None:
        """Opens the file.

        Args:
            path: The file, which exists.
            busy_timeout: How long to wait for a lock, in seconds.

        Raises:
            UnsupportedDatabaseError: If it is not a database of sessiondb, or of a newer version.
            StorageError: If it cannot be read.
        """
        self._path = path
        self._wal = path.with_name(path.name + "-wal")
        self._busy_timeout = busy_timeout
        self._version = 0
        self._open()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file. Idempotent."""
        self._connection.close()

    @property
    def wal_bytes(self) -> int:
        """Bytes of the write-ahead log."""
        try:
            return self._wal.stat().st_size
        except FileNotFoundError:
            return 0

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Makes all that is read within it be of one moment.

        Raises:
            DatabaseBusyError: At the end, if a program began to write meanwhile and what was read may be mixed up.
        """
        self._run("BEGIN")
        try:
            yield
        finally:
            self._run("COMMIT")
        if self._is_frozen and self._look() != self._known:
            raise self._began_to_write()

    def has_changed(self) -> bool:
        """Says whether something may have been written since this was last asked, or since the opening.

        Raises:
            FileLostError: If the file was removed.
        """
        now = self._look()
        if self._is_frozen or now[:2] != self._known[:2]:
            if now == self._known and not self._wal.exists():
                return False
            self._connection.close()
            self._open()
            return True
        known, self._version = self._version, self._data_version()
        return known != self._version

    def measure(self) -> StoreSize:
        """Counts sessions, events and state keys, and measures the file."""
        try:
            return reads.read(self._connection, MeasureStore())
        except sqlite3.Error as error:
            raise self._translated(error) from error

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

    def _open(self) -> None:
        self._is_frozen = not self._wal.exists()
        # Taken first: a change between this and the opening then counts as one, where it would else be missed.
        self._known = self._look()
        try:
            if self._is_frozen:
                # A connection that takes part in the log creates it, and one that cannot write never removes it.
                self._connection = sqlite3.connect(
                    f"file:{quote(str(self._path))}?mode=ro&immutable=1", uri=True, isolation_level=None
                )
            else:
                self._connection = open_reader(self._path, self._busy_timeout)
        except sqlite3.Error as error:
            raise self._translated(error) from error
        try:
            self._check_schema()
            self._version = self._data_version()
        except BaseException:
            self._connection.close()
            raise

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

    def _data_version(self) -> int:
        ((version,),) = self._rows("PRAGMA data_version")
        return int(version)

    def _look(self) -> tuple[int, int, int, int]:
        try:
            status = self._path.stat()
        except FileNotFoundError:
            raise FileLostError(f"{str(self._path)!r} was removed") from None
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns

    def _run(self, statement: str) -> None:
        for _ in self._rows(statement):
            pass

    def _rows(
        self, statement: str, selection: Selection = EVERYTHING, parameters: dict[str, Any] | None = None
    ) -> Iterator[Sequence[Any]]:
        try:
            with closing(self._connection.execute(statement, {**selection._asdict(), **(parameters or {})})) as rows:
                yield from rows
        except sqlite3.Error as error:
            if self._is_frozen and self._look() != self._known:
                raise self._began_to_write() from error
            raise self._translated(error) from error

    def _translated(self, error: sqlite3.Error) -> StorageError:
        if primary_code(error) in _UNREADABLE:
            return StorageError(f"{str(self._path)!r} cannot be read: {error}")
        return translate(error, self._path, reading=True)

    def _began_to_write(self) -> StorageError:
        return DatabaseBusyError(
            f"a program began to write to {str(self._path)!r} while it was read; run the command again"
        )


def _where(selection: Selection, *also: str) -> str:
    conditions = [f"{column} = :{column}" for column, value in selection._asdict().items() if value is not None]
    conditions += filter(None, also)
    return f"WHERE {' AND '.join(conditions)}" if conditions else ""
