"""Counts are exact while they are small, and near the truth at any size; whoever asks is told which they are.

Seen to fail with an estimate of the span of row ids alone (what was deleted is counted too), with looks at the span and not
at what is left of it, and with places to look at that move while the table grows.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sessiondb import DatabaseSessionService
from sessiondb.model.queries import EXACT_UP_TO, MeasureStore
from sessiondb.model.records import StoreSize
from sessiondb.stores import open_import, open_reader
from tests.command import run_sessiondb
from tests.sqlite.schema.rows import APP, USER, event, rows

SESSIONS = 1_000
EVENTS = 25_000


@pytest.fixture
def path(database_path: Path) -> Path:
    """A file of 1,000 sessions of 25 events each, 8 of them under way at a time, each with a key of state."""
    open_import(database_path).close()
    numbers = "WITH RECURSIVE numbers (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < ?)"
    rows(
        database_path,
        "INSERT INTO adk_sessions (app_name, user_id, session_id, created_at, updated_at, update_time, incarnation, revision,"
        f" last_seq, log_epoch) {numbers} SELECT ?, ?, 's' || n, '', '', n, n + 1, 25, 25, 0 FROM numbers",
        SESSIONS,
        APP,
        USER,
    )
    rows(
        database_path,
        "INSERT INTO adk_events (app_name, user_id, session_id, invocation_id, author, timestamp, actions, seq, revision,"
        f" event_id, event_time, incarnation, event_hash) {numbers}, places (n, session) AS"
        " (SELECT n, n / 200 * 8 + n % 8 FROM numbers) SELECT ?, ?, 's' || session, 'inv', 'agent', '', '{}',"
        " n % 200 / 8 + 1, n % 200 / 8 + 1, 'e' || n, n, session + 1, n FROM places",
        EVENTS,
        APP,
        USER,
    )
    rows(
        database_path,
        "INSERT INTO adk_state SELECT app_name, user_id, session_id, 'SESSION', 'key', '1', '' FROM adk_sessions",
    )
    return database_path


def measured(path: Path, exact_up_to: int = 300) -> StoreSize:
    with open_reader(path) as reader:
        return reader.ask(MeasureStore(exact_up_to))


def counted(path: Path) -> int:
    ((events,),) = rows(path, "SELECT count(*) FROM adk_events")
    assert isinstance(events, int)
    return events


@pytest.mark.parametrize(
    ("exact_up_to", "estimated"),
    [
        (EVENTS, ()),
        (EVENTS - 1, ("events",)),
        (SESSIONS, ("events",)),
        (SESSIONS - 1, ("sessions", "events", "state_keys")),
        (0, ("sessions", "events", "state_keys")),
    ],
)
def test_only_counts_above_the_bound_are_estimates(path: Path, exact_up_to: int, estimated: tuple[str, ...]) -> None:
    size = measured(path, exact_up_to)
    assert size.estimated == estimated
    # Where nothing was deleted an estimate is exact too.
    assert (size.sessions, size.events, size.state_keys) == (SESSIONS, EVENTS, SESSIONS)


def test_small_count_is_exact_whatever_was_deleted(path: Path) -> None:
    rows(path, "DELETE FROM adk_sessions WHERE update_time NOT IN (0, 500, 999)")
    size = measured(path)
    assert (size.sessions, size.events, size.state_keys, size.estimated) == (3, 75, 3, ())


@pytest.mark.parametrize(
    ("deleted", "off"),
    [
        pytest.param("update_time < 900", 0.05, id="the old"),
        pytest.param("update_time BETWEEN 1 AND 900", 0.05, id="the old, but for the oldest"),
        pytest.param("update_time > 100", 0.05, id="the new"),
        pytest.param("random() % 2 = 0", 0.1, id="every other"),
        pytest.param("random() % 8 <> 0", 0.25, id="most, all over the file"),
    ],
)
def test_estimate_counts_what_was_deleted_off(path: Path, deleted: str, off: float) -> None:
    rows(path, f"DELETE FROM adk_sessions WHERE {deleted}")
    size = measured(path)
    assert "events" in size.estimated
    assert size.events == pytest.approx(counted(path), rel=off)


def test_estimate_finds_what_is_left_in_all_row_ids_there_are(path: Path) -> None:
    rows(path, "DROP TRIGGER adk_events_changed")
    rows(path, "UPDATE adk_events SET id = -9223372036854775808 WHERE id = 1")
    rows(path, "UPDATE adk_events SET id = id + 4000000000 WHERE id BETWEEN 2 AND 9999")
    rows(path, "UPDATE adk_events SET id = 9223372036854775807 WHERE id = 10000")
    assert measured(path).events == pytest.approx(EVENTS, rel=0.05)


def test_two_estimates_differ_by_what_came_in_between(path: Path) -> None:
    rows(path, "DELETE FROM adk_sessions WHERE update_time BETWEEN 1 AND 600 AND random() % 2")
    before = measured(path).events
    assert before != counted(path)
    copied = (
        "app_name, user_id, session_id, invocation_id, author, timestamp, actions, seq, revision, event_id, event_time"
    )
    for number in range(1, 40):
        rows(
            path,
            f"INSERT INTO adk_events ({copied}, incarnation, event_hash)"
            f" SELECT {copied}, incarnation, event_hash FROM adk_events ORDER BY id DESC LIMIT 7",
        )
        assert measured(path).events == before + 7 * number


@pytest.mark.anyio
async def test_get_stats_and_command_say_what_is_an_estimate(path: Path) -> None:
    assert SESSIONS < EXACT_UP_TO < EVENTS
    async with DatabaseSessionService(path) as service:
        session = await service.get_session(app_name=APP, user_id=USER, session_id="s999")
        assert session is not None
        await service.append_event(session, event())
        stats = service.get_stats()
    assert (stats["sessions"], stats["events"], stats["estimated"]) == (SESSIONS, EVENTS + 1, ("events",))
    answer = json.loads(run_sessiondb("stats", path, "--json").stdout)
    assert (answer["sessions"], answer["events"], answer["estimated"]) == (SESSIONS, EVENTS + 1, ["events"])
    shown = [line.split(maxsplit=1) for line in run_sessiondb("stats", path).stdout.splitlines()]
    assert shown[:3] == [["sessions", "1,000"], ["events", "about 25,001"], ["state_keys", "1,000"]]


@pytest.mark.anyio
async def test_every_count_of_a_small_file_is_exact(service: DatabaseSessionService, database_path: Path) -> None:
    assert (service.get_stats()["events"], service.get_stats()["estimated"]) == (0, ())
    session = await service.create_session(app_name=APP, user_id=USER, state={"a": 1, "user:b": 2})
    await service.append_event(session, event(c=3))
    stats = service.get_stats()
    assert (stats["sessions"], stats["events"], stats["state_keys"], stats["estimated"]) == (1, 1, 3, ())
    answer = json.loads(run_sessiondb("stats", database_path, "--json").stdout)
    assert answer["estimated"] == []
    assert "about" not in run_sessiondb("stats", database_path).stdout
