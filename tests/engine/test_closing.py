"""Closing: everything queued is completed, and nobody is let in afterwards.

Seen to fail with a ``close`` that discards the queue (busy), and with a store that marks itself closed only after the
threads have ended (second close).
"""

from __future__ import annotations

import asyncio
import functools
import sqlite3
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from sessiondb import DatabaseSessionService
from sessiondb.errors import ServiceClosedError
from tests.engine.failing_connection import break_writer, sqlite_error
from tests.engine.tools import (
    APP,
    TIMEOUT,
    USER,
    HeldReader,
    a_while,
    alive,
    create,
    engine_of,
    event,
    get,
    happened,
    in_flight,
    is_closing,
    measured,
    other_program,
    outcomes,
    pending,
    refuses,
    texts,
    threads_of,
    until,
    writer_stopped,
)

pytestmark = [pytest.mark.anyio, pytest.mark.each_store]


async def test_close_commits_queue_and_answers_everybody(location: Path | str) -> None:
    service = DatabaseSessionService(location, readers=1, max_queue=32, log_cache="off")
    sessions = [await create(service, f"s{n}") for n in range(64)]
    engine, threads = engine_of(service).threads, threads_of(service)
    held = HeldReader(service)
    results: list[object] = []
    reads: list[object] = []

    async def append_all() -> None:
        calls = [functools.partial(service.append_event, session, event()) for session in sessions]
        results.extend(await outcomes(calls))

    async def read() -> None:
        reads.extend(await outcomes([functools.partial(service.get_session, APP, USER, "s0"), service.list_sessions]))

    with writer_stopped(service) as gate:
        async with anyio.create_task_group() as group:
            group.start_soon(held.read)
            await happened(held.reached)
            group.start_soon(read)
            await until(lambda: measured(service)["pending_reads"] == 2)
            group.start_soon(append_all)
            await happened(gate.reached)
            # Some are with the writer, some queued, some parked beyond the bound.
            await until(lambda: pending(service) >= 32)
            await a_while()
            group.start_soon(service.close)
            await until(lambda: refuses(engine.queue))
            gate.open()
            await until(lambda: engine.readers._closed)
            held.release()
    assert not [result for result in results if isinstance(result, Exception)]
    # Reads that had not begun are refused; the one under way has ended well.
    assert [type(result) for result in reads] == [ServiceClosedError, ServiceClosedError]
    assert alive(threads) == []
    async with DatabaseSessionService(location) as reopened:
        assert reopened.get_stats()["events"] == 64
        assert await texts(reopened, "s63") == ["hello"]


async def test_second_close_waits_for_the_first(location: Path | str) -> None:
    service = DatabaseSessionService(location)
    session = await create(service)
    threads = threads_of(service)
    ended: list[str] = []

    async def close(name: str) -> None:
        await service.close()
        assert alive(threads) == []
        ended.append(name)

    with writer_stopped(service) as gate:
        async with anyio.create_task_group() as group:
            group.start_soon(service.append_event, session, event())
            await happened(gate.reached)
            # Together, before the first one has got far.
            group.start_soon(close, "one")
            group.start_soon(close, "two")
            await until(lambda: is_closing(service))
            await a_while()
            group.start_soon(close, "three")
            await a_while()
            assert ended == []
            gate.open()
    assert sorted(ended) == ["one", "three", "two"]
    await service.close()
    await anyio.to_thread.run_sync(lambda: anyio.run(service.close))
    assert repr(service).endswith(" closed>")


async def test_closed_service_refuses_every_call(location: Path | str) -> None:
    service = DatabaseSessionService(location)
    session = await create(service)
    await service.append_event(session, event())
    await get(service, "s")
    await service.close()
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: service.create_session(APP, USER, "t"),
        lambda: service.get_session(APP, USER, "s"),
        lambda: service.get_session(APP, USER, "unknown"),
        service.list_sessions,
        lambda: service.delete_session(APP, USER, "s"),
        lambda: service.append_event(session, event()),
        lambda: service.update_keys(APP, USER, "s", {"k": 1}),
        lambda: service.get_user_state(APP, USER),
        service.flush,
    ]
    for call in calls:
        with pytest.raises(ServiceClosedError, match="closed"):
            await call()
    for blocking in (lambda: service.get_event_count(APP, USER, "s"), service.get_stats, service.vacuum):
        with pytest.raises(ServiceClosedError, match="closed"):
            blocking()
    assert len(session.events) == 1
    assert in_flight(service) == {}


@pytest.mark.parametrize("blocking", [False, True], ids=["task", "thread"])
async def test_call_that_races_with_close_is_refused(location: Path | str, *, blocking: bool) -> None:
    """They are refused by the queue and the pool themselves: looking and entering are one step."""
    service = DatabaseSessionService(location)
    await create(service)
    threads = engine_of(service).threads
    await service.close()
    engine_of(service)._threads = threads
    service._closed = False
    if blocking:
        for call in (service.get_stats, service.vacuum):
            with pytest.raises(ServiceClosedError):
                call()
    else:
        for coroutine in (service.flush(), service.list_sessions(), service.get_user_state(APP, USER)):
            with pytest.raises(ServiceClosedError):
                await coroutine
    service._closed = True


async def test_close_races_with_appends_of_other_threads(location: Path | str) -> None:
    service = DatabaseSessionService(location)
    sessions = [await create(service, f"s{n}") for n in range(4)]
    begun = threading.Barrier(5)
    acknowledged = [0] * 4

    def append_until_closed(number: int) -> None:
        async def loop() -> None:
            await service.append_event(sessions[number], event())
            acknowledged[number] += 1
            begun.wait(TIMEOUT)
            while True:
                await service.append_event(sessions[number], event())
                acknowledged[number] += 1

        with pytest.raises(ServiceClosedError):
            anyio.run(loop, backend="trio" if number % 2 else "asyncio")

    async with anyio.create_task_group() as group:
        for number in range(4):
            group.start_soon(anyio.to_thread.run_sync, append_until_closed, number)
        await anyio.to_thread.run_sync(begun.wait, TIMEOUT)
        await service.close()
    async with DatabaseSessionService(location) as reopened:
        counts = [reopened.get_event_count(APP, USER, session.id) for session in sessions]
    assert counts == acknowledged


async def test_close_from_another_event_loop(location: Path | str) -> None:
    service = DatabaseSessionService(location)
    session = await create(service)
    threads = threads_of(service)
    appended = anyio.Event()

    async def append() -> None:
        await service.append_event(session, event())
        appended.set()

    with writer_stopped(service) as gate:
        async with anyio.create_task_group() as group:
            group.start_soon(append)
            await happened(gate.reached)
            group.start_soon(anyio.to_thread.run_sync, lambda: anyio.run(service.close))
            await until(lambda: is_closing(service))
            gate.open()
    assert appended.is_set()
    assert alive(threads) == []


async def test_close_in_a_cancelled_scope_still_closes(location: Path | str) -> None:
    """As in ``finally: await service.close()`` after a timeout."""
    service = DatabaseSessionService(location)
    await create(service)
    threads = threads_of(service)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await service.close()
    assert alive(threads) == []


async def test_close_cancelled_by_scope_finishes_first(location: Path | str) -> None:
    service = DatabaseSessionService(location)
    session = await create(service)
    threads = threads_of(service)
    scope = anyio.CancelScope()

    async def close() -> None:
        with scope:
            await service.close()
        assert alive(threads) == []

    with writer_stopped(service) as gate:
        async with anyio.create_task_group() as group:
            group.start_soon(service.append_event, session, event())
            await happened(gate.reached)
            group.start_soon(close)
            await until(lambda: is_closing(service))
            scope.cancel()
            await a_while()
            assert alive(threads) != []
            gate.open()
    assert alive(threads) == []
    async with DatabaseSessionService(location) as reopened:
        assert await texts(reopened, "s") == ["hello"]


def test_close_cancelled_as_task_finishes_first(location: Path | str) -> None:
    async def main() -> None:
        service = DatabaseSessionService(location)
        session = await create(service)
        threads = threads_of(service)
        with writer_stopped(service) as gate:
            append = asyncio.ensure_future(service.append_event(session, event()))
            await happened(gate.reached)
            close = asyncio.ensure_future(service.close())
            await until(lambda: is_closing(service))
            for _ in range(3):
                close.cancel()
                await a_while()
            assert not close.done()
            gate.open()
            with pytest.raises(asyncio.CancelledError):
                await close
            assert alive(threads) == []
            await append

    asyncio.run(main())


async def test_close_waits_for_lock_of_other_program_and_commits(database_path: Path, tmp_path: Path) -> None:
    service = DatabaseSessionService(database_path)
    session = await create(service)
    queue = engine_of(service).threads.queue
    async with DatabaseSessionService(tmp_path / "another.sqlite3") as another:
        with other_program(database_path, "BEGIN IMMEDIATE") as other, writer_stopped(service, "INSERT") as gate:
            async with anyio.create_task_group() as group:
                group.start_soon(service.append_event, session, event())
                await happened(gate.reached)
                # From here it is the other program that the writer waits for.
                gate.open()
                group.start_soon(service.close)
                await until(lambda: refuses(queue))
                other.execute("ROLLBACK")
        await create(another)
    async with DatabaseSessionService(database_path) as reopened:
        assert await texts(reopened, "s") == ["hello"]


@pytest.mark.sqlite_only
async def test_close_with_connection_that_does_not_close(location: Path | str) -> None:
    service = DatabaseSessionService(location)
    await create(service)
    break_writer(service, "close", sqlite_error(sqlite3.SQLITE_BUSY, "SQLITE_BUSY"))
    await service.close()
    async with DatabaseSessionService(location) as reopened:
        assert len(await reopened.list_sessions()) == 1


async def test_close_timeout_at_exit_answers_queued_writes(location: Path | str) -> None:
    """What is queued is answered, and the one with the writer gets the answer that is true in the end."""
    service = DatabaseSessionService(location)
    session, other = await create(service), await create(service, "other")
    engine = engine_of(service).threads
    results: list[object] = []

    async def append(one: Any) -> None:
        results.extend(await outcomes([functools.partial(service.append_event, one, event())]))

    with writer_stopped(service) as gate:
        async with anyio.create_task_group() as group:
            group.start_soon(append, session)
            await happened(gate.reached)
            group.start_soon(append, other)
            await until(lambda: pending(service) == 1)
            engine_of(service).close(timeout=0)
            await until(lambda: len(results) == 1)
            assert isinstance(results[0], ServiceClosedError)
            assert "nothing of it is stored" in str(results[0])
            gate.open()
    assert results[1] == session.events[0]
    engine.close(None)
    await service.close()
    async with DatabaseSessionService(location) as reopened:
        assert await texts(reopened, "s") == ["hello"]
        assert await texts(reopened, "other") == []


async def test_close_that_fails_raises_its_error(location: Path | str, monkeypatch: pytest.MonkeyPatch) -> None:
    service = DatabaseSessionService(location)
    engine = engine_of(service).threads
    with monkeypatch.context() as broken:

        def fail(_timeout: float | None) -> None:
            raise RuntimeError("not today")

        broken.setattr(engine, "close", fail)
        with pytest.raises(RuntimeError, match="not today"):
            await service.close()
    engine.close(None)
    await service.close()
