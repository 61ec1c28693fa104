"""Hosts that share a server: targets for :class:`tests.faults.zygote.Zygote`.

A host goes on whatever it is told: an append whose outcome is unknown is made again, with the same event, and one that was
refused with an event of another id, until it is acknowledged.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from google.adk.events import Event, EventActions
from google.adk.sessions import Session
from google.genai import types

from sessiondb import DatabaseSessionService
from sessiondb.errors import (
    AlreadyExistsError,
    DatabaseBusyError,
    OutcomeUnknownError,
    ReaderTimeoutError,
    ServerUnreachableError,
    StaleSessionError,
    WriteFailedError,
    WritesLostError,
)
from tests.faults.postgres.mutants import MUTANTS
from tests.faults.zygote import Report

ResultT = TypeVar("ResultT")

APP = "faults"
USERS = 3
"""How many users all hosts share."""

SLOTS = 5
"""How many keys of the app, and of each user, everybody writes to."""

HUNG = 60.0
"""No call may take so long, in seconds: all of them have a much shorter ``busy_timeout``."""

REFUSALS = (DatabaseBusyError, ReaderTimeoutError, ServerUnreachableError, WriteFailedError)
"""What says that nothing was written. Readers that wait for a server keep those who come after them waiting."""


def make_event(session_id: str, n: int) -> Event:
    """Returns the n-th event of a session: it counts, and writes to rows of its own and to rows of everybody.

    The keys of an event stand in no order, so that whoever locked rows as they come would wait for each other.
    """
    event_id = f"{session_id}/{n}"
    shared = {f"{scope}slot{(n * step + shift) % SLOTS}": event_id for scope, step, shift in _SHARED}
    if n % 4 == 3:
        shared = dict(reversed(shared.items()))
    return Event(
        id=event_id,
        invocation_id=f"inv-{n}",
        author="user",
        timestamp=1_700_000_000.0 + n,
        content=types.Content(role="user", parts=[types.Part(text=f"{event_id} ".ljust(100, "x"))]),
        actions=EventActions(
            state_delta={
                **shared,
                "count": n + 1,
                "last": event_id,
                f"own{n % 5}": None if n % 3 == 0 else event_id,
                f"user:count {session_id}": n + 1,
                f"app:count {session_id}": n + 1,
            }
        ),
    )


_SHARED = (("user:", 1, 0), ("app:", 2, 1), ("user:", 3, 2), ("app:", 1, 3), ("app:", 3, 0))


class _Host:
    """One process that serves; what it was told."""

    def __init__(self, service: DatabaseSessionService, name: str, stop: str, report: Report) -> None:
        self.told: Counter[str] = Counter()
        # Sessions in which an outcome was unknown, at some time.
        self._doubted: set[str] = set()
        self._service = service
        self._name = name
        self._stop = Path(stop)
        self._report = report

    async def converse(self, number: int, appends: int | None, creates: int) -> None:
        """Appends to a session of its own, and now and then creates another one."""
        user = f"user{number % USERS}"
        session = await self._create(user, f"{self._name}-{number}")
        for n in itertools.count() if appends is None else range(appends):
            if appends is None and self._stop.exists():
                break
            session = await self._append(session, make_event(session.id, n))
            if creates and n % creates == creates - 1:
                await self._create(user, f"{session.id}-brief{n}")

    async def _create(self, user: str, session_id: str) -> Session:
        async def create() -> Session:
            return await self._service.create_session(app_name=APP, user_id=user, session_id=session_id)

        try:
            session = await self._surely(session_id, create)
        except AlreadyExistsError:
            # Of this name there is one creation: an earlier attempt was stored, and that was not known.
            assert session_id in self._doubted, f"{session_id} was created twice"
            session = await self._read(user, session_id)
        self._report([session_id, ""])
        return session

    async def _append(self, session: Session, event: Event) -> Session:
        in_doubt = False
        while True:
            try:
                await _in_time(self._service.append_event(session, event))
            except StaleSessionError:
                # An attempt whose outcome was unknown was stored, and this Session does not hold its event.
                assert session.id in self._doubted, f"{session.id} was written to twice"
                self.told["StaleSessionError"] += 1
                session = await self._read(session.user_id, session.id)
            except OutcomeUnknownError:
                self.told["OutcomeUnknownError"] += 1
                self._doubted.add(session.id)
                in_doubt = True
            except REFUSALS as error:
                self.told[type(error).__name__] += 1
                if not in_doubt:
                    # It is not there, and must not come there later: another one takes its place.
                    self._report({"refused": event.id})
                    event = event.model_copy(update={"id": f"{event.id}+"})
            else:
                self._report([session.id, event.id])
                return session

    async def _read(self, user: str, session_id: str) -> Session:
        async def read() -> Session | None:
            return await self._service.get_session(app_name=APP, user_id=user, session_id=session_id)

        session = await self._surely(session_id, read)
        assert session is not None, f"{session_id}, which was created, is not there"
        return session

    async def _surely(self, session_id: str, call: Callable[[], Awaitable[ResultT]]) -> ResultT:
        """Makes a call until it is answered."""
        while True:
            try:
                return await _in_time(call())
            except (OutcomeUnknownError, *REFUSALS) as error:
                self.told[type(error).__name__] += 1
                if isinstance(error, OutcomeUnknownError):
                    self._doubted.add(session_id)


async def _in_time(call: Awaitable[ResultT]) -> ResultT:
    """Waits for an answer as long as one may take."""
    under_way = asyncio.ensure_future(call)
    done, _ = await asyncio.wait({under_way}, timeout=HUNG)
    assert done, "a call hangs"
    return under_way.result()


def serve(
    report: Report,
    *,
    url: str,
    name: str,
    tasks: int,
    stop: str,
    busy_timeout: float,
    appends: int | None = None,
    creates: int = 8,
    mutant: str = "",
) -> None:
    """Tasks converse until there is a file ``stop``.

    Reports ``[session, event]`` as soon as an append was acknowledged, with event "" for a creation, and
    ``{"refused": event}``; in the end
    ``{"told": kinds, "stats": figures}``, or ``{"lost": message}`` if the service found that the server has lost something.

    Args:
        appends: How many each task makes; None: until it is stopped.
        creates: After how many appends a task creates a session.
    """
    MUTANTS[mutant]()

    async def main() -> None:
        async with _opened(url, busy_timeout) as service:
            host = _Host(service, name, stop, report)
            async with asyncio.TaskGroup() as group:
                for number in range(tasks):
                    group.create_task(host.converse(number, appends, creates))
            stats: dict[str, Any] = dict(service.get_stats())
            report({"told": dict(host.told), "stats": {key: stats[key] for key in ("reconnects", "settled_batches")}})

    try:
        asyncio.run(main())
    except* WritesLostError as error:
        report({"lost": str(error.exceptions[0])})


def _opened(url: str, busy_timeout: float) -> DatabaseSessionService:
    """Returns a service that has reached its server."""
    while True:
        with suppress(OutcomeUnknownError, *REFUSALS):
            return DatabaseSessionService(url, busy_timeout=busy_timeout)


def open_new(report: Report, *, url: str, name: str, go: str) -> None:
    """Opens a database that may have no tables yet, as soon as there is a file ``go``, and creates a session in it."""

    async def main() -> None:
        async with DatabaseSessionService(url) as service:
            await service.create_session(app_name=APP, user_id="u", session_id=name)

    report("ready")
    signal = Path(go)
    while not signal.exists():
        pass
    asyncio.run(main())
    report(name)
