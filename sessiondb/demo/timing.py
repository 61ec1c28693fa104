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

from sessiondb import DatabaseSessionService

from .agent import APP_NAME, USER_ID, build_runner
from .conversation import ask

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


async def measure(folder: Path) -> tuple[Timing, ...]:
    """Time both services by turns, so that a slow moment of the machine hits both.

    The database is a temporary file inside ``folder``, so on the same disk as the
    demonstration's own, and opened with the defaults: every commit is synced.
    """
    with tempfile.TemporaryDirectory(prefix="sessiondb-timing-", dir=folder) as scratch:
        path = Path(scratch) / "timing.sqlite3"
        memory = InMemorySessionService()
        async with DatabaseSessionService(path) as durable:
            writes = await _time_writes((durable, memory))
            turns = await _time_turns((durable, memory))
        async with DatabaseSessionService(path) as durable:
            # A fresh service has decoded nothing yet: only the first pass pays for that.
            cold = await _time_reads((durable, memory), "get_session, first after opening", 1)
            warm = await _time_reads((durable, memory), "get_session, again", _REREADS)
    return (*writes, cold, warm, turns)


async def _time_writes(services: Pair) -> tuple[Timing, Timing]:
    creating = _Samples("create_session")
    appending = _Samples("append_event")
    for number in range(_SESSIONS):
        sessions = await creating.time(
            service.create_session(app_name=APP_NAME, user_id=USER_ID, session_id=_session_id(number))
            for service in services
        )
        for step in range(_EVENTS):
            await appending.time(
                service.append_event(session, _event(step)) for service, session in zip(services, sessions, strict=True)
            )
    return creating.timing(), appending.timing()


async def _time_reads(services: Pair, step: str, passes: int) -> Timing:
    reading = _Samples(f"{step} ({_EVENTS} events)")
    for _ in range(passes):
        for number in range(_SESSIONS):
            await reading.time(
                service.get_session(app_name=APP_NAME, user_id=USER_ID, session_id=_session_id(number))
                for service in services
            )
    return reading.timing()


async def _time_turns(services: Pair) -> Timing:
    turning = _Samples("a turn with a tool call (1 get, 4 appends)")
    runners = [build_runner(service) for service in services]
    for service in services:
        await service.create_session(app_name=APP_NAME, user_id=USER_ID, session_id="turns")
    for _ in range(_TURNS):
        await turning.time(ask(runner, "turns", "Train a linear model.", stream=False) for runner in runners)
    for runner in runners:
        await runner.close()
    return turning.timing()


def _session_id(number: int) -> str:
    return f"timing-{number}"


def _event(step: int) -> Event:
    return Event(
        invocation_id=f"invocation-{step}",
        author="analyst",
        content=types.Content(role="model", parts=[types.Part(text=_TEXT)]),
        actions=EventActions(state_delta={"progress": step, "user:last_step": step}),
    )
