"""What a slow write waited for: the locks of other hosts, or the disk and the standby."""

from __future__ import annotations

import asyncio

import pytest

from sessiondb import DatabaseSessionService
from sessiondb.stats import ServiceStats
from tests.contract.places import APP, SESSION, USER, event
from tests.postgres.server import Server, server

pytestmark = pytest.mark.anyio


def _waits(stats: ServiceStats) -> tuple[int, int]:
    return stats["lock_waits"], stats["commit_waits"]


def _until_waiting(running: Server, database: str, kind: str) -> None:
    """Returns when a connection has waited for something of a kind long enough to be counted."""
    with running.connect(database) as connection:
        waiting = "SELECT FROM pg_stat_activity WHERE wait_event = %s AND clock_timestamp() - state_change > '0.2 s'"
        while not connection.execute(waiting, (kind,)).rowcount:
            connection.execute("SELECT pg_sleep(0.02)")


async def test_wait_for_the_lock_of_another_host_is_counted(postgres_server: Server, postgres_database: str) -> None:
    database = postgres_database.rpartition("/")[2]
    async with DatabaseSessionService(postgres_database) as service:
        session = await service.create_session(APP, USER, SESSION)
        await service.append_event(session, event(1))
        assert _waits(service.get_stats()) == (0, 0)
        with postgres_server.connect(database) as other:
            with other.transaction():
                other.execute("SELECT FROM adk_sessions FOR UPDATE")
                append = asyncio.create_task(service.append_event(session, event(2)))
                await asyncio.to_thread(_until_waiting, postgres_server, database, "transactionid")
            await append
        stats = service.get_stats()
        assert _waits(stats) == (1, 0)
        assert 0.1 <= stats["lock_wait_seconds"] <= stats["commit_seconds"]


async def test_wait_for_the_standby_is_counted() -> None:
    with server(fsync=False) as running:
        async with DatabaseSessionService(running.url()) as service:
            session = await service.create_session(APP, USER, SESSION)
            running.configure(synchronous_standby_names="nobody")
            with running.connect() as connection:
                while connection.execute("SHOW synchronous_standby_names").fetchone() != ("nobody",):
                    connection.execute("SELECT pg_sleep(0.01)")
            append = asyncio.create_task(service.append_event(session, event(1)))
            await asyncio.to_thread(_until_waiting, running, "postgres", "SyncRep")
            running.configure(synchronous_standby_names="")
            await append
            stats = service.get_stats()
            assert _waits(stats) == (0, 1)
            assert 0.1 <= stats["commit_wait_seconds"] <= stats["commit_seconds"]
