"""Processes that fork; each public function is the whole of one."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
from google.adk.sessions import Session

from sessiondb import DatabaseSessionService
from sessiondb.errors import ServiceClosedError
from sessiondb.model.commands import Flush
from tests.engine.processes import say
from tests.engine.tools import (
    APP,
    TIMEOUT,
    USER,
    create,
    engine_of,
    event,
    get,
    happened,
    refuses,
    until,
    writer_stopped,
)


def in_child(work: Callable[[], None]) -> int:
    """Fork; run ``work`` in the child and return the child's process id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        # A child that waits for a lock which only the parent could give back must not wait for ever.
        signal.alarm(int(TIMEOUT))
        work()
        code = 0
    finally:
        os._exit(code)


def reap(pid: int) -> None:
    _, status = os.waitpid(pid, 0)
    assert status == 0, f"the child ended with {status}"


async def _append(service: DatabaseSessionService, session: Session, text: str, count: int) -> None:
    for number in range(count):
        await service.append_event(session, event(f"{text} {number}"))


def fork_while_writing(path: str) -> None:
    """Fork several times while a thread writes; each child writes by itself."""
    service = DatabaseSessionService(path, on_stale="append")
    stop = threading.Event()
    acknowledged: list[int] = []
    failures: list[BaseException] = []
    session = asyncio.run(create(service, "parent"))

    def write() -> None:
        async def loop() -> None:
            while not stop.is_set():
                await service.append_event(session, event(f"{len(acknowledged)}"))
                acknowledged.append(1)
                assert len((await get(service, "parent")).events) >= len(acknowledged)

        try:
            anyio.run(loop)
        except BaseException as error:  # noqa: BLE001  # raised below
            failures.append(error)

    def child(number: int) -> None:
        async def converse() -> None:
            parents = await get(service, "parent")
            assert len(parents.events) > 0
            await _append(service, await create(service, f"child-{number}"), "child", 20)
            await _append(service, parents, f"child-{number}", 5)
            assert service.get_event_count(APP, USER, f"child-{number}") == 20
            await service.close()

        asyncio.run(converse())

    thread = threading.Thread(target=write)
    thread.start()
    children = []
    for number in range(5):
        before = len(acknowledged)
        asyncio.run(until(lambda before=before: len(acknowledged) > before or bool(failures)))  # type: ignore[misc]
        children.append(in_child(lambda number=number: child(number)))  # type: ignore[misc]
    for pid in children:
        reap(pid)
    stop.set()
    thread.join()
    assert failures == []
    say(len(acknowledged))
    asyncio.run(service.close())


def fork_with_calls_waiting(path: str) -> None:
    """Fork while an append is queued, a read waits, and this loop waits for both."""
    service = DatabaseSessionService(path, readers=1, log_cache="off")

    async def main() -> None:
        session = await create(service)
        with writer_stopped(service) as gate:
            append = asyncio.ensure_future(service.append_event(session, event("first")))
            await happened(gate.reached)
            queued = asyncio.ensure_future(service.update_keys(APP, USER, "s", {"k": 1}))
            await asyncio.to_thread(lambda: None)
            # The fork waits for the batch under way; the gate opens beside it.
            opener = threading.Timer(0, gate.open)
            opener.start()
            pid = in_child(child)
            opener.join()
        await append
        await queued
        assert len(session.events) == 1
        reap(pid)
        found = await get(service, "s")
        assert found.state == {"k": 1}
        assert len(found.events) == 3
        await service.close()

    def child() -> None:
        async def converse() -> None:
            await service.update_keys(APP, USER, "s", {"child": None})
            await service.close()

        # The loop of the parent is not this process's.
        asyncio.events._set_running_loop(None)
        asyncio.run(converse())

    asyncio.run(main())
    say("done")


def fork_with_multiprocessing(path: str) -> None:
    """The ``fork`` context, with a service that is open and one that is closed."""
    service = DatabaseSessionService(path, on_stale="append")
    asyncio.run(create(service, "shared"))
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_worker, args=(service, number)) for number in range(2)]
    for process in processes:
        process.start()
    asyncio.run(_append_to(service, "shared", "parent", 20))
    for process in processes:
        process.join(TIMEOUT)
        assert process.exitcode == 0
    say(service.get_event_count(APP, USER, "shared"))
    asyncio.run(service.close())
    closed = context.Process(target=_refused, args=(service,))
    closed.start()
    closed.join(TIMEOUT)
    assert closed.exitcode == 0


def _worker(service: DatabaseSessionService, number: int) -> None:
    signal.alarm(int(TIMEOUT))
    asyncio.run(_append_to(service, "shared", f"worker {number}", 20))


def _refused(service: DatabaseSessionService) -> None:
    try:
        service.get_stats()
    except ServiceClosedError:
        return
    raise AssertionError("a closed service works in a child")


async def _append_to(service: DatabaseSessionService, session_id: str, text: str, count: int) -> None:
    session = await get(service, session_id)
    await _append(service, session, text, count)


def prefork(path: str) -> None:
    """A server that opens its service, then forks four workers and goes on itself."""
    service = DatabaseSessionService(path, on_stale="append")
    asyncio.run(create(service, "shared"))

    def worker(number: int) -> None:
        async def converse() -> None:
            async with anyio.create_task_group() as group:
                for task in range(4):
                    session = await create(service, f"{number}-{task}")
                    group.start_soon(_append, service, session, "own", 10)
                    group.start_soon(_append_to, service, "shared", f"{number}-{task}", 5)

        # Nobody closes, as in a server that is stopped.
        asyncio.run(converse())

    children = [in_child(lambda number=number: worker(number)) for number in range(4)]  # type: ignore[misc]
    asyncio.run(_append_to(service, "shared", "parent", 5))
    for pid in children:
        reap(pid)
    stats = service.get_stats()
    say(stats["sessions"], stats["events"], service.get_event_count(APP, USER, "shared"))
    asyncio.run(service.close())


def fork_while_a_lock_is_held(path: str) -> None:
    """Other threads hold the service's own small locks in the moment of the fork."""
    service = DatabaseSessionService(path)
    session = asyncio.run(create(service))
    for lock in (service._logs.cache._lock, service._shared.handles._lock):  # type: ignore[union-attr]  # there is a cache
        held, release = threading.Event(), threading.Event()

        def hold(lock: Any = lock, held: threading.Event = held, release: threading.Event = release) -> None:
            with lock:
                held.set()
                release.wait(TIMEOUT)

        holder = threading.Thread(target=hold)
        holder.start()
        assert held.wait(TIMEOUT)

        def child() -> None:
            async def converse() -> None:
                await _append(service, await get(service, "s"), "child", 1)

            asyncio.run(converse())

        pid = in_child(child)
        release.set()
        holder.join()
        reap(pid)
    say(service.get_event_count(APP, USER, "s"))
    del session
    asyncio.run(service.close())


def fork_while_closing(path: str) -> None:
    """Fork in the middle of a close; the child opens the file anew and writes before and after the close has ended."""
    service = DatabaseSessionService(path)
    session = asyncio.run(create(service))
    child_wrote, parent_closed = os.pipe(), os.pipe()

    def child() -> None:
        async def converse() -> None:
            async with DatabaseSessionService(path) as own:
                conversation = await create(own, "child")
                await _append(own, conversation, "before", 10)
                os.write(child_wrote[1], b".")
                os.read(parent_closed[0], 1)
                await _append(own, conversation, "after", 10)

        asyncio.run(converse())

    with writer_stopped(service) as gate:
        append = threading.Thread(target=asyncio.run, args=(service.append_event(session, event("last")),))
        append.start()
        assert gate.reached.wait(TIMEOUT)
        refusal = engine_of(service).threads.queue
        close = threading.Thread(target=asyncio.run, args=(service.close(),))
        close.start()
        asyncio.run(until(lambda: refuses(refusal)))
        # A fork that waits for the close must not wait for ever.
        opener = threading.Timer(0.5, gate.open)
        opener.start()
        pid = in_child(child)
        opener.cancel()
    append.join()
    # The child has no lock on the file that the parent's close would wait for, nor the other way round.
    os.read(child_wrote[0], 1)
    close.join()
    os.write(parent_closed[1], b".")
    reap(pid)
    reopened = DatabaseSessionService(path)
    say(reopened.get_event_count(APP, USER, "s"), reopened.get_event_count(APP, USER, "child"))
    asyncio.run(reopened.close())


def lose_the_file_while_forking(path: str) -> None:
    """The file cannot be opened again after the fork: the parent is told at the next call."""
    service = DatabaseSessionService(path)
    asyncio.run(create(service))
    os.register_at_fork(before=lambda: Path(path).rename(path + ".away"))
    # Hooks that run before a fork run in reverse order of registration: the file is closed after it has gone.
    reap(in_child(lambda: None))
    try:
        engine_of(service).write_from_thread(Flush())
    except Exception as error:  # noqa: BLE001  # it is what the test is about
        say(type(error).__name__)
    asyncio.run(service.close())
