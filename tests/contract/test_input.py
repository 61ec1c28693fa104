"""Input that cannot be stored: refused with an error of its own before anything is written."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, cast

import pytest
from google.adk.errors.input_validation_error import InputValidationError
from google.adk.events import Event
from google.adk.sessions import Session

from sessiondb import DatabaseSessionService, errors
from tests.contract.places import APP, SESSION, USER, event

pytestmark = [pytest.mark.anyio, pytest.mark.each_store]

LONGEST = "x" * 4_096
# Each with what the message says about it.
UNUSABLE: dict[str, tuple[Any, str]] = {
    "number": (5, "must be a string, not int"),
    "bytes": (b"id", "must be a string, not bytes"),
    "list": (["id"], "must be a string, not list"),
    "NUL": ("a\0b", "NUL"),
    "surrogate": ("a\ud800b", "surrogate"),
    "too long": (LONGEST + "x", "4097 bytes long; at most 4096"),
    "too long in UTF-8": ("é" * 2_049, "4098 bytes long; at most 4096"),
}


@pytest.mark.parametrize("case", UNUSABLE)
@pytest.mark.parametrize("place", ["app_name", "user_id", "session_id"])
async def test_ids_with_nul_surrogate_or_too_long_are_refused(
    service: DatabaseSessionService, place: str, case: str
) -> None:
    value, says = UNUSABLE[case]
    key = {"app_name": APP, "user_id": USER, "session_id": SESSION, place: value}
    with pytest.raises(errors.InvalidInputError, match=says) as refusal:
        await service.create_session(**key)
    assert place in str(refusal.value)
    assert isinstance(refusal.value, InputValidationError)
    for call in (
        service.get_session(**key),
        service.delete_session(**key),
        service.update_keys(**key, delta={"a": 1}),
        service.append_event(Session.model_construct(id=key.pop("session_id"), events=[], state={}, **key), event()),
    ):
        with pytest.raises(errors.InvalidInputError, match=says):
            await call
    assert service.get_stats()["sessions"] == 0


@pytest.mark.parametrize("case", UNUSABLE)
async def test_invalid_ids_of_list_user_state_and_count_calls(service: DatabaseSessionService, case: str) -> None:
    value, says = UNUSABLE[case]
    for call in (
        service.list_sessions(value),
        service.list_sessions(APP, value),
        service.get_user_state(value, USER),
        service.get_user_state(APP, value),
    ):
        with pytest.raises(errors.InvalidInputError, match=says):
            await call
    with pytest.raises(errors.InvalidInputError, match=says):
        service.get_event_count(APP, USER, value)


@pytest.mark.parametrize("case", [case for case, (value, _) in UNUSABLE.items() if isinstance(value, Hashable)])
async def test_state_keys_with_nul_surrogate_or_too_long_are_refused(
    service: DatabaseSessionService, case: str
) -> None:
    key, says = UNUSABLE[case]
    session = await service.create_session(APP, USER, SESSION)
    given = event()
    given.actions.state_delta = {"fine": 1, key: 1}
    for call in (
        service.create_session(APP, USER, "other", {"fine": 1, key: 1}),
        service.update_keys(APP, USER, SESSION, {"fine": 1, key: 1}),
        service.append_event(session, given),
    ):
        with pytest.raises(errors.InvalidInputError, match=says):
            await call
    assert (session.state, session.events) == ({}, [])
    stats = service.get_stats()
    assert (stats["sessions"], stats["events"], stats["state_keys"]) == (1, 0, 0)


@pytest.mark.parametrize("field", ["id", "author", "invocation_id"])
@pytest.mark.parametrize("case", ["number", "NUL", "surrogate", "too long"])
async def test_event_id_author_with_nul_or_surrogate_is_refused(
    service: DatabaseSessionService, field: str, case: str
) -> None:
    value, says = UNUSABLE[case]
    session = await service.create_session(APP, USER, SESSION)
    given = event()
    setattr(given, field, value)
    with pytest.raises(errors.InvalidInputError, match=says):
        await service.append_event(session, given)
    assert session.events == []
    assert service.get_event_count(APP, USER, SESSION) == 0


async def test_longest_ids_and_state_keys_are_taken(service: DatabaseSessionService) -> None:
    longest = "é" * 2_048
    session = await service.create_session(longest, LONGEST, longest, {longest: 1, "user:" + "k" * 4_091: 2})
    await service.append_event(session, event(event_id=LONGEST))
    assert await service.get_session(longest, LONGEST, longest) == session
    assert len(await service.list_sessions(longest, LONGEST)) == 1


@pytest.mark.parametrize("moment", [float("nan"), float("inf"), 1e12, -1e12, 253_402_300_800.0, "soon", None])
async def test_timestamp_nan_infinite_or_out_of_range_is_refused(service: DatabaseSessionService, moment: Any) -> None:
    session = await service.create_session(APP, USER, SESSION)
    given = event()
    given.timestamp = moment
    with pytest.raises(errors.InvalidInputError, match="years 1 to 9999"):
        await service.append_event(session, given)
    assert session.events == []


@pytest.mark.parametrize("state", [["a"], "a", 5, {("a", "b")}])
async def test_state_that_is_no_mapping_is_refused(service: DatabaseSessionService, state: Any) -> None:
    session = await service.create_session(APP, USER, SESSION)
    with pytest.raises(errors.InvalidInputError, match="must be a mapping"):
        await service.create_session(APP, USER, "other", state)
    with pytest.raises(errors.InvalidInputError, match="must be a mapping"):
        await service.update_keys(APP, USER, SESSION, state)
    given = event()
    given.actions.state_delta = state
    with pytest.raises(errors.InvalidInputError, match="must be a mapping"):
        await service.append_event(session, given)


async def test_append_needs_an_adk_session_and_event(service: DatabaseSessionService) -> None:
    session = await service.create_session(APP, USER, SESSION)
    with pytest.raises(errors.InvalidInputError, match="must be an ADK Session, not str"):
        await service.append_event(cast("Session", SESSION), event())
    for wrong in ({"author": "agent"}, None, session):
        with pytest.raises(errors.InvalidInputError, match="must be an ADK Event"):
            await service.append_event(session, cast("Event", wrong))
    assert session.events == []


async def test_invalid_input_error_quotes_no_value(service: DatabaseSessionService) -> None:
    session = await service.create_session(APP, USER, SESSION)

    class Secret:
        def __repr__(self) -> str:
            return "hunter2"

    given = event(password=[{frozenset([Secret()]): "hunter2"}])
    with pytest.raises(errors.InvalidInputError) as refusal:
        await service.append_event(session, given)
    assert "password" in str(refusal.value)
    assert "hunter2" not in str(refusal.value)
    assert refusal.value.__cause__ is None
    given = event()
    given.custom_metadata = {"password": [Secret()]}
    with pytest.raises(errors.InvalidInputError) as refusal:
        await service.append_event(session, given)
    assert "hunter2" not in str(refusal.value)
    assert refusal.value.__cause__ is None
