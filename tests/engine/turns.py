"""Holding turns, and looking at who waits for one."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import anyio

from sessiondb import DatabaseSessionService
from sessiondb.model.records import SessionKey
from sessiondb.stores.sqlite.turns import SqliteTurnLocks
from tests.engine import processes
from tests.engine.tools import APP, TIMEOUT, USER, engine_of


def waiting(service: DatabaseSessionService) -> int:
    """How many wait for a turn in this process, its fronts not counted."""
    return sum(len(line.waiting) for line in engine_of(service).turns._lines.values())


def taken(service: DatabaseSessionService) -> int:
    """How many sessions have somebody in this process who has their turn or asks for it."""
    return len(engine_of(service).turns._lines)


class Holder:
    """A task that takes the turn of session ``s`` and keeps it until it is told."""

    def __init__(self, service: DatabaseSessionService, log: list[str], name: str, wait: float = TIMEOUT) -> None:
        self.has_it = anyio.Event()
        self.go_on = anyio.Event()
        self._service, self._log, self._name, self._wait = service, log, name, wait

    async def __call__(self) -> None:
        async with self._service.turn(APP, USER, "s", wait=self._wait):
            self._log.append(f"{self._name} in")
            self.has_it.set()
            await self.go_on.wait()
            self._log.append(f"{self._name} out")


@contextmanager
def held_elsewhere(path: Path) -> Iterator[None]:
    """The lock of session ``s`` is held by another open file, as another process has it."""
    with closing(SqliteTurnLocks(path)) as locks:
        assert locks.try_take(SessionKey(APP, USER, "s"))
        yield


@contextmanager
def running(function: Callable[..., None], *args: object) -> Iterator[subprocess.Popen[str]]:
    """A process in which a function runs; it is killed in the end if it still does."""
    with processes.start(function, *args) as process:
        try:
            yield process
        finally:
            process.kill()


def heard(process: subprocess.Popen[str]) -> str:
    """The next line that a process says."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def tell(process: subprocess.Popen[str]) -> None:
    """Has a process go on that listens."""
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
