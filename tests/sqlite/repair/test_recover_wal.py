"""Recovery of a file whose last commits are in its write-ahead log."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from sessiondb import DatabaseSessionService
from sessiondb.adk.events import decode_event
from sessiondb.stores.sqlite.repair.check import check
from sessiondb.stores.sqlite.repair.recover import recover
from tests.sqlite.repair.files import APP, FORMAT, PAGE, event_of, user_of


@pytest.fixture
async def with_wal(tmp_path: Path) -> Path:
    """A folder with a database and its write-ahead log, as a crash leaves them."""
    live, crashed = tmp_path / "live", tmp_path / "crashed"
    crashed.mkdir()
    async with DatabaseSessionService(live / "damaged.sqlite3") as service:
        for number in range(20):
            session = await service.create_session(APP, user_of(number), f"s{number}")
            for turn in range(5):
                await service.append_event(session, event_of(number, turn))
            if number == 9:
                service.vacuum()
        # Nothing is being written: both files are what the last commit left.
        for name in ("damaged.sqlite3", "damaged.sqlite3-wal"):
            shutil.copyfile(live / name, crashed / name)
    shutil.rmtree(live)
    assert (crashed / "damaged.sqlite3-wal").stat().st_size > 100_000
    return crashed


@pytest.mark.anyio
async def test_recover_reads_the_wal(with_wal: Path) -> None:
    report = recover(with_wal / "damaged.sqlite3", with_wal / "recovered.sqlite3", FORMAT)
    assert (report.tables["adk_events"].saved, report.touched, report.notes) == (100, (), ())


@pytest.mark.anyio
async def test_recover_without_wal_saves_what_the_file_holds(with_wal: Path) -> None:
    (with_wal / "damaged.sqlite3-wal").unlink()
    report = recover(with_wal / "damaged.sqlite3", with_wal / "recovered.sqlite3", FORMAT)
    assert (report.tables["adk_events"].saved, report.touched) == (50, ())


@pytest.mark.anyio
async def test_recover_reads_wal_beyond_a_corrupt_frame(with_wal: Path) -> None:
    wal = with_wal / "damaged.sqlite3-wal"
    data = bytearray(wal.read_bytes())
    frames = (len(data) - 32) // (PAGE + 24)
    data[32 + frames // 2 * (PAGE + 24) + 1000] ^= 0x10
    wal.write_bytes(data)
    report = recover(with_wal / "damaged.sqlite3", with_wal / "recovered.sqlite3", FORMAT)
    assert report.notes
    assert report.tables["adk_events"].saved >= 97
    assert check(with_wal / "recovered.sqlite3", decode_event).is_sound
    # SQLite itself stops at the damaged page.
    with closing(sqlite3.connect(with_wal / "damaged.sqlite3")) as connection:
        (count,) = connection.execute("SELECT count(*) FROM adk_events").fetchone()
    assert count < report.tables["adk_events"].saved


@pytest.mark.anyio
async def test_recover_takes_page_size_from_wal(with_wal: Path) -> None:
    database = with_wal / "damaged.sqlite3"
    database.write_bytes(bytes(PAGE) + database.read_bytes()[PAGE:])
    report = recover(database, with_wal / "recovered.sqlite3", FORMAT)
    assert report.tables["adk_events"].saved == 100
