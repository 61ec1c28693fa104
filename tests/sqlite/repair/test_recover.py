"""What lies on undamaged pages is recovered, nothing else is made up, and the result is sound."""

from __future__ import annotations

import asyncio
import random
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from google.adk.events import Event, EventActions

from sessiondb import DatabaseSessionService, Retention
from sessiondb.adk.events import decode_event
from sessiondb.errors import ConfigurationError, DatabaseBusyError, DatabaseCorruptError, StorageError
from sessiondb.stores.sqlite.repair.check import check
from sessiondb.stores.sqlite.repair.pages import PageFile
from sessiondb.stores.sqlite.repair.recover import RecoveryReport, recover
from tests.engine import processes
from tests.sqlite.repair import programs
from tests.sqlite.repair.conftest import Original
from tests.sqlite.repair.files import (
    APP,
    DELETED,
    FORMAT,
    PAGE,
    TABLES,
    Rows,
    event_of,
    layout_of,
    overwrite,
    rows_of,
    state_of,
    user_of,
)
from tests.sqlite.schema import frozen

# What is compared of an event: numbers within the session may be new.
_KEPT = [column for column in range(16) if column not in (10, 11, 14)]


def kept(rows: Rows) -> dict[int, list[object]]:
    return {row_id: [row[column] for column in _KEPT] for row_id, row in rows.items()}


def recover_from(data: bytes, folder: Path) -> tuple[RecoveryReport, dict[str, Rows]]:
    """Recovers a damaged file, looks at what is true of every recovery, and returns what was recovered."""
    source, target = folder / "damaged.sqlite3", folder / "recovered.sqlite3"
    source.write_bytes(data)
    report = recover(source, target, FORMAT)
    assert source.read_bytes() == data
    assert sorted(folder.iterdir()) == [source, target]
    assert target.stat().st_mode & 0o777 == 0o600
    found = check(target, decode_event)
    assert found.is_sound, found.findings
    assert not found.notes.count
    rows = rows_of(target)
    assert {table: tally.saved for table, tally in report.tables.items()} == {
        table: len(rows[table]) for table in TABLES
    }
    return report, rows


def by_session(events: Rows) -> dict[tuple[str, str, str], set[int]]:
    """Sessions to the numbers of their events."""
    numbers: dict[tuple[str, str, str], set[int]] = {}
    for row in events.values():
        numbers.setdefault((row[1], row[2], row[3]), set()).add(row[10])
    return numbers


def assert_saved(original: Original, damaged: set[int], report: RecoveryReport, rows: dict[str, Rows]) -> None:
    """What does not touch a damaged page is there, as it was, and whatever is there was there before."""
    layout = original.layout
    before, after = kept(original.rows["adk_events"]), kept(rows["adk_events"])
    for row_id in layout.surviving("adk_events", damaged):
        assert after[row_id] == before[row_id]
    assert report.notes or [row_id for row_id, row in after.items() if before.get(row_id) != row] == []

    # A session is there if its own row or any event is; created_at and updated_at are kept with its own row.
    saved = {row[:3]: row for row in rows["adk_sessions"].values()}
    for row_id in layout.surviving("adk_sessions", damaged):
        row = original.rows["adk_sessions"][row_id]
        assert saved[row[:3]][:6] == row[:6]
    assert report.notes or saved.keys() <= {row[:3] for row in original.rows["adk_sessions"].values()}

    state = state_of(rows["adk_state"])
    survived = {row_id: original.rows["adk_state"][row_id] for row_id in layout.surviving("adk_state", damaged)}
    assert state_of(survived) <= state

    # What is lost is told.
    before_numbers = by_session(original.rows["adk_events"])
    touched: dict[tuple[str, str, str], set[int]] = {}
    ids = {row_id: row for row_id, row in original.rows["adk_events"].items() if row_id not in rows["adk_events"]}
    lost = by_session(ids)
    for session in report.touched:
        touched[session.app_name, session.user_id, session.session_id] = set(
            chain.from_iterable(range(first, last + 1) for first, last in session.lost)
        )
    for key, numbers in lost.items():
        row_is_saved = key in saved and key in {
            original.rows["adk_sessions"][row_id][:3] for row_id in layout.surviving("adk_sessions", damaged)
        }
        if row_is_saved:
            assert touched[key] == numbers
        elif key in saved:
            # Nobody knows how long the log was.
            last = max((before_numbers[key] - numbers), default=0)
            assert touched[key] == {number for number in numbers if number < last}
    assert report.notes or {key for key, numbers in touched.items() if numbers} <= lost.keys()


def test_recover_of_sound_file_keeps_all_rows(original: Original, tmp_path: Path) -> None:
    report, rows = recover_from(original.data, tmp_path)
    assert rows["adk_events"] == original.rows["adk_events"]
    for table in ("adk_sessions", "adk_state"):
        assert sorted(rows[table].values(), key=repr) == sorted(original.rows[table].values(), key=repr)
    assert (report.unreadable_pages, report.touched, report.notes, report.replayed_keys) == ((), (), (), 0)


@pytest.mark.anyio
async def test_recovered_file_works_in_the_service(original: Original, tmp_path: Path) -> None:
    layout = original.layout
    damaged = set(random.Random(5).sample(sorted(layout.of_table("adk_events")), 20))
    _, rows = recover_from(overwrite(original.data, damaged, bytes(PAGE)), tmp_path)
    numbers = by_session(rows["adk_events"])
    async with DatabaseSessionService(tmp_path / "recovered.sqlite3") as service:
        for (app_name, user_id, session_id), seqs in numbers.items():
            session = await service.get_session(app_name, user_id, session_id)
            assert session is not None
            assert len(session.events) == len(seqs)
            assert seqs == set(range(1, len(seqs) + 1))
            await service.append_event(session, event_of(999, 0))
            assert await service.get_session(app_name, user_id, session_id) == session
        service.vacuum()


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("kind", ["zeros", "noise"])
def test_recover_with_corrupt_pages(original: Original, tmp_path: Path, seed: int, kind: str) -> None:
    chance = random.Random(seed)
    damaged = set(chance.sample(range(2, original.layout.count + 1), 1 + seed * 3))
    # Noise that begins as pages of some kind do may be taken for one, and not be told of.
    content = bytes(PAGE) if kind == "zeros" else b"\xff" + chance.randbytes(PAGE - 1)
    data = overwrite(original.data, damaged, content)
    report, rows = recover_from(data, tmp_path)
    assert_saved(original, damaged, report, rows)
    told = set(chain.from_iterable(range(first, last + 1) for first, last in report.unreadable_pages))
    # Without their list, pages that are free cannot be told from damaged ones.
    assert told <= damaged | original.layout.free
    if damaged & (original.layout.inner | original.layout.indexes):
        assert told


@pytest.mark.parametrize("seed", range(8))
def test_recover_of_truncated_file(original: Original, tmp_path: Path, seed: int) -> None:
    length = random.Random(seed).randrange(8 * PAGE, len(original.data))
    report, rows = recover_from(original.data[:length], tmp_path)
    assert_saved(original, set(range(length // PAGE + 1, original.layout.count + 1)), report, rows)


@pytest.mark.parametrize("seed", range(6))
def test_recover_with_corrupt_indexes_loses_nothing(original: Original, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    data = bytearray(original.data)
    for number in original.layout.indexes:
        for _ in range(1 + seed):
            data[(number - 1) * PAGE + chance.randrange(PAGE)] ^= 1 << chance.randrange(8)
    _, rows = recover_from(bytes(data), tmp_path)
    for table in TABLES:
        assert sorted(rows[table].values(), key=repr) == sorted(original.rows[table].values(), key=repr)


def test_recover_with_corrupt_inner_pages_loses_nothing(original: Original, tmp_path: Path) -> None:
    _, rows = recover_from(overwrite(original.data, original.layout.inner, bytes(PAGE)), tmp_path)
    for table in TABLES:
        assert sorted(rows[table].values(), key=repr) == sorted(original.rows[table].values(), key=repr)


def test_recover_replays_lost_state_from_events(original: Original, tmp_path: Path) -> None:
    pages = original.layout.of_table("adk_state") | original.layout.inner
    report, rows = recover_from(overwrite(original.data, pages, b"\xff" * PAGE), tmp_path)
    # What a session that is deleted had set for its user is in no log.
    deleted = {f"of_{number}" for number in range(DELETED)}
    assert state_of(rows["adk_state"]) == {row for row in state_of(original.rows["adk_state"]) if row[4] not in deleted}
    assert report.replayed_keys == len(rows["adk_state"])


def test_recover_replays_none_that_was_stored(tmp_path: Path) -> None:
    path = tmp_path / "original" / "adk.sqlite3"

    async def write() -> None:
        async with DatabaseSessionService(path) as deleting:
            session = await deleting.create_session(APP, "u", "s")
            await deleting.update_keys(APP, "u", "s", {"gone": 1, "kept": 1, "user:gone": 1, "user:kept": 1})
            await deleting.update_keys(APP, "u", "s", {"gone": None, "user:gone": None})
            async with DatabaseSessionService(path, none_in_delta="store") as storing:
                delta: dict[str, Any] = {"kept": None, "user:kept": None}
                event = Event(author="agent", branch="b", actions=EventActions(state_delta=delta))
                await storing.append_event(session, event)

    asyncio.run(write())
    data = overwrite(path.read_bytes(), layout_of(path).of_table("adk_state"), b"\xff" * PAGE)
    folder = tmp_path / "recovered"
    folder.mkdir()
    report, rows = recover_from(data, folder)
    assert report.replayed_keys == 2
    assert {(row[3], row[4], row[5]) for row in rows["adk_state"].values()} == {
        ("SESSION", "kept", "null"),
        ("USER", "kept", "null"),
    }


def test_recover_rebuilds_lost_sessions_from_events(original: Original, tmp_path: Path) -> None:
    pages = original.layout.of_table("adk_sessions")
    report, rows = recover_from(overwrite(original.data, pages, bytes(PAGE)), tmp_path)
    before = {row[:3]: row for row in original.rows["adk_sessions"].values()}
    after = {row[:3]: row for row in rows["adk_sessions"].values()}
    assert after.keys() == before.keys()
    for key, row in after.items():
        _, updated_at, update_time, incarnation, revision, last_seq, *_ = row[3:]
        assert (updated_at, update_time, revision, last_seq) == (*before[key][4:6], *before[key][7:9])
        # A handle from before must be read again: the log may have been longer.
        assert incarnation > max(row[6] for row in before.values())
    assert {session.recreated for session in report.touched} == {True}
    assert len(report.touched) == len(before)


def test_recover_without_first_page_loses_no_row(original: Original, tmp_path: Path) -> None:
    report, rows = recover_from(overwrite(original.data, [1], bytes(PAGE)), tmp_path)
    assert rows["adk_events"].items() >= original.rows["adk_events"].items()
    assert {row[:3] for row in rows["adk_sessions"].values()} >= {
        row[:3] for row in original.rows["adk_sessions"].values()
    }
    assert any("deleted" in note for note in report.notes)


def test_recover_with_corrupt_schema_loses_nothing(original: Original, tmp_path: Path) -> None:
    # The names and definitions of the tables; the header of the file stays.
    data = original.data[:108] + b"\x5a" * (PAGE - 108) + original.data[PAGE:]
    _, rows = recover_from(data, tmp_path)
    assert rows["adk_events"] == original.rows["adk_events"]


def test_recover_with_corrupt_freelist_loses_nothing(original: Original, tmp_path: Path) -> None:
    trunk = int.from_bytes(original.data[32:36], "big")
    assert trunk in original.layout.free
    report, rows = recover_from(overwrite(original.data, [trunk], b"\x01" * PAGE), tmp_path)
    # Not even what was deleted comes back: the trees say which pages are in use.
    assert rows["adk_events"] == original.rows["adk_events"]
    assert report.notes == ()


def test_recover_without_freelist_may_revive_deleted_rows(original: Original, tmp_path: Path) -> None:
    trunk = int.from_bytes(original.data[32:36], "big")
    pages = {trunk} | original.layout.inner
    report, rows = recover_from(overwrite(original.data, pages, bytes(PAGE)), tmp_path)
    assert rows["adk_events"].items() > original.rows["adk_events"].items()
    assert any("deleted" in note for note in report.notes)


def test_recover_keeps_deleted_rows_deleted(original: Original, tmp_path: Path) -> None:
    pages = original.layout.indexes | original.layout.inner
    _, rows = recover_from(overwrite(original.data, pages, bytes(PAGE)), tmp_path)
    deleted = {(APP, user_of(number), f"s{number}") for number in range(DELETED)}
    assert not deleted & {row[:3] for row in rows["adk_sessions"].values()}
    assert not deleted & {row[1:4] for row in rows["adk_events"].values()}


@pytest.mark.parametrize("seed", range(6))
def test_recover_with_bit_flips_makes_a_sound_file(original: Original, tmp_path: Path, seed: int) -> None:
    """A changed letter of a text cannot be found, as no row has a checksum; whatever comes out must fit together."""
    chance = random.Random(seed)
    data = bytearray(original.data)
    for _ in range(200):
        data[chance.randrange(PAGE, len(data))] ^= 1 << chance.randrange(8)
    report, rows = recover_from(bytes(data), tmp_path)
    assert len(rows["adk_events"]) > len(original.rows["adk_events"]) * 0.6
    assert report.tables["adk_events"].rejected


def test_recover_makes_no_session_of_corrupt_key(original: Original, tmp_path: Path) -> None:
    key = f"{APP}{user_of(150)}s150".encode()
    assert original.data.count(key + b"inv_2") == 1
    report, rows = recover_from(original.data.replace(key + b"inv_2", key[:-3] + b"x50inv_2"), tmp_path)
    (row_id,) = original.rows["adk_events"].keys() - rows["adk_events"].keys()
    assert report.tables["adk_events"].rejected_ids == ((row_id, row_id),)
    assert len(rows["adk_sessions"]) == len(original.rows["adk_sessions"])
    ((touched, lost),) = [(session.session_id, session.lost) for session in report.touched]
    assert (touched, lost) == ("s150", ((3, 3),))


def test_recover_refuses_file_in_use(tmp_path: Path) -> None:
    path = tmp_path / "adk.sqlite3"
    with processes.start(programs.hold_open, path) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        with pytest.raises(DatabaseBusyError, match="stop it first"):
            recover(path, tmp_path / "recovered.sqlite3", FORMAT)
        processes.finish(holder)
    # This process would not be kept out by locks, and would give its own up by looking at the file.
    service = DatabaseSessionService(path)
    with pytest.raises(DatabaseBusyError, match="this one"):
        recover(path, tmp_path / "recovered.sqlite3", FORMAT)
    asyncio.run(service.close())
    assert not (tmp_path / "recovered.sqlite3").exists()
    assert recover(path, tmp_path / "recovered.sqlite3", FORMAT).tables["adk_sessions"].saved == 1


def test_recover_does_not_overwrite_its_target(original: Original, tmp_path: Path) -> None:
    target = tmp_path / "kept"
    target.write_text("kept")
    with pytest.raises(ConfigurationError, match="exists"):
        recover(original.path, target, FORMAT)
    assert target.read_text() == "kept"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("content", [b"", b"not a database", bytes(10 * PAGE)])
def test_recover_refuses_file_without_our_rows(tmp_path: Path, content: bytes) -> None:
    source = tmp_path / "damaged"
    source.write_bytes(content)
    with pytest.raises(DatabaseCorruptError, match="no row"):
        recover(source, tmp_path / "recovered", FORMAT)
    assert list(tmp_path.iterdir()) == [source]


def test_recover_of_missing_file_is_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot read"):
        recover(tmp_path / "missing", tmp_path / "recovered", FORMAT)
    assert not list(tmp_path.iterdir())


@pytest.mark.anyio
async def test_recover_of_empty_database_is_empty(database_path: Path, tmp_path: Path) -> None:
    async with DatabaseSessionService(database_path):
        pass
    report = recover(database_path, tmp_path / "recovered", FORMAT)
    assert {tally.saved for tally in report.tables.values()} == {0}
    assert check(tmp_path / "recovered", decode_event).is_sound


def test_page_reader_equals_sqlite_row_by_row(original: Original) -> None:
    with PageFile(original.path) as pages:
        events = {row.row_id: row.values for row in pages.rows() if row.columns == 16}
        free = pages.free
    # The id is the row id, and stored as such only.
    assert {row_id: (row_id, *values[1:]) for row_id, values in events.items()} == original.rows["adk_events"]
    assert free == original.layout.free


@pytest.mark.anyio
@pytest.mark.parametrize("upgraded", [False, True], ids=["version 1", "upgraded"])
async def test_recover_takes_sessions_of_an_earlier_version(upgraded: bool, tmp_path: Path) -> None:
    old = tmp_path / "old" / "adk.sqlite3"
    old.parent.mkdir()
    frozen.load(1, old)
    if upgraded:
        # Rows that were there keep their width in the file until they are written again.
        async with DatabaseSessionService(old) as service:
            await service.update_keys("my_app", "user_123", "empty", {"written": True})
    (target := tmp_path / "new").mkdir()
    _, rows = recover_from(old.read_bytes(), target)
    assert {row[2] for row in rows["adk_sessions"].values()} == {each["id"] for each in frozen.recorded(1)["sessions"]}
    assert {row[10:] for row in rows["adk_sessions"].values()} == {(*(None,) * 5, 0, 0, None)}


@pytest.mark.anyio
async def test_recover_keeps_where_a_log_was_cut(tmp_path: Path) -> None:
    """Seen failing while what is left of a log was numbered from 1."""
    path = tmp_path / "cut" / "adk.sqlite3"
    async with DatabaseSessionService(path) as service:
        session = await service.create_session(APP, "u", "s", {"turn": -1})
        for turn in range(6):
            added = event_of(0, turn).model_copy(update={"timestamp": 4e9 + turn})
            await service.append_event(session, added)
        await service.prune(Retention(max_events=3))
        kept_events = (await service.get_session(APP, "u", "s") or session).events
    before = rows_of(path)
    (target := tmp_path / "new").mkdir()
    report, rows = recover_from(path.read_bytes(), target)
    assert rows["adk_events"] == before["adk_events"]
    ((_, session_row), (_, expected)) = (*rows["adk_sessions"].items(), *before["adk_sessions"].items())
    # Its epoch begins anew.
    assert (*session_row[:9], *session_row[10:]) == (*expected[:9], *expected[10:])
    assert report.touched == ()
    assert session_row[15:17] == (3, 3)
    async with DatabaseSessionService(target / "recovered.sqlite3") as service:
        assert (await service.get_session(APP, "u", "s") or session).events == kept_events
        past = await service.get_session_at(APP, "u", "s", seq=3)
        assert past is not None
        assert past.state["turn"] == 2
