"""The hook ``before_store``: what is stored of an event, and what its live Session keeps."""

from __future__ import annotations

import asyncio
import copy
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from google.adk.events import Event, EventActions
from google.adk.sessions import Session
from google.genai import types

from sessiondb import DatabaseSessionService
from sessiondb.errors import InvalidInputError, StaleSessionError
from tests.databases import query
from tests.scripted import APP as SCRIPTED_APP
from tests.scripted import USER, ScriptedModel, call, say, scripted_runner

pytestmark = [pytest.mark.anyio, pytest.mark.each_store]

KEY = ("my_app", "user_123", "sess_abc")
SECRET = "4111-1111-1111-1111"  # noqa: S105  # what is taken out


def event(text: str = f"my card is {SECRET}", author: str = "user", **delta: object) -> Event:
    return Event(
        author=author,
        invocation_id="inv",
        content=types.Content(role="user", parts=[types.Part(text=text)]),
        actions=EventActions(state_delta={name.replace("__", ":"): value for name, value in delta.items()}),
    )


def redact(given: Event) -> Event:
    for part in (given.content and given.content.parts) or []:
        part.text = part.text and part.text.replace(SECRET, "[card]")
    for name, value in given.actions.state_delta.items():
        given.actions.state_delta[name] = "[card]" if value == SECRET else value
    return given


def texts_of(session: Session | None) -> list[str | None]:
    assert session is not None
    return [one.content.parts[0].text if one.content and one.content.parts else None for one in session.events]


class Seen(list[Event]):
    """A hook that stores what it is given, or what another hook makes of it, and keeps copies."""

    def __init__(self, then: Callable[[Event], Event | None] = lambda given: given) -> None:
        self._then = then

    def __call__(self, given: Event) -> Event | None:
        self.append(given.model_copy(deep=True))
        return self._then(given)


def stored_in(location: Path | str) -> str:
    return repr([query(location, f"SELECT * FROM {table}") for table in ("adk_sessions", "adk_events", "adk_state")])


async def test_hook_redacts_what_is_stored_and_live_session_keeps_the_original(location: Path | str) -> None:
    async with DatabaseSessionService(location, before_store=redact) as service:
        session = await service.create_session(*KEY)
        original = event(card=SECRET, user__card=SECRET, temp__card=SECRET)
        given = original.model_copy(deep=True)
        assert await service.append_event(session, given) is given
        assert session.events == [given]
        assert texts_of(session) == [f"my card is {SECRET}"]
        assert session.state == {"card": SECRET, "user:card": SECRET, "temp:card": SECRET}
        await service.append_event(session, event("more", author="agent"))

        read = await service.get_session(*KEY)
        assert read is not None
        assert texts_of(read) == ["my card is [card]", "more"]
        assert read.state == {"card": "[card]", "user:card": "[card]"}
        assert read.events[0].id == original.id
        assert read.events[0].actions.state_delta == {"card": "[card]", "user:card": "[card]"}
        assert SECRET not in stored_in(location)


@pytest.mark.sqlite_only
async def test_no_byte_of_what_the_hook_took_out_is_in_the_file(location: Path) -> None:
    async with DatabaseSessionService(location, before_store=redact) as service:
        session = await service.create_session(*KEY)
        for _ in range(20):
            await service.append_event(session, event(card=SECRET))
        await service.update_keys(*KEY, {"card": SECRET})
        for file in location.parent.iterdir():
            assert SECRET.encode() not in file.read_bytes()


async def test_none_stores_only_the_place_of_an_event(location: Path | str) -> None:
    async with DatabaseSessionService(location, before_store=lambda _given: None) as service:
        session = await service.create_session(*KEY, {"kept": 1})
        given = event(kept=2, new=SECRET)
        given.error_code = SECRET
        await service.append_event(session, given)
        assert session.state == {"kept": 2, "new": SECRET}
        read = await service.get_session(*KEY)
        assert read is not None
        place = Event(author="user", invocation_id="inv", id=given.id, timestamp=given.timestamp)
        assert (read.events, read.state) == ([place], {"kept": 1})
        assert SECRET not in stored_in(location)


async def test_what_the_hook_raises_refuses_the_append(location: Path | str) -> None:
    refused = True

    def hook(given: Event) -> Event:
        if refused:
            raise PermissionError("not this one")
        return given

    async with DatabaseSessionService(location, before_store=hook) as service:
        session = await service.create_session(*KEY)
        given = event(step=1, temp__t=1)
        before = stored_in(location), session.model_dump(), given.model_dump()
        with pytest.raises(PermissionError, match="not this one"):
            await service.append_event(session, given)
        with pytest.raises(PermissionError):
            await service.update_keys(*KEY, {"step": 2})
        assert (stored_in(location), session.model_dump(), given.model_dump()) == before
        refused = False
        await service.append_event(session, given)
        assert session.events == [given]
        assert await service.get_session(*KEY) is not None


async def test_hook_is_called_once_for_each_event_on_the_callers_thread(location: Path | str) -> None:
    threads: set[threading.Thread] = set()

    def note(given: Event) -> Event:
        threads.add(threading.current_thread())
        return given

    hook = Seen(note)
    async with DatabaseSessionService(location, before_store=hook) as service:
        session = await service.create_session(*KEY, {"initial": 1})
        assert not hook
        given = [event(f"{n}", n=n) for n in range(40)]
        await asyncio.gather(*[service.append_event(session, one) for one in given])
        assert sorted(one.id for one in hook) == sorted(one.id for one in given)
        await service.append_event(session, Event(author="agent", partial=True))
        assert len(hook) == 40
        await service.update_keys(*KEY, {"a": 1, "temp:b": 2, "c": None})
        assert len(hook) == 41
        assert (hook[-1].author, hook[-1].actions.state_delta) == ("user", {"a": 1, "c": None})
    assert threads == {threading.current_thread()}


async def test_hook_gets_a_copy_as_a_reader_would(location: Path | str) -> None:
    hook = Seen()
    async with DatabaseSessionService(location, before_store=hook) as service:
        session = await service.create_session(*KEY)
        items = (n for n in range(3))
        given = event("x", items=items, day={2, 1}, temp__t=1)
        await service.append_event(session, given)
        read = await service.get_session(*KEY)
        assert read is not None
        assert read.events == [*hook] == session.events
        assert hook[0] is not given
        assert session.state["items"] == [0, 1, 2]


async def test_event_delivered_again_is_recognised_if_redacted_the_same_way(location: Path | str) -> None:
    hook = Seen(redact)
    async with DatabaseSessionService(location, before_store=hook) as service:
        session = await service.create_session(*KEY)
        given = event(card=SECRET)
        again = given.model_copy(deep=True)
        await service.append_event(session, given)
        await service.append_event(session, again)
        assert len(session.events) == 1
        fresh = await service.get_session(*KEY)
        assert fresh is not None
        # Through another handle, as it was at first; and as a reader got it.
        await service.append_event(fresh, given.model_copy(deep=True))
        await service.append_event(fresh, fresh.events[0].model_copy(deep=True))
        assert len(hook) == 4
        assert service.get_event_count(*KEY) == 1
    async with DatabaseSessionService(location, before_store=lambda _given: None) as service:
        second = await service.create_session("my_app", "user_123", "second")
        for _ in range(2):
            await service.append_event(second, given.model_copy(deep=True))
        assert service.get_event_count("my_app", "user_123", "second") == 1


async def test_state_gets_what_the_returned_delta_says(location: Path | str) -> None:
    def hook(given: Event) -> Event:
        delta = given.actions.state_delta
        del delta["dropped"]
        delta |= {"app:added": [1], "removed": None, "temp:mine": 1}
        return given

    async with DatabaseSessionService(location, before_store=hook) as service:
        session = await service.create_session(*KEY, {"removed": 1, "dropped": "old"})
        await service.append_event(session, event("x", kept=1, dropped="new"))
        assert session.state == {"removed": 1, "dropped": "new", "kept": 1}
        read = await service.get_session(*KEY)
        assert read is not None
        assert read.state == {"dropped": "old", "kept": 1, "app:added": [1]}
        await service.update_keys(*KEY, {"kept": 2, "dropped": "newer"})
        read = await service.get_session(*KEY)
        assert read is not None
        assert read.state == {"dropped": "old", "kept": 2, "app:added": [1]}


@pytest.mark.parametrize("mode", ["delete", "store"])
async def test_none_in_a_delta_passes_the_hook_unharmed(location: Path | str, mode: Any) -> None:
    async with DatabaseSessionService(location, none_in_delta=mode, before_store=redact) as service:
        session = await service.create_session(*KEY, {"k": 1})
        await service.append_event(session, event(k=None))
        read = await service.get_session(*KEY)
        assert read is not None
        assert read.state == session.state == ({} if mode == "delete" else {"k": None})


def _renamed(given: Event) -> Event:
    return given.model_copy(update={"id": "another"})


@pytest.mark.parametrize(
    ("hook", "says"),
    [
        (lambda given: given.model_dump(), "must return an Event or None, not dict"),
        (lambda _given: True, "must return an Event or None, not bool"),
        (_renamed, "another id"),
        (lambda given: given.model_copy(update={"author": "agent"}), "another id"),
        (lambda given: given.model_copy(update={"timestamp": 1.0}), "another id"),
        (lambda given: given.model_copy(update={"invocation_id": ""}), "another id"),
        (lambda given: given.model_copy(update={"custom_metadata": {"k": object}}), "no JSON form"),
    ],
)
async def test_hook_that_returns_something_else_refuses_the_append(location: Path | str, hook: Any, says: str) -> None:
    async with DatabaseSessionService(location, before_store=hook) as service:
        session = await service.create_session(*KEY)
        with pytest.raises(InvalidInputError, match=says):
            await service.append_event(session, event())
        assert session.events == []
        assert service.get_event_count(*KEY) == 0


async def test_change_from_outside_that_is_redacted_makes_nobody_stale(location: Path | str) -> None:
    async with DatabaseSessionService(location, before_store=lambda _given: None) as service:
        session = await service.create_session(*KEY)
        outside = await service.get_session(*KEY)
        assert outside is not None
        await service.append_event(outside, Event(author="user", actions=EventActions(state_delta={"a": 1})))
        await service.append_event(session, event())
        with pytest.raises(StaleSessionError):
            await service.append_event(outside, event())


@pytest.mark.sqlite_only
async def test_hook_may_take_out_what_is_too_large_to_be_stored(location: Path) -> None:
    blob = types.Part(text="x" * (64 * 2**20 + 1))

    def without_blobs(given: Event) -> Event:
        assert given.content is not None
        given.content.parts = [types.Part(text="see artifact 1")]
        return given

    async with DatabaseSessionService(location, before_store=without_blobs) as service:
        session = await service.create_session(*KEY)
        await service.append_event(session, Event(author="user", content=types.Content(role="user", parts=[blob])))
        assert texts_of(session) == [blob.text]
        assert texts_of(await service.get_session(*KEY)) == ["see artifact 1"]
    async with DatabaseSessionService(location, before_store=lambda given: given) as service:
        session = await service.create_session("my_app", "user_123", "second")
        with pytest.raises(InvalidInputError, match="bytes of JSON"):
            await service.append_event(session, Event(author="user", content=types.Content(parts=[blob])))


async def test_copy_of_a_service_has_the_same_hook(location: Path | str) -> None:
    hook = Seen(redact)
    async with DatabaseSessionService(location, before_store=hook) as service:
        session = await service.create_session(*KEY)
        for twin in (copy.copy(service), copy.deepcopy(service)):
            async with twin:
                await twin.append_event(session, event())
        assert len(hook) == 2
        assert SECRET not in stored_in(location)


def _read_card() -> dict[str, str]:
    """Returns the number of a card."""
    return {"card": SECRET}


async def test_runner_goes_on_with_the_original_until_the_session_is_read_again(location: Path | str) -> None:
    def without_responses(given: Event) -> Event:
        for part in (given.content and given.content.parts) or []:
            if part.function_response is not None:
                part.function_response.response = {"card": "[card]"}
        return given

    model = ScriptedModel([call("_read_card"), "done", "again"])
    async with DatabaseSessionService(location, before_store=without_responses) as service:
        session = await service.create_session(app_name=SCRIPTED_APP, user_id=USER, session_id="s")
        async with scripted_runner(service, model, tools=[_read_card]) as runner:
            await say(runner, "which card?", session_id=session.id)
            assert SECRET in str(model.requests[1].contents)
            await say(runner, "and now?", session_id=session.id)
            assert SECRET not in str(model.requests[2].contents)
            assert "[card]" in str(model.requests[2].contents)
        assert SECRET not in stored_in(location)
