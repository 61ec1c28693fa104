"""The reader pool: bounded, in order, of one moment, and never behind what was acknowledged.

Seen to fail with ``_next`` that takes the newest job, with the three parts of a ``GetSession`` read in three
statements (torn snapshots), and with a cache that is not asked for what came since (read-your-writes).
"""

from __future__ import annotations

import functools
import sqlite3
import threading
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from google.adk.sessions.base_session_service import GetSessionConfig

from sessiondb import DatabaseSessionService
from sessiondb.errors import CorruptRowError, ReaderTimeoutError, StorageError
from sessiondb.model.queries import CountEvents
from sessiondb.model.records import SessionKey
from sessiondb.options import CacheMode
from tests.engine.tools import (
    APP,
    USER,
    HeldReader,
    create,
    event,
    get,
    happened,
    move,
    other_program,
    outcomes,
    texts,
    threads_of,
    until,
)

pytestmark = pytest.mark.anyio

COUNT = CountEvents(SessionKey(APP, USER, "s"))


async def test_reader_pool_exhausted_is_reader_timeout(database_path: Path) -> None:
    async with DatabaseSessionService(database_path, readers=2, busy_timeout=0.05, log_cache="off") as service:
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
            assert service._opened.measure()[-2:] == (2, 0)
            # Writes need no reader.
            await service.append_event(session, event("meanwhile"))
            for reader in held:
                reader.release()
        assert await texts(service, "s") == ["hello", "meanwhile"]
        assert len(threads_of(service)) == 3


async def test_reader_pool_serves_waiting_reads_in_order(database_path: Path) -> None:
    async with DatabaseSessionService(database_path, readers=1) as service:
        held = HeldReader(service)
        order: list[int] = []
        async with anyio.create_task_group() as group:
            group.start_soon(held.read)
            await happened(held.reached)
            for number in range(6):
                group.start_soon(service._opened.read, COUNT, lambda _, number=number: order.append(number))
                await until(lambda number=number: service._opened.measure().pending_reads == number + 1)  # type: ignore[misc]
            held.release()
        assert order == list(range(6))
        assert len(threads_of(service)) == 2


async def test_reader_threads_start_when_needed_and_are_reused(database_path: Path) -> None:
    async with DatabaseSessionService(database_path, readers=3, log_cache="off") as service:
        await create(service)
        assert len(threads_of(service)) == 1
        for _ in range(5):
            await get(service, "s")
            await until(lambda: service._opened.measure().readers_in_use == 0)
        assert len(threads_of(service)) == 2
        held = [HeldReader(service) for _ in range(3)]
        async with anyio.create_task_group() as group:
            for reader in held:
                group.start_soon(reader.read)
            for reader in held:
                await happened(reader.reached)
                reader.release()
        assert len(threads_of(service)) <= 4


async def test_failing_read_does_not_end_its_reader_thread(database_path: Path) -> None:
    class SurpriseError(BaseException):
        pass

    def surprise(_count: int) -> None:
        raise SurpriseError

    async with DatabaseSessionService(database_path, readers=1) as service:
        with pytest.raises(SurpriseError):
            await service._opened.read(COUNT, surprise)
        with other_program(database_path, "DROP TABLE adk_events"):
            pass
        with pytest.raises(StorageError, match="no such table"):
            service.get_event_count(APP, USER, "s")
        with pytest.raises(StorageError, match="no such table"):
            await service.get_session(APP, USER, "s")
        assert not isinstance((await outcomes([service.list_sessions]))[0], Exception)
        assert len(threads_of(service)) == 2


async def test_cached_read_needs_no_reader_thread(database_path: Path) -> None:
    async with DatabaseSessionService(database_path, readers=1) as service:
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
            assert service._opened.measure().pending_reads == 0
            held.release()


async def test_inline_read_falls_back_to_reader_thread(database_path: Path) -> None:
    async with DatabaseSessionService(database_path, readers=1) as service:
        session = await create(service)
        await service.append_event(session, event("0", {"user:k": 0}))
        # Somebody else reads in his own thread at this moment.
        with service._opened.engine.readers._inline.borrowed():
            assert await texts(service, "s") == ["0"]
            assert await service.get_user_state(APP, USER) == {"k": 0}
        assert len(threads_of(service)) == 2
        # More has come than is read in passing.
        async with DatabaseSessionService(database_path, readers=1) as other:
            elsewhere = await get(other, "s")
            for number in range(1, 40):
                await other.append_event(elsewhere, event(f"{number}"))
        assert await texts(service, "s") == [f"{number}" for number in range(40)]


@pytest.mark.parametrize(("readers", "beside"), [(1, None), (2, (0,))])
async def test_inline_reads_run_side_by_side_up_to_limit(
    database_path: Path, readers: int, beside: tuple[int] | None
) -> None:
    async with DatabaseSessionService(database_path, readers=readers) as service:
        store = service._opened
        # The second read is made while the first is under way, as another thread's would be.
        assert store.read_inline(COUNT, lambda _: store.read_inline(COUNT, int)) == (beside,)


@pytest.mark.parametrize("code", [sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_IOERR])
async def test_inline_read_when_sqlite_is_busy_locked_or_fails(service: DatabaseSessionService, code: int) -> None:
    def refuse(_count: int) -> None:
        error = sqlite3.OperationalError("refused")
        error.sqlite_errorcode = code
        raise error

    if code == sqlite3.SQLITE_IOERR:
        with pytest.raises(StorageError, match="refused"):
            service._opened.read_inline(COUNT, refuse)
    else:
        # To be waited for, by a reader.
        assert service._opened.read_inline(COUNT, refuse) is None
    assert service._opened.read_inline(COUNT, int) == (0,)


@pytest.mark.parametrize("log_cache", ["copy", "off"])
async def test_every_read_is_one_consistent_snapshot(database_path: Path, log_cache: CacheMode) -> None:
    """Each append changes the session's row, its state in three scopes and its log together."""
    async with DatabaseSessionService(database_path, log_cache=log_cache, durability="normal") as service:
        await service.create_session(APP, USER, "s", {"n": 0, "user:n": 0, "app:n": 0})
        done = threading.Event()
        moments: list[set[int]] = [set() for _ in range(4)]

        def write() -> None:
            async def loop() -> None:
                async with DatabaseSessionService(database_path, durability="normal") as writing:
                    session = await get(writing, "s")
                    for n in range(1, 151):
                        state = {"n": n, "user:n": n, "app:n": n}
                        await writing.append_event(session, event(f"{n}", state, timestamp=float(n)))

            try:
                anyio.run(loop)
            finally:
                done.set()

        async def read(number: int) -> None:
            while not done.is_set() or 150 not in moments[number]:
                session = await get(service, "s")
                n = session.state["n"]
                assert session.state == {"n": n, "user:n": n, "app:n": n}
                assert len(session.events) == n
                assert n == 0 or session.last_update_time == session.events[-1].timestamp == float(n)
                (listed,) = (await service.list_sessions(app_name=APP)).sessions
                m = listed.state["n"]
                assert listed.state == {"n": m, "user:n": m, "app:n": m}
                assert m == 0 or listed.last_update_time == float(m)
                assert m >= n
                moments[number].add(n)

        async with anyio.create_task_group() as group:
            group.start_soon(anyio.to_thread.run_sync, write)
            for number in range(2):
                group.start_soon(read, number)
            group.start_soon(anyio.to_thread.run_sync, lambda: anyio.run(read, 2))
            group.start_soon(anyio.to_thread.run_sync, lambda: anyio.run(read, 3, backend="trio"))
        assert all(150 in seen for seen in moments)


@pytest.mark.parametrize("log_cache", ["copy", "share", "off"])
async def test_read_your_writes_in_every_cache_mode(database_path: Path, log_cache: CacheMode) -> None:
    """By the same service, by another one of the process, and from another thread."""
    async with (
        DatabaseSessionService(database_path, log_cache=log_cache) as service,
        DatabaseSessionService(database_path, log_cache=log_cache) as other,
    ):
        session = await create(service)
        for number in range(1, 41):
            await service.append_event(session, event(f"{number}", {"n": number, "user:n": number}))
            for reading in (service, other):
                found = await get(reading, "s")
                assert len(found.events) == number
                assert found.state == {"n": number, "user:n": number}
            assert await anyio.to_thread.run_sync(other.get_event_count, APP, USER, "s") == number
            assert await other.get_user_state(APP, USER) == {"n": number}
        await service.delete_session(APP, USER, "s")
        for reading in (service, other):
            assert await reading.get_session(APP, USER, "s") is None
            assert reading.get_event_count(APP, USER, "s") == 0


async def test_corrupt_event_row_fails_its_session_only(database_path: Path, service: DatabaseSessionService) -> None:
    session, other = await create(service), await create(service, "other")
    await service.append_event(session, event())
    await service.append_event(other, event())
    with other_program(database_path, "UPDATE adk_events SET actions = '{\"no\": 1}' WHERE session_id = 's'"):
        pass
    for _ in range(2):
        with pytest.raises(CorruptRowError, match="event 1 of session 's'"):
            await get(service, "s")
    assert await texts(service, "other") == ["hello"]
    with other_program(database_path, "UPDATE adk_events SET actions = '{}' WHERE session_id = 's'"):
        pass
    assert await texts(service, "s") == ["hello"]


async def test_file_lost_before_a_reader_opens_it(database_path: Path, service: DatabaseSessionService) -> None:
    """No reader is open yet, and none can be opened: the caller is told, and the service recovers."""
    await create(service)
    away = database_path.with_suffix(".away")
    move(database_path, away)
    results: list[Any] = await outcomes([service.list_sessions])
    assert isinstance(results[0], StorageError)
    with pytest.raises(StorageError):
        await service.get_user_state(APP, USER)
    move(away, database_path)
    assert len(await service.list_sessions()) == 1
    assert await service.get_user_state(APP, USER) == {}
