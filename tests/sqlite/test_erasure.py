"""Of a user who was erased no byte is left in the file, nor beside it.

Seen to fail without the rebuilding (remains of what was overwritten earlier), without the cut of the write-ahead log, and with
one that takes a log for cut that is not.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Literal
from unittest.mock import patch

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from google.adk.events import Event, EventActions
from google.genai import types

from sessiondb import DatabaseSessionService
from sessiondb.errors import DatabaseCorruptError
from sessiondb.options import Durability
from sessiondb.stores.sqlite import connection as connection_module
from tests.command import run_function
from tests.engine.tools import engine_of, other_program, sqlite_writer, until, writer_at_rest

pytestmark = pytest.mark.anyio

APP = "app"
NEEDLE = "needle4711"
"""In all that belongs to the user, and in nothing else."""
USER = f"user-{NEEDLE}"
SESSIONS, EVENTS, OTHERS = 6, 30, 3


@pytest.fixture
def anyio_backend() -> str:
    """One loop: the files are the same under each."""
    return "asyncio"


def said(text: str, number: int, **state: object) -> Event:
    content = types.Content(role="user", parts=[types.Part(text=f"{text} {number} " + "x" * (number % 50) * 20)])
    return Event(author="agent", invocation_id=f"i-{text}", content=content, actions=EventActions(state_delta=state))


async def talk(service: DatabaseSessionService, user: str, text: str) -> None:
    """Sessions of a user, side by side with those of others, whose rows come to stand on the same pages."""
    for name in range(SESSIONS):
        session = await service.create_session(APP, user, f"{text}-{name}", {f"user:{text}": text, text: text})
        for first in range(0, EVENTS, 10):
            await service.append_events(
                session, [said(text, n, **{f"user:{text}": f"{text} {n}"}) for n in range(first, first + 10)]
            )


async def use(service: DatabaseSessionService) -> None:
    """The user talks beside others; some is overwritten, some deleted, as it happens before an erasure."""
    async with anyio.create_task_group() as group:
        group.start_soon(talk, service, USER, NEEDLE)
        for number in range(OTHERS):
            group.start_soon(talk, service, f"other{number}", f"other{number}")
    for name in range(3):
        await service.delete_session(APP, USER, f"{NEEDLE}-{name}")
    await service.update_keys(APP, USER, f"{NEEDLE}-4", {f"user:{NEEDLE}": None, NEEDLE: "x" * 10})
    await service.fork_session(APP, "other1", "other1-0", new_user_id=USER, new_session_id=f"fork-{NEEDLE}")


def found(path: Path) -> dict[str, int]:
    """How often the needle is in each file of a database."""
    files = sorted(path.parent.glob(f"{path.name}*"))
    assert path in files
    return {file.name: count for file in files if (count := file.read_bytes().count(NEEDLE.encode()))}


@pytest.fixture
def remains_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is deleted and overwritten stays in slack and free pages: SQLite is built so, or not."""

    def open_writer(path: Path, durability: Durability, busy_timeout: float) -> sqlite3.Connection:
        connection = connection_module.open_writer(path, durability, busy_timeout)
        connection.execute("PRAGMA secure_delete=OFF")
        return connection

    monkeypatch.setattr("sessiondb.stores.sqlite.writer.open_writer", open_writer)


@pytest.mark.usefixtures("remains_stay")
@pytest.mark.parametrize("index", [None, "text"])
async def test_nothing_is_left_in_any_file(database_path: Path, index: Literal["text"] | None) -> None:
    async with DatabaseSessionService(database_path, index=index) as service:
        await use(service)
        session = await service.get_session(APP, "other0", "other0-0")
        assert session is not None
        async with service.turn(APP, USER, f"{NEEDLE}-5"):
            await service.flush()
        await service.fork_session(APP, USER, f"{NEEDLE}-5", new_user_id="other1", new_session_id="of a fork")
        await service.delete_session(APP, "other1", "of a fork")
        stop = False

        async def go_on() -> None:
            number = 0
            while not stop:
                await service.append_event(session, said("other", number))
                number += 1

        async with anyio.create_task_group() as group:
            group.start_soon(go_on)
            assert found(database_path)[database_path.name + "-wal"]
            report = await service.erase_user(APP, USER)
            assert report.purged, report
            assert report.sessions == 4
            assert found(database_path) == {}
            await anyio.lowlevel.checkpoint()
            stop = True
        assert len(await service.list_sessions(APP)) == OTHERS * SESSIONS
        assert found(database_path) == {}
        if index:
            # An index keeps a word's beginning with the word before it: the file alone does not show that it is gone.
            assert (await service.search(NEEDLE)).hits == []
            assert (await service.search("other1")).hits != []
            assert not words_of_index(database_path, NEEDLE[1:])
    assert found(database_path) == {}


def words_of_index(path: Path, end: str) -> list[str]:
    """The words of a file's index that end so, whosever they are."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE VIRTUAL TABLE temp.words USING fts5vocab(main, sessiondb_text, 'row')")
        rows = connection.execute("SELECT term FROM temp.words WHERE term LIKE ?", (f"%{end}",))
        return [word for (word,) in rows]


@pytest.mark.usefixtures("remains_stay")
async def test_rows_alone_are_not_all(database_path: Path) -> None:
    """The search sees what a deletion leaves; a later vacuum removes that, too."""
    async with DatabaseSessionService(database_path) as service:
        await use(service)
        report = await service.erase_user(APP, USER, purge=False)
        assert (report.purged, report.hint) == (
            False,
            "purge=False: what was deleted is overwritten by the next vacuum()",
        )
        with writer_at_rest(service):
            sqlite_writer(service)._wal.checkpoint(cut=True)
        assert found(database_path)[database_path.name]
        service.vacuum()
        assert found(database_path) == {}


async def test_database_in_memory_is_erased_too() -> None:
    async with DatabaseSessionService(":memory:") as service:
        path = Path(engine_of(service).store.name)
        await use(service)
        assert found(path)
        assert (await service.erase_user(APP, USER)).purged
        assert found(path) == {}


async def test_reader_that_holds_the_log_is_waited_for(database_path: Path) -> None:
    async with DatabaseSessionService(database_path) as service:
        await use(service)
        reports = []

        async def erase() -> None:
            reports.append(await service.erase_user(APP, USER))

        with other_program(database_path, "BEGIN", "SELECT count(*) FROM adk_events"):
            async with anyio.create_task_group() as group:
                group.start_soon(erase)
                blocked = service.get_stats()["blocked_checkpoints"]
                await until(lambda: service.get_stats()["blocked_checkpoints"] > blocked + 3)
                # Deleted it is, and others go on.
                assert await service.get_user_state(APP, USER) == {}
                await service.create_session(APP, "other5", "new")
                assert not reports
                assert found(database_path)
                group.cancel_scope.cancel()
        assert (await service.erase_user(APP, USER)).purged
        assert found(database_path) == {}


async def test_reader_that_does_not_end_is_reported(database_path: Path) -> None:
    async with DatabaseSessionService(database_path, busy_timeout=0.3) as service:
        await use(service)
        with other_program(database_path, "BEGIN", "SELECT count(*) FROM adk_events"):
            report = await service.erase_user(APP, USER)
            assert (report.sessions, report.purged) == (4, False)
            assert "somebody has been reading since before" in report.hint
            assert await service.get_user_state(APP, USER) == {}
            assert found(database_path)
        assert (await service.erase_user(APP, USER)).purged
        assert found(database_path) == {}


async def test_log_that_another_process_has_started_anew_is_not_taken_for_cut(
    database_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It begins with what is new, and what was there before still stands behind that."""
    async with DatabaseSessionService(database_path) as service:
        await use(service)
        keeper = sqlite_writer(service)._wal
        cut = keeper._cut
        interrupted: list[bool] = []

        def cut_too_late() -> None:
            if len(interrupted) < 3:
                interrupted.append(True)
                # Its commit comes between the checkpoint and the cut.
                with other_program(database_path, "PRAGMA wal_autocheckpoint=0", "PRAGMA user_version=2"):
                    pass
            cut()

        monkeypatch.setattr(keeper, "_cut", cut_too_late)
        report = await service.erase_user(APP, USER)
        assert report.purged
        assert len(interrupted) == 3
        assert found(database_path) == {}


async def test_damaged_file_is_reported_after_the_deletion(
    database_path: Path, service: DatabaseSessionService
) -> None:
    await service.create_session(APP, USER, NEEDLE)
    with other_program(
        database_path,
        "INSERT INTO adk_events (app_name, user_id, session_id, invocation_id, author, timestamp, actions, seq,"
        " revision, event_id, event_time, incarnation, event_hash)"
        " VALUES ('app', 'user', 'nobody', 'i', 'user', '', '{}', 1, 1, 'e', 0, 1, 1)",
    ):
        pass
    report = await service.erase_user(APP, USER)
    assert (report.sessions, report.purged) == (1, False)
    assert "is damaged and was not rebuilt" in report.hint
    with pytest.raises(DatabaseCorruptError):
        service.vacuum()


async def test_samples_of_the_planner_are_erased(database_path: Path) -> None:
    """An SQLite that is built with them keeps keys of rows in a table of its own."""
    async with DatabaseSessionService(database_path) as service:
        await service.create_session(APP, USER, NEEDLE)
    with other_program(
        database_path,
        "CREATE TABLE samples (tbl, idx, neq, nlt, ndlt, sample)",
        f"INSERT INTO samples VALUES ('adk_sessions', 'i', '1', '1', '1', CAST('{USER}' AS BLOB))",
        "PRAGMA writable_schema=ON",
        "UPDATE sqlite_schema SET name = 'sqlite_stat4', tbl_name = 'sqlite_stat4',"
        " sql = replace(sql, 'samples', 'sqlite_stat4') WHERE name = 'samples'",
    ):
        pass
    async with DatabaseSessionService(database_path) as service:
        assert (await service.erase_user(APP, USER)).purged
        assert found(database_path) == {}


def erase_until_killed(path: str, statement: str) -> None:
    """Erases the user, some rows at a time; dies at the second statement of its writer that begins so, or at a VACUUM."""

    async def main() -> None:
        async with DatabaseSessionService(path) as service:
            seen: list[str] = []

            def die(text: str) -> None:
                if text.startswith(statement):
                    seen.append(text)
                    if len(seen) == 2 or statement == "VACUUM":
                        os.kill(os.getpid(), signal.SIGKILL)

            with writer_at_rest(service) as connection:
                connection.set_trace_callback(die)
            await service.erase_user(APP, USER)

    with patch("sessiondb.calls.erasure.ERASED_AT_ONCE", 40):
        asyncio.run(main())


@pytest.mark.parametrize(
    ("statement", "left_then"),
    [("DELETE FROM adk_sessions", 4), ("COMMIT", 3), ("VACUUM", 0), ("PRAGMA wal_checkpoint", 0)],
)
async def test_kill_in_the_middle_leaves_whole_sessions_and_can_be_repeated(
    database_path: Path, statement: str, left_then: int
) -> None:
    async with DatabaseSessionService(database_path) as service:
        await use(service)
    done = await anyio.to_thread.run_sync(run_function, erase_until_killed, database_path, statement)
    assert done.returncode == -signal.SIGKILL, done.stderr
    async with DatabaseSessionService(database_path) as service:
        left = await service.list_sessions(APP, USER)
        assert len(left) == left_then
        for row in await service.list_sessions(APP):
            assert service.get_event_count(APP, row["user_id"], row["session_id"]) in (EVENTS, EVENTS + 1)
        assert (await service.erase_user(APP, USER)).purged
        assert found(database_path) == {}
        assert len(await service.list_sessions(APP)) == OTHERS * SESSIONS
