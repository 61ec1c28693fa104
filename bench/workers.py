"""One process for each service, so that none pays for what another keeps in memory or runs in threads.

A worker prepares workloads and runs them round by round as it is told: rounds of all services take turns, and whatever
the machine does meanwhile hits them alike.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import multiprocessing
import sys
import tempfile
import traceback
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self

from bench import server
from bench.services import PEERS, RAW_SERVER, Host
from bench.timing import Sample
from bench.workloads import WORKLOADS, Round
from bench.workloads.seeding import SERVICES


@dataclass(frozen=True)
class Task:
    """One workload on one service.

    Attributes:
        service: A key of ``services.PEERS``, or ``services.RAW``.
        workload: A key of ``workloads.WORKLOADS``.
        sizes: Its arguments.
        label: What distinguishes it in its table from others of the same service.
    """

    service: str
    workload: str
    sizes: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""

    @property
    def name(self) -> str:
        """Its name within its table."""
        return f"{self.service}:{self.label}" if self.label else self.service


class WorkerError(Exception):
    """A workload failed in its process; the message is the traceback there."""


class Worker:
    """A process that runs workloads of one service."""

    def __init__(self, folder: str, host: Host) -> None:
        """Starts the process.

        Args:
            folder: Where it puts its files.
            host: How it is set up.
        """
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, folder, host), daemon=True)
        self._process.start()
        theirs.close()

    def prepare(self, task: Task) -> None:
        """Begins to prepare a workload; :meth:`wait` returns when that is done."""
        self._connection.send(("prepare", task.name, (task.service, task.workload, dict(task.sizes))))

    def run(self, task: Task) -> Sample:
        """Runs one round of what was prepared."""
        self._connection.send(("run", task.name, None))
        return Sample(*self.wait())

    def finish(self, task: Task) -> None:
        """Closes what was prepared."""
        self._connection.send(("finish", task.name, None))
        self.wait()

    def wait(self) -> Any:
        """Waits for the answer to the first request that has none yet, and returns it.

        Raises:
            WorkerError: If it failed.
        """
        kind, value = self._connection.recv()
        if kind == "failed":
            raise WorkerError(value)
        return value

    def close(self) -> None:
        """Ends the process."""
        # A process that has ended already said why to whoever waited for it.
        with suppress(OSError):
            self._connection.send(("end", "", None))
        self._connection.close()
        self._process.join()


class Workers:
    """Workers by service, started when first needed, as the server is; with a temporary folder for all their files."""

    def __init__(self) -> None:
        self._workers: dict[str, Worker] = {}
        self._server = ExitStack()
        self._is_server_started = False
        self._folder = tempfile.TemporaryDirectory(prefix="sessiondb-bench-")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers.values():
            worker.close()
        self._server.close()
        self._folder.cleanup()

    def of(self, task: Task) -> Worker:
        """The worker for a task."""
        worker = self._workers.get(task.service)
        if worker is None:
            if not self._is_server_started and _is_on_server(task.service):
                self._server.enter_context(server.started())
                self._is_server_started = True
            peer = PEERS.get(task.service)
            worker = self._workers[task.service] = Worker(self._folder.name, peer.host if peer else Host())
        return worker

    def measure(self, tasks: Sequence[Task], rounds: int) -> dict[str, list[Sample]]:
        """Runs ``rounds`` rounds of each task, the tasks taking turns; every other time in the opposite order.

        Returns:
            The samples by the tasks' names.

        Raises:
            WorkerError: If a task fails.
        """
        for task in tasks:
            self.of(task).prepare(task)
        for task in tasks:
            self.of(task).wait()
        samples: dict[str, list[Sample]] = {task.name: [] for task in tasks}
        for n in range(rounds):
            for task in tasks if n % 2 == 0 else reversed(tasks):
                samples[task.name].append(self.of(task).run(task))
        for task in tasks:
            self.of(task).finish(task)
        return samples


def _is_on_server(service: str) -> bool:
    return service == RAW_SERVER or (service in SERVICES and SERVICES[service].on_server)


def _serve(connection: Connection, folder: str, host: Host) -> None:
    tempfile.tempdir = folder
    sys.setswitchinterval(host.switch_interval)
    # Peers warn and log about themselves; what is measured is the workload.
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    prepared: dict[str, tuple[AsyncExitStack, Round]] = {}
    with asyncio.Runner(loop_factory=host.loop_factory()) as loop:
        while True:
            order, name, argument = connection.recv()
            answer: Any = None
            try:
                if order == "prepare":
                    stack = AsyncExitStack()
                    prepared[name] = stack, loop.run(_enter(stack, host, *argument))
                elif order == "run":
                    answer = tuple(loop.run(_call(prepared[name][1])))
                elif order == "finish":
                    loop.run(prepared.pop(name)[0].aclose())
                    gc.unfreeze()
                else:
                    return
            except Exception:  # noqa: BLE001  # the parent raises it
                connection.send(("failed", traceback.format_exc()))
            else:
                connection.send(("done", answer))


async def _enter(stack: AsyncExitStack, host: Host, service: str, workload: str, sizes: dict[str, Any]) -> Round:
    run = await stack.enter_async_context(WORKLOADS[workload](service, **sizes))
    # Mostly, what was prepared stays out of the collector's way, for every service alike.
    host.set_collector()
    return run


async def _call(run: Round) -> Sample:
    return await run()
