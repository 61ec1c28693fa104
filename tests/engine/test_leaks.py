"""Threads, descriptors and files: a closed service, a dropped one, and one that could not be opened leave none behind.

Seen to fail with a finalizer that keeps the store.
"""

from __future__ import annotations

import gc
import os
import threading
import weakref
from pathlib import Path

import pytest

from sessiondb import DatabaseSessionService
from tests.engine.tools import APP, USER, alive, create, engine_of, event, get, threads_of, until

pytestmark = pytest.mark.anyio


def our_threads() -> list[threading.Thread]:
    """All threads but those that the loops keep for other work."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("sessiondb")]


def drop(owner: list[DatabaseSessionService]) -> None:
    owner.clear()
    gc.collect()


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("place", ["file", "memory"])
async def test_100_services_leak_no_thread_and_no_descriptor(database_path: Path, place: str) -> None:
    async def use() -> None:
        async with DatabaseSessionService(database_path if place == "file" else ":memory:", durability="normal") as one:
            session = await one.create_session(APP, USER)
            await one.append_event(session, event())
            await get(one, session.id)
            assert one.get_stats()["events"] >= 1

    # What loops and libraries open once and keep.
    await use()
    await until(lambda: our_threads() == [])
    before = descriptors(), our_threads()
    for _ in range(100):
        await use()
    # The thread that closes has a last step to make when it has told so.
    await until(lambda: our_threads() == before[1])
    assert descriptors() == before[0]


async def test_memory_database_leaves_no_file_behind() -> None:
    service = DatabaseSessionService(":memory:")
    folder = Path(engine_of(service).store.name).parent
    assert folder.exists()
    await create(service)
    await service.close()
    assert not folder.exists()


async def test_service_never_closed_gives_resource_warning(database_path: Path) -> None:
    service = DatabaseSessionService(database_path)
    await create(service)
    engine, threads = engine_of(service), threads_of(service)
    gone = weakref.ref(service)
    owner = [service]
    del service
    with pytest.warns(ResourceWarning, match="never closed"):
        drop(owner)
    assert gone() is None
    await until(lambda: engine._threads is None and not alive(threads))
    async with DatabaseSessionService(database_path) as reopened:
        assert engine_of(reopened) is not engine
        assert reopened.get_stats()["sessions"] == 1


async def test_service_never_closed_leaves_shared_file_open(database_path: Path) -> None:
    async with DatabaseSessionService(database_path) as kept:
        owner = [DatabaseSessionService(database_path)]
        with pytest.warns(ResourceWarning, match="never closed"):
            drop(owner)
        await create(kept)


async def test_failed_open_leaks_no_thread_and_no_descriptor(tmp_path: Path) -> None:
    path = tmp_path / "other"
    path.write_bytes(os.urandom(8192))
    before = descriptors(), our_threads()
    for _ in range(20):
        with pytest.raises(Exception, match="not an SQLite database"):
            DatabaseSessionService(path)
    assert (descriptors(), our_threads()) == before
