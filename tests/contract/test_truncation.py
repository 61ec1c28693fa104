"""Logs that are cut off, and go on in another way; on each store."""

from __future__ import annotations

import asyncio
import logging
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from google.adk.events import Event, EventActions
from google.adk.events.event_actions import EventCompaction
from google.adk.sessions import Session
from google.genai import types
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sessiondb import DatabaseSessionService
from sessiondb.adk.events import decode_event
from sessiondb.errors import (
    EventNotFoundError,
    InvalidInputError,
    SessionNotFoundError,
    StaleSessionError,
    UnknownBeginningError,
    UnsafeCutError,
)
from sessiondb.stores import check, resolve_database
from tests.contract.places import APP, SESSION, USER, event
from tests.contract.test_past import DELTAS, HOSTILE, at, get, told
from tests.databases import query

pytestmark = [pytest.mark.anyio, pytest.mark.each_store]


async def truncate(service: DatabaseSessionService, after: str | None, *, force: bool = False) -> Session:
    return await service.truncate_session(APP, USER, SESSION, after_event_id=after, force=force)


async def fill(service: DatabaseSessionService, length: int = 5) -> Session:
    """A session whose events e1, e2 ... each set its keys ``own`` and ``user:n`` to their number."""
    session = await service.create_session(APP, USER, SESSION, {"own": 0, "user:n": 0})
    for number in range(1, length + 1):
        await service.append_event(session, event(float(number), event_id=f"e{number}", own=number, user__n=number))
    return session


def ids(session: Session) -> list[str]:
    return [each.id for each in session.events]


def restored(session: Session) -> Session:
    """The session as it comes out of JSON: without a revision."""
    return Session.model_validate_json(session.model_dump_json())


def assert_sound(location: Path | str) -> None:
    report = check(resolve_database(location), decode_event)
    assert report.is_sound, report.findings
    assert not report.notes.count, report.notes


# --- What is left ----------------------------------------------------------------------------------------------------

_apps = count()
STEPS = st.lists(st.one_of(st.tuples(st.sampled_from("eo"), DELTAS), st.integers(0, 3)), min_size=6, max_size=10)
"""Events, changes from outside, and how many of the log a truncation lets stay."""


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(beginning=DELTAS, steps=STEPS)
def test_session_is_as_it_was_right_after_the_event(
    location: Path | str, beginning: dict[str, Any], steps: list[tuple[str, dict[str, Any]] | int]
) -> None:
    async def live() -> None:
        app = f"app {next(_apps)}"
        numbers = count()
        async with DatabaseSessionService(location) as service, DatabaseSessionService(location) as other:
            await service.create_session(app, USER, SESSION, beginning)
            # What was read at each moment of the log that is there: its own state, and its events.
            seen = [await get(service, app=app)]
            for step in steps:
                await get(other, app=app)
                if isinstance(step, int):
                    kept = min(step, len(seen) - 1)
                    last = seen[kept].events[-1].id if kept else None
                    cut = await service.truncate_session(app, USER, SESSION, after_event_id=last)
                    del seen[kept + 1 :]
                    assert cut.model_dump() == (await get(service, app=app)).model_dump()
                elif step[0] == "o":
                    await service.update_keys(app, USER, SESSION, step[1])
                    seen.append(await get(service, app=app))
                else:
                    actions = EventActions(state_delta=step[1])
                    added = Event(id=f"e{next(numbers)}", author="agent", timestamp=5.0, actions=actions)
                    await service.append_event(await get(service, app=app), added)
                    seen.append(await get(service, app=app))
                # Another service has kept the log that it had read.
                for found in (await get(service, app=app), await get(other, app=app)):
                    assert (found.events, own(found)) == (seen[-1].events, own(seen[-1]))
            for seq, session in enumerate(seen):
                past = await service.get_session_at(app, USER, SESSION, seq=seq)
                assert past is not None
                assert (past.events, own(past)) == (session.events, own(session))
            state: dict[str, Any] = {}
            for change in await service.history(app, USER, SESSION):
                if ":" not in change.key:
                    assert change.old == state.get(change.key)
                    state.pop(change.key, None)
                    if not change.deleted:
                        state[change.key] = change.new
            assert state == own(seen[-1])
        assert_sound(location)

    asyncio.run(live())


def own(session: Session) -> dict[str, Any]:
    return {key: value for key, value in session.state.items() if not key.startswith(("user:", "app:"))}


async def test_log_ends_there_and_goes_on_without_a_gap(service: DatabaseSessionService, location: Path | str) -> None:
    await fill(service)
    created = query(location, "SELECT created_at FROM adk_sessions")
    cut = await truncate(service, "e2")
    assert (ids(cut), cut.state) == (["e1", "e2"], {"own": 2, "user:n": 5})
    assert cut.last_update_time > 5.0
    assert query(location, "SELECT created_at FROM adk_sessions") == created
    await service.append_event(cut, event(9.0, event_id="other", own="other"))
    assert query(location, "SELECT seq, event_id FROM adk_events ORDER BY seq") == [(1, "e1"), (2, "e2"), (3, "other")]
    assert [c[1:5] for c in await told(service, USER, key="own")] == [
        (0, "own", None, 0),
        (1, "own", 0, 1),
        (2, "own", 1, 2),
        (3, "own", 2, "other"),
    ]
    assert (await at(service, 3)).state == {"own": "other", "user:n": 5}
    assert service.get_event_count(APP, USER, SESSION) == 3
    (listed,) = (await service.list_sessions(APP, USER)).sessions
    assert listed.last_update_time == 9.0
    assert_sound(location)


async def test_all_can_be_cut_off(service: DatabaseSessionService, location: Path | str) -> None:
    session = await fill(service)
    cut = await truncate(service, None)
    assert (cut.events, cut.state) == ([], {"own": 0, "user:n": 5})
    assert_sound(location)
    with pytest.raises(StaleSessionError):
        await service.append_event(session, event())
    # Nor is a Session known by an event that is gone; one that was never told of any is.
    with pytest.raises(StaleSessionError):
        await service.append_event(restored(session), event())
    await service.append_event(restored(cut), event(event_id="new", own=1))
    assert ids(await get(service)) == ["new"]
    assert_sound(location)
    # Of a log that holds events nobody knows what was there before.
    with pytest.raises(StaleSessionError):
        await service.append_event(restored(cut), event())


async def test_cut_after_the_last_event_changes_nothing(service: DatabaseSessionService, location: Path | str) -> None:
    session = await fill(service, 2)
    everything = "SELECT revision, last_seq, log_epoch, updated_at, update_time FROM adk_sessions"
    before = query(location, everything)
    assert ids(await truncate(service, "e2")) == ["e1", "e2"]
    assert query(location, everything) == before
    await service.append_event(session, event())
    empty = await service.create_session(APP, USER, "empty")
    await service.truncate_session(APP, USER, "empty", after_event_id=None)
    await service.append_event(empty, event())


async def test_of_several_events_of_an_id_the_last_one_is_meant(service: DatabaseSessionService) -> None:
    session = await service.create_session(APP, USER, SESSION)
    for number, name in enumerate(("a", "b", "a", "c")):
        await service.append_event(session, event(float(number), event_id=name))
    assert ids(await truncate(service, "a")) == ["a", "b", "a"]


async def test_state_that_is_as_it_was_is_not_written(service: DatabaseSessionService, location: Path | str) -> None:
    session = await service.create_session(APP, USER, SESSION, {"same": 1, "changed": 1, "gone": 1})
    await service.append_event(session, event(event_id="e1"))
    query(location, "UPDATE adk_state SET updated_at = 'before'")
    await service.append_event(session, event(event_id="e2", changed=2, gone=None, new=1))
    await truncate(service, "e1")
    assert query(location, "SELECT state_key, state_value FROM adk_state WHERE updated_at = 'before'") == [
        ("same", "1")
    ]
    assert (await get(service)).state == {"same": 1, "changed": 1, "gone": 1}


async def test_what_is_not_known_is_not_made_up(service: DatabaseSessionService, location: Path | str) -> None:
    await fill(service)
    query(location, "UPDATE adk_sessions SET initial_state = NULL")
    with pytest.raises(UnknownBeginningError):
        await truncate(service, None)
    assert (await truncate(service, "e1")).state == {"own": 1, "user:n": 5}


async def test_nothing_is_changed_for_ids_that_are_not_there(service: DatabaseSessionService) -> None:
    await fill(service)
    before = await get(service)
    with pytest.raises(EventNotFoundError, match="no event with the id 'e9'"):
        await truncate(service, "e9")
    with pytest.raises(InvalidInputError):
        await truncate(service, "a\0b")
    for app, user, name in ((APP, "other", SESSION), ("other", USER, SESSION), (APP, USER, "x"), (APP, "", SESSION)):
        for after in ("e1", None):
            with pytest.raises(SessionNotFoundError):
                await service.truncate_session(app, user, name, after_event_id=after)
    assert await get(service) == before


async def test_others_lose_nothing(service: DatabaseSessionService, location: Path | str) -> None:
    others = [(APP, "other", SESSION), ("other", USER, SESSION), (APP, USER, "another")]
    for key in others:
        session = await service.create_session(*key, {"own": 1})
        await service.append_event(session, event(event_id="e1", own=2))
        await service.append_event(session, event(event_id="e2", own=3))
    await fill(service)
    fork = await service.fork_session(APP, USER, SESSION, new_session_id="fork")
    before = [await service.get_session(*key) for key in others]
    await truncate(service, None)
    assert [await service.get_session(*key) for key in others] == before
    assert ids(await get(service, "fork")) == ids(fork)
    assert_sound(location)


async def test_hostile_ids_name_what_they_name(service: DatabaseSessionService) -> None:
    for text in HOSTILE:
        session = await service.create_session(text, text, text, {text: 1})
        for name in (text, f"{text[:9]}2"):
            actions = EventActions(state_delta={text: name})
            await service.append_event(session, Event(id=name, author="agent", actions=actions))
        cut = await service.truncate_session(text, text, text, after_event_id=text)
        assert (ids(cut), cut.state) == ([text], {text: text})
        cut = await service.truncate_session(text, text, text, after_event_id=None)
        assert (ids(cut), cut.state) == ([], {text: 1})


async def test_log_event_holds_counts_and_ids(
    service: DatabaseSessionService, caplog: pytest.LogCaptureFixture
) -> None:
    await fill(service)
    with caplog.at_level(logging.INFO, "sessiondb"):
        await truncate(service, "e2")
    (record,) = [record for record in caplog.records if record.message == "session_truncated"]
    assert {name: vars(record)[name] for name in ("app_name", "session_id", "events", "last_seq")} == {
        "app_name": APP,
        "session_id": SESSION,
        "events": 3,
        "last_seq": 2,
    }


async def test_page_goes_on_behind_an_event_that_was_cut_off(service: DatabaseSessionService) -> None:
    """Its number may be another event's by now, that was written later.

    Seen to fail with pages that go by the numbers alone.
    """
    await fill(service, 8)
    cursors = {
        newest_first: [
            (await service.get_events(APP, USER, SESSION, limit=limit, newest_first=newest_first)).next
            for limit in range(1, 8)
        ]
        for newest_first in (False, True)
    }
    session = await truncate(service, "e3")
    for number in range(4, 10):
        await service.append_event(session, event(float(number), event_id=f"n{number}"))

    async def page(**options: Any) -> list[str]:
        return [one.id for one in (await service.get_events(APP, USER, SESSION, **options)).events]

    old, new = ["e1", "e2", "e3"], [f"n{number}" for number in range(4, 10)]
    # Behind e1 to e7, and before them; behind e8 to e2 backwards, and before them.
    for place, cursor in enumerate(cursors[False], 1):
        assert await page(after=cursor) == old[place:] + new
        assert await page(before=cursor) == old[: place - 1]
    for place, cursor in zip(range(8, 1, -1), cursors[True], strict=True):
        assert await page(after=cursor, newest_first=True) == old[: place - 1][::-1]
        assert await page(before=cursor, newest_first=True) == (old[place:] + new)[::-1]
    assert await page(after=cursors[False][4], before=cursors[False][6]) == []


# --- Sessions that were read before ----------------------------------------------------------------------------------


async def test_sessions_that_were_read_before_are_stale(service: DatabaseSessionService) -> None:
    session = await fill(service, 2)
    early = await get(service)
    await service.append_event(session, event(event_id="e3"))
    cut = await truncate(service, "e2")
    for stale in (early, session):
        with pytest.raises(StaleSessionError):
            await service.append_event(stale, event())
    await service.append_event(cut, event(event_id="new 3"))
    # As many events and appends as before: the revision has not gone back.
    for stale in (early, session):
        with pytest.raises(StaleSessionError):
            await service.append_event(stale, event())
    await service.append_event(cut, event(event_id="new 4"))
    assert ids(await get(service)) == ["e1", "e2", "new 3", "new 4"]


async def test_session_out_of_json_is_known_by_the_last_event_that_stays(service: DatabaseSessionService) -> None:
    session = await service.create_session(APP, USER, SESSION)
    await service.append_event(session, event(event_id="e1"))
    await service.append_event(session, event(event_id="e2"))
    knows_two = [restored(session)]
    # Set from outside: it is no step of the conversation, and who does not know of it is not stale.
    await service.update_keys(APP, USER, SESSION, {"outside": 1})
    last = (await get(service)).events[-1]
    knows_two.append(restored(await get(service)))
    await service.append_event(session, event(event_id="e4"))
    knows_more = restored(session)
    await truncate(service, last.id)
    with pytest.raises(StaleSessionError):
        await service.append_event(knows_more, event())
    for n, known in enumerate(knows_two):
        await service.append_event(known, event(event_id=f"new {n}"))
        await truncate(service, last.id)


async def test_fork_that_is_cut_off_within_what_it_has_taken_over(service: DatabaseSessionService) -> None:
    """What is appended to it then is its own, though its numbers are of events that it had taken over."""
    await fill(service, 5)
    await service.fork_session(APP, USER, SESSION, new_session_id="fork")
    fork = await service.truncate_session(APP, USER, "fork", after_event_id="e2")
    await service.append_event(fork, event(event_id="own", own="forked", user__n="forked"))
    assert (await told(service, USER, "fork", "user:n"))[-1][1:5] == (3, "user:n", 5, "forked")
    assert (await at(service, 2, "fork")).state == {"own": 2, "user:n": 5}
    assert [(row.session_id, row.events) for row in await service.usage(app_name=APP)] == [("fork", 1), (SESSION, 5)]
    assert [fork.origin for fork in await service.list_forks(APP)] == [(USER, SESSION, 2)]


async def test_cut_off_event_can_be_appended_anew(service: DatabaseSessionService) -> None:
    session = await fill(service, 3)
    gone = session.events[-1]
    cut = await truncate(service, "e2")
    # Delivered again through the Session of before, it does not come back.
    with pytest.raises(StaleSessionError):
        await service.append_event(session, gone)
    await service.append_event(cut, gone)
    assert ids(await get(service)) == ["e1", "e2", "e3"]
    # An event that has stayed is in the log already, whoever delivers it.
    await service.append_event(session, session.events[0])
    assert ids(await get(service)) == ["e1", "e2", "e3"]


# --- What belongs together -------------------------------------------------------------------------------------------


def call(name: str, *calls: str | None, long_running: bool = False) -> Event:
    parts = [types.Part(function_call=types.FunctionCall(id=call_id, name="tool", args={})) for call_id in calls]
    running = {call_id for call_id in calls if call_id} if long_running else None
    return Event(
        id=name, author="agent", content=types.Content(role="model", parts=parts), long_running_tool_ids=running
    )


def response(name: str, *calls: str | None, author: str = "agent") -> Event:
    parts = [
        types.Part(function_response=types.FunctionResponse(id=call_id, name="tool", response={})) for call_id in calls
    ]
    return Event(id=name, author=author, content=types.Content(role="user", parts=parts))


def text(name: str) -> Event:
    return Event(id=name, author="user", content=types.UserContent('says "function_call" and function_response'))


CASES: dict[str, tuple[list[Event], dict[str, tuple[str, str | None, str]]]] = {
    # For each refused cut: the event that would lose something, and where a cut would do before and behind it.
    "one call": ([text("a"), call("b", "1"), response("c", "1"), text("d")], {"b": ("b", "a", "c")}),
    "first event": ([call("a", "1"), response("b", "1")], {"a": ("a", None, "b")}),
    "something between": (
        [text("a"), call("b", "1"), text("c"), response("d", "1")],
        {"b": ("b", "a", "d"), "c": ("b", "a", "d")},
    ),
    "several at once": (
        [text("a"), call("b", "1", "2"), response("c", "2"), response("d", "1"), text("e")],
        {"b": ("b", "a", "d"), "c": ("b", "a", "d")},
    ),
    "one after the other": (
        [call("a", "1"), call("b", "2"), response("c", "1"), response("d", "2")],
        {"a": ("a", None, "d"), "b": ("a", None, "d"), "c": ("b", None, "d")},
    ),
    "never answered": ([text("a"), call("b", "1"), text("c"), text("d")], {}),
    "long-running": (
        [call("a", "1", long_running=True), response("b", "1"), text("c"), response("d", "1", author="user")],
        {"a": ("a", None, "b")},
    ),
    "id used again": (
        [call("a", "1"), response("b", "1"), text("c"), call("d", "1"), response("e", "1")],
        {"a": ("a", None, "b"), "d": ("d", "c", "e")},
    ),
    "without ids": ([call("a", None), response("b", None)], {"a": ("a", None, "b")}),
    "response of nothing": ([text("a"), response("b", "1"), call("c", "1")], {}),
}


@pytest.mark.parametrize("case", CASES)
async def test_cut_between_call_and_response_is_refused(service: DatabaseSessionService, case: str) -> None:
    events, refused = CASES[case]
    session = await service.create_session(APP, USER, SESSION)
    await service.append_events(session, [each.model_copy(deep=True) for each in events])
    for each in reversed(events):
        if each.id not in refused:
            assert ids(await truncate(service, each.id))[-1] == each.id
            continue
        loser, earlier, later = refused[each.id]
        with pytest.raises(UnsafeCutError, match=f"a function call of event '{loser}'") as caught:
            await truncate(service, each.id)
        assert (caught.value.event_id, caught.value.earlier, caught.value.later) == (loser, earlier, later)
        whole = ids(await get(service))
        assert later in whole
        # Each of the places that it names will do.
        assert ids(await truncate(service, earlier)) == (whole[: whole.index(earlier) + 1] if earlier else [])
        await service.append_events(
            await get(service), [e for e in events if e.id in whole and e.id not in ids(await get(service))]
        )
        assert ids(await truncate(service, later))[-1] == later
    assert (await truncate(service, None)).events == []


async def test_cut_between_call_and_response_can_be_forced(service: DatabaseSessionService) -> None:
    session = await service.create_session(APP, USER, SESSION)
    await service.append_events(session, [call("a", "1"), response("b", "1")])
    assert ids(await truncate(service, "a", force=True)) == ["a"]


def summary(name: str, start: float, end: float) -> Event:
    of = EventCompaction(start_timestamp=start, end_timestamp=end, compacted_content=types.ModelContent("short"))
    return Event(id=name, author="user", timestamp=end + 10, actions=EventActions(compaction=of))


async def test_summary_stays_if_what_it_stands_for_is_gone(
    service: DatabaseSessionService, location: Path | str
) -> None:
    session = await fill(service, 4)
    await service.append_event(session, summary("summary", 0.5, 2.0))
    await service.append_event(session, event(20.0, event_id="last"))
    # What it stands for is there: it may go, or stay.
    assert ids(await truncate(service, "summary"))[-1] == "summary"
    session = await truncate(service, "e4")
    await service.append_event(session, summary("summary", 1.0, 2.0))
    query(location, "DELETE FROM adk_events WHERE seq <= 2")
    with pytest.raises(UnsafeCutError, match="the summary of event 'summary'") as caught:
        await truncate(service, "e3")
    assert (caught.value.event_id, caught.value.earlier, caught.value.later) == ("summary", None, "summary")
    assert ids(await truncate(service, "e3", force=True)) == ["e3"]
    # Numbers are used again from where the log begins.
    await service.append_event(await truncate(service, None), event(event_id="new"))
    assert query(location, "SELECT seq, event_id FROM adk_events") == [(3, "new")]


# --- Others at the same time -----------------------------------------------------------------------------------------


def before_write(service: DatabaseSessionService, monkeypatch: pytest.MonkeyPatch, meanwhile: Any) -> list[str]:
    """Has something happen once between the read and the write of a call; returns what was written, by its kind."""
    write = service._shared.write  # it cannot be arranged otherwise
    written: list[str] = []

    async def wrapped(command: Any, *rest: Any) -> Any:
        kind = type(command).__name__
        if kind in ("TruncateSession", "RedactEvents"):
            written.append(kind)
            if len(written) == 1:
                await meanwhile()
        return await write(command, *rest)

    monkeypatch.setattr(service._shared, "write", wrapped)
    return written


async def test_event_that_is_appended_meanwhile_is_cut_off_too(
    service: DatabaseSessionService, monkeypatch: pytest.MonkeyPatch, location: Path | str
) -> None:
    session = await fill(service)

    async def meanwhile() -> None:
        await service.append_event(session, event(event_id="e6", own=6, another=1))
        await service.update_keys(APP, USER, SESSION, {"outside": 1})

    written = before_write(service, monkeypatch, meanwhile)
    cut = await truncate(service, "e2")
    assert (ids(cut), cut.state, len(written)) == (["e1", "e2"], {"own": 2, "user:n": 5}, 1)
    with pytest.raises(StaleSessionError):
        await service.append_event(session, event())
    assert_sound(location)


async def test_call_that_is_answered_meanwhile_is_looked_at_again(
    service: DatabaseSessionService, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await service.create_session(APP, USER, SESSION)
    await service.append_events(session, [call("a", "1"), text("b")])

    async def meanwhile() -> None:
        await service.append_event(session, response("c", "1"))

    written = before_write(service, monkeypatch, meanwhile)
    with pytest.raises(UnsafeCutError):
        await truncate(service, "a")
    assert ids(await get(service)) == ["a", "b", "c"]
    assert len(written) == 1


@pytest.mark.parametrize("what", ["replaced", "deleted", "edited"])
async def test_session_that_is_another_meanwhile_is_read_again(
    service: DatabaseSessionService, monkeypatch: pytest.MonkeyPatch, location: Path | str, what: str
) -> None:
    await fill(service)

    async def meanwhile() -> None:
        if what == "edited":
            query(location, "DELETE FROM adk_events WHERE event_id = 'e2'")
        else:
            await service.delete_session(APP, USER, SESSION)
        if what == "replaced":
            session = await service.create_session(APP, USER, SESSION, {"own": "new"})
            await service.append_event(session, event(event_id="e2"))
            await service.append_event(session, event(event_id="e3", own=3))

    written = before_write(service, monkeypatch, meanwhile)
    if what == "replaced":
        cut = await truncate(service, "e2")
        assert (ids(cut), cut.state, len(written)) == (["e2"], {"own": "new", "user:n": 5}, 2)
    else:
        expected = EventNotFoundError if what == "edited" else SessionNotFoundError
        with pytest.raises(expected):
            await truncate(service, "e2")


async def test_appends_beside_truncations_are_cut_off_or_refused(
    service: DatabaseSessionService, location: Path | str
) -> None:
    await fill(service, 3)
    ended = asyncio.Event()
    stored: asyncio.Queue[int] = asyncio.Queue()

    async def append(name: int) -> None:
        for n in count():
            if ended.is_set():
                return
            try:
                await service.append_event(
                    await get(service), event(float(n), event_id=f"{name}/{n}", own=f"{name}", other=n)
                )
                stored.put_nowait(n)
            except StaleSessionError:
                pass

    async def cut() -> None:
        async with DatabaseSessionService(location) as other:
            for _ in range(10):
                await stored.get()
                session = await truncate(other, "e2")
                assert ids(session)[:2] == ["e1", "e2"]
        ended.set()

    await asyncio.gather(*map(append, range(4)), cut())
    assert ids(await truncate(service, "e2")) == ["e1", "e2"]
    assert own(await get(service)) == {"own": 2}
    assert_sound(location)


async def test_cancelled_truncation_is_whole_or_nothing(service: DatabaseSessionService, location: Path | str) -> None:
    for steps in range(10):
        session = await service.create_session(APP, USER, f"{steps}", {"own": 0})
        for n in range(3):
            await service.append_event(session, event(event_id=f"e{n}", own=n))
        task = asyncio.ensure_future(service.truncate_session(APP, USER, f"{steps}", after_event_id="e0"))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        found = await get(service, f"{steps}")
        assert (ids(found), found.state) in ((["e0"], {"own": 0}), (["e0", "e1", "e2"], {"own": 2}))
    assert_sound(location)
