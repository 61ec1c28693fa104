"""What is timed. Each work prepares a service and yields a function that runs one round and returns its sample."""

from __future__ import annotations

import asyncio
import gc
import itertools
import math
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple

from google.adk.agents import LlmAgent
from google.adk.runners import Runner
from google.adk.sessions import BaseSessionService, Session
from google.adk.sessions.base_session_service import GetSessionConfig
from google.genai import types

from bench import workload
from bench.mutants import MUTANTS
from bench.services import PEERS, RAW, SESSIONDB, Peer
from sessiondb import DatabaseSessionService
from sessiondb.demo.model import OfflineModel
from sessiondb.stores.sqlite.yardstick import Yardstick


class Sample(NamedTuple):
    """One round.

    Attributes:
        seconds: What the table compares: the time of one operation.
        figures: What else there is to say; latencies in seconds.
    """

    seconds: float
    figures: dict[str, float]


Round = Callable[[], Awaitable[Sample]]
Work = AbstractAsyncContextManager[Round]
WORKS: dict[str, Callable[..., Work]] = {}
SERVICES = PEERS | MUTANTS


def work(make: Callable[..., AsyncIterator[Round]]) -> Callable[..., Work]:
    """Registers a work under the name of its function."""
    made = asynccontextmanager(make)
    WORKS[make.__name__] = made
    return made


def quantile(latencies: Sequence[float], share: float) -> float:
    """The latency that ``share`` of all stay within."""
    ranked = sorted(latencies)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))]


# --- Services with something in them ---------------------------------------------------------------------------------


class Stock:
    """Seeded data, kept by this process for the works that only read it."""

    def __init__(self) -> None:
        self._folders: dict[tuple[str, int, int], Path] = {}
        self._in_memory: dict[tuple[str, int, int], BaseSessionService] = {}

    @asynccontextmanager
    async def opened(self, name: str, sessions: int, events: int) -> AsyncIterator[tuple[BaseSessionService, Path]]:
        """A service holding ``sessions`` sessions of ``events`` events each, opened anew on its file."""
        peer = SERVICES[name]
        key = (name, sessions, events)
        if not peer.durable:
            if key not in self._in_memory:
                async with peer.open(Path()) as service:
                    await seed(peer, service, sessions, events)
                self._in_memory[key] = service
            yield self._in_memory[key], Path()
            return
        if key not in self._folders:
            # Filled in memory, for time's sake: the file is the same. What is measured happens on the disk.
            with folder(_RAM if os.access(_RAM, os.W_OK) else None) as scratch:
                async with peer.open(scratch) as service:
                    await seed(peer, service, sessions, events)
                self._folders[key] = shutil.copytree(scratch, new_folder(), dirs_exist_ok=True)
        async with peer.open(self._folders[key]) as service:
            yield service, self._folders[key]


STOCK = Stock()
_RAM = Path("/dev/shm")  # noqa: S108  # a private folder is made in it


def new_folder(parent: Path | None = None) -> Path:
    """A temporary folder; whoever asks removes it."""
    return Path(tempfile.mkdtemp(prefix="sessiondb-bench-", dir=parent))


@contextmanager
def folder(parent: Path | None = None) -> Iterator[Path]:
    """A temporary folder, removed afterwards."""
    path = new_folder(parent)
    try:
        yield path
    finally:
        shutil.rmtree(path)


@asynccontextmanager
async def fresh(name: str) -> AsyncIterator[tuple[Peer, BaseSessionService]]:
    """A service on an empty file."""
    peer = SERVICES[name]
    with folder() as path:
        async with peer.open(path) as service:
            yield peer, service


async def seed(peer: Peer, service: BaseSessionService, sessions: int, events: int) -> None:
    """Creates sessions ``s0``, ``s1``, ... of one user and fills them."""

    async def fill(numbers: range) -> None:
        for n in numbers:
            handle = await peer.create(service, workload.APP, workload.USER, f"s{n}")
            for _ in range(events):
                await service.append_event(handle, workload.event())
                if peer.durable:
                    # What a handle has seen so far is of no use here, and would be the larger part of all memory.
                    handle.events.clear()

    # Concurrent conversations fill a service that commits in groups faster; those that lock are filled in turn.
    lanes = 1 if peer.errors else min(64, sessions)
    await asyncio.gather(*(fill(range(lane, sessions, lanes)) for lane in range(lanes)))


async def read(
    service: BaseSessionService, session_id: str, config: GetSessionConfig | None = None, user: str = workload.USER
) -> Session:
    """Gets a session that exists."""
    session = await service.get_session(app_name=workload.APP, user_id=user, session_id=session_id, config=config)
    assert session is not None
    return session


@contextmanager
def busy_thread() -> Iterator[None]:
    """A thread that computes in Python all the time."""
    stop = threading.Event()

    def spin() -> None:
        value = 0
        while not stop.is_set():
            for n in range(1000):
                value ^= n

    thread = threading.Thread(target=spin, name="busy")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


# --- Appends ---------------------------------------------------------------------------------------------------------


class Client:
    """One conversation that appends, and what it saw."""

    def __init__(self, peer: Peer, service: BaseSessionService, handles: Sequence[Session]) -> None:
        self.latencies: list[float] = []
        self.errors = 0
        self._peer = peer
        self._service = service
        self._handles = handles
        self._turn = 0

    async def append(self, count: int) -> None:
        """Makes and appends events one after the other, to one session after the other."""
        for _ in range(count):
            handle = self._handles[self._turn % len(self._handles)]
            self._turn += 1
            # Part of what the loop has to do, as in a Runner; no part of the latency.
            event = workload.event()
            started = time.perf_counter()
            try:
                await self._service.append_event(handle, event)
            except self._peer.errors:
                self.errors += 1
            else:
                self.latencies.append(time.perf_counter() - started)


async def _append_round(clients: Sequence[Client], each: int, *, busy: bool) -> Sample:
    for client in clients:
        client.latencies.clear()
        client.errors = 0
    gc.collect()
    with busy_thread() if busy else nullcontext():
        started = time.perf_counter()
        await asyncio.gather(*(client.append(each) for client in clients))
        seconds = time.perf_counter() - started
    latencies = [latency for client in clients for latency in client.latencies]
    errors = sum(client.errors for client in clients)
    return append_sample(latencies, seconds, errors, alone=len(clients) == 1)


def append_sample(latencies: Sequence[float], seconds: float, errors: int = 0, *, alone: bool) -> Sample:
    """A round of appends: one client is known by its median latency, many by their throughput."""
    done = len(latencies)
    if not done:
        raise RuntimeError(f"none of {errors} appends succeeded")
    median = statistics.median(latencies)
    return Sample(
        median if alone else seconds / done,
        {
            "p50": median,
            "p99": quantile(latencies, 0.99),
            "per_second": done / seconds,
            "errors": errors,
            "appends": done + errors,
        },
    )


@work
async def append(name: str, *, clients: int, each: int, busy: bool = False) -> AsyncIterator[Round]:
    """``clients`` at once, each on a session and user of its own, ``each`` appends a round; new sessions each round."""
    async with fresh(name) as (peer, service):
        numbers = itertools.count()

        async def run() -> Sample:
            handles = [
                await peer.create(service, workload.APP, f"user-{n}", f"s{next(numbers)}") for n in range(clients)
            ]
            return await _append_round([Client(peer, service, [handle]) for handle in handles], each, busy=busy)

        yield run


@work
async def append_raw(name: str, *, batch: int, commits: int, busy: bool = False) -> AsyncIterator[Round]:
    """The same rows by raw SQLite, ``batch`` events a commit."""
    assert name == RAW
    body = workload.event().model_dump_json(exclude_none=True)
    with folder() as path:
        yardstick = Yardstick(path / "raw.sqlite3", sessions=batch)

        async def run() -> Sample:
            yardstick.checkpoint()
            gc.collect()
            with busy_thread() if busy else nullcontext():
                seconds = [yardstick.commit(body, batch) for _ in range(commits)]
            sample = append_sample(seconds, sum(seconds), alone=batch == 1)
            sample.figures["per_second"] *= batch
            return sample._replace(seconds=sample.seconds if batch == 1 else sample.seconds / batch)

        try:
            yield run
        finally:
            yardstick.close()


@work
async def append_seeded(
    name: str, *, clients: int, each: int, sessions: int, events: int, long_session: int = 0
) -> AsyncIterator[Round]:
    """As ``append``, in a file of ``sessions`` x ``events`` events; or all on a session of ``long_session``."""
    async with STOCK.opened(name, sessions, events) as (service, _):
        peer = SERVICES[name]
        newest = GetSessionConfig(num_recent_events=0)
        if long_session:
            known = await service.get_session(
                app_name=workload.APP, user_id="long", session_id="long", config=newest
            ) or await peer.create(service, workload.APP, "long", "long")
            # Concurrent appends through one Session are committed in groups.
            assert isinstance(service, DatabaseSessionService)
            missing = long_session - service.get_event_count(workload.APP, "long", "long")
            for start in range(0, missing, 256):
                await asyncio.gather(
                    *(service.append_event(known, workload.event()) for _ in range(min(256, missing - start)))
                )
                known.events.clear()
            handles = [known]
        else:
            # Spread over the file, each at most once a round, so that pages are as cold as the file makes them.
            wanted = min(sessions, max(clients, 256))
            handles = [await read(service, f"s{n * sessions // wanted}", newest) for n in range(wanted)]
        all_clients = [Client(peer, service, handles[n::clients]) for n in range(clients)]
        yield lambda: _append_round(all_clients, each, busy=False)


@work
async def create(name: str, *, times: int) -> AsyncIterator[Round]:
    """create_session, one client, median."""
    async with fresh(name) as (_, service):

        async def run() -> Sample:
            gc.collect()
            latencies = []
            for _ in range(times):
                started = time.perf_counter()
                await service.create_session(app_name=workload.APP, user_id=workload.USER)
                latencies.append(time.perf_counter() - started)
            return append_sample(latencies, sum(latencies), alone=True)

        yield run


@work
async def update_keys(name: str, *, times: int) -> AsyncIterator[Round]:
    """update_keys of a session and a user key, one client, median."""
    async with fresh(name) as (peer, service):
        assert isinstance(service, DatabaseSessionService)
        await peer.create(service, workload.APP, workload.USER, "s0")

        async def run() -> Sample:
            gc.collect()
            latencies = []
            for n in range(times):
                started = time.perf_counter()
                await service.update_keys(workload.APP, workload.USER, "s0", {"step": n, "user:steps": n})
                latencies.append(time.perf_counter() - started)
            return append_sample(latencies, sum(latencies), alone=True)

        yield run


# --- Reads -----------------------------------------------------------------------------------------------------------


async def _read_round(
    service: BaseSessionService, times: int, config: GetSessionConfig | None, expected: int
) -> Sample:
    gc.collect()
    latencies = []
    for _ in range(times):
        started = time.perf_counter()
        session = await read(service, "s0", config)
        latencies.append(time.perf_counter() - started)
        assert len(session.events) == expected
    return Sample(statistics.median(latencies), {"p50": statistics.median(latencies), "p99": quantile(latencies, 0.99)})


@work
async def get(name: str, *, events: int, times: int, newest: int | None = None) -> AsyncIterator[Round]:
    """get_session of a log of ``events`` events that was read before, median; or of its ``newest`` events."""
    config = None if newest is None else GetSessionConfig(num_recent_events=newest)
    async with STOCK.opened(name, 1, events) as (service, _):
        await read(service, "s0", config)
        yield lambda: _read_round(service, times, config, min(events, events if newest is None else newest))


@work
async def get_cold(name: str, *, events: int, times: int) -> AsyncIterator[Round]:
    """The first get_session of a service that was opened just before, median."""

    async def run() -> Sample:
        latencies = []
        for _ in range(times):
            async with STOCK.opened(name, 1, events) as (service, _):
                sample = await _read_round(service, 1, None, events)
                latencies.append(sample.seconds)
        return Sample(statistics.median(latencies), {"p50": statistics.median(latencies)})

    async with STOCK.opened(name, 1, events):
        pass
    yield run


@work
async def list_sessions(name: str, *, sessions: int, times: int) -> AsyncIterator[Round]:
    """list_sessions of one user with ``sessions`` sessions, median."""
    async with STOCK.opened(name, sessions, 0) as (service, _):

        async def run() -> Sample:
            gc.collect()
            latencies = []
            for _ in range(times):
                started = time.perf_counter()
                listed = await service.list_sessions(app_name=workload.APP, user_id=workload.USER)
                latencies.append(time.perf_counter() - started)
                assert len(listed.sessions) == sessions
            return Sample(statistics.median(latencies), {"p50": statistics.median(latencies)})

        yield run


# --- Size ------------------------------------------------------------------------------------------------------------


@work
async def fill(name: str, *, clients: int, chunk: int, per_session: int, reads: int) -> AsyncIterator[Round]:
    """Fills a file: each round appends ``chunk`` events and reads ``reads`` sessions that are full already.

    Conversations live as conversations do: ``clients`` are under way, and one that has ``per_session`` events makes
    place for a new one.
    """
    with folder() as path:
        async with SERVICES[name].open(path) as service:
            peer = SERVICES[name]
            numbers = itertools.count()
            full: list[str] = []
            open_sessions: list[tuple[Session, int]] = []
            choice = random.Random(1)

            async def append_some(lane: int, count: int, latencies: list[float], errors: list[Exception]) -> None:
                handle, done = open_sessions[lane]
                for _ in range(count):
                    if done >= per_session:
                        # The first of each lane began in its middle.
                        if int(handle.id.removeprefix("s")) >= clients:
                            full.append(handle.id)
                        handle = await peer.create(service, workload.APP, workload.USER, f"s{next(numbers)}")
                        done = 0
                    event = workload.event()
                    started = time.perf_counter()
                    try:
                        await service.append_event(handle, event)
                    except peer.errors as error:
                        errors.append(error)
                    else:
                        latencies.append(time.perf_counter() - started)
                    done += 1
                open_sessions[lane] = handle, done

            async def run() -> Sample:
                latencies: list[float] = []
                errors: list[Exception] = []
                started = time.perf_counter()
                await asyncio.gather(
                    *(append_some(lane, chunk // clients, latencies, errors) for lane in range(clients))
                )
                seconds = time.perf_counter() - started
                sample = append_sample(latencies, seconds, len(errors), alone=False)
                waits = []
                for session_id in choice.sample(full, min(reads, len(full))):
                    started = time.perf_counter()
                    await read(service, session_id)
                    waits.append(time.perf_counter() - started)
                sample.figures["get"] = statistics.median(waits) if waits else math.nan
                sample.figures["bytes"] = _file_bytes(path)
                return sample

            for lane in range(clients):
                handle = await peer.create(service, workload.APP, workload.USER, f"s{next(numbers)}")
                # They are at different points of their conversations, so that not all end at once.
                open_sessions.append((handle, lane * per_session // clients))
            yield run


# --- Conversations ---------------------------------------------------------------------------------------------------


@work
async def turn(name: str, *, clients: int, each: int, rounds: int, threads: int = 1) -> AsyncIterator[Round]:
    """A turn: get_session, then two appends to what it returned.

    The logs hold 100 events in the middle of all rounds: they start with fewer, and end with as many more.
    """
    async with fresh(name) as (peer, service):
        for n in range(clients):
            handle = await peer.create(service, workload.APP, f"user-{n}", f"s{n}")
            for _ in range(max(0, 100 - each * rounds)):
                await service.append_event(handle, workload.event())

        async def converse(n: int, latencies: list[float], errors: list[Exception]) -> None:
            for _ in range(each):
                started = time.perf_counter()
                try:
                    session = await read(service, f"s{n}", user=f"user-{n}")
                    await service.append_event(session, workload.event("user"))
                    await service.append_event(session, workload.event())
                except peer.errors as error:
                    errors.append(error)
                else:
                    latencies.append(time.perf_counter() - started)

        async def several(numbers: range, latencies: list[float], errors: list[Exception]) -> None:
            await asyncio.gather(*(converse(n, latencies, errors) for n in numbers))

        async def run() -> Sample:
            latencies: list[float] = []
            errors: list[Exception] = []
            gc.collect()
            started = time.perf_counter()
            if threads == 1:
                await several(range(clients), latencies, errors)
            else:
                # Each thread has a loop of its own; an exception in one is this round's.
                await asyncio.gather(
                    *(
                        asyncio.to_thread(asyncio.run, several(range(lane, clients, threads), latencies, errors))
                        for lane in range(threads)
                    )
                )
            seconds = time.perf_counter() - started
            return append_sample(latencies, seconds, len(errors), alone=False)

        yield run


@work
async def runner(name: str, *, conversations: int, turns: int, late: int) -> AsyncIterator[Round]:
    """ADK's Runner with an offline model: ``conversations`` at once, ``turns`` each.

    ``late_per_second`` is the pace from turn ``late`` on, taken from when the first conversation gets there to the end.
    """

    async def converse(one: Runner, session_id: str, moments: list[list[float]]) -> None:
        for n in range(turns):
            moments[n].append(time.perf_counter())
            async for _ in one.run_async(
                user_id=workload.USER,
                session_id=session_id,
                new_message=types.Content(role="user", parts=[types.Part(text=workload.TEXT)]),
            ):
                pass

    async def run() -> Sample:
        async with fresh(name) as (peer, service):
            model = OfflineModel(respond=lambda request: f"{len(request.contents)} contents. {workload.TEXT}")
            agent = LlmAgent(name="agent", model=model)
            async with Runner(app_name=workload.APP, agent=agent, session_service=service) as one:
                for n in range(conversations):
                    await peer.create(service, workload.APP, workload.USER, f"s{n}")
                gc.collect()
                moments: list[list[float]] = [[] for _ in range(turns)]
                started = time.perf_counter()
                await asyncio.gather(*(converse(one, f"s{n}", moments) for n in range(conversations)))
                ended = time.perf_counter()
        late_from = min(moments[late])
        done_before = sum(moment < late_from for later in moments[1:] for moment in later)
        total = conversations * turns
        return Sample(
            (ended - started) / total,
            {
                "per_second": total / (ended - started),
                "late_per_second": (total - done_before) / (ended - late_from),
            },
        )

    yield run


# --- What it takes beside time ---------------------------------------------------------------------------------------


@work
async def size(name: str, *, sessions: int, events: int, small: bool) -> AsyncIterator[Round]:
    """Bytes on disk: of sessions without events, then of events in 100 of them."""
    make = workload.small_event if small else workload.event
    peer = SERVICES[name]

    async def run() -> Sample:
        with folder() as path:
            async with peer.open(path) as service:
                pass
            empty = _file_bytes(path)
            async with peer.open(path) as service:
                for n in range(sessions):
                    await peer.create(service, workload.APP, f"user-{n}", f"session-{n:06d}")
            with_sessions = _file_bytes(path)
            own = 0
            started = time.perf_counter()
            async with peer.open(path) as service:
                for n in range(100):
                    handle = await read(service, f"session-{n:06d}", user=f"user-{n}")
                    for _ in range(events // 100):
                        event = make()
                        own += workload.json_size(event)
                        await service.append_event(handle, event)
            seconds = time.perf_counter() - started
            per_event = (_file_bytes(path) - with_sessions) / events
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


def _file_bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in path.iterdir())


@work
async def idle(name: str, *, seconds: float) -> AsyncIterator[Round]:
    """CPU time of the process while an open service has nothing to do, per second."""
    async with fresh(name) as (peer, service):
        handle = await peer.create(service, workload.APP, workload.USER, "s0")
        await service.append_event(handle, workload.event())
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


@work
async def import_time(name: str) -> AsyncIterator[Round]:
    """Importing sessiondb in a new process that has ADK's sessions already."""
    assert name == SESSIONDB

    with folder() as compiled:
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
            return Sample(float(printed), {"p50": float(printed)})

        await run()
        yield run


@work
async def open_file(name: str, *, times: int, new: bool) -> AsyncIterator[Round]:
    """Opening a file, median: one that does not exist yet, or one that holds a session."""
    peer = SERVICES[name]

    async def run() -> Sample:
        latencies = []
        with folder() as parent:
            for n in range(times):
                path = parent / str(n if new else 0)
                if not path.exists():
                    path.mkdir()
                    if not new:
                        async with peer.open(path) as service:
                            await peer.create(service, workload.APP, workload.USER, "s0")
                started = time.perf_counter()
                opened = peer.open(path)
                await opened.__aenter__()
                latencies.append(time.perf_counter() - started)
                await opened.__aexit__(None, None, None)
        return Sample(statistics.median(latencies), {"p50": statistics.median(latencies)})

    yield run


@work
async def memory(name: str, *, appends: int, traced: int) -> AsyncIterator[Round]:
    """Growth of the process over many appends by 64 clients; and, in a shorter run, what tracemalloc sees grow.

    Handles forget what they have seen, so that what is left is the service's own. A fifth comes before and is not
    counted: the caches of SQLite and of the allocator fill then.
    """

    async def run() -> Sample:
        async with fresh(name) as (peer, service):
            handles = [await peer.create(service, workload.APP, f"user-{n}", f"s{n}") for n in range(64)]
            clients = [Client(peer, service, [handle]) for handle in handles]

            async def many(count: int) -> None:
                for _ in range(max(1, count // 6400)):
                    await _append_round(clients, 100, busy=False)
                    for handle, client in zip(handles, clients, strict=True):
                        handle.events.clear()
                        client.latencies.clear()

            await many(appends // 5)
            gc.collect()
            before = _resident_bytes()
            started = time.perf_counter()
            await many(appends)
            seconds = time.perf_counter() - started
            gc.collect()
            grown = _resident_bytes() - before
            tracemalloc.start()
            try:
                await many(traced // 5)
                gc.collect()
                base, _ = tracemalloc.get_traced_memory()
                await many(traced)
                gc.collect()
                traced_growth = tracemalloc.get_traced_memory()[0] - base
            finally:
                tracemalloc.stop()
        return Sample(
            seconds / appends,
            {
                "rss_growth": grown,
                "traced_growth": traced_growth,
                "traced_appends": traced,
            },
        )

    yield run


def _resident_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status has no VmRSS")


@work
async def cache_memory(name: str, *, sessions: int, events: int, limit: int) -> AsyncIterator[Round]:
    """Memory that reading more logs than the cache may hold takes, to its limit, as tracemalloc sees it."""
    assert name == SESSIONDB

    async def run() -> Sample:
        async with STOCK.opened(name, sessions, events) as (_, path):
            pass
        async with DatabaseSessionService(path / "sessions.sqlite3", log_cache_bytes=limit) as service:
            await read(service, "s0")
            tracemalloc.start()
            try:
                started = time.perf_counter()
                for n in range(sessions):
                    await read(service, f"s{n}")
                seconds = time.perf_counter() - started
                gc.collect()
                taken, _ = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
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
