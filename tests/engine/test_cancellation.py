"""A cancelled call is either taken back or completed, at every stage, by every means of cancelling.

Seen to fail with a ``write`` that raises at once whatever the ticket's state (stored, but not in the Session: the next
append is stale), with one that never withdraws (a queued append is written after all), and with an unshielded
``wait_through_cancellation`` (level cancellation ends the wait).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from google.adk.sessions import Session

from sessiondb import DatabaseSessionService
from sessiondb.errors import StaleSessionError
from sessiondb.model.commands import Flush
from tests.engine.cancelling import Running
from tests.engine.tools import (
    APP,
    USER,
    HeldReader,
    WriterGate,
    a_while,
    create,
    engine_of,
    event,
    get,
    happened,
    in_flight,
    measured,
    pending,
    texts,
    until,
    writer_stopped,
)

pytestmark = [pytest.mark.anyio, pytest.mark.each_store]


@pytest.fixture
def anyio_backend(means: tuple[Any, type[Running]]) -> Any:
    return means[0]


def snapshot(session: Session) -> tuple[str, Any]:
    return session.model_dump_json(), session._storage_update_marker


async def check_agreement(service: DatabaseSessionService, session: Session) -> None:
    """The live Session is as storage has it, and the conversation goes on."""
    assert snapshot(session) == snapshot(await get(service, session.id))
    await service.append_event(session, event("next"))
    assert snapshot(session) == snapshot(await get(service, session.id))


@asynccontextmanager
async def taken(service: DatabaseSessionService, call: Running, *, inside: bool = False) -> AsyncIterator[WriterGate]:
    """The call is with the writer, which stands still meanwhile; in the end both have gone on."""
    with writer_stopped(service, inside=inside) as gate:
        async with anyio.create_task_group() as group:
            group.start_soon(call.run)
            await happened(gate.reached)
            yield gate
            gate.open()


async def cancel_in_vain(call: Running) -> None:
    """The call goes on until the writer does."""
    call.cancel()
    await a_while()
    assert not call.finished.is_set()


async def test_cancel_of_queued_append_takes_it_back(service: DatabaseSessionService, running: type[Running]) -> None:
    session, other = await create(service), await create(service, "other")
    before = snapshot(session)
    given = event("queued", {"k": 1, "temp:t": 2})
    call = running(lambda: service.append_event(session, given))
    with writer_stopped(service) as gate:
        async with anyio.create_task_group() as group:
            group.start_soon(service.append_event, other, event("keeps the writer busy"))
            await happened(gate.reached)
            group.start_soon(call.run)
            await until(lambda: pending(service) == 1)
            call.cancel()
            # It does not wait for the writer.
            await call.finished.wait()
            assert call.cancelled
            assert pending(service) == 0
            assert snapshot(session) == before
            assert given.actions.state_delta == {"k": 1, "temp:t": 2}
            gate.open()
    assert await texts(service, "s") == []
    await check_agreement(service, session)


async def test_cancel_of_append_parked_at_full_queue(location: Path | str, running: type[Running]) -> None:
    async with DatabaseSessionService(location, max_queue=1) as service:
        session, first, second = [await create(service, name) for name in ("s", "first", "second")]
        before = snapshot(session)
        call = running(lambda: service.append_event(session, event("parked")))
        with writer_stopped(service) as gate:
            async with anyio.create_task_group() as group:
                group.start_soon(service.append_event, first, event("keeps the writer busy"))
                await happened(gate.reached)
                group.start_soon(service.append_event, second, event("fills the queue"))
                await until(lambda: pending(service) == 1)
                group.start_soon(call.run)
                await until(lambda: pending(service) == 2)
                call.cancel()
                await call.finished.wait()
                assert call.cancelled
                assert pending(service) == 1
                assert snapshot(session) == before
                gate.open()
        assert await texts(service, "s") == []
        assert await texts(service, "second") == ["fills the queue"]
        await check_agreement(service, session)


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("inside", [False, True], ids=["beginning", "writing"])
async def test_cancel_of_append_with_the_writer_is_completed(
    service: DatabaseSessionService, running: type[Running], *, inside: bool, times: int
) -> None:
    """The writer has taken the append: the cancellation goes on when it is completed, and not before."""
    session = await create(service)
    await service.append_event(session, event("before", {"gone": 1}))
    given = event("taken", {"k": {1, 2}, "user:u": 1, "gone": None, "temp:t": 2})
    call = running(lambda: service.append_event(session, given))
    async with taken(service, call, inside=inside):
        for _ in range(times):
            await cancel_in_vain(call)
        assert len(session.events) == 1
    assert call.cancelled
    assert session.events[-1] is given
    assert given.actions.state_delta == {"k": [1, 2], "user:u": 1, "gone": None}
    assert session.state == {"k": [1, 2], "user:u": 1, "temp:t": 2}
    del session.state["temp:t"]
    await check_agreement(service, session)
    assert await texts(service, "s") == ["before", "taken", "next"]


async def test_cancel_of_append_answered_but_not_heard(service: DatabaseSessionService, running: type[Running]) -> None:
    """The cancellation comes when the answer is on its way to the loop."""
    session = await create(service)
    call = running(lambda: service.append_event(session, event("answered", {"k": 1})))
    async with taken(service, call) as gate:
        gate.open()
        # This blocks the loop until the writer has answered both.
        engine_of(service).write_from_thread(Flush())
        assert session.events == []
        call.cancel()
    assert call.error is None
    await check_agreement(service, session)
    assert await texts(service, "s") == ["answered", "next"]


async def test_cancel_of_append_told_but_not_resumed(service: DatabaseSessionService, running: type[Running]) -> None:
    """The cancellation comes when the Session is in line, and the task about to go on."""
    session = await create(service)
    call = running(lambda: service.append_event(session, event("told", {"k": 1})))
    async with taken(service, call) as gate:
        gate.open()
        await until(lambda: bool(session.events))
        call.cancel()
    assert call.error is None
    await check_agreement(service, session)
    assert await texts(service, "s") == ["told", "next"]


async def test_cancel_of_stale_append_is_completed_too(service: DatabaseSessionService, running: type[Running]) -> None:
    session = await create(service)
    await service.append_event(await get(service, "s"), event("overtaking"))
    before = snapshot(session)
    call = running(lambda: service.append_event(session, event("too late")))
    async with taken(service, call):
        await cancel_in_vain(call)
    assert call.cancelled
    assert snapshot(session) == before
    assert in_flight(service) == {}
    with pytest.raises(StaleSessionError):
        await service.append_event(session, event("too late"))


async def test_cancel_of_create_delete_and_flush_is_completed(
    service: DatabaseSessionService, running: type[Running]
) -> None:
    await create(service, "gone")
    calls = [
        running(lambda: service.create_session(APP, USER, "new", {"k": 1})),
        running(lambda: service.delete_session(APP, USER, "gone")),
        running(service.flush),
    ]
    for call in calls:
        async with taken(service, call):
            await cancel_in_vain(call)
        assert call.cancelled
    assert (await get(service, "new")).state == {"k": 1}
    assert await service.get_session(APP, USER, "gone") is None


async def test_cancel_of_waiting_read_takes_it_back(location: Path | str, running: type[Running]) -> None:
    async with DatabaseSessionService(location, readers=1, log_cache="off") as service:
        session = await create(service)
        await service.append_event(session, event("hello"))
        held = HeldReader(service)
        call = running(lambda: service.get_session(APP, USER, "s"))
        async with anyio.create_task_group() as group:
            group.start_soon(held.read)
            await happened(held.reached)
            group.start_soon(call.run)
            await until(lambda: measured(service)["pending_reads"] == 1)
            call.cancel()
            await call.finished.wait()
            assert call.cancelled
            assert measured(service)["pending_reads"] == 0
            held.release()
        assert await texts(service, "s") == ["hello"]


async def test_cancel_of_read_under_way_frees_its_reader(location: Path | str, running: type[Running]) -> None:
    async with DatabaseSessionService(location, readers=1, log_cache="off") as service:
        session = await create(service)
        await service.append_event(session, event("hello"))
        held = HeldReader(service)
        call = running(held.read)
        async with anyio.create_task_group() as group:
            group.start_soon(call.run)
            await happened(held.reached)
            call.cancel()
            await call.finished.wait()
            assert call.cancelled
            held.release()
        assert await texts(service, "s") == ["hello"]
        assert service.get_stats()["readers_in_use"] == 0


async def test_cancel_of_many_appends_leaves_storage_agreed(
    service: DatabaseSessionService, running: type[Running]
) -> None:
    """Whatever stage each one has reached: it is in both places, or in neither, and a bystander is not disturbed."""
    sessions = [await create(service, f"s{n}") for n in range(16)]
    bystander = await create(service, "bystander")
    for turn in range(12):
        calls = [
            running(lambda session=session: service.append_event(session, event("maybe")))  # type: ignore[misc]
            for session in sessions
        ]
        async with anyio.create_task_group() as group:
            for call in calls:
                group.start_soon(call.run)
            for _ in range(turn + 1):
                await anyio.lowlevel.checkpoint()
            for call in calls:
                call.cancel()
            await service.append_event(bystander, event("undisturbed"))
        assert all(call.error is None for call in calls)
    for session in sessions:
        await check_agreement(service, session)
    assert len(await texts(service, "bystander")) == 12
