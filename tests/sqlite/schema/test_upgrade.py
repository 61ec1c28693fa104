"""An upgrade in place: all of it or nothing, after a copy was made, whoever else opens the file or ends meanwhile."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import stat
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from sessiondb import DatabaseSessionService
from sessiondb.errors import UnsupportedDatabaseError, UpgradeError
from sessiondb.stores.sqlite import schema
from sessiondb.stores.sqlite.connection import open_writer
from sessiondb.stores.sqlite.upgrade import Step
from tests.command import run_sessiondb
from tests.engine.processes import run, start
from tests.sqlite.schema import frozen
from tests.sqlite.schema.interrupted import connect
from tests.sqlite.schema.programs import (
    later,
    open_later_schema,
    open_later_schema_on_a_full_disk,
    rebuild_a_table,
    rename_a_column,
)

VERSION = schema.PRESENT.version


@pytest.fixture
def old(database_path: Path) -> Path:
    """A file of the present version, which is an old one to a schema that is to come."""
    frozen.load(VERSION, database_path)
    with closing(sqlite3.connect(database_path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
    return database_path


def copy_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.schema-{VERSION}.backup")


def upgrade(path: Path, *steps: Step) -> None:
    with closing(open_writer(path, "full", 5)) as connection:
        schema.prepare(connection, path, later(*steps))


def version_of(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def assert_untouched(path: Path) -> None:
    """The file holds what was frozen, and nothing was left beside it."""
    assert version_of(path) == VERSION
    assert asyncio.run(frozen.read(path)) == frozen.recorded(VERSION)
    assert list(path.parent.iterdir()) == [path]


def test_upgrade_runs_all_steps_after_a_backup(old: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="sessiondb")
    with closing(open_writer(old, "full", 5)) as connection:
        schema.prepare(connection, old, later(rename_a_column, rebuild_a_table))
        assert connection.execute("PRAGMA foreign_keys").fetchone() == (1,)
    assert version_of(old) == VERSION + 2
    with closing(sqlite3.connect(old)) as connection, closing(sqlite3.connect(copy_of(old))) as copy:
        for table in ("adk_sessions", "adk_events", "adk_state", "sessiondb_meta"):
            found = connection.execute(f"SELECT * FROM {table}").fetchall()
            assert found
            assert found == copy.execute(f"SELECT * FROM {table}").fetchall()
        assert connection.execute("SELECT sum(epoch) FROM adk_sessions").fetchone() == (0,)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert stat.S_IMODE(copy_of(old).stat().st_mode) == 0o600
    # What the earlier release needs to go on from there.
    assert asyncio.run(frozen.read(copy_of(old))) == frozen.recorded(VERSION)
    begun, done = caplog.records
    for record, event in ((begun, "schema_upgrade_begun"), (done, "schema_upgraded")):
        assert record.getMessage() == event
        assert (vars(record)["from_version"], vars(record)["to_version"]) == (VERSION, VERSION + 2)
    assert vars(done)["backup"] == str(copy_of(old))


def test_upgrade_is_not_repeated(old: Path) -> None:
    upgrade(old, rename_a_column)
    before = copy_of(old).stat()
    upgrade(old, rename_a_column)
    assert copy_of(old).stat() == before
    with pytest.raises(UnsupportedDatabaseError, match=f"schema version {VERSION + 1}.*install a newer sessiondb"):
        DatabaseSessionService(old)


def test_upgrade_lets_readers_read_and_writers_wait(old: Path) -> None:
    def look(_: sqlite3.Connection) -> None:
        assert version_of(old) == VERSION
        with (
            closing(open_writer(old, "full", 0)) as other,
            pytest.raises(sqlite3.OperationalError, match="database is locked"),
        ):
            other.execute("BEGIN IMMEDIATE")

    upgrade(old, rename_a_column, look)
    assert version_of(old) == VERSION + 2


def fail(_: sqlite3.Connection) -> None:
    raise ZeroDivisionError("a defect")


def fail_in_sql(connection: sqlite3.Connection) -> None:
    connection.execute("INSERT INTO no_such_table VALUES (1)")


def leave_orphans(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE adk_events SET session_id = 'of no session'")


@pytest.mark.parametrize(
    ("step", "error", "message"),
    [
        (fail, ZeroDivisionError, "a defect"),
        (fail_in_sql, UpgradeError, "could not be brought .* and was not changed: no such table"),
        (leave_orphans, UpgradeError, "a row refers to another one that does not exist"),
    ],
)
def test_upgrade_that_fails_is_rolled_back_whole(old: Path, step: Step, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        upgrade(old, rename_a_column, rebuild_a_table, step)
    assert_untouched(old)


def sqlite_error(code: int) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("made up")
    error.sqlite_errorcode = code
    return error


def at_the_commit(code: int) -> Callable[[str], None]:
    def before(statement: str) -> None:
        if statement == "COMMIT":
            raise sqlite_error(code)

    return before


def test_upgrade_with_disk_full_at_commit_changes_nothing(old: Path) -> None:
    with closing(connect(old, at_the_commit(sqlite3.SQLITE_FULL))) as connection:
        with pytest.raises(UpgradeError, match="was not changed: made up"):
            schema.prepare(connection, old, later(rename_a_column))
        assert not connection.in_transaction
    assert_untouched(old)


def test_upgrade_keeps_backup_after_fsync_error(old: Path) -> None:
    with (
        closing(connect(old, at_the_commit(sqlite3.SQLITE_IOERR_FSYNC))) as connection,
        pytest.raises(sqlite3.OperationalError, match="made up"),
    ):
        schema.prepare(connection, old, later(rename_a_column))
    assert version_of(copy_of(old)) == VERSION


def test_upgrade_overwrites_no_earlier_backup(old: Path) -> None:
    copy_of(old).write_bytes(b"kept")
    upgrade(old, rename_a_column)
    assert copy_of(old).read_bytes() == b"kept"
    assert version_of(old.with_name(copy_of(old).name + "-2")) == VERSION


def test_upgrade_refuses_corrupt_file(old: Path) -> None:
    with closing(sqlite3.connect(old)) as connection, connection:
        connection.execute("UPDATE adk_events SET session_id = 'of no session'")
    with pytest.raises(UpgradeError, match=rf"was not brought to {VERSION + 1}.*damaged and was not kept"):
        upgrade(old, rename_a_column)
    assert version_of(old) == VERSION
    assert list(old.parent.iterdir()) == [old]


def test_upgrade_with_disk_full_for_backup_does_nothing(old: Path) -> None:
    with closing(sqlite3.connect(old)) as connection, connection:
        connection.execute("CREATE TABLE large AS SELECT zeroblob(200000) AS zeros")
    shutil.copyfile(old, before := old.with_name("before"))
    said = run(open_later_schema_on_a_full_disk, old)
    assert f"is copied to {str(copy_of(old))!r}, which has failed: SQLite refused the write" in said
    assert old.read_bytes() == before.read_bytes()
    assert sorted(old.parent.iterdir()) == [old, before]


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_upgrade_killed_midway_changes_nothing(old: Path) -> None:
    with start(open_later_schema, old) as process:
        assert [read_line(process), read_line(process)] == ["BEGIN IMMEDIATE", "upgrading"]
        process.kill()
    # The copy is whole, and can be deleted.
    assert asyncio.run(frozen.read(copy_of(old))) == frozen.recorded(VERSION)
    copy_of(old).unlink()
    assert_untouched(old)
    upgrade(old, rename_a_column)
    assert version_of(old) == VERSION + 1


def test_upgrade_by_two_processes_is_done_once(old: Path) -> None:
    with start(open_later_schema, old) as first, start(open_later_schema, old) as second:
        assert [read_line(first), read_line(second)] == ["BEGIN IMMEDIATE"] * 2
        # Which of them is first is not known.
        for process in (first, second):
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        # Not communicate(), which would pass over what has been read ahead of a line.
        answers = [process.stdout.read() for process in (first, second) if process.stdout is not None]
    said = sorted(answer.splitlines() for answer in answers)
    count = len(frozen.recorded(VERSION)["sessions"])
    assert said == [[str((VERSION + 1, count))], ["upgrading", str((VERSION + 1, count))]], answers


def test_upgrade_races_with_newer_release(old: Path) -> None:
    def before(statement: str) -> None:
        if statement == "BEGIN IMMEDIATE":
            upgrade(old, rename_a_column, rebuild_a_table)

    with (
        closing(connect(old, before)) as connection,
        pytest.raises(UnsupportedDatabaseError, match="install a newer sessiondb"),
    ):
        schema.prepare(connection, old, later(rename_a_column))
    assert version_of(old) == VERSION + 2


@pytest.fixture
def stranger(old: Path) -> Path:
    """A file of a version from which no way leads here."""
    with closing(sqlite3.connect(old)) as connection:
        connection.execute("PRAGMA user_version=0")
    return old


def test_upgrade_of_unknown_schema_version_is_refused(stranger: Path) -> None:
    with pytest.raises(UnsupportedDatabaseError, match=f"schema version 0, from which no way leads to {VERSION}"):
        DatabaseSessionService(stranger)
    assert list(stranger.parent.iterdir()) == [stranger]


def test_read_only_commands_do_not_upgrade(stranger: Path) -> None:
    before = stranger.read_bytes()
    done = run_sessiondb("list", stranger)
    assert (done.returncode, done.stdout) == (1, "")
    assert "has schema version 0, an earlier one than" in done.stderr
    assert "`sessiondb vacuum`" in done.stderr
    assert stranger.read_bytes() == before
    assert list(stranger.parent.iterdir()) == [stranger]


def test_backup_of_old_schema_version(stranger: Path, tmp_path: Path) -> None:
    done = run_sessiondb("backup", stranger, tmp_path / "copy.sqlite3")
    assert done.returncode == 0, done.stderr
    assert version_of(tmp_path / "copy.sqlite3") == 0
