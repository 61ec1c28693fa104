"""The write-ahead log: when it is checkpointed, and what becomes of checkpoints that fail.

Seen to fail with a checkpoint that raises when it is blocked.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from sessiondb import DatabaseSessionService
from sessiondb.errors import UnsupportedDatabaseError, WriterStoppedError
from sessiondb.stores.sqlite.connection import enter_wal_mode
from tests.engine.failing_connection import FSYNC, break_writer
from tests.engine.tools import (
    create,
    engine_of,
    event,
    happened,
    measured,
    other_program,
    size_of,
    sqlite_writer,
    texts,
    until,
    writer_at_rest,
    writer_stopped,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
def checkpoints_come_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint is due when the WAL has grown at all, and when the writer has hardly fallen idle."""
    monkeypatch.setattr("sessiondb.stores.sqlite.wal._DUE_BYTES", 1)
    monkeypatch.setattr("sessiondb.stores.sqlite.wal._IDLE_SECONDS", 0.01)
    monkeypatch.setattr("sessiondb.stores.sqlite.writer._CHECK_SECONDS", 0)


@pytest.mark.usefixtures("checkpoints_come_at_once")
async def test_checkpoint_blocked_by_reader_of_other_program(database_path: Path) -> None:
    async with DatabaseSessionService(database_path) as service:
        session = await create(service)
        await until(lambda: measured(service)["checkpoints"] > 0)
        assert service.get_stats()["blocked_checkpoints"] == 0
        await service.append_event(session, event("0"))
        await service.flush()
        with other_program(database_path, "BEGIN", "SELECT count(*) FROM adk_events") as other:
            for number in range(1, 4):
                await service.append_event(session, event(f"{number}"))
                await until(lambda number=number: measured(service)["blocked_checkpoints"] >= number)  # type: ignore[misc]
            assert other.execute("SELECT count(*) FROM adk_events").fetchone() == (1,)
            done = service.get_stats()["checkpoints"]
        await service.append_event(session, event("4"))
        await until(lambda: measured(service)["checkpoints"] > done)
        assert await texts(service, "s") == [f"{number}" for number in range(5)]
        assert service.get_stats()["failed_batches"] == 0


async def test_checkpoint_moves_nothing_without_the_write_lock(
    database_path: Path, service: DatabaseSessionService
) -> None:
    """Another process may commit meanwhile. Seen failing with the lock that SQLite's RESTART takes, if it can."""
    session = await create(service)
    keeper = sqlite_writer(service)._wal
    with writer_at_rest(service):
        keeper.checkpoint()
    await service.append_event(session, event("x" * 500_000))
    before = size_of(database_path)
    with writer_at_rest(service):
        with other_program(database_path, "BEGIN IMMEDIATE"):
            keeper.checkpoint()
            assert (size_of(database_path), keeper.checkpoints, keeper.blocked) == (before, 1, 1)
        keeper.checkpoint()
    assert (keeper.checkpoints, keeper.blocked) == (2, 1)
    assert size_of(database_path) >= 500_000 > before


async def test_wal_that_is_due_for_a_cut_waits_for_the_lock_of_another_program(
    database_path: Path, service: DatabaseSessionService
) -> None:
    """Seen failing with a cut that raises when it is locked out."""
    await service.append_event(await create(service), event("x" * 500_000))
    keeper = sqlite_writer(service)._wal
    with writer_at_rest(service):
        backfill = keeper._backfill
        with other_program(database_path) as other:

            def locked_out_after() -> tuple[int, int]:
                moved = backfill()
                other.execute("BEGIN IMMEDIATE")
                return moved

            keeper._backfill = locked_out_after  # type: ignore[method-assign]
            keeper.checkpoint(cut=True)
            assert keeper.size > 500_000
        del keeper._backfill
        keeper.checkpoint(cut=True)
    assert keeper.size < 10_000
    assert (keeper.checkpoints, keeper.failed) == (2, 0)


async def test_idle_writer_checkpoints_wal_once(database_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sessiondb.stores.sqlite.wal._IDLE_SECONDS", 0.01)
    async with DatabaseSessionService(database_path) as service:
        keeper = sqlite_writer(service)._wal
        # What was written to create the tables is checkpointed, too.
        await until(lambda: keeper.idle_timeout is None)
        for turn in range(1, 3):
            done = keeper.checkpoints
            await create(service, f"s{turn}")
            await until(lambda done=done: keeper.checkpoints > done and keeper.idle_timeout is None)  # type: ignore[misc]
            assert keeper.checkpoints == done + 1


@pytest.mark.usefixtures("checkpoints_come_at_once")
async def test_checkpoint_refused_by_sqlite_fails_no_append(database_path: Path) -> None:
    async with DatabaseSessionService(database_path) as service:
        session = await create(service)

        def refuse(_action: int, first: str | None, *_: object) -> int:
            return sqlite3.SQLITE_DENY if first == "wal_checkpoint" else sqlite3.SQLITE_OK

        with writer_at_rest(service) as connection:
            connection.set_authorizer(refuse)
        await service.append_event(session, event())
        await until(lambda: measured(service)["failed_checkpoints"] >= 1)
        with writer_at_rest(service) as connection:
            connection.set_authorizer(None)
        assert await texts(service, "s") == ["hello"]
        await service.append_event(session, event("again"))


async def test_wal_size_of_missing_file_is_0(service: DatabaseSessionService) -> None:
    await create(service)
    assert service.get_stats()["wal_bytes"] > 0
    keeper = sqlite_writer(service)._wal
    known, keeper._path = keeper._path, keeper._path.with_name("nothing")
    assert service.get_stats()["wal_bytes"] == 0
    keeper._path = known


@pytest.mark.usefixtures("checkpoints_come_at_once")
async def test_checkpoint_fsync_error_stops_the_writer(database_path: Path) -> None:
    """With ``durability="normal"`` the checkpoint is the first to sync: what it finds out stops the writer."""
    service = DatabaseSessionService(database_path, durability="normal")
    session = await create(service)
    thread = engine_of(service).threads.writer
    with writer_stopped(service, "INSERT") as gate:
        async with anyio.create_task_group() as group:
            group.start_soon(service.append_event, session, event())
            await happened(gate.reached)
            break_writer(service, "PRAGMA wal_checkpoint", FSYNC)
            gate.open()
    await until(lambda: not thread.is_alive())
    with pytest.raises(WriterStoppedError, match="synced"):
        await service.append_event(session, event())
    await service.close()


def test_file_system_without_wal_is_refused(database_path: Path) -> None:
    """As SQLite answers on a network mount: the mode stays what it is."""
    connection = sqlite3.connect(":memory:")
    with pytest.raises(UnsupportedDatabaseError, match="stays in 'memory'"):
        enter_wal_mode(connection, database_path)
    connection.close()
