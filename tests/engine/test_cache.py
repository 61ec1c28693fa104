"""Decoded logs: what is kept, what is dropped, and that nobody can tell from the answers."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.adk.events import Event
from google.adk.sessions import Session
from google.adk.sessions.base_session_service import GetSessionConfig

from sessiondb import DatabaseSessionService
from sessiondb.engine.cache import CachedLog, LogCache
from sessiondb.model.queries import LogPosition
from sessiondb.model.records import SessionKey
from sessiondb.options import CacheMode
from tests.engine.tools import create, event, texts

APP, USER = "my_app", "user_123"
ONE, TWO, THREE = (SessionKey(APP, USER, name) for name in ("one", "two", "three"))


def _log(size: int, *, row_id: int = 1, events: int = 1, incarnation: int = 1, epoch: int = 0) -> CachedLog:
    position = LogPosition(incarnation, epoch, row_id)
    return CachedLog(position, [Event(author="agent")] * events, complete=True, bytes=size, origin=[])


def test_cache_evicts_least_recently_used_first() -> None:
    cache = LogCache(limit=100)
    cache.put(ONE, _log(40))
    cache.put(TWO, _log(40))
    assert cache.get(ONE) is not None
    cache.put(THREE, _log(40))
    assert [cache.get(key) is not None for key in (ONE, TWO, THREE)] == [True, False, True]
    assert cache.bytes == 80
    assert (cache.stats.hits, cache.stats.misses) == (3, 1)


def test_cache_entry_above_limit_evicts_nothing() -> None:
    cache = LogCache(limit=100)
    cache.put(ONE, _log(100))
    cache.put(TWO, _log(101))
    assert cache.get(ONE) is not None
    assert cache.get(TWO) is None
    # But the older entry of the same session does not stay in its place.
    cache.put(ONE, _log(101, row_id=2, events=2))
    assert cache.get(ONE) is None
    assert cache.bytes == 0


def test_cache_keeps_the_entry_that_knows_more() -> None:
    cache = LogCache(limit=100)
    known = _log(20, row_id=5, events=5)
    cache.put(ONE, known)
    cache.put(ONE, _log(10, row_id=4, events=4))
    cache.put(ONE, _log(10, row_id=5, events=2))
    assert cache.get(ONE) is known
    for newer in (
        _log(30, row_id=6, events=6),
        _log(10, row_id=5, events=2, epoch=1),
        _log(10, row_id=1, events=1, incarnation=2),
    ):
        cache.put(ONE, newer)
        assert cache.get(ONE) is newer
        assert cache.bytes == newer.bytes


def test_cache_takes_over_forms_for_the_same_log_only() -> None:
    cache = LogCache(limit=100)
    log = _log(10, row_id=2, events=2)
    longer = log._replace(position=LogPosition(1, 0, 3), events=["a", "b", "c"])
    cache.put(ONE, longer)
    log.events[:] = ["A", "B"]
    cache.renew_forms(ONE, log)
    assert longer.events == ["A", "B", "c"]
    # Of another list, which may begin elsewhere.
    cache.renew_forms(ONE, log._replace(events=["x"], origin=[]))
    cache.renew_forms(TWO, log)
    assert longer.events == ["A", "B", "c"]


def test_cache_discard_forgets_a_session() -> None:
    cache = LogCache(limit=100)
    cache.put(ONE, _log(40))
    cache.discard(ONE)
    cache.discard(TWO)
    assert cache.get(ONE) is None
    assert cache.bytes == 0


async def _session_of(service: DatabaseSessionService, name: str, events: int) -> Session:
    session = await service.create_session(APP, USER, name)
    for number in range(events):
        await service.append_event(session, Event(author="agent", timestamp=float(number)))
    return session


async def _read(service: DatabaseSessionService, name: str, config: GetSessionConfig | None = None) -> Session:
    session = await service.get_session(APP, USER, name, config)
    assert session is not None
    return session


@pytest.mark.anyio
@pytest.mark.each_store
@pytest.mark.parametrize("limit", [0, 30_000, 256 * 1024 * 1024])
async def test_cache_limit_is_kept_and_changes_no_answer(location: Path | str, limit: int) -> None:
    async with DatabaseSessionService(location, log_cache_bytes=limit) as service:
        sessions = [await _session_of(service, f"s{number}", 3 + number) for number in range(4)]
        for _ in range(3):
            for session in sessions:
                assert await _read(service, session.id) == session
                assert 0 <= service.get_stats()["cache_bytes"] <= limit
        stats = service.get_stats()
        assert (stats["cache_hits"] > 0) == (limit > 0)


@pytest.mark.anyio
@pytest.mark.each_store
async def test_cache_of_recent_events_is_completed(location: Path | str) -> None:
    async with DatabaseSessionService(location) as service:
        session = await _session_of(service, "s", 6)
    async with DatabaseSessionService(location) as service:
        for newest in (2, 1, 2, 4, 3, None, 6, 7, 2):
            config = None if newest is None else GetSessionConfig(num_recent_events=newest)
            read = await _read(service, "s", config)
            assert read.events == session.events[-newest if newest else None :]
        assert service.get_stats()["cache_hits"] > 0


@pytest.mark.anyio
@pytest.mark.each_store
@pytest.mark.parametrize("appended", [31, 32, 33, 80])
async def test_cache_behind_by_many_events_catches_up(location: Path | str, appended: int) -> None:
    async with DatabaseSessionService(location) as one, DatabaseSessionService(location) as other:
        await _session_of(one, "s", 2)
        await _read(one, "s")
        session = await _read(other, "s")
        for number in range(appended):
            await other.append_event(session, Event(author="agent", timestamp=float(number)))
        assert await _read(one, "s") == session
        assert await _read(one, "s") == session


@pytest.mark.anyio
@pytest.mark.each_store
async def test_cache_drops_session_deleted_elsewhere(location: Path | str) -> None:
    async with DatabaseSessionService(location) as one, DatabaseSessionService(location) as other:
        await _session_of(one, "s", 2)
        await _read(one, "s")
        kept = one.get_stats()["cache_bytes"]
        assert kept > 0
        await other.delete_session(APP, USER, "s")
        assert await one.get_session(APP, USER, "s") is None
        assert one.get_stats()["cache_bytes"] < kept


@pytest.mark.anyio
@pytest.mark.each_store
async def test_cache_off_counts_nothing(location: Path | str) -> None:
    async with DatabaseSessionService(location, log_cache="off") as service:
        session = await _session_of(service, "s", 2)
        assert await _read(service, "s") == session
        await service.delete_session(APP, USER, "s")
        assert await service.get_session(APP, USER, "s") is None
        stats = service.get_stats()
        assert (stats["cache_hits"], stats["cache_misses"], stats["cache_bytes"]) == (0, 0, 0)


@pytest.mark.anyio
@pytest.mark.each_store
async def test_cache_smaller_than_its_logs_keeps_answers(location: Path | str) -> None:
    async with DatabaseSessionService(location, log_cache_bytes=30_000) as service:
        for name in "abcdef":
            session = await create(service, name)
            for number in range(3):
                await service.append_event(session, event(f"{number}"))
            assert await texts(service, name) == ["0", "1", "2"]
        large = await create(service, "large")
        await service.append_event(large, event("x" * 100_000))
        assert len(str((await texts(service, "large"))[0])) == 100_000
        assert 0 < service.get_stats()["cache_bytes"] <= 30_000
        for name in "abcdef":
            assert await texts(service, name) == ["0", "1", "2"]


@pytest.mark.anyio
@pytest.mark.parametrize("log_cache", ["copy", "shallow", "share", "off"])
@pytest.mark.parametrize("before", [0, 2])
async def test_append_through_the_session_of_a_first_read_is_read_once(
    database_path: Path, log_cache: CacheMode, before: int
) -> None:
    """The list of events that a caller appends to is not the one that is kept."""
    async with DatabaseSessionService(database_path) as other:
        session = await create(other)
        await other.append_events(session, [event(f"before {n}") for n in range(before)])
    async with DatabaseSessionService(database_path, log_cache=log_cache) as service:
        read = await service.get_session(session.app_name, session.user_id, session.id)
        assert read is not None
        await service.append_event(read, event("after"))
        assert await texts(service, "s") == [*(f"before {n}" for n in range(before)), "after"]
