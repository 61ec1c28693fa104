"""A conversation that began in one process goes on in another.

Seen to fail with a service that keeps its file in a temporary folder, and with a ``get_session`` that leaves out the
user's state.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from google.adk.sessions import BaseSessionService, InMemorySessionService

from sessiondb import DatabaseSessionService
from tests.engine import processes
from tests.runner.scripts import SESSION, Trace, look_back, play, remember
from tests.runner.traces import traces
from tests.scripted import APP, USER, ScriptedModel, call, reply_text, scripted_agent


async def begin(service: BaseSessionService) -> Trace:
    await service.create_session(app_name=APP, user_id=USER, session_id=SESSION)
    return await play(service, ScriptedModel([call("remember", thing="an apple"), "I will remember"]), ["an apple"])


async def go_on(service: BaseSessionService) -> Trace:
    model = ScriptedModel([call("look_back"), call("remember", thing="a pear"), "an apple, now a pear"])
    agent = scripted_agent(model, tools=[remember, look_back], instruction="Things: {things}, count: {user:count}.")
    return await play(service, model, ["what was it?"], agent=agent)


def go_on_here(path: str) -> None:
    """The other process."""

    async def converse() -> None:
        async with DatabaseSessionService(path) as service:
            trace = await go_on(service)
        asked = trace.requests[0]
        said = [part.text for content in asked.contents for part in content.parts or [] if part.text]
        print(said[0], str(asked.config.system_instruction).splitlines()[0], reply_text(trace.yielded), sep="\n")  # noqa: T201  # for the parent

    asyncio.run(converse())


@pytest.mark.each_store
def test_runner_resumes_conversation_in_new_process(location: Path | str) -> None:
    async def before() -> None:
        async with DatabaseSessionService(location) as service:
            await begin(service)

    async def after() -> None:
        in_memory = InMemorySessionService()
        await begin(in_memory)
        await go_on(in_memory)
        async with DatabaseSessionService(location) as service:
            assert await traces(service, Trace()) == await traces(in_memory, Trace())

    asyncio.run(before())
    assert processes.run(go_on_here, location).splitlines() == [
        "an apple",
        "Things: ['an apple'], count: 1.",
        "an apple, now a pear",
    ]
    asyncio.run(after())
