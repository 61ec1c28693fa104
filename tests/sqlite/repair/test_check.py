"""A check finds damage and broken rules, and leaves no trace."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from sessiondb import DatabaseSessionService
from sessiondb.adk.events import decode_event
from sessiondb.errors import DatabaseBusyError, StorageError
from sessiondb.model.records import EventRow
from sessiondb.model.soundness import CheckReport
from sessiondb.stores.sqlite.repair.check import check
from tests.command import run_sessiondb
from tests.engine import processes
from tests.sqlite.repair import programs
from tests.sqlite.repair.conftest import Original
from tests.sqlite.repair.files import APP, PAGE, TABLES, event_of, overwrite, rows_of, user_of


def checked(path: Path) -> CheckReport:
    return check(path, decode_event)


def traces(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in folder.iterdir()}


def times(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}


def changed(original: Original, folder: Path, statement: str) -> Path:
    """Returns a copy in which another program has run a statement, without triggers or foreign keys."""
    path = folder / "changed.sqlite3"
    path.write_bytes(original.data)
    with closing(sqlite3.connect(path)) as connection:
        triggers = connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute(statement)
        for _, definition in triggers:
            connection.execute(definition)
        connection.commit()
    return path


def test_check_of_sound_file_finds_nothing(original: Original) -> None:
    before = traces(original.path.parent)
    report = checked(original.path)
    assert report.is_sound
    assert (report.sessions, report.events, report.state_keys) == tuple(len(original.rows[table]) for table in TABLES)
    assert report.notes.count == 0
    assert traces(original.path.parent) == before


@pytest.mark.parametrize(
    ("statement", "found", "words"),
    [
        ("PRAGMA application_id=7", "file", "application id is 7"),
        ("PRAGMA user_version=3", "file", "schema version 3"),
        ("DROP INDEX adk_events_log", "schema", "adk_events_log is missing"),
        ("ALTER TABLE adk_state ADD COLUMN extra", "schema", "adk_state is not defined as it should be"),
        ("UPDATE adk_sessions SET session_id = 'other' WHERE session_id = 's30'", "references", "does not exist"),
        ("UPDATE adk_sessions SET revision = 'x' WHERE session_id = 's30'", "sessions", "another type"),
        (
            "UPDATE adk_sessions SET incarnation = 40 WHERE session_id = 's30'",
            "sessions",
            "(number of its creation) of session 's30'",
        ),
        ("UPDATE adk_sessions SET incarnation = 999 WHERE session_id = 's30'", "sessions", "given again"),
        ("DELETE FROM sessiondb_meta", "sessions", "is not known"),
        ("UPDATE adk_events SET author = x'ff' WHERE id = 300", "events", "another type"),
        ("UPDATE adk_events SET author = CAST(x'ff' AS TEXT) WHERE id = 300", "events", "not UTF-8"),
        ("UPDATE adk_events SET event_hash = 1 WHERE id = 300", "events", "hash"),
        ("UPDATE adk_events SET actions = '{' WHERE id = 300", "events", "cannot be read as an event"),
        ("DELETE FROM adk_events WHERE id = 303", "sequence", "where 3 was expected"),
        ("DELETE FROM adk_events WHERE id = 306", "sequence", "its log ends with seq 5"),
        ("UPDATE adk_events SET seq = 1 WHERE id = 302", "sequence", "has seq 1 where 2 was expected"),
        ("UPDATE adk_events SET revision = 9 WHERE id = 302", "sequence", "has revision 9 after 1"),
        ("UPDATE adk_events SET incarnation = 1 WHERE id = 302", "sequence", "incarnation"),
        ("UPDATE adk_sessions SET last_seq = 7 WHERE session_id = 's30'", "sequence", "its own row says 7"),
        ("UPDATE adk_sessions SET revision = 7 WHERE session_id = 's30'", "sequence", "its own row says 7"),
        (
            "UPDATE adk_state SET user_id = NULL WHERE rowid = (SELECT max(rowid) FROM adk_state WHERE scope = 'USER')",
            "state",
            "does not agree",
        ),
        ("UPDATE adk_state SET session_id = NULL WHERE scope = 'SESSION' AND rowid % 97 = 0", "state", "agree"),
        (
            "UPDATE adk_state SET state_value = 'text' WHERE rowid = (SELECT max(rowid) FROM adk_state WHERE scope = 'USER')",
            "state",
            "not JSON",
        ),
        (
            "UPDATE adk_state SET state_value = x'31' WHERE rowid = (SELECT max(rowid) FROM adk_state WHERE scope = 'USER')",
            "state",
            "not JSON",
        ),
        ("UPDATE adk_state SET session_id = 'other' WHERE session_id = 's30'", "state", "its session does not exist"),
    ],
)
def test_check_finds_each_broken_rule(
    original: Original, tmp_path: Path, statement: str, found: str, words: str
) -> None:
    path = changed(original, tmp_path, statement)
    before = traces(tmp_path)
    report = checked(path)
    (finding,) = [finding for finding in report.findings if finding.check == found]
    assert any(words in problem for problem in finding.problems), finding
    assert not report.is_sound
    assert traces(tmp_path) == before


def test_check_finds_duplicate_state_key(original: Original, tmp_path: Path) -> None:
    statement = "DROP INDEX adk_state_app"
    path = changed(original, tmp_path, statement)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("INSERT INTO adk_state SELECT * FROM adk_state WHERE scope = 'APP'")
        connection.commit()
    (finding,) = [finding for finding in checked(path).findings if finding.check == "state"]
    assert "there twice" in finding.problems[0]


@pytest.mark.parametrize("event", [302, 306])
def test_check_notes_events_deleted_outside_sessiondb(original: Original, tmp_path: Path, event: int) -> None:
    path = tmp_path / "adk.sqlite3"
    path.write_bytes(original.data)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DELETE FROM adk_events WHERE id = ?", (event,))
        connection.commit()
    report = checked(path)
    assert report.is_sound, report.findings
    assert report.notes.count
    assert all("'s50'" in note for note in report.notes.problems)


def test_check_limits_listed_problems_and_counts_all(original: Original, tmp_path: Path) -> None:
    path = changed(original, tmp_path, "UPDATE adk_events SET event_hash = 1")
    report = check(path, decode_event, limit=3)
    (finding,) = [finding for finding in report.findings if finding.check == "events"]
    assert (len(finding.problems), finding.count) == (3, report.events)


def values_of(path: Path) -> object:
    try:
        return rows_of(path)
    except sqlite3.DatabaseError:
        return None


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("kind", ["zeros", "noise", "cut", "index"])
def test_check_finds_corrupt_pages_or_all_rows_are_equal(
    original: Original, tmp_path: Path, kind: str, seed: int
) -> None:
    chance = random.Random(seed)
    path = tmp_path / "damaged.sqlite3"
    pages = chance.sample(range(1, original.layout.count + 1), 1 + seed)
    match kind:
        case "cut":
            data = original.data[: chance.randrange(len(original.data))]
        case "index":
            flipped = bytearray(original.data)
            for number in chance.sample(sorted(original.layout.indexes), 1 + seed):
                flipped[(number - 1) * PAGE + chance.randrange(PAGE)] ^= 1 << chance.randrange(8)
            data = bytes(flipped)
        case _:
            data = overwrite(original.data, pages, bytes(PAGE) if kind == "zeros" else chance.randbytes(PAGE))
    path.write_bytes(data)
    report = checked(path)
    if report.is_sound:
        assert values_of(path) == original.rows
    assert path.read_bytes() == data
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.anyio
async def test_check_reads_wal_of_file_in_use(tmp_path: Path) -> None:
    path = tmp_path / "adk.sqlite3"
    async with DatabaseSessionService(path) as service:
        session = await service.create_session(APP, user_of(0), "s0")
        for turn in range(5):
            await service.append_event(session, event_of(0, turn))
        before = times(tmp_path)
        report = checked(path)
        assert report.is_sound
        assert report.events == 5
        assert times(tmp_path) == before
        await service.append_event(session, event_of(0, 5))
        assert checked(path).events == 6


def test_check_leaves_file_of_other_process_alone(tmp_path: Path) -> None:
    path = tmp_path / "adk.sqlite3"
    with processes.start(programs.hold_open, path) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        before = times(tmp_path)
        report = checked(path)
        assert report.is_sound
        assert report.sessions == 1
        assert times(tmp_path) == before
        processes.finish(holder)


@pytest.mark.anyio
@pytest.mark.parametrize("files", [("-wal", "-shm"), ("-wal",)])
async def test_check_reads_wal_left_by_a_crash(tmp_path: Path, files: tuple[str, ...]) -> None:
    live, crashed = tmp_path / "live.sqlite3", tmp_path / "crashed" / "adk.sqlite3"
    crashed.parent.mkdir()
    async with DatabaseSessionService(live) as service:
        await service.create_session(APP, user_of(0), "s0")
        for suffix in ("", *files):
            shutil.copyfile(f"{live}{suffix}", f"{crashed}{suffix}")
    before = traces(crashed.parent)
    report = checked(crashed)
    assert report.is_sound, report.findings
    assert report.sessions == 1
    assert traces(crashed.parent) == before


def test_check_gives_up_on_file_that_keeps_changing(original: Original, tmp_path: Path) -> None:
    path = tmp_path / "adk.sqlite3"
    path.write_bytes(original.data)

    first = min(original.rows["adk_events"])

    def decode_while_it_changes(row: EventRow, _key: object) -> None:
        if row.row_id == first:
            path.write_bytes(original.data)

    with pytest.raises(DatabaseBusyError, match="changed by another program"):
        check(path, decode_while_it_changes)


def test_check_of_missing_file_is_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        checked(tmp_path / "missing")
    assert list(tmp_path.iterdir()) == []


def test_check_command_exit_code_says_sound_or_not(original: Original, tmp_path: Path) -> None:
    done = run_sessiondb("check", original.path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "sound: 180 sessions, 1,080 events, " + f"{len(original.rows['adk_state']):,} keys of state\n"

    path = changed(original, tmp_path, "UPDATE adk_events SET event_hash = 1")
    done = run_sessiondb("check", path, "--limit", "2")
    assert (done.returncode, done.stderr) == (1, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("NOT SOUND: 180 sessions")
    assert lines[1] == "events (1,080)"
    assert lines[-1] == "  and 1,078 more"
    assert len(lines) == 5

    done = run_sessiondb("check", path, "--json")
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert report["is_sound"] is False
    assert [(finding["check"], finding["count"]) for finding in report["findings"]] == [("events", 1080)]


def test_check_command_of_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database, but long enough to look at" * 100)
    done = run_sessiondb("check", path)
    assert (done.returncode, done.stderr) == (1, "")
    assert "file is not a database" in done.stdout
    assert list(tmp_path.iterdir()) == [path]


def test_check_command_without_file_is_usage_error(tmp_path: Path) -> None:
    assert run_sessiondb("check", tmp_path / "missing").returncode == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("CREATE TRIGGER t AFTER INSERT ON adk_events BEGIN DELETE FROM adk_state; END", "writes to the tables"),
        ("CREATE TRIGGER t BEFORE INSERT ON adk_events BEGIN SELECT RAISE(IGNORE); END", "has rows ignored"),
    ],
)
def test_check_finds_foreign_trigger_that_changes_what_is_stored(
    original: Original, tmp_path: Path, statement: str, says: str
) -> None:
    """Seen failing while the file was called sound, and one append deleted all state."""
    report = checked(changed(original, tmp_path, statement))
    (finding,) = report.findings
    assert finding.check == "schema"
    assert f"trigger 't' of another program {says}" in finding.problems[0]


def test_check_notes_other_foreign_objects(original: Original, tmp_path: Path) -> None:
    report = checked(changed(original, tmp_path, "CREATE VIEW v AS SELECT * FROM adk_events"))
    assert report.is_sound
    assert report.notes.problems == ["view 'v' of another program is beside the tables of sessiondb"]


def test_check_finds_hard_link(original: Original, tmp_path: Path) -> None:
    path = tmp_path / "one.sqlite3"
    path.write_bytes(original.data)
    os.link(path, tmp_path / "two.sqlite3")
    (finding,) = checked(path).findings
    assert finding.check == "file"
    assert "one of 2 names" in finding.problems[0]


def test_check_of_another_kind_of_file_says_so_once(tmp_path: Path) -> None:
    path = tmp_path / "text.sqlite3"
    path.write_bytes(b"These are the voyages. " * 500)
    (finding,) = checked(path).findings
    assert (finding.count, finding.problems) == (1, ["cannot be read any further: file is not a database"])
