"""The floor under an append: what plain SQLite takes, on one thread, to commit the rows that an append comes to."""

from __future__ import annotations

import time
from pathlib import Path

from sessiondb.options import Durability
from sessiondb.stores.sqlite.connection import connect

_TABLES = """
CREATE TABLE sessions (app TEXT, user TEXT, id TEXT, updated REAL, revision INTEGER, PRIMARY KEY (app, user, id));
CREATE TABLE events (
    id INTEGER PRIMARY KEY, app TEXT, user TEXT, session TEXT, seq INTEGER, event_id TEXT, time REAL, body TEXT
);
CREATE UNIQUE INDEX events_log ON events (app, user, session, seq);
CREATE TABLE state (app TEXT, user TEXT, session TEXT, key TEXT, value TEXT, PRIMARY KEY (app, user, session, key));
"""
_INSERT_EVENT = "INSERT INTO events (app, user, session, seq, event_id, time, body) VALUES (?, ?, ?, ?, ?, ?, ?)"
_UPDATE_SESSION = "UPDATE sessions SET updated = ?, revision = revision + 1 WHERE app = ? AND user = ? AND id = ?"
_UPSERT_STATE = """
INSERT INTO state VALUES (?, ?, ?, ?, ?)
ON CONFLICT (app, user, session, key) DO UPDATE SET value = excluded.value
"""


class Yardstick:
    """Appends to sessions by the shortest way there is: four prepared statements an event, and one COMMIT.

    No session objects, no JSON to make, no checks, no queue, no second thread: whatever a session service takes above
    this is its own. The file is in WAL mode and checkpointed outside of what is timed. For one thread.
    """

    def __init__(self, path: Path, *, durability: Durability = "full", sessions: int = 1) -> None:
        """Creates the file.

        Args:
            path: Where; nothing may be there yet.
            durability: ``"full"`` syncs at each COMMIT, ``"normal"`` at checkpoints only.
            sessions: How many sessions the events go to, in turn.
        """
        self._appended = 0
        self._sessions = sessions
        self._connection = connect(path, "mode=rwc", journal_mode="WAL", synchronous=durability, wal_autocheckpoint=0)
        execute = self._connection.execute
        self._connection.executescript(_TABLES)
        execute("BEGIN")
        for n in range(sessions):
            execute("INSERT INTO sessions VALUES ('app', 'user', ?, 0, 0)", (f"session-{n}",))
        execute("COMMIT")

    def commit(self, body: str, events: int = 1) -> float:
        """Commits ``events`` events with the JSON text ``body`` in one transaction; returns the seconds it took."""
        execute = self._connection.execute
        started = time.perf_counter()
        execute("BEGIN IMMEDIATE")
        for n in range(self._appended, self._appended + events):
            seq, number = divmod(n, self._sessions)
            session = f"session-{number}"
            execute(_INSERT_EVENT, ("app", "user", session, seq, f"event-{n}", started, body))
            execute(_UPDATE_SESSION, (started, "app", "user", session))
            execute(_UPSERT_STATE, ("app", "user", session, "step", str(n)))
            execute(_UPSERT_STATE, ("app", "user", "", "steps", str(n)))
        execute("COMMIT")
        seconds = time.perf_counter() - started
        self._appended += events
        return seconds

    def checkpoint(self) -> None:
        """Moves the write-ahead log into the file, as a service does between its commits."""
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()

    def close(self) -> None:
        """Closes the file."""
        self._connection.close()
