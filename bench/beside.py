"""What appends wait for while something large runs beside them in the same service: `usage`, and the erasure of a user.

``python -m bench.beside FILE [EVENTS]``: the file is filled where it is missing, and is smaller afterwards. In place of a file
there may be the URL of a server, with a schema that is empty.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter
from typing import Any

from google.adk.events import Event
from google.genai import types

from bench import data
from sessiondb import DatabaseSessionService, ErasureReport, stores
from sessiondb.adk.events import encode_event, timestamp_text
from sessiondb.adk.state import encode_delta
from sessiondb.model.records import NewEvent, NewSession, SessionKey
from sessiondb.testing import typical_event

CLIENTS = 8
SECONDS = 8.0
PER_SESSION = 50
PER_USER = 100

_numbers = count(1)


def _event(author: str = "") -> Event:
    """One of four is the user's; of the model's each has tokens, and one of three a call of a tool."""
    number = next(_numbers)
    event = typical_event(author or ("user" if number % 4 == 1 else "agent"))
    event.invocation_id = f"e-2f6c5f0a-7d3b-4c0e-9b1a-{number // 4:012d}"
    if number % 4 != 1:
        event.model_version = "gemini-2.5-flash" if number % 5 else "gemini-2.5-pro"
        event.usage_metadata = types.GenerateContentResponseUsageMetadata(
            prompt_token_count=1000 + number, candidates_token_count=100 + number % 7, total_token_count=1100 + number
        )
    if number % 4 == 2 and event.content is not None and event.content.parts is not None:
        call = types.FunctionCall(name=f"tool_{number % 3}", args={"q": "x"})
        event.content.parts.append(types.Part(function_call=call))
    return event


def _fill(location: str, events: int) -> None:
    """Fills a database: sessions of 50 events, users of 100 sessions."""
    records = [encode_event(event, encode_delta({})).record for event in (_event() for _ in range(PER_SESSION))]
    with stores.open_import(location) as into:
        for number in range(events // PER_SESSION):
            key = SessionKey(data.APP, f"user{number // PER_USER}", f"s{number}")
            moment = timestamp_text(float(number))
            log = (
                NewEvent(record._replace(event_id=f"{number}-{n}"), advances=True) for n, record in enumerate(records)
            )
            into.put(NewSession(key, moment, moment, float(number), "{}"), log)


class Clients:
    """Clients that append one event after the other, each to a session of its own."""

    def __init__(self, service: DatabaseSessionService) -> None:
        self._service = service
        self._times: list[float] = []

    async def during(self, work: Callable[[], Awaitable[Any]]) -> tuple[Any, list[float], float]:
        """Appends for as long as some work takes; returns its result, how long each append took, and the work."""
        self._times = []
        done = asyncio.Event()
        clients = [asyncio.create_task(self._append(number, done)) for number in range(CLIENTS)]
        started = perf_counter()
        result = await work()
        seconds = perf_counter() - started
        done.set()
        await asyncio.gather(*clients)
        return result, self._times, seconds

    async def _append(self, number: int, done: asyncio.Event) -> None:
        session = await self._service.create_session("beside", f"client {number}")
        while not done.is_set():
            started = perf_counter()
            await self._service.append_event(session, typical_event("agent"))
            self._times.append(perf_counter() - started)


def _told(what: str, times: list[float], seconds: float) -> None:
    p99 = quantiles(times, n=100)[98] if len(times) > 1 else times[0]
    print(
        f"{what:>28}: {seconds:6.1f} s, {len(times) / seconds:7,.0f} appends/s,"
        f" p50 {median(times) * 1000:5.2f} ms, p99 {p99 * 1000:6.1f} ms, longest {max(times) * 1000:7.1f} ms"
    )


async def _erase_first(service: DatabaseSessionService, *, purge: bool) -> ErasureReport:
    """Erases the user whose sessions were updated longest ago."""
    (first,) = (await service.list_sessions(data.APP, limit=1, with_state=False)).sessions
    return await service.erase_user(data.APP, first.user_id, purge=purge)


async def _measure(location: str) -> None:
    async with DatabaseSessionService(location) as service:
        clients = Clients(service)
        await clients.during(lambda: asyncio.sleep(1.0))
        for what, work in (
            ("nothing", lambda: asyncio.sleep(SECONDS)),
            ("usage(by='day')", lambda: service.usage(by="day")),
            ("nothing", lambda: asyncio.sleep(SECONDS)),
            ("erase_user, purge=False", lambda: _erase_first(service, purge=False)),
            ("nothing", lambda: asyncio.sleep(SECONDS)),
            ("erase_user", lambda: _erase_first(service, purge=True)),
        ):
            result, times, seconds = await clients.during(work)
            _told(what, times, seconds)
            if what.startswith("erase"):
                print(f"{'':>28}  {result}, {service.get_stats()['db_size_mb']:,.0f} MB")


def main() -> None:
    """Fills the database, unless it is a file that is there, and prints what was measured."""
    location = sys.argv[1]
    events = int(sys.argv[2]) if len(sys.argv) > 2 else 1_000_000
    if not Path(location).exists():
        _fill(location, events)
    asyncio.run(_measure(location))


if __name__ == "__main__":
    main()
