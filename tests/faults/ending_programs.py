"""Processes that end in many ways, and one whose disk stands still: targets for a zygote."""

from __future__ import annotations

import asyncio
import atexit
import os
import resource
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from sessiondb import DatabaseSessionService
from sessiondb.errors import QueueFullError, StorageError
from tests.engine.exit_programs import start_daemon
from tests.faults.shim import SYNC, Shim
from tests.faults.workload import APP, make_event
from tests.faults.zygote import Report

CLIENTS = 16


class _Load:
    """Clients that append for ever, until they are told that it is over."""

    def __init__(self, report: Report, service: DatabaseSessionService, enough: int) -> None:
        self.service = service
        self.enough = asyncio.Event()
        self._report = report
        self._left = enough

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(CLIENTS):
                group.create_task(self._converse(f"s{number}"))

    async def _converse(self, name: str) -> None:
        try:
            session = await self.service.create_session(app_name=APP, user_id="u", session_id=name)
        except StorageError:
            return
        self._report(["acknowledged", name, ""])
        n = 0
        while True:
            event = make_event(f"{name}/{n}", n)
            try:
                await self.service.append_event(session, event)
            except StorageError as error:
                self._report(["refused", type(error).__name__, event.id])
                return
            self._report(["acknowledged", name, event.id])
            n += 1
            self._left -= 1
            if self._left == 0:
                self.enough.set()


async def _close_under_load(load: _Load) -> None:
    task = asyncio.create_task(load.run())
    await load.enough.wait()
    await load.service.close()
    await task


async def _close_twice(load: _Load) -> None:
    task = asyncio.create_task(load.run())
    await load.enough.wait()
    await asyncio.gather(load.service.close(), load.service.close())
    await load.service.close()
    await task


async def _close_from_another_loop(load: _Load) -> None:
    task = asyncio.create_task(load.run())
    await load.enough.wait()
    await asyncio.to_thread(lambda: asyncio.run(load.service.close()))
    await task


async def _leave_unclosed(load: _Load) -> None:
    # The loop cancels the clients when this returns.
    task = asyncio.create_task(load.run())
    await load.enough.wait()
    assert not task.done()


async def _close_at_exit(load: _Load) -> None:
    atexit.register(lambda: asyncio.run(load.service.close()))
    await _leave_unclosed(load)


async def _fork_and_close_in_child(load: _Load) -> None:
    task = asyncio.create_task(load.run())
    await load.enough.wait()
    pid = os.fork()
    if pid == 0:
        # A thread of its own: this one's loop belongs to the parent.
        thread = threading.Thread(target=lambda: asyncio.run(load.service.close()))
        thread.start()
        thread.join()
        os._exit(0)
    _, status = await asyncio.to_thread(os.waitpid, pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    await load.service.flush()
    await load.service.close()
    await task


def _run_in_dying_loop(load: _Load) -> None:
    loop = asyncio.new_event_loop()
    task = loop.create_task(load.run())
    loop.run_until_complete(load.enough.wait())
    # Closed in mid-append; what the clients wait for comes to nobody. asyncio would complain of the pending tasks.
    loop.set_exception_handler(lambda *_: None)
    loop.close()
    assert not task.done()


def _exit_with_writes_queued(load: _Load) -> None:
    async def main() -> None:
        task = asyncio.create_task(load.run())
        await load.enough.wait()
        enough.set()
        await task

    enough = threading.Event()
    start_daemon(asyncio.run, main())
    enough.wait()


WITH_A_THREAD_OF_ITS_OWN = "exit with writes queued"
_ASYNC = {
    "close under load": _close_under_load,
    "close twice": _close_twice,
    "close from another loop": _close_from_another_loop,
    "leave unclosed": _leave_unclosed,
    "close at exit": _close_at_exit,
    "fork and close in the child": _fork_and_close_in_child,
}
_PLAIN: dict[str, Callable[[_Load], None]] = {
    "close the loop in mid-append": _run_in_dying_loop,
    WITH_A_THREAD_OF_ITS_OWN: _exit_with_writes_queued,
}
WAYS = (*_ASYNC, *_PLAIN)


def end(report: Report, *, path: str, way: str, enough: int, stderr: str) -> None:
    """Ends under load, one way or another, after ``enough`` acknowledgements; complaints go to the file ``stderr``."""
    os.dup2(os.open(stderr, os.O_CREAT | os.O_WRONLY, 0o600), 2)
    load = _Load(report, DatabaseSessionService(path), enough)
    if way in _ASYNC:
        asyncio.run(_ASYNC[way](load))
    else:
        _PLAIN[way](load)


def overload(report: Report, *, path: str, appends: int) -> None:
    """Far more appends than the queue takes come while the disk stands still; then it goes on."""
    shim = Shim()
    shim.watch(Path(path).parent)

    async def main() -> None:
        async with DatabaseSessionService(path, max_queue=500, busy_timeout=1.0) as service:
            names = [f"s{number}" for number in range(50)]
            sessions = [await service.create_session(app_name=APP, user_id="u", session_id=name) for name in names]
            outcomes: Counter[str] = Counter()
            acknowledged: list[str] = []
            refused: list[str] = []
            full = asyncio.Event()

            async def append(number: int, round_: str) -> None:
                event = make_event(f"{round_}/{number}", number)
                try:
                    await service.append_event(sessions[number % len(sessions)], event)
                except QueueFullError:
                    refused.append(event.id)
                    outcomes["QueueFullError"] += 1
                    full.set()
                else:
                    acknowledged.append(event.id)
                    outcomes["ok"] += 1

            async def storm(round_: str, many: int) -> list[asyncio.Task[None]]:
                return [asyncio.create_task(append(number, round_)) for number in range(many)]

            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            shim.hold(SYNC)
            tasks = await storm("held", appends)
            # Some have been told by now that the queue is full; the disk stands still until they have.
            await full.wait()
            pending = service.get_stats()["pending_writes"]
            shim.release()
            await asyncio.gather(*tasks)
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            held = dict(outcomes)
            outcomes.clear()
            for round_ in range(4):
                await asyncio.gather(*await storm(f"after{round_}", 400))
            report(
                {
                    "held": held,
                    "after": dict(outcomes),
                    "pending": pending,
                    "pending_after": service.get_stats()["pending_writes"],
                    "grown_kb": grown,
                    "acknowledged": len(acknowledged),
                    "refused": refused[:2000],
                }
            )

    asyncio.run(main())
