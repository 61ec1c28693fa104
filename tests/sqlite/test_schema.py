"""The tables as people query them with SQL, and what becomes of rows that are changed by hand."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from google.adk.events import Event, EventActions
from google.adk.sessions import Session
from google.genai import types

from sessiondb import DatabaseSessionService, errors
from sessiondb.stores.sqlite import schema
from tests.sqlite.schema.interrupted import connect

pytestmark = pytest.mark.anyio

APP, USER, SESSION = "my_app", "user_123", "sess_abc"

# The columns that the documentation names come first and have these types; sessiondb's own follow.
DOCUMENTED = {
    "adk_sessions": {
        "app_name": "TEXT",
        "user_id": "TEXT",
        "session_id": "TEXT",
        "created_at": "TEXT",
        "updated_at": "TEXT",
    },
    "adk_events": {
        "id": "INTEGER",
        "app_name": "TEXT",
        "user_id": "TEXT",
        "session_id": "TEXT",
        "invocation_id": "TEXT",
        "author": "TEXT",
        "timestamp": "TEXT",
        "content": "TEXT",
        "actions": "TEXT",
    },
    "adk_state": {
        "app_name": "TEXT",
        "user_id": "TEXT",
        "session_id": "TEXT",
        "scope": "TEXT",
        "state_key": "TEXT",
        "state_value": "TEXT",
        "updated_at": "TEXT",
    },
}
PRIMARY_KEYS = {
    "adk_sessions": ["app_name", "user_id", "session_id"],
    "adk_events": ["id"],
    "adk_state": ["app_name", "user_id", "session_id", "scope", "state_key"],
}
FIXED_WIDTH = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


def rows(path: Path, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
    """Runs a statement on a connection of its own, as another program does."""
    with closing(sqlite3.connect(path)) as connection, connection:
        return connection.execute(statement, parameters).fetchall()


def event(time: float = 1_000.0, **delta: object) -> Event:
    return Event(
        invocation_id="inv_1",
        author="agent",
        timestamp=time,
        content=types.Content(role="model", parts=[types.Part(text="grün")]),
        actions=EventActions(state_delta={name.replace("__", ":"): value for name, value in delta.items()}),
    )


async def get(service: DatabaseSessionService) -> Session:
    session = await service.get_session(APP, USER, SESSION)
    assert session is not None
    return session


async def test_schema_of_tables_is_as_documented(service: DatabaseSessionService, database_path: Path) -> None:
    for table, columns in DOCUMENTED.items():
        info = rows(database_path, f"PRAGMA table_info({table})")
        assert {name: kind for _, name, kind, *_ in info[: len(columns)]} == columns
        keys = sorted((place, name) for _, name, _, _, _, place in info if place)
        assert [name for _, name in keys] == PRIMARY_KEYS[table]
    references = rows(database_path, "PRAGMA foreign_key_list(adk_events)")
    assert [(row[2], row[3], row[4], row[6]) for row in references] == [
        ("adk_sessions", column, column, "CASCADE") for column in PRIMARY_KEYS["adk_sessions"]
    ]
    assert rows(database_path, "PRAGMA journal_mode") == [("wal",)]
    with closing(sqlite3.connect(database_path)) as connection:
        assert connection.execute("PRAGMA application_id").fetchone() == (0x53455344,)
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)


async def test_state_scope_columns_app_user_session(service: DatabaseSessionService, database_path: Path) -> None:
    session = await service.create_session(APP, USER, SESSION, {"own": 1, "user:theme": "dark", "app:version": [1]})
    await service.append_event(session, event(own=2, more=None, user__count=3, temp__trace="secret"))
    found = rows(
        database_path,
        "SELECT scope, app_name, user_id, session_id, state_key, state_value FROM adk_state ORDER BY scope, state_key",
    )
    assert found == [
        ("APP", APP, None, None, "version", "[1]"),
        ("SESSION", APP, USER, SESSION, "own", "2"),
        ("USER", APP, USER, None, "count", "3"),
        ("USER", APP, USER, None, "theme", '"dark"'),
    ]


async def test_temp_state_never_reaches_a_file(service: DatabaseSessionService, database_path: Path) -> None:
    trace = "only for this invocation"
    session = await service.create_session(APP, USER, SESSION, {"temp:trace": trace, "own": "for everybody"})
    await service.append_event(session, event(temp__trace=trace, own="for everybody"))
    await service.update_keys(APP, USER, SESSION, {"temp:trace": trace})
    files = _bytes_of_files(database_path.parent)
    assert len(files) == 3
    assert b"for everybody" in b"".join(files)
    assert trace.encode() not in b"".join(files)


def _bytes_of_files(folder: Path) -> list[bytes]:
    return [found.read_bytes() for found in folder.iterdir()]


STRANGERS = [
    ("other", USER, SESSION),
    (APP, "other", SESSION),
    (APP, USER, "other"),
    (APP, "%", SESSION),
    (APP, USER, "_" * 8),
]


@pytest.mark.parametrize("key", STRANGERS)
async def test_ids_of_other_users_and_sql_wildcards_find_nothing(
    service: DatabaseSessionService, key: tuple[str, str, str]
) -> None:
    owned = await service.create_session(APP, USER, SESSION, {"own": 1, "user:theme": "dark"})
    await service.append_event(owned, event(own=2))
    assert await service.get_session(*key) is None
    assert service.get_event_count(*key) == 0
    await service.delete_session(*key)
    with pytest.raises(errors.SessionNotFoundError):
        await service.update_keys(*key, {"own": "changed", "user:theme": "changed", "app:x": "changed"})
    app_name, user_id, session_id = key
    impostor = owned.model_copy(update={"app_name": app_name, "user_id": user_id, "id": session_id}, deep=True)
    with pytest.raises(errors.SessionNotFoundError):
        await service.append_event(impostor, event(own="changed", user__theme="changed"))
    assert await get(service) == owned
    created = await service.create_session(*key, {"own": "changed", "user:theme": "changed"})
    assert created.events == []
    assert (await get(service)).state["own"] == 2
    assert (await service.get_user_state(APP, USER))["theme"] == ("dark" if key[:2] != (APP, USER) else "changed")


async def test_duplicate_state_key_breaks_unique_index(service: DatabaseSessionService, database_path: Path) -> None:
    for number in range(3):
        await service.create_session(APP, USER, f"s{number}", {"own": number, "user:u": number, "app:a": number})
        await service.update_keys(APP, USER, "s0", {"own": -number, "user:u": -number, "app:a": -number})
    assert rows(database_path, "SELECT scope, count(*) FROM adk_state GROUP BY scope ORDER BY scope") == [
        ("APP", 1),
        ("SESSION", 3),
        ("USER", 1),
    ]
    duplicates = {
        "USER": (APP, USER, None, "USER", "u"),
        "APP": (APP, None, None, "APP", "a"),
        "SESSION": (APP, USER, "s0", "SESSION", "own"),
    }
    for row in duplicates.values():
        with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
            rows(database_path, "INSERT INTO adk_state VALUES (?, ?, ?, ?, ?, '1', '')", *row)
    with pytest.raises(sqlite3.IntegrityError, match="CHECK"):
        rows(database_path, "INSERT INTO adk_state VALUES (?, ?, ?, 'TEMP', 'k', '1', '')", APP, USER, "s0")


async def test_content_and_actions_are_json_for_sql(service: DatabaseSessionService, database_path: Path) -> None:
    session = await service.create_session(APP, USER, SESSION)
    await service.append_event(session, event(own="grün", gone=None))
    await service.append_event(session, Event(author="agent"))
    found = rows(
        database_path,
        "SELECT content ->> '$.parts[0].text', actions ->> '$.state_delta.own', actions -> '$.state_delta.gone'"
        " FROM adk_events ORDER BY id",
    )
    assert found == [("grün", "grün", "null"), (None, None, None)]
    assert len(rows(database_path, "SELECT 1 FROM adk_events WHERE actions LIKE '%grün%'")) == 1


async def test_timestamps_are_utc_text_that_sorts_by_time(service: DatabaseSessionService, database_path: Path) -> None:
    session = await service.create_session(APP, USER, SESSION)
    moments = [1_700_000_000.5, 0.0, -1.0, 1.0000005, 253_402_300_799.0, -62_135_596_800.0, 1_700_000_000.25, 1e9]
    for moment in moments:
        await service.append_event(session, event(moment, own=moment, user__u=moment))
    texts = rows(
        database_path,
        "SELECT timestamp FROM adk_events UNION ALL SELECT created_at FROM adk_sessions"
        " UNION ALL SELECT updated_at FROM adk_sessions UNION ALL SELECT updated_at FROM adk_state",
    )
    assert [text for (text,) in texts if not FIXED_WIDTH.fullmatch(text)] == []
    sorted_by_text = rows(database_path, "SELECT event_time FROM adk_events ORDER BY timestamp")
    assert [time for (time,) in sorted_by_text] == sorted(moments)
    assert rows(database_path, "SELECT timestamp FROM adk_events WHERE event_time = 0") == [
        ("1970-01-01T00:00:00.000000Z",)
    ]
    assert rows(database_path, "SELECT updated_at, update_time FROM adk_sessions") == [
        ("2001-09-09T01:46:40.000000Z", 1e9)
    ]


async def test_event_seq_has_no_gaps(service: DatabaseSessionService, database_path: Path) -> None:
    session = await service.create_session(APP, USER, SESSION)
    other = await service.create_session(APP, USER, "other")
    for number in range(5):
        await service.append_event(session, event(own=number))
        await service.append_event(other, event())
        await service.append_event(session, session.events[0])
        await service.update_keys(APP, USER, SESSION, {"own": -number})
    found = rows(database_path, "SELECT seq, revision FROM adk_events WHERE session_id = ? ORDER BY id", SESSION)
    assert found == [(seq, (seq + 1) // 2) for seq in range(1, 11)]
    assert rows(database_path, "SELECT last_seq, revision FROM adk_sessions WHERE session_id = ?", SESSION) == [(10, 5)]


@pytest.fixture
async def warm(service: DatabaseSessionService) -> Session:
    """A session of three events, which the service holds decoded."""
    session = await service.create_session(APP, USER, SESSION)
    for number in range(3):
        await service.append_event(session, event(1_000.0 + number, own=number))
    assert await get(service) == session
    hits = service.get_stats()["cache_hits"]
    assert await get(service) == session
    assert service.get_stats()["cache_hits"] == hits + 1
    return session


async def test_sql_update_of_event_invalidates_cache(
    service: DatabaseSessionService, warm: Session, database_path: Path
) -> None:
    for place in range(3):
        rows(database_path, "UPDATE adk_events SET author = 'changed' WHERE event_id = ?", warm.events[place].id)
        authors = [found.author for found in (await get(service)).events]
        assert authors == ["changed"] * (place + 1) + ["agent"] * (2 - place)


@pytest.mark.parametrize("place", [0, 1, 2])
async def test_sql_delete_of_event_invalidates_cache(
    service: DatabaseSessionService, warm: Session, database_path: Path, place: int
) -> None:
    rows(database_path, "DELETE FROM adk_events WHERE event_id = ?", warm.events[place].id)
    left = [found.id for number, found in enumerate(warm.events) if number != place]
    assert [found.id for found in (await get(service)).events] == left
    # The handle is as good as before: nobody has appended.
    await service.append_event(warm, event())
    assert [found.id for found in (await get(service)).events][:-1] == left


async def test_sql_move_of_event_is_seen_in_both_sessions(
    service: DatabaseSessionService, warm: Session, database_path: Path
) -> None:
    other = await service.create_session(APP, USER, "other")
    assert await service.get_session(APP, USER, "other") == other
    rows(database_path, "UPDATE adk_events SET session_id = 'other' WHERE event_id = ?", warm.events[0].id)
    assert [found.id for found in (await get(service)).events] == [found.id for found in warm.events[1:]]
    moved = await service.get_session(APP, USER, "other")
    assert moved is not None
    assert [found.id for found in moved.events] == [warm.events[0].id]


async def test_sql_changes_of_other_process_invalidate_cache(
    service: DatabaseSessionService, warm: Session, database_path: Path
) -> None:
    _elsewhere(database_path, "UPDATE adk_events SET author = 'elsewhere'; DELETE FROM adk_events WHERE seq = 2")
    assert [found.author for found in (await get(service)).events] == ["elsewhere"] * 2


async def test_sql_change_of_state_is_seen(service: DatabaseSessionService, warm: Session, database_path: Path) -> None:
    rows(database_path, "UPDATE adk_state SET state_value = '\"by hand\"' WHERE state_key = 'own'")
    assert (await get(service)).state == {"own": "by hand"}
    rows(database_path, "DELETE FROM adk_state")
    assert (await get(service)).state == {}


@pytest.mark.parametrize("foreign_keys", ["ON", "OFF"])
async def test_sql_delete_of_session_cascades(
    service: DatabaseSessionService, warm: Session, database_path: Path, foreign_keys: str
) -> None:
    await service.create_session(APP, USER, "other", {"own": 1, "user:theme": "dark", "app:version": 1})
    with closing(sqlite3.connect(database_path)) as connection, connection:
        connection.execute(f"PRAGMA foreign_keys={foreign_keys}")
        connection.execute("DELETE FROM adk_sessions WHERE session_id = ?", (SESSION,))
    assert rows(database_path, "SELECT count(*) FROM adk_events") == [(0,)]
    assert rows(database_path, "SELECT scope FROM adk_state ORDER BY scope") == [("APP",), ("SESSION",), ("USER",)]
    assert await service.get_session(APP, USER, SESSION) is None
    with pytest.raises(errors.SessionNotFoundError):
        await service.append_event(warm, event())
    renewed = await service.create_session(APP, USER, SESSION)
    assert (renewed.events, renewed.state) == ([], {"user:theme": "dark", "app:version": 1})
    assert await get(service) == renewed


async def test_session_recreated_by_other_service_invalidates_cache(
    service: DatabaseSessionService, warm: Session, database_path: Path
) -> None:
    async with DatabaseSessionService(database_path) as other:
        await other.delete_session(APP, USER, SESSION)
        renewed = await other.create_session(APP, USER, SESSION)
        for each in warm.events:
            await other.append_event(renewed, each.model_copy(update={"author": "renewed"}))
    assert await get(service) == renewed


def _elsewhere(path: Path, statements: str) -> list[list[Any]]:
    """Runs statements in a process of their own, which also closes the file; returns the rows of the last one."""
    program = (
        "import json, sqlite3, sys\n"
        "connection = sqlite3.connect(sys.argv[1])\n"
        "for statement in sys.argv[2].split(';'):\n"
        "    rows = connection.execute(statement).fetchall()\n"
        "connection.commit()\n"
        "connection.close()\n"
        "print(json.dumps(rows))"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path), statements], check=True, capture_output=True)
    answer: list[list[Any]] = json.loads(done.stdout)
    return answer


def events_of_a_session(path: Path) -> list[str]:
    """The documentation's example of querying events, but for the path."""
    conn = sqlite3.connect(path)
    conn.row_factory = sqlite3.Row

    # Get all events for a session
    events = conn.execute(
        """
        SELECT invocation_id, author, timestamp, content, actions
        FROM adk_events
        WHERE app_name=? AND user_id=? AND session_id=?
        ORDER BY timestamp DESC
    """,
        ("my_app", "user_123", "sess_abc"),
    ).fetchall()

    lines = [f"{event['timestamp']}: {event['invocation_id']}" for event in events]

    conn.close()
    return lines


def changes_of_a_key(path: Path) -> list[str]:
    """The documentation's example of an audit trail, but for the path; the connection is left to the collector."""
    conn = sqlite3.connect(path)

    # Get all state changes for a key
    changes = conn.execute(
        """
        SELECT timestamp, actions
        FROM adk_events
        WHERE app_name=? AND user_id=? AND session_id=?
          AND actions LIKE ?
        ORDER BY timestamp
    """,
        ("my_app", "user_123", "sess_abc", "%model_path%"),
    ).fetchall()

    lines = []
    for change in changes:
        actions = json.loads(change[1])
        lines.append(f"{change[0]}: {actions.get('state_delta', {}).get('model_path')}")
    conn.close()
    return lines


async def test_sql_queries_in_same_process_lose_no_append(
    database_path: Path,
) -> None:
    appended = 60
    begun = threading.Event()
    finished = threading.Event()
    looks: list[int] = []

    def look() -> None:
        begun.wait()
        while not finished.is_set():
            looks.append(len(events_of_a_session(database_path)))
            looks.append(len(changes_of_a_key(database_path)))

    async with DatabaseSessionService(database_path) as service:
        session = await service.create_session(APP, USER, SESSION)
        onlooker = threading.Thread(target=look)
        onlooker.start()
        seen_elsewhere = []
        for number in range(appended):
            await service.append_event(session, event(1_000.0 + number, model_path=f"/models/{number}"))
            begun.set()
            # Each close in between may be the moment at which SQLite takes itself for the last to leave.
            await asyncio.to_thread(events_of_a_session, database_path)
            if number % 20 == 19:
                # Another process sees what really is in the file, not what this one believes to be there.
                ((count,),) = _elsewhere(database_path, "SELECT count(*) FROM adk_events")
                seen_elsewhere.append(count)
        finished.set()
        await asyncio.to_thread(onlooker.join)
        assert seen_elsewhere == [20, 40, 60]
        assert looks
        assert looks == sorted(looks)
        lines = events_of_a_session(database_path)
        assert lines[0] == "1970-01-01T00:17:39.000000Z: inv_1"
        assert len(lines) == appended
        trail = changes_of_a_key(database_path)
        assert trail[-1] == "1970-01-01T00:17:39.000000Z: /models/59"
        assert [line.rpartition("/")[2] for line in trail] == [str(number) for number in range(appended)]
        # And the writer goes on.
        await service.append_event(session, event(2_000.0))
        assert _elsewhere(database_path, "SELECT count(*) FROM adk_events") == [[appended + 1]]
    assert len(events_of_a_session(database_path)) == appended + 1
    assert rows(database_path, "PRAGMA integrity_check") == [("ok",)]
    async with DatabaseSessionService(database_path) as reopened:
        assert await get(reopened) == session


async def test_sql_inserts_of_other_process_are_kept(database_path: Path) -> None:
    async with DatabaseSessionService(database_path) as service:
        session = await service.create_session(APP, USER, SESSION)
        for number in range(3):
            await service.append_event(session, event(own=number))
            _elsewhere(
                database_path, f"INSERT INTO adk_state VALUES ('my_app', NULL, NULL, 'APP', 'k{number}', '1', '')"
            )
        assert (await get(service)).state == {"own": 2, "app:k0": 1, "app:k1": 1, "app:k2": 1}


# --- Creating the tables ----------------------------------------------------------------------------------------------


def test_create_tables_when_other_process_was_first(database_path: Path) -> None:
    def let_another_be_first(statement: str) -> None:
        if statement == "BEGIN IMMEDIATE":
            with closing(sqlite3.connect(database_path, isolation_level=None)) as other:
                schema.prepare(other, database_path)
                other.execute("UPDATE sessiondb_meta SET value = 7")

    with closing(connect(database_path, let_another_be_first)) as connection:
        schema.prepare(connection, database_path)
        assert not connection.in_transaction
    assert rows(database_path, "SELECT value FROM sessiondb_meta") == [(7,)]


def test_create_tables_is_all_or_nothing(database_path: Path) -> None:
    def fail(statement: str) -> None:
        if "CREATE TRIGGER" in statement:
            raise sqlite3.OperationalError("disk I/O error")

    with closing(connect(database_path, fail)) as connection:
        with pytest.raises(sqlite3.OperationalError):
            schema.prepare(connection, database_path)
        assert not connection.in_transaction
    assert rows(database_path, "SELECT count(*) FROM sqlite_schema") == [(0,)]
    assert rows(database_path, "PRAGMA application_id") == [(0,)]


def test_create_tables_after_rollback_by_sqlite(database_path: Path) -> None:
    def end_and_fail(statement: str) -> None:
        if "CREATE TRIGGER" in statement:
            sqlite3.Connection.execute(connection, "ROLLBACK")
            raise sqlite3.OperationalError("disk I/O error")

    with (
        closing(connect(database_path, end_and_fail)) as connection,
        pytest.raises(sqlite3.OperationalError, match="disk I/O error"),
    ):
        schema.prepare(connection, database_path)
    assert rows(database_path, "SELECT count(*) FROM sqlite_schema") == [(0,)]
