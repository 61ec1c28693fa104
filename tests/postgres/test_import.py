"""Whole sessions on their way to a server: what a lost connection, a lock and a second import leave behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from sessiondb import stores
from sessiondb.errors import DatabaseBusyError, OutcomeUnknownError, ServerUnreachableError
from sessiondb.model.queries import ListEvents
from sessiondb.model.records import EventRecord, NewEvent, NewSession, Selection, SessionKey
from tests.postgres.proxy import Cut, proxy

TIME = "2026-01-01T00:00:00.000000Z"
EVENTS = 5000


def session(name: str) -> NewSession:
    return NewSession(SessionKey("app", "user", name), TIME, TIME, 1.0, '{"k": "1"}')


def events(count: int = EVENTS) -> Iterator[NewEvent]:
    for number in range(count):
        record = EventRecord(f"event {number}", "i", "author", 1.0, TIME, None, '{"state_delta": {}}', None)
        yield NewEvent(record, advances=number % 2 == 0)


def stored(url: str) -> dict[str, int]:
    with stores.open_reader(url) as reader:
        found: dict[str, int] = {}
        for _, key, row in reader.ask(ListEvents(Selection())):
            found[key.session_id] = found.get(key.session_id, 0) + 1
            assert row.seq == found[key.session_id]
        return found


@pytest.mark.parametrize("cut", Cut)
def test_import_that_loses_its_connection_leaves_whole_sessions(cut: Cut, postgres_database: str) -> None:
    with stores.open_import(postgres_database) as direct:
        assert direct.put(session("first"), events(1))
    cuts = 0
    with proxy(postgres_database) as between:
        while True:
            name = f"s{cuts}"
            with stores.open_import(between.url) as into:
                happened = between.cut(cut, after=cuts)
                try:
                    into.put(session(name), events(10))
                except (ServerUnreachableError, OutcomeUnknownError):
                    assert happened.is_set()
            if not happened.is_set():
                # There are not so many requests in it.
                break
            assert stored(postgres_database).get(name, 10) == 10
            with stores.open_import(postgres_database) as again:
                again.put(session(name), events(10))
            assert stored(postgres_database)[name] == 10
            cuts += 1
    assert cuts >= 6


def test_lost_commit_is_told_from_a_lost_import(postgres_database: str) -> None:
    with proxy(postgres_database) as between, stores.open_import(between.url) as into:
        before = between.requests
        assert into.put(session("measured"), events(1))
        commit = between.requests - before - 1
        between.cut(Cut.BEFORE_REPLY, after=commit)
        with pytest.raises(OutcomeUnknownError, match="Start again"):
            into.put(session("lost"), events(1))
    assert stored(postgres_database) == {"measured": 1, "lost": 1}


def test_source_that_fails_leaves_nothing(postgres_database: str) -> None:
    def broken() -> Iterator[NewEvent]:
        yield from events()
        raise ValueError("the source")

    with stores.open_import(postgres_database) as into:
        with pytest.raises(ValueError, match="the source"):
            into.put(session("s"), broken())
        assert not into.holds(session("s").key)
        assert into.put(session("s"), events())
        assert into.holds(session("s").key)
        assert not into.put(session("s"), events())
    assert stored(postgres_database) == {"s": EVENTS}


def test_two_imports_of_the_same_sessions_at_once(postgres_database: str) -> None:
    together = threading.Barrier(2)

    def put_all(_: int) -> int:
        with stores.open_import(postgres_database) as into:
            together.wait()
            return sum(into.put(session(f"s{number}"), events(50)) for number in range(20))

    with ThreadPoolExecutor(2) as pool:
        assert sum(pool.map(put_all, range(2))) == 20
    assert stored(postgres_database) == {f"s{number}": 50 for number in range(20)}


def test_import_waits_for_locks_no_longer_than_told(postgres_database: str) -> None:
    with stores.open_import(postgres_database, timeout=0.05) as into, psycopg.connect(postgres_database) as other:
        assert into.put_scope_state("app", None, '{"a": "1"}', TIME) == 0
        other.execute("LOCK TABLE adk_state")
        with pytest.raises(DatabaseBusyError):
            into.put_scope_state("app", None, '{"a": "2", "b": "2"}', TIME)
        other.rollback()
        assert into.put_scope_state("app", None, '{"a": "2", "b": "2"}', TIME) == 1
