"""The SQLite files of ADK's own session services: reading them untouched, and writing those of one kind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from sessiondb.errors import UnsupportedDatabaseError
from sessiondb.stores.sqlite.connection import ClosedAtExit, closed_on_failure, connect, transaction
from sessiondb.stores.sqlite.errors import translated
from sessiondb.stores.sqlite.new_file import create_private
from sessiondb.stores.sqlite.readonly import ReadOnlyFile
from sessiondb.transfer.adk_tables import AdkEvent, AdkTables, Layout, Statements
from sessiondb.transfer.sources import SourceSession

_BUSY_TIMEOUT = 30.0
"""How long to wait for another program's lock, in seconds."""


class AdkFile(ReadOnlyFile, AdkTables):
    """A file of one of ADK's services, opened for reading only; a context manager."""

    statements = Statements(
        table_exists="SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?",
        columns_of_events="SELECT name FROM pragma_table_info('events')",
        sessions=(
            "SELECT app_name, user_id, id, create_time, update_time, state FROM sessions ORDER BY app_name, user_id, id"
        ),
        # The order in which rows were added is the order of the conversation; times tie and go back.
        events=(
            "SELECT id, invocation_id, timestamp, event_data FROM events"
            " WHERE app_name = ? AND user_id = ? AND session_id = ? ORDER BY rowid"
        ),
        user_states="SELECT app_name, user_id, state FROM user_states ORDER BY app_name, user_id",
        app_states="SELECT app_name, NULL, state FROM app_states ORDER BY app_name",
    )

    def __init__(self, path: Path) -> None:
        """Opens the file and finds out which service wrote it.

        Raises:
            UnsupportedDatabaseError: If none of those that are known did.
            StorageError: If it cannot be read.
        """
        super().__init__(path, _BUSY_TIMEOUT)
        with closed_on_failure(self):
            self.layout = self.find_layout(repr(str(path)))


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
