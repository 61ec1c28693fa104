"""What is kept of sessions and logs, on each store."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
import time
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from google.adk.events import Event, EventActions
from google.adk.sessions import Session
from google.adk.sessions.base_session_service import GetSessionConfig
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sessiondb import DatabaseSessionService, Retention
from sessiondb.adk.events import decode_event
from sessiondb.calls import prune as one_prune
from sessiondb.calls import pruning
from sessiondb.errors import (
    ConfigurationError,
    EventNotFoundError,
    StorageError,
    TurnTimeoutError,
    UnknownBeginningError,
)
from sessiondb.stores import check, open_import, open_reader, resolve_database
from sessiondb.transfer import import_lines, migrate_sessiondb
from sessiondb.transfer.jsonl import export_lines
from tests.contract.places import APP, SESSION, USER, event
from tests.contract.test_past import STEPS, _own, _step
from tests.databases import query
from tests.engine import processes

pytestmark = [pytest.mark.anyio, pytest.mark.each_store]

DAY = 86400.0
LATER = 4_000_000_000.0
"""When events are: after all sessions were created."""
HOSTILE = ["' OR 1=1 --", "%", 'a"b', "日本🤖", "{}", "$1 %(x)s :seq"]
_apps = count()


async def get(service: DatabaseSessionService, name: str = SESSION, *, user: str = USER, app: str = APP) -> Session:
    session = await service.get_session(app, user, name)
    assert session is not None
    return session


async def filled(
    service: DatabaseSessionService, events: int, name: str = SESSION, *, user: str = USER, app: str = APP
) -> Session:
    """A session whose events are each an invocation of its own, and set `n` to their number."""
    session = await service.create_session(app, user, name, {"n": 0, "kept": "k", "gone": 1})
    await service.append_events(session, [numbered(number) for number in range(1, events + 1)])
    return session


def numbered(number: int, at: float = LATER) -> Event:
    delta: dict[str, Any] = {"n": number, **({"gone": None, "user:u": 1} if number == 1 else {})}
    return Event(
        id=f"e{number}",
        invocation_id=f"inv {number}",
        author="agent",
        timestamp=at + number,
        actions=EventActions(state_delta=delta),
    )


async def used(
    service: DatabaseSessionService, name: str, days_ago: float, *, user: str = USER, app: str = APP
) -> None:
    """A session that was used last so many days ago."""
    session = await service.create_session(app, user, name, {"own": 1, "user:u": name})
    await service.append_event(session, event(time.time() - days_ago * DAY, event_id=f"last of {name}"))


async def names(service: DatabaseSessionService, app: str | None = None) -> list[str]:
    return sorted(row["session_id"] for row in await service.list_sessions(app))


def tables(location: Path | str) -> list[list[tuple[Any, ...]]]:
    return [query(location, f"SELECT * FROM {table} ORDER BY 1, 2, 3, 4") for table in ("adk_sessions", "adk_events")]


def assert_sound(location: Path | str) -> None:
    report = check(resolve_database(location), decode_event)
    assert report.is_sound, report.findings
    assert not report.notes.count


# --- Logs -------------------------------------------------------------------------------------------------------------


async def test_log_is_cut_and_all_that_is_left_works(service: DatabaseSessionService, location: Path | str) -> None:
    session = await filled(service, 10)
    cached = await get(service)
    report = await service.prune(Retention(max_events=3))
    assert (report.trimmed, report.events, report.sessions, report.in_use, report.uncut) == (1, 7, 0, 0, 0)
    assert not report.dry_run
    left = await get(service)
    assert [each.id for each in left.events] == ["e8", "e9", "e10"]
    assert left.state == {"n": 10, "kept": "k", "user:u": 1}
    assert service.get_event_count(APP, USER, SESSION) == 3
    # A Session that was open goes on, and one that it has overtaken is as stale as ever.
    await service.append_event(session, numbered(11))
    assert [each.id for each in (await get(service)).events] == ["e8", "e9", "e10", "e11"]
    assert (await service.append_event(left, left.events[0])) is left.events[0]
    assert len(cached.events) == 10
    recent = await service.get_session(APP, USER, SESSION, GetSessionConfig(num_recent_events=2))
    assert recent is not None
    assert [each.id for each in recent.events] == ["e10", "e11"]
    # The past: what is left, and the moment of the cut.
    for seq, moment in ((7, {"seq": 7}), (7, {"time": LATER + 7.5}), (8, {"event_id": "e8"}), (11, {"seq": 11})):
        past = await service.get_session_at(APP, USER, SESSION, **moment)
        assert past is not None
        assert (past.state["n"], past.state["kept"], "gone" in past.state) == (seq, "k", False)
        assert [each.id for each in past.events] == [f"e{number}" for number in range(8, seq + 1)]
        assert past.last_update_time == LATER + seq
    for moment in ({"seq": 6}, {"seq": 0}, {"event_id": "e7"}, {"time": LATER + 6.5}):
        with pytest.raises(EventNotFoundError, match=r"were pruned"):
            await service.get_session_at(APP, USER, SESSION, **moment)
    assert await service.get_session_at(APP, USER, SESSION, time=1.0) is None
    told = [(c.seq, c.key, c.old, c.new, c.existed, c.time) for c in await service.history(APP, USER, SESSION)]
    assert sorted(told[:2]) == [(0, "kept", None, "k", None, LATER + 7), (0, "n", None, 7, None, LATER + 7)]
    assert told[2:] == [(n, "n", n - 1, n, True, LATER + n) for n in (8, 9, 10, 11)]
    # Forks have the numbers of what they come from, and know that it was cut.
    fork = await service.fork_session(APP, USER, SESSION, at_event_id="e9")
    assert ([each.id for each in fork.events], _own(fork)) == (["e8", "e9"], {"n": 9, "kept": "k"})
    with pytest.raises(EventNotFoundError, match=r"were pruned"):
        await service.fork_session(APP, USER, SESSION, at_event_id="e7")
    with pytest.raises(EventNotFoundError, match=r"were pruned"):
        await service.get_session_at(APP, USER, fork.id, seq=6)
    await service.append_event(fork, numbered(3))
    past = await service.get_session_at(APP, USER, fork.id, seq=10)
    assert past is not None
    assert past.state["n"] == 3
    # Pages, from a cursor before the cut, too.
    page = await service.get_events(APP, USER, SESSION, limit=3)
    assert [each.id for each in page.events] == ["e8", "e9", "e10"]
    await service.prune(Retention(max_events=1), user_id=USER)
    assert [each.id for each in (await service.get_events(APP, USER, SESSION, after=page.next)).events] == ["e11"]
    assert [each.id for each in (await service.get_events(APP, USER, SESSION)).events] == ["e11"]
    (row,) = [
        row for row in query(location, "SELECT session_id, cut_seq, last_seq FROM adk_sessions") if row[0] == SESSION
    ]
    assert row == (SESSION, 10, 11)
    assert_sound(location)


async def test_all_that_is_left_of_a_log_can_be_cut_off(service: DatabaseSessionService, location: Path | str) -> None:
    await filled(service, 10)
    await service.prune(Retention(max_events=3))
    session = await service.truncate_session(APP, USER, SESSION, after_event_id=None)
    assert (session.events, _own(session)) == ([], {"n": 7, "kept": "k"})
    await service.append_event(session, numbered(8))
    assert [each.id for each in (await get(service)).events] == ["e8"]
    assert_sound(location)


async def test_other_process_notices_that_a_log_was_cut(service: DatabaseSessionService, location: Path | str) -> None:
    await filled(service, 50)
    await service.prune(Retention(max_events=40))
    await get(service)
    processes.run_forked(_prune, location, 30)
    assert [each.id for each in (await get(service)).events] == [f"e{n}" for n in range(21, 51)]


def _prune(location: str, max_events: str) -> None:
    async def run() -> None:
        place = location if location.startswith("postgresql:") else Path(location)
        async with DatabaseSessionService(place) as service:
            report = await service.prune(Retention(max_events=int(max_events)))
            processes.say(report.sessions, report.trimmed, report.events, report.in_use)

    asyncio.run(run())


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(steps=STEPS, max_events=st.integers(1, 4), known=st.booleans(), at_once=st.integers(1, 4))
def test_past_after_a_cut_is_what_it_was_before(
    location: Path | str, steps: list[tuple[str, str, dict[str, Any]]], max_events: int, known: bool, at_once: int
) -> None:
    async def live() -> None:
        app = f"app {next(_apps)}"
        async with DatabaseSessionService(location) as service:
            for name, kind, delta in steps:
                await _step(service, app, name, kind, delta)
            if not known:
                query(location, "UPDATE adk_sessions SET initial_state = NULL WHERE app_name = ?", app)
            before: dict[tuple[str, int], Session | None] = {}
            for row in await service.list_sessions(app):
                name = row["session_id"]
                for seq in range(len((await get(service, name, app=app)).events) + 1):
                    before[name, seq] = await _at(service, app, name, seq)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(one_prune, "EVENTS_AT_ONCE", at_once)
                await service.prune(Retention(max_events=max_events), app_name=app)
            for (name, seq), was in before.items():
                selected = "SELECT cut_seq FROM adk_sessions WHERE app_name = ? AND session_id = ?"
                ((cut,),) = query(location, selected, app, name)
                if seq < cut:
                    with pytest.raises(EventNotFoundError, match="were pruned"):
                        await service.get_session_at(app, USER, name, seq=seq)
                    continue
                past = await _at(service, app, name, seq)
                if was is not None and past is not None:
                    assert past.events == was.events[cut:]
                    assert _own(past) == _own(was)
                # What was not known is known since, or is not; the other way round if the log began with what is gone.
                assert (was is None) >= (past is None) or not known

    asyncio.run(live())
    assert_sound(location)


async def _at(service: DatabaseSessionService, app: str, name: str, seq: int) -> Session | None:
    try:
        return await service.get_session_at(app, USER, name, seq=seq)
    except UnknownBeginningError:
        return None


# --- Sessions ---------------------------------------------------------------------------------------------------------


async def test_idle_old_and_supernumerary_sessions_go(service: DatabaseSessionService, location: Path | str) -> None:
    for days in (100, 50, 10, 1):
        await used(service, f"{days}", days)
        await used(service, f"{days} of bob", days, user="bob")
    await used(service, "other", 100, app="another app")
    # Idle: by the last update. Whose it is may be said.
    report = await service.prune(Retention(idle=timedelta(days=30)), app_name=APP, user_id="bob")
    assert (report.sessions, report.events, report.trimmed) == (2, 2, 0)
    assert await names(service, APP) == ["1", "1 of bob", "10", "10 of bob", "100", "50"]
    # Each user keeps those that were updated last.
    report = await service.prune(Retention(max_sessions_per_user=2), app_name=APP)
    assert (report.sessions, await names(service, APP)) == (2, ["1", "1 of bob", "10", "10 of bob"])
    # Old: by the creation, in use or not.
    query(location, "UPDATE adk_sessions SET created_at = '2020-01-01T00:00:00.000000Z' WHERE session_id = ?", "1")
    report = await service.prune(Retention(age=DAY))
    assert (report.sessions, await names(service)) == (1, ["1 of bob", "10", "10 of bob", "other"])
    assert await names(service, "another app") == ["other"]
    # State of users stays, that of sessions goes.
    assert await service.get_user_state(APP, USER) == {"u": "1"}
    assert query(location, "SELECT session_id FROM adk_state WHERE session_id = ?", "1") == []
    assert query(location, "SELECT count(*) FROM adk_events") == [(4,)]


async def test_many_are_gone_through_page_by_page(
    service: DatabaseSessionService, location: Path | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one_prune, "SESSIONS_AT_ONCE", 3)
    monkeypatch.setattr(one_prune, "EVENTS_AT_ONCE", 4)
    for user in (*HOSTILE, "u"):
        for days in (1, 2, 3, 4):
            await used(service, f"{days}", days, user=user)
    await filled(service, 12, "long", user="u")
    report = await service.prune(Retention(max_sessions_per_user=2, max_events=5))
    left = query(location, "SELECT user_id, session_id FROM adk_sessions")
    assert sorted(left) == sorted([(user, day) for user in HOSTILE for day in "12"] + [("u", "1"), ("u", "long")])
    assert (report.sessions, report.trimmed, report.events) == (2 * len(HOSTILE) + 3, 1, 2 * len(HOSTILE) + 3 + 7)
    assert_sound(location)


async def test_long_log_goes_in_parts_before_its_session(
    service: DatabaseSessionService, location: Path | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one_prune, "EVENTS_AT_ONCE", 4)
    session = await filled(service, 18)
    await service.append_events(
        session, [numbered(n).model_copy(update={"invocation_id": "one"}) for n in range(19, 31)]
    )
    seen: list[tuple[int, int]] = []
    write = service._shared.write_from_thread

    def watched(command: Any) -> Any:
        done = write(command)
        seen.extend(query(location, "SELECT cut_seq, (SELECT count(*) FROM adk_events) FROM adk_sessions"))
        return done

    monkeypatch.setattr(service._shared, "write_from_thread", watched)
    monkeypatch.setattr("google.adk.platform.time.get_time", lambda: LATER + 10 * DAY)
    report = await service.prune(Retention(idle=DAY))
    assert (report.sessions, report.trimmed, report.events) == (1, 0, 30)
    # An invocation is not divided, however long it is.
    assert seen == [(4, 26), (8, 22), (12, 18), (16, 14), (18, 12)]
    assert tables(location) == [[], []]


async def test_session_that_is_used_meanwhile_stays(
    service: DatabaseSessionService, location: Path | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one_prune, "EVENTS_AT_ONCE", 4)
    for name in ("a", "b", "c"):
        await used(service, name, 100)
    long = await filled(service, 12, "long")
    begun = asyncio.Event()
    go_on = threading.Event()
    loop = asyncio.get_running_loop()
    write = service._shared.write_from_thread

    def waiting(command: Any) -> Any:
        loop.call_soon_threadsafe(begun.set)
        assert go_on.wait(30)
        return write(command)

    monkeypatch.setattr(service._shared, "write_from_thread", waiting)
    monkeypatch.setattr("google.adk.platform.time.get_time", lambda: LATER + 10 * DAY)
    pruning_task = asyncio.ensure_future(service.prune(Retention(idle=DAY)))
    await begun.wait()
    await service.append_event(await get(service, "b"), event(LATER + 10 * DAY, event_id="back"))
    await service.update_keys(APP, USER, "c", {"from": "outside"})
    await service.append_event(long, numbered(13))
    go_on.set()
    report = await pruning_task
    assert (report.sessions, report.in_use) == (1, 3)
    assert await names(service) == ["b", "c", "long"]
    assert len((await get(service, "long")).events) == 13


# --- Nothing else -----------------------------------------------------------------------------------------------------


async def test_dry_run_counts_and_writes_nothing(
    service: DatabaseSessionService, location: Path | str, tmp_path: Path
) -> None:
    await used(service, "old", 100)
    await filled(service, 10)
    before = tables(location)
    retention = Retention(idle=50 * DAY, max_events=4, archive=tmp_path / "archive")
    planned = await service.prune(retention, dry_run=True)
    assert (planned.sessions, planned.trimmed, planned.events, planned.archives) == (1, 1, 7, ())
    assert planned.dry_run
    assert tables(location) == before
    assert not (tmp_path / "archive").exists()
    done = await service.prune(retention)
    assert (done.sessions, done.trimmed, done.events) == (planned.sessions, planned.trimmed, planned.events)
    nothing = await service.prune(retention)
    assert (nothing.sessions, nothing.trimmed, nothing.events, nothing.archives) == (0, 0, 0, ())


async def test_log_that_may_not_be_cut_stays(service: DatabaseSessionService) -> None:
    session = await service.create_session(APP, USER, SESSION)
    await service.append_events(session, [event(event_id=f"e{n}") for n in range(5)])
    report = await service.prune(Retention(max_events=2))
    assert (report.trimmed, report.events, report.uncut) == (0, 0, 1)
    assert len((await get(service)).events) == 5


async def test_other_tenants_are_not_touched(service: DatabaseSessionService, location: Path | str) -> None:
    for app, user in ((APP, "other"), ("other", USER), (APP, ""), (APP, USER.upper()), (APP, USER + "%")):
        await filled(service, 5, app=app, user=user)
        await used(service, "old", 100, app=app, user=user)
    before = tables(location)
    retention = Retention(idle=DAY, age=DAY, max_events=1, max_sessions_per_user=1)
    report = await service.prune(retention, app_name=APP, user_id=USER)
    assert (report.sessions, report.trimmed, report.events) == (0, 0, 0)
    assert tables(location) == before


async def test_cancelled_prune_leaves_sessions_whole(
    service: DatabaseSessionService, location: Path | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one_prune, "EVENTS_AT_ONCE", 4)
    for number in range(6):
        await filled(service, 20, f"{number}")
    for steps in (1, 2, 3, 5, 8, 13, 40):
        task = asyncio.ensure_future(service.prune(Retention(max_events=2)))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert_sound(location)
    for number in range(6):
        session = await get(service, f"{number}")
        (past,) = [await service.get_session_at(APP, USER, f"{number}", seq=20)]
        assert past is not None
        assert _own(past) == _own(session)
    # It has let go of its place.
    report = await service.prune(Retention(max_events=2), wait=0)
    assert report.in_use == 0
    assert all([len((await get(service, f"{number}")).events) == 2 for number in range(6)])


async def test_prune_beside_64_clients_loses_nothing(
    service: DatabaseSessionService, location: Path | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one_prune, "EVENTS_AT_ONCE", 8)
    for number in range(20):
        await used(service, f"old {number}", 100)
    well_begun = asyncio.Event()

    async def client(number: int) -> int:
        session = await service.create_session(APP, f"user {number % 8}", f"live {number}", {"n": 0})
        for n in range(1, 21):
            if n == 8:
                well_begun.set()
            await service.append_event(session, numbered(n, time.time()))
        return n

    clients = [asyncio.ensure_future(client(number)) for number in range(64)]
    await well_begun.wait()
    reports = []
    while not all(each.done() for each in clients):
        reports.append(await service.prune(Retention(idle=DAY, max_events=4)))
    counts = await asyncio.gather(*clients)
    assert sum(report.sessions for report in reports) == 20
    assert sum(report.trimmed for report in reports) > 0
    for number, n in enumerate(counts):
        session = await get(service, f"live {number}", user=f"user {number % 8}")
        first = int(session.events[0].id[1:])
        assert [each.id for each in session.events] == [f"e{each}" for each in range(first, n + 1)]
        assert session.state["n"] == n
    assert_sound(location)


# --- Several hosts ----------------------------------------------------------------------------------------------------


async def test_one_prune_at_a_time(service: DatabaseSessionService, location: Path | str) -> None:
    await filled(service, 5)
    locks = service._shared.store.turn_locks()
    pausing = threading.Event()
    while not locks.try_take(pruning._TURN):
        pausing.wait(0.01)
    with pytest.raises(TurnTimeoutError, match="another prune"):
        await service.prune(Retention(max_events=1), wait=0)
    assert len((await get(service)).events) == 5
    waiting = asyncio.ensure_future(service.prune(Retention(max_events=1)))
    locks.give_up(pruning._TURN)
    assert (await waiting).events == 4
    locks.close()
    assert (await service.prune(Retention(max_events=1), wait=0)).events == 0


async def test_two_processes_prune_at_once(service: DatabaseSessionService, location: Path | str) -> None:
    for number in range(30):
        await filled(service, 10, f"{number}")
    programs = [processes.start(_prune, location, 3) for _ in range(2)]
    told = [[int(word) for word in (await asyncio.to_thread(processes.finish, one)).split()] for one in programs]
    assert [sum(counts) for counts in zip(*told, strict=True)] == [0, 30, 210, 0]
    assert_sound(location)


def _prune_in_steps(location: str, folder: str) -> None:
    """Prunes in the smallest parts, and says so after each; before one it waits for a line."""
    from sessiondb.engine.engine import Engine

    write = Engine.write_from_thread

    def told(self: Engine, command: Any) -> Any:
        processes.say("part")
        processes.listen()
        return write(self, command)

    async def run() -> None:
        place = location if location.startswith("postgresql:") else Path(location)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(one_prune, "EVENTS_AT_ONCE", 3)
            patch.setattr(Engine, "write_from_thread", told)
            async with DatabaseSessionService(place) as service:
                await service.prune(Retention(idle=50 * DAY, max_events=4, archive=folder))

    asyncio.run(run())


@pytest.mark.parametrize("parts", [0, 1, 2, 4, 6])
async def test_killed_prune_leaves_nothing_half_done(
    service: DatabaseSessionService, location: Path | str, tmp_path: Path, parts: int
) -> None:
    for number in range(2):
        await filled(service, 12, f"long {number}")
        await used(service, f"old {number}", 100)
    session = await service.create_session(APP, USER, "old and long", {"n": 0})
    await service.append_events(session, [numbered(n, time.time() - 100 * DAY) for n in range(1, 11)])
    whole = {name: await get(service, name) for name in await names(service)}
    folder = tmp_path / "archive"
    program = processes.start(_prune_in_steps, location, folder)
    assert program.stdin is not None
    assert program.stdout is not None
    for _ in range(parts):
        assert program.stdout.readline() == "part\n"
        program.stdin.write("\n")
        program.stdin.flush()
    # Anywhere between the answer and the next part.
    assert program.stdout.readline() == "part\n"
    if parts % 2:
        program.stdin.write("\n")
        program.stdin.flush()
    program.kill()
    program.communicate()
    assert_sound(location)
    (path,) = folder.glob("pruned-*.jsonl")
    archived = await _archived(path, tmp_path / "archived.sqlite3")
    left = await names(service)
    for name, was in whole.items():
        events = (await get(service, name)).events if name in left else []
        gone = was.events[: len(was.events) - len(events)]
        assert [*gone, *events] == was.events
        assert archived[name][: len(gone)] == gone
        if name in left:
            assert (await get(service, name)).state == was.state
            for seq in range(len(gone), len(was.events) + 1):
                past = await service.get_session_at(APP, USER, name, seq=seq)
                assert past is not None
                assert "n" not in past.state or past.state["n"] == seq
    # Its place has gone with it, and the next one does the rest.
    report = await service.prune(Retention(idle=50 * DAY, max_events=4), wait=30)
    assert await names(service) == ["long 0", "long 1"]
    assert report.in_use == 0
    for name in ("long 0", "long 1"):
        assert [each.id for each in (await get(service, name)).events] == ["e9", "e10", "e11", "e12"]


async def _archived(path: Path, target: Path) -> dict[str, list[Event]]:
    with path.open() as lines, open_import(target) as into:
        import_lines(lines, into)
    async with DatabaseSessionService(target) as archive:
        return {name: (await get(archive, name)).events for name in await names(archive)}


# --- Archives ---------------------------------------------------------------------------------------------------------


async def test_archive_holds_what_is_gone(
    service: DatabaseSessionService, location: Path | str, tmp_path: Path
) -> None:
    await used(service, "old", 100)
    await filled(service, 10)
    old, whole = await get(service, "old"), await get(service)
    folder = tmp_path / "archive"
    report = await service.prune(Retention(idle=50 * DAY, max_events=4, archive=folder))
    (path,) = report.archives
    assert [path] == list(folder.iterdir())
    assert (path.stat().st_mode & 0o777, folder.stat().st_mode & 0o777) == (0o600, 0o700)
    target = tmp_path / "archived.sqlite3"
    with path.open() as lines, open_import(target) as into:
        done = import_lines(lines, into)
    assert (done.sessions, done.events) == (2, 7)
    async with DatabaseSessionService(target) as archived:
        found = await archived.get_session(APP, USER, "old")
        assert found is not None
        assert (found.events, found.last_update_time) == (old.events, old.last_update_time)
        assert _own(found) == {"own": 1}
        part = await archived.get_session(APP, USER, SESSION)
        assert part is not None
        assert (part.events, _own(part)) == (whole.events[:6], {"n": 6, "kept": "k"})
        first = await archived.get_session_at(APP, USER, SESSION, seq=0)
        assert first is not None
        assert _own(first) == {"n": 0, "kept": "k", "gone": 1}
    # The next part begins where that one ends.
    report = await service.prune(Retention(max_events=1, archive=folder))
    later = tmp_path / "later.sqlite3"
    with report.archives[0].open() as lines, open_import(later) as into:
        import_lines(lines, into)
    async with DatabaseSessionService(later) as archived:
        part = await archived.get_session_at(APP, USER, SESSION, seq=9)
        assert part is not None
        assert (part.events, _own(part)) == (whole.events[6:9], {"n": 9, "kept": "k"})
    assert_sound(later)


async def test_what_cannot_be_archived_stays(
    service: DatabaseSessionService, location: Path | str, tmp_path: Path
) -> None:
    await used(service, "old", 100)
    await used(service, "damaged", 100)
    query(location, "UPDATE adk_events SET actions = '[' WHERE session_id = ?", "damaged")
    folder = tmp_path / "archive"
    report = await service.prune(Retention(idle=DAY, archive=folder))
    assert (report.sessions, report.unreadable, await names(service)) == (1, 1, ["damaged"])
    (path,) = report.archives
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["type"] for line in lines] == ["header", "session", "event", "end"]
    report = await service.prune(Retention(idle=DAY, archive=folder))
    assert (report.archives, report.unreadable, list(folder.iterdir())) == ((), 1, [path])
    await used(service, "old", 100)
    blocked = tmp_path / "a file"
    blocked.touch()
    with pytest.raises(StorageError, match="cannot be written"):
        await service.prune(Retention(idle=DAY, archive=blocked))
    with pytest.raises(StorageError, match="cannot be written"):
        await service.prune(Retention(idle=DAY, archive=tmp_path / "no" / "such"))
    assert await names(service) == ["damaged", "old"]


async def test_cut_log_is_carried_elsewhere_as_it_is(
    service: DatabaseSessionService, location: Path | str, tmp_path: Path, postgres_database: str
) -> None:
    await filled(service, 10)
    await service.prune(Retention(max_events=4))
    target: Path | str = postgres_database if isinstance(location, Path) else tmp_path / "copy.sqlite3"
    report = migrate_sessiondb(location, target)
    assert (report.events, report.verified, report.failures) == (4, 1, [])
    with open_reader(target) as reader:
        lines = list(export_lines(reader))
    imported = tmp_path / "imported.sqlite3"
    with open_import(imported) as into:
        import_lines(lines, into)
    columns = "revision, last_seq, initial_state, cut_seq, cut_revision, cut_time"
    of_session = f"SELECT {columns} FROM adk_sessions WHERE session_id = ?"
    of_events = "SELECT seq, revision, event_id FROM adk_events WHERE session_id = ? ORDER BY seq"
    for statement in (of_session, of_events):
        expected = query(location, statement, SESSION)
        assert expected == query(target, statement, SESSION) == query(imported, statement, SESSION)
    assert_sound(target)
    assert_sound(imported)


# --- In the background ------------------------------------------------------------------------------------------------


class _Pruned(logging.Handler):
    """Waits for what a prune says in the host's log."""

    def __init__(self, name: str = "pruned") -> None:
        super().__init__(logging.INFO)
        self.name_of_event = name
        self.come = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage() == self.name_of_event:
            self.come.set()


@pytest.fixture
def told() -> Any:
    handler = _Pruned()
    logger = logging.getLogger("sessiondb")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


def pruners() -> list[str]:
    """The threads that prune; those that have waited for such a one to end may still be there."""
    found = [thread.name for thread in threading.enumerate()]
    return [name for name in found if name.startswith("sessiondb-prune") and not name.endswith("-end")]


async def test_service_prunes_by_itself_until_it_is_closed(
    service: DatabaseSessionService, location: Path | str, told: _Pruned
) -> None:
    await filled(service, 10)
    pruning_service = DatabaseSessionService(location, retention=Retention(max_events=4, every=0.01))
    for _ in range(2):
        assert await asyncio.to_thread(told.come.wait, 30)
        told.come.clear()
    assert [each.id for each in (await get(service)).events] == ["e7", "e8", "e9", "e10"]
    session = await get(service)
    await service.append_event(session, numbered(11))
    told.come.clear()
    assert await asyncio.to_thread(told.come.wait, 30)
    await pruning_service.close()
    assert pruners() == []
    await service.append_events(session, [numbered(n) for n in range(12, 20)])
    assert len((await get(service)).events) >= 8


def _prune_in_child(location: str) -> None:
    """Forks with an open service that prunes by itself; the child uses it, and waits until it has pruned."""
    place = location if location.startswith("postgresql:") else Path(location)
    service = DatabaseSessionService(place, retention=Retention(max_events=4, every=0.01))
    if (child := os.fork()) == 0:
        handler = _Pruned()
        logging.getLogger("sessiondb").addHandler(handler)
        logging.getLogger("sessiondb").setLevel(logging.INFO)

        async def in_child() -> bool:
            session = await filled(service, 10, "of the child")
            while len((await get(service, session.id)).events) > 4:
                handler.come.clear()
                if not await asyncio.to_thread(handler.come.wait, 30):
                    return False
            await service.close()
            return pruners() == []

        os._exit(0 if asyncio.run(in_child()) else 1)
    processes.say(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    asyncio.run(service.close())


async def test_forked_child_prunes_by_itself_too(location: Path | str) -> None:
    assert await asyncio.to_thread(processes.run_forked, _prune_in_child, location) == "0\n"


async def test_background_prune_that_fails_is_told_of_and_tried_again(
    service: DatabaseSessionService, location: Path | str, tmp_path: Path, told: _Pruned
) -> None:
    await filled(service, 10)
    told.name_of_event = "prune_failed"
    retention = Retention(max_events=4, every=0.01, archive=tmp_path / "no" / "such")
    async with DatabaseSessionService(location, retention=retention):
        for _ in range(2):
            assert await asyncio.to_thread(told.come.wait, 30)
            told.come.clear()
    assert len((await get(service)).events) == 10
    assert pruners() == []


async def test_retention_is_checked(service: DatabaseSessionService) -> None:
    for wrong in (
        {},
        {"idle": 0},
        {"idle": -1},
        {"idle": "30d"},
        {"age": float("nan")},
        {"age": True},
        {"idle": timedelta()},
        {"max_events": 0},
        {"max_events": 1.5},
        {"max_sessions_per_user": True},
        {"max_events": 1, "archive": ""},
        {"max_events": 1, "archive": 7},
        {"max_events": 1, "every": None},
    ):
        with pytest.raises(ConfigurationError):
            Retention(**wrong)
    assert Retention(idle=timedelta(hours=1)) == Retention(idle=3600)
    with pytest.raises(ConfigurationError, match="must be a Retention"):
        await service.prune({"max_events": 1})  # type: ignore[arg-type]  # as said
    with pytest.raises(ConfigurationError, match="wait"):
        await service.prune(Retention(max_events=1), wait=-1)
