"""Conversations that use what a Runner can do, each a function of the service that keeps them.

A script builds its agents anew, so it can be played on several services and its traces be compared.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import anyio.to_thread
from google.adk.agents import (  # type: ignore[deprecated]  # Workflow cannot be a sub-agent yet
    BaseAgent,
    LlmAgent,
    ParallelAgent,
    RunConfig,
    SequentialAgent,
)
from google.adk.agents.invocation_context import InvocationContext
from google.adk.agents.run_config import StreamingMode  # type: ignore[attr-defined]  # its documented place
from google.adk.apps import App, ResumabilityConfig
from google.adk.apps.app import EventsCompactionConfig
from google.adk.apps.llm_event_summarizer import LlmEventSummarizer
from google.adk.events import Event
from google.adk.models.llm_request import LlmRequest
from google.adk.plugins.base_plugin import BasePlugin
from google.adk.runners import Runner
from google.adk.sessions import BaseSessionService
from google.adk.sessions.base_session_service import GetSessionConfig
from google.adk.tools.agent_tool import AgentTool
from google.adk.tools.long_running_tool import LongRunningFunctionTool
from google.adk.tools.tool_context import ToolContext
from google.genai import types

from tests.scripted import APP, USER, ScriptedModel, call, say, scripted_agent, scripted_runner, transfer

SESSION = "conversation"


@dataclass
class Trace:
    """What a script saw beside what is stored."""

    yielded: list[Event] = field(default_factory=list)
    requests: list[LlmRequest] = field(default_factory=list)


Script = Callable[[BaseSessionService], Awaitable[Trace]]

SCRIPTS: dict[str, Script] = {}


def script(function: Script) -> Script:
    SCRIPTS[function.__name__] = function
    return function


def remember(thing: str, tool_context: ToolContext) -> dict[str, Any]:
    """Remember a thing in every scope."""
    state = tool_context.state
    state["things"] = [*state.get("things", []), thing]
    state["user:count"] = state.get("user:count", 0) + 1
    state["app:last"] = {"thing": thing, "length": len(thing)}
    state["temp:seen"] = thing
    return {"remembered": thing, "so_far": len(state["things"])}


def look_back(tool_context: ToolContext) -> dict[str, Any]:
    """Return what the state holds."""
    return {"things": tool_context.state.get("things"), "temp": tool_context.state.get("temp:seen", "gone")}


def ask_a_human(question: str) -> dict[str, str]:
    """Ask; the answer comes later."""
    return {"status": "pending", "question": question}


async def created(service: BaseSessionService, **state: Any) -> None:
    await service.create_session(app_name=APP, user_id=USER, session_id=SESSION, state=state)


async def play(
    service: BaseSessionService,
    model: ScriptedModel,
    messages: Sequence[str],
    *,
    agent: BaseAgent | None = None,
    runner: Runner | None = None,
    streaming: bool = False,
) -> Trace:
    if runner is None:
        runner = scripted_runner(service, agent or scripted_agent(model, tools=[remember, look_back]))
    trace = Trace(requests=model.requests)
    async with runner:
        for message in messages:
            trace.yielded += await say(runner, message, session_id=SESSION, streaming=streaming)
    return trace


@script
async def single_replies(service: BaseSessionService) -> Trace:
    await created(service, greeting="hello")
    return await play(service, ScriptedModel(["one", "two", "three"]), ["first", "second", "third"])


@script
async def tool_calls(service: BaseSessionService) -> Trace:
    await created(service)
    model = ScriptedModel(
        [call("remember", thing="a"), ["and", call("look_back")], "done", call("look_back"), "still there"]
    )
    return await play(service, model, ["remember a", "what do you remember?"])


@script
async def parallel_tool_calls(service: BaseSessionService) -> Trace:
    await created(service)
    model = ScriptedModel(
        [[call("remember", thing="a"), call("look_back"), call("remember", thing="b")], "done", "again"]
    )
    return await play(service, model, ["remember a and b", "and?"])


@script
async def binary_message_and_given_state(service: BaseSessionService) -> Trace:
    await created(service)
    model = ScriptedModel(["a picture", "seen before"])
    runner = scripted_runner(service, model)
    trace = Trace(requests=model.requests)
    picture = types.Part(inline_data=types.Blob(mime_type="image/png", data=bytes(range(256))))
    async with runner:
        trace.yielded += [
            event
            async for event in runner.run_async(
                user_id=USER,
                session_id=SESSION,
                new_message=types.Content(role="user", parts=[picture, types.Part(text="what is it?")]),
                state_delta={"given": [1, {"x": None}], "user:given": True},
            )
        ]
        trace.yielded += await say(runner, "and now?", session_id=SESSION)
    return trace


@script
async def agent_transfer(service: BaseSessionService) -> Trace:
    await created(service)
    # One script for both: who answers is for the Runner to decide, from the log.
    model = ScriptedModel([transfer("child"), "the child speaks", "still the child", transfer("root"), "back at root"])
    child = scripted_agent(model, name="child", tools=[remember])
    root = scripted_agent(model, name="root", sub_agents=[child])
    return await play(service, model, ["go to the child", "who is there?", "go back"], agent=root)


@script
async def agent_as_a_tool(service: BaseSessionService) -> Trace:
    await created(service)
    model = ScriptedModel([call("helper", request="help"), call("remember", thing="h"), "helped", "thanks to helper"])
    helper = scripted_agent(model, name="helper", tools=[remember])
    root = LlmAgent(name="root", model=model, tools=[AgentTool(agent=helper)])
    return await play(service, model, ["get help"], agent=root)


@script
async def streaming_partials(service: BaseSessionService) -> Trace:
    await created(service)
    model = ScriptedModel(["word by word it comes", ["thinking about it", call("remember", thing="s")], "all done now"])
    return await play(service, model, ["speak", "remember s"], streaming=True)


@script
async def compaction(service: BaseSessionService) -> Trace:
    await created(service)
    model = ScriptedModel([call("remember", thing="c"), "one", "two", "three", "four", "five"])
    app = App(
        name=APP,
        root_agent=scripted_agent(model, tools=[remember]),
        events_compaction_config=EventsCompactionConfig(
            compaction_interval=2,
            overlap_size=1,
            summarizer=LlmEventSummarizer(llm=ScriptedModel(["summary of two", "summary of four"], name="summarizer")),
        ),
    )
    runner = Runner(app=app, session_service=service)
    return await play(service, model, ["1", "2", "3", "4", "5"], runner=runner)


@script
async def rewind(service: BaseSessionService) -> Trace:
    await created(service, kept="not in the log, so a rewind unsets it")
    model = ScriptedModel(
        [
            call("remember", thing="a"),
            "one",
            [call("remember", thing="b"), call("remember", thing="c")],
            "two",
            call("look_back"),
            "after the rewind",
        ]
    )
    runner = scripted_runner(service, model, tools=[remember, look_back])
    trace = Trace(requests=model.requests)
    async with runner:
        trace.yielded += await say(runner, "remember a", session_id=SESSION)
        second = await say(runner, "remember b and c", session_id=SESSION)
        trace.yielded += second
        await runner.rewind_async(user_id=USER, session_id=SESSION, rewind_before_invocation_id=second[0].invocation_id)
        trace.yielded += await say(runner, "what do you remember?", session_id=SESSION)
    return trace


@script
async def resumable_app(service: BaseSessionService) -> Trace:
    await created(service)
    model = ScriptedModel([call("ask_a_human", question="may I?"), "waiting", "the human said yes", "a new turn"])
    app = App(
        name=APP,
        root_agent=LlmAgent(name="asking", model=model, tools=[LongRunningFunctionTool(ask_a_human)]),
        resumability_config=ResumabilityConfig(is_resumable=True),
    )
    runner = Runner(app=app, session_service=service)
    trace = Trace(requests=model.requests)
    async with runner:
        paused = await say(runner, "ask", session_id=SESSION)
        trace.yielded += paused
        (asked,) = [each for event in paused for each in event.get_function_calls()]
        answer = types.FunctionResponse(id=asked.id, name=asked.name, response={"status": "done", "answer": "yes"})
        trace.yielded += [
            event
            async for event in runner.run_async(
                user_id=USER,
                session_id=SESSION,
                invocation_id=paused[0].invocation_id,
                new_message=types.Content(role="user", parts=[types.Part(function_response=answer)]),
            )
        ]
        trace.yielded += await say(runner, "thanks", session_id=SESSION)
    return trace


@script
async def sequence_of_agents(service: BaseSessionService) -> Trace:
    await created(service)
    model = ScriptedModel(["a draft", "a review of it", "second draft", "second review"])
    writer = scripted_agent(model, name="writer", output_key="temp:draft")
    reviewer = scripted_agent(model, name="reviewer", instruction="Review {temp:draft}.", output_key="review")
    pair = SequentialAgent(name="pair", sub_agents=[writer, reviewer])
    return await play(service, model, ["write", "again"], agent=pair)


@script
async def agents_side_by_side(service: BaseSessionService) -> Trace:
    await created(service)
    # A model each: which one is asked first is not determined.
    agents: list[BaseAgent] = [
        scripted_agent(
            [call("remember", thing=name), f"{name} is done", f"{name} again"],
            name=name,
            tools=[remember_own],
            output_key=f"result_{name}",
        )
        for name in ("north", "south", "west")
    ]
    runner = scripted_runner(service, ParallelAgent(name="all", sub_agents=agents))
    async with runner:
        await say(runner, "go", session_id=SESSION)
        await say(runner, "go again", session_id=SESSION)
    return Trace()


def remember_own(thing: str, tool_context: ToolContext) -> dict[str, str]:
    """Remember a thing under its own key."""
    tool_context.state[f"user:{thing}"] = thing
    return {"remembered": thing}


remember_own.__name__ = "remember"


class Marking(BasePlugin):
    """Changes what it can: the user's message, and each event before it is stored."""

    async def on_user_message_callback(
        self, *, invocation_context: InvocationContext, user_message: types.Content
    ) -> types.Content:
        return types.Content(role="user", parts=[*(user_message.parts or []), types.Part(text="(marked)")])

    async def on_event_callback(self, *, invocation_context: InvocationContext, event: Event) -> Event:
        return event.model_copy(update={"custom_metadata": {"marked": True, "by": self.name}})


@script
async def plugins(service: BaseSessionService) -> Trace:
    await created(service)
    model = ScriptedModel([call("remember", thing="p"), "done", "again"])
    app = App(name=APP, root_agent=scripted_agent(model, tools=[remember]), plugins=[Marking(name="marking")])
    return await play(service, model, ["hi", "and"], runner=Runner(app=app, session_service=service))


@script
async def run_in_another_thread(service: BaseSessionService) -> Trace:
    """The synchronous ``Runner.run``: each message is handled by an event loop of its own, in a thread of its own."""
    await created(service)
    model = ScriptedModel([call("remember", thing="r"), "done", call("look_back"), "again"])
    runner = scripted_runner(service, model, tools=[remember, look_back])
    trace = Trace(requests=model.requests)

    def converse() -> None:
        for text in ("remember r", "and?"):
            message = types.Content(role="user", parts=[types.Part(text=text)])
            trace.yielded += runner.run(user_id=USER, session_id=SESSION, new_message=message)

    await anyio.to_thread.run_sync(converse)
    await runner.close()
    return trace


@script
async def session_made_by_the_runner(service: BaseSessionService) -> Trace:
    model = ScriptedModel([call("remember", thing="m"), "done", "again"])
    runner = Runner(
        app_name=APP,
        agent=scripted_agent(model, tools=[remember]),
        session_service=service,
        auto_create_session=True,
    )
    return await play(service, model, ["hi", "and"], runner=runner)


@script
async def recent_events_only(service: BaseSessionService) -> Trace:
    await created(service)
    model = ScriptedModel(["one", "two", call("remember", thing="n"), "three", "four"])
    runner = scripted_runner(service, model, tools=[remember])
    trace = Trace(requests=model.requests)
    async with runner:
        for text, recent in (("1", None), ("2", 0), ("3", 1), ("4", 3)):
            config = RunConfig(
                streaming_mode=StreamingMode.NONE, get_session_config=GetSessionConfig(num_recent_events=recent)
            )
            trace.yielded += [
                event
                async for event in runner.run_async(
                    user_id=USER,
                    session_id=SESSION,
                    new_message=types.Content(role="user", parts=[types.Part(text=text)]),
                    run_config=config,
                )
            ]
    return trace


@script
async def failing_model(service: BaseSessionService) -> Trace:
    await created(service)
    model = ScriptedModel([call("remember", thing="f"), ConnectionError("no model"), "recovered"])
    runner = scripted_runner(service, model, tools=[remember])
    trace = Trace(requests=model.requests)
    async with runner:
        try:
            trace.yielded += await say(runner, "hi", session_id=SESSION)
        except ConnectionError:
            trace.yielded += await say(runner, "hello?", session_id=SESSION)
    return trace
