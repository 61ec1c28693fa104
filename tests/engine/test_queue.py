"""The write queue when it is full: waiting in order, a typed error after ``busy_timeout``, and a bound that holds.

Seen to fail with ``put`` that never parks, with parked tickets moved up last in, first out, and with a withdrawn
parked ticket left in the queue.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from anyio.abc import TaskGroup
from google.adk.sessions import Session

from sessiondb import DatabaseSessionService
from sessiondb.engine.queue import WriteQueue, WriteTicket
from sessiondb.engine.waiting import ThreadWaiter
from sessiondb.errors import QueueFullError
from sessiondb.model.commands import Flush
from tests.engine.tools import (
    WriterGate,
    create,
    engine_of,
    event,
    happened,
    outcomes,
    pending,
    texts,
    until,
    writer_stopped,
)

pytestmark = [pytest.mark.anyio, pytest.mark.each_store]


@asynccontextmanager
async def full_queue(
    location: Path | str, *, limit: int, busy_timeout: float
) -> AsyncIterator[tuple[DatabaseSessionService, Session, WriterGate, TaskGroup, list[anyio.CancelScope]]]:
    """A service whose writer stands still, with ``limit`` appends queued, each in a scope of its own."""
    async with DatabaseSessionService(
        location, max_queue=limit, max_batch=2, busy_timeout=busy_timeout, on_stale="append"
    ) as service:
        session = await create(service)
        scopes = [anyio.CancelScope() for _ in range(limit)]

        async def append(number: int) -> None:
            with scopes[number]:
                await service.append_event(session, event(f"queued {number}"))

        with writer_stopped(service) as gate:
            async with anyio.create_task_group() as group:
                group.start_soon(service.append_event, session, event("with the writer"))
                await happened(gate.reached)
                for number in range(limit):
                    group.start_soon(append, number)
                    await until(lambda number=number: pending(service) == number + 1)  # type: ignore[misc]
                yield service, session, gate, group, scopes
                gate.open()


def test_task_that_is_collected_in_the_midst_of_the_queue_is_taken_back(location: Path | str) -> None:
    """The garbage collector ends it where it likes. Seen failing, by the time limit, while it waited for the queue's lock."""

    async def main() -> list[str | None]:
        async with DatabaseSessionService(location, on_stale="append") as service:
            session = await create(service)
            queue = engine_of(service).threads.queue
            with writer_stopped(service) as gate:
                first = asyncio.create_task(service.append_event(session, event("with the writer")))
                await happened(gate.reached)
                dropped = service.append_event(session, event("dropped"))
                dropped.send(None)
                assert pending(service) == 1
                with queue._lock:
                    dropped.close()
                last = asyncio.create_task(service.append_event(session, event("last")))
                await until(lambda: queue.depth == 1 and not queue._abandoned)
                gate.open()
                await asyncio.gather(first, last)
            return await texts(service, "s")

    assert asyncio.run(main()) == ["with the writer", "last"]


def expected(limit: int, *more: str) -> list[str]:
    return ["with the writer", *(f"queued {number}" for number in range(limit)), *more]


async def test_queue_full_timeout_writes_nothing(location: Path | str) -> None:
    async with full_queue(location, limit=3, busy_timeout=0.05) as (service, session, gate, _, _):
        results = await outcomes([lambda: service.append_event(session, event("too much"))] * 20)
        assert {type(result) for result in results} == {QueueFullError}
        assert isinstance(results[0], TimeoutError)
        assert "3 commands" in str(results[0])
        # However many have tried.
        assert service.get_stats()["pending_writes"] == 3
        assert len(engine_of(service).threads.queue._parked) == 0
        gate.open()
        # Whoever comes before there is room again, on a computer that has much to do, would be refused as well.
        await until(lambda: pending(service) == 0)
        await service.flush()
        assert await texts(service, "s") == expected(3)
        await service.append_event(session, event("room again"))


@pytest.mark.sqlite_only  # of the calls that block a thread, the vacuum of a file alone is a command
async def test_queue_full_timeout_of_blocking_thread(location: Path | str) -> None:
    async with full_queue(location, limit=1, busy_timeout=0.05) as (service, _, _, _, _):
        with pytest.raises(QueueFullError):
            await anyio.to_thread.run_sync(service.vacuum)
        assert pending(service) == 1


async def test_queue_full_waiters_are_served_in_order(location: Path | str) -> None:
    async with full_queue(location, limit=3, busy_timeout=60) as (service, session, gate, group, _):
        for number in range(8):
            group.start_soon(service.append_event, session, event(f"parked {number}"))
            await until(lambda number=number: pending(service) == 4 + number)  # type: ignore[misc]
        # Of another thread, with a loop of its own.
        group.start_soon(anyio.to_thread.run_sync, anyio.run, service.flush)
        await until(lambda: pending(service) == 12)
        gate.open()
        await service.flush()
        assert await texts(service, "s") == expected(3, *(f"parked {number}" for number in range(8)))
    stored = DatabaseSessionService(location)
    assert stored.get_stats()["events"] == 12
    await stored.close()


async def test_queue_full_cancelled_waiters_leave_no_trace(location: Path | str) -> None:
    async with full_queue(location, limit=2, busy_timeout=60) as (service, session, gate, group, _):
        scopes = [anyio.CancelScope() for _ in range(6)]

        async def append(number: int) -> None:
            with scopes[number]:
                await service.append_event(session, event(f"parked {number}"))

        for number in range(6):
            group.start_soon(append, number)
            await until(lambda number=number: pending(service) == 3 + number)  # type: ignore[misc]
        for number in (0, 2, 5):
            scopes[number].cancel()
        await until(lambda: pending(service) == 5)
        gate.open()
        await service.flush()
        assert await texts(service, "s") == expected(2, "parked 1", "parked 3", "parked 4")


async def test_queue_full_cancelled_append_makes_room(location: Path | str) -> None:
    async with full_queue(location, limit=2, busy_timeout=60) as (service, session, gate, group, scopes):
        group.start_soon(service.append_event, session, event("parked"))
        await until(lambda: pending(service) == 3)
        scopes[0].cancel()
        await until(lambda: pending(service) == 2)
        assert len(engine_of(service).threads.queue._queued) == 2
        gate.open()
        await service.flush()
        assert await texts(service, "s") == ["with the writer", "queued 1", "parked"]


def test_queue_put_races_with_timeout_of_take() -> None:
    """The writer's wait has run out, and before it can say so a ticket is put: it must be taken, not left."""
    queue = WriteQueue(1)
    ticket: WriteTicket = WriteTicket(Flush(), ThreadWaiter())
    real = queue._doorbell

    class Doorbell:
        def acquire(self, timeout: float = -1) -> bool:
            if timeout != -1:
                assert queue.put(ticket)
                return False
            return real.acquire()

        def release(self) -> None:
            real.release()

    queue._doorbell = Doorbell()  # type: ignore[assignment]  # stands between the wait and its end
    taken: list[object] = []
    thread = threading.Thread(target=lambda: taken.append(queue.take(8, 0.001)))
    thread.start()
    thread.join()
    assert taken == [[ticket]]
