"""The plugin: two messages of a session at once are answered one after the other, whatever becomes of a run.

Seen to fail without the plugin (stale), with a session that is not brought up to date, with an agent that is not picked
again, with turns that only callbacks end (cancelled runs, compaction), with turns that only the task ends (a task that lives
on), and with a run within a run that waits for itself.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from google.adk.agents import BaseAgent, LlmAgent, RunConfig
from google.adk.agents.invocation_context import InvocationContext
from google.adk.agents.live_request_queue import LiveRequestQueue
from google.adk.apps import App, ResumabilityConfig
from google.adk.apps.app import EventsCompactionConfig
from google.adk.apps.llm_event_summarizer import LlmEventSummarizer
from google.adk.events import Event
from google.adk.plugins.base_plugin import BasePlugin
from google.adk.runners import Runner
from google.adk.sessions import BaseSessionService, InMemorySessionService, Session
from google.adk.sessions.base_session_service import GetSessionConfig
from google.adk.tools.agent_tool import AgentTool
from google.adk.tools.long_running_tool import LongRunningFunctionTool
from google.adk.tools.tool_context import ToolContext
from google.adk.workflow import BaseNode, Workflow
from google.genai import types
from pydantic import PrivateAttr

from sessiondb import DatabaseSessionService, OneTurnAtATime, errors
from tests.engine.tools import until
from tests.scripted import APP, USER, ScriptedModel, Step, call, reply_text, say, scripted_agent, transfer

pytestmark = [pytest.mark.anyio, pytest.mark.each_store]

SESSION = "s"


class Held:
    """A tool that a run stops in until it is let go."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.go_on = asyncio.Event()

    async def hold(self, tool_context: ToolContext) -> dict[str, Any]:
        """Holds the run."""
        self.reached.set()
        await self.go_on.wait()
        tool_context.state["held"] = tool_context.state.get("held", 0) + 1
        return {"held": tool_context.state["held"]}


@pytest.fixture
def held() -> Held:
    return Held()


@pytest.fixture
async def service(location: Path | str) -> AsyncIterator[DatabaseSessionService]:
    async with DatabaseSessionService(location) as opened:
        await opened.create_session(APP, USER, SESSION)
        yield opened


def runner_of(
    service: BaseSessionService, agent: BaseNode, *others: BasePlugin, wait: float = 20, **fields: Any
) -> Runner:
    """A Runner that lets a session's runs take turns."""
    plugins = [OneTurnAtATime(wait=wait), *others]
    return Runner(app=App(name=APP, root_agent=agent, plugins=plugins, **fields), session_service=service)


def elsewhere(run: Coroutine[Any, Any, list[Event]]) -> asyncio.Task[list[Event]]:
    """A run in a task of its own, as a server has for each request."""
    return asyncio.create_task(run, context=contextvars.Context())


def in_line(service: DatabaseSessionService) -> int:
    return sum(len(line.waiting) for line in service._shared.turns._lines.values())


def free(service: DatabaseSessionService) -> bool:
    return not service._shared.turns._lines


async def freed(service: DatabaseSessionService) -> None:
    """Waits until nobody has a turn."""
    await until(lambda: free(service))


async def stored(service: DatabaseSessionService) -> Session:
    session = await service.get_session(APP, USER, SESSION)
    assert session is not None
    return session


def told(session: Session) -> list[str]:
    """What a log tells: texts, calls and their responses."""
    found = []
    for event in session.events:
        for part in (event.content and event.content.parts) or []:
            if part.function_call:
                found.append(f"call {part.function_call.name}")
            elif part.function_response:
                found.append(f"response {part.function_response.name}")
            else:
                found.append(f"{event.author}: {part.text}")
    return found


def models_of(*script: Step) -> ScriptedModel:
    return ScriptedModel(script)


class Around(BaseAgent):
    """An agent that is no LlmAgent: ADK runs it in the caller's own task."""

    async def _run_async_impl(self, ctx: InvocationContext) -> AsyncGenerator[Event, None]:
        async with aclosing(self.sub_agents[0].run_async(ctx)) as events:
            async for event in events:
                yield event


def around(agent: LlmAgent) -> BaseAgent:
    return Around(name="around", sub_agents=[agent])


def workflow(agent: LlmAgent) -> BaseNode:
    return Workflow(name="workflow", edges=[("START", agent)])


async def one_after_the_other(
    runner: Runner, service: DatabaseSessionService, held: Held
) -> tuple[list[Event], list[Event]]:
    """A second message comes while the first is being answered; returns what each run has yielded."""
    first = elsewhere(say(runner, "first", session_id=SESSION))
    await held.reached.wait()
    second = elsewhere(say(runner, "second", session_id=SESSION))
    await until(lambda: in_line(service) == 1)
    held.go_on.set()
    return await first, await second


KINDS = pytest.mark.parametrize("wrap", [lambda agent: agent, around, workflow], ids=["llm", "custom", "workflow"])
"""The three ways in which ADK runs what an app is of."""


@KINDS
async def test_second_message_goes_on_where_the_first_has_ended(
    service: DatabaseSessionService, held: Held, wrap: Callable[[LlmAgent], BaseNode]
) -> None:
    model = models_of(call("hold"), "one", call("hold"), "two")
    async with runner_of(service, wrap(scripted_agent(model, tools=[held.hold]))) as runner:
        first, second = await one_after_the_other(runner, service, held)
        assert (reply_text(first), reply_text(second)) == ("one", "two")
    session = await stored(service)
    turn = ["call hold", "response hold"]
    author = "scripted_agent"
    assert told(session) == ["user: first", *turn, f"{author}: one", "user: second", *turn, f"{author}: two"]
    assert session.state == {"held": 2}
    await freed(service)


async def test_session_is_brought_up_to_date_in_place(service: DatabaseSessionService, held: Held) -> None:
    """Also when nothing was waited for: others may have written since the Runner has read it."""
    await service.append_event(await stored(service), Event(author="user"))
    seen: list[Session] = []

    class Reading(DatabaseSessionService):
        async def get_session(self, *args: Any, **kwargs: Any) -> Session | None:
            session = await super().get_session(*args, **kwargs)
            if not seen:
                assert session is not None
                seen.append(session)
                other = await super().get_session(APP, USER, SESSION)
                assert other is not None
                await self.append_event(other, Event(author="user", actions={"state_delta": {"k": 1, "user:k": 2}}))  # type: ignore[arg-type]  # validated
            return session

    async with Reading(service._shared.store.name) as reading, runner_of(reading, scripted_agent(["one"])) as runner:
        config = RunConfig(get_session_config=GetSessionConfig(num_recent_events=1))
        message = types.Content(role="user", parts=[types.Part(text="first")])
        async for _ in runner.run_async(user_id=USER, session_id=SESSION, new_message=message, run_config=config):
            pass
    (session,) = seen
    found = await stored(service)
    assert len(found.events) == 4
    # As many as the run was to see.
    assert session.events == found.events[1:]
    assert session.state == found.state == {"k": 1, "user:k": 2}
    assert session.last_update_time == found.last_update_time
    assert session._storage_update_marker == found._storage_update_marker


async def test_state_changed_from_outside_is_seen(service: DatabaseSessionService, held: Held) -> None:
    model = models_of(call("hold"), "one", "two")
    agent = scripted_agent(model, tools=[held.hold], instruction="{topic?}")
    async with runner_of(service, agent) as runner:
        await one_after_the_other(runner, service, held)
    async with runner_of(service, scripted_agent(models_of("three"))) as runner:
        await service.update_keys(APP, USER, SESSION, {"topic": "tea"})
        await say(runner, "third", session_id=SESSION)
    assert (await stored(service)).state == {"held": 1, "topic": "tea"}


async def test_agent_is_picked_anew_after_a_transfer(service: DatabaseSessionService, held: Held) -> None:
    # When the second message comes, the root still has the conversation.
    model = models_of(call("hold"), transfer("child"), "the child speaks", "still the child")
    child = scripted_agent(model, name="child")
    root = scripted_agent(model, name="root", sub_agents=[child], tools=[held.hold])
    async with runner_of(service, root) as runner:
        first = elsewhere(say(runner, "go to the child", session_id=SESSION))
        await held.reached.wait()
        second = elsewhere(say(runner, "who is there?", session_id=SESSION))
        await until(lambda: in_line(service) == 1)
        held.go_on.set()
        await first
        assert [event.author for event in await second] == ["child"]
    asked = [part.text for content in model.requests[-1].contents for part in content.parts or []]
    assert asked[-2:] == ["the child speaks", "who is there?"]


class Noting(BasePlugin):
    """Says which messages it was asked about, and changes them."""

    def __init__(self, *, changes: bool) -> None:
        super().__init__(name="noting")
        self.messages: list[str | None] = []
        self._changes = changes

    async def on_user_message_callback(
        self, *, invocation_context: InvocationContext, user_message: types.Content
    ) -> types.Content | None:
        assert user_message.parts
        self.messages.append(user_message.parts[0].text)
        return types.Content(role="user", parts=[types.Part(text="changed")]) if self._changes else None


@pytest.mark.parametrize("changes", [False, True])
async def test_plugins_behind_it_see_a_message_that_has_waited(
    service: DatabaseSessionService, held: Held, *, changes: bool
) -> None:
    noting = Noting(changes=changes)
    agent = scripted_agent(models_of(call("hold"), "one", "two"), tools=[held.hold])
    async with runner_of(service, agent, noting) as runner:
        await one_after_the_other(runner, service, held)
    assert noting.messages == ["first", "second"]
    users = [text for text in told(await stored(service)) if text.startswith("user")]
    assert users == ["user: changed"] * 2 if changes else ["user: first", "user: second"]


async def test_answer_to_a_long_running_call_waits_for_the_run(service: DatabaseSessionService, held: Held) -> None:
    def ask_a_human(question: str) -> dict[str, str]:
        """Asks; the answer comes later."""
        return {"status": "pending"}

    model = models_of([call("ask_a_human", question="may I?"), call("hold")], "waiting", "it said yes")
    agent = LlmAgent(name="asking", model=model, tools=[LongRunningFunctionTool(ask_a_human), held.hold])
    async with runner_of(service, agent) as runner:
        first = elsewhere(say(runner, "ask", session_id=SESSION))
        await held.reached.wait()
        (asked, _) = (await stored(service)).events[-1].get_function_calls()
        answer = types.FunctionResponse(id=asked.id, name=asked.name, response={"answer": "yes"})

        async def reply() -> list[Event]:
            message = types.Content(role="user", parts=[types.Part(function_response=answer)])
            return [event async for event in runner.run_async(user_id=USER, session_id=SESSION, new_message=message)]

        second = elsewhere(reply())
        await until(lambda: in_line(service) == 1)
        held.go_on.set()
        assert reply_text(await first) == "waiting"
        assert reply_text(await second) == "it said yes"
    assert told(await stored(service)) == [
        "user: ask",
        "call ask_a_human",
        "call hold",
        "response ask_a_human",
        "response hold",
        "asking: waiting",
        "response ask_a_human",
        "asking: it said yes",
    ]


async def test_message_that_waits_too_long_fails_and_leaves_no_trace(
    service: DatabaseSessionService, held: Held
) -> None:
    agent = scripted_agent(models_of(call("hold"), "one"), tools=[held.hold])
    async with runner_of(service, agent, wait=0.05) as runner:
        first = elsewhere(say(runner, "first", session_id=SESSION))
        await held.reached.wait()
        with pytest.raises(RuntimeError, match="did not come within") as caught:
            await elsewhere(say(runner, "second", session_id=SESSION))
        assert isinstance(caught.value.__cause__, errors.TurnTimeoutError)
        held.go_on.set()
        await first
    assert told(await stored(service)) == [
        "user: first",
        "call hold",
        "response hold",
        "scripted_agent: one",
    ]


async def test_wait_is_checked_when_the_plugin_is_made() -> None:
    with pytest.raises(errors.ConfigurationError, match="wait must be"):
        OneTurnAtATime(wait=-1)


# --- How a run may end -----------------------------------------------------------------------------------------------


async def goes_on(service: DatabaseSessionService) -> None:
    """The session takes the next message."""
    async with runner_of(service, scripted_agent(["next"], name="later")) as runner:
        assert reply_text(await elsewhere(say(runner, "next", session_id=SESSION))) == "next"
    await freed(service)


async def cut_short(runner: Runner, held: Held) -> None:
    """A run whose time is over while it is held; it is cancelled, and its task is not."""
    async with asyncio.timeout(None) as timeout:
        reached = asyncio.create_task(held.reached.wait())
        reached.add_done_callback(lambda _: timeout.reschedule(0))
        await say(runner, "first", session_id=SESSION)


@KINDS
async def test_failing_run_ends_the_turn(service: DatabaseSessionService, wrap: Callable[[LlmAgent], BaseNode]) -> None:
    async with runner_of(service, wrap(scripted_agent([ConnectionError("no model")]))) as runner:
        with pytest.raises(ConnectionError) as caught:
            await say(runner, "first", session_id=SESSION)
        await freed(service)
        await goes_on(service)
        # Its traceback keeps the frames of the run.
        del caught


@KINDS
async def test_cancelled_task_ends_the_turn(
    service: DatabaseSessionService, held: Held, wrap: Callable[[LlmAgent], BaseNode]
) -> None:
    async with runner_of(service, wrap(scripted_agent([call("hold")], tools=[held.hold]))) as runner:
        run = elsewhere(say(runner, "first", session_id=SESSION))
        await held.reached.wait()
        run.cancel()
        await asyncio.wait([run])
        await goes_on(service)


@KINDS
async def test_run_cut_by_a_timeout_ends_the_turn_though_its_task_goes_on(
    service: DatabaseSessionService, held: Held, wrap: Callable[[LlmAgent], BaseNode]
) -> None:
    async with runner_of(service, wrap(scripted_agent([call("hold"), "again"], tools=[held.hold]))) as runner:
        with pytest.raises(TimeoutError) as caught:
            await cut_short(runner, held)
        assert not free(service)
        await goes_on(service)
        # This task's next message is a turn of its own.
        assert reply_text(await say(runner, "again", session_id=SESSION)) == "again"
        await freed(service)
        del caught


async def test_next_message_of_such_a_task_does_not_join_the_turn(service: DatabaseSessionService, held: Held) -> None:
    agent = scripted_agent([call("hold"), call("hold"), "again", "last"], tools=[held.hold])
    async with runner_of(service, agent) as runner:
        with pytest.raises(TimeoutError):
            await cut_short(runner, held)
        assert not free(service)
        held.reached.clear()

        async def wait_in_line() -> list[Event]:
            await held.reached.wait()
            last = elsewhere(say(runner, "last", session_id=SESSION))
            await until(lambda: in_line(service) == 1)
            look(runner)
            waits = in_line(service) == 1
            held.go_on.set()
            assert waits
            return await last

        waiting = elsewhere(wait_in_line())
        assert reply_text(await say(runner, "again", session_id=SESSION)) == "again"
        assert reply_text(await waiting) == "last"


async def test_closed_stream_ends_the_turn(service: DatabaseSessionService, held: Held) -> None:
    async with runner_of(service, scripted_agent([call("hold")], tools=[held.hold])) as runner:
        message = types.Content(role="user", parts=[types.Part(text="first")])
        async with aclosing(runner.run_async(user_id=USER, session_id=SESSION, new_message=message)) as stream:
            await anext(stream)
            assert not free(service)
        await freed(service)
        await goes_on(service)


async def test_dropped_stream_ends_the_turn(service: DatabaseSessionService, held: Held) -> None:
    """The loop closes a generator that nobody has any more."""
    async with runner_of(service, scripted_agent([call("hold")], tools=[held.hold])) as runner:
        message = types.Content(role="user", parts=[types.Part(text="first")])
        stream = runner.run_async(user_id=USER, session_id=SESSION, new_message=message)
        await anext(stream)
        assert not free(service)
        del stream
        gc.collect()
        await goes_on(service)


async def test_stream_read_by_several_tasks_keeps_the_turn(service: DatabaseSessionService) -> None:
    async with runner_of(service, scripted_agent([call("nothing"), "one"], tools=[nothing])) as runner:
        message = types.Content(role="user", parts=[types.Part(text="first")])
        stream = runner.run_async(user_id=USER, session_id=SESSION, new_message=message)
        async with aclosing(stream):
            await asyncio.create_task(stream.__anext__())
            look(runner)
            assert not free(service)
            async for _ in stream:
                pass
        await freed(service)


def nothing() -> None:
    """Does nothing."""


def look(runner: Runner) -> None:
    """Has the plugin look several times which runs are over, as it does from time to time."""
    (plugin,) = runner.plugin_manager.plugins
    assert isinstance(plugin, OneTurnAtATime)
    for _ in range(3):
        plugin._look_after(asyncio.get_running_loop())


async def test_compaction_is_part_of_the_turn(service: DatabaseSessionService) -> None:
    """The summary is appended when the last callback has been called; the next run must not have begun by then."""
    at_it, go_on = asyncio.Event(), asyncio.Event()

    class Summarizer(LlmEventSummarizer):
        async def maybe_summarize_events(self, *, events: list[Event]) -> Event | None:
            at_it.set()
            await go_on.wait()
            return await super().maybe_summarize_events(events=events)

    config = EventsCompactionConfig(
        compaction_interval=1,
        overlap_size=0,
        summarizer=Summarizer(llm=ScriptedModel(["one", "two"], name="summarizer")),
    )
    async with runner_of(service, scripted_agent(["first", "second"]), events_compaction_config=config) as runner:
        first = elsewhere(say(runner, "1", session_id=SESSION))
        await at_it.wait()
        second = elsewhere(say(runner, "2", session_id=SESSION))
        await until(lambda: in_line(service) == 1)
        go_on.set()
        assert reply_text(await first) == "first"
        assert reply_text(await second) == "second"
    compacted = [event.actions.compaction is not None for event in (await stored(service)).events]
    assert compacted == [False, False, True, False, False, True]


async def test_second_message_cancelled_while_it_waits(service: DatabaseSessionService, held: Held) -> None:
    agent = scripted_agent([call("hold"), "one", "three"], tools=[held.hold])
    async with runner_of(service, agent) as runner:
        first = elsewhere(say(runner, "first", session_id=SESSION))
        await held.reached.wait()
        second = elsewhere(say(runner, "second", session_id=SESSION))
        await until(lambda: in_line(service) == 1)
        third = elsewhere(say(runner, "third", session_id=SESSION))
        await until(lambda: in_line(service) == 2)
        second.cancel()
        await asyncio.wait([second])
        held.go_on.set()
        assert reply_text(await first) == "one"
        assert reply_text(await third) == "three"
    assert [text for text in told(await stored(service)) if text.startswith("user")] == ["user: first", "user: third"]


# --- Runs within a run, and what is no run ---------------------------------------------------------------------------


# ADK's own way to pass plugins on.
@pytest.mark.filterwarnings("ignore:The `plugins` argument is deprecated:DeprecationWarning")
@pytest.mark.parametrize("shared", [True, False], ids=["plugins-shared", "plugins-not-shared"])
async def test_agent_that_is_a_tool(service: DatabaseSessionService, *, shared: bool) -> None:
    model = models_of(call("helper", request="help"), "helped", "thanks to helper")
    helper = scripted_agent(model, name="helper")
    root = LlmAgent(name="root", model=model, tools=[AgentTool(agent=helper, include_plugins=shared)])
    async with runner_of(service, root, wait=0) as runner:
        assert reply_text(await say(runner, "get help", session_id=SESSION)) == "thanks to helper"
    await freed(service)


async def test_run_started_by_a_tool_is_part_of_the_turn(service: DatabaseSessionService) -> None:
    async def ask_again() -> dict[str, str]:
        """Runs the session within its run."""
        async with runner_of(service, scripted_agent(["inner"], name="inner"), wait=0) as runner:
            inner = reply_text(await say(runner, "inner", session_id=SESSION))
        assert not free(service)
        return {"inner": inner}

    async with runner_of(service, scripted_agent([call("ask_again")], tools=[ask_again]), wait=0) as runner:
        # What overtakes a run from within, overtakes it.
        with pytest.raises(errors.StaleSessionError):
            await say(runner, "first", session_id=SESSION)
    await freed(service)


class Asking(BaseAgent):
    """Runs another session, in the task that it runs in itself, and says whether the turn of that is over then."""

    _runner: Runner = PrivateAttr()
    _service: DatabaseSessionService = PrivateAttr()

    async def _run_async_impl(self, ctx: InvocationContext) -> AsyncGenerator[Event, None]:
        await say(self._runner, "other", session_id="other")
        await until(lambda: len(self._service._shared.turns._lines) == 1)
        yield Event(
            author=self.name, invocation_id=ctx.invocation_id, content=types.Content(parts=[types.Part(text="over")])
        )


async def test_run_of_another_session_within_a_run_ends_by_itself(service: DatabaseSessionService) -> None:
    await service.create_session(APP, USER, "other")
    asking = Asking(name="asking")
    asking._service = service
    asking._runner = runner_of(service, Around(name="around", sub_agents=[scripted_agent(["other"])]))
    async with runner_of(service, asking) as runner, asking._runner:
        assert reply_text(await say(runner, "first", session_id=SESSION)) == "over"
    await freed(service)


async def test_run_and_rewind_within_a_turn_of_ones_own(service: DatabaseSessionService) -> None:
    runner = runner_of(service, scripted_agent(["one", "two"]), wait=0)
    async with runner, service.turn(APP, USER, SESSION):
        await say(runner, "first", session_id=SESSION)
        second = await say(runner, "second", session_id=SESSION)
        await runner.rewind_async(user_id=USER, session_id=SESSION, rewind_before_invocation_id=second[0].invocation_id)
        assert not free(service)
    await freed(service)


async def test_resumed_run_without_a_message_waits_too(service: DatabaseSessionService, held: Held) -> None:
    agent = scripted_agent([call("hold"), "one", "resumed"], tools=[held.hold])
    resumability = ResumabilityConfig(is_resumable=True)
    async with runner_of(service, agent, resumability_config=resumability) as runner:
        first = elsewhere(say(runner, "first", session_id=SESSION))
        await held.reached.wait()
        invocation = (await stored(service)).events[0].invocation_id

        async def resume() -> list[Event]:
            return [
                event async for event in runner.run_async(user_id=USER, session_id=SESSION, invocation_id=invocation)
            ]

        second = elsewhere(resume())
        await until(lambda: in_line(service) == 1)
        held.go_on.set()
        assert reply_text(await first) == "one"
        await second
    await freed(service)


class Live(BaseAgent):
    """Says something, and is done when the other side has closed the queue."""

    async def _run_live_impl(self, ctx: InvocationContext) -> AsyncGenerator[Event, None]:
        yield Event(
            author=self.name, invocation_id=ctx.invocation_id, content=types.Content(parts=[types.Part(text="hi")])
        )
        assert ctx.live_request_queue is not None
        while not (await ctx.live_request_queue.get()).close:
            pass

    async def _run_async_impl(self, ctx: InvocationContext) -> AsyncGenerator[Event, None]:
        yield Event(
            author=self.name, invocation_id=ctx.invocation_id, content=types.Content(parts=[types.Part(text="ho")])
        )


@pytest.mark.parametrize("leaves", [False, True])
async def test_live_run_has_the_turn_until_it_is_over(service: DatabaseSessionService, *, leaves: bool) -> None:
    queue = LiveRequestQueue()
    async with runner_of(service, Live(name="live")) as runner:
        async with aclosing(runner.run_live(user_id=USER, session_id=SESSION, live_request_queue=queue)) as stream:
            await anext(stream)
            second = elsewhere(say(runner, "and?", session_id=SESSION))
            await until(lambda: in_line(service) == 1)
            if not leaves:
                queue.close()
                assert [event async for event in stream] == []
        assert reply_text(await second) == "ho"
    assert told(await stored(service)) == ["live: hi", "user: and?", "live: ho"]
    await freed(service)


async def test_synchronous_runs_in_threads_take_turns(service: DatabaseSessionService) -> None:
    model = models_of(*[step for number in range(4) for step in (call("nothing"), f"{number}")])
    runner = runner_of(service, scripted_agent(model, tools=[nothing]))

    def converse() -> None:
        message = types.Content(role="user", parts=[types.Part(text="hi")])
        for _ in range(2):
            list(runner.run(user_id=USER, session_id=SESSION, new_message=message))

    await asyncio.gather(asyncio.to_thread(converse), asyncio.to_thread(converse))
    turn = ["user: hi", "call nothing", "response nothing"]
    assert [text for text in told(await stored(service)) if "agent" not in text] == turn * 4
    await runner.close()
    await freed(service)


async def test_sessions_of_other_services_are_left_alone() -> None:
    memory = InMemorySessionService()
    await memory.create_session(app_name=APP, user_id=USER, session_id=SESSION)
    async with runner_of(memory, scripted_agent(["one"])) as runner:
        assert reply_text(await say(runner, "first", session_id=SESSION)) == "one"


class Wrapper(BaseSessionService):
    """A host's own service around ours."""

    def __init__(self, service: DatabaseSessionService) -> None:
        self._service = service

    async def create_session(self, **kwargs: Any) -> Session:
        return await self._service.create_session(**kwargs)

    async def get_session(self, **kwargs: Any) -> Session | None:
        return await self._service.get_session(**kwargs)

    async def list_sessions(self, **kwargs: Any) -> Any:
        return await self._service.list_sessions(**kwargs)

    async def delete_session(self, **kwargs: Any) -> None:
        await self._service.delete_session(**kwargs)

    async def append_event(self, session: Session, event: Event) -> Event:
        return await self._service.append_event(session, event)


async def test_service_within_a_wrapper_is_named(service: DatabaseSessionService, held: Held) -> None:
    agent = scripted_agent([call("hold"), "one", "two"], tools=[held.hold])
    app = App(name=APP, root_agent=agent, plugins=[OneTurnAtATime(service)])
    async with Runner(app=app, session_service=Wrapper(service)) as runner:
        first, second = await one_after_the_other(runner, service, held)
        assert (reply_text(first), reply_text(second)) == ("one", "two")
