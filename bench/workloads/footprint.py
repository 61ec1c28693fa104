"""What a service takes beside the time of its calls: disk, memory, idle CPU, import and opening."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import data
from bench.services import SESSIONDB
from bench.timing import Sample, Tally, Timer, median_sample
from bench.workloads.clients import Client, append_round
from bench.workloads.registry import Round, workload
from bench.workloads.seeding import SEEDED, SERVICES, file_bytes, open_empty, read, temporary_folder
from sessiondb import DatabaseSessionService


@workload
async def size(name: str, *, sessions: int, events: int, small: bool) -> AsyncIterator[Round]:
    """Bytes on disk: of sessions without events, then of events in 100 of them."""
    make = data.small_event if small else data.event
    peer = SERVICES[name]

    async def run() -> Sample:
        with temporary_folder() as folder:
            async with peer.open(folder) as service:
                pass
            empty = file_bytes(folder)
            async with peer.open(folder) as service:
                for n in range(sessions):
                    await peer.create(service, data.APP, f"user-{n}", f"session-{n:06d}")
            with_sessions = file_bytes(folder)
            own = 0
            started = time.perf_counter()
            async with peer.open(folder) as service:
                for n in range(100):
                    session = await read(service, f"session-{n:06d}", user=f"user-{n}")
                    for _ in range(events // 100):
                        event = make()
                        own += data.json_size(event)
                        await service.append_event(session, event)
            seconds = time.perf_counter() - started
            per_event = (file_bytes(folder) - with_sessions) / events
        return Sample(
            seconds / events,
            {
                "bytes_per_session": (with_sessions - empty) / sessions,
                "bytes_per_event": per_event,
                "json_bytes": own / events,
                "beside_json": per_event - own / events,
                "times_json": per_event * events / own,
            },
        )

    yield run


@workload
async def idle(name: str, *, seconds: float) -> AsyncIterator[Round]:
    """CPU time of the process while an open service has nothing to do, per second."""
    async with open_empty(name) as (peer, service):
        session = await peer.create(service, data.APP, data.USER, "s0")
        await service.append_event(session, data.event())
        await read(service, "s0")

        async def run() -> Sample:
            # The thread waits outside of the loop, and lets work that follows the last write come to its end first.
            threading.Event().wait(1.5)
            started = time.process_time()
            threading.Event().wait(seconds)
            used = time.process_time() - started
            return Sample(used / seconds, {"cpu_share": used / seconds})

        yield run


_IMPORT = """
import time
import google.adk.sessions, google.adk.events, google.adk.errors
from google.adk.sessions import InMemorySessionService
started = time.perf_counter()
import sessiondb
sessiondb.DatabaseSessionService
print(time.perf_counter() - started)
"""


@workload
async def import_time(name: str) -> AsyncIterator[Round]:
    """Importing sessiondb in a new process that has ADK's sessions already."""
    assert name == SESSIONDB

    with temporary_folder() as compiled:
        # Compiled before, as an installed package is.
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "PYTHONPYCACHEPREFIX": str(compiled),
        }
        environment.pop("PYTHONDONTWRITEBYTECODE", None)

        async def run() -> Sample:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", _IMPORT, stdout=subprocess.PIPE, env=environment
            )
            printed, _ = await process.communicate()
            return median_sample([float(printed)])

        await run()
        yield run


@workload
async def open_file(name: str, *, times: int, new: bool) -> AsyncIterator[Round]:
    """Opening a file, median: one that does not exist yet, or one that holds a session."""
    peer = SERVICES[name]

    async def run() -> Sample:
        latencies: list[float] = []
        with temporary_folder() as parent:
            for n in range(times):
                folder = parent / str(n if new else 0)
                if not folder.exists():
                    folder.mkdir()
                    if not new:
                        async with peer.open(folder) as service:
                            await peer.create(service, data.APP, data.USER, "s0")
                with Timer(latencies):
                    opened = peer.open(folder)
                    await opened.__aenter__()
                await opened.__aexit__(None, None, None)
        return median_sample(latencies)

    yield run


@workload
async def memory(name: str, *, appends: int, traced: int) -> AsyncIterator[Round]:
    """Growth of the process over many appends by 64 clients; and, in a shorter run, what tracemalloc sees grow.

    Sessions forget what they have seen, so that what is left is the service's own. A fifth comes before and is not
    counted: the caches of SQLite and of the allocator fill then.
    """

    async def run() -> Sample:
        async with open_empty(name) as (peer, service):
            sessions = [await peer.create(service, data.APP, f"user-{n}", f"s{n}") for n in range(64)]
            clients = [Client(peer, service, [session]) for session in sessions]

            async def append(count: int) -> None:
                for _ in range(max(1, count // 6400)):
                    await append_round(clients, 100)
                    for session in sessions:
                        session.events.clear()

            await append(appends // 5)
            gc.collect()
            before = resident_bytes()
            started = time.perf_counter()
            await append(appends)
            seconds = time.perf_counter() - started
            gc.collect()
            grown = resident_bytes() - before
            with _traced() as traced_bytes:
                await append(traced // 5)
                base = traced_bytes()
                await append(traced)
                traced_growth = traced_bytes() - base
        return Sample(
            seconds / appends,
            {
                "rss_growth": grown,
                "traced_growth": traced_growth,
                "traced_appends": traced,
            },
        )

    yield run


@workload
async def ageing(name: str, *, clients: int, appends: int, window: int) -> AsyncIterator[Round]:
    """Whether appends of ``clients`` grow slower with age: the first ``window`` of a process, and the last of so many."""
    each = window // clients // 10

    async def run() -> Sample:
        async with open_empty(name) as (peer, service):
            sessions = [await peer.create(service, data.APP, f"user-{n}", f"s{n}") for n in range(clients)]
            appending = [Client(peer, service, [session]) for session in sessions]

            async def append(count: int) -> tuple[Tally, float]:
                tally = Tally()
                started = time.perf_counter()
                for _ in range(max(1, count // (clients * each))):
                    await asyncio.gather(*(client.append(each, tally) for client in appending))
                    for session in sessions:
                        session.events.clear()
                return tally, time.perf_counter() - started

            fresh, fresh_seconds = await append(window)
            await append(appends - 2 * window)
            aged, aged_seconds = await append(window)
        first, last = fresh.sample(fresh_seconds, alone=False), aged.sample(aged_seconds, alone=False)
        return last._replace(
            figures={
                **last.figures,
                "fresh_p99": first.figures["p99"],
                "fresh_per_second": first.figures["per_second"],
                "errors": first.figures["errors"] + last.figures["errors"],
            }
        )

    yield run


@workload
async def cache_memory(name: str, *, sessions: int, events: int, limit: int) -> AsyncIterator[Round]:
    """Memory that reading more sessions than the cache may hold takes, to its limit, as tracemalloc sees it."""
    assert name == SESSIONDB

    async def run() -> Sample:
        async with SEEDED.open(name, sessions, events) as (_, folder):
            pass
        async with DatabaseSessionService(folder / "sessions.sqlite3", log_cache_bytes=limit) as service:
            await read(service, "s0")
            with _traced() as traced_bytes:
                started = time.perf_counter()
                for n in range(sessions):
                    await read(service, f"s{n}")
                seconds = time.perf_counter() - started
                taken = traced_bytes()
            stats = service.get_stats()
        return Sample(
            seconds / sessions,
            {
                "limit": limit,
                "cache_bytes": stats["cache_bytes"],
                "traced": taken,
                "counted_share": stats["cache_bytes"] / limit,
                "traced_share": taken / limit,
            },
        )

    yield run


@contextmanager
def _traced() -> Iterator[Callable[[], int]]:
    """Traces allocations; yields a function that returns the bytes still in use after a garbage collection."""

    def traced_bytes() -> int:
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        yield traced_bytes
    finally:
        tracemalloc.stop()


def resident_bytes() -> int:
    """Physical memory that this process takes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status has no VmRSS")
