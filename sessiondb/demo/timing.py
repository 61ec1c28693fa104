"""How long each step takes, beside ADK's in-memory service in the same run."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TypeVar

from google.adk.events import Event, EventActions
from google.adk.sessions import BaseSessionService, InMemorySessionService
from google.genai import types

from sessiondb.location import Database

from .agent import APP_NAME, USER_ID, build_runner
from .conversation import ask
from .place import open_service

_SESSIONS = 12
_EVENTS = 100
_REREADS = 8
_TURNS = 20
_TEXT = "The linear model explains most of the variance; a forest may do better. " * 3

T = TypeVar("T")
Pair = tuple[BaseSessionService, BaseSessionService]
"""The durable service, then the in-memory one."""


@dataclass(frozen=True)
class Timing:
    """Median milliseconds of one step over ``repeats`` on each service."""

    step: str
    repeats: int
    sessiondb_ms: float
    in_memory_ms: float

    @property
    def ratio(self) -> float:
        """This service's time over the in-memory service's."""
        return self.sessiondb_ms / self.in_memory_ms


class _Samples:
    """Seconds taken by one step: a list for each service of a pair."""

    def __init__(self, step: str) -> None:
        self._step = step
        self._seconds: tuple[list[float], list[float]] = ([], [])

    async def time(self, calls: Iterable[Awaitable[T]]) -> list[T]:
        """Await a call of each service of the pair, in their order, and record its time."""
        results = []
        for seconds, call in zip(self._seconds, calls, strict=True):
            start = time.perf_counter()
            results.append(await call)
            seconds.append(time.perf_counter() - start)
        return results

    def timing(self) -> Timing:
        """Return the medians."""
        durable, memory = self._seconds
        return Timing(self._step, len(durable), median(durable) * 1e3, median(memory) * 1e3)


async def measure(database: Database, prefix: str) -> tuple[Timing, ...]:
    """Time both services by turns, so that a slow moment of the machine hits both.

    The service is opened with the defaults: every commit is synced. Beside a file it works on a temporary one, so on the
    same disk; on a server it works in ``database`` itself, with sessions whose ids begin with ``prefix`` and which are
    deleted in the end.
    """
    if not isinstance(database, Path):
        timings = await _measure(database, prefix)
        async with open_service(database) as service:
            for session_id in (*(_session_id(prefix, number) for number in range(_SESSIONS)), _turns_id(prefix)):
                await service.delete_session(app_name=APP_NAME, user_id=USER_ID, session_id=session_id)
        return timings
    with tempfile.TemporaryDirectory(prefix="sessiondb-timing-", dir=database.parent) as scratch:
        return await _measure(Path(scratch) / "timing.sqlite3", prefix)


async def _measure(database: Database, prefix: str) -> tuple[Timing, ...]:
    memory = InMemorySessionService()
    async with open_service(database) as durable:
        writes = await _time_writes((durable, memory), prefix)
        turns = await _time_turns((durable, memory), prefix)
    async with open_service(database) as durable:
        # A fresh service has decoded nothing yet: only the first pass pays for that.
        cold = await _time_reads((durable, memory), prefix, "get_session, first after opening", 1)
        warm = await _time_reads((durable, memory), prefix, "get_session, again", _REREADS)
    return (*writes, cold, warm, turns)


async def _time_writes(services: Pair, prefix: str) -> tuple[Timing, Timing]:
    creating = _Samples("create_session")
    appending = _Samples("append_event")
    for number in range(_SESSIONS):
        sessions = await creating.time(
            service.create_session(app_name=APP_NAME, user_id=USER_ID, session_id=_session_id(prefix, number))
            for service in services
        )
        for step in range(_EVENTS):
            await appending.time(
                service.append_event(session, _event(step)) for service, session in zip(services, sessions, strict=True)
            )
    return creating.timing(), appending.timing()


async def _time_reads(services: Pair, prefix: str, step: str, passes: int) -> Timing:
    reading = _Samples(f"{step} ({_EVENTS} events)")
    for _ in range(passes):
        for number in range(_SESSIONS):
            await reading.time(
                service.get_session(app_name=APP_NAME, user_id=USER_ID, session_id=_session_id(prefix, number))
                for service in services
            )
    return reading.timing()


async def _time_turns(services: Pair, prefix: str) -> Timing:
    turning = _Samples("a turn with a tool call (1 get, 4 appends)")
    runners = [build_runner(service) for service in services]
    for service in services:
        await service.create_session(app_name=APP_NAME, user_id=USER_ID, session_id=_turns_id(prefix))
    for _ in range(_TURNS):
        await turning.time(ask(runner, _turns_id(prefix), "Train a linear model.", stream=False) for runner in runners)
    for runner in runners:
        await runner.close()
    return turning.timing()


def _session_id(prefix: str, number: int) -> str:
    return f"{prefix}-timing-{number}"


def _turns_id(prefix: str) -> str:
    return f"{prefix}-turns"


def _event(step: int) -> Event:
    return Event(
        invocation_id=f"invocation-{step}",
        author="analyst",
        content=types.Content(role="model", parts=[types.Part(text=_TEXT)]),
        actions=EventActions(state_delta={"progress": step, "user:last_step": step}),
    )
