"""A scripted model, and agents and runners around it, for tests without a network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from google.adk.agents import BaseAgent, LlmAgent, RunConfig
from google.adk.agents.run_config import StreamingMode  # type: ignore[attr-defined]  # its documented place
from google.adk.events import Event
from google.adk.models.llm_request import LlmRequest
from google.adk.runners import Runner
from google.adk.sessions import BaseSessionService
from google.genai import types
from google.genai.types import FunctionCall
from pydantic import PrivateAttr

from sessiondb.demo.model import OfflineModel, Reply, Responder, call

__all__ = [
    "APP",
    "USER",
    "Reply",
    "ScriptedModel",
    "Step",
    "call",
    "reply_text",
    "say",
    "scripted_agent",
    "scripted_runner",
    "transfer",
]

APP = "scripted_app"
USER = "user_123"

Step = Reply | Responder | Exception
"""A reply, a function that computes it from the request, or an error for the model to raise."""


class ScriptedModel(OfflineModel):
    """Plays ``script`` once, one step a request, in order::

        ScriptedModel(["hello", [call("tool", x=1), call("tool", x=2)], transfer("b"), "done"])

    A request beyond the end fails the run. ``requests`` keeps copies of what the model was asked.
    Agents may share one instance: they then take their steps from the same script.
    """

    _steps: list[Step] = PrivateAttr()
    _requests: list[LlmRequest] = PrivateAttr(default_factory=list)

    def __init__(self, script: Iterable[Step], *, name: str = "scripted") -> None:
        super().__init__(model=name, respond=self._next)
        self._steps = list(script)

    @property
    def requests(self) -> list[LlmRequest]:
        """The requests so far; changing the session later does not change them."""
        return self._requests

    @property
    def remaining(self) -> int:
        """The number of steps not yet played."""
        return len(self._steps)

    def _next(self, request: LlmRequest) -> Reply:
        self._requests.append(
            request.model_copy(update={"contents": [content.model_copy(deep=True) for content in request.contents]})
        )
        if not self._steps:
            raise AssertionError(f"the script of {self.model!r} has ended; asked once more")
        step = self._steps.pop(0)
        if isinstance(step, Exception):
            raise step
        if callable(step):
            return step(request)
        return step


def transfer(agent_name: str) -> FunctionCall:
    """Return the call by which a model hands the conversation to ``agent_name``."""
    return call("transfer_to_agent", agent_name=agent_name)


def scripted_agent(
    script: Iterable[Step] | ScriptedModel,
    *,
    name: str = "scripted_agent",
    tools: Sequence[Callable[..., Any]] = (),
    sub_agents: Sequence[BaseAgent] = (),
    **fields: Any,
) -> LlmAgent:
    """Return an LlmAgent that plays ``script``; ``fields`` go to LlmAgent as they are."""
    model = script if isinstance(script, ScriptedModel) else ScriptedModel(script)
    return LlmAgent(
        name=name,
        description=f"The agent {name}.",
        model=model,
        tools=list(tools),
        sub_agents=list(sub_agents),
        **fields,
    )


def scripted_runner(
    service: BaseSessionService,
    script: Iterable[Step] | ScriptedModel | BaseAgent,
    *,
    app_name: str = APP,
    tools: Sequence[Callable[..., Any]] = (),
) -> Runner:
    """Return a Runner on ``service`` for ``script``, or for an agent built beforehand."""
    agent = script if isinstance(script, BaseAgent) else scripted_agent(script, tools=tools)
    return Runner(app_name=app_name, agent=agent, session_service=service)


async def say(
    runner: Runner,
    text: str,
    *,
    session_id: str,
    user_id: str = USER,
    streaming: bool = False,
) -> list[Event]:
    """Send ``text`` and return every event that the Runner yields, partial ones included."""
    mode = StreamingMode.SSE if streaming else StreamingMode.NONE
    return [
        event
        async for event in runner.run_async(
            user_id=user_id,
            session_id=session_id,
            new_message=types.Content(role="user", parts=[types.Part(text=text)]),
            run_config=RunConfig(streaming_mode=mode),
        )
    ]


def reply_text(events: Iterable[Event]) -> str:
    """Return the text of the last complete event in ``events`` that has any."""
    texts = [
        "".join(part.text or "" for part in event.content.parts or [])
        for event in events
        if event.content and not event.partial
    ]
    return next(text for text in reversed(texts) if text)
