"""How long appends wait beside a prune: ``python -m bench.pruning``.

A database of idle sessions, one of them with a very long log, and of one in use with such a log. Clients append, one event
after the other, alone and beside a prune of each of the three, which deletes them in parts.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from pathlib import Path

from rich import print as show

from bench import data
from sessiondb import DatabaseSessionService, PruneReport, Retention

_AT_ONCE = 1_000
_CLIENTS = 8
_DAY = 86_400.0
_EVENTS = 10
"""Of each idle session."""


async def _fill(service: DatabaseSessionService, sessions: int, events: int) -> None:
    then = time.time() - 10 * _DAY
    for first in range(0, sessions, _AT_ONCE):
        await asyncio.gather(*(_log(service, "idle", f"s{n}", _EVENTS, then) for n in range(first, first + _AT_ONCE)))
    await _log(service, "idle log", "long", events, then)
    await _log(service, "log", "long", events, time.time())


async def _log(service: DatabaseSessionService, user: str, name: str, events: int, moment: float) -> None:
    session = await service.create_session(data.APP, user, name, {"status": "open"})
    for first in range(0, events, _AT_ONCE):
        batch = [data.event() for _ in range(first, min(first + _AT_ONCE, events))]
        for event in batch:
            event.timestamp = moment
            event.invocation_id = event.id
        await service.append_events(session, batch)
        session.events.clear()


async def _append(service: DatabaseSessionService, client: int, latencies: list[float], ended: asyncio.Event) -> None:
    session = await service.create_session(data.APP, "in use", None)
    while not ended.is_set():
        event = data.event()
        started = time.perf_counter()
        await service.append_event(session, event)
        latencies.append(time.perf_counter() - started)
        session.events.clear()
        # A conversation waits for a model most of the time.
        await asyncio.sleep(0.001 * (client + 1))


async def _measure(name: str, service: DatabaseSessionService, prune: asyncio.Future[PruneReport] | None) -> None:
    """Appends until a prune has ended, or for two seconds, and shows what appends have taken."""
    latencies: list[float] = []
    ended = asyncio.Event()
    clients = [asyncio.ensure_future(_append(service, n, latencies, ended)) for n in range(_CLIENTS)]
    report = None if prune is None else await prune
    if prune is None:
        await asyncio.sleep(2)
    ended.set()
    await asyncio.gather(*clients)
    median, late, longest = statistics.median(latencies), statistics.quantiles(latencies, n=100)[-1], max(latencies)
    done = ""
    if report is not None:
        done = f"; {report.sessions:,} sessions and {report.events:,} events gone in {report.seconds:.1f} s"
    show(f"{name}: median {median * 1e3:.2f} ms, 99 of 100 within {late * 1e3:.2f}, longest {longest * 1e3:.2f}{done}")


async def measure(location: Path | str, sessions: int, events: int) -> None:
    """Fills a database, and measures."""
    async with DatabaseSessionService(location) as service:
        await _fill(service, sessions, events)
        await _measure("alone", service, None)
        for name, retention in (
            ("idle", Retention(idle=_DAY)),
            ("idle log", Retention(idle=_DAY)),
            ("log", Retention(max_events=100)),
        ):
            prune = asyncio.ensure_future(service.prune(retention, user_id=name))
            await _measure(f"beside a prune ({name})", service, prune)
        await _measure("alone", service, None)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=5_000, help="idle sessions, of 10 events each")
    parser.add_argument("--events", type=int, default=50_000, help="events of each long log")
    parser.add_argument("--url", help="a server; without it a file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sessiondb-bench-") as temporary:
        place = arguments.url or Path(temporary) / "sessions.sqlite3"
        asyncio.run(measure(place, arguments.sessions, arguments.events))
