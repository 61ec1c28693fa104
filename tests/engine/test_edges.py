"""Rare turns of the core that the other files of this folder do not take.

Seen to fail with a handle that trusts the marker of any service, with redelivery compared letter by letter, and with options that are
not compared when a file is shared.
"""

from __future__ import annotations

import functools
import os
import sqlite3
import threading
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from types import MappingProxyType
from typing import Any

import anyio
import pytest
from google.adk.events import Event
from google.adk.sessions import Session
from google.adk.sessions.base_session_service import GetSessionConfig

from sessiondb import DatabaseSessionService
from sessiondb.engine.queue import WriteQueue, WriteTicket
from sessiondb.engine.waiting import ThreadWaiter
from sessiondb.errors import (
    ConfigurationError,
    CorruptRowError,
    DatabaseBusyError,
    DatabaseCorruptError,
    InvalidInputError,
    StaleSessionError,
    StorageError,
    UnsupportedDatabaseError,
    WriteFailedError,
)
from sessiondb.model.commands import Flush
from sessiondb.stores.sqlite import schema
from sessiondb.stores.sqlite.connection import enter_wal_mode, open_reader, open_writer, translate
from tests.engine.tools import (
    APP,
    USER,
    create,
    event,
    get,
    happened,
    other_program,
    outcomes,
    pending,
    text_of,
    texts,
    until,
    writer_stopped,
)

pytestmark = pytest.mark.anyio


def contents(path: Path) -> bytes:
    return path.read_bytes()


async def test_append_of_wrong_type_is_invalid_input(service: DatabaseSessionService) -> None:
    session = await create(service)
    wrong: Any = {"id": "s"}
    no_mapping: Any = ["k"]
    for call in (
        functools.partial(service.append_event, wrong, event()),
        functools.partial(service.append_event, session, wrong),
        functools.partial(service.update_keys, APP, USER, "s", no_mapping),
        functools.partial(service.get_session, APP, USER, wrong),
    ):
        with pytest.raises(InvalidInputError):
            await call()
    partial = event(partial=True)
    assert await service.append_event(session, partial) is partial
    assert session.events == []
    assert (await service.create_session(APP, USER, "t", None)).state == {}


async def test_stale_check_of_session_restored_from_json(service: DatabaseSessionService) -> None:
    """Restored from JSON, or from another service: its last event tells where it stands."""
    session = await create(service)
    empty = Session.model_validate_json(session.model_dump_json())
    await service.append_event(session, event("1"))
    restored = Session.model_validate_json(session.model_dump_json())
    foreign = session.model_copy(deep=True)
    foreign._storage_update_marker = "2026-01-01 00:00:00"
    with pytest.raises(StaleSessionError):
        await service.append_event(empty, event("too late"))
    await service.append_event(restored, event("2"))
    with pytest.raises(StaleSessionError):
        await service.append_event(foreign, event("too late"))
    fresh = restored.model_copy(deep=True)
    fresh._storage_update_marker = "another service:7:7"
    await service.append_event(fresh, event("3"))
    assert await texts(service, "s") == ["1", "2", "3"]


async def test_concurrent_appends_through_restored_session(service: DatabaseSessionService) -> None:
    await create(service)
    other = await create(service, "other")
    restored = Session(id="s", app_name=APP, user_id=USER)
    with writer_stopped(service) as gate:
        async with anyio.create_task_group() as group:
            group.start_soon(service.append_event, other, event())
            await happened(gate.reached)
            for number in range(3):
                group.start_soon(service.append_event, restored, event(f"{number}"))
                await until(lambda number=number: pending(service) == number * 2 + 1)  # type: ignore[misc]
                group.start_soon(service.create_session, APP, USER, f"between {number}")
                await until(lambda number=number: pending(service) == number * 2 + 2)  # type: ignore[misc]
            gate.open()
    assert await texts(service, "s") == ["0", "1", "2"]
    await service.append_event(restored, event("3"))


async def test_duplicate_event_is_known_by_its_content(service: DatabaseSessionService) -> None:
    session = await create(service)
    first = event("once", {"a": 1, "b": 2}, id="e", timestamp=5.0)
    await service.append_event(session, first)
    again = await get(service, "s")
    await service.append_event(again, event("once", {"b": 2, "a": 1}, id="e", timestamp=5.0))
    await service.append_event(session, event("once", {"a": 1, "b": 2}, id="e", timestamp=5.0))
    assert await texts(service, "s") == ["once"]
    # Others of the same id are events of their own.
    await service.append_event(session, event("once", {"a": 1, "b": 3}, id="e", timestamp=5.0))
    await service.append_event(session, Event(author="user", id="e", timestamp=5.0))
    await service.update_keys(APP, USER, "s", {"c": 1})
    found = await get(service, "s")
    assert [each.id for each in found.events][:3] == ["e", "e", "e"]
    assert found.state == {"a": 1, "b": 3, "c": 1}


async def test_get_session_filters_with_cache_off(database_path: Path) -> None:
    async with DatabaseSessionService(database_path, log_cache="off") as service:
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


async def test_cache_smaller_than_its_logs_keeps_answers(database_path: Path) -> None:
    async with DatabaseSessionService(database_path, log_cache_bytes=30_000) as service:
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


async def test_text_that_is_not_utf8_is_corrupt_row_error(database_path: Path, service: DatabaseSessionService) -> None:
    """Its row is named, its content is not quoted, and the reader that met it reads what comes later.

    Seen failing while sqlite3's own message went on, which quotes the text, and with a statement left half read, which
    keeps the reader at the moment of the error.
    """
    session = await service.create_session(APP, USER, "s", {"own": 1, "user:theirs": 2})
    await service.append_event(session, event())
    calls: dict[str, list[Callable[[], Awaitable[object]]]] = {
        "adk_events.content": [functools.partial(get, service, "s")],
        "adk_sessions.created_at": [service.list_sessions],
        "adk_state.state_value": [
            functools.partial(get, service, "s"),
            functools.partial(service.list_sessions, APP),
            functools.partial(service.get_user_state, APP, USER),
        ],
    }
    for place, reading in calls.items():
        table, _, column = place.partition(".")
        with closing(sqlite3.connect(database_path)) as connection, connection:
            (before,) = connection.execute(f"SELECT {column} FROM {table} ORDER BY rowid DESC").fetchone()
            connection.execute(f"UPDATE {table} SET {column} = CAST(x'22736563726574ff22' AS TEXT)")
        errors = await outcomes(reading)
        for error in errors:
            assert isinstance(error, CorruptRowError)
            assert f"{column} of row 1 of {table} is not UTF-8" in str(error)
            assert "secret" not in str(error)
        with closing(sqlite3.connect(database_path)) as connection, connection:
            connection.execute(f"UPDATE {table} SET {column} = ?", (before,))
        for read in reading:
            assert not isinstance((await outcomes([read]))[0], Exception)


async def test_append_to_read_only_session_state_is_stored(service: DatabaseSessionService) -> None:
    """The event is stored, the error of bringing the Session in line reaches the caller, and the loop goes on."""
    session, other = await create(service), await create(service, "other")
    session.state = MappingProxyType({})  # type: ignore[assignment]  # a host's own idea
    results = await outcomes(
        [functools.partial(service.append_event, each, event(state={"k": 1})) for each in (session, other)]
    )
    assert isinstance(results[0], AttributeError)
    assert results[1] == other.events[0]
    assert (await get(service, "s")).state == {"k": 1}


async def test_shared_file_with_other_options_is_refused(database_path: Path, service: DatabaseSessionService) -> None:
    with pytest.raises(ConfigurationError, match=r"durability='full', readers=4"):
        DatabaseSessionService(database_path, durability="normal", readers=3)
    async with DatabaseSessionService(database_path, log_cache="off", on_stale="append") as other:
        assert other._opened is service._opened


def test_symlink_fifo_and_directory_paths_are_refused(tmp_path: Path) -> None:
    target = tmp_path / "target.sqlite3"
    (tmp_path / "link").symlink_to(target)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "plain").touch()
    for path, error in (
        (tmp_path / "link", ConfigurationError),
        (tmp_path, ConfigurationError),
        (tmp_path / "pipe", ConfigurationError),
        (tmp_path / "plain" / "below", StorageError),
    ):
        with pytest.raises(error):
            DatabaseSessionService(path)
    assert not target.exists()


async def test_missing_parent_directories_are_created(tmp_path: Path) -> None:
    async with DatabaseSessionService(tmp_path / "some" / "where" / "adk.sqlite3") as service:
        await create(service)


async def test_foreign_and_newer_schema_files_are_untouched(tmp_path: Path) -> None:
    foreign, newer, current = tmp_path / "foreign", tmp_path / "newer", tmp_path / "current"
    with other_program(foreign, "CREATE TABLE t (x)"):
        pass
    async with DatabaseSessionService(newer):
        pass
    with other_program(newer, f"PRAGMA user_version={schema.SCHEMA_VERSION + 1}"):
        pass
    before = contents(foreign), contents(newer)
    for path, words in ((foreign, "another program"), (newer, "newer sessiondb")):
        with pytest.raises(UnsupportedDatabaseError, match=words):
            DatabaseSessionService(path)
    assert (contents(foreign), contents(newer)) == before
    async with DatabaseSessionService(current) as service:
        await create(service)
    async with DatabaseSessionService(current) as service:
        assert len(await service.list_sessions()) == 1


async def test_open_races_with_process_that_creates_tables(
    database_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = enter_wal_mode

    def enter(connection: sqlite3.Connection, path: Path) -> None:
        original(connection, path)
        monkeypatch.setattr(schema, "enter_wal_mode", original)
        other = sqlite3.connect(path, isolation_level=None)
        schema.prepare(other, path)
        other.close()

    monkeypatch.setattr(schema, "enter_wal_mode", enter)
    async with DatabaseSessionService(database_path) as service:
        await create(service)


async def test_failed_create_table_is_rolled_back(database_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as broken:
        tables = "CREATE TABLE t (x);\nCREATE TABLE u (;\n"
        broken.setattr(schema.prepare, "__defaults__", (schema.PRESENT._replace(tables=tables),))
        with pytest.raises(WriteFailedError, match="syntax error"):
            DatabaseSessionService(database_path)
    async with DatabaseSessionService(database_path) as service:
        await create(service)
        with other_program(database_path) as other:
            assert other.execute("SELECT count(*) FROM sqlite_schema WHERE name = 't'").fetchone() == (0,)


async def test_slow_commit_is_logged(
    service: DatabaseSessionService, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("sessiondb.engine.writer._SLOW_SECONDS", 0)
    await create(service)
    assert "slow_commit" in {record.getMessage() for record in caplog.records}


async def test_health_shows_stalled_and_busy_writer(database_path: Path) -> None:
    service = DatabaseSessionService(database_path)
    session = await create(service)
    assert service.health().healthy
    with writer_stopped(service) as gate:
        async with anyio.create_task_group() as group:
            group.start_soon(service.append_event, session, event())
            await happened(gate.reached)
            health = service.health(stalled_after=0)
            assert (health.healthy, health.writer_alive, health.pending_writes) == (False, True, 0)
            assert health.busy_seconds > 0
            assert service.health(stalled_after=3600).healthy
            gate.open()
    await service.close()


async def test_close_that_fails_raises_its_error(database_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = DatabaseSessionService(database_path)
    engine = service._opened.engine
    with monkeypatch.context() as broken:

        def fail(_patience: float | None) -> None:
            raise RuntimeError("not today")

        broken.setattr(engine, "close", fail)
        with pytest.raises(RuntimeError, match="not today"):
            await service.close()
    engine.close(None)
    await service.close()


def test_queue_put_races_with_timeout_of_take() -> None:
    """The writer's wait has run out, and before it can say so a ticket is put: it must be taken, not left."""
    queue = WriteQueue(1)
    ticket: WriteTicket = WriteTicket(Flush(), ThreadWaiter())
    real = queue._doorbell

    class Doorbell:
        def acquire(self, timeout: float = -1) -> bool:
            if timeout != -1:
                assert queue.put(ticket)
                return False
            return real.acquire()

        def release(self) -> None:
            real.release()

    queue._doorbell = Doorbell()  # type: ignore[assignment]  # stands between the wait and its end
    taken: list[object] = []
    thread = threading.Thread(target=lambda: taken.append(queue.take(8, 0.001)))
    thread.start()
    thread.join()
    assert taken == [[ticket]]


async def test_sqlite_version_too_old_is_refused(database_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sessiondb.stores.sqlite.connection._OLDEST_SQLITE", (99, 0, 0))
    with pytest.raises(ConfigurationError, match=r"99\.0\.0 or newer"):
        DatabaseSessionService(database_path)


def test_file_system_without_wal_is_refused(database_path: Path) -> None:
    """As SQLite answers on a network mount: the mode stays what it is."""
    connection = sqlite3.connect(":memory:")
    with pytest.raises(UnsupportedDatabaseError, match="stays in 'memory'"):
        enter_wal_mode(connection, database_path)
    connection.close()


@pytest.mark.parametrize(
    ("function", "arguments", "error"),
    [
        (open_writer, ("full", 1.0), sqlite3.OperationalError("refused")),
        (open_writer, ("full", 1.0), KeyboardInterrupt()),
        (open_reader, (1.0,), sqlite3.OperationalError("refused")),
        (open_reader, (1.0,), KeyboardInterrupt()),
    ],
)
def test_connection_that_fails_its_setup_is_closed(
    database_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    function: Any,
    arguments: tuple[Any, ...],
    error: BaseException,
) -> None:
    database_path.touch()
    closed: list[bool] = []

    class Refusing(sqlite3.Connection):
        def execute(self, *_: Any) -> sqlite3.Cursor:
            raise error

        def close(self) -> None:
            closed.append(True)
            super().close()

    monkeypatch.setattr(sqlite3, "connect", functools.partial(sqlite3.connect, factory=Refusing))
    with pytest.raises(StorageError if isinstance(error, sqlite3.Error) else KeyboardInterrupt):
        function(database_path, *arguments)
    assert closed == [True]


def test_sqlite_error_codes_map_to_error_classes(database_path: Path) -> None:
    error = sqlite3.DatabaseError("malformed")
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT_INDEX
    assert isinstance(translate(error, database_path), DatabaseCorruptError)
    error.sqlite_errorcode = sqlite3.SQLITE_NOTADB
    assert isinstance(translate(error, database_path), UnsupportedDatabaseError)
    error.sqlite_errorcode = sqlite3.SQLITE_BUSY_SNAPSHOT
    assert isinstance(translate(error, database_path), DatabaseBusyError)
    assert type(translate(sqlite3.Error("none"), database_path, reading=True)) is StorageError


async def test_threads_racing_after_fork_start_one_engine(service: DatabaseSessionService) -> None:
    """After a fork the first call starts the machinery; one that waited for it meanwhile takes what was started."""
    store, engine = service._opened, service._opened.engine

    class HeldByTheFirst:
        def __enter__(self) -> None:
            store._engine = engine

        def __exit__(self, *_: object) -> None:
            store._lock = lock

    lock = store._lock
    store._engine, store._lock = None, HeldByTheFirst()  # type: ignore[assignment]  # stands in for a wait
    assert store.engine is engine
    await create(service)


async def test_renamed_table_fails_calls_until_it_is_back(database_path: Path, service: DatabaseSessionService) -> None:
    """Calls fail meanwhile, nothing of them is stored, and the service goes on.

    Seen failing while a batch of one command was not tried again: every single append was refused from then on.
    """
    session = await create(service)
    await service.append_event(session, event("before"))
    assert await texts(service, "s") == ["before"]
    with other_program(database_path, "PRAGMA legacy_alter_table=ON", "ALTER TABLE adk_events RENAME TO away") as other:
        for call in (
            functools.partial(service.append_event, session, event("meanwhile")),
            functools.partial(get, service, "s"),
        ):
            assert isinstance((await outcomes([call]))[0], StorageError)
        other.execute("ALTER TABLE away RENAME TO adk_events")
    await service.append_event(session, event("after"))
    assert await texts(service, "s") == ["before", "after"]
    assert service.get_event_count(APP, USER, "s") == 2
