"""What a live Session may do beyond ADK's contract: the rules of ``on_stale``, ``update_keys`` and the marker."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from google.adk import errors as adk_errors
from google.adk.events import Event, EventActions
from google.adk.events.event_actions import EventCompaction
from google.adk.sessions import Session
from google.genai import types

from sessiondb import DatabaseSessionService, errors
from sessiondb.options import CacheMode
from tests.contract.places import APP, SESSION, USER, event

pytestmark = [pytest.mark.anyio, pytest.mark.each_store]


async def _get(service: DatabaseSessionService) -> Session:
    session = await service.get_session(APP, USER, SESSION)
    assert session is not None
    return session


async def test_stale_error_says_modified_in_storage(service: DatabaseSessionService) -> None:
    one = await service.create_session(APP, USER, SESSION)
    two = await _get(service)
    await service.append_event(one, event())
    with pytest.raises(errors.StaleSessionError, match=r"modified in storage.*get_session") as refusal:
        await service.append_event(two, event())
    assert isinstance(refusal.value, adk_errors.StaleSessionError)


async def test_stale_session_stays_stale_until_read_again(service: DatabaseSessionService) -> None:
    one = await service.create_session(APP, USER, SESSION)
    two = await _get(service)
    await service.append_event(one, event())
    before = two.model_copy(deep=True)
    for _ in range(2):
        with pytest.raises(errors.StaleSessionError):
            await service.append_event(two, event(own=1, temp__trace=1))
    assert two == before
    await service.append_event(await _get(service), event())


async def test_on_stale_append_takes_stale_sessions(location: Path | str) -> None:
    async with DatabaseSessionService(location, on_stale="append") as service:
        one = await service.create_session(APP, USER, SESSION)
        two = await _get(service)
        await service.append_event(one, event(one=1))
        await service.append_event(two, event(two=2))
        await service.append_event(one, event(one=3))
        # As in memory: a live Session shows what went through it, storage shows all.
        assert (one.state, two.state) == ({"one": 3}, {"two": 2})
        read = await _get(service)
        assert read.state == {"one": 3, "two": 2}
        assert [len(session.events) for session in (one, two, read)] == [2, 1, 3]
        with pytest.raises(errors.SessionNotFoundError):
            await service.append_event(Session(id="never", app_name=APP, user_id=USER), event())


async def test_concurrent_appends_of_two_services_are_not_stale(location: Path | str) -> None:
    """Seen to fail with handles of each service's own: one of the two is refused as stale."""
    async with DatabaseSessionService(location) as one, DatabaseSessionService(location) as two:
        session = await one.create_session(APP, USER, SESSION)
        await asyncio.gather(one.append_event(session, event()), two.append_event(session, event()))
        assert len((await _get(two)).events) == len(session.events) == 2


async def test_on_stale_differs_between_services_of_one_file(location: Path | str) -> None:
    async with (
        DatabaseSessionService(location) as strict,
        DatabaseSessionService(location, on_stale="append") as lenient,
    ):
        one = await strict.create_session(APP, USER, SESSION)
        two = await _get(lenient)
        await strict.append_event(one, event())
        await lenient.append_event(two, event())
        with pytest.raises(errors.StaleSessionError):
            await strict.append_event(one, event())


async def test_update_keys_makes_no_session_stale(service: DatabaseSessionService) -> None:
    running = await service.create_session(APP, USER, SESSION, {"progress": 0, "note": "x", "user:theme": "dark"})
    await service.append_event(running, event(progress=1))
    await service.update_keys(
        APP, USER, SESSION, {"note": None, "paused": True, "user:theme": "light", "temp:debug": True}
    )
    await service.append_event(running, event(progress=2))
    read = await _get(service)
    assert read.state == {"progress": 2, "paused": True, "user:theme": "light"}
    recorded = read.events[1]
    assert recorded.author == "user"
    assert recorded.actions.state_delta == {"note": None, "paused": True, "user:theme": "light"}
    assert [found.actions.state_delta.get("progress") for found in read.events] == [1, None, 2]


async def test_update_keys_among_concurrent_appends_makes_none_stale(service: DatabaseSessionService) -> None:
    session = await service.create_session(APP, USER, SESSION)
    # The event that is delivered again keeps the batch from being written without a look at each of its commands.
    again = event(event_id="again")
    await service.append_event(session, again.model_copy(deep=True))
    await asyncio.gather(
        service.append_event(session, event(step=1)),
        service.append_event(session, again.model_copy(deep=True)),
        service.update_keys(APP, USER, SESSION, {"paused": True}),
        service.append_event(session, event(step=2)),
        service.update_keys(APP, USER, SESSION, {"paused": False}),
        service.append_event(session, event(step=3)),
    )
    await service.append_event(session, event(step=4))
    read = await _get(service)
    assert read.state == {"step": 4, "paused": False}
    assert len(read.events) == 7
    assert [found.id for found in session.events] == [found.id for found in read.events if found.author == "agent"]


async def test_update_keys_does_not_mutate_its_argument(service: DatabaseSessionService) -> None:
    await service.create_session(APP, USER, SESSION)
    delta = {"a": 1, "temp:b": 2, "c": None, "d": (1,)}
    await service.update_keys(APP, USER, f" {SESSION} ", delta)
    assert delta == {"a": 1, "temp:b": 2, "c": None, "d": (1,)}
    assert (await _get(service)).state == {"a": 1, "d": [1]}


async def test_update_keys_of_missing_session_is_not_found(service: DatabaseSessionService) -> None:
    with pytest.raises(errors.SessionNotFoundError):
        await service.update_keys(APP, USER, SESSION, {"user:theme": "dark"})
    assert await service.get_user_state(APP, USER) == {}


async def test_session_from_json_is_not_stale_after_update_keys(
    service: DatabaseSessionService,
) -> None:
    session = await service.create_session(APP, USER, SESSION)
    await service.append_event(session, event())
    restored = Session.model_validate_json(session.model_dump_json())
    await service.update_keys(APP, USER, SESSION, {"a": 1})
    await service.append_event(restored, event())
    with pytest.raises(errors.StaleSessionError):
        await service.append_event(session, event())


async def test_session_from_json_with_update_last_is_not_stale(service: DatabaseSessionService) -> None:
    session = await service.create_session(APP, USER, SESSION)
    await service.append_event(session, event())
    await service.update_keys(APP, USER, SESSION, {"a": 1})
    restored = Session.model_validate_json((await _get(service)).model_dump_json())
    await service.append_event(restored, event())
    assert len((await _get(service)).events) == 3


async def test_session_from_json_of_recreated_session_is_stale(service: DatabaseSessionService) -> None:
    session = await service.create_session(APP, USER, SESSION)
    await service.append_event(session, event())
    restored = Session.model_validate_json(session.model_dump_json())
    await service.delete_session(APP, USER, SESSION)
    await service.create_session(APP, USER, SESSION)
    with pytest.raises(errors.StaleSessionError):
        await service.append_event(restored, event())


async def test_update_marker_of_other_service_is_not_stale(service: DatabaseSessionService) -> None:
    session = await service.create_session(APP, USER, SESSION)
    session._storage_update_marker = "2026-01-02T03:04:05+00:00"
    await service.append_event(session, event())
    assert session == await _get(service)


@pytest.mark.parametrize("appended", [1, 3])
async def test_concurrent_appends_through_stale_session_all_fail(
    service: DatabaseSessionService, appended: int
) -> None:
    session = await service.create_session(APP, USER, SESSION)
    other = await _get(service)
    for _ in range(appended):
        await service.append_event(other, event())
    ends = await asyncio.gather(*(service.append_event(session, event()) for _ in range(8)), return_exceptions=True)
    assert [type(end) for end in ends] == [errors.StaleSessionError] * 8
    assert session.events == []
    assert await _get(service) == other


async def test_two_handles_race_and_the_other_is_stale(service: DatabaseSessionService) -> None:
    one = await service.create_session(APP, USER, SESSION)
    two = await _get(service)
    calls = [service.append_event(session, event()) for session in (one, two) * 8]
    ends = await asyncio.gather(*calls, return_exceptions=True)
    won = [not isinstance(end, BaseException) for end in ends]
    assert won == [True, False] * 8
    assert await _get(service) == one
    assert two.events == []


@pytest.mark.parametrize("log_cache", ["copy", "share", "off"])
async def test_live_session_equals_read_session_in_each_cache_mode(location: Path | str, log_cache: CacheMode) -> None:
    async with DatabaseSessionService(location, log_cache=log_cache) as service:
        session = await service.create_session(APP, USER, SESSION, {"own": 1, "user:theme": "dark", "app:version": 1})
        assert await _get(service) == session
        for number in range(40):
            await service.append_event(session, event(1_000.0 - number, own=number, user__theme=None))
            assert await _get(service) == session
        stored = (await _get(service)).events
        assert (stored[0] is (await _get(service)).events[0]) == (log_cache == "share")


async def test_cached_event_is_copied_for_each_reader(service: DatabaseSessionService) -> None:
    session = await service.create_session(APP, USER, SESSION)
    await service.append_event(session, event(author="agent"))
    read = await _get(service)
    read.events[0].author = "somebody else"
    read.events[0].branch = "changed"
    assert await _get(service) == session


def state_from_outside(**delta: object) -> Event:
    """What ``PATCH .../sessions/{id}`` of ADK's server appends."""
    return Event(invocation_id="p-1", author="user", actions=EventActions(state_delta=delta))


def summary() -> Event:
    """What ADK's compaction appends."""
    past = EventCompaction(
        start_timestamp=1.0,
        end_timestamp=2.0,
        compacted_content=types.Content(role="model", parts=[types.Part(text="what was said")]),
    )
    return Event(invocation_id="c-1", author="user", actions=EventActions(compaction=past))


@pytest.mark.parametrize("aside", [state_from_outside(paused=True), summary()], ids=["state", "summary"])
async def test_event_beside_the_conversation_is_not_stale_and_makes_none_stale(
    service: DatabaseSessionService, aside: Event
) -> None:
    """Seen failing with an append like any other."""
    running = await service.create_session(APP, USER, SESSION, {"progress": 0})
    other = await _get(service)
    await service.append_event(running, event(progress=1))
    # A Session that is behind may append it, and is behind afterwards.
    await service.append_event(other, aside.model_copy(deep=True, update={"id": "first"}))
    assert [found.id for found in other.events] == ["first"]
    with pytest.raises(errors.StaleSessionError):
        await service.append_event(other, event())
    await service.append_event(running, event(progress=2))
    # So may the conversation's own, and goes on.
    await service.append_event(running, aside.model_copy(deep=True, update={"id": "second"}))
    await service.append_event(running, aside.model_copy(deep=True, update={"id": "second"}))
    await service.append_event(running, event(progress=3))
    read = await _get(service)
    assert read.state == {"progress": 3, **aside.actions.state_delta}
    assert [found.id for found in read.events if found.author == "user"] == ["first", "second"]
    assert running.state["progress"] == 3
    assert (running.last_update_time, len(running.events)) == (read.last_update_time, len(read.events) - 1)


async def test_none_that_is_stored_from_outside_makes_none_stale(location: Path | str) -> None:
    async with DatabaseSessionService(location, none_in_delta="store") as service:
        running = await service.create_session(APP, USER, SESSION)
        await service.append_event(await _get(service), state_from_outside(note=None))
        await service.append_event(running, event(progress=1))
        assert (await _get(service)).state == {"note": None, "progress": 1}


@pytest.mark.parametrize(
    "step",
    [
        Event(author="agent", actions=EventActions(state_delta={"paused": True})),
        Event(author="user", actions=EventActions(state_delta={"paused": True}, escalate=True)),
        Event(author="user", actions=EventActions(state_delta={"paused": True}), branch="a.b"),
        Event(author="user", content=types.Content(parts=[types.Part(text="hi")])),
        Event(author="user"),
    ],
    ids=["of an agent", "with another action", "of a branch", "with content", "empty"],
)
async def test_event_of_the_conversation_is_stale_and_makes_stale(service: DatabaseSessionService, step: Event) -> None:
    one = await service.create_session(APP, USER, SESSION)
    two = await _get(service)
    await service.append_event(one, step)
    with pytest.raises(errors.StaleSessionError):
        await service.append_event(two, step.model_copy(update={"id": "another"}))


async def test_session_from_json_that_is_behind_cannot_catch_up_by_an_event_from_outside(
    service: DatabaseSessionService,
) -> None:
    """It is known by its last event only, which would be the newest then."""
    session = await service.create_session(APP, USER, SESSION)
    restored = Session.model_validate_json(session.model_dump_json())
    await service.append_event(session, event())
    with pytest.raises(errors.StaleSessionError):
        await service.append_event(restored, state_from_outside(a=1))
