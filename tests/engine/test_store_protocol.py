"""The engine behind its protocols, on a fake store: what is queued, committed together, answered and ended is the
engine's own, whatever keeps the sessions.

Seen to fail with ``take(1, ...)`` in the writer's loop (group commit), with answers in reverse order, with one error object
for all callers, without ``abandon`` at the thread's end, with ``maintain`` before the answers or never when idle, without
the suspension of readers or writer, with a store that is looked up by its object, with options that are not compared, with
a close that refuses what is queued or closes the writer first, and with ``try_inline`` that raises DatabaseBusyError.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import anyio
import pytest

from sessiondb import DatabaseSessionService
from sessiondb.engine import sharing
from sessiondb.engine.engine import Engine
from sessiondb.engine.queue import WriteTicket
from sessiondb.errors import (
    AlreadyExistsError,
    ConfigurationError,
    DatabaseBusyError,
    ServiceClosedError,
    SessionNotFoundError,
    StaleSessionError,
    StorageError,
    TurnTimeoutError,
    WriteFailedError,
    WriterStoppedError,
)
from sessiondb.model.commands import AppendEvent, CreateSession, Flush, Vacuum, WriteCommand
from sessiondb.model.queries import CountEvents
from sessiondb.model.records import NO_DELTA, EventRecord, Outcome, SessionKey, Status
from sessiondb.options import StoreOptions
from tests.engine.failing_connection import SurpriseError
from tests.engine.fork_programs import in_child, reap
from tests.engine.memory_store import MemoryStore
from tests.engine.tools import (
    APP,
    TIMEOUT,
    USER,
    create,
    engine_of,
    event,
    get,
    happened,
    outcomes,
    refuses,
    text_of,
    texts,
    until,
)

pytestmark = pytest.mark.anyio

KEY = SessionKey(APP, USER, "s")


def append(number: int, key: SessionKey = KEY) -> AppendEvent:
    record = EventRecord(f"event {number}", "", "user", float(number), "", None, "{}", None)
    return AppendEvent(key, record, NO_DELTA, None)


def new(session_id: str = "s") -> CreateSession:
    return CreateSession(SessionKey(APP, USER, session_id), 0.0, "", NO_DELTA, "{}")


def give_back(engine: Engine) -> None:
    """Gives an engine back on an event loop of another thread, and waits for the end."""
    thread = threading.Thread(target=anyio.run, args=(partial(sharing.give_back, first=True), engine))
    thread.start()
    thread.join()


class Gate:
    """A hook that stands still, the first time it is called, until it is opened."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self._open = threading.Event()

    def __call__(self) -> None:
        self.reached.set()
        assert self._open.wait(TIMEOUT)

    def open(self) -> None:
        self._open.set()


class Raising:
    """A hook that raises."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __call__(self) -> NoReturn:
        raise self._error


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def options() -> StoreOptions:
    return StoreOptions()


@pytest.fixture
def engine(store: MemoryStore, options: StoreOptions) -> Iterator[Engine]:
    """An engine on the store, with a session."""
    shared = sharing.share(lambda: store, options)
    shared.write_from_thread(new())
    yield shared
    give_back(shared)


@asynccontextmanager
async def queued(engine: Engine, store: MemoryStore, *work: WriteCommand) -> AsyncIterator[list[Any]]:
    """Has commands queued, one after the other, while the writer stands before a commit of its own.

    At the end it goes on. The list has what each came to then, behind what that first commit came to.
    """
    gate = store.hooks["commit"] = Gate()
    ends: dict[int, Any] = {}

    async def write(number: int, command: WriteCommand) -> None:
        (ends[number],) = await outcomes([lambda: engine.write(command)])

    found: list[Any] = []
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(write, 0, Flush())
            await happened(gate.reached)
            for number, command in enumerate(work, 1):
                group.start_soon(write, number, command)
                await until(lambda number=number: engine.threads.queue.depth == number)  # type: ignore[misc]
            yield found
            gate.open()
    finally:
        gate.open()
    found += [ends[number] for number in range(len(ends))]


# --- Writing ---------------------------------------------------------------------------------------------------------


async def test_appends_queued_while_the_writer_is_held_are_one_commit(engine: Engine, store: MemoryStore) -> None:
    work = [append(number) for number in range(100)]
    async with queued(engine, store, *work) as ends:
        before = len(store.batches)
    assert store.batches[before:] == [work]
    # Each caller has the answer to its own command.
    assert [end.revision for end in ends[1:]] == list(range(1, 101))


@pytest.mark.parametrize("options", [StoreOptions(max_batch=4)])
async def test_a_commit_takes_no_more_than_a_batch(engine: Engine, store: MemoryStore) -> None:
    async with queued(engine, store, *(append(number) for number in range(10))):
        before = len(store.batches)
    assert [len(batch) for batch in store.batches[before:]] == [4, 4, 2]


async def test_vacuum_stands_between_two_commits(engine: Engine, store: MemoryStore) -> None:
    async with queued(engine, store, append(1), append(2), Vacuum(), append(3)):
        before = len(store.calls)
    assert [call for call in store.calls[before:] if call != "maintain"] == ["commit", "vacuum", "commit"]
    assert list(map(len, store.batches[-2:])) == [2, 1]


async def test_answers_come_in_the_order_of_the_commands(engine: Engine, store: MemoryStore) -> None:
    gate = store.hooks["commit"] = Gate()
    told: list[str] = []

    def note(ticket: WriteTicket) -> None:
        assert isinstance(ticket.work, AppendEvent)
        told.append(ticket.work.event.event_id)

    async with anyio.create_task_group() as group:
        group.start_soon(engine.write, Flush())
        await happened(gate.reached)
        for number in range(20):
            group.start_soon(engine.write, append(number), note)
            await until(lambda number=number: engine.threads.queue.depth == number + 1)  # type: ignore[misc]
        gate.open()
    assert told == [row.event_id for row in store.rows[KEY]] == [f"event {number}" for number in range(20)]


async def test_a_command_that_fails_alone_leaves_the_others(engine: Engine, store: MemoryStore) -> None:
    engine.write_from_thread(new("refused"))
    store.refused["refused"] = refusal = WriteFailedError("not this one")
    async with queued(engine, store, append(1), append(2, SessionKey(APP, USER, "refused")), append(3)) as ends:
        before = len(store.batches)
    assert len(store.batches) == before + 1
    assert [type(end) for end in ends[1:]] == [Outcome, WriteFailedError, Outcome]
    assert ends[2] is refusal
    assert [row.event_id for row in store.rows[KEY]] == ["event 1", "event 3"]


async def test_storage_error_of_a_commit_reaches_each_caller_as_its_own(engine: Engine, store: MemoryStore) -> None:
    error = WriteFailedError("the disk is full")
    async with queued(engine, store, *(append(number) for number in range(5))) as ends:
        store.hooks["commit"] = Raising(error)
    assert [(type(end), end.args) for end in ends[1:]] == [(WriteFailedError, error.args)] * 5
    assert len({id(end) for end in [error, *ends[1:]]}) == 6
    del store.hooks["commit"]
    assert (await engine.write(append(9))).status is Status.DONE


async def test_unexpected_error_of_a_commit_reaches_its_callers_only(engine: Engine, store: MemoryStore) -> None:
    store.hooks["commit"] = store.hooks["vacuum"] = Raising(SurpriseError())
    for command in (append(1), Vacuum()):
        with pytest.raises(SurpriseError):
            await engine.write(command)
    store.hooks.clear()
    assert (await engine.write(append(2))).status is Status.DONE


@pytest.mark.parametrize("options", [StoreOptions(max_queue=2, max_batch=2)])
@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        ("commit", WriterStoppedError("the disk is gone"), "the disk is gone"),
        ("vacuum", WriterStoppedError("the disk is gone"), "the disk is gone"),
        ("maintain", WriterStoppedError("the disk is gone"), "the disk is gone"),
        ("one command", WriterStoppedError("the disk is gone"), "the disk is gone"),
        ("maintain", SurpriseError(), r"internal error \(SurpriseError\)"),
        ("maintain", WriteFailedError("not now"), r"internal error \(WriteFailedError\)"),
    ],
)
async def test_a_writer_that_stops_answers_all_that_wait(
    call: str, error: Exception, said: str, engine: Engine, store: MemoryStore
) -> None:
    """With the writer, queued, and waiting for a place in the queue."""
    first = Vacuum() if call == "vacuum" else append(1, SessionKey(APP, USER, "refused"))
    work = [first, *(append(number) for number in range(2, 8))]
    async with queued(engine, store, *work) as ends:
        assert len(engine.threads.queue._parked) == 5
        if call == "one command":
            assert isinstance(error, WriterStoppedError)
            store.refused["refused"] = error
        else:
            # What is held is let through, unless it is its maintenance that fails.
            store.hooks[call] = Raising(error)
    assert ends[0] == Outcome(Status.DONE)
    refused = ends[3:] if call == "one command" else ends[1:]
    assert {type(end) for end in refused} == {WriterStoppedError}
    assert len({id(end) for end in refused}) == len(refused)
    if call == "one command":
        # The neighbour in the same commit was carried out.
        assert (ends[1], ends[2].status) == (error, Status.DONE)
    await until(lambda: not engine.threads.health(60).writer_alive)
    with pytest.raises(WriterStoppedError, match=said):
        await engine.write(Flush())
    # Who reads needs no writer.
    assert await engine.read(CountEvents(KEY), int) == (call == "one command")


async def test_maintenance_comes_after_the_answers(engine: Engine, store: MemoryStore) -> None:
    gate = store.hooks["maintain"] = Gate()
    try:
        assert (await engine.write(append(1))).status is Status.DONE
        await happened(gate.reached)
    finally:
        gate.open()


async def test_maintenance_when_nothing_comes(store: MemoryStore) -> None:
    """The store says after how long; None: not at all."""
    maintained = threading.Event()

    def note() -> None:
        store.idle_seconds = None
        maintained.set()

    store.idle_seconds, store.hooks["maintain idle"] = 0.001, note
    engine = sharing.share(lambda: store, StoreOptions())
    await happened(maintained)
    await engine.write(new())
    await sharing.give_back(engine, first=True)
    assert store.calls == ["open writer", "maintain idle", "commit", "maintain", "close writer", "close"]


# --- Reading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [StoreOptions(readers=1)])
async def test_a_reader_is_kept_and_sees_what_was_committed(engine: Engine, store: MemoryStore) -> None:
    for number in range(3):
        await engine.write(append(number))
        assert await engine.read(CountEvents(KEY), int) == number + 1
        assert engine.read_inline(CountEvents(KEY), int) == (number + 1,)
    assert [call for call in store.calls if call.startswith("open")] == [
        "open writer",
        "open reader",
        "open inline reader",
    ]
    with store.reader(1.0) as reader:
        assert not reader.changed()
        await engine.write(append(3))
        assert reader.changed()
        assert not reader.changed()


async def test_a_read_that_would_wait_goes_to_a_thread(engine: Engine, store: MemoryStore) -> None:
    readers: list[str] = []

    def busy() -> None:
        readers.append(threading.current_thread().name)
        if readers[1:] == []:
            raise DatabaseBusyError("locked")

    store.hooks["ask"] = busy
    assert engine.read_inline(CountEvents(KEY), int) is None
    assert await engine.read(CountEvents(KEY), int) == 0
    assert readers == [threading.current_thread().name, "sessiondb-reader-0-memory"]


@pytest.mark.parametrize("options", [StoreOptions(readers=1)])
async def test_a_read_that_fails_is_told_to_its_caller(engine: Engine, store: MemoryStore) -> None:
    for call in ("open reader", "ask"):
        error = StorageError(call)
        store.hooks[call] = Raising(error)
        assert await outcomes([lambda: engine.read(CountEvents(KEY), int)]) == [error]
        del store.hooks[call]
    assert await engine.read(CountEvents(KEY), int) == 0
    assert store.calls.count("open reader") == 2


# --- Forks -----------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_fork_has_the_store_given_up_and_taken_up_again(engine: Engine, store: MemoryStore) -> None:
    assert engine.read_from_thread(CountEvents(KEY)) == 0
    assert engine.read_inline(CountEvents(KEY), int) == (0,)
    store.calls.clear()

    def calls() -> list[str]:
        # Maintenance comes when nobody waits for it any more.
        return [call for call in store.calls if call != "maintain"]

    def append_and_count(number: int) -> None:
        engine.write_from_thread(append(number))
        assert engine.read_from_thread(CountEvents(KEY)) == 1

    def child() -> None:
        append_and_count(1)
        # It has given up what it inherited, and has a writer and a reader of its own.
        assert calls() == [*given_up, "open writer", "commit", "open reader", "ask"]

    given_up = ["close reader", "close reader", "close writer"]
    pid = in_child(child)
    append_and_count(2)
    reap(pid)
    assert calls() == [*given_up, "resume writer", "commit", "open reader", "ask"]


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_store_that_is_gone_after_a_fork_stops_the_writer(engine: Engine, store: MemoryStore) -> None:
    store.hooks["resume writer"] = Raising(StorageError("no such place"))
    reap(in_child(lambda: None))
    with pytest.raises(WriterStoppedError, match="after a fork: no such place"):
        engine.write_from_thread(append(1))


# --- Sharing and closing ---------------------------------------------------------------------------------------------


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[MemoryStore]:
    """Has services open fake stores, one for each path; these are they."""
    stores: list[MemoryStore] = []

    def open_store(path: Path | None, _options: StoreOptions) -> MemoryStore:
        stores.append(MemoryStore(str(path)))
        return stores[-1]

    monkeypatch.setattr("sessiondb.stores.open_store", open_store)
    return stores


def is_empty(folder: Path) -> bool:
    return list(folder.iterdir()) == []


async def test_services_share_an_engine_by_the_stores_identity(opened: list[MemoryStore], tmp_path: Path) -> None:
    first, second, other = (DatabaseSessionService(tmp_path / name) for name in ("one", "one", "other"))
    assert engine_of(first) is engine_of(second) is not engine_of(other)
    assert [store.calls for store in opened] == [["open writer"], [], ["open writer"]]
    session = await create(first)
    await first.close()
    await second.append_event(session, event("through the other"))
    assert await texts(second, "s") == ["through the other"]
    assert "close" not in opened[0].calls
    await second.close()
    assert opened[0].calls[-2:] == ["close writer", "close"]
    # The next one begins anew.
    async with DatabaseSessionService(tmp_path / "one") as third:
        assert await third.get_session(APP, USER, "s") is None
    await other.close()
    assert is_empty(tmp_path)


async def test_services_that_share_a_store_must_agree_on_options(opened: list[MemoryStore], tmp_path: Path) -> None:
    async with DatabaseSessionService(tmp_path / "one", readers=3) as service:
        with pytest.raises(ConfigurationError, match=r"one' open with readers=3, max_batch=256: ") as caught:
            DatabaseSessionService(tmp_path / "one", max_batch=7)
        assert repr(str(tmp_path / "one")) in str(caught.value)
        await create(service)
    assert opened[1].calls == []


def test_a_store_that_cannot_be_opened_is_not_kept(store: MemoryStore) -> None:
    store.hooks["open writer"] = Raising(StorageError("damaged"))
    with pytest.raises(StorageError, match="damaged"):
        sharing.share(lambda: store, StoreOptions())
    assert store.calls == ["open writer", "close"]
    del store.hooks["open writer"]
    engine = sharing.share(lambda: store, StoreOptions(readers=1))
    give_back(engine)


async def test_close_waits_for_what_is_queued(store: MemoryStore) -> None:
    engine = sharing.share(lambda: store, StoreOptions())
    await engine.write(new())
    await engine.read(CountEvents(KEY), int)
    threads = engine.threads
    closing = threading.Thread(target=give_back, args=(engine,))
    async with queued(engine, store, *(append(number) for number in range(5))) as ends:
        closing.start()
        await until(lambda: refuses(threads.queue))
        with pytest.raises(ServiceClosedError):
            threads.queue.put(WriteTicket(Flush(), ends))  # type: ignore[arg-type]  # nobody is told
        assert closing.is_alive()
        assert store.rows[KEY] == []
    await anyio.to_thread.run_sync(closing.join)
    assert [end.status for end in ends] == [Status.DONE] * 6
    assert len(store.rows[KEY]) == 5
    # The writer goes last of what is open.
    assert store.calls[-4:] == ["maintain", "close reader", "close writer", "close"]
    with pytest.raises(ServiceClosedError):
        await engine.write(Flush())


# --- A service on it -------------------------------------------------------------------------------------------------


async def test_a_service_converses_on_a_store_that_is_no_file(opened: list[MemoryStore], tmp_path: Path) -> None:
    async with DatabaseSessionService(tmp_path / "one") as service:
        session = await service.create_session(APP, USER, "s", {"own": 1, "user:name": "Ann", "app:a": [1]})
        with pytest.raises(AlreadyExistsError):
            await create(service)
        overtaken = await get(service, "s")
        for number in range(3):
            await service.append_event(session, event(f"{number}", {"own": None, "n": number}))
        with pytest.raises(StaleSessionError):
            await service.append_event(overtaken, event("too late"))
        await service.append_event(session, session.events[0])
        await service.update_keys(APP, USER, "s", {"user:name": "Bea"})
        found = await get(service, "s")
        assert [text_of(stored) for stored in found.events[:3]] == ["0", "1", "2"]
        assert found.state == {"n": 2, "user:name": "Bea", "app:a": [1]}
        assert await service.get_user_state(APP, USER) == {"name": "Bea"}
        assert [row["session_id"] for row in await service.list_sessions()] == ["s"]
        assert service.get_event_count(APP, USER, "s") == 4
        stats = service.get_stats()
        assert (stats["sessions"], stats["events"], stats["state_keys"], stats["writes"]) == (1, 4, 3, 8)
        service.vacuum()
        with pytest.raises(ConfigurationError, match="a memory database cannot be copied to a file"):
            await service.backup(tmp_path / "copy")
        await service.delete_session(APP, USER, "s")
        assert await service.get_session(APP, USER, "s") is None
        with pytest.raises(SessionNotFoundError):
            await service.append_event(session, event("to nowhere"))
        assert "vacuum" in opened[0].calls
    assert is_empty(tmp_path)


async def test_a_service_forks_on_a_store_that_is_no_file(opened: list[MemoryStore], tmp_path: Path) -> None:
    async with DatabaseSessionService(tmp_path / "x.db") as service:
        session = await service.create_session(APP, USER, "s", {"n": 0})
        for number in (1, 2, 3):
            await service.append_event(session, event(str(number), {"n": number}, id=f"e{number}"))
        fork = await service.fork_session(APP, USER, "s", at_event_id="e2", new_session_id="fork")
        assert ([text_of(one) for one in fork.events], fork.state) == (["1", "2"], {"n": 2})
        await service.append_event(fork, event("other", {"n": 4}))
        assert await texts(service, "s") == ["1", "2", "3"]
        again = service.fork_session(APP, USER, "s", new_session_id="fork")
        (refused,) = await outcomes([lambda: again])
        assert isinstance(refused, AlreadyExistsError)

        # The store finds that what was read of the session does not hold any more, once.
        def replace() -> None:
            del opened[0].hooks["commit"]
            head = opened[0].heads[KEY]
            opened[0].heads[KEY] = head._replace(log_epoch=head.log_epoch + 1)

        opened[0].hooks["commit"] = replace
        whole = await service.fork_session(APP, USER, "s", new_session_id="whole")
        assert ([text_of(one) for one in whole.events], whole.state) == (["1", "2", "3"], {"n": 3})
    assert opened[0].calls.count("commit") == 9


async def test_a_turn_asks_the_store_for_its_lock_until_it_has_it(opened: list[MemoryStore], tmp_path: Path) -> None:
    async with DatabaseSessionService(tmp_path / "one") as service:
        (store,) = opened
        store.locked.add(KEY)
        with pytest.raises(TurnTimeoutError):
            await service.turn(APP, USER, "s", wait=0).take()

        def free_at_the_third_try() -> None:
            if store.calls.count("try turn lock") == 4:
                store.locked.clear()

        store.hooks["try turn lock"] = free_at_the_third_try
        async with service.turn(APP, USER, "s"):
            pass
        asked = [call for call in store.calls if "turn" in call]
    tries = ["try turn lock"]
    assert asked == ["open turn locks", *tries, "give up turn lock", *tries * 3, "give up turn lock"]
    # Whoever has the next turn reads what was committed.
    assert store.calls[-3:] == ["close writer", "close turn locks", "close"]
