"""Processes that share one file: targets for :class:`tests.faults.zygote.Zygote`."""

from __future__ import annotations

import asyncio
import itertools
import os
import sqlite3
import threading
import time
from collections import Counter
from hashlib import blake2b
from pathlib import Path

from google.adk.events import Event, EventActions
from google.adk.sessions import Session
from google.genai import types

from sessiondb import DatabaseSessionService
from sessiondb.errors import StaleSessionError
from tests.engine.tools import sqlite_writer, writer_at_rest
from tests.faults.mutants import MUTANTS, checkpoint_at
from tests.faults.shim import Shim
from tests.faults.workload import APP, converse, make_event, many_clients
from tests.faults.zygote import Report

SHARED = "shared"
CHECKPOINT_LOCK = 121
"""First byte of SQLite's lock, in the -shm file."""


def share(
    report: Report,
    *,
    path: str,
    name: str,
    tasks: int,
    appends: int | None,
    seconds: float = 0.0,
    checkpoint_bytes: int = 1 << 24,
    log: str | None = None,
    mutant: str = "",
) -> None:
    """Tasks converse in sessions of their own and in one that all processes share; some read that one meanwhile.

    Reports ``["own", session, events]`` and ``["shared", task, events]`` for what was acknowledged, and
    ``["read", events]`` for what reads of the shared session gave.

    Args:
        appends: How many each task makes; None: as many as there is time for.
        seconds: How long that is.
        log: Where the shim records, if it is to.
    """
    MUTANTS[mutant]()
    checkpoint_at(checkpoint_bytes)
    if log is not None:
        Shim().watch(Path(path).parent, Path(log))
    deadline = time.monotonic() + seconds

    async def main() -> None:
        async with DatabaseSessionService(path, on_stale="append") as service:
            await asyncio.gather(*(task(service, number) for number in range(tasks)))

    async def task(service: DatabaseSessionService, number: int) -> None:
        own: list[str] = []
        shared: list[str] = []
        last_read: list[str] = []
        session = await service.create_session(app_name=APP, user_id=f"user{number}", session_id=f"{name}-{number}")
        everybodys = await service.get_session(app_name=APP, user_id="everybody", session_id=SHARED)
        assert everybodys is not None
        for n in itertools.count() if appends is None else range(appends):
            if appends is None and time.monotonic() >= deadline:
                break
            event = make_event(f"{session.id}/{n}", n)
            await service.append_event(session, event)
            own.append(event.id)
            if n % 4 == 0:
                event = make_event(f"{SHARED}/{session.id}/{n}", n)
                await service.append_event(everybodys, event)
                shared.append(event.id)
            if n % 16 == 0:
                read = await service.get_session(app_name=APP, user_id="everybody", session_id=SHARED)
                assert read is not None
                events = [event.id for event in read.events]
                assert events[: len(last_read)] == last_read, "a read went back"
                assert not set(shared) - set(events), "an own write was not read"
                last_read = events
        for start in range(0, len(own), 500):
            report(["own", session.id, own[start : start + 500]])
        for start in range(0, len(shared), 500):
            report(["shared", session.id, shared[start : start + 500]])
        report(["read", len(last_read), last_read[-1:]])

    asyncio.run(main())


class _Mixer:
    """Tasks of one process; what they were told."""

    def __init__(self, service: DatabaseSessionService, name: str, seconds: float, report: Report) -> None:
        self.told: Counter[str] = Counter()
        self.counted = 0
        self._service = service
        self._name = name
        self._deadline = time.monotonic() + seconds
        self._report = report

    async def run(self, number: int) -> None:
        user = f"user{number}"
        own = await self._service.create_session(app_name=APP, user_id=user, session_id=f"{self._name}-{number}")
        brief = f"{own.id}-brief"
        events: list[str] = []
        for n in itertools.count():
            if time.monotonic() >= self._deadline:
                break
            event = make_event(f"{own.id}/{n}", n)
            await self._service.append_event(own, event)
            events.append(event.id)
            match n % 6:
                case 1:
                    await self._service.update_keys(APP, user, own.id, {"noted": n, "user:noted": n})
                case 2:
                    await self._come_and_go(user, brief, f"{brief}/{n}")
                case 3:
                    await self._count(f"{SHARED}/{own.id}/{n}")
                case 4:
                    read = await self._get(user, own.id)
                    assert [each.id for each in read.events if "/" in each.id] == events
                    assert read.state["last"] == event.id
        for start in range(0, len(events), 500):
            self._report(["own", own.id, events[start : start + 500]])
        self._report(["gone", brief])

    async def _come_and_go(self, user: str, session_id: str, event_id: str) -> None:
        """A session that comes, is written to, and goes; under a name that comes again."""
        session = await self._service.create_session(app_name=APP, user_id=user, session_id=session_id)
        await self._service.append_event(session, plain_event(event_id, {"n": 1}))
        assert [each.id for each in (await self._get(user, session_id)).events] == [event_id]
        await self._service.delete_session(app_name=APP, user_id=user, session_id=session_id)
        assert await self._service.get_session(app_name=APP, user_id=user, session_id=session_id) is None

    async def _count(self, event_id: str) -> None:
        """Reads the counter and writes it one higher, again and again until nobody was faster."""
        for attempt in itertools.count():
            session = await self._get("everybody", SHARED)
            value = session.state.get("count", 0) + 1
            try:
                await self._service.append_event(session, plain_event(f"{event_id}/{attempt}", {"count": value}))
            except StaleSessionError:
                self.told["StaleSessionError"] += 1
            else:
                self.counted += 1
                return

    async def wait_for(self, names: list[str]) -> None:
        """Waits until the processes of these names have all come here."""
        await self._service.update_keys(APP, "everybody", SHARED, {f"user:{self._name} is done": True})
        while True:
            done = await self._service.get_user_state(app_name=APP, user_id="everybody")
            if all(f"{name} is done" in done for name in names):
                return
            await asyncio.sleep(0.01)

    async def digest(self) -> str:
        """Reads everything."""
        digest = blake2b()
        for session in (await self._service.list_sessions(app_name=APP)).sessions:
            digest.update((await self._get(session.user_id, session.id)).model_dump_json().encode())
        return digest.hexdigest()

    async def _get(self, user: str, session_id: str) -> Session:
        read = await self._service.get_session(app_name=APP, user_id=user, session_id=session_id)
        assert read is not None
        return read


def mix(report: Report, *, path: str, name: str, names: list[str], tasks: int, seconds: float) -> None:
    """Tasks append, update, create, delete and read, in sessions of their own and in one that all processes count in.

    When the processes named ``names`` have all come to their end, everything is read through the service that was used
    until then. Reports ``["own", session, events]`` and ``["gone", session]`` for what was acknowledged,
    ``["counted", number]`` for increments of the shared counter, ``["told", kinds]`` for the errors that a caller has to
    deal with, and ``["read", digest]``.
    """

    async def main() -> None:
        async with DatabaseSessionService(path) as service:
            mixer = _Mixer(service, name, seconds, report)
            await asyncio.gather(*map(mixer.run, range(tasks)))
            await mixer.wait_for(names)
            report(["read", await mixer.digest()])
            report(["counted", mixer.counted])
            report(["told", dict(mixer.told)])
            assert service.get_stats()["failed_batches"] == 0

    asyncio.run(main())


def plain_event(event_id: str, delta: dict[str, int]) -> Event:
    """Returns an event that changes the state of its own session only."""
    content = types.Content(role="user", parts=[types.Part(text=f"{event_id} ")])
    return Event(
        id=event_id, invocation_id="i", author="user", content=content, actions=EventActions(state_delta=dict(delta))
    )


def checkpoint_when_told(report: Report, *, path: str, orders: str, mutant: str) -> None:
    """Checkpoints as a writer does, between batches, each time that a line comes through the pipe ``orders``.

    After ``stop`` the checkpoint stops once it has the checkpoint lock; ``passive`` is one of somebody else's kind.
    """
    MUTANTS[mutant]()
    shim = Shim()
    shim.watch(Path(path).parent)
    service = DatabaseSessionService(path)
    writer = sqlite_writer(service)
    report("ready")
    with open(orders) as lines, writer_at_rest(service) as connection:  # noqa: PTH123  # a pipe
        for order in lines:
            if order == "passive\n":
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            else:
                shim.stop_at_lock(CHECKPOINT_LOCK)
                writer._wal.checkpoint()
            report("done")


def hold_lock(report: Report, *, path: str) -> None:
    """Another program takes the write lock, and keeps it for as long as it lives."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    report("locked")
    threading.Event().wait()


def fork_workers(report: Report, *, path: str, workers: int, appends: int) -> None:
    """A server opens the file, is in the middle of writing, and forks its workers; all of them go on.

    Reports ``[session, events]`` for what was acknowledged to anybody.
    """
    service = DatabaseSessionService(path)
    forked = threading.Event()
    writing = threading.Event()

    async def warm_up() -> None:
        # Libraries import and build what they need when it is first used, under locks that a fork would copy.
        async with DatabaseSessionService(path + ".warm") as other:
            await many_clients(other, ["warm"], 1, lambda *_: None)
            await other.get_session(app_name=APP, user_id="user0", session_id="warm")

    asyncio.run(warm_up())

    def acknowledge_to(acknowledged: dict[str, list[str]], session: str, event: str) -> None:
        acknowledged.setdefault(session, []).extend([event] if event else [])

    async def serve(names: list[str], *, until_forked: bool) -> None:
        acknowledged: dict[str, list[str]] = {}
        await many_clients(service, names, appends, lambda *said: acknowledge_to(acknowledged, *said))
        if until_forked:
            writing.set()
            session: Session | None = None
            first = appends
            while not forked.is_set():
                session = await service.get_session(app_name=APP, user_id="user0", session_id=names[0])
                assert session is not None
                await converse(service, session, 1, lambda *said: acknowledge_to(acknowledged, *said), first=first)
                first += 1
        for session_id, events in acknowledged.items():
            for start in range(0, max(len(events), 1), 50):
                report([session_id, events[start : start + 50]])

    thread = threading.Thread(target=lambda: asyncio.run(serve(["parent-0", "parent-1"], until_forked=True)))
    thread.start()
    writing.wait()
    children = []
    for number in range(workers):
        pid = os.fork()
        if pid == 0:
            asyncio.run(serve([f"worker{number}-{client}" for client in range(4)], until_forked=False))
            asyncio.run(service.close())
            os._exit(0)
        children.append(pid)
    statuses = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    forked.set()
    thread.join()
    asyncio.run(service.close())
    assert statuses == [0] * workers


def open_new(report: Report, *, path: str, name: str) -> None:
    """Opens a file that may not be there yet, and creates a session in it."""

    async def main() -> None:
        async with DatabaseSessionService(path) as service:
            await service.create_session(app_name=APP, user_id="u", session_id=name)

    asyncio.run(main())
    report(name)
