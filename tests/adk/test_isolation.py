"""What a reader changes in the sessions that it has read, nobody else sees: not at any depth.

Seen failing with shallow copies, and with each kind of value (dict, list, set, model) given as it is kept.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from google.adk.events import Event
from google.adk.sessions import Session
from google.adk.sessions.base_session_service import GetSessionConfig
from google.genai import types
from pydantic import BaseModel

from sessiondb import DatabaseSessionService
from sessiondb.adk import cached, packed
from sessiondb.adk.events import decode_event, decode_events
from sessiondb.adk.fast_decode import event_validator
from sessiondb.adk.packed import pack, unpack
from sessiondb.model.records import EventRow, SessionKey
from sessiondb.options import CacheMode
from sessiondb.testing import typical_event
from tests.full_models import full_event, models_reached

KEY = ("my_app", "user_123", "s")

pytestmark = [pytest.mark.anyio, pytest.mark.each_store]


def changeable(value: object) -> Iterator[Any]:
    """What can be changed of a value: it, and all that is inside it, the innermost first."""
    if isinstance(value, BaseModel):
        for member in value.__dict__.values():
            yield from changeable(member)
        yield from (inside for inside in (value.__pydantic_extra__, value.__pydantic_private__) if inside is not None)
        yield value
    elif isinstance(value, dict):
        for member in value.values():
            yield from changeable(member)
        yield value
    elif isinstance(value, list):
        for member in value:
            yield from changeable(member)
        yield value
    elif isinstance(value, set):
        yield value


def spoil(value: Session | Event) -> int:
    """Changes all that can be changed; returns how many objects that were."""
    objects = list(changeable(value))
    for one in objects:
        if isinstance(one, BaseModel):
            if not one.model_config.get("frozen"):
                for name in type(one).model_fields:
                    setattr(one, name, "spoilt")
        elif isinstance(one, dict):
            one.clear()
            one["spoilt"] = True
        elif isinstance(one, list):
            one[:] = ["spoilt"]
        else:
            one.clear()
            one.add("spoilt")
    return len(objects)


def identities(session: Session) -> set[int]:
    return {id(one) for one in changeable(session)}


async def read(service: DatabaseSessionService, config: GetSessionConfig | None = None) -> Session:
    session = await service.get_session(*KEY, config)
    assert session is not None
    return session


async def prepared(location: Path | str, *events: Event) -> Session:
    async with DatabaseSessionService(location) as service:
        session = await service.create_session(*KEY[:2], "s", {"own": {"deep": [1]}, "user:u": [2], "app:a": {"b": 3}})
        for event in events:
            await service.append_event(session, event)
    async with DatabaseSessionService(location, log_cache="off") as service:
        return await read(service)


@pytest.mark.parametrize("log_cache", ["copy", "off"])
async def test_a_reader_that_changes_everything_changes_nothing_for_others(
    location: Path | str, log_cache: CacheMode
) -> None:
    stored = await prepared(location, full_event(), full_packable_event(), typical_event())
    async with DatabaseSessionService(location, log_cache=log_cache) as service:
        # Of the file; of the rows that were kept; of what was packed; of a part of that.
        for config in (None, None, None, GetSessionConfig(num_recent_events=2), GetSessionConfig(after_timestamp=0)):
            first, second = await read(service, config), await read(service, config)
            assert identities(first).isdisjoint(identities(second))
            assert spoil(first) > 20
            expected = stored.events[-2:] if config and config.num_recent_events else stored.events
            assert second.events == expected
            assert second.state == stored.state
            assert [event.model_fields_set for event in (await read(service, config)).events] == [
                event.model_fields_set for event in expected
            ]
        # What came since, beside what was known.
        writer = await read(service)
        await service.append_event(writer, full_event().model_copy(update={"id": "later"}))
        spoil(await read(service))
        spoil(writer)
        assert [event.id for event in (await read(service)).events] == [*(event.id for event in stored.events), "later"]
        assert (await read(service)).events[:-1] == stored.events


async def test_sessions_of_a_listing_share_nothing(location: Path | str) -> None:
    async with DatabaseSessionService(location) as service:
        for name in ("one", "two"):
            await service.create_session("my_app", "user_123", name, {"user:u": [2], "app:a": {"b": 3}})
        expected = (await service.list_sessions("my_app")).sessions[1].model_copy(deep=True)
        listing = await service.list_sessions("my_app")
        spoil(listing.sessions[0])
        assert listing.sessions[1] == expected
        assert (await service.list_sessions("my_app")).sessions[1] == expected


@pytest.mark.parametrize("log_cache", ["copy", "shallow", "share", "off"])
async def test_list_of_events_is_the_readers_own(location: Path | str, log_cache: CacheMode) -> None:
    async with DatabaseSessionService(location) as service:
        session = await service.create_session(*KEY)
        await service.append_event(session, typical_event("agent"))
    async with DatabaseSessionService(location, log_cache=log_cache) as service:
        for events in (2, 3, 4):
            read = await service.get_session(*KEY)
            assert read is not None
            await service.append_event(read, typical_event("agent"))
            assert len(read.events) == events
            read.events.clear()


@pytest.mark.parametrize(("log_cache", "same"), [("copy", False), ("shallow", True), ("share", True), ("off", False)])
async def test_log_cache_says_whether_what_nests_in_events_is_shared(
    location: Path | str, log_cache: CacheMode, *, same: bool
) -> None:
    await prepared(location, typical_event())
    async with DatabaseSessionService(location, log_cache=log_cache) as service:
        await read(service)
        one, other = (await read(service)).events[0], (await read(service)).events[0]
        assert (one.content is other.content) == same
        assert (one is other) == (log_cache == "share")
        assert one == other


async def test_events_looked_at_after_the_log_has_grown_are_decoded_once(
    location: Path | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A turn looks at its events when the next read may have been answered. Seen failing with each read decoding anew."""
    await prepared(location, *(typical_event() for _ in range(5)))
    decoded_rows: list[int] = []

    def decode(row: EventRow, key: SessionKey) -> Event:
        decoded_rows.append(row.seq)
        return decode_event(row, key)

    def decode_all(rows: Sequence[EventRow], key: SessionKey) -> Iterator[Event]:
        decoded_rows.extend(row.seq for row in rows)
        return decode_events(rows, key)

    monkeypatch.setattr(cached, "decode_event", decode)
    monkeypatch.setattr(cached, "decode_events", decode_all)
    async with DatabaseSessionService(location) as service:
        await read(service)
        for _ in range(3):
            session = await read(service)
            await service.append_event(session, typical_event())
            newer = await read(service)
            assert len(session.events) == len(newer.events)
    # Once for the first read, once to be packed; what is appended to a known log is packed at once.
    assert sorted(decoded_rows) == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 7, 8]


def full_packable_event() -> Event:
    """An event with every field set but for requests of credentials, which are decoded for each reader."""
    event = full_event()
    event.id = "packable"
    event.actions.requested_auth_configs = {}
    return event


def decoded(event: Event) -> Event:
    return event_validator()(event.model_dump_json(exclude_none=True))


def of_every_model() -> list[Event]:
    """Events that hold each of the models that an event may hold, but for those of an authentication."""
    usage = types.GenerateContentResponseUsageMetadata(
        prompt_token_count=3,
        prompt_tokens_details=[types.ModalityTokenCount(modality=types.MediaModality.TEXT, token_count=3)],
    )
    call = types.FunctionCall(id="c", name="f", args={"x": [1, {"y": None}], "n": 2**70})
    answer = types.FunctionResponse(id="c", name="f", response={"rows": [{"a": 1.0}, True]})
    parts = [
        types.Part(text="t", thought=True, thought_signature=b"\x00\xff"),
        types.Part(function_call=call),
        types.Part(function_response=answer),
        types.Part(inline_data=types.Blob(data=b"\x00", mime_type="image/png")),
    ]
    return [
        Event(
            author="a",
            content=types.Content(role="model", parts=[part]),
            usage_metadata=usage,
            finish_reason=types.FinishReason.STOP,
        )
        for part in parts
    ]


@pytest.mark.parametrize("number", range(6))
def test_a_packed_event_is_made_as_it_was(number: int) -> None:
    event = [typical_event(), Event(author="a"), *of_every_model()][number]
    before = decoded(event)
    kept = pack(before)
    assert kept is not None
    spoil(unpack(kept))
    for same in (unpack(kept), unpack(kept)):
        assert same == before
        assert same.__getstate__() == before.__getstate__()
        assert same.model_dump_json(exclude_unset=True) == before.model_dump_json(exclude_unset=True)
        assert list(same.__dict__) == list(before.__dict__)


def test_each_model_of_a_full_event_is_packed_or_is_of_an_authentication() -> None:
    """A field that a new ADK brings is packed by its type; what cannot be packed is decoded for each reader."""
    event = decoded(full_packable_event())
    kept = pack(event)
    assert kept is not None
    assert unpack(kept) == event
    packed_classes = {shape.kind for shape in packed._shapes.values()}
    missing = {model.__name__ for model in models_reached(Event) - packed_classes}
    assert all("Auth" in name or "OAuth" in name or "Http" in name or "Service" in name for name in missing), missing


def test_what_cannot_be_packed_is_not() -> None:
    event = decoded(typical_event())
    for value in ({1, (2,)}, (1,), {"k": types.Modality.TEXT}, {"k": b"bytes"}, object()):
        event.custom_metadata = {"k": value} if not isinstance(value, dict) else value
        assert pack(event) is None
    event.custom_metadata = None
    assert pack(event) is not None


def test_the_set_of_given_fields_is_that_of_the_log_whoever_assigns(caplog: pytest.LogCaptureFixture) -> None:
    kept = pack(decoded(typical_event()))
    assert kept is not None
    given = set(unpack(kept).model_fields_set)
    unpack(kept).branch = "a.b"
    assert unpack(kept).model_fields_set == given
    assert not caplog.records


def test_a_shape_that_does_not_come_back_is_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As after a release of pydantic that keeps its fields elsewhere."""
    monkeypatch.setattr(packed, "_plans", {})
    monkeypatch.setattr(
        packed,
        "_set_fields_set",
        lambda model, given: BaseModel.__dict__["__pydantic_fields_set__"].__set__(model, set()),
    )
    with caplog.at_level(logging.WARNING, "sessiondb"):
        assert pack(decoded(typical_event())) is None
    assert "fast_event_copies_unavailable" in caplog.text
    monkeypatch.setattr(packed, "_plans", {})
    monkeypatch.setattr(packed, "_set_fields_set", None)
    assert pack(decoded(typical_event())) is None
    assert "TypeError" in [record.__dict__.get("reason") for record in caplog.records]


def test_shapes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "_MAX_SHAPES", len(packed._shapes))
    monkeypatch.setattr(packed, "_plans", {})
    assert pack(decoded(typical_event())) is None
