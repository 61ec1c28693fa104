"""No field of an event is lost, in any way in which an event can be read again."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from fastapi.openapi import models as openapi
from google.adk.auth.auth_schemes import CustomAuthScheme, OpenIdConnectWithConfig
from google.adk.auth.auth_tool import AuthConfig
from google.adk.events import Event, EventActions
from google.adk.events.event import NodeInfo
from google.adk.events.event_actions import EventCompaction
from google.adk.sessions import Session
from google.adk.sessions.base_session_service import GetSessionConfig
from google.genai import types

from sessiondb import DatabaseSessionService, errors
from tests.full_models import (
    ALL_BYTES,
    FREE_FORM,
    ODD_TEXT,
    Filler,
    auth_config,
    full_event,
    models_reached,
    unset_fields,
)

pytestmark = [pytest.mark.anyio, pytest.mark.each_store]

APP, USER, SESSION = "my_app", "user_123", "sess_abc"


class Reader:
    """Appends an event to a log, and reads it in every way there is."""

    def __init__(self, location: Path | str, service: DatabaseSessionService, session: Session) -> None:
        self.location = location
        self._service = service
        self._session = session

    async def read(self, event: Event) -> list[Event]:
        await self._service.append_event(self._session, event)
        read = [await _last(self._service), await _last(self._service), await _last(self._service, newest=1)]
        for log_cache in ("copy", "share", "off"):
            async with DatabaseSessionService(self.location, log_cache=log_cache) as cold:
                read += [await _last(cold, newest=1), await _last(cold), await _last(cold)]
        return read


async def _last(service: DatabaseSessionService, newest: int | None = None) -> Event:
    config = None if newest is None else GetSessionConfig(num_recent_events=newest)
    session = await service.get_session(APP, USER, SESSION, config)
    assert session is not None
    return session.events[-1]


@pytest.fixture
async def reader(location: Path | str) -> AsyncIterator[Reader]:
    """A reader on a session whose log holds one event already."""
    async with DatabaseSessionService(location) as service:
        session = await service.create_session(APP, USER, SESSION)
        await service.append_event(session, Event(author="agent", invocation_id="inv_0"))
        yield Reader(location, service, session)


async def _assert_comes_back(reader: Reader, event: Event) -> None:
    given = event.model_copy(deep=True)
    for read in await reader.read(event):
        assert type(read) is Event
        assert read == given
        # Equality takes 1 for 1.0 and for True: the texts do not.
        assert read.model_dump_json() == given.model_dump_json()


async def test_roundtrip_of_event_with_every_field_set(reader: Reader) -> None:
    await _assert_comes_back(reader, full_event())


def test_full_event_sets_every_field() -> None:
    event = full_event()
    # What an auth config holds depends on its kind: the kinds have a test below.
    unset = {name for name in unset_fields(event) if not name.startswith(("APIKey.", "Auth", "Http"))}
    assert unset == set()
    assert {"Part", "GroundingChunkWeb", "LogprobsResultCandidate", "UiWidget"} <= {
        kind.__name__ for kind in models_reached(Event)
    }


@pytest.mark.parametrize("name", sorted(Event.model_fields))
async def test_roundtrip_of_each_event_field_alone(reader: Reader, name: str) -> None:
    await _assert_comes_back(reader, Event(author="agent").model_copy(update={name: Filler().field(Event, name)}))


@pytest.mark.parametrize("name", sorted(EventActions.model_fields))
async def test_roundtrip_of_each_event_actions_field_alone(reader: Reader, name: str) -> None:
    actions = EventActions(**{name: Filler().field(EventActions, name)})
    await _assert_comes_back(reader, Event(author="agent", actions=actions))


@pytest.mark.parametrize("name", sorted(types.Part.model_fields))
async def test_roundtrip_of_each_content_part_field_alone(reader: Reader, name: str) -> None:
    part = types.Part(**{name: Filler().field(types.Part, name)})
    await _assert_comes_back(reader, Event(author="agent", content=types.Content(role="model", parts=[part])))


SCHEMES: dict[str, Any] = {
    "APIKey in a header": openapi.APIKey.model_validate({"in": "header", "name": "x-api-key", "description": "d"}),
    "APIKey in the query": openapi.APIKey.model_validate({"in": "query", "name": "key"}),
    "HTTPBase": openapi.HTTPBase(scheme="basic"),
    "HTTPBearer": openapi.HTTPBearer(bearerFormat="JWT"),
    "OAuth2": openapi.OAuth2(
        flows=openapi.OAuthFlows(
            authorizationCode=openapi.OAuthFlowAuthorizationCode(
                authorizationUrl="https://a", tokenUrl="https://t", scopes={"s": "d"}
            )
        )
    ),
    "OAuth2 without flows": openapi.OAuth2(flows=openapi.OAuthFlows()),
    "OpenIdConnect": openapi.OpenIdConnect(openIdConnectUrl="https://x"),
    "OpenIdConnectWithConfig": OpenIdConnectWithConfig.model_validate(
        {"authorization_endpoint": "https://a", "token_endpoint": "https://t", "scopes": ["openid"]}
    ),
    "CustomAuthScheme": CustomAuthScheme.model_validate({"type": "mine", "extra": {"deep": [1]}}),
}


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_roundtrip_of_each_auth_scheme(reader: Reader, scheme: str) -> None:
    config = AuthConfig(auth_scheme=SCHEMES[scheme], credential_key="key")
    config.exchanged_auth_credential = auth_config().raw_auth_credential
    actions = EventActions(requested_auth_configs={"call": config})
    await _assert_comes_back(reader, Event(author="agent", actions=actions))


@pytest.mark.parametrize("route", [True, False, 0, 1, "", "next", [True, 2, "x"], []])
async def test_roundtrip_of_each_kind_of_route(reader: Reader, route: Any) -> None:
    await _assert_comes_back(reader, Event(author="agent", actions=EventActions(route=route)))


@pytest.mark.parametrize("name", ["output", "custom_metadata"])
@pytest.mark.parametrize("value", [{}, {"a": None}, {"a": {"b": None}}, FREE_FORM])
async def test_roundtrip_keeps_null_in_free_form_fields(reader: Reader, name: str, value: dict[str, Any]) -> None:
    await _assert_comes_back(reader, Event.model_validate({"author": "agent", name: value}))


async def test_roundtrip_keeps_null_and_empty_in_function_calls(reader: Reader) -> None:
    parts = [
        types.Part(function_call=types.FunctionCall(id="", name="tool", args={"a": None, "b": {"c": None}, "": []})),
        types.Part(function_call=types.FunctionCall(name="tool", args={})),
        types.Part(function_response=types.FunctionResponse(name="tool", response={"result": None, "deep": [None]})),
        types.Part(text=""),
        types.Part(),
    ]
    actions = EventActions(agent_state={"a": None}, artifact_delta={"file": 0}, escalate=False, set_model_response={})
    await _assert_comes_back(
        reader,
        Event(author="agent", content=types.Content(parts=parts), actions=actions, branch="", turn_complete=False),
    )
    await _assert_comes_back(reader, Event(author="agent", content=types.Content(parts=[])))
    await _assert_comes_back(reader, Event(author="agent", content=types.Content()))
    await _assert_comes_back(reader, Event(author="", invocation_id="", node_info=NodeInfo(output_for=[])))
    await _assert_comes_back(reader, Event(author="agent", actions=EventActions(agent_state={})))
    await _assert_comes_back(reader, Event(author="agent", long_running_tool_ids=set()))


async def test_roundtrip_of_unicode_control_characters_and_bytes(reader: Reader) -> None:
    texts = [ODD_TEXT, *map(chr, range(0x20)), "\x7f", "\ufeff", "\uffff", "\U0010ffff", "e\u0301", "' OR 1=1--", "$.x"]
    parts = [types.Part(text=text) for text in texts]
    parts += [types.Part.from_bytes(data=data, mime_type="x/y") for data in (b"", b"\xff", ALL_BYTES, b"%PDF\0")]
    await _assert_comes_back(reader, Event(author="agent", content=types.Content(role="user", parts=parts)))


async def test_roundtrip_of_big_integers_and_floats(reader: Reader) -> None:
    numbers = [0, -1, 2**53 + 1, 2**63 - 1, -(2**63), 2**64, 2**70, 0.1 + 0.2, -0.0, 1e-320, 1.7e308, 1e16, 5.0]
    delta = {f"n{place}": number for place, number in enumerate(numbers)}
    actions = EventActions(state_delta={**delta, "all": numbers}, agent_state={"all": numbers})
    await _assert_comes_back(reader, Event(author="agent", output=numbers, actions=actions, avg_logprobs=-0.0))


@pytest.mark.parametrize(
    "moment", [0.0, -0.0, -1.5, 5e-324, 1_700_000_000.123456789, 253_402_300_799.0, -62_135_596_800.0]
)
async def test_roundtrip_of_timestamp_to_the_last_bit(reader: Reader, moment: float) -> None:
    for read in await reader.read(Event(author="agent", timestamp=moment)):
        assert read.timestamp == moment


@pytest.mark.parametrize("content", [types.UserContent(parts="hello"), types.ModelContent(parts="hello")])
async def test_roundtrip_of_user_and_model_content_classes(reader: Reader, content: types.Content) -> None:
    event = Event(author="agent", content=content)
    for read in await reader.read(event):
        assert type(read.content) is types.Content
        assert read.model_dump() == event.model_dump()
    # It is the same event still.
    assert len(await reader.read(event)) > 1
    assert await _count(reader) == 2


class AuditedEvent(Event):
    """An event as an application may derive it."""

    approved_by: str | None = None


async def test_roundtrip_of_event_subclass(reader: Reader) -> None:
    given = AuditedEvent(author="agent", approved_by="somebody", branch="b", content=types.Content(role="model"))
    plain = Event.model_validate(given.model_dump(exclude={"approved_by"}))
    for read in await reader.read(given):
        assert read == plain
    await reader.read(given)
    assert await _count(reader) == 2


async def _count(reader: Reader) -> int:
    async with DatabaseSessionService(reader.location) as service:
        return service.get_event_count(APP, USER, SESSION)


# How an attribute set to a value of the wrong type is stored, if at all. ADK's models check values when they are made,
# not when they are changed.
MISTYPED: dict[str, tuple[str, Any]] = {
    "text for content": ("content", "hello"),
    "a part for content": ("content", types.Part(text="hello")),
    "a word for a flag": ("turn_complete", "perhaps"),
    "a list for metadata": ("custom_metadata", ["a"]),
    "a dict for usage": ("usage_metadata", {"no_such_count": 1}),
    "bytes that are no text": ("custom_metadata", {"a": b"\xff", "b": len}),
}


@pytest.mark.parametrize("case", MISTYPED)
async def test_mistyped_event_attribute_is_invalid_input(service: DatabaseSessionService, case: str) -> None:
    name, value = MISTYPED[case]
    session = await service.create_session(APP, USER, SESSION)
    event = Event(author="agent")
    setattr(event, name, value)
    with pytest.raises(errors.InvalidInputError):
        await service.append_event(session, event)
    await service.append_event(session, Event(author="agent"))
    assert await service.get_session(APP, USER, SESSION) == session
    assert len(session.events) == 1


async def test_mistyped_event_actions_are_invalid_input(service: DatabaseSessionService) -> None:
    session = await service.create_session(APP, USER, SESSION)
    event = Event(author="agent")
    event.actions.artifact_delta = {"file": "latest"}  # type: ignore[dict-item]  # that is the point
    with pytest.raises(errors.InvalidInputError):
        await service.append_event(session, event)
    assert service.get_event_count(APP, USER, SESSION) == 0


async def test_enum_and_integer_where_text_and_float_are_declared(reader: Reader) -> None:
    event = Event(author="agent", error_code="STOP")
    # ADK sets texts to enumeration members, and numbers come as integers where fractions are declared.
    event.error_code = types.FinishReason.STOP
    event.avg_logprobs = -1
    for read in await reader.read(event):
        assert (read.error_code, read.avg_logprobs) == ("STOP", -1.0)


async def test_nan_and_infinity_in_event_become_null(reader: Reader) -> None:
    event = Event(author="agent", avg_logprobs=float("nan"), output=[float("inf")], custom_metadata={"a": float("nan")})
    for read in await reader.read(event):
        assert (read.avg_logprobs, read.output, read.custom_metadata) == (None, [None], {"a": None})
    # Where a number is required, null cannot stand for it.
    compaction = EventCompaction(start_timestamp=float("nan"), end_timestamp=1.0, compacted_content=types.Content())
    with pytest.raises(errors.InvalidInputError):
        await reader.read(Event(author="agent", actions=EventActions(compaction=compaction)))


def _damage(path: Path, column: str, value: object, event_id: str) -> int:
    """Edits a column of an event outside sessiondb, and says which row that was."""
    with closing(sqlite3.connect(path)) as connection, connection:
        # Wrapped, so that text that is not UTF-8 can be put in as well.
        source = "CAST(? AS TEXT)" if column.endswith("as text") else "?"
        column = column.removesuffix(" as text")
        connection.execute(f"UPDATE adk_events SET {column} = {source} WHERE event_id = ?", (value, event_id))
        (row_id,) = connection.execute("SELECT id FROM adk_events ORDER BY id DESC LIMIT 1").fetchone()
        return int(row_id)


UNREADABLE: dict[str, tuple[str, object]] = {
    "a field of a newer ADK": ("actions", '{"state_delta": {}, "field_of_tomorrow": 1}'),
    "a part of a newer ADK": ("content", '{"parts": [{"hologram": {}}]}'),
    "no JSON": ("content", "{oops"),
    "JSON of another kind": ("actions", "[]"),
    "a closing brace too many": ("extra", "{}}"),
    "a blob for content": ("content", b"\xff\x00"),
    "a blob for actions": ("actions", b"{}"),
    "a blob for the author": ("author", b"\xff"),
    "a blob for the invocation": ("invocation_id", b"\xff"),
    "text for the time": ("event_time", "soon"),
    "content that is no UTF-8": ("content as text", b'{"role": "\xff"}'),
    "an author that is no UTF-8": ("author as text", b"\xff"),
    "a nesting bomb": ("extra", '{"output":' + "[" * 5_000 + "]" * 5_000 + "}"),
}


@pytest.mark.parametrize("warm", [True, False], ids=["warm", "cold"])
@pytest.mark.parametrize("case", UNREADABLE)
async def test_corrupt_event_row_is_named_and_others_are_read(database_path: Path, case: str, warm: bool) -> None:
    async with DatabaseSessionService(database_path) as service:
        broken = await service.create_session(APP, USER, "broken", {"user:theme": "dark"})
        await service.append_event(broken, Event(author="agent"))
        await service.append_event(broken, Event(id="damaged", author="agent"))
        whole = await service.create_session(APP, USER, "whole")
        if warm:
            assert await service.get_session(APP, USER, "broken") == broken
        row_id = _damage(database_path, *UNREADABLE[case], "damaged")
        reader = service if warm else DatabaseSessionService(database_path)
        for _ in range(2):
            with pytest.raises(errors.CorruptRowError) as error:
                await reader.get_session(APP, USER, "broken")
            assert f"row {row_id} of adk_events" in str(error.value)
            assert "'broken'" in str(error.value)
            assert error.value.__cause__ is None
        # Of the session itself, all but its log is there.
        head = await reader.get_session(APP, USER, "broken", GetSessionConfig(num_recent_events=0))
        assert head is not None
        assert head.state == {"user:theme": "dark"}
        assert reader.get_event_count(APP, USER, "broken") == 2
        # Others go on.
        await reader.append_event(whole, Event(author="agent"))
        assert await reader.get_session(APP, USER, "whole") == whole
        assert len(await reader.list_sessions(APP)) == 2
        # Mended with SQL, it reads again.
        with closing(sqlite3.connect(database_path)) as connection, connection:
            connection.execute("DELETE FROM adk_events WHERE event_id = 'damaged'")
        mended = await reader.get_session(APP, USER, "broken")
        assert mended is not None
        assert mended.events == broken.events[:1]
        await reader.close()


@pytest.mark.parametrize("value", ["{oops", "", b"\xff"])
async def test_corrupt_state_row_is_named_and_others_are_read(
    service: DatabaseSessionService, database_path: Path, value: object
) -> None:
    await service.create_session(APP, USER, "broken", {"key": 1})
    whole = await service.create_session(APP, USER, "whole", {"key": 2})
    with closing(sqlite3.connect(database_path)) as connection, connection:
        connection.execute("UPDATE adk_state SET state_value = ? WHERE session_id = 'broken'", (value,))
    with pytest.raises(errors.CorruptRowError, match="'broken'"):
        await service.get_session(APP, USER, "broken")
    await service.append_event(whole, Event(author="agent"))
    assert await service.get_session(APP, USER, "whole") == whole
    await service.update_keys(APP, USER, "broken", {"key": 3})
    mended = await service.get_session(APP, USER, "broken")
    assert mended is not None
    assert mended.state == {"key": 3}
