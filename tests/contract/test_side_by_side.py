"""Calls that read while another service, on a thread of its own, writes: what they give is whole, and of one order."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from google.adk.sessions import Session

from sessiondb import DatabaseSessionService
from tests.contract.places import APP, SESSION, USER, event

pytestmark = [pytest.mark.anyio, pytest.mark.each_store]

STILL = [f"still {n:02}" for n in range(12)]
"""Sessions that nobody writes to once they are there."""

Step = Callable[[DatabaseSessionService, int], Awaitable[object]]


class Others:
    """A service of somebody else that does one step after the other, on a thread, until it is told to stop."""

    def __init__(self, location: Path | str, step: Step) -> None:
        self.steps = 0
        self._location = location
        self._step = step
        self._stop = False
        self._failure: BaseException | None = None
        self._moved = threading.Condition()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        async def main() -> None:
            async with DatabaseSessionService(self._location) as service:
                while not self._stop:
                    await self._step(service, self.steps)
                    with self._moved:
                        self.steps += 1
                        self._moved.notify_all()

        try:
            asyncio.run(main())
        except BaseException as failure:  # noqa: BLE001  # raised where the end is waited for
            self._failure = failure
            with self._moved:
                self._stop = True
                self._moved.notify_all()

    async def have_done(self, steps: int) -> None:
        """Waits until there are so many more steps."""

        def wait() -> None:
            with self._moved:
                goal = self.steps + steps
                assert self._moved.wait_for(lambda: self.steps >= goal or self._stop, 60)

        await asyncio.to_thread(wait)

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """They work for as long as this lasts."""
        self._thread.start()
        try:
            await self.have_done(1)
            yield
        finally:
            self._stop = True
            await asyncio.to_thread(self._thread.join)
        if self._failure is not None:
            raise self._failure


async def create_still(service: DatabaseSessionService) -> None:
    """Sessions whose places are among those of the others, which are written to."""
    for n, name in enumerate(STILL):
        session = await service.create_session(APP, USER, name, {"own": n})
        await service.append_event(session, event(1_000.0 + 2 * n))


async def come_and_go(service: DatabaseSessionService, step: int) -> None:
    """Creates a session, or writes to it, or deletes it, before, between and behind those that are still."""
    name = f"moving {step % 5}"
    session = await service.get_session(APP, USER, name)
    if session is None:
        await service.create_session(APP, USER, name, {"own": -1})
    elif step % 3:
        await service.append_event(session, event(999.0 + step % 40))
    else:
        await service.delete_session(APP, USER, name)


async def test_session_that_nobody_writes_to_is_seen_once_while_others_come_and_go(
    service: DatabaseSessionService, location: Path | str
) -> None:
    await create_still(service)
    others = Others(location, come_and_go)
    async with others.at_work():
        for turn in range(12):
            newest_first = turn % 2 == 1
            seen: list[str] = []
            async for session in service.iter_sessions(APP, USER, page_size=1 + turn % 3, newest_first=newest_first):
                if session.id in STILL:
                    assert session.state == {"own": STILL.index(session.id)}
                    seen.append(session.id)
                if len(seen) % 5 == 1:
                    await others.have_done(1)
            assert seen == STILL[:: -1 if newest_first else 1]


async def add_to_log(service: DatabaseSessionService, step: int) -> None:
    """Appends one event or several, which count."""
    session = await service.get_session(APP, USER, SESSION)
    assert session is not None
    first = len(session.events)
    count = 1 + step % 4
    await service.append_events(
        session, [event(1_000.0 - n, event_id=f"e{n}", n=n) for n in range(first, first + count)]
    )


async def test_iteration_over_a_growing_log_has_no_gap_and_nothing_twice(
    service: DatabaseSessionService, location: Path | str
) -> None:
    await service.create_session(APP, USER, SESSION)
    others = Others(location, add_to_log)
    async with others.at_work():
        for turn in range(4):
            numbers = [
                one.actions.state_delta["n"] async for one in service.iter_events(APP, USER, SESSION, page_size=5)
            ]
            assert numbers == list(range(len(numbers)))
            seen = []
            async for one in service.iter_events(APP, USER, SESSION, page_size=1 + turn % 3, newest_first=True):
                seen.append(one.actions.state_delta["n"])
                if len(seen) == 2:
                    await others.have_done(1)
            # From where the log ended when it began, back to its begin.
            assert seen == list(range(len(seen)))[::-1]
            assert len(seen) >= len(numbers)


async def test_forks_beside_appends_are_a_moment_of_the_log(
    service: DatabaseSessionService, location: Path | str
) -> None:
    await service.create_session(APP, USER, SESSION)
    others = Others(location, add_to_log)

    def check(fork: Session, last: int | None = None) -> int:
        numbers = [one.actions.state_delta["n"] for one in fork.events]
        assert numbers == list(range(len(numbers)))
        assert fork.state == ({"n": len(numbers) - 1} if numbers else {})
        assert last is None or numbers[-1] == last
        return len(numbers)

    async with others.at_work():
        length = 0
        for _ in range(10):
            fork = await service.fork_session(APP, USER, SESSION)
            assert check(fork) >= length
            length = len(fork.events)
            early = await service.fork_session(APP, USER, SESSION, at_event_id="e0")
            check(early, 0)
            # It goes on by itself, in the same batches as the others' appends.
            await asyncio.gather(
                service.append_event(fork, event(event_id="own", n=length)), service.fork_session(APP, USER, fork.id)
            )
            assert check(fork) == length + 1
            past = await service.get_session_at(APP, USER, SESSION, seq=length)
            assert past is not None
            assert check(past) == length
    forks = await service.list_forks(APP, USER, SESSION)
    assert [fork.origin.seq for fork in forks[1::2]] == [1] * 10
