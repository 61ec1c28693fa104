"""What a host is told of a writer that is slow or does not move."""

from __future__ import annotations

import functools
import sqlite3
from pathlib import Path

import anyio
import pytest

from sessiondb import DatabaseSessionService
from sessiondb.errors import FileLostError, StaleSessionError, WriteFailedError
from tests.engine.failing_connection import break_writer, sqlite_error
from tests.engine.tools import create, event, get, happened, move, outcomes, writer_at_rest, writer_stopped

pytestmark = pytest.mark.anyio


async def test_slow_commit_is_logged(
    service: DatabaseSessionService, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("sessiondb.engine.writer._SLOW_SECONDS", 0)
    await create(service)
    assert "slow_commit" in {record.getMessage() for record in caplog.records}


async def test_health_shows_stalled_and_busy_writer(database_path: Path) -> None:
    service = DatabaseSessionService(database_path)
    session = await create(service)
    assert service.health().healthy
    with writer_stopped(service) as gate:
        async with anyio.create_task_group() as group:
            group.start_soon(service.append_event, session, event())
            await happened(gate.reached)
            health = service.health(stalled_after=0)
            assert (health.healthy, health.writer_alive, health.pending_writes) == (False, True, 1)
            assert health.busy_seconds > 0
            assert service.health(stalled_after=3600).healthy
            gate.open()
    await service.close()


async def test_health_follows_what_the_last_batch_met(database_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen failing while a service whose every write failed was healthy."""
    monkeypatch.setattr("sessiondb.stores.sqlite.writer._CHECK_SECONDS", 0)
    async with DatabaseSessionService(database_path) as service:
        session = await create(service)
        away = database_path.with_suffix(".away")
        move(database_path, away)
        (result,) = await outcomes([functools.partial(service.append_event, session, event())])
        assert isinstance(result, FileLostError)
        health = service.health()
        assert (health.healthy, health.writer_alive, health.last_error) == (False, True, "FileLostError")
        move(away, database_path)
        await service.append_event(session, event())
        health = service.health()
        assert (health.healthy, health.last_error) == (True, None)


async def test_health_of_refused_batch_and_of_one_bad_command(service: DatabaseSessionService) -> None:
    """A command that fails alone says nothing of the file; a batch that SQLite refuses does."""
    session = await create(service)
    stale = await get(service, "s")
    await service.append_event(session, event())
    (result,) = await outcomes([functools.partial(service.append_event, stale, event())])
    assert isinstance(result, StaleSessionError)
    assert service.health().healthy
    full = sqlite_error(sqlite3.SQLITE_FULL, "SQLITE_FULL")
    with writer_at_rest(service):
        break_writer(service, "INSERT INTO fast_appends", full)
    (result,) = await outcomes([functools.partial(service.append_event, session, event())])
    assert isinstance(result, WriteFailedError)
    assert service.health().last_error == "WriteFailedError"
    assert not service.health().healthy
    await service.append_event(session, event())
    assert service.health().healthy
