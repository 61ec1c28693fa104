"""Other programs that use the file: their locks, their readers, and what they do to the file.

Seen to fail with a busy error that is not translated, with a batch that is dropped without an answer, and with a
checkpoint that raises when it is blocked.
"""

from __future__ import annotations

import functools
import os
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import pytest

from sessiondb import DatabaseSessionService
from sessiondb.errors import DatabaseBusyError
from tests.engine.tools import (
    APP,
    PATIENCE,
    USER,
    create,
    event,
    get,
    move,
    other_program,
    outcomes,
    texts,
    until,
    writer_at_rest,
)

pytestmark = pytest.mark.anyio


async def test_lock_beyond_busy_timeout_is_database_busy(database_path: Path) -> None:
    async with DatabaseSessionService(database_path, busy_timeout=0.05) as service:
        sessions = [await create(service, f"s{number}") for number in range(8)]
        given = [event(f"{number}", {"k": number, "temp:t": 1}) for number in range(8)]
        calls = [
            functools.partial(service.append_event, session, each)
            for session, each in zip(sessions, given, strict=True)
        ]
        before = service.get_stats()
        with other_program(database_path, "BEGIN IMMEDIATE"):
            results = await outcomes(calls)
            assert {type(result) for result in results} == {DatabaseBusyError}
            assert isinstance(results[0], TimeoutError)
            # Each has an error of its own: a shared one would collect everybody's traceback.
            assert len({id(result) for result in results}) == 8
            assert not any(session.events or session.state for session in sessions)
            # Reads go on.
            assert (await get(service, "s0")).events == []
            with pytest.raises(DatabaseBusyError):
                await service.update_keys(APP, USER, "s0", {"k": 1})
            with pytest.raises(DatabaseBusyError):
                await service.create_session(APP, USER, "new")
            with pytest.raises(DatabaseBusyError):
                service.vacuum()
        after = service.get_stats()
        assert after["batches"] == before["batches"]
        assert after["failed_batches"] > before["failed_batches"]
        assert after["events"] == 0
        # The same events, once the lock is gone.
        assert await outcomes(calls) == given
        for number, session in enumerate(sessions):
            assert await texts(service, session.id) == [f"{number}"]
            assert session.state == {"k": number, "temp:t": 1}


async def test_lock_within_busy_timeout_is_waited_for(database_path: Path, service: DatabaseSessionService) -> None:
    session = await create(service)
    with other_program(database_path, "BEGIN IMMEDIATE") as other:
        async with anyio.create_task_group() as group:
            group.start_soon(service.append_event, session, event())
            await until(lambda: service._opened.engine.writer._busy_since is not None)
            other.execute("ROLLBACK")
    assert await texts(service, "s") == ["hello"]
    assert service.get_stats()["failed_batches"] == 0


async def test_lock_waits_are_counted_and_logged(
    database_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO", "sessiondb")
    async with DatabaseSessionService(database_path, busy_timeout=0.05) as service:
        session = await create(service)
        assert service.get_stats()["lock_waits"] == 0
        with other_program(database_path, "BEGIN IMMEDIATE"):
            for bound in (PATIENCE, 0):
                monkeypatch.setattr("sessiondb.engine.writer._LOCK_WAIT_SECONDS", bound)
                with pytest.raises(DatabaseBusyError):
                    await service.append_event(session, event())
        await service.append_event(session, event())
        stats = service.get_stats()
        assert stats["lock_waits"] == 2
        assert stats["lock_wait_seconds"] > 0
        (record,) = [record for record in caplog.records if record.msg == "lock_wait"]
        assert vars(record)["path"] == str(database_path)


async def test_every_write_succeeds_after_a_lock_wait(database_path: Path, service: DatabaseSessionService) -> None:
    overtaken, session, gone = await create(service, "s"), await get(service, "s"), await create(service, "gone")
    calls: list[Callable[[], Awaitable[object]]] = [
        functools.partial(service.append_event, session, event("appended")),
        functools.partial(service.append_event, overtaken, event("refused")),
        functools.partial(service.create_session, APP, USER, "new", {"k": 1}),
        functools.partial(service.update_keys, APP, USER, "new", {"l": 2}),
        functools.partial(service.delete_session, APP, USER, gone.id),
        service.flush,
    ]
    for call in calls:
        waits = service.get_stats()["lock_waits"]
        with other_program(database_path, "BEGIN IMMEDIATE") as other:
            async with anyio.create_task_group() as group:
                group.start_soon(outcomes, [call])
                await until(lambda waits=waits: service._opened.measure().lock_waits > waits)  # type: ignore[misc]
                other.execute("ROLLBACK")
    assert await texts(service, "s") == ["appended"]
    assert (await get(service, "new")).state == {"k": 1, "l": 2}
    assert await service.get_session(APP, USER, gone.id) is None


async def test_open_of_new_locked_file_is_database_busy(database_path: Path) -> None:
    with (
        other_program(database_path, "CREATE TABLE t (x)", "DROP TABLE t", "BEGIN EXCLUSIVE"),
        pytest.raises(DatabaseBusyError),
    ):
        DatabaseSessionService(database_path, busy_timeout=0.05)
    async with DatabaseSessionService(database_path, busy_timeout=0.05) as service:
        await create(service)


async def test_checkpoint_blocked_by_reader_of_other_program(
    database_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sessiondb.stores.sqlite.wal._DUE_BYTES", 1)
    monkeypatch.setattr("sessiondb.engine.writer._LOOK_SECONDS", 0)
    async with DatabaseSessionService(database_path) as service:
        session = await create(service)
        await until(lambda: service._opened.measure().checkpoints > 0)
        assert service.get_stats()["blocked_checkpoints"] == 0
        await service.append_event(session, event("0"))
        await service.flush()
        with other_program(database_path, "BEGIN", "SELECT count(*) FROM adk_events") as other:
            for number in range(1, 4):
                await service.append_event(session, event(f"{number}"))
                await until(lambda number=number: service._opened.measure().blocked_checkpoints >= number)  # type: ignore[misc]
            assert other.execute("SELECT count(*) FROM adk_events").fetchone() == (1,)
            done = service.get_stats()["checkpoints"]
        await service.append_event(session, event("4"))
        await until(lambda: service._opened.measure().checkpoints > done)
        assert await texts(service, "s") == [f"{number}" for number in range(5)]
        assert service.get_stats()["failed_batches"] == 0


async def test_idle_writer_checkpoints_wal_once(database_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sessiondb.stores.sqlite.wal._IDLE_SECONDS", 0.01)
    async with DatabaseSessionService(database_path) as service:
        for turn in range(1, 3):
            await create(service, f"s{turn}")
            await until(lambda turn=turn: service._opened.measure().checkpoints == turn)  # type: ignore[misc]
            assert service._opened.engine.writer.wal.patience is None


async def test_checkpoint_refused_by_sqlite_fails_no_append(
    database_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sessiondb.stores.sqlite.wal._DUE_BYTES", 1)
    monkeypatch.setattr("sessiondb.engine.writer._LOOK_SECONDS", 0)
    async with DatabaseSessionService(database_path) as service:
        session = await create(service)

        def refuse(_action: int, first: str | None, *_: object) -> int:
            return sqlite3.SQLITE_DENY if first == "wal_checkpoint" else sqlite3.SQLITE_OK

        with writer_at_rest(service) as connection:
            connection.set_authorizer(refuse)
        await service.append_event(session, event())
        await until(lambda: service._opened.measure().failed_checkpoints >= 1)
        with writer_at_rest(service) as connection:
            connection.set_authorizer(None)
        assert await texts(service, "s") == ["hello"]
        await service.append_event(session, event("again"))


async def test_file_lost_replaced_and_put_back(database_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sessiondb.engine.writer._LOOK_SECONDS", 0)
    async with DatabaseSessionService(database_path) as service:
        session = await create(service)
        away = database_path.with_suffix(".away")
        with other_program(database_path.with_name("another"), "CREATE TABLE t (x)"):
            pass
        move(database_path, away)
        results = await outcomes([functools.partial(service.append_event, session, event())])
        assert type(results[0]).__name__ == "FileLostError"
        assert session.events == []
        move(away.with_name("another"), database_path)
        results = await outcomes([functools.partial(service.append_event, session, event())])
        assert "replaced" in str(results[0])
        move(away, database_path)
        await service.append_event(session, event())
        assert await texts(service, "s") == ["hello"]


async def test_wal_size_of_missing_file_is_0(service: DatabaseSessionService) -> None:
    await create(service)
    assert service.get_stats()["wal_bytes"] > 0
    keeper = service._opened.engine.writer.wal
    known, keeper._wal = keeper._wal, keeper._wal.with_name("nothing")
    assert service.get_stats()["wal_bytes"] == 0
    keeper._wal = known
    assert os.fspath(known).endswith("-wal")
