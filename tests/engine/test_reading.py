"""Reads: of one moment, never behind what was acknowledged, and filtered alike with and without a cache.

Seen to fail with the three parts of a ``GetSession`` read in three statements (torn snapshots), and with a cache that
is not asked for what came since (read-your-writes).
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from google.adk.sessions.base_session_service import GetSessionConfig

from sessiondb import DatabaseSessionService
from sessiondb.options import CacheMode
from tests.engine.tools import APP, USER, create, event, get, text_of

pytestmark = [pytest.mark.anyio, pytest.mark.each_store]


@pytest.mark.parametrize("log_cache", ["copy", "off"])
async def test_every_read_is_one_consistent_snapshot(location: Path | str, log_cache: CacheMode) -> None:
    """Each append changes the session's row, its state in three scopes and its log together."""
    async with DatabaseSessionService(location, log_cache=log_cache, durability="normal") as service:
        await service.create_session(APP, USER, "s", {"n": 0, "user:n": 0, "app:n": 0})
        done = threading.Event()
        moments: list[set[int]] = [set() for _ in range(4)]

        def write() -> None:
            async def loop() -> None:
                async with DatabaseSessionService(location, durability="normal") as writing:
                    session = await get(writing, "s")
                    for n in range(1, 151):
                        state = {"n": n, "user:n": n, "app:n": n}
                        await writing.append_event(session, event(f"{n}", state, timestamp=float(n)))

            try:
                anyio.run(loop)
            finally:
                done.set()

        async def read(number: int) -> None:
            while not done.is_set() or 150 not in moments[number]:
                session = await get(service, "s")
                n = session.state["n"]
                assert session.state == {"n": n, "user:n": n, "app:n": n}
                assert len(session.events) == n
                assert n == 0 or session.last_update_time == session.events[-1].timestamp == float(n)
                (listed,) = (await service.list_sessions(app_name=APP)).sessions
                m = listed.state["n"]
                assert listed.state == {"n": m, "user:n": m, "app:n": m}
                assert m == 0 or listed.last_update_time == float(m)
                assert m >= n
                moments[number].add(n)

        async with anyio.create_task_group() as group:
            group.start_soon(anyio.to_thread.run_sync, write)
            for number in range(2):
                group.start_soon(read, number)
            group.start_soon(anyio.to_thread.run_sync, lambda: anyio.run(read, 2))
            group.start_soon(anyio.to_thread.run_sync, lambda: anyio.run(read, 3, backend="trio"))
        assert all(150 in seen for seen in moments)


@pytest.mark.parametrize("log_cache", ["copy", "share", "off"])
async def test_read_your_writes_in_every_cache_mode(location: Path | str, log_cache: CacheMode) -> None:
    """By the same service, by another one of the process, and from another thread."""
    async with (
        DatabaseSessionService(location, log_cache=log_cache) as service,
        DatabaseSessionService(location, log_cache=log_cache) as other,
    ):
        session = await create(service)
        for number in range(1, 41):
            await service.append_event(session, event(f"{number}", {"n": number, "user:n": number}))
            for reading in (service, other):
                found = await get(reading, "s")
                assert len(found.events) == number
                assert found.state == {"n": number, "user:n": number}
            assert await anyio.to_thread.run_sync(other.get_event_count, APP, USER, "s") == number
            assert await other.get_user_state(APP, USER) == {"n": number}
        await service.delete_session(APP, USER, "s")
        for reading in (service, other):
            assert await reading.get_session(APP, USER, "s") is None
            assert reading.get_event_count(APP, USER, "s") == 0


async def test_get_session_filters_with_cache_off(location: Path | str) -> None:
    async with DatabaseSessionService(location, log_cache="off") as service:
        session = await create(service)
        for number in range(5):
            await service.append_event(session, event(f"{number}", timestamp=float(number)))

        async def read(**config: Any) -> list[str | None]:
            found = await service.get_session(APP, USER, "s", GetSessionConfig(**config))
            assert found is not None
            return [text_of(each) for each in found.events]

        assert await read(num_recent_events=2) == ["3", "4"]
        assert await read(after_timestamp=3.0) == ["3", "4"]
        assert await read(num_recent_events=3, after_timestamp=3.0) == ["3", "4"]
        assert await read(num_recent_events=0) == []
        assert await read(after_timestamp=0.0) == ["0", "1", "2", "3", "4"]
