"""Processes that end without closing; each function is the whole of a process."""

from __future__ import annotations

import asyncio
import atexit
import gc
import os
import threading
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from sessiondb import DatabaseSessionService
from tests.engine.processes import say
from tests.engine.tools import (
    TIMEOUT,
    create,
    engine_of,
    event,
    get,
    happened,
    pending,
    until,
    waits_for_lock,
    writer_stopped,
)


def start_daemon(target: Callable[..., object], *arguments: object) -> None:
    """Start a daemon thread that says nothing if it fails, as it does if its service is closed at the exit.

    An interpreter on its way out aborts if such a thread is writing to ``sys.stderr``, whose lock it wants.
    """
    threading.excepthook = lambda _: None
    threading.Thread(target=target, args=arguments, daemon=True).start()


def leave_without_closing(path: str) -> None:
    """Acknowledge some appends, then end as a program ends that knows nothing of ``close``."""
    service = DatabaseSessionService(path)

    async def converse() -> None:
        session = await create(service)
        for number in range(50):
            await service.append_event(session, event(f"{number}"))
            say(number)

    asyncio.run(converse())


def leave_from_a_thread(path: str) -> None:
    """The same, with a loop in a daemon thread that is writing when the program ends."""
    service = DatabaseSessionService(path)
    underway = threading.Event()

    async def converse() -> None:
        session = await create(service)
        for number in range(10**9):
            await service.append_event(session, event(f"{number}"))
            os.write(1, f"{number}\n".encode())
            if number == 50:
                underway.set()

    start_daemon(asyncio.run, converse())
    assert underway.wait(TIMEOUT)


def leave_with_writes_queued(path: str) -> None:
    """Leave appends in the queue and their tasks in a loop that will never run again."""
    service = DatabaseSessionService(path, max_batch=16)
    loop = asyncio.new_event_loop()

    async def queue() -> list[asyncio.Task[Any]]:
        sessions = [await create(service, f"s{number}") for number in range(200)]
        gate = stack.enter_context(writer_stopped(service))
        tasks = [asyncio.ensure_future(service.append_event(session, event())) for session in sessions]
        await happened(gate.reached)
        return tasks

    stack = ExitStack()
    tasks = loop.run_until_complete(queue())
    assert not any(task.done() for task in tasks)
    for task in tasks:
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # it is meant to be so
    # The writer goes on while the interpreter is on its way out.
    stack.close()
    say("leaving")


def leave_while_a_dropped_service_is_closed(_path: str) -> None:
    """Drop a service that was never closed, and end before the thread that closes it has begun."""
    service = DatabaseSessionService(":memory:")
    engine = engine_of(service)
    say(str(Path(engine.store.name).parent))
    closing = engine._closing
    closing.acquire()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        del service
        gc.collect()
    # Called before those that were registered earlier.
    atexit.register(closing.release)


def leave_while_another_program_holds_the_lock(path: str) -> None:
    """The writer cannot begin, and a thread waits for it."""
    service = DatabaseSessionService(path, busy_timeout=1000)
    session = asyncio.run(get(service, "s"))

    async def append() -> None:
        await service.append_event(session, event("never"))

    start_daemon(asyncio.run, append())
    asyncio.run(until(lambda: waits_for_lock(service)))
    start_daemon(service.vacuum)
    asyncio.run(until(lambda: pending(service) == 1))
    say("leaving")
