"""Services of one process that name the same file share one store.

Seen to fail with options that are not compared when a file is shared.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from sessiondb import DatabaseSessionService
from sessiondb.errors import ConfigurationError, ServiceClosedError
from tests.engine.tools import alive, create, engine_of, event, threads_of

pytestmark = pytest.mark.anyio


async def test_services_sharing_a_file_close_one_by_one(database_path: Path) -> None:
    first, second = DatabaseSessionService(database_path), DatabaseSessionService(database_path)
    session = await create(first)
    await first.close()
    await first.close()
    await second.append_event(session, event())
    with pytest.raises(ServiceClosedError):
        await first.append_event(session, event())
    threads = threads_of(second)
    await second.close()
    assert alive(threads) == []


async def test_shared_file_with_other_options_is_refused(database_path: Path, service: DatabaseSessionService) -> None:
    with pytest.raises(ConfigurationError, match=r"durability='full', readers=4"):
        DatabaseSessionService(database_path, durability="normal", readers=3)
    async with DatabaseSessionService(database_path, log_cache="off", on_stale="append") as other:
        assert engine_of(other) is engine_of(service)


async def test_threads_racing_after_fork_start_one_engine(service: DatabaseSessionService) -> None:
    """After a fork the first call starts the machinery; one that waited for it meanwhile takes what was started."""
    engine, threads = engine_of(service), engine_of(service).threads

    class HeldByTheFirst:
        def __enter__(self) -> None:
            engine._threads = threads

        def __exit__(self, *_: object) -> None:
            engine._lock = lock

    lock = engine._lock
    engine._threads, engine._lock = None, HeldByTheFirst()  # type: ignore[assignment]  # stands in for a wait
    assert engine.threads is threads
    await create(service)
