"""Appending several events at once: as appending them one by one, but all or none."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from google.adk.events import Event, EventActions
from google.adk.events.event_actions import EventCompaction
from google.adk.sessions import Session
from google.genai import types

from sessiondb import DatabaseSessionService, errors
from tests.contract.places import APP, SESSION, USER, event

pytestmark = [pytest.mark.anyio, pytest.mark.each_store]


async def read(service: DatabaseSessionService, name: str = SESSION) -> Session:
    session = await service.get_session(APP, USER, name)
    assert session is not None
    return session


def some(count: int) -> list[Event]:
    return [event(1_000.0 + n, event_id=f"e{n}", number=n) for n in range(count)]


def rich(count: int) -> list[Event]:
    """Events that change state of every scope."""
    events = some(count)
    for each in events:
        each.actions.state_delta |= {"user:theme": "dark", "app:version": 2, "temp:trace": "xyz", "own": None}
    return events


def summary() -> Event:
    """What ADK's compaction appends."""
    of = EventCompaction(start_timestamp=1.0, end_timestamp=2.0, compacted_content=types.ModelContent("short"))
    return Event(author="user", actions=EventActions(compaction=of), timestamp=5.0)


@pytest.mark.parametrize("count", [1, 2, 7, 1_500])
async def test_appended_events_are_those_of_single_appends(service: DatabaseSessionService, count: int) -> None:
    one, all_at_once = [await service.create_session(APP, USER, name, {"own": 0}) for name in ("one", "all")]
    for each in rich(count):
        await service.append_event(one, each)
    given = rich(count)
    returned = await service.append_events(all_at_once, iter(given))
    assert all(mine is theirs for mine, theirs in zip(returned, given, strict=True))
    assert all_at_once.events == one.events
    assert all_at_once.state == one.state
    assert all_at_once.state["temp:trace"] == "xyz"
    assert all_at_once.last_update_time == one.last_update_time
    found = await read(service, "all")
    assert (found.events, found.state) == ((await read(service, "one")).events, (await read(service, "one")).state)
    # And the conversation goes on through both.
    await service.append_events(all_at_once, [event(2_000.0)])
    await service.append_event(all_at_once, event(2_001.0))
    assert len((await read(service, "all")).events) == count + 2


async def test_nothing_and_partial_events_are_not_stored(service: DatabaseSessionService) -> None:
    session = await service.create_session(APP, USER, SESSION)
    assert await service.append_events(session, []) == []
    partial = Event(author="agent", partial=True, content=types.ModelContent("hel"))
    assert await service.append_events(session, [partial]) == [partial]
    whole = event(event_id="whole")
    assert await service.append_events(session, [partial, whole, partial]) == [partial, whole, partial]
    assert session.events == [whole]
    assert (await read(service)).events == [whole]


async def test_events_that_are_stored_already_change_nothing(service: DatabaseSessionService) -> None:
    session = await service.create_session(APP, USER, SESSION)
    first = some(3)
    await service.append_events(session, [each.model_copy(deep=True) for each in first])
    # Again, and twice in a list, and in the middle of new ones.
    await service.append_events(session, [each.model_copy(deep=True) for each in first])
    new, other = event(2_000.0, event_id="new", number=10), event(2_001.0, event_id="other", number=11)
    await service.append_events(session, [first[1], new, new.model_copy(deep=True), first[2], other])
    assert [each.id for each in session.events] == ["e0", "e1", "e2", "new", "other"]
    assert session.state == {"number": 11}
    found = await read(service)
    assert (found.events, found.state) == (session.events, session.state)
    # All of them through a stale handle: still duplicates.
    stale = await read(service)
    await service.append_event(session, event(3_000.0))
    await service.append_events(stale, [first[0], new])
    assert len((await read(service)).events) == 6


async def test_other_events_of_a_used_id_are_stored_in_their_order(service: DatabaseSessionService) -> None:
    session = await service.create_session(APP, USER, SESSION)
    await service.append_event(session, event(1.0, event_id="used", number=1))
    await service.append_events(
        session,
        [event(2.0, event_id="a"), event(3.0, event_id="used", number=2), event(4.0, event_id="used", number=3)],
    )
    found = await read(service)
    assert [each.timestamp for each in found.events] == [1.0, 2.0, 3.0, 4.0]
    assert found.state == {"number": 3}
    assert found.events == session.events


async def test_stale_or_missing_session_gets_none_of_the_events(service: DatabaseSessionService) -> None:
    session = await service.create_session(APP, USER, SESSION, {"own": 1})
    stale = await read(service)
    await service.append_event(session, event(1.0, event_id="first"))
    # One is no step of the conversation, and would be taken by itself; one is there already.
    outside = Event(
        author="user", timestamp=5.0, actions=EventActions(state_delta={"outside": 1, "user:theme": "dark"})
    )
    for refused in ([outside, *some(3)], [*some(3), outside], [event(1.0, event_id="first"), *some(2), summary()]):
        before = stale.model_copy(deep=True)
        with pytest.raises(errors.StaleSessionError):
            await service.append_events(stale, refused)
        assert stale == before
        found = await read(service)
        assert ([each.id for each in found.events], found.state) == (["first"], {"own": 1})
    assert await service.get_user_state(APP, USER) == {}
    await service.delete_session(APP, USER, SESSION)
    with pytest.raises(errors.SessionNotFoundError):
        await service.append_events(session, some(3))
    assert len(session.events) == 1


async def test_event_that_cannot_be_stored_keeps_all_others_out(service: DatabaseSessionService) -> None:
    session = await service.create_session(APP, USER, SESSION)
    for wrong in (event(2.0, event_id="a\0b"), event(float("nan")), "an event", None):
        events: list[Any] = [*some(2), wrong]
        with pytest.raises(errors.InvalidInputError):
            await service.append_events(session, events)
    not_a_session: Any = {"id": SESSION}
    with pytest.raises(errors.InvalidInputError):
        await service.append_events(not_a_session, some(1))
    assert (session.events, (await read(service)).events) == ([], [])


async def test_events_from_outside_the_conversation_make_nobody_stale(service: DatabaseSessionService) -> None:
    session = await service.create_session(APP, USER, SESSION)
    other = await read(service)
    outside = Event(author="user", timestamp=5.0, actions=EventActions(state_delta={"outside": 1}))
    await service.append_events(other, [outside, summary()])
    await service.append_events(session, [*some(2), summary()])
    with pytest.raises(errors.StaleSessionError):
        await service.append_event(other, event())
    found = await read(service)
    assert len(found.events) == 5
    assert found.state == {"outside": 1, "number": 1}
    await service.append_event(session, event(6.0))


async def test_stale_handle_is_taken_if_the_service_says_so(location: Any) -> None:
    async with DatabaseSessionService(location, on_stale="append") as service:
        session = await service.create_session(APP, USER, SESSION)
        stale = await read(service)
        await service.append_event(session, event(1.0))
        await service.append_events(stale, some(3))
        assert [each.timestamp for each in (await read(service)).events] == [1.0, 1_000.0, 1_001.0, 1_002.0]


async def test_session_without_a_marker_is_known_by_its_last_event(service: DatabaseSessionService) -> None:
    session = await service.create_session(APP, USER, SESSION)
    await service.append_events(Session.model_validate_json(session.model_dump_json()), some(2))
    restored = Session.model_validate_json((await read(service)).model_dump_json())
    await service.append_events(restored, [event(2_000.0), event(2_001.0)])
    assert restored.events == (await read(service)).events
    overtaken = Session.model_validate_json(session.model_dump_json())
    with pytest.raises(errors.StaleSessionError):
        await service.append_events(overtaken, [event(3_000.0)])


async def test_appends_of_both_kinds_overlap_through_one_session(service: DatabaseSessionService) -> None:
    session = await service.create_session(APP, USER, SESSION)
    calls: list[Any] = []
    for n in range(20):
        calls.append(service.append_event(session, event(n, event_id=f"one {n}", number=n)))
        both = [event(n, event_id=f"{letter} {n}", number=n, temp__last=letter) for letter in "ab"]
        calls.append(service.append_events(session, both))
    await asyncio.gather(*calls)
    assert len(session.events) == 60
    found = await read(service)
    assert found.events == session.events
    order = [each.id for each in found.events]
    assert all(order.index(f"b {n}") == order.index(f"a {n}") + 1 for n in range(20))
    await service.append_event(session, event(100.0))


async def test_batch_with_a_stale_list_keeps_the_others(service: DatabaseSessionService) -> None:
    sessions = [await service.create_session(APP, USER, f"s{n}") for n in range(6)]
    stale = await read(service, "s3")
    await service.append_event(sessions[3], event(1.0))
    sessions[3] = stale
    ends = await asyncio.gather(
        *(service.append_events(session, [event(2.0, number=1), event(3.0, number=2)]) for session in sessions),
        return_exceptions=True,
    )
    assert [type(end) for end in ends] == [list, list, list, errors.StaleSessionError, list, list]
    assert [len((await read(service, f"s{n}")).events) for n in range(6)] == [2, 2, 2, 1, 2, 2]
    assert [len(session.events) for session in sessions] == [2, 2, 2, 0, 2, 2]


async def test_cancelled_call_stores_all_events_or_none(service: DatabaseSessionService) -> None:
    session = await service.create_session(APP, USER, SESSION)
    stored = 0
    for turn in range(40):
        events = [event(turn, event_id=f"{turn} {n}", number=turn) for n in range(150)]
        task = asyncio.ensure_future(service.append_events(session, events))
        for _ in range(turn % 8):
            await asyncio.sleep(0)
        task.cancel()
        (end,) = await asyncio.gather(task, return_exceptions=True)
        found = await read(service)
        assert found.events == session.events
        assert len(found.events) in (stored, stored + 150)
        stored = len(found.events)
        assert isinstance(end, asyncio.CancelledError) or session.events[-1].id == f"{turn} 149"
    await service.append_event(session, event(1_000.0))


async def test_pages_show_all_events_of_a_list_or_none(service: DatabaseSessionService) -> None:
    session = await service.create_session(APP, USER, SESSION)

    async def write() -> None:
        for turn in range(10):
            await service.append_events(session, [event(turn, event_id=f"{turn} {n}") for n in range(10)])

    async def look() -> None:
        while len(found := (await service.get_events(APP, USER, SESSION, limit=1_000)).events) < 100:
            assert len(found) % 10 == 0

    await asyncio.gather(write(), look())
