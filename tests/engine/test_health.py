"""What a host is told of a writer that is slow or does not move."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from sessiondb import DatabaseSessionService
from tests.engine.tools import create, event, happened, writer_stopped

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
            assert (health.healthy, health.writer_alive, health.pending_writes) == (False, True, 0)
            assert health.busy_seconds > 0
            assert service.health(stalled_after=3600).healthy
            gate.open()
    await service.close()
