"""Answers that are long, or take long: fetched bit by bit, given up when nobody wants them, and not waited for in vain."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import psycopg
import pytest

from sessiondb import DatabaseSessionService, errors
from sessiondb.engine.store import Reader
from sessiondb.model.queries import CountEvents, GetUsage, ListEvents, ListSessions, ListState
from sessiondb.model.records import Selection, SessionKey
from sessiondb.stores import open_reader
from tests.contract.places import APP, SESSION, USER, event
from tests.databases import query
from tests.postgres.proxy import Proxy, proxy
from tests.postgres.server import TIMEOUT

pytestmark = pytest.mark.anyio

SESSIONS = 2500


@pytest.fixture
def filled(postgres_database: str) -> str:
    """A database with as many sessions as are fetched in three steps, and an event."""

    async def fill() -> None:
        async with DatabaseSessionService(postgres_database) as service:
            session = await service.create_session(APP, USER, SESSION, {"k": 1, "user:k": 1})
            await service.append_event(session, event(1))

    asyncio.run(fill())
    query(
        postgres_database,
        "INSERT INTO adk_sessions (app_name, user_id, session_id, created_at, updated_at, update_time, incarnation)"
        " SELECT ?, ?, 'many ' || n, '', '', n, nextval('sessiondb_incarnations') FROM generate_series(2, ?) AS n",
        APP,
        USER,
        SESSIONS,
    )
    return postgres_database


def test_sessions_of_a_snapshot_come_bit_by_bit_and_are_of_one_moment(filled: str) -> None:
    with proxy(filled) as between, open_reader(between.url) as reader:
        with reader.snapshot():
            listed = reader.ask(ListSessions(order="key", with_state=False))
            first = next(listed)
            query(filled, "DELETE FROM adk_sessions")
            asked = between.requests
            # Other questions may be asked in the middle.
            assert reader.ask(CountEvents(first.key)) == 0
            state = list(reader.ask(ListState("SESSION", Selection(APP))))
            assert [row.name for row in state] == ["k"]
            assert len({first.key, *(one.key for one in listed)}) == SESSIONS
            assert between.requests >= asked + 3
            # One that is left in the middle is no matter to what follows.
            abandoned = reader.ask(ListSessions())
            next(abandoned)
        with pytest.raises(StopIteration):
            next(abandoned)
        assert not list(reader.ask(ListSessions()))


# --- A network that is cut without a word -----------------------------------------------------------------------------


@contextmanager
def half_read(reader: Reader) -> Iterator[Callable[[], object]]:
    with reader.snapshot():
        rows = reader.ask(ListSessions())
        next(rows)
        yield lambda: list(rows)


@contextmanager
def asked(reader: Reader) -> Iterator[Callable[[], object]]:
    yield lambda: reader.ask(GetUsage())


@contextmanager
def streamed(reader: Reader) -> Iterator[Callable[[], object]]:
    yield lambda: list(reader.ask(ListEvents()))


@contextmanager
def ended(reader: Reader) -> Iterator[Callable[[], object]]:
    moment = reader.snapshot()
    moment.__enter__()
    reader.ask(GetUsage())
    yield lambda: moment.__exit__(None, None, None)


@contextmanager
def begun(reader: Reader) -> Iterator[Callable[[], object]]:
    yield reader.snapshot().__enter__


Step = Callable[[Reader], AbstractContextManager[Callable[[], object]]]
STEPS: dict[str, Step] = {
    "the rest of a list": half_read,
    "one answer": asked,
    "a stream": streamed,
    "the begin of a moment": begun,
    "the end of a moment": ended,
}


def test_commands_do_not_wait_for_ever(filled: str) -> None:
    """Seen failing, by the time limit of tests, while no step of a command had a deadline."""
    told: dict[str, type] = {}
    ready = threading.Barrier(len(STEPS) + 1, timeout=TIMEOUT)
    with proxy(filled) as between:

        def command(name: str) -> None:
            try:
                with open_reader(between.url, timeout=0.2) as reader, STEPS[name](reader) as go_on:
                    ready.wait()
                    ready.wait()
                    go_on()
            except errors.StorageError as error:
                told[name] = type(error)

        commands = [threading.Thread(target=command, args=[name]) for name in STEPS]
        for one in commands:
            one.start()
        ready.wait()
        between.freeze()
        ready.wait()
        for one in commands:
            one.join(TIMEOUT)
        between.release()
    assert told == dict.fromkeys(STEPS, errors.ServerUnreachableError)


@contextmanager
def locked(database: str) -> Iterator[None]:
    """Keeps everybody from reading events."""
    with psycopg.connect(database) as other:
        other.execute("LOCK TABLE adk_events")
        yield


def wait_until(database: str, condition: str) -> None:
    """Waits until something holds for the statements of services and commands that are under way."""
    with psycopg.connect(database, autocommit=True) as connection:
        under_way = (
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'sessiondb' AND wait_event = 'relation'"
        )
        while connection.execute(f"SELECT ({under_way}) {condition}".encode()).fetchone() != (True,):
            connection.execute("SELECT pg_sleep(0.01)")


def looks(between: Proxy, number: int) -> None:
    """Waits for so many more requests."""
    goal = between.requests + number
    while between.requests < goal:
        threading.Event().wait(0.01)


def test_command_waits_as_long_as_the_server_is_at_it(filled: str) -> None:
    """Seen failing with a deadline for each statement."""
    told: list[object] = []
    with proxy(filled) as between, open_reader(between.url, timeout=0.2) as reader:
        command = threading.Thread(target=lambda: told.append(reader.ask(CountEvents(SessionKey(APP, USER, SESSION)))))
        with locked(filled):
            command.start()
            wait_until(filled, "= 1")
            looks(between, 3)
        command.join(TIMEOUT)
    assert told == [1]


# --- Nobody wants the answer any more ---------------------------------------------------------------------------------


async def test_cancelled_read_ends_on_the_server_too(filled: str) -> None:
    """Seen failing while a cancelled read went on, and kept its reader, for as long as it took."""
    async with DatabaseSessionService(filled, readers=1, busy_timeout=3600.0) as service:
        with locked(filled):
            reading = asyncio.create_task(service.usage(app_name=APP))
            await asyncio.to_thread(wait_until, filled, "= 1")
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            await asyncio.to_thread(wait_until, filled, "= 0")
            # The only reader is free, and has another connection.
            assert len(await service.list_sessions(APP, limit=1)) == 1
        assert (await service.get_session(APP, USER, SESSION)) is not None


async def test_read_that_is_cut_off_ends_on_the_server_too(filled: str) -> None:
    """Seen failing while the server was not told that nobody waits any more."""
    async with DatabaseSessionService(filled, busy_timeout=2.0) as service:
        with locked(filled):
            with pytest.raises(errors.ServerUnreachableError):
                await service.usage(app_name=APP)
            await asyncio.to_thread(wait_until, filled, "= 0")
