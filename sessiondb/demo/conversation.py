"""The conversation that one process begins and another goes on with."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

from google.adk.agents import RunConfig
from google.adk.agents.run_config import StreamingMode  # type: ignore[attr-defined]  # its documented place
from google.adk.runners import Runner
from google.genai import types

from sessiondb.location import Database

from .agent import APP_NAME, AUDITED_KEY, USER_ID, build_runner
from .place import open_service

PID_KEY = "pid"
"""Where each event's custom metadata says which process appended it."""

_OPENING = ("Train a linear model.", "Now train a forest model.")
_OUTSIDE_CHANGES = {AUDITED_KEY: "models/forest-tuned.pkl"}
_SEQUEL = ("What do you remember?", "Train a boosted model, too.")
_NEXT_SESSION = ("What do you remember?",)


@dataclass(frozen=True)
class Turn:
    """One message of the user, and what came back."""

    session_id: str
    message: str
    reply: str
    tool_calls: tuple[str, ...]
    partial_events: int
    """How many fragments were streamed; the service stores none of them."""


@dataclass(frozen=True)
class Part:
    """What one process contributed."""

    pid: int
    turns: tuple[Turn, ...]
    outside_changes: dict[str, Any]
    """State keys that it then set from outside any conversation."""


async def begin(database: Database, session_id: str) -> Part:
    """Create the session, hold the first turns, and change one key from outside the run."""
    async with open_service(database) as service, build_runner(service) as runner:
        await service.create_session(app_name=APP_NAME, user_id=USER_ID, session_id=session_id)
        turns = await _hold(runner, session_id, _OPENING)
        await service.update_keys(APP_NAME, USER_ID, session_id, _OUTSIDE_CHANGES)
    return Part(os.getpid(), tuple(turns), _OUTSIDE_CHANGES)


async def go_on(database: Database, session_id: str) -> Part:
    """Go on with a stored session, then begin another one of the same user."""
    async with open_service(database) as service, build_runner(service) as runner:
        turns = await _hold(runner, session_id, _SEQUEL)
        next_id = f"{session_id}-next"
        await service.create_session(app_name=APP_NAME, user_id=USER_ID, session_id=next_id)
        turns += await _hold(runner, next_id, _NEXT_SESSION)
    return Part(os.getpid(), tuple(turns), {})


def go_on_in_new_process(database: Database, session_id: str) -> Part:
    """Run :func:`go_on` in a new Python process and return what it reports.

    Raises:
        SessionDBError: The process could not open or write the database.
    """
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as process:
        return process.submit(_go_on, database, session_id).result()


def _go_on(database: Database, session_id: str) -> Part:
    return asyncio.run(go_on(database, session_id))


async def ask(runner: Runner, session_id: str, message: str, *, stream: bool) -> Turn:
    """Send one message through ``runner`` and gather the reply."""
    config = RunConfig(
        streaming_mode=StreamingMode.SSE if stream else StreamingMode.NONE,
        custom_metadata={PID_KEY: os.getpid()},
    )
    content = types.Content(role="user", parts=[types.Part(text=message)])
    reply, tool_calls, partial_events = "", [], 0
    async for event in runner.run_async(user_id=USER_ID, session_id=session_id, new_message=content, run_config=config):
        if event.partial:
            partial_events += 1
            continue
        tool_calls += [str(call.name) for call in event.get_function_calls()]
        if event.is_final_response() and event.content:
            reply = "".join(part.text or "" for part in event.content.parts or [])
    return Turn(session_id, message, reply, tuple(tool_calls), partial_events)


async def _hold(runner: Runner, session_id: str, messages: Sequence[str]) -> list[Turn]:
    return [await ask(runner, session_id, message, stream=True) for message in messages]
