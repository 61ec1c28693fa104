"""Every call that is cancelled is taken back or completed, see :mod:`tests.contract.calls`.

Seen to fail with a ``write`` that raises at once whatever the ticket's state, with one that never withdraws, and with reads
that keep their place in the queue of readers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from sessiondb import DatabaseSessionService
from tests.contract.calls import READS, ROWS, Tenant, everything_of, outcome, renamed, settle, stand_still
from tests.engine.cancelling import Running
from tests.engine.tools import (
    HeldReader,
    a_while,
    event,
    happened,
    measured,
    pending,
    until,
    writer_stopped,
)

pytestmark = [pytest.mark.anyio, pytest.mark.each_store]

WRITES = [row for row in ROWS if row.writes]


@pytest.fixture
def anyio_backend(means: tuple[Any, type[Running]]) -> Any:
    return means[0]


def of(name: str) -> Tenant:
    """A tenant."""
    return Tenant(f"app {name}", "user", "session", "text")


def as_of(name: str, everything: object) -> object:
    """What a tenant has, as if it were another's."""
    return renamed(everything, {f"app {name}": "app"})


async def test_cancel_of_queued_write_takes_it_back(service: DatabaseSessionService, running: type[Running]) -> None:
    stand_still()
    other = await service.create_session("other", "user", "other")
    for number, row in enumerate(row for row in WRITES if not row.in_steps):
        tenant = of(f"{number}")
        await settle(service, tenant)
        before = await everything_of(service, tenant)
        call = running(lambda row=row, tenant=tenant: row.make(service, tenant))  # type: ignore[misc]
        with writer_stopped(service) as gate:
            async with anyio.create_task_group() as group:
                group.start_soon(service.append_event, other, event("keeps the writer busy"))
                await happened(gate.reached)
                group.start_soon(call.run)
                await until(lambda: pending(service) == 1)
                call.cancel()
                # It does not wait for the writer.
                await call.finished.wait()
                assert call.cancelled, row
                assert pending(service) == 0
                gate.open()
        assert await everything_of(service, tenant) == before, row


async def test_cancel_of_write_with_the_writer_is_completed(
    service: DatabaseSessionService, running: type[Running]
) -> None:
    for number, row in enumerate(WRITES):
        expected, tenant = of(f"{number} whole"), of(f"{number} cancelled")
        for each in (expected, tenant):
            await settle(service, each)
        refusal = await outcome(row, service, expected)
        stand_still()
        call = running(lambda row=row, tenant=tenant: row.make(service, tenant))  # type: ignore[misc]
        with writer_stopped(service) as gate:
            async with anyio.create_task_group() as group:
                group.start_soon(call.run)
                await happened(gate.reached)
                call.cancel()
                await a_while()
                assert not call.finished.is_set(), row
                gate.open()
        assert call.cancelled, (row, refusal)
        if row.in_steps:
            # What is left of it is done by the next call.
            await row.make(service, tenant)
        found = as_of(f"{number} cancelled", await everything_of(service, tenant))
        assert found == as_of(f"{number} whole", await everything_of(service, expected)), row


async def test_cancel_of_waiting_read_takes_it_back(location: Path | str, running: type[Running]) -> None:
    async with DatabaseSessionService(location, readers=1, log_cache="off", index="text") as service:
        tenant = of("")
        await settle(service, tenant)
        before = await everything_of(service, tenant)
        rows = [row for row in READS if row.name not in ("get_event_count", "get_user_state")]
        held = HeldReader(service)
        async with anyio.create_task_group() as group:
            group.start_soon(held.read)
            await happened(held.reached)
            for row in rows:
                call = running(lambda row=row: row.make(service, tenant))  # type: ignore[misc]
                async with anyio.create_task_group() as inner:
                    inner.start_soon(call.run)
                    await until(lambda: measured(service)["pending_reads"] == 1)
                    call.cancel()
                    await call.finished.wait()
                    assert call.cancelled, row
                    assert measured(service)["pending_reads"] == 0
            held.release()
        assert await everything_of(service, tenant) == before
        assert service.get_stats()["readers_in_use"] == 0
