"""The scripted model plays what the other tests rely on."""

from __future__ import annotations

import asyncio

import pytest
from google.adk.events import Event
from google.adk.sessions import InMemorySessionService
from google.adk.tools.tool_context import ToolContext

from tests.scripted import (
    APP,
    USER,
    ScriptedModel,
    Step,
    call,
    reply_text,
    say,
    scripted_agent,
    scripted_runner,
    transfer,
)


def double(x: int, tool_context: ToolContext) -> int:
    """Double x and remember it."""
    tool_context.state[f"doubled_{x}"] = 2 * x
    return 2 * x


async def converse(
    model: ScriptedModel, *messages: str, streaming: bool = False
) -> tuple[list[list[Event]], list[Event]]:
    """Return the events that each message yielded, and those that were stored."""
    service = InMemorySessionService()
    child = scripted_agent(["I am the child."], name="child")
    agent = scripted_agent(model, tools=[double], sub_agents=[child])
    await service.create_session(app_name=APP, user_id=USER, session_id="s")
    async with scripted_runner(service, agent) as runner:
        yielded = [await say(runner, message, session_id="s", streaming=streaming) for message in messages]
    session = await service.get_session(app_name=APP, user_id=USER, session_id="s")
    assert session is not None
    return yielded, session.events


def test_scripted_parallel_tool_calls_reach_the_model() -> None:
    model = ScriptedModel(["hello", [call("double", x=1), call("double", x=2)], "done"])
    (first, second), stored = asyncio.run(converse(model, "hi", "double 1 and 2"))
    assert (reply_text(first), reply_text(second)) == ("hello", "done")
    responses = [response.response for event in second for response in event.get_function_responses()]
    assert responses == [{"result": 2}, {"result": 4}]
    assert stored[4].actions.state_delta == {"doubled_1": 2, "doubled_2": 4}
    assert [len(request.contents) for request in model.requests] == [1, 3, 5]
    assert model.remaining == 0


def test_scripted_streaming_stores_no_partial_event() -> None:
    (events,), stored = asyncio.run(converse(ScriptedModel(["one two three"]), "hi", streaming=True))
    assert [event.partial for event in events] == [True, True, True, False]
    assert "".join(
        event.content.parts[0].text or "" for event in events[:3] if event.content and event.content.parts
    ) == ("one two three")
    assert [event.author for event in stored] == ["user", "scripted_agent"]


def test_scripted_transfer_to_sub_agent() -> None:
    (events,), _ = asyncio.run(converse(ScriptedModel([transfer("child")]), "hi"))
    assert (events[-1].author, reply_text(events)) == ("child", "I am the child.")


def test_scripted_step_computes_reply_from_request() -> None:
    model = ScriptedModel([lambda request: f"{len(request.contents)} contents"])
    (events,), _ = asyncio.run(converse(model, "hi"))
    assert reply_text(events) == "1 contents"


@pytest.mark.parametrize(
    ("script", "error"), [([ConnectionError("gone")], ConnectionError), ([], AssertionError)], ids=["error", "ended"]
)
def test_scripted_error_and_ended_script_fail_the_run(script: list[Step], error: type[Exception]) -> None:
    with pytest.raises(error):
        asyncio.run(converse(ScriptedModel(script), "hi"))
