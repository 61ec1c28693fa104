"""The index of texts in a file: beside other programs, and what checks, copies and recovery make of it."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from sessiondb import DatabaseSessionService, stores
from sessiondb.adk.events import decode_event
from sessiondb.errors import SearchIndexError
from sessiondb.options import StoreOptions
from sessiondb.stores.sqlite.indexing import build_index, drop_index
from sessiondb.stores.sqlite.writer import SqliteWriter
from tests.command import run_sessiondb
from tests.contract.places import APP, SESSION, USER
from tests.contract.test_search import found, said, say, until_built
from tests.databases import query

pytestmark = pytest.mark.anyio

INDEX_NAMES = "SELECT name FROM sqlite_schema WHERE name GLOB 'sessiondb_[^m]*' AND name NOT GLOB 'sqlite_*'"


@pytest.fixture
def anyio_backend() -> str:
    """One loop is enough: what is shown is the file's."""
    return "asyncio"


def problems(path: Path) -> list[str]:
    """What a check says of the index. Of the log it finds other things: rows are deleted by hand here."""
    report = stores.check(path, decode_event)
    found = [problem for finding in (*report.findings, report.notes) for problem in finding.problems]
    return [problem for problem in found if "index" in problem or "sessiondb_text" in problem]


def holds(path: Path, text: bytes) -> bool:
    return text in path.read_bytes()


async def test_index_is_made_in_the_background_of_what_is_there(database_path: Path) -> None:
    async with DatabaseSessionService(database_path) as service:
        await say(service, *["apple"] * 300)
    async with DatabaseSessionService(database_path, index="text") as service:
        await say(service, "apple")
        await until_built(service)
        assert await found(service, "apple") == list(range(1, 302))
    assert problems(database_path) == []


async def test_index_that_another_process_makes_fails_no_write(database_path: Path) -> None:
    """SQLite takes its triggers for unsafe in a connection that does not know of them."""
    async with DatabaseSessionService(database_path) as service:
        sessions = [await service.create_session(APP, USER, f"s{n}") for n in range(8)]
        await asyncio.to_thread(build_index, database_path, None)
        await asyncio.gather(*(service.append_event(session, said("apple")) for session in sessions))
        assert await found(service, "apple") == [1] * 8
        await asyncio.to_thread(drop_index, database_path)
        await asyncio.gather(*(service.append_event(session, said("apple")) for session in sessions))


async def test_what_a_crash_leaves_of_an_index_is_built_on_or_removed(database_path: Path) -> None:
    async with DatabaseSessionService(database_path) as service:
        await say(service, *[f"apple {n}" for n in range(200)])
    # A writer that ends in between, as a process does that is killed.
    with closing(SqliteWriter(database_path, StoreOptions(index="text"))) as writer:
        writer.build_index()
    assert problems(database_path) == ["the index of texts is not complete: `sessiondb index` goes on with it"]
    async with DatabaseSessionService(database_path) as service:
        with pytest.raises(SearchIndexError, match="is not complete"):
            await service.search("apple")
        # The first of these rows are indexed, the last not yet; the triggers know.
        query(database_path, "DELETE FROM adk_events WHERE seq IN (2, 199)")
        query(database_path, "UPDATE adk_events SET content = replace(content, 'apple', 'pear') WHERE seq IN (1, 200)")
    told: list[tuple[int, int]] = []
    assert build_index(database_path, lambda now, of: told.append((now, of)))
    assert told[-1] == (200, 200)
    async with DatabaseSessionService(database_path) as service:
        assert await found(service, "apple") == [n for n in range(3, 200) if n != 199]
        assert await found(service, "pear") == [1, 200]
    assert problems(database_path) == []
    with closing(SqliteWriter(database_path, StoreOptions())) as writer:
        writer.drop_index()
        writer.drop_index()
    assert problems(database_path) == ["an index of texts was not removed as a whole: `sessiondb index --drop` does it"]
    async with DatabaseSessionService(database_path, index="text") as service:
        await until_built(service)
        assert await found(service, "pear") == [1, 200]
    assert drop_index(database_path)
    assert query(database_path, INDEX_NAMES) == []
    assert problems(database_path) == []


async def test_check_finds_an_index_that_is_not_as_the_log(database_path: Path) -> None:
    async with DatabaseSessionService(database_path, index="text") as service:
        await say(service, "apple", "pear", "")
    assert problems(database_path) == []
    (trigger,) = query(database_path, "SELECT sql FROM sqlite_schema WHERE name = 'sessiondb_text_removed'")[0]
    query(database_path, "DROP TRIGGER sessiondb_text_removed")
    assert "sessiondb_text_removed is missing" in problems(database_path)[0]
    query(database_path, "DELETE FROM adk_events WHERE seq = 2")
    query(database_path, trigger)
    assert any("holds 2 events, and not 1" in problem for problem in problems(database_path))
    async with DatabaseSessionService(database_path) as service:
        # Rows are found by way of the log.
        assert await found(service, "pear") == []
    query(database_path, "DROP TRIGGER sessiondb_text_added")
    async with DatabaseSessionService(database_path) as service:
        await say(service, "plum")
    assert drop_index(database_path)
    assert build_index(database_path, None)
    with closing(sqlite3.connect(database_path)) as file, file:
        # As a program does that does not know of triggers.
        (added,) = file.execute("SELECT sql FROM sqlite_schema WHERE name = 'sessiondb_text_added'").fetchone()
        file.execute("DROP TRIGGER sessiondb_text_added")
        columns = ", ".join(row[1] for row in file.execute("PRAGMA table_info(adk_events)") if row[1] != "id")
        chosen = (
            columns.replace("seq", "seq + 1").replace("revision", "revision + 1").replace("event_id", "event_id || 'x'")
        )
        file.execute(f"INSERT INTO adk_events ({columns}) SELECT {chosen} FROM adk_events ORDER BY id DESC LIMIT 1")
        file.execute(added)
    assert any("is not in the index of texts" in problem for problem in problems(database_path))


async def test_copies_have_the_index_and_recovery_makes_do_without(database_path: Path, tmp_path: Path) -> None:
    async with DatabaseSessionService(database_path, index="text") as service:
        await say(service, *["apple 東京"] * 300)
        await service.backup(tmp_path / "copy")
    async with DatabaseSessionService(tmp_path / "copy") as service:
        assert len(await found(service, "京")) == 300
    done = run_sessiondb("recover", database_path, tmp_path / "recovered")
    assert done.returncode == 0
    assert "passed over" not in done.stdout
    async with DatabaseSessionService(tmp_path / "recovered") as service:
        with pytest.raises(SearchIndexError):
            await service.search("apple")


async def test_nothing_is_left_of_what_was_deleted_after_vacuum(database_path: Path) -> None:
    async with DatabaseSessionService(database_path, index="text") as service:
        await say(service, "apple unmistakable")
        await say(service, *["pear"] * 100, name="other")
        await service.delete_session(APP, USER, SESSION)
        service.vacuum()
        assert await found(service, "pear") == list(range(1, 101))
    assert not holds(database_path, b"unmistakable")


@pytest.mark.parametrize("place", ["first", "later"])
async def test_texts_beyond_the_first_characters_are_not_searched(database_path: Path, place: str) -> None:
    text = "x " * 32_000 + ("" if place == "first" else "y " * 1000) + "needle"
    async with DatabaseSessionService(database_path, index="text") as service:
        await say(service, text, "東京都は日本の首都" * 100)
        assert await found(service, "needle") == ([1] if place == "first" else [])
        assert await found(service, "首都東京都は日本の首都東") == [2]
