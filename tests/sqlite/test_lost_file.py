"""A file, or a table in it, that is taken away while it is open: calls fail, nothing is stored, and all goes on once
it is back.
"""

from __future__ import annotations

import asyncio
import functools
import signal
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from sessiondb import DatabaseSessionService
from sessiondb.errors import FileLostError, StorageError
from sessiondb.logger import Repeated
from sessiondb.model.queries import ListEvents
from sessiondb.stores import open_reader
from tests.command import run_sessiondb
from tests.engine.processes import listen, say, start
from tests.engine.tools import APP, USER, create, event, get, move, other_program, outcomes, texts

pytestmark = pytest.mark.anyio


async def test_file_lost_replaced_and_put_back(database_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sessiondb.stores.sqlite.writer._CHECK_SECONDS", 0)
    async with DatabaseSessionService(database_path) as service:
        session = await create(service)
        away = database_path.with_suffix(".away")
        with other_program(database_path.with_name("another"), "CREATE TABLE t (x)"):
            pass
        move(database_path, away)
        results = await outcomes([functools.partial(service.append_event, session, event())])
        assert type(results[0]).__name__ == "FileLostError"
        assert session.events == []
        move(away.with_name("another"), database_path)
        results = await outcomes([functools.partial(service.append_event, session, event())])
        assert "replaced" in str(results[0])
        move(away, database_path)
        await service.append_event(session, event())
        assert await texts(service, "s") == ["hello"]


async def test_file_lost_before_a_reader_opens_it(database_path: Path, service: DatabaseSessionService) -> None:
    """No reader is open yet, and none can be opened: the caller is told, and the service recovers."""
    await create(service)
    away = database_path.with_suffix(".away")
    move(database_path, away)
    results: list[Any] = await outcomes([service.list_sessions])
    assert isinstance(results[0], StorageError)
    with pytest.raises(StorageError):
        await service.get_user_state(APP, USER)
    move(away, database_path)
    assert len(await service.list_sessions()) == 1
    assert await service.get_user_state(APP, USER) == {}


async def test_readers_of_a_replaced_file_say_that_it_is_lost(
    database_path: Path, service: DatabaseSessionService
) -> None:
    """Seen failing while they spoke of a write that SQLite refused, and of a failing disk."""
    await create(service)
    # Nothing is left in the WAL, which would be read all the same.
    await anyio.to_thread.run_sync(service.vacuum)
    away = database_path.with_suffix(".away")
    other = database_path.with_suffix(".other")
    with other_program(other, "CREATE TABLE t (x)"):
        pass
    move(database_path, away)
    move(other, database_path)
    for call in (service.list_sessions, functools.partial(service.get_user_state, APP, USER)):
        (result,) = await outcomes([call])
        assert isinstance(result, FileLostError)
        assert "was replaced while it was open" in str(result)
    move(away, database_path)
    assert len(await service.list_sessions()) == 1


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


async def test_lost_file_is_logged_once_and_then_at_intervals(
    database_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Seen failing while a thousand failing calls wrote a thousand lines."""
    monkeypatch.setattr("sessiondb.stores.sqlite.writer._CHECK_SECONDS", 0)
    async with DatabaseSessionService(database_path, max_batch=1) as service:
        session = await create(service)
        away = database_path.with_suffix(".away")
        move(database_path, away)
        append = functools.partial(service.append_event, session, event())

        def told() -> list[int]:
            return [record.__dict__["repeated"] for record in caplog.records if record.msg == "file_lost"]

        await outcomes([append] * 20)
        assert told() == [0]
        monkeypatch.setattr(Repeated, "INTERVAL", 0)
        await outcomes([append])
        assert told() == [0, 19]
        monkeypatch.undo()
        # A call that succeeds ends it: the next time is told at once.
        move(away, database_path)
        monkeypatch.setattr("sessiondb.stores.sqlite.writer._CHECK_SECONDS", 0)
        await append()
        move(database_path, away)
        await outcomes([functools.partial(service.append_event, session, event("again"))])
        assert told() == [0, 19, 0]
        assert "Put the file back" in caplog.records[-1].__dict__["hint"]
        move(away, database_path)


def append_until_told(path: str) -> None:
    """Appends and says how it went, for each line that the parent writes; a program of its own."""

    async def main() -> None:
        service = DatabaseSessionService(path)
        session = await create(service)
        say("ready")
        while (text := listen()) != "":
            (result,) = await outcomes([functools.partial(service.append_event, session, event(text))])
            say(type(result).__name__)

    asyncio.run(main())


@pytest.mark.parametrize("ended_by", [signal.SIGKILL, signal.SIGTERM])
def test_wal_removed_while_open_loses_nothing_acknowledged(database_path: Path, ended_by: signal.Signals) -> None:
    """Seen failing while the process was the only one to have what it had acknowledged: SIGKILL lost 3 of 3 events."""
    wal = database_path.with_name(database_path.name + "-wal")
    process = start(append_until_told, database_path)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        for text, answer in (("1", "Event"), ("2", "Event"), ("3", "Event"), ("", "")):
            if not text:
                wal.unlink()
                text, answer = "meanwhile", "FileLostError"  # noqa: PLW2901  # the last round
            process.stdin.write(text + "\n")
            process.stdin.flush()
            assert process.stdout.readline() == answer + "\n"
        # From outside it is said, and not taken for a file at rest.
        with pytest.raises(FileLostError, match=f"write-ahead log .* was removed while process {process.pid} "):
            open_reader(database_path)
        for command in ("check", "stats", "list"):
            done = run_sessiondb(command, database_path)
            assert done.returncode == 1
            assert "was removed while process" in done.stderr
            assert "sound" not in done.stdout
        process.send_signal(ended_by)
        assert process.wait() == -ended_by
    finally:
        process.kill()
        process.communicate()
    with open_reader(database_path) as reader:
        stored = [row.row.content or "" for row in reader.ask(ListEvents())]
    assert [text in content for text, content in zip("123", stored, strict=False)] == [True] * 3
