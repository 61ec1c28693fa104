"""ADK's memory tools in a Runner: what was said in one session is known in another, on each store.

Seen to fail with a memory that holds the question itself, and with one that finds nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from google.adk.agents.callback_context import CallbackContext
from google.adk.memory.memory_entry import MemoryEntry
from google.adk.models.llm_request import LlmRequest
from google.adk.runners import Runner
from google.adk.tools.load_memory_tool import load_memory_tool
from google.adk.tools.preload_memory_tool import preload_memory_tool
from google.adk.tools.tool_context import ToolContext
from google.genai import types

from sessiondb import DatabaseSessionService, MemoryService
from tests.scripted import APP, USER, ScriptedModel, Step, call, reply_text, say, scripted_agent

pytestmark = [pytest.mark.anyio, pytest.mark.each_store]

QUESTION = "What does my dog like?"


@pytest.fixture
async def service(location: Path | str) -> AsyncIterator[DatabaseSessionService]:
    async with DatabaseSessionService(location, index="text") as opened:
        for name in ("first", "second"):
            await opened.create_session(APP, USER, name)
        yield opened


async def remember(callback_context: CallbackContext) -> None:
    await callback_context.add_session_to_memory()


def runner_of(service: DatabaseSessionService, script: list[Step], *tools: object) -> tuple[Runner, ScriptedModel]:
    """A Runner that remembers each turn."""
    model = ScriptedModel(script)
    agent = scripted_agent(model, tools=tools, after_agent_callback=remember)  # type: ignore[arg-type]  # tools are tools
    return Runner(app_name=APP, agent=agent, session_service=service, memory_service=MemoryService(service)), model


def texts_in(request: LlmRequest) -> str:
    return "\n".join(part.text or "" for content in request.contents for part in content.parts or [])


async def test_load_memory_finds_what_another_session_has_said(service: DatabaseSessionService) -> None:
    def answer(request: LlmRequest) -> str:
        part = (request.contents[-1].parts or [])[-1]
        assert part.function_response is not None
        return f"I know: {part.function_response.response}"

    script: list[Step] = ["Noted.", call("load_memory", query="dog"), answer]
    runner, model = runner_of(service, script, load_memory_tool)
    await say(runner, "My dog likes cheese.", session_id="first")
    events = await say(runner, QUESTION, session_id="second")
    assert "My dog likes cheese." in reply_text(events)
    # The question is of this turn, which nobody has remembered yet.
    assert QUESTION not in reply_text(events)
    assert model.remaining == 0


async def test_preload_memory_puts_it_before_the_model(service: DatabaseSessionService) -> None:
    runner, model = runner_of(service, ["Noted.", "It likes cheese.", "And ham."], preload_memory_tool)
    await say(runner, "My dog likes cheese.", session_id="first")
    await say(runner, QUESTION, session_id="second")
    assert "user: My dog likes cheese." in texts_in(model.requests[1])
    assert "PAST_CONVERSATIONS" in texts_in(model.requests[1])
    assert texts_in(model.requests[1]).count(QUESTION) == 1
    # What is said in the turn before is remembered now.
    await say(runner, "And my dog?", session_id="second")
    assert f"user: {QUESTION}" in texts_in(model.requests[2])
    assert texts_in(model.requests[2]).count("And my dog?") == 1


async def test_tools_write_memories_and_delete_them(service: DatabaseSessionService) -> None:
    async def note(tool_context: ToolContext) -> dict[str, object]:
        """Notes a fact, and forgets it the next time."""
        known = (await tool_context.search_memory("cheese")).memories
        if known:
            await tool_context.delete_memory(known[0].id)
        else:
            content = types.Content(parts=[types.Part(text="The dog likes cheese.")])
            await tool_context.add_memory(memories=[MemoryEntry(content=content)])
        return {"known": len(known)}

    runner, _ = runner_of(service, [call("note"), "Done.", call("note"), "Done."], note)
    memory = MemoryService(service)
    for expected in (1, 0):
        await say(runner, "Take a note.", session_id="first")
        assert len((await memory.search_memory(app_name=APP, user_id=USER, query="cheese")).memories) == expected
