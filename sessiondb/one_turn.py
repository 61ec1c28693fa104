"""A plugin for ADK's Runner: the runs of one session go on one after the other, each on what the one before has left.

A run asks for its turn in the first callback that ADK makes, when it has read the session already; so the session is
brought up to date then. How it ends is not told by callbacks: none comes when a run is cancelled, and when one comes for
its success, a compaction may follow. What tells is the generator by which ``run_async`` or ``run_live`` does its work.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import weakref
from types import AsyncGeneratorType, FrameType
from typing import Any, TypeAlias

from google.adk.agents.invocation_context import InvocationContext
from google.adk.plugins.base_plugin import BasePlugin
from google.adk.runners import Runner
from google.adk.sessions import Session
from google.adk.sessions.base_session_service import GetSessionConfig
from google.genai import types
from typing_extensions import override

from sessiondb.adk.sessions import handle_of, model_access
from sessiondb.engine.turns import Turn
from sessiondb.options import check_wait
from sessiondb.service import DatabaseSessionService

_LOOK_SECONDS = 0.25
"""How often it is looked whether a run is over that nothing else has told of."""

_RUNS = (Runner.run_async.__code__, Runner.run_live.__code__)

Stream: TypeAlias = AsyncGeneratorType[Any, None]


class OneTurnAtATime(BasePlugin):
    """Lets the runs of a session take turns: a second message waits until the first is answered.

    ::

        App(name="assistant", root_agent=agent, plugins=[OneTurnAtATime()])

    Without it, a session that gets two messages at once has the run that was overtaken end with
    :class:`~sessiondb.errors.StaleSessionError`. It works on every session service of this package that a Runner has; other
    runs, as those of ``AgentTool`` in memory, go on as without it. Put it first in the list of plugins.

    A turn lasts until the run is over: answered, failed, cancelled, or its stream closed, and compacted. A run within it
    has no turn of its own, see :class:`~sessiondb.Turn`.
    """

    def __init__(
        self,
        service: DatabaseSessionService | None = None,
        *,
        wait: float = 60.0,
        name: str = "one_turn_at_a_time",
    ) -> None:
        """Opens nothing.

        Args:
            service: Whose turns are taken, if the Runner's session service is a wrapper around it. Else it is the Runner's
                own.
            wait: For how many seconds a message waits for its turn. Then its run ends with the RuntimeError that ADK makes
                of what a plugin raises; its cause is a :class:`~sessiondb.errors.TurnTimeoutError`.
            name: What ADK calls the plugin.

        Raises:
            ConfigurationError: If ``wait`` is not a number of seconds.
        """
        check_wait(wait)
        super().__init__(name=name)
        self._service = service
        self._wait = wait
        self._runs: dict[_Place, _Run] = {}
        self._watched: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()

    @override
    async def on_user_message_callback(
        self, *, invocation_context: InvocationContext, user_message: types.Content
    ) -> types.Content | None:
        """Waits for the turn; ADK's hook."""
        if not await self._begin(invocation_context):
            return None
        # ADK has picked the agent from what the session was. It picks again for a message that a plugin gives back, but
        # then asks no other plugin, so they are asked here.
        plugins = invocation_context.plugin_manager.plugins
        for plugin in plugins[plugins.index(self) + 1 :]:
            changed = await plugin.on_user_message_callback(
                invocation_context=invocation_context, user_message=user_message
            )
            if changed is not None:
                return changed
        return user_message

    @override
    async def before_run_callback(self, *, invocation_context: InvocationContext) -> None:
        """Waits for the turn of a run without a message, resumed or live; ADK's hook."""
        await self._begin(invocation_context)

    @override
    async def after_run_callback(self, *, invocation_context: InvocationContext) -> None:
        """Has it looked whether the run is over; ADK's hook."""
        self._ends(invocation_context)

    @override
    async def on_run_error_callback(self, *, invocation_context: InvocationContext, error: Exception) -> None:
        """Has it looked whether the run is over; ADK's hook."""
        self._ends(invocation_context)

    def _ends(self, context: InvocationContext) -> None:
        run = self._run_of(context)
        if run is not None:
            run.end_soon()

    def _run_of(self, context: InvocationContext) -> _Run | None:
        """Returns the run of a context if it has the turn, and is not part of another that has it."""
        run = self._runs.get(_place_of(context))
        return run if run is not None and run.context is context else None

    async def _begin(self, context: InvocationContext) -> bool:
        """Waits for the turn of a run, unless it has it; says whether its session was changed meanwhile."""
        if self._run_of(context) is not None:
            return False
        session = context.session
        service = (
            context.session_service if isinstance(context.session_service, DatabaseSessionService) else self._service
        )
        # A session without a revision is not of the file: an agent that is a tool has one in memory.
        if service is None or handle_of(session).incarnation is None:
            return False
        place = _place_of(context)
        before = self._runs.get(place)
        if before is not None and before.loop is asyncio.get_running_loop():
            # A task that has given up a run, and now begins the next, must not take itself to be within that one.
            before.look()
        turn = service.turn(session.app_name, session.user_id, session.id, wait=self._wait)
        if not await turn.take():
            return False
        with contextlib.ExitStack() as undo:
            undo.callback(turn.release)
            changed = await _bring_up_to_date(context)
            undo.pop_all()
        self._runs[place] = _Run(self._runs, context, turn, _stream_of(inspect.currentframe()))
        self._watch(asyncio.get_running_loop())
        return changed

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Looks after the runs of a loop from time to time, until it has none: one timer, however many runs come and go."""
        if loop not in self._watched:
            self._watched.add(loop)
            loop.call_later(_LOOK_SECONDS, self._look_after, loop)

    def _look_after(self, loop: asyncio.AbstractEventLoop) -> None:
        self._watched.discard(loop)
        for run in [run for run in self._runs.copy().values() if run.loop is loop]:
            run.look()
            self._watch(loop)


_Place: TypeAlias = tuple[int, str, str, str]
"""A session, and the identity of the service that a Runner has it from."""


def _place_of(context: InvocationContext) -> _Place:
    session = context.session
    return id(context.session_service), session.app_name, session.user_id, session.id


class _Run:
    """A run that has the turn of its session, until it is over.

    It is over when the generator is by which it works, and that is looked at from time to time. If that one is not found, it
    is over when the task is in which it began.
    """

    def __init__(
        self, runs: dict[_Place, _Run], context: InvocationContext, turn: Turn, stream: weakref.ref[Stream] | None
    ) -> None:
        self._runs = runs
        self.context = context
        self._turn = turn
        self._stream = stream
        self.loop = asyncio.get_running_loop()
        self._dropped = False
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # ADK's Runner runs on asyncio, and a callback in a task
        self._task = task
        task.add_done_callback(self.look)

    def end_soon(self) -> None:
        """Called in the last callback: other plugins, and a compaction, may follow."""
        if self._stream is None:
            self.end()
        else:
            # Mostly the run is over when its task has taken this step to its end.
            self.loop.call_soon(self.look)

    def end(self) -> None:
        """Ends the turn. Idempotent."""
        place = _place_of(self.context)
        if self._runs.get(place) is self:
            del self._runs[place]
            self._turn.release()
            self._task.remove_done_callback(self.look)

    def look(self, _task: object = None) -> None:
        """Ends the turn if the run is over."""
        if self._is_over():
            self.end()

    def _is_over(self) -> bool:
        if self._stream is None:
            return self._task.done()
        stream = self._stream()
        if stream is not None:
            return stream.ag_frame is None
        # Nobody has it any more: the loop closes it, and has had time for that by the next look.
        dropped, self._dropped = self._dropped, True
        return dropped


def _stream_of(frame: FrameType | None) -> weakref.ref[Stream] | None:
    """Finds the generator by which a run does its work, from a frame within it.

    It is the outermost one within ``run_async`` or ``run_live``, which closes it in the end. A frame does not name its
    generator before Python 3.14; but whoever iterates over one has it in a variable, as ADK has for those that it closes.
    The variables of a run's reader are not looked at: the look would keep alive what they hold, and a stream that its reader
    drops must be closed. What is further out may be another run, whose agent has begun this one.
    """
    found: weakref.ref[Stream] | None = None
    while frame is not None and frame.f_code not in _RUNS:
        outer = frame.f_back
        if outer is not None and frame.f_code.co_flags & inspect.CO_ASYNC_GENERATOR:
            for value in outer.f_locals.values():
                if isinstance(value, AsyncGeneratorType) and value.ag_frame is frame:
                    found = weakref.ref(value)
        frame = outer
    return found


async def _bring_up_to_date(context: InvocationContext) -> bool:
    """Brings the session of a run up to date in its place, if it was changed since; says whether it was.

    A session that is gone stays as it is: the first append says so.
    """
    session = context.session
    if await _is_current(context, session):
        return False
    run_config = context.run_config
    stored = await _read(context, session, None if run_config is None else run_config.get_session_config)
    if stored is None:
        return False
    session.events[:] = stored.events
    session.state.clear()
    session.state.update(stored.state)
    model_access.set_field(session, "last_update_time", stored.last_update_time)
    marker = model_access.get_marker(stored)
    if marker is not None:
        model_access.set_marker(session, marker)
    return True


async def _is_current(context: InvocationContext, session: Session) -> bool:
    head = await _read(context, session, GetSessionConfig(num_recent_events=0))
    return head is not None and (head.state, model_access.get_marker(head)) == (
        session.state,
        model_access.get_marker(session),
    )


async def _read(context: InvocationContext, session: Session, config: GetSessionConfig | None) -> Session | None:
    return await context.session_service.get_session(
        app_name=session.app_name, user_id=session.user_id, session_id=session.id, config=config
    )
