"""A soak: processes at work on one file for as long as one likes, while faults are injected, judged round by round."""

from __future__ import annotations

import asyncio
import errno
import random
import sqlite3
import threading
import time
from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.adk.sessions import Session

from sessiondb import DatabaseSessionService
from sessiondb.errors import SessionDBError, StorageError, WriterStoppedError
from sessiondb.stores.sqlite import wal, writer
from tests.faults.oracle import find_problems
from tests.faults.shim import KILL_AFTER, KILL_BEFORE, KILL_TORN, SYNC, TRUNCATE, WRITE, Shim
from tests.faults.workload import APP, make_event
from tests.faults.zygote import Child, Report, Zygote

PROCESSES, CLIENTS = 2, 6
ROUNDS_PER_FILE = 8

FAULTS = (
    "none",
    "kill -9",
    "kill -9 in a call",
    "I/O error",
    "full disk",
    "failed sync",
    "stalled disk",
    "lock held by another program",
    "other connections opened and closed",
    "cancellations",
)
_NEED_SHIM = {"kill -9 in a call", "I/O error", "full disk", "failed sync", "stalled disk"}


@dataclass
class Outcome:
    """What a soak has seen."""

    operations: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    @property
    def lost(self) -> int:
        """Rounds after which something acknowledged was missing, or anything else was wrong."""
        return len(self.problems)


def soak(zygote: Zygote, folder: Path, seconds: float, rng: random.Random) -> Outcome:
    """Runs rounds of load with one fault each until the time is up, and judges the file after each."""
    outcome = Outcome()
    deadline = time.monotonic() + seconds
    faults = [fault for fault in FAULTS if zygote.has_shim or fault not in _NEED_SHIM]
    number = 0
    path = folder / "soak.sqlite3"
    acknowledged: dict[str, list[str]] = defaultdict(list)
    while time.monotonic() < deadline or number < len(faults):
        if number % ROUNDS_PER_FILE == 0:
            acknowledged.clear()
            path = folder / f"soak{number}.sqlite3"
        fault = faults[number % len(faults)] if number < len(faults) else rng.choice(faults)
        refused = _round(
            zygote,
            path,
            number=number,
            fault=fault,
            rng=rng,
            seconds=min(1.5, 0.3 + seconds / 60),
            acknowledged=acknowledged,
            outcome=outcome,
        )
        outcome.faults[fault] += 1
        outcome.problems += [
            f"round {number} ({fault}): {p}" for p in find_problems(path, acknowledged, absent=refused)
        ]
        number += 1
        if number % ROUNDS_PER_FILE == 0:
            for left in folder.glob(path.name + "*"):
                left.unlink()
    return outcome


def _round(
    zygote: Zygote,
    path: Path,
    *,
    number: int,
    fault: str,
    rng: random.Random,
    seconds: float,
    acknowledged: dict[str, list[str]],
    outcome: Outcome,
) -> list[str]:
    children = [
        zygote.start(
            "tests.faults.soaking:work",
            path=str(path),
            name=f"round{number}-{process}",
            seconds=seconds,
            # The first process has the fault, the others must live beside it.
            fault=fault if process == 0 else "none",
            seed=rng.randrange(2**32),
        )
        for process in range(PROCESSES)
    ]
    killer: threading.Timer | None = None
    if fault == "kill -9":
        killer = threading.Timer(rng.uniform(0.2, 1) * seconds, children[0].kill)
        killer.start()
    refused: list[str] = []
    readers = [threading.Thread(target=_collect, args=(child, acknowledged, refused, outcome)) for child in children]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    if killer is not None:
        killer.join()
    for place, child in enumerate(children):
        status = child.wait()
        if status and not (place == 0 and status == -9 and fault.startswith("kill")):
            outcome.problems.append(f"round {number} ({fault}): a process ended with {status}")
    return refused


def _collect(child: Child, acknowledged: dict[str, list[str]], refused: list[str], outcome: Outcome) -> None:
    try:
        _sort(child, acknowledged, refused, outcome)
    except AssertionError as error:
        outcome.problems.append(str(error))


def _sort(child: Child, acknowledged: dict[str, list[str]], refused: list[str], outcome: Outcome) -> None:
    for kind, *said in child.reports():
        match kind:
            case "acknowledged":
                acknowledged[said[0]] += [said[1]] if said[1] else []
                outcome.operations["append"] += 1
            case "refused":
                refused.append(said[1])
                outcome.errors[said[0]] += 1
            case "unknown":
                outcome.errors[said[0]] += 1
            case _:
                outcome.operations.update(said[0])


def work(report: Report, *, path: str, name: str, seconds: float, fault: str, seed: int) -> None:
    """Clients make random calls; target for a zygote."""
    wal._DUE_BYTES = 128 * 1024
    writer._CHECK_SECONDS = 0
    asyncio.run(_Worker(report, Path(path), name, fault, random.Random(seed)).run(seconds))


class _Worker:
    def __init__(self, report: Report, path: Path, name: str, fault: str, rng: random.Random) -> None:
        self._report = report
        self._path = path
        self._name = name
        self._fault = fault
        self._rng = rng
        self._operations: Counter[str] = Counter()
        self._service = self._open()
        self._reopening = asyncio.Lock()
        self._deadline = 0.0

    def _open(self) -> DatabaseSessionService:
        return DatabaseSessionService(self._path, busy_timeout=5.0)

    async def run(self, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds
        if self._fault in _NEED_SHIM:
            shim = Shim()
            shim.watch(self._path.parent)
            # The connections are opened anew: the shim knows only what is opened under its eyes.
            await self._service.close()
            self._service = self._open()
            self._arm(shim)
        async with asyncio.TaskGroup() as group:
            for number in range(CLIENTS):
                group.create_task(self._client(f"{self._name}-{number}"))
            if self._fault == "other connections opened and closed":
                group.create_task(self._look())
            if self._fault == "lock held by another program":
                group.create_task(self._lock())
        await self._service.close()
        self._report(["operations", self._operations])

    def _arm(self, shim: Shim) -> None:
        nth = self._rng.randrange(1, 150)
        match self._fault:
            case "kill -9 in a call":
                shim.arm(WRITE + SYNC + TRUNCATE, self._rng.choice([KILL_BEFORE, KILL_AFTER, KILL_TORN]), nth=nth)
            case "I/O error":
                shim.arm(WRITE + TRUNCATE, errno.EIO, nth=nth)
            case "full disk":
                shim.arm(WRITE, errno.ENOSPC, nth=nth, times=20)
            case "failed sync":
                shim.arm(SYNC, errno.EIO, nth=nth)
            case "stalled disk":
                shim.hold(SYNC)
                threading.Timer(0.2, shim.release).start()

    async def _client(self, name: str) -> None:
        session = await self._begin(name)
        n = 0
        while time.monotonic() < self._deadline:
            n += 1
            try:
                session = await self._call(session, n)
            except WriterStoppedError:
                session = await self._reopen(session)
            except StorageError as error:
                self._report(["unknown", type(error).__name__])

    async def _begin(self, name: str) -> Session:
        while True:
            try:
                session = await self._service.create_session(app_name=APP, user_id="u", session_id=name)
            except WriterStoppedError:
                await self._reopen(None)
            except StorageError as error:
                self._report(["unknown", type(error).__name__])
            else:
                self._report(["acknowledged", name, ""])
                return session

    async def _call(self, session: Session, n: int) -> Session:
        chance = self._rng.random()
        if chance < 0.7:
            await self._append(session, n)
        elif chance < 0.85:
            read = await self._service.get_session(app_name=APP, user_id="u", session_id=session.id)
            assert read is not None
            assert [event.id for event in read.events][-1:] == [event.id for event in session.events][-1:]
            self._operations["get"] += 1
            return read
        elif chance < 0.9:
            await self._service.list_sessions(app_name=APP, user_id="u")
            self._operations["list"] += 1
        else:
            other = f"{session.id}.short{n}"
            await self._service.create_session(app_name=APP, user_id="u", session_id=other)
            await self._service.delete_session(app_name=APP, user_id="u", session_id=other)
            self._operations["create and delete"] += 1
        return session

    async def _append(self, session: Session, n: int) -> None:
        event = make_event(f"{session.id}/{n}", n)
        call = asyncio.create_task(self._service.append_event(session, event))
        if self._fault == "cancellations":
            asyncio.get_running_loop().call_later(self._rng.random() * 0.01, call.cancel)
        try:
            await call
        except asyncio.CancelledError:
            # Completed all the same: what the live Session says is what is stored.
            if session.events[-1:] == [event]:
                self._report(["acknowledged", session.id, event.id])
            else:
                self._report(["refused", "CancelledError", event.id])
        except WriterStoppedError:
            self._report(["unknown", "WriterStoppedError"])
            raise
        except SessionDBError as error:
            self._report(["refused", type(error).__name__, event.id])
        else:
            self._report(["acknowledged", session.id, event.id])

    async def _reopen(self, session: Session | None) -> Any:
        stopped = self._service
        async with self._reopening:
            if self._service is stopped:
                await stopped.close()
                self._service = self._open()
        if session is None:
            return None
        return await self._service.get_session(app_name=APP, user_id="u", session_id=session.id)

    async def _look(self) -> None:
        while time.monotonic() < self._deadline:
            await asyncio.to_thread(self._look_once)

    def _look_once(self) -> None:
        connection = sqlite3.connect(self._path)
        connection.execute("SELECT count(*) FROM adk_events").fetchone()
        connection.close()

    async def _lock(self) -> None:
        connection = sqlite3.connect(self._path, isolation_level=None)
        for _ in range(3):
            connection.execute("BEGIN IMMEDIATE")
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.Event().wait(), 0.05)
            connection.execute("ROLLBACK")
        connection.close()
