"""Writes to new sessions: appends, create_session, update_keys."""

from __future__ import annotations

import gc
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import nullcontext

from bench import data
from bench.services import PEERS, RAW
from bench.timing import Sample, Timer, append_sample
from bench.workloads.clients import Client, append_round, busy_thread
from bench.workloads.registry import Round, workload
from bench.workloads.seeding import SEEDED, open_empty, read, temporary_folder
from sessiondb import DatabaseSessionService
from sessiondb.stores.sqlite.yardstick import Yardstick


@workload
async def append(name: str, *, clients: int, each: int, busy: bool = False) -> AsyncIterator[Round]:
    """``clients`` at once, each on a session and user of its own, ``each`` appends a round; new sessions each round."""
    async with open_empty(name) as (peer, service):
        numbers = itertools.count()

        async def run() -> Sample:
            sessions = [await peer.create(service, data.APP, f"user-{n}", f"s{next(numbers)}") for n in range(clients)]
            return await append_round([Client(peer, service, [session]) for session in sessions], each, busy=busy)

        yield run


@workload
async def append_beside_cache(name: str, *, clients: int, each: int, cached: int) -> AsyncIterator[Round]:
    """Appends while the cache of logs holds ``cached`` events, in logs of 100."""
    async with SEEDED.open(name, max(cached // 100, 1), 100) as (service, _):
        # Twice: what was read once is kept in a form that takes less.
        for _, n in itertools.product(range(2), range(cached // 100)):
            await read(service, f"s{n}")
        numbers = itertools.count()
        peer = PEERS[name]

        async def run() -> Sample:
            sessions = [await peer.create(service, data.APP, f"user-{n}", f"c{next(numbers)}") for n in range(clients)]
            return await append_round([Client(peer, service, [session]) for session in sessions], each)

        yield run


@workload
async def append_raw(name: str, *, batch: int, commits: int, busy: bool = False) -> AsyncIterator[Round]:
    """The same rows by raw SQLite, ``batch`` events a commit."""
    assert name == RAW
    body = data.event().model_dump_json(exclude_none=True)
    with temporary_folder() as folder:
        yardstick = Yardstick(folder / "raw.sqlite3", sessions=batch)

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


@workload
async def create(name: str, *, times: int) -> AsyncIterator[Round]:
    """create_session, one client, median."""
    async with open_empty(name) as (_, service):
        yield lambda: _one_client(times, lambda _: service.create_session(app_name=data.APP, user_id=data.USER))


@workload
async def update_keys(name: str, *, times: int) -> AsyncIterator[Round]:
    """update_keys of a session and a user key, one client, median."""
    async with open_empty(name) as (peer, service):
        assert isinstance(service, DatabaseSessionService)
        await peer.create(service, data.APP, data.USER, "s0")
        yield lambda: _one_client(
            times, lambda n: service.update_keys(data.APP, data.USER, "s0", {"step": n, "user:steps": n})
        )


async def _one_client(times: int, call: Callable[[int], Awaitable[object]]) -> Sample:
    gc.collect()
    latencies: list[float] = []
    for n in range(times):
        with Timer(latencies):
            await call(n)
    return append_sample(latencies, sum(latencies), alone=True)
