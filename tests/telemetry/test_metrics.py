"""Every metric appears after real work, and its value is what was done.

Seen to fail with counters that forget a closed file, with a batch that is not recorded, and with measurements that begin
only for services opened after the provider was set.
"""

from __future__ import annotations

import gc
from pathlib import Path

import anyio
import pytest

from sessiondb import DatabaseSessionService
from sessiondb.errors import DatabaseBusyError, WriterStoppedError
from tests.engine.tools import a_while, engine_of, measured, other_program, pending, until, writer_at_rest
from tests.telemetry.exporting import Exported, providers
from tests.telemetry.workload import APP, OPERATIONS, SECRET, USER, WRITES, event, every_call

pytestmark = pytest.mark.anyio


async def test_metrics_count_operations_batches_and_commits(
    exported: Exported, service: DatabaseSessionService, tmp_path: Path
) -> None:
    checkpoints = exported.values("sessiondb.checkpoints")
    lookups = exported.values("sessiondb.cache.lookups")
    await every_call(service, tmp_path)
    assert exported.operations() == OPERATIONS
    (batches,) = exported.points("sessiondb.batch.size").values()
    (commits,) = exported.points("sessiondb.commit.duration").values()
    # They come one after the other, so that none shares a transaction.
    assert (batches.count, batches.sum) == (WRITES, WRITES)
    assert commits.count == WRITES
    assert commits.sum == pytest.approx(measured(service)["commit_seconds"])
    after = exported.values("sessiondb.cache.lookups")
    # A log that was edited is read anew; a fork begins with what is kept of its source.
    assert (after["hit",] - lookups["hit",], after["miss",] - lookups["miss",]) == (3, 1)
    after = exported.values("sessiondb.checkpoints")
    assert after["completed",] - checkpoints["completed",] == service.get_stats()["checkpoints"]
    assert SECRET not in str(exported.metrics())
    assert str(tmp_path) not in str(exported.metrics())


async def test_metrics_of_file_wal_and_cache_size(
    exported: Exported, service: DatabaseSessionService, database_path: Path, tmp_path: Path
) -> None:
    async with DatabaseSessionService(tmp_path / "another.sqlite3") as another:
        for each in (service, another):
            session = await each.create_session(APP, USER, "s")
            await each.append_event(session, event())
        paths = [database_path, tmp_path / "another.sqlite3"]
        assert exported.values("sessiondb.file.size") == {(): sum(map(_size, paths))}
        assert exported.values("sessiondb.wal.size") == {(): sum(_size(path, "-wal") for path in paths)}
        cached = [each.get_stats()["cache_bytes"] for each in (service, another)]
        assert exported.values("sessiondb.cache.size")[()] >= sum(cached) > 0
    assert exported.values("sessiondb.file.size") == {(): _size(database_path)}


def _size(path: Path, suffix: str = "") -> int:
    return path.with_name(path.name + suffix).stat().st_size


async def test_metrics_of_queue_depth_and_busy_writer(exported: Exported, service: DatabaseSessionService) -> None:
    session = await service.create_session(APP, USER, "s")
    with writer_at_rest(service):
        assert exported.values("sessiondb.writer.busy.time") == {(): 0}
    async with anyio.create_task_group() as group:
        with writer_at_rest(service):
            group.start_soon(service.append_event, session, event("begun"))
            await a_while()
            # The writer has taken it, and can go no further.
            await until(lambda: pending(service) == 0)
            for number in range(3):
                group.start_soon(service.append_event, session, event(f"{number}"))
            await until(lambda: pending(service) == 3)
            assert exported.values("sessiondb.queue.depth")[()] == 3
    assert exported.values("sessiondb.queue.depth") == {(): 0}


async def test_metrics_of_lock_waits_and_failed_batches(exported: Exported, database_path: Path) -> None:
    names = ("sessiondb.lock.waits", "sessiondb.lock.wait.time", "sessiondb.batches.failed")
    before = [exported.values(name)[()] for name in names]
    async with DatabaseSessionService(database_path, busy_timeout=0.02) as service:
        session = await service.create_session(APP, USER, "s")
        with other_program(database_path, "BEGIN IMMEDIATE"), pytest.raises(DatabaseBusyError):
            await service.append_event(session, event())
        waits, seconds, failed = (exported.values(name)[()] - old for name, old in zip(names, before, strict=True))
        assert (waits, failed) == (1, 1)
        assert seconds == pytest.approx(service.get_stats()["lock_wait_seconds"])
        assert exported.operations()["append_event", "sqlite", "DatabaseBusyError"] == 1


async def test_metrics_of_stopped_writer(
    exported: Exported, service: DatabaseSessionService, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert exported.values("sessiondb.writers.stopped") == {(): 0}

    def fail(*_: object) -> None:
        raise SystemExit

    with writer_at_rest(service):
        monkeypatch.setattr(engine_of(service).threads.writer, "_execute", fail)
    with pytest.raises(WriterStoppedError):
        await service.create_session(APP, USER, "s")
    await until(lambda: not service.health().writer_alive)
    assert exported.values("sessiondb.writers.stopped") == {(): 1}


async def test_metrics_counter_keeps_its_sum_after_close(exported: Exported, tmp_path: Path) -> None:
    names = ("sessiondb.checkpoints", "sessiondb.cache.lookups")
    before = [exported.values(name) for name in names]
    service = DatabaseSessionService(tmp_path / "closed.sqlite3")
    await service.create_session(APP, USER, "s")
    await service.get_session(APP, USER, "s")
    service.vacuum()
    open_ = [exported.values(name) for name in names]
    assert all(now != old for now, old in zip(open_, before, strict=True))
    await service.close()
    assert [exported.values(name) for name in names] == open_
    size = exported.values("sessiondb.cache.size")[()]
    del service
    gc.collect()
    assert [exported.values(name) for name in names] == open_
    assert exported.values("sessiondb.cache.size")[()] < size


async def test_metrics_provider_set_while_service_is_open(service: DatabaseSessionService) -> None:
    session = await service.create_session(APP, USER, "s")
    with providers() as exported:
        with anyio.fail_after(20):
            while not exported.spans() or "sessiondb.batch.size" not in exported.metrics():
                await service.append_event(session, event())
        spans = len(exported.spans())
        await service.append_event(session, event())
        assert len(exported.spans()) == spans + 1
