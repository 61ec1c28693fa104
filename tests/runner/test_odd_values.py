"""A run goes on with whatever its tools return, and with keys that hold None."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from google.adk.events import Event, EventActions
from google.adk.sessions import BaseSessionService, InMemorySessionService, Session
from google.genai import types

from sessiondb import DatabaseSessionService
from sessiondb.options import NoneInDelta
from tests.scripted import APP, USER, ScriptedModel, call, say, scripted_agent, scripted_runner

pytestmark = [pytest.mark.anyio, pytest.mark.each_store]

SESSION = "conversation"


def list_files() -> dict[str, Any]:
    """List files, one of which has a name that is no UTF-8."""
    return {"names": [os.fsdecode(b"caf\xe9.txt")]}


def read_rows() -> dict[str, Any]:
    """Read rows, as they come."""
    return {"rows": ({"n": n} for n in range(3))}


def double() -> Any:
    """Double numbers, with nothing around them."""
    return map(float, [1, 2])


TOOLS: dict[Callable[..., Any], dict[str, Any]] = {
    list_files: {"names": ["caf\ufffd.txt"]},
    read_rows: {"rows": [{"n": 0}, {"n": 1}, {"n": 2}]},
    double: {"result": [1.0, 2.0]},
}


def responses(contents: list[types.Content | None]) -> list[dict[str, Any] | None]:
    return [
        part.function_response.response
        for content in contents
        if content is not None
        for part in content.parts or []
        if part.function_response
    ]


async def get(service: BaseSessionService) -> Session:
    session = await service.get_session(app_name=APP, user_id=USER, session_id=SESSION)
    assert session is not None
    return session


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.__name__)
async def test_run_goes_on_with_odd_tool_result(
    service: DatabaseSessionService, location: Path | str, tool: Callable[..., Any]
) -> None:
    await service.create_session(APP, USER, SESSION)
    model = ScriptedModel([call(tool.__name__), "done"])
    async with scripted_runner(service, model, tools=[tool]) as runner:
        yielded = await say(runner, "go", session_id=SESSION)
    expected = [TOOLS[tool]]
    # What the host sees, what the model is told, and what is stored.
    assert responses([event.content for event in yielded]) == expected
    assert responses(list(model.requests[-1].contents)) == expected
    async with DatabaseSessionService(location, log_cache="off") as other:
        assert responses([event.content for event in (await get(other)).events]) == expected
    assert model.remaining == 0


async def ask(service: BaseSessionService, instruction: str) -> str:
    """What the instruction of an agent becomes."""
    model = ScriptedModel(["answer"])
    async with scripted_runner(service, scripted_agent(model, instruction=instruction)) as runner:
        await say(runner, "go", session_id=SESSION)
    (request,) = model.requests
    return str(request.config.system_instruction).splitlines()[0]


async def test_template_of_key_created_with_none_is_empty_as_in_memory(service: DatabaseSessionService) -> None:
    for place in (InMemorySessionService(), service):
        await place.create_session(
            app_name=APP, user_id=USER, session_id=SESSION, state={"topic": None, "user:name": None}
        )
        assert await ask(place, "About {topic} for {user:name}.") == "About  for ."


@pytest.mark.parametrize("none_in_delta", ["delete", "store"])
async def test_template_of_key_that_a_delta_set_to_none(location: Path | str, none_in_delta: NoneInDelta) -> None:
    async with DatabaseSessionService(location, none_in_delta=none_in_delta) as service:
        session = await service.create_session(APP, USER, SESSION, {"topic": "birds"})
        await service.append_event(session, Event(author="user", actions=EventActions(state_delta={"topic": None})))
        # The question mark serves both.
        assert await ask(service, "About {topic?}.") == "About ."
        if none_in_delta == "store":
            assert await ask(service, "About {topic}.") == "About ."
        else:
            with pytest.raises(KeyError, match="topic"):
                await ask(service, "About {topic}.")


@pytest.mark.parametrize("none_in_delta", ["delete", "store"])
async def test_rewind_unsets_keys_that_came_later(location: Path | str, none_in_delta: NoneInDelta) -> None:
    async def rewound(place: BaseSessionService) -> Session:
        await place.create_session(app_name=APP, user_id=USER, session_id=SESSION)
        agent = scripted_agent(ScriptedModel(["one", "two"]), output_key="answer")
        async with scripted_runner(place, agent) as runner:
            first = await say(runner, "first", session_id=SESSION)
            await runner.rewind_async(
                user_id=USER, session_id=SESSION, rewind_before_invocation_id=first[0].invocation_id
            )
        return await get(place)

    expected = await rewound(InMemorySessionService())
    assert expected.state == {"answer": None}
    async with DatabaseSessionService(location, none_in_delta=none_in_delta) as service:
        session = await rewound(service)
    assert session.state == (expected.state if none_in_delta == "store" else {})
    assert session.events[-1].actions.state_delta == expected.events[-1].actions.state_delta == {"answer": None}
