"""The demonstration's agent: a data-science assistant with one tool, on an offline model."""

from __future__ import annotations

import re
from typing import Any

from google.adk.agents import LlmAgent
from google.adk.models.llm_request import LlmRequest
from google.adk.runners import Runner
from google.adk.sessions import BaseSessionService
from google.adk.tools.tool_context import ToolContext
from google.genai import types

from .model import OfflineModel, Reply, call

APP_NAME = "data_science_agent"
USER_ID = "ada"
AUDITED_KEY = "model_path"

_STATE_LABEL = "State: "
# ADK fills the braces from the session's state at every request; "?" allows a missing key.
_INSTRUCTION = (
    "You train models for the user.\n" + _STATE_LABEL + "model_path={model_path?}, "
    "user:models_trained={user:models_trained?}, app:models_trained={app:models_trained?}"
)


def train_model(algorithm: str, tool_context: ToolContext) -> dict[str, Any]:
    """Train a model and remember it.

    Writes ``model_path`` (session scope), ``user:models_trained`` and
    ``app:models_trained`` (counters), and ``temp:trace`` which is never stored.
    """
    state = tool_context.state
    number = state.get("app:models_trained", 0) + 1
    state["app:models_trained"] = number
    state["user:models_trained"] = state.get("user:models_trained", 0) + 1
    state["model_path"] = f"models/{algorithm}-{number}.pkl"
    state["temp:trace"] = tool_context.function_call_id
    return {"model_path": state["model_path"]}


def respond(request: LlmRequest) -> Reply:
    """Compute the reply from what the request holds, and from nothing else.

    The model keeps no memory: whatever it says about earlier turns, or about state, has
    come back from the session service.
    """
    latest = (request.contents[-1].parts or [types.Part()])[-1]
    if latest.function_response:
        return f"Trained {(latest.function_response.response or {})['model_path']}."
    if wanted := re.search(r"[Tt]rain an? (\w+) model", latest.text or ""):
        algorithm = wanted[1]
        return (f"Training a {algorithm} model.", call("train_model", algorithm=algorithm))
    return _recall(request)


def build_runner(service: BaseSessionService) -> Runner:
    """Return a Runner for the demonstration's agent that keeps its sessions in ``service``."""
    agent = LlmAgent(
        name="analyst",
        model=OfflineModel(respond=respond),
        instruction=_INSTRUCTION,
        tools=[train_model],
    )
    return Runner(app_name=APP_NAME, agent=agent, session_service=service)


def _recall(request: LlmRequest) -> str:
    parts = [part for content in request.contents for part in content.parts or []]
    asked = [
        part.text
        for content in request.contents[:-1]
        if content.role == "user"
        for part in content.parts or []
        if part.text
    ]
    trained = [str((part.function_response.response or {})["model_path"]) for part in parts if part.function_response]
    if asked:
        history = f"You wrote {len(asked)} messages before, the first was {asked[0]!r}. "
        history += f"I trained {', '.join(trained)}. "
    else:
        history = "This conversation has just begun. "
    instruction = str(request.config.system_instruction)
    state = instruction.partition(_STATE_LABEL)[2].partition("\n")[0]
    return f"{history}In my state: {state}."
