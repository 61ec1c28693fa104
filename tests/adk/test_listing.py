"""What list_sessions answers: ADK's response and a sequence of rows, at once."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.encoders import jsonable_encoder
from google.adk.events import Event
from google.adk.sessions import Session
from google.adk.sessions.base_session_service import ListSessionsResponse
from pydantic import BaseModel, TypeAdapter

from sessiondb import DatabaseSessionService, SessionList

pytestmark = [pytest.mark.anyio, pytest.mark.each_store]

APP, USER = "my_app", "user_123"


@pytest.fixture
async def listed(service: DatabaseSessionService) -> SessionList:
    """Three sessions of two users and two apps, the one updated last at the end."""
    await service.create_session(APP, USER, "a", {"own": 1, "user:theme": "dark", "app:version": 2})
    await service.create_session(APP, "other", "b")
    await service.create_session("other", USER, "c")
    for name in ("a", "b"):
        session = await service.get_session(APP, USER if name == "a" else "other", name)
        assert session is not None
        await service.append_event(session, Event(author="agent", timestamp=1_000.0 if name == "b" else 2_000.0))
    return await service.list_sessions()


async def test_session_list_is_adk_list_sessions_response(listed: SessionList) -> None:
    assert isinstance(listed, ListSessionsResponse)
    assert [(found.app_name, found.user_id, found.id) for found in listed.sessions] == [
        (APP, "other", "b"),
        (APP, USER, "a"),
        ("other", USER, "c"),
    ]
    assert all(type(found) is Session and not found.events for found in listed.sessions)
    assert listed.sessions[1].state == {"own": 1, "user:theme": "dark", "app:version": 2}
    assert [found.last_update_time for found in listed.sessions[:2]] == [1_000.0, 2_000.0]


async def test_session_list_is_a_sequence_of_rows(listed: SessionList) -> None:
    assert isinstance(listed, Sequence)
    assert len(listed) == 3
    row = listed[1]
    assert set(row) == {"app_name", "user_id", "session_id", "created_at", "updated_at"}
    assert (row["app_name"], row["user_id"], row["session_id"]) == (APP, USER, "a")
    assert row["updated_at"] == "1970-01-01T00:33:20.000000Z"
    assert row["created_at"] > "2020"
    assert [found["session_id"] for found in listed] == ["b", "a", "c"]
    assert [found["session_id"] for found in listed[1:]] == ["a", "c"]
    assert listed[-1]["session_id"] == "c"
    assert row in listed
    assert listed.index(row) == 1
    assert next(iter(reversed(listed))) == listed[2]
    with pytest.raises(IndexError):
        listed[3]


async def test_empty_session_list_is_false(service: DatabaseSessionService) -> None:
    listed = await service.list_sessions()
    assert not listed
    assert listed.sessions == []
    assert list(listed) == []


async def test_list_sessions_filters_by_app_and_user(service: DatabaseSessionService, listed: SessionList) -> None:
    async def names(app_name: str | None = None, user_id: str | None = None) -> list[str]:
        return [row["session_id"] for row in await service.list_sessions(app_name=app_name, user_id=user_id)]

    assert await names() == ["b", "a", "c"]
    assert await names(APP) == ["b", "a"]
    assert await names(APP, USER) == ["a"]
    assert await names(None, USER) == ["a", "c"]
    assert await names("nobody's") == await names(APP, "") == []


async def test_append_to_listed_session(service: DatabaseSessionService, listed: SessionList) -> None:
    session = listed.sessions[1]
    await service.append_event(session, Event(author="agent"))
    assert session.state["own"] == 1


async def test_session_list_serializes_in_pydantic_as_adk_response(listed: SessionList) -> None:
    plain = ListSessionsResponse(sessions=listed.sessions)
    assert listed.model_dump() == plain.model_dump()
    assert listed.model_dump_json(by_alias=True) == plain.model_dump_json(by_alias=True)
    assert TypeAdapter(ListSessionsResponse).dump_json(listed) == plain.model_dump_json().encode()
    assert TypeAdapter(Any).dump_json(listed) == plain.model_dump_json().encode()
    assert jsonable_encoder(listed) == jsonable_encoder(plain)
    assert ListSessionsResponse.model_validate_json(listed.model_dump_json()).model_dump() == plain.model_dump()
    assert TypeAdapter(ListSessionsResponse).validate_python(listed) is listed

    class Page(BaseModel):
        response: ListSessionsResponse

    assert Page(response=listed).model_dump_json() == Page(response=plain).model_dump_json()


async def test_copy_of_session_list_is_a_session_list(listed: SessionList) -> None:
    for copied in (copy.copy(listed), copy.deepcopy(listed), listed.model_copy(), listed.model_copy(deep=True)):
        assert isinstance(copied, SessionList)
        assert list(copied) == list(listed)
        assert copied.sessions == listed.sessions
        assert copied == listed


async def test_session_list_is_served_by_fastapi(location: Path | str) -> None:
    api = FastAPI()

    @api.get("/response")
    async def response() -> ListSessionsResponse:
        async with DatabaseSessionService(location) as service:
            return await service.list_sessions(app_name=APP)

    # As ADK's own server does.
    @api.get("/sessions", response_model_exclude_none=True)
    async def sessions() -> list[Session]:
        async with DatabaseSessionService(location) as service:
            return (await service.list_sessions(app_name=APP, user_id=USER)).sessions

    @api.get("/rows")
    async def rows() -> list[dict[str, str]]:
        async with DatabaseSessionService(location) as service:
            return list(await service.list_sessions(APP))

    @api.post("/sessions")
    async def create() -> Session:
        async with DatabaseSessionService(location) as service:
            return await service.create_session(APP, USER, "a", {"own": 1})

    async with httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://server") as client:
        assert (await client.post("/sessions")).json()["id"] == "a"
        (served,) = (await client.get("/response")).json()["sessions"]
        assert (served["id"], served["appName"], served["state"], served["events"]) == ("a", APP, {"own": 1}, [])
        assert (await client.get("/sessions")).json() == [served]
        assert (await client.get("/rows")).json()[0]["session_id"] == "a"


async def test_list_sessions_of_a_thousand_sessions(service: DatabaseSessionService) -> None:
    for number in range(1_000):
        state = {"own": number, "user:u": number, "app:a": number}
        await service.create_session(APP, f"user {number % 10}", f"s{number:04}", state)
    listed = await service.list_sessions(APP)
    assert len(listed) == len(listed.sessions) == 1_000
    assert sorted(row["session_id"] for row in listed) == [f"s{number:04}" for number in range(1_000)]
    for row, session in zip(listed, listed.sessions, strict=True):
        number = int(session.id.removeprefix("s"))
        assert row["session_id"] == session.id
        assert session.state == {"own": number, "user:u": 990 + number % 10, "app:a": 999}
    assert len(await service.list_sessions(APP, "user 3")) == 100
