"""The reader pool: bounded, and in order; and reads in the caller's own thread.

Seen to fail with ``_next`` that takes the newest job.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import sqlite3
import threading
import weakref
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from google.adk.sessions.base_session_service import GetSessionConfig

from sessiondb import DatabaseSessionService, SessionList
from sessiondb.engine.store import Reader
from sessiondb.errors import ReaderTimeoutError, ServiceClosedError, StorageError
from sessiondb.model.queries import CountEvents
from sessiondb.model.records import SessionKey
from sessiondb.stores.sqlite.reader import SqliteReader
from tests.engine.tools import (
    APP,
    USER,
    HeldReader,
    create,
    engine_of,
    event,
    get,
    happened,
    measured,
    other_program,
    outcomes,
    texts,
    threads_of,
    until,
)

pytestmark = [pytest.mark.anyio, pytest.mark.each_store]

COUNT = CountEvents(SessionKey(APP, USER, "s"))


async def test_reader_pool_exhausted_is_reader_timeout(location: Path | str) -> None:
    async with DatabaseSessionService(location, readers=2, busy_timeout=0.05, log_cache="off") as service:
        session = await create(service)
        await service.append_event(session, event())
        held = [HeldReader(service), HeldReader(service)]
        async with anyio.create_task_group() as group:
            for reader in held:
                group.start_soon(reader.read)
                await happened(reader.reached)
            (late,) = await outcomes([functools.partial(get, service, "s")])
            assert isinstance(late, ReaderTimeoutError)
            assert isinstance(late, TimeoutError)
            assert "none of the 2 readers" in str(late)
            with pytest.raises(ReaderTimeoutError):
                await anyio.to_thread.run_sync(service.get_event_count, APP, USER, "s")
            figures = measured(service)
            assert (figures["readers_in_use"], figures["pending_reads"]) == (2, 0)
            # Writes need no reader.
            await service.append_event(session, event("meanwhile"))
            for reader in held:
                reader.release()
        assert await texts(service, "s") == ["hello", "meanwhile"]
        assert len(threads_of(service)) == 3


async def test_reader_pool_serves_waiting_reads_in_order(location: Path | str) -> None:
    async with DatabaseSessionService(location, readers=1) as service:
        held = HeldReader(service)
        order: list[int] = []
        async with anyio.create_task_group() as group:
            group.start_soon(held.read)
            await happened(held.reached)
            for number in range(6):
                group.start_soon(engine_of(service).read, COUNT, lambda _, number=number: order.append(number))
                await until(lambda number=number: measured(service)["pending_reads"] == number + 1)  # type: ignore[misc]
            held.release()
        assert order == list(range(6))
        assert len(threads_of(service)) == 2


async def test_results_do_not_pile_up_in_front_of_a_loop_that_is_busy(location: Path | str) -> None:
    """Seen failing with 299 results at once before a loop had a bound, and with those that idle threads held on to."""

    class Result:
        pass

    made: list[weakref.ref[Result]] = []

    def make(_count: int) -> Result:
        result = Result()
        made.append(weakref.ref(result))
        return result

    def alive() -> int:
        return sum(result() is not None for result in made)

    async with DatabaseSessionService(location, readers=2) as service:

        async def read_and_drop() -> None:
            assert isinstance(await engine_of(service).read(COUNT, make), Result)

        held = [HeldReader(service), HeldReader(service)]
        async with anyio.create_task_group() as group:
            for reader in held:
                group.start_soon(reader.read)
                await happened(reader.reached)
            for _ in range(300):
                group.start_soon(read_and_drop)
            await until(lambda: measured(service)["pending_reads"] == 300)
            for reader in held:
                reader.release()
            # This thread runs the loop, which takes no result meanwhile. Each of these reads comes after all that are queued.
            for _ in range(20):
                service.get_event_count(APP, USER, "s")
                assert alive() <= 4
        assert len(made) == 300
        await until(lambda: measured(service)["readers_in_use"] == 0)
        gc.collect()
        assert alive() == 0


async def test_reads_that_are_held_back_time_out(location: Path | str) -> None:
    async with DatabaseSessionService(location, readers=1, busy_timeout=0.05) as service:
        held = HeldReader(service)
        async with anyio.create_task_group() as group:
            group.start_soon(held.read)
            await happened(held.reached)
            late = await outcomes([service.list_sessions] * 10)
            assert [type(outcome) for outcome in late] == [ReaderTimeoutError] * 10
            assert measured(service)["pending_reads"] == 0
            held.release()


async def test_reads_that_are_held_back_can_be_cancelled(location: Path | str) -> None:
    async with DatabaseSessionService(location, readers=1) as service:
        held = HeldReader(service)
        async with anyio.create_task_group() as group:
            group.start_soon(held.read)
            await happened(held.reached)
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as cancelled:
                    for _ in range(10):
                        cancelled.start_soon(service.list_sessions)
                    await until(lambda: measured(service)["pending_reads"] == 10)
                    scope.cancel()
            assert measured(service)["pending_reads"] == 0
            held.release()
        # Each has given its place back.
        assert [type(outcome) for outcome in await outcomes([service.list_sessions] * 10)] == [SessionList] * 10


async def test_reads_that_are_held_back_end_with_the_service(location: Path | str) -> None:
    service = DatabaseSessionService(location, readers=1)
    held = HeldReader(service)
    ended: list[object] = []

    async def read() -> None:
        ended.extend(await outcomes([service.list_sessions]))

    async with anyio.create_task_group() as group:
        group.start_soon(held.read)
        await happened(held.reached)
        for _ in range(10):
            group.start_soon(read)
        await until(lambda: measured(service)["pending_reads"] == 10)
        group.start_soon(service.close)
        await until(lambda: len(ended) == 10)
        held.release()
    assert [type(outcome) for outcome in ended] == [ServiceClosedError] * 10


async def test_reader_threads_start_when_needed_and_are_reused(location: Path | str) -> None:
    async with DatabaseSessionService(location, readers=3, log_cache="off") as service:
        await create(service)
        assert len(threads_of(service)) == 1
        for _ in range(5):
            await get(service, "s")
            await until(lambda: measured(service)["readers_in_use"] == 0)
        assert len(threads_of(service)) == 2
        held = [HeldReader(service) for _ in range(3)]
        async with anyio.create_task_group() as group:
            for reader in held:
                group.start_soon(reader.read)
            for reader in held:
                await happened(reader.reached)
                reader.release()
        assert len(threads_of(service)) <= 4


def test_task_that_is_collected_in_the_midst_of_the_pool_gives_its_place_back(location: Path | str) -> None:
    """The garbage collector ends it where it likes. Seen failing, by the time limit, while it waited for the pool's lock."""

    async def main() -> None:
        async with DatabaseSessionService(location, readers=1, log_cache="off") as service:
            readers = engine_of(service).threads.readers
            for _ in range(3):
                dropped = service.list_sessions()
                dropped.send(None)
                with readers._mutex:
                    dropped.close()
                assert len(await service.list_sessions()) == 0
            assert not readers._under_way

    asyncio.run(main())


@pytest.mark.sqlite_only
async def test_cancelled_read_gives_its_reader_back(location: Path | str) -> None:
    """Of a server that is shown where statements can be looked at. Seen failing while it went on for as long as it took."""
    begun = threading.Event()

    def read(reader: Reader) -> None:
        assert isinstance(reader, SqliteReader)
        endless = "WITH RECURSIVE n(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM n) SELECT noted() FROM n WHERE n < 1"
        reader._connection.create_function("noted", 0, begun.set)
        reader._connection.execute(endless).fetchall()

    async with DatabaseSessionService(location, readers=1) as service:
        async with anyio.create_task_group() as group:
            group.start_soon(engine_of(service).read_together, read)
            await happened(begun)
            group.cancel_scope.cancel()
        await until(lambda: measured(service)["readers_in_use"] == 0)
        assert len(await service.list_sessions()) == 0


async def test_failing_read_does_not_end_its_reader_thread(database_path: Path) -> None:
    class SurpriseError(BaseException):
        pass

    def surprise(_count: int) -> None:
        raise SurpriseError

    async with DatabaseSessionService(database_path, readers=1) as service:
        with pytest.raises(SurpriseError):
            await engine_of(service).read(COUNT, surprise)
        with other_program(database_path, "DROP TABLE adk_events"):
            pass
        with pytest.raises(StorageError, match="no such table"):
            service.get_event_count(APP, USER, "s")
        with pytest.raises(StorageError, match="no such table"):
            await service.get_session(APP, USER, "s")
        assert not isinstance((await outcomes([service.list_sessions]))[0], Exception)
        assert len(threads_of(service)) == 2


@pytest.mark.sqlite_only
async def test_cached_read_needs_no_reader_thread(location: Path | str) -> None:
    async with DatabaseSessionService(location, readers=1) as service:
        session = await create(service)
        for number in range(3):
            await service.append_event(session, event(f"{number}", {"user:k": number}))
        held = HeldReader(service)
        async with anyio.create_task_group() as group:
            group.start_soon(held.read)
            await happened(held.reached)
            assert await texts(service, "s") == ["0", "1", "2"]
            assert await service.get_user_state(APP, USER) == {"k": 2}
            recent = await service.get_session(APP, USER, "s", GetSessionConfig(num_recent_events=0))
            assert recent is not None
            assert recent.state == {"user:k": 2}
            assert measured(service)["pending_reads"] == 0
            held.release()


@pytest.mark.sqlite_only
async def test_inline_read_falls_back_to_reader_thread(location: Path | str) -> None:
    async with DatabaseSessionService(location, readers=1) as service:
        session = await create(service)
        await service.append_event(session, event("0", {"user:k": 0}))
        readers = engine_of(service).threads.readers
        # Somebody else reads in his own thread at this moment.
        readers._lent += 1
        assert await texts(service, "s") == ["0"]
        assert await service.get_user_state(APP, USER) == {"k": 0}
        readers._lent -= 1
        assert len(threads_of(service)) == 2
        # More has come than is read in passing.
        async with DatabaseSessionService(location, readers=1) as other:
            elsewhere = await get(other, "s")
            for number in range(1, 40):
                await other.append_event(elsewhere, event(f"{number}"))
        assert await texts(service, "s") == [f"{number}" for number in range(40)]


@pytest.mark.sqlite_only
@pytest.mark.parametrize(("readers", "beside"), [(1, None), (2, (0,))])
async def test_inline_reads_run_side_by_side_up_to_limit(
    location: Path | str, readers: int, beside: tuple[int] | None
) -> None:
    async with DatabaseSessionService(location, readers=readers) as service:
        store = engine_of(service)
        # The second read is made while the first is under way, as another thread's would be.
        assert store.read_inline(COUNT, lambda _: store.read_inline(COUNT, int)) == (beside,)


@pytest.mark.sqlite_only
@pytest.mark.parametrize("code", [sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_IOERR])
async def test_inline_read_when_sqlite_is_busy_locked_or_fails(
    service: DatabaseSessionService, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        error = sqlite3.OperationalError("refused")
        error.sqlite_errorcode = code
        raise error

    with monkeypatch.context() as refusing:
        refusing.setattr("sessiondb.stores.sqlite.reads.answer", refuse)
        if code == sqlite3.SQLITE_IOERR:
            with pytest.raises(StorageError, match="refused"):
                engine_of(service).read_inline(COUNT, int)
        else:
            # To be waited for, by a reader.
            assert engine_of(service).read_inline(COUNT, int) is None
    assert engine_of(service).read_inline(COUNT, int) == (0,)
