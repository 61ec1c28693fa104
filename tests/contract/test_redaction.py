"""Events whose content is taken away, while their places stay; on each store."""

from __future__ import annotations

import asyncio
import json
import logging
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from google.adk.events import Event, EventActions
from google.adk.events.event_actions import EventCompaction
from google.adk.sessions import Session
from google.genai import types

from sessiondb import DatabaseSessionService
from sessiondb.errors import (
    CorruptRowError,
    EventNotFoundError,
    InvalidInputError,
    SessionNotFoundError,
    StaleSessionError,
)
from tests.contract.places import APP, SESSION, USER, event
from tests.contract.test_past import HOSTILE, at, get, told
from tests.contract.test_truncation import assert_sound, before_write, ids, restored, truncate
from tests.databases import query
from tests.full_models import full_event

pytestmark = [pytest.mark.anyio, pytest.mark.each_store]

SECRET = "the secret"  # noqa: S105  # a text to look for
MARK = "sessiondb:redacted_at"


async def redact(service: DatabaseSessionService, *names: str, replacement: Any = None) -> int:
    return await service.redact_events(APP, USER, SESSION, names, replacement)


def said(name: str, text: str = SECRET, *, role: str = "user", **delta: Any) -> Event:
    content = types.Content(role=role, parts=[types.Part(text=text)])
    return Event(
        id=name,
        author="agent",
        invocation_id="inv_1",
        timestamp=1_000.0,
        content=content,
        actions=EventActions(state_delta=delta),
    )


async def fill(service: DatabaseSessionService, *, length: int = 3) -> Session:
    session = await service.create_session(APP, USER, SESSION)
    await service.append_events(session, [said(f"e{n}", f"{SECRET} {n}", own=n) for n in range(1, length + 1)])
    return session


def stored(location: Path | str) -> str:
    return json.dumps(
        query(location, "SELECT content, actions, extra FROM adk_events ORDER BY seq"), ensure_ascii=False
    )


def texts(session: Session) -> list[str | None]:
    return [each.content.parts[0].text if each.content and each.content.parts else None for each in session.events]


# --- What goes and what stays ----------------------------------------------------------------------------------------


async def test_content_is_gone_and_the_place_stays(service: DatabaseSessionService, location: Path | str) -> None:
    await fill(service)
    before = await get(service)
    places = "SELECT seq, revision, event_id, invocation_id, author, event_time, timestamp, event_hash FROM adk_events"
    places += " ORDER BY seq"
    rows, heads = query(location, places), query(location, "SELECT revision, last_seq, updated_at FROM adk_sessions")
    assert await redact(service, "e3", "e1", "e3") == 2
    found = await get(service)
    assert texts(found) == [None, f"{SECRET} 2", None]
    assert found.state == before.state
    assert found.events[1] == before.events[1]
    assert [each.actions.state_delta for each in found.events] == [{"own": 1}, {"own": 2}, {"own": 3}]
    metadata = found.events[0].custom_metadata
    assert metadata is not None
    assert list(metadata) == [MARK]
    assert datetime.fromisoformat(metadata[MARK]).tzinfo is not None
    assert query(location, places) == rows
    assert query(location, "SELECT revision, last_seq, updated_at FROM adk_sessions") == heads
    assert stored(location).count(SECRET) == 1
    assert (await at(service, 1)).state == {"own": 1}
    assert [c[1:5] for c in await told(service, USER)] == [(1, "own", None, 1), (2, "own", 1, 2), (3, "own", 2, 3)]
    assert_sound(location)


STAYS = {"id", "invocation_id", "author", "timestamp", "branch", "isolation_scope", "node_info", "usage_metadata"}
STAYS |= {"long_running_tool_ids", "turn_complete", "turn_complete_reason", "interaction_status", "finish_reason"}
STAYS |= {"error_code", "interrupted", "model_version", "partial"}
"""All fields but these are content, those of a later ADK too."""

ACTIONS_STAY = {"state_delta", "artifact_delta", "skip_summarization", "transfer_to_agent", "escalate", "end_of_agent"}
ACTIONS_STAY |= {"rewind_before_invocation_id", "route"}


def frame_of(content: types.Content) -> types.Content:
    """What stays of a content whose only part holds a call, beside all else that a part may hold."""
    assert content.parts is not None
    (part,) = content.parts
    assert part.function_call is not None
    call = types.FunctionCall(id=part.function_call.id, name=part.function_call.name)
    return types.Content(role=content.role, parts=[types.Part(function_call=call)])


async def test_of_event_with_every_field_nothing_stays_but_what_is_named(
    service: DatabaseSessionService, location: Path | str
) -> None:
    session = await service.create_session(APP, USER, SESSION)
    given = full_event()
    given.id = "full"
    await service.append_event(session, given)
    (before,) = (await get(service)).events
    await redact(service, "full")
    (after,) = (await get(service)).events
    unset = Event(id="x", timestamp=1.0)
    for name in Event.model_fields.keys() - {"actions", "content", "custom_metadata"}:
        expected = getattr(before if name in STAYS else unset, name)
        assert getattr(after, name) == expected, name
    for name in EventActions.model_fields.keys() - {"compaction"}:
        expected = getattr((before if name in ACTIONS_STAY else unset).actions, name)
        assert getattr(after.actions, name) == expected, name
    assert before.content is not None
    assert after.content == frame_of(before.content)
    summary = before.actions.compaction
    assert summary is not None
    assert after.actions.compaction == summary.model_copy(
        update={"compacted_content": frame_of(summary.compacted_content)}
    )
    # What is removed is nowhere in the row.
    kept = stored(location)
    for field in ("Transcription", "Grounding", "Citation", "Part.", "UiWidget", "CacheMetadata", "AuthConfig"):
        assert field not in kept, field


@pytest.mark.parametrize("replacement", [None, "[removed]", types.Content(role="model", parts=[types.Part(text="?")])])
async def test_conversation_keeps_its_calls_without_what_is_in_them(
    service: DatabaseSessionService, location: Path | str, replacement: str | types.Content | None
) -> None:
    call = types.FunctionCall(id="c1", name="tool", args={"q": SECRET})
    answer = types.FunctionResponse(id="c1", name="tool", response={"result": SECRET})
    session = await service.create_session(APP, USER, SESSION)
    events = [
        Event(
            id="text and call",
            author="agent",
            content=types.ModelContent([types.Part(text=SECRET), types.Part(function_call=call)]),
        ),
        Event(id="answer", author="agent", content=types.UserContent([types.Part(function_response=answer)])),
        said("text", role="user"),
        Event(id="state", author="agent", actions=EventActions(state_delta={"own": 1})),
        Event(id="blob", author="user", content=types.UserContent(types.Part.from_bytes(data=b"x", mime_type="a/b"))),
    ]
    await service.append_events(session, events)
    assert await redact(service, *(each.id for each in events), replacement=replacement) == 5
    assert SECRET not in stored(location)
    first, second, third, fourth, fifth = (await get(service)).events
    assert first.get_function_calls() == [types.FunctionCall(id="c1", name="tool", args=None)]
    result = {"result": "[removed]"} if isinstance(replacement, str) else {}
    assert second.get_function_responses() == [types.FunctionResponse(id="c1", name="tool", response=result)]
    assert second.content is not None
    assert second.content.parts is not None
    assert len(second.content.parts) == 1
    assert fourth.content is None
    if replacement is None:
        assert (third.content, fifth.content) == (None, None)
    elif isinstance(replacement, str):
        assert first.content is not None
        assert (first.content.role, first.content.parts and first.content.parts[0].text) == ("model", "[removed]")
        assert third.content == fifth.content == types.Content(role="user", parts=[types.Part(text="[removed]")])
    else:
        assert third.content == fifth.content == replacement
    # A cut still knows what belongs together.
    assert ids(await truncate(service, "answer")) == ["text and call", "answer"]


async def test_summary_is_content(service: DatabaseSessionService, location: Path | str) -> None:
    session = await service.create_session(APP, USER, SESSION)
    of = EventCompaction(start_timestamp=1.0, end_timestamp=2.0, compacted_content=types.ModelContent(SECRET))
    await service.append_event(session, Event(id="e", author="user", actions=EventActions(compaction=of)))
    await redact(service, "e", replacement="short")
    (found,) = (await get(service)).events
    short = types.Content(role="model", parts=[types.Part(text="short")])
    assert found.actions.compaction == of.model_copy(update={"compacted_content": short})
    assert SECRET not in stored(location)


async def test_none_that_is_a_value_stays_one(location: Path | str) -> None:
    async with DatabaseSessionService(location, none_in_delta="store") as service:
        session = await service.create_session(APP, USER, SESSION)
        await service.append_event(session, said("e1", own=None, grün=[1.0, 2**70, "\0"]))
        await service.append_event(session, said("e2", own=1))
        before = await at(service, 1)
        await redact(service, "e1")
        assert (await at(service, 1)).state == before.state == {"own": None, "grün": [1.0, 2**70, "\0"]}
        assert [c[2] for c in await told(service, key="grün")] == ["grün"]


async def test_redacted_event_can_be_redacted_anew(service: DatabaseSessionService) -> None:
    await fill(service)
    await redact(service, "e1", replacement="once")
    await redact(service, "e1", replacement="twice")
    assert texts(await get(service))[0] == "twice"


async def test_several_events_of_an_id_are_all_meant(service: DatabaseSessionService, location: Path | str) -> None:
    session = await service.create_session(APP, USER, SESSION)
    for n in range(2):
        await service.append_event(session, said("same").model_copy(update={"timestamp": float(n)}))
    assert await redact(service, "same") == 2
    assert SECRET not in stored(location)


async def test_event_that_no_adk_can_read_is_redacted_all_the_same(
    service: DatabaseSessionService, location: Path | str
) -> None:
    await fill(service, length=2)
    odd = '{"parts":[{"text":"the secret"}],"brought by a later release":{"text":"the secret"}}'
    query(location, "UPDATE adk_events SET content = ? WHERE event_id = 'e1'", odd)
    with pytest.raises(CorruptRowError):
        await get(service)
    await redact(service, "e1")
    assert texts(await get(service)) == [None, f"{SECRET} 2"]
    for broken in ("[]", '{"parts":[1]}', '{"parts":1}', "{", '{"parts":[{"function_call":{"name":"\\ud800"}}]}'):
        query(location, "UPDATE adk_events SET content = ? WHERE event_id = 'e2'", broken)
        with pytest.raises(CorruptRowError, match="edited outside"):
            await redact(service, "e1", "e2")


# --- All or none -----------------------------------------------------------------------------------------------------


async def test_unknown_ids_change_nothing(service: DatabaseSessionService, location: Path | str) -> None:
    await fill(service)
    before = stored(location)
    with pytest.raises(EventNotFoundError, match="no event with the id 'missing'"):
        await redact(service, "e1", "missing", "e2")
    for app, user, name in ((APP, "other", SESSION), ("other", USER, SESSION), (APP, USER, "x"), (APP, "", SESSION)):
        with pytest.raises(SessionNotFoundError):
            await service.redact_events(app, user, name, ["e1"])
    for wrong in ("e1", ["a\0b"], [1], ["\ud800"]):
        with pytest.raises(InvalidInputError):
            await service.redact_events(APP, USER, SESSION, wrong)  # type: ignore[arg-type]  # as a mistake has it
    call = types.Content(parts=[types.Part(function_call=types.FunctionCall(name="tool"))])
    for replacement in (1, ["text"], call, "x" * 70_000_000):
        with pytest.raises(InvalidInputError):
            await redact(service, "e1", replacement=replacement)
    assert await redact(service) == 0
    assert stored(location) == before


async def test_others_lose_nothing(service: DatabaseSessionService, location: Path | str) -> None:
    others = [(APP, "other", SESSION), ("other", USER, SESSION), (APP, USER, "another")]
    for key in others:
        session = await service.create_session(*key)
        await service.append_event(session, said("e1"))
    await fill(service)
    # A fork is a session of its own.
    fork = await service.fork_session(APP, USER, SESSION, new_session_id="fork")
    before = [await service.get_session(*key) for key in others]
    await redact(service, "e1", "e2", "e3")
    assert [await service.get_session(*key) for key in others] == before
    assert (await get(service, "fork")).events == fork.events
    assert_sound(location)


async def test_hostile_ids_name_what_they_name(service: DatabaseSessionService) -> None:
    for text in HOSTILE:
        session = await service.create_session(text, text, text)
        await service.append_event(session, said(text, text, **{text: text}))
        assert await service.redact_events(text, text, text, [text], text) == 1
        found = await service.get_session(text, text, text)
        assert found is not None
        assert (found.state, texts(found)) == ({text: text}, [text])


async def test_log_event_holds_counts_and_ids(
    service: DatabaseSessionService, caplog: pytest.LogCaptureFixture
) -> None:
    await fill(service)
    with caplog.at_level(logging.DEBUG, "sessiondb"):
        await redact(service, "e1", "e2", replacement="[removed]")
    (record,) = [record for record in caplog.records if record.message == "events_redacted"]
    assert (vars(record)["session_id"], vars(record)["events"]) == (SESSION, 2)
    assert list(vars(record)["event_ids"]) == ["e1", "e2"]
    assert not any(SECRET in str(vars(record)) or "removed" in str(vars(record)) for record in caplog.records)


# --- Sessions that were read before, and events that come again ------------------------------------------------------


async def test_conversation_goes_on(service: DatabaseSessionService) -> None:
    session = await fill(service)
    known = restored(session)
    await redact(service, "e1", "e3")
    await service.append_event(session, event(event_id="e4"))
    assert texts(session)[0] == f"{SECRET} 1"
    await service.append_event(await get(service), event(event_id="e5"))
    with pytest.raises(StaleSessionError):
        await service.append_event(known, event())
    assert ids(await get(service)) == ["e1", "e2", "e3", "e4", "e5"]


async def test_session_out_of_json_goes_on(service: DatabaseSessionService) -> None:
    known = restored(await fill(service))
    await redact(service, "e3")
    await service.append_event(known, event(event_id="e4"))


async def test_redacted_event_that_is_delivered_again_does_not_come_back(
    service: DatabaseSessionService, location: Path | str
) -> None:
    session = await service.create_session(APP, USER, SESSION)
    outside = Event(id="outside", author="user", timestamp=1.0, actions=EventActions(state_delta={"outside": 1}))
    given = [said("e1", own=1), said("e2", own=2), outside]
    await service.append_events(session, [each.model_copy(deep=True) for each in given])
    await redact(service, "e1", "e2", "outside", replacement="[removed]")
    for n in range(3):
        target = restored(await get(service)) if n else session
        for each in given:
            await service.append_event(target, each.model_copy(deep=True))
        await service.append_events(target, [each.model_copy(deep=True) for each in given])
        await service.append_events(target, [given[0].model_copy(deep=True), event(event_id=f"new {n}")])
        await service.append_event(target, (await get(service)).events[0])
    found = await get(service)
    assert ids(found)[:3] == ["e1", "e2", "outside"]
    assert len(found.events) == 6
    assert texts(found)[:2] == ["[removed]"] * 2
    assert SECRET not in stored(location)
    # Another event of the same id is another event.
    later = said("e1", "another").model_copy(update={"timestamp": 2_000.0})
    await service.append_event(await get(service), later)
    assert texts(await get(service))[-1] == "another"


@pytest.mark.parametrize("log_cache", ["copy", "shallow", "share", "off"])
async def test_logs_that_others_keep_notice(
    service: DatabaseSessionService, location: Path | str, log_cache: Any
) -> None:
    await fill(service)
    async with DatabaseSessionService(location, log_cache=log_cache) as other:
        for _ in range(2):
            assert texts(await get(other))[0] == f"{SECRET} 1"
        await redact(service, "e1")
        assert texts(await get(other)) == [None, f"{SECRET} 2", f"{SECRET} 3"]
        page = await other.get_events(APP, USER, SESSION)
        assert page.events[0].content is None


# --- Others at the same time -----------------------------------------------------------------------------------------


async def test_event_that_is_changed_meanwhile_is_read_again(
    service: DatabaseSessionService, monkeypatch: pytest.MonkeyPatch, location: Path | str
) -> None:
    session = await fill(service)

    async def meanwhile() -> None:
        await service.append_event(session, event(event_id="e4"))
        query(location, "UPDATE adk_events SET actions = '{\"state_delta\":{\"own\":7}}' WHERE event_id = 'e1'")

    written = before_write(service, monkeypatch, meanwhile)
    await redact(service, "e1")
    assert (await get(service)).events[0].actions.state_delta == {"own": 7}
    assert len(written) == 2


async def test_event_that_is_cut_off_meanwhile_is_unknown(
    service: DatabaseSessionService, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(service)

    async def meanwhile() -> None:
        await truncate(service, "e1")
        await service.append_event(await get(service), said("another", "another"))

    # Of two calls the first one that is about to write waits for the other.
    before_write(service, monkeypatch, meanwhile)
    with pytest.raises(EventNotFoundError):
        await redact(service, "e1", "e2")
    assert texts(await get(service)) == [f"{SECRET} 1", "another"]


async def test_appends_beside_redactions_lose_nothing(service: DatabaseSessionService, location: Path | str) -> None:
    session = await fill(service, length=1)

    async def append() -> None:
        for n in range(2, 40):
            await service.append_event(session, said(f"e{n}"))

    async def take_away() -> None:
        async with DatabaseSessionService(location) as other:
            for _ in range(10):
                await other.redact_events(APP, USER, SESSION, ids(await get(other)))

    await asyncio.gather(append(), take_away(), take_away())
    await redact(service, *(f"e{n}" for n in range(1, 40)))
    assert ids(await get(service)) == [f"e{n}" for n in range(1, 40)]
    assert SECRET not in stored(location)
    assert_sound(location)


async def test_cancelled_redaction_is_whole_or_nothing(service: DatabaseSessionService, location: Path | str) -> None:
    await fill(service, length=9)
    for steps in range(10):
        mark = f"{steps}"
        before = texts(await get(service))
        task = asyncio.ensure_future(redact(service, *(f"e{n}" for n in range(1, 10)), replacement=mark))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert texts(await get(service)) in (before, [mark] * 9)
    assert_sound(location)
