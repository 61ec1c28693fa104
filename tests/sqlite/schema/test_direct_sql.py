"""SQL of others beside an open service: what becomes of rows that are edited outside sessiondb, and of queries."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from google.adk.sessions import Session

from sessiondb import DatabaseSessionService, errors
from tests.sqlite.schema.rows import APP, SESSION, USER, event, get, rows

pytestmark = pytest.mark.anyio


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
