"""The tables: creating them, and finding out what a file has; :mod:`.upgrade` brings older ones up to date.

``adk_sessions``, ``adk_events`` and ``adk_state`` are public: people query them with SQL. ``sessiondb_meta`` is not.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from sessiondb.errors import UnsupportedDatabaseError
from sessiondb.stores.sqlite import text_index
from sessiondb.stores.sqlite.connection import connect, enter_wal_mode, transaction
from sessiondb.stores.sqlite.foreign import foreign_objects
from sessiondb.stores.sqlite.header import APPLICATION_ID, look
from sessiondb.stores.sqlite.upgrade import Step, upgrade

SCHEMA_VERSION = 2

# A new column stands where ALTER TABLE puts it, so that an upgraded file and a new one have the same text.

_TABLES = """
CREATE TABLE adk_sessions (
    app_name     TEXT NOT NULL,
    user_id      TEXT NOT NULL,
    session_id   TEXT NOT NULL,
    created_at   TEXT NOT NULL,
    updated_at   TEXT NOT NULL,
    update_time  REAL NOT NULL,
    incarnation  INTEGER NOT NULL,
    revision     INTEGER NOT NULL DEFAULT 0,
    last_seq     INTEGER NOT NULL DEFAULT 0,
    log_epoch    INTEGER NOT NULL DEFAULT 0, initial_state TEXT, begun_after INTEGER, forked_user_id TEXT, forked_session_id TEXT, forked_seq INTEGER, cut_seq INTEGER NOT NULL DEFAULT 0, cut_revision INTEGER NOT NULL DEFAULT 0, cut_time REAL,
    PRIMARY KEY (app_name, user_id, session_id)
);

-- The order of listings, page by page. Sessions in use were updated last, so their entries are together at its end: an append
-- changes few pages of it. With the app in front they would be anywhere, which costs an append several times as much.
CREATE INDEX adk_sessions_updated ON adk_sessions (update_time, user_id, session_id, app_name);
CREATE INDEX adk_sessions_forks ON adk_sessions (app_name, forked_user_id, forked_session_id) WHERE forked_seq IS NOT NULL;

CREATE TABLE adk_events (
    id             INTEGER PRIMARY KEY AUTOINCREMENT,
    app_name       TEXT NOT NULL,
    user_id        TEXT NOT NULL,
    session_id     TEXT NOT NULL,
    invocation_id  TEXT NOT NULL,
    author         TEXT NOT NULL,
    timestamp      TEXT NOT NULL,
    content        TEXT,
    actions        TEXT NOT NULL,
    extra          TEXT,
    seq            INTEGER NOT NULL,
    revision       INTEGER NOT NULL,
    event_id       TEXT NOT NULL,
    event_time     REAL NOT NULL,
    incarnation    INTEGER NOT NULL,
    event_hash     INTEGER NOT NULL,
    FOREIGN KEY (app_name, user_id, session_id)
        REFERENCES adk_sessions (app_name, user_id, session_id) ON DELETE CASCADE
);

-- The row id, which every index entry ends with, is the order of the log.
CREATE INDEX adk_events_log ON adk_events (app_name, user_id, session_id);

-- Finds an event that is delivered again, which has its time again. With the incarnation and the time in front an append
-- writes to the end of its session's entries; with the hash alone it writes anywhere among them, and of a long log each
-- append changes another page. The hash tells events of one time apart, at half the size of the id itself.
CREATE INDEX adk_events_identity ON adk_events (incarnation, event_time, event_hash);

CREATE TABLE adk_state (
    app_name     TEXT NOT NULL,
    user_id      TEXT,
    session_id   TEXT,
    scope        TEXT NOT NULL CHECK (scope IN ('SESSION', 'USER', 'APP')),
    state_key    TEXT NOT NULL,
    state_value  TEXT NOT NULL,
    updated_at   TEXT NOT NULL,
    PRIMARY KEY (app_name, user_id, session_id, scope, state_key)
);

-- NULLs are never equal, so the primary key is unique for SESSION rows only.
CREATE UNIQUE INDEX adk_state_user ON adk_state (app_name, user_id, state_key) WHERE scope = 'USER';
CREATE UNIQUE INDEX adk_state_app ON adk_state (app_name, state_key) WHERE scope = 'APP';

CREATE TABLE sessiondb_meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO sessiondb_meta VALUES ('incarnations', 0);

-- Readers keep decoded logs, so whoever changes or removes a row by hand must be noticed. What a prune removes was cut off
-- before, and noticed then.
CREATE TRIGGER adk_events_changed AFTER UPDATE ON adk_events BEGIN
    UPDATE adk_sessions SET log_epoch = log_epoch + 1
     WHERE (app_name, user_id, session_id) IN
           (VALUES (OLD.app_name, OLD.user_id, OLD.session_id), (NEW.app_name, NEW.user_id, NEW.session_id));
END;
CREATE TRIGGER adk_events_removed AFTER DELETE ON adk_events WHEN OLD.seq > (
    SELECT cut_seq FROM adk_sessions
     WHERE app_name = OLD.app_name AND user_id = OLD.user_id AND session_id = OLD.session_id
) BEGIN
    UPDATE adk_sessions SET log_epoch = log_epoch + 1
     WHERE app_name = OLD.app_name AND user_id = OLD.user_id AND session_id = OLD.session_id;
END;

-- Also for programs that delete without PRAGMA foreign_keys: nothing of a session may outlive it.
CREATE TRIGGER adk_sessions_deleted AFTER DELETE ON adk_sessions BEGIN
    DELETE FROM adk_events
     WHERE app_name = OLD.app_name AND user_id = OLD.user_id AND session_id = OLD.session_id;
    DELETE FROM adk_state
     WHERE app_name = OLD.app_name AND user_id = OLD.user_id AND session_id = OLD.session_id AND scope = 'SESSION';
END;
"""


class Schema(NamedTuple):
    """The tables as one version has them."""

    version: int
    tables: str
    """A script that creates them."""
    steps: Mapping[int, Step]
    """For each earlier version, what takes a file of it to the next one."""


def _to_version_2(connection: sqlite3.Connection) -> None:
    """Lets sessions say what they were created with, and be listed by their updates. Of those that are there nobody knows: NULL.

    Events are found by their time. An earlier release that has the file open goes on: the sessions that it creates have NULL
    too, and it looks through the index entries of a session for an event.
    """
    for column in ("initial_state TEXT", "begun_after INTEGER", *_FORK_COLUMNS, *_CUT_COLUMNS):
        connection.execute(f"ALTER TABLE adk_sessions ADD COLUMN {column}")
    connection.execute(
        "CREATE INDEX adk_sessions_forks ON adk_sessions (app_name, forked_user_id, forked_session_id)"
        " WHERE forked_seq IS NOT NULL"
    )
    connection.execute("CREATE INDEX adk_sessions_updated ON adk_sessions (update_time, user_id, session_id, app_name)")
    connection.execute("DROP TRIGGER adk_events_removed")
    connection.execute(next(one for one in _statements(_TABLES) if "CREATE TRIGGER adk_events_removed" in one))
    connection.execute("DROP INDEX adk_events_identity")
    connection.execute("CREATE INDEX adk_events_identity ON adk_events (incarnation, event_time, event_hash)")


_FORK_COLUMNS = ("forked_user_id TEXT", "forked_session_id TEXT", "forked_seq INTEGER")
_CUT_COLUMNS = ("cut_seq INTEGER NOT NULL DEFAULT 0", "cut_revision INTEGER NOT NULL DEFAULT 0", "cut_time REAL")

PRESENT = Schema(SCHEMA_VERSION, _TABLES, {1: _to_version_2})


def empty_database() -> sqlite3.Connection:
    """Opens a database in memory that has the present tables, with nothing in them."""
    connection = connect(Path("empty"), "mode=memory")
    connection.executescript(PRESENT.tables)
    return connection


def prepare(connection: sqlite3.Connection, path: Path, schema: Schema = PRESENT) -> None:
    """Puts a file into WAL mode, creates the tables in an empty one, and brings older ones up to date.

    All that once it is known to be ours or empty; else it is left as it was.
    """
    version = _version(connection, path, schema)
    enter_wal_mode(connection, path)
    if version is None:
        _create_tables(connection, path, schema)
    elif version < schema.version:
        upgrade(connection, path, schema.version, schema.steps)
        # A newer release may have been first, and gone further.
        _version(connection, path, schema)
    check_foreign_objects(connection, path)
    reload(connection)


def check_foreign_objects(connection: sqlite3.Connection, path: Path) -> int:
    """Looks whether triggers of other programs would change what is stored; returns the version of what was looked at."""
    (version,) = connection.execute("PRAGMA schema_version").fetchone()
    triggers = [found for found in foreign_objects(connection) if found.kind == "trigger"]
    harmful = [f"trigger {trigger.name!r} {trigger.harm}" for trigger in triggers if trigger.harm]
    if harmful:
        raise UnsupportedDatabaseError(
            f"{str(path)!r} has triggers of another program that would change what is stored: {'; '.join(harmful)}. Nothing"
            " was written: drop them (DROP TRIGGER), or have them write to tables of their own"
        )
    # In a schema that is not trusted SQLite takes a full-text table in a trigger for unsafe (3.40 does).
    is_trusted = triggers or text_index.exists(connection)
    connection.execute(f"PRAGMA trusted_schema={'ON' if is_trusted else 'OFF'}")
    return int(version)


def notice_index(connection: sqlite3.Connection) -> bool:
    """Looks whether another process has made an index, whose triggers SQLite takes for unsafe until that is noticed."""
    (is_trusted,) = connection.execute("PRAGMA trusted_schema").fetchone()
    if is_trusted or not text_index.exists(connection):
        return False
    connection.execute("PRAGMA trusted_schema=ON")
    return True


def reload(connection: sqlite3.Connection) -> None:
    """Has a connection look at the tables again, which another process may have created or altered meanwhile.

    The triggers of the temporary schema do not notice that by themselves: a statement must name a table first.
    """
    connection.execute("SELECT 1 FROM adk_sessions LIMIT 0")


def check_version(connection: sqlite3.Connection, path: Path) -> None:
    """Looks whether a file can be read as it is: it is ours, and of this version."""
    found = look(connection)
    if not found.is_ours:
        raise UnsupportedDatabaseError(f"{str(path)!r} is not a database of sessiondb")
    if found.version > SCHEMA_VERSION:
        raise UnsupportedDatabaseError(
            f"{str(path)!r} has schema version {found.version}; this version of sessiondb knows {SCHEMA_VERSION}:"
            " install a newer sessiondb"
        )
    if found.version < SCHEMA_VERSION:
        raise UnsupportedDatabaseError(
            f"{str(path)!r} has schema version {found.version}, an earlier one than {SCHEMA_VERSION}, which this version"
            " of sessiondb reads: it is brought up to date, and a copy kept, by the next service that opens it, or by"
            " `sessiondb vacuum`"
        )


def _create_tables(connection: sqlite3.Connection, path: Path, schema: Schema) -> None:
    with transaction(connection):
        # Another process may have been first.
        if _version(connection, path, schema) is None:
            for statement in _statements(schema.tables):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version={schema.version}")


def _version(connection: sqlite3.Connection, path: Path, schema: Schema) -> int | None:
    """Returns the version of a file of ours; None if it is empty."""
    found = look(connection)
    if found.is_ours:
        if found.version > schema.version:
            raise UnsupportedDatabaseError(
                f"{str(path)!r} has schema version {found.version}; this version of sessiondb knows {schema.version}."
                " It was not changed: install a newer sessiondb"
            )
        return found.version
    if not found.is_empty:
        raise UnsupportedDatabaseError(
            f"{str(path)!r} is a database of another program; it was not changed. Give sessiondb a file of its own"
        )
    return None


def _statements(script: str) -> list[str]:
    """Splits a script; executescript() would commit the transaction first."""
    statements: list[str] = []
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            statements.append(pending)
            pending = ""
    return statements
