"""Vacuum gives space back, and leaves a damaged file as it is.

Seen to fail with a vacuum that does not look for problems first (rows without a session go unnoticed), and without
the checkpoint after it (the file keeps its size until much later).
"""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from google.adk.events import Event, EventActions
from google.genai import types

from sessiondb import DatabaseSessionService
from sessiondb.errors import DatabaseCorruptError
from sessiondb.stores.sqlite import writer
from sessiondb.stores.sqlite.connection import open_writer
from tests.engine.failing_connection import SurpriseError, break_writer
from tests.engine.tools import (
    APP,
    USER,
    create,
    event,
    happened,
    other_program,
    pending,
    size_of,
    texts,
    until,
    writer_stopped,
)

pytestmark = pytest.mark.anyio


async def test_vacuum_gives_space_back_and_cuts_wal(database_path: Path, service: DatabaseSessionService) -> None:
    for number in range(4):
        session = await create(service, f"s{number}")
        await service.append_event(session, event("x" * 500_000))
    service.vacuum()
    full = service.get_stats()["db_size_mb"]
    assert full > 1.5
    for number in range(3):
        await service.delete_session(APP, USER, f"s{number}")
    service.vacuum()
    stats = service.get_stats()
    assert stats["db_size_mb"] < full / 2
    assert stats["wal_bytes"] < 10_000
    assert size_of(database_path) == round(stats["db_size_mb"] * 2**20)
    assert [len(str(text)) for text in await texts(service, "s3")] == [500_000]


def found(folder: Path, *words: str) -> set[str]:
    """Which of these words are anywhere in the files of a folder."""
    files = [file.read_bytes() for file in folder.iterdir() if file.is_file()]
    return {word for word in words if any(word.encode() in file for file in files)}


@pytest.mark.parametrize("size", [50, 20_000])
async def test_vacuum_leaves_nothing_of_what_was_taken_away(
    database_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """Of large contents parts are on pages of their own. Many an SQLite overwrites by itself what is deleted: not this one."""

    def open_plain(*arguments: Any) -> sqlite3.Connection:
        connection = open_writer(*arguments)
        connection.execute("PRAGMA secure_delete=OFF")
        return connection

    monkeypatch.setattr(writer, "open_writer", open_plain)
    async with DatabaseSessionService(database_path) as service:
        await _take_away_and_vacuum(database_path, service, size)


async def _take_away_and_vacuum(database_path: Path, service: DatabaseSessionService, size: int) -> None:
    redacted, cut_off, kept = (f"{word} ".ljust(size, "x") for word in ("secret", "cut-off", "kept"))
    session = await create(service, "s")
    other = await create(service, "other")
    for n in range(30):
        for name, text in (("r", redacted), ("c", cut_off), ("k", kept)):
            delta = {"key": text if name == "c" else ""}
            actions = EventActions(state_delta=delta)
            content = types.UserContent(f"{name}{n} {text}")
            of = session if name != "c" else other
            await service.append_event(of, Event(id=f"{name}{n}", author="user", content=content, actions=actions))
    words = [word for n in range(30) for word in (f"r{n} secret", f"c{n} cut-off")]
    assert found(database_path.parent, *words) == set(words)
    await service.redact_events(APP, USER, "s", [f"r{n}" for n in range(30)])
    await service.truncate_session(APP, USER, "other", after_event_id=None)
    assert found(database_path.parent, *words)
    service.vacuum()
    assert found(database_path.parent, *words, "secret", "cut-off") == set()
    assert found(database_path.parent, *(f"k{n} kept" for n in range(30))) == {f"k{n} kept" for n in range(30)}


async def test_vacuum_takes_its_turn_in_the_queue(service: DatabaseSessionService) -> None:
    first, second = await create(service, "first"), await create(service, "second")
    with writer_stopped(service) as gate:
        async with anyio.create_task_group() as group:
            group.start_soon(service.append_event, first, event("first"))
            await happened(gate.reached)
            group.start_soon(service.append_event, second, event("before"))
            await until(lambda: pending(service) == 1)
            group.start_soon(anyio.to_thread.run_sync, service.vacuum)
            await until(lambda: pending(service) == 2)
            group.start_soon(service.append_event, first, event("after"))
            await until(lambda: pending(service) == 3)
            gate.open()
    assert await texts(service, "first") == ["first", "after"]
    assert await texts(service, "second") == ["before"]


async def damaged_copy(path: Path, target: Path) -> None:
    """A database with an index of one page, which is overwritten in its middle."""
    async with DatabaseSessionService(path) as service:
        for number in range(8):
            session = await create(service, f"s{number}")
            for turn in range(15):
                await service.append_event(session, event(f"{turn}" * 100))
        service.vacuum()
    with sqlite3.connect(path) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'adk_events_identity'").fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    connection.close()
    shutil.copy(path, target)
    with target.open("r+b") as file:
        file.seek((page - 1) * size + size // 2)
        file.write(b"\xff" * (size // 4))


async def test_vacuum_leaves_corrupt_file_untouched(database_path: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.sqlite3"
    await damaged_copy(database_path, damaged)
    before = damaged.read_bytes()
    async with DatabaseSessionService(damaged) as service:
        for _ in range(2):
            with pytest.raises(DatabaseCorruptError, match=r"damaged"):
                service.vacuum()
        assert damaged.read_bytes() == before
        # What is readable is read.
        assert len(await texts(service, "s0")) == 15
    assert damaged.read_bytes() == before


async def test_vacuum_finds_foreign_key_violation(database_path: Path, service: DatabaseSessionService) -> None:
    await create(service)
    with other_program(
        database_path,
        "INSERT INTO adk_events (app_name, user_id, session_id, invocation_id, author, timestamp, actions, seq,"
        " revision, event_id, event_time, incarnation, event_hash)"
        " VALUES ('app', 'user', 'nobody', 'i', 'user', '', '{}', 1, 1, 'e', 0, 1, 1)",
    ):
        pass
    with pytest.raises(DatabaseCorruptError, match="refers to a row of adk_sessions that does not exist"):
        service.vacuum()


async def test_vacuum_exception_reaches_its_caller(service: DatabaseSessionService) -> None:
    break_writer(service, "VACUUM", SurpriseError())
    with pytest.raises(SurpriseError):
        service.vacuum()
    await create(service)
