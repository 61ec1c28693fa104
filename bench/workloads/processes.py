"""Several processes that append to one file at the same time."""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import logging
import os
import sys
import time
import warnings
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self

from google.adk.sessions import Session

from bench import data
from bench.timing import Sample, Tally, append_sample
from bench.workloads.clients import append_event
from bench.workloads.registry import Round, workload
from bench.workloads.seeding import SERVICES, temporary_folder

_MAIN = "import sys; from bench.workloads.processes import main; main(*sys.argv[1:])"
_LONGEST_LINE = 64 * 1024 * 1024


class _Appender:
    """A process with a service of its own, and clients that append when they are told."""

    def __init__(self, process: Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, name: str, folder: Path, number: int, clients: int) -> Self:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        command = [sys.executable, "-c", _MAIN, name, str(folder), str(number), str(clients)]
        process = await asyncio.create_subprocess_exec(
            *command, stdin=PIPE, stdout=PIPE, env=environment, limit=_LONGEST_LINE
        )
        appender = cls(process)
        assert await appender.hear() == "open"
        return appender

    def tell(self, order: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")

    async def hear(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(await self._process.stdout.readline())

    async def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()


@workload
async def append_processes(name: str, *, processes: int, clients: int, seconds: float) -> AsyncIterator[Round]:
    """``processes`` of ``clients`` each append to one file for so long; each client to a new session each round."""
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(temporary_folder())
        appenders = []
        # One after the other: how a file is opened is not what is measured.
        for number in range(processes):
            appenders.append(await _Appender.start(name, folder, number, clients))
            stack.push_async_callback(appenders[-1].close)
        yield lambda: _round(appenders, seconds)


async def _round(appenders: Sequence[_Appender], seconds: float) -> Sample:
    for appender in appenders:
        appender.tell("create")
        assert await appender.hear() == "created"
    for appender in appenders:
        appender.tell(seconds)
    told = [await appender.hear() for appender in appenders]
    latencies = [latency for one in told for latency in one["latencies"]]
    counts = sorted(len(one["latencies"]) for one in told)
    sample = append_sample(
        latencies, max(one["seconds"] for one in told), sum(one["errors"] for one in told), alone=False
    )
    sample.figures.update(max=max(latencies), slowest_share=counts[0] / counts[-1])
    return sample


def main(name: str, folder: str, number: str, clients: str) -> None:
    """The whole of such a process: orders come by standard input, a line each, and answers go to standard output."""
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    asyncio.run(_serve(name, Path(folder), number, int(clients)))


async def _serve(name: str, folder: Path, number: str, clients: int) -> None:
    peer = SERVICES[name]
    numbers = itertools.count()
    async with peer.open(folder) as service:
        sessions: list[Session] = []
        _say("open")
        while line := await asyncio.to_thread(sys.stdin.readline):
            order = json.loads(line)
            if order == "create":
                sessions = [
                    await peer.create(service, data.APP, f"user-{number}-{n}", f"s{number}-{next(numbers)}")
                    for n in range(clients)
                ]
                gc.collect()
                _say("created")
                continue
            tally = Tally()
            started = time.perf_counter()

            async def client(session: Session, tally: Tally = tally, end: float = started + order) -> None:
                while time.perf_counter() < end:
                    await append_event(peer, service, session, tally)

            await asyncio.gather(*map(client, sessions))
            seconds = time.perf_counter() - started
            _say({"latencies": tally.latencies, "errors": len(tally.errors), "seconds": seconds})


def _say(answer: object) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
