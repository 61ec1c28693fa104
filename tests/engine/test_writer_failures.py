"""What the writer does when its own means fail: nobody waits for ever, and what can go on goes on.

Seen to fail with a writer that catches ``Exception`` only, with a failed sync that is tried again, and without
``drain`` at the thread's end.
"""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from sessiondb import DatabaseSessionService
from sessiondb.errors import WriteFailedError, WriterStoppedError
from tests.engine.failing_connection import FSYNC, SurpriseError, break_writer, sqlite_error
from tests.engine.tools import (
    APP,
    USER,
    alive,
    create,
    event,
    get,
    happened,
    other_program,
    outcomes,
    pending,
    sqlite_writer,
    texts,
    threads_of,
    until,
    writer_stopped,
)

pytestmark = pytest.mark.anyio


async def test_exception_in_batch_reaches_callers_only(
    service: DatabaseSessionService,
) -> None:
    session = await create(service)
    break_writer(service, "INSERT INTO fast_appends", SurpriseError())
    with pytest.raises(SurpriseError):
        await service.append_event(session, event())
    assert session.events == []
    await service.append_event(session, event("again"))
    break_writer(service, "COMMIT", SurpriseError())
    with pytest.raises(SurpriseError):
        await service.delete_session(APP, USER, "s")
    assert await texts(service, "s") == ["again"]
    await service.append_event(session, event("and again"))


async def test_disk_full_or_io_error_writes_nothing_of_the_batch(
    service: DatabaseSessionService,
) -> None:
    session = await create(service)
    break_writer(service, "COMMIT", sqlite_error(sqlite3.SQLITE_FULL, "SQLITE_FULL"))
    with pytest.raises(WriteFailedError, match="SQLITE_FULL"):
        await service.delete_session(APP, USER, "s")
    break_writer(service, "INSERT", sqlite_error(sqlite3.SQLITE_IOERR, "SQLITE_IOERR"))
    with pytest.raises(WriteFailedError):
        await service.append_event(session, event())
    assert service.get_stats()["failed_batches"] == 2
    await service.append_event(session, event())
    assert await texts(service, "s") == ["hello"]


async def test_rollback_that_fails_after_disk_full(service: DatabaseSessionService) -> None:
    session = await create(service)
    connection = sqlite_writer(service)._connection
    break_writer(service, "COMMIT", sqlite_error(sqlite3.SQLITE_FULL, "SQLITE_FULL"))
    break_writer(service, "ROLLBACK", sqlite_error(sqlite3.SQLITE_IOERR, "SQLITE_IOERR"))
    with pytest.raises(WriteFailedError, match="SQLITE_FULL"):
        await service.delete_session(APP, USER, "s")
    connection.execute("ROLLBACK")
    await service.append_event(session, event())
    assert await texts(service, "s") == ["hello"]


@pytest.mark.parametrize("call", ["append", "vacuum", "alone"])
async def test_fsync_error_stops_writer_and_everybody_is_told(database_path: Path, call: str) -> None:
    service = DatabaseSessionService(database_path, max_batch=3)
    sessions = [await create(service, f"s{number}") for number in range(6)]
    threads = threads_of(service)
    results: list[object] = []
    calls: list[Callable[[], Any]] = [
        functools.partial(service.append_event, session, event()) for session in sessions[1:]
    ]
    if call == "alone":
        with other_program(
            database_path,
            "CREATE TRIGGER theirs AFTER INSERT ON adk_events WHEN NEW.session_id = 's1'"
            " BEGIN SELECT RAISE(ABORT, 'not this one'); END",
        ):
            pass

    async def append(call: Callable[[], Any]) -> None:
        results.extend(await outcomes([call]))

    async def vacuum() -> None:
        results.extend(await outcomes([functools.partial(anyio.to_thread.run_sync, service.vacuum)]))

    # Not at the look at the schema that comes before it now and then: the first INSERT is not the one that fails.
    with writer_stopped(service, "INSERT") as gate:
        async with anyio.create_task_group() as group:
            group.start_soon(service.append_event, sessions[0], event("acknowledged"))
            await happened(gate.reached)
            if call == "vacuum":
                group.start_soon(vacuum)
                await until(lambda: pending(service) == 1)
            for each in calls:
                before = pending(service)
                group.start_soon(append, each)
                await until(lambda before=before: pending(service) > before)  # type: ignore[misc]
            if call == "vacuum":
                break_writer(service, "VACUUM", FSYNC)
            elif call == "alone":
                # The batch is refused for one of its commands; the next one's own commit fails.
                break_writer(service, "INSERT INTO fast_appends", FSYNC, passes=2)
            else:
                break_writer(service, "INSERT", FSYNC)
            gate.open()
    refused = [result for result in results if isinstance(result, WriterStoppedError)]
    # The command that was refused has an error of its own.
    assert len(results) - len(refused) == (call == "alone")
    assert len({id(error) for error in refused}) == len(refused)
    await until(lambda: not threads[0].is_alive())
    with pytest.raises(WriterStoppedError, match="synced"):
        await service.append_event(sessions[0], event())
    # What was acknowledged can be read, here and by who opens the file anew.
    assert await texts(service, "s0") == ["acknowledged"]
    await service.close()
    assert alive(threads) == []
    async with DatabaseSessionService(database_path) as reopened:
        assert await texts(reopened, "s0") == ["acknowledged"]
        await reopened.append_event(await get(reopened, "s0"), event("goes on"))


async def test_writer_thread_that_dies_answers_everybody(database_path: Path) -> None:
    """An error beside the commands, where nobody could be told but all: no caller is left waiting."""
    service = DatabaseSessionService(database_path)
    session, other = await create(service), await create(service, "other")
    threads = threads_of(service)

    def surprise(*, idle: bool) -> None:
        raise SurpriseError

    results: list[object] = []
    with writer_stopped(service) as gate:
        async with anyio.create_task_group() as group:
            group.start_soon(service.append_event, session, event("acknowledged"))
            await happened(gate.reached)
            sqlite_writer(service).maintain = surprise  # type: ignore[method-assign]  # fails

            async def append() -> None:
                results.extend(await outcomes([functools.partial(service.append_event, other, event())]))

            group.start_soon(append)
            await until(lambda: pending(service) == 1)
            gate.open()
    assert isinstance(results[0], WriterStoppedError)
    with pytest.raises(WriterStoppedError, match="SurpriseError"):
        await service.flush()
    assert await texts(service, "s") == ["acknowledged"]
    assert await texts(service, "other") == []
    await service.close()
    assert alive(threads) == []
