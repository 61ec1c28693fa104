"""Calls that a process is killed in, a row for each: what they do, and how much of it was done.

A client makes one call after the other, each on sessions of its own. Whatever happens to its process, the calls that were
acknowledged are done, and of the one that was under way all is done or nothing. A new call is one more row.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from google.adk.events import Event, EventActions
from google.adk.sessions import Session
from google.genai import types

from sessiondb import DatabaseSessionService, Retention
from sessiondb.errors import SessionDBError
from tests.faults.mutants import MUTANTS, checkpoint_at
from tests.faults.shim import Shim
from tests.faults.zygote import Child, Report, Zygote

APP = "faults"
LIST = 9
"""Events of a list."""
CLIENTS = 3


class Interrupted(NamedTuple):
    """A call, the sessions of the user ``client`` that it is made on, and how far it came.

    Attributes:
        make: Makes the n-th call of a client, from 1.
        done: Says how many calls were carried out, and asserts of each that all of it was.
        prepare: Makes what the calls need.
    """

    make: Callable[[DatabaseSessionService, str, int], Awaitable[object]]
    done: Callable[[DatabaseSessionService, str], Awaitable[int]]
    prepare: Callable[[DatabaseSessionService, str], Awaitable[object]]


def events_of(first: int, count: int) -> list[Event]:
    """Events that count, in state of their session and of their user."""
    return [
        Event(
            id=f"e{n}",
            author="agent",
            invocation_id=f"i{n}",
            timestamp=1_000.0 + n,
            content=types.Content(role="model", parts=[types.Part(text=f"text {n} ".ljust(200, "x"))]),
            actions=EventActions(state_delta={"n": n, f"slot{n % 5}": n, "user:n": n}),
        )
        for n in range(first, first + count)
    ]


def assert_whole(session: Session | None, events: list[Event]) -> None:
    """Raises AssertionError if a session does not hold these events, and the state of their last one."""
    assert session is not None
    assert session.events == events
    state = {key: value for event in events for key, value in event.actions.state_delta.items() if ":" not in key}
    assert {key: value for key, value in session.state.items() if ":" not in key} == state


async def read(service: DatabaseSessionService, client: str, session_id: str) -> Session:
    """Reads a session that is there."""
    session = await service.get_session(APP, client, session_id)
    assert session is not None
    return session


async def _create(service: DatabaseSessionService, client: str) -> object:
    return await service.create_session(APP, client, "s")


async def _append(service: DatabaseSessionService, client: str, n: int) -> object:
    return await service.append_events(await read(service, client, "s"), events_of((n - 1) * LIST, LIST))


async def _appended(service: DatabaseSessionService, client: str) -> int:
    session = await read(service, client, "s")
    assert_whole(session, events_of(0, len(session.events)))
    lists, more = divmod(len(session.events), LIST)
    assert not more
    assert session.state.get("user:n") == (session.state.get("n"))
    return lists


_SOURCE = 40
"""Events of the session that is forked."""


async def _create_source(service: DatabaseSessionService, client: str) -> object:
    session = await service.create_session(APP, client, "s")
    return await service.append_events(session, events_of(0, _SOURCE))


async def _fork(service: DatabaseSessionService, client: str, n: int) -> object:
    # Their lengths differ, and the last one of all comes too.
    last = f"e{(n * 7) % _SOURCE}"
    return await service.fork_session(APP, client, "s", at_event_id=last, new_session_id=f"fork {n}")


async def _forked(service: DatabaseSessionService, client: str) -> int:
    assert_whole(await service.get_session(APP, client, "s"), events_of(0, _SOURCE))
    forks = await service.list_forks(APP, client, "s")
    for n, fork in enumerate(forks, 1):
        assert fork.key == (APP, client, f"fork {n}")
        events = events_of(0, (n * 7) % _SOURCE + 1)
        assert fork.origin.seq == len(events)
        assert_whole(await service.get_session(*fork.key), events)
    assert len((await service.list_sessions(APP, client)).sessions) == 1 + len(forks)
    return len(forks)


_LOG = 10
"""Events of a session that something is taken away from."""
_KEPT = 4
_REDACTED = [f"e{n}" for n in range(0, _LOG, 2)]


async def _add_session(service: DatabaseSessionService, client: str, session_id: str, events: int = _LOG) -> object:
    session = await service.create_session(APP, client, session_id)
    return await service.append_events(session, events_of(0, events))


async def _count(service: DatabaseSessionService, client: str, is_done: Callable[[Session], bool]) -> int:
    """How many of the sessions ``s 1``, ``s 2`` ... something was done with; of the last one it may not have been."""
    sessions = {session.id for session in (await service.list_sessions(APP, client)).sessions} - {"s"}
    numbers = range(1, len(sessions) + 1)
    assert sessions == {f"s {n}" for n in numbers}
    done = [is_done(await read(service, client, f"s {n}")) for n in numbers]
    assert all(done[:-1])
    return sum(done)


async def _truncate(service: DatabaseSessionService, client: str, n: int) -> object:
    await _add_session(service, client, f"s {n}")
    return await service.truncate_session(APP, client, f"s {n}", after_event_id=f"e{_KEPT - 1}")


async def _truncated(service: DatabaseSessionService, client: str) -> int:
    def is_done(session: Session) -> bool:
        assert_whole(session, events_of(0, len(session.events)))
        assert len(session.events) in (0, _KEPT, _LOG)
        return len(session.events) == _KEPT

    return await _count(service, client, is_done)


async def _redact(service: DatabaseSessionService, client: str, n: int) -> object:
    await _add_session(service, client, f"s {n}")
    return await service.redact_events(APP, client, f"s {n}", _REDACTED)


async def _redacted(service: DatabaseSessionService, client: str) -> int:
    def is_done(session: Session) -> bool:
        gone = [event.id for event in session.events if event.content is None]
        assert gone in ([], _REDACTED)
        assert [event.id for event in session.events if event.custom_metadata] == gone
        assert session.state.get("n") == (_LOG - 1 if session.events else None)
        return bool(gone)

    return await _count(service, client, is_done)


async def _prune(service: DatabaseSessionService, client: str, n: int) -> object:
    await _add_session(service, client, f"s {n}")
    return await service.prune(Retention(max_events=_KEPT), app_name=APP, user_id=client)


async def _pruned(service: DatabaseSessionService, client: str) -> int:
    def is_done(session: Session) -> bool:
        events = events_of(0, _LOG)
        assert session.events in ([], events, events[-_KEPT:])
        assert session.state.get("n") == (_LOG - 1 if session.events else None)
        return len(session.events) == _KEPT

    return await _count(service, client, is_done)


_USERS_SESSIONS = [f"of user {n}" for n in range(3)]
_MANY = 220
"""Events of each of these: together more than one step of an erasure."""


async def _erase(service: DatabaseSessionService, client: str, n: int) -> object:
    for session_id in _USERS_SESSIONS:
        await _add_session(service, f"{client} {n}", session_id, _MANY)
    await service.update_keys(APP, client, "s", {"begun": n})
    return await service.erase_user(APP, f"{client} {n}", purge=False)


async def _erased(service: DatabaseSessionService, client: str) -> int:
    begun = (await read(service, client, "s")).state.get("begun", 0)
    for n in range(1, begun + 1):
        left = [session.id for session in (await service.list_sessions(APP, f"{client} {n}")).sessions]
        state = await service.get_user_state(APP, f"{client} {n}")
        # Sessions go one by one, and then the state of the user.
        for session_id in left:
            assert_whole(await service.get_session(APP, f"{client} {n}", session_id), events_of(0, _MANY))
            assert state
        if left or state:
            assert n == begun
            return n - 1
    return int(begun)


CALLS = {
    "append_events": Interrupted(_append, _appended, _create),
    "fork_session": Interrupted(_fork, _forked, _create_source),
    "truncate_session": Interrupted(_truncate, _truncated, _create),
    "redact_events": Interrupted(_redact, _redacted, _create),
    "prune": Interrupted(_prune, _pruned, _create),
    "erase_user": Interrupted(_erase, _erased, _create),
}


def call_until_killed(
    report: Report,
    *,
    location: str,
    call: str,
    run: int,
    kill: tuple[str, int, int] | None = None,
    checkpoint_bytes: int = 1 << 24,
    mutant: str = "",
) -> None:
    """Clients make a call for ever; ``[client, n]`` is reported once the n-th was answered, and with 0 what they need.

    Args:
        location: The path of a file, or the URL of a server, without which the clients wait for their end.
        call: Which row of :data:`CALLS`.
        run: Clients of each run are others.
        kill: As for :func:`tests.faults.programs.write_until_killed`, counted from when the clients begin.
        checkpoint_bytes: As for :func:`tests.faults.mutants.checkpoint_at`.
        mutant: Which break, if any.
    """
    MUTANTS[mutant]()
    checkpoint_at(checkpoint_bytes, cut=run % 2 == 0)
    shim = None if kill is None else Shim()
    if shim is not None:
        shim.watch(Path(location).parent)
    row = CALLS[call]
    names = [f"run{run}-{number}" for number in range(CLIENTS)]

    async def client(service: DatabaseSessionService, name: str) -> None:
        with suppress(*([SessionDBError] if "://" in location else [])):
            for n in itertools.count(1):
                await row.make(service, name, n)
                report([name, n])
        await asyncio.Event().wait()

    async def main() -> None:
        service = DatabaseSessionService(location, index="text")
        await asyncio.gather(*(row.prepare(service, name) for name in names))
        for name in names:
            report([name, 0])
        if shim is not None and kill is not None:
            operations, nth, action = kill
            shim.arm(operations, action, nth=nth)
        await asyncio.gather(*(client(service, name) for name in names))

    asyncio.run(main())


async def _find_problems_of_index(service: DatabaseSessionService) -> list[str]:
    """Says whether a search finds something else than what the logs hold."""
    there: set[tuple[str, str, str]] = set()
    async for session in service.iter_sessions(APP, with_state=False):
        async for event in service.iter_events(APP, session.user_id, session.id, page_size=1_000):
            if event.content is not None:
                there.add((session.user_id, session.id, event.id))
    found: set[tuple[str, str, str]] = set()
    after = None
    while True:
        page = await service.search("text", app_name=APP, limit=1_000, after=after)
        found |= {(hit.user_id, hit.session_id, hit.event_id) for hit in page.hits}
        after = page.next
        if after is None:
            return [f"{each} is in the log or in the index, not in both" for each in list(there ^ found)[:5]]


class Killing:
    """Starts processes and ends them in the middle of calls; notes what was acknowledged."""

    def __init__(self, zygote: Zygote, location: str, call: str, rng: random.Random) -> None:
        self.acknowledged: dict[str, int] = {}
        self.kills = 0
        self._zygote = zygote
        self._location = location
        self._call = call
        self._rng = rng

    def run(
        self,
        end: Callable[[Child], object],
        *,
        kill: tuple[str, int, int] | None = None,
        checkpoint_bytes: int = 1 << 24,
        mutant: str = "",
    ) -> None:
        """Has a process make calls until it is ended.

        Args:
            end: Ends it, at a random moment; not called with ``kill``.
            kill: At which system call it ends itself.
            checkpoint_bytes: See :func:`call_until_killed`.
            mutant: Which break, if any.
        """
        child = self._zygote.start(
            "tests.faults.interrupted:call_until_killed",
            location=self._location,
            call=self._call,
            run=self.kills,
            kill=kill,
            checkpoint_bytes=checkpoint_bytes,
            mutant=mutant,
        )
        self.kills += 1
        last_report = self._rng.randrange(CLIENTS, 10 * CLIENTS)
        for number, (client, n) in enumerate(child.reports()):
            self.acknowledged[client] = n
            if kill is None and number == last_report:
                # The moment lies anywhere between two acknowledgements.
                threading.Event().wait(self._rng.random() * 0.004)
                end(child)
        assert child.wait() == -9

    async def find_problems(self) -> list[str]:
        """Says which calls are half done, or acknowledged and not done."""
        row = CALLS[self._call]
        problems = []
        async with DatabaseSessionService(self._location, index="text") as service:
            problems += await _find_problems_of_index(service)
            for client, acknowledged in self.acknowledged.items():
                try:
                    done = await row.done(service, client)
                except AssertionError as error:
                    problems.append(f"{client}: half done: {error}")
                else:
                    # The next call may have been carried out, and its answer lost.
                    if not acknowledged <= done <= acknowledged + 1:
                        problems.append(f"{client}: {acknowledged} calls acknowledged, {done} done")
        return problems
