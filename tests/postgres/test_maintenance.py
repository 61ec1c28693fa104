"""The vacuum of a server: beside writers, and given up when nobody wants it any more.

Seen to fail with a vacuum that the writer makes, and with one that is not asked whether to go on.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import anyio
import psycopg
import pytest
from google.adk.sessions import Session

from sessiondb import DatabaseSessionService
from sessiondb.errors import DatabaseBusyError, ServiceClosedError
from tests.contract.places import APP, SESSION, USER, event
from tests.engine.tools import until

pytestmark = pytest.mark.anyio


@pytest.fixture
async def service(postgres_database: str) -> AsyncIterator[DatabaseSessionService]:
    async with DatabaseSessionService(postgres_database) as opened:
        yield opened


@pytest.fixture
async def session(service: DatabaseSessionService) -> Session:
    return await service.create_session(APP, USER, SESSION)


@contextmanager
def vacuum_held_up(url: str) -> Iterator[psycopg.Connection]:
    """Nothing can be vacuumed within, and rows can be written."""
    with psycopg.connect(url) as connection:
        connection.execute("LOCK TABLE adk_sessions IN SHARE UPDATE EXCLUSIVE MODE")
        with psycopg.connect(url, autocommit=True) as beside:
            yield beside


def vacuums(beside: psycopg.Connection) -> int:
    return beside.execute("SELECT FROM pg_stat_activity WHERE query LIKE 'VACUUM%' AND state = 'active'").rowcount


async def test_nobody_who_writes_waits_for_a_vacuum(
    service: DatabaseSessionService, session: Session, postgres_database: str
) -> None:
    async with anyio.create_task_group() as group:
        with vacuum_held_up(postgres_database) as beside:
            group.start_soon(anyio.to_thread.run_sync, service.vacuum)
            await until(lambda: vacuums(beside) == 1)
            await service.append_event(session, event())
            assert vacuums(beside) == 1
    with psycopg.connect(postgres_database) as connection:
        (analysed,) = connection.execute(
            "SELECT count(*) FROM pg_class WHERE relname = 'adk_events' AND reltuples = 1"
        ).fetchone() or (0,)
    assert analysed == 1


async def test_vacuum_waits_for_a_lock_as_long_as_calls_wait(postgres_database: str) -> None:
    async with DatabaseSessionService(postgres_database, busy_timeout=0.2) as service:
        with vacuum_held_up(postgres_database), pytest.raises(DatabaseBusyError):
            await anyio.to_thread.run_sync(service.vacuum)


async def test_close_gives_a_vacuum_up(
    service: DatabaseSessionService, session: Session, postgres_database: str
) -> None:
    refused: list[ServiceClosedError] = []

    def vacuum() -> None:
        with pytest.raises(ServiceClosedError) as raised:
            service.vacuum()
        refused.append(raised.value)

    with vacuum_held_up(postgres_database) as beside:
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.to_thread.run_sync, vacuum)
            await until(lambda: vacuums(beside) == 1)
            await service.close()
        assert len(refused) == 1
        await until(lambda: vacuums(beside) == 0)


async def test_cancelled_erasure_gives_its_vacuum_up(
    service: DatabaseSessionService, session: Session, postgres_database: str
) -> None:
    with vacuum_held_up(postgres_database) as beside:
        async with anyio.create_task_group() as group:
            group.start_soon(service.erase_user, APP, USER)
            await until(lambda: vacuums(beside) == 1)
            group.cancel_scope.cancel()
        await until(lambda: vacuums(beside) == 0)
    # What was deleted is gone all the same.
    assert await service.get_session(APP, USER, SESSION) is None
