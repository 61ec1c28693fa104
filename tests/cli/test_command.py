"""The command line, run as a user runs it."""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import sqlite3
import sys
import sysconfig
from contextlib import closing
from pathlib import Path

import pytest

from sessiondb import DatabaseSessionService
from tests.command import run, run_sessiondb, start_sessiondb

APP, USER = "my_app", "user_123"


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A database with three sessions, one of them deleted: there is space to reclaim."""
    path = tmp_path / "adk.sqlite3"

    async def fill() -> None:
        async with DatabaseSessionService(path) as service:
            for number in range(3):
                state = {"blob": "x" * 300_000, "user:latest": number}
                await service.create_session(app_name=APP, user_id=USER, session_id=f"s{number}", state=state)
            await service.delete_session(app_name=APP, user_id=USER, session_id="s0")

    asyncio.run(fill())
    return path


def damage(path: Path) -> bytes:
    """Overwrite the middle of the file, past the pages that are read at opening."""
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64 * 1024] = b"\xde\xad" * (32 * 1024)
    path.write_bytes(content)
    return bytes(content)


def test_help_names_the_commands_examples_and_exit_codes() -> None:
    done = start_sessiondb("--help")
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert "sessiondb demo" in lines
    assert "1  it failed; the reason is one line on standard error" in lines
    for command in ("demo", "stats", "vacuum"):
        assert any(line.startswith(f"{command} ") for line in lines)
        assert "Examples:" in start_sessiondb(command, "--help").stdout


def test_help_is_lazy_and_imports_no_adk_or_rich() -> None:
    script = (
        "import sys, sessiondb; before = set(sys.modules)\n"
        "from sessiondb.cli import main; main(['--help'], standalone_mode=False)\n"
        "print(*set(sys.modules) - before)"
    )
    done = run([sys.executable, "-c", script])
    assert done.returncode == 0, done.stderr
    loaded = done.stdout.splitlines()[-1].split()
    assert "sessiondb.cli.demo" in loaded
    assert [name for name in loaded if name.startswith(("google", "rich", "sessiondb.demo"))] == []


def test_version_option_is_that_of_the_distribution() -> None:
    done = start_sessiondb("--version")
    assert done.returncode == 0, done.stderr
    assert importlib.metadata.version("sessiondb") in done.stdout.split()


def test_console_script_is_the_same_as_python_m() -> None:
    script = Path(sysconfig.get_path("scripts")) / "sessiondb"
    assert run([str(script), "--help"]).stdout == start_sessiondb("--help").stdout


@pytest.mark.parametrize(
    "args",
    [
        pytest.param(["no-such-command"], id="unknown command"),
        pytest.param(["stats", ":memory:"], id="in memory"),
        pytest.param(["stats", "mysql://host/db"], id="foreign URL"),
        pytest.param(["stats", "no-such-file"], id="missing file"),
        pytest.param(["vacuum", "."], id="folder"),
        pytest.param(["demo", "--no-such-option"], id="unknown option"),
    ],
)
def test_usage_error_exits_with_2_and_creates_nothing(args: list[str], tmp_path: Path) -> None:
    args = [str(tmp_path / arg) if arg == "no-such-file" else arg for arg in args]
    done = start_sessiondb(*args)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Usage: sessiondb ")
    assert list(tmp_path.iterdir()) == []


def test_stats_json_counts_what_the_file_holds(database: Path) -> None:
    done = start_sessiondb("stats", database, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    stats = json.loads(done.stdout)
    assert [stats[key] for key in ("sessions", "events", "state_keys")] == [2, 0, 3]
    assert 0.6 < stats["db_size_mb"] < 2


def test_stats_without_path_reads_environment_variable(database: Path) -> None:
    given = run_sessiondb("stats", f"sqlite:///{database}").stdout
    assert run_sessiondb("stats", SESSIONDB_PATH=str(database)).stdout == given != ""


def test_stats_prints_a_table_of_counts(database: Path) -> None:
    done = run_sessiondb("stats", database)
    assert (done.returncode, done.stderr) == (0, "")
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["sessions", "2"] in rows
    assert ["state_keys", "3"] in rows


def test_vacuum_reclaims_what_was_deleted_and_keeps_the_rest(database: Path) -> None:
    size = database.stat().st_size
    done = start_sessiondb("vacuum", database, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    sizes = json.loads(done.stdout)
    assert sizes["db_size_mb_after"] < sizes["db_size_mb_before"]
    assert database.stat().st_size < size - 250_000
    with closing(sqlite3.connect(database)) as connection:
        stored = connection.execute("SELECT session_id FROM adk_sessions ORDER BY session_id").fetchall()
    assert stored == [("s1",), ("s2",)]


def test_vacuum_prints_size_before_and_after(database: Path) -> None:
    done = run_sessiondb("vacuum", database)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["db_size_mb_before", "db_size_mb_after"]


def test_vacuum_of_corrupt_file_fails_in_one_line(database: Path) -> None:
    damaged = damage(database)
    done = run_sessiondb("vacuum", database)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: ")
    assert len(done.stderr.splitlines()) == 1
    assert database.read_bytes() == damaged


@pytest.mark.parametrize("command", ["stats", "vacuum"])
def test_stats_and_vacuum_refuse_non_database_in_one_line(command: str, tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_bytes(b"not a database, but long enough to look at" * 100)
    done = run_sessiondb(command, file)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: ")
    assert len(done.stderr.splitlines()) == 1
    assert file.read_bytes() == b"not a database, but long enough to look at" * 100
    assert list(tmp_path.iterdir()) == [file]
