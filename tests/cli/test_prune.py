"""``sessiondb prune``."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from google.adk.events import Event, EventActions

from sessiondb import DatabaseSessionService
from sessiondb.cli import prune
from sessiondb.stores.sqlite.writer import SqliteWriter
from tests.cli.conftest import APP, SESSION, USER, Look
from tests.command import run_sessiondb

DAY = 86400


async def use(service: DatabaseSessionService, user_id: str, session_id: str, days_ago: float) -> None:
    session = await service.create_session(APP, user_id, session_id)
    actions = EventActions(state_delta={"user:seen": session_id})
    await service.append_event(
        session, Event(invocation_id="i", author="user", timestamp=time.time() - days_ago * DAY, actions=actions)
    )


async def fill(database: Path | str) -> None:
    """Sessions used 100, 50 and 10 days ago, each by two users."""
    async with DatabaseSessionService(database) as service:
        for days in (100, 50, 10):
            for user_id in ("ada", "bob"):
                await use(service, user_id, f"{days}", days)


@pytest.fixture
def used(tmp_path: Path) -> Path:
    path = tmp_path / "used.sqlite3"
    asyncio.run(fill(path))
    return path


@pytest.fixture(params=["file", "server"])
def used_anywhere(request: pytest.FixtureRequest) -> str:
    if request.param == "file":
        return str(request.getfixturevalue("used"))
    url: str = request.getfixturevalue("postgres_database")
    asyncio.run(fill(url))
    return url


def left(path: Path | str) -> list[tuple[str, str]]:
    done = run_sessiondb("list", path, "--json")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return sorted((row["user_id"], row["session_id"]) for row in rows)


@pytest.mark.parametrize(
    ("options", "gone"),
    [
        (["--older-than", "30d"], [("ada", "100"), ("ada", "50"), ("bob", "100"), ("bob", "50")]),
        (["--older-than", "8w", "--user", "ada"], [("ada", "100")]),
        (["--older-than", "20d", "--app", "another"], []),
        (["--older-than", "2400h"], [("ada", "100"), ("bob", "100")]),
        (["--older-than", "525600m"], []),
    ],
)
def test_prune_deletes_sessions_older_than_given(
    options: list[str], gone: list[tuple[str, str]], used_anywhere: str
) -> None:
    all_of_them = left(used_anywhere)
    planned = run_sessiondb("prune", used_anywhere, *options, "--dry-run", "--json")
    assert left(used_anywhere) == all_of_them
    done = run_sessiondb("prune", used_anywhere, *options, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == planned.stdout
    printed = [json.loads(line) for line in done.stdout.splitlines()]
    assert sorted((row["user_id"], row["session_id"]) for row in printed) == gone
    assert left(used_anywhere) == sorted(set(all_of_them) - set(gone))


def test_prune_deletes_events_and_keeps_user_state(used_anywhere: str) -> None:
    assert run_sessiondb("prune", used_anywhere, "--older-than", "1d").returncode == 0

    async def check() -> None:
        async with DatabaseSessionService(used_anywhere) as service:
            stats = service.get_stats()
            assert (stats["sessions"], stats["events"]) == (0, 0)
            assert await service.get_user_state(APP, "ada") == {"seen": "10"}

    asyncio.run(check())


def test_prune_dry_run_touches_nothing(database: Path, fingerprint: Look) -> None:
    before = fingerprint(database.parent)
    done = run_sessiondb("prune", database, "--older-than", "30d", "--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[1:4] for line in done.stdout.splitlines()[1:]] == [[APP, USER, SESSION]]
    assert fingerprint(database.parent) == before


def test_prune_deletes_in_batches_beside_open_service(tmp_path: Path) -> None:
    path = tmp_path / "many.sqlite3"
    count = prune.AT_ONCE * 2 + 1

    async def beside_a_service() -> None:
        async with DatabaseSessionService(path) as service:
            await asyncio.gather(*(use(service, "ada", f"s{number}", 2) for number in range(count)))
            session = await service.create_session(APP, "ada", "live")
            done = await asyncio.to_thread(run_sessiondb, "prune", path, "--older-than", "1d", "--json")
            assert (done.returncode, len(done.stdout.splitlines())) == (0, count)
            await service.append_event(session, Event(invocation_id="i", author="user"))
            assert [row["session_id"] for row in await service.list_sessions()] == ["live"]

    asyncio.run(beside_a_service())


def test_prune_keeps_session_used_meanwhile(used: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen failing while sessions were deleted whatever had become of them since they were looked up."""
    commit = SqliteWriter.commit
    taken_up: list[str] = []

    async def take_up() -> None:
        async with DatabaseSessionService(used) as service:
            session = await service.get_session(APP, "ada", "100")
            assert session is not None
            await service.append_event(session, Event(invocation_id="i", author="user"))

    def take_up_and_commit(self: SqliteWriter, commands: Any) -> Any:
        if not taken_up:
            taken_up.append("100")
            asyncio.run(take_up())
        return commit(self, commands)

    monkeypatch.setattr(SqliteWriter, "commit", take_up_and_commit)
    done = CliRunner().invoke(prune.command, [str(used), "--older-than", "30d", "--json"])
    assert done.exit_code == 0
    printed = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(row["user_id"], row["session_id"]) for row in printed] == [("bob", "100"), ("ada", "50"), ("bob", "50")]
    monkeypatch.undo()
    assert left(used) == [("ada", "10"), ("ada", "100"), ("bob", "10")]


def test_prune_deletes_session_with_padded_id(used: Path) -> None:
    with closing(sqlite3.connect(used)) as connection:
        connection.execute("PRAGMA foreign_keys=OFF")
        connection.execute("UPDATE adk_sessions SET session_id = ' 100 ' WHERE session_id = '100' AND user_id = 'ada'")
        connection.commit()
    assert run_sessiondb("prune", used, "--older-than", "1d").returncode == 0
    assert left(used) == []


def test_prune_that_is_refused_fails_and_deletes_nothing(used: Path) -> None:
    before = left(used)
    with closing(sqlite3.connect(used)) as connection:
        connection.execute(
            "CREATE TRIGGER theirs BEFORE DELETE ON adk_sessions WHEN OLD.session_id = '50'"
            " BEGIN SELECT RAISE(ABORT, 'not this one'); END"
        )
    done = run_sessiondb("prune", used, "--older-than", "1d", "--json")
    assert (done.returncode, done.stdout) == (1, "")
    assert "not this one" in done.stderr
    assert left(used) == before


@pytest.mark.parametrize("age", ["30", "d", "-1d", "1.5d", "30 days", ""])
def test_prune_age_without_unit_is_usage_error(age: str, database: Path, fingerprint: Look) -> None:
    before = fingerprint(database.parent)
    done = run_sessiondb("prune", database, f"--older-than={age}")
    assert (done.returncode, done.stdout) == (2, "")
    assert "30d" in done.stderr
    assert run_sessiondb("prune", database).returncode == 2
    assert fingerprint(database.parent) == before


# --- Other rules ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "gone"),
    [
        (["--idle", "30d"], 4),
        (["--idle", "30d", "--user", "ada"], 2),
        (["--max-sessions-per-user", "1"], 4),
        (["--max-sessions-per-user", "2", "--idle", "60d", "--app", APP], 2),
        (["--age", "1d"], 0),
        (["--idle", "30d", "--app", "another"], 0),
    ],
)
def test_prune_by_rules_reports_what_it_deletes(options: list[str], gone: int, used_anywhere: str) -> None:
    before = left(used_anywhere)
    planned = json.loads(run_sessiondb("prune", used_anywhere, *options, "--dry-run", "--json").stdout)
    assert left(used_anywhere) == before
    done = run_sessiondb("prune", used_anywhere, *options, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert (report["sessions"], report["events"], report["dry_run"]) == (gone, gone, False)
    assert (planned["sessions"], planned["events"], planned["dry_run"]) == (gone, gone, True)
    assert len(left(used_anywhere)) == 6 - gone


def test_prune_cuts_logs_and_archives_what_goes(used: Path, tmp_path: Path) -> None:
    async def go_on() -> None:
        async with DatabaseSessionService(used) as service:
            session = await service.get_session(APP, "ada", "10")
            assert session is not None
            events = [Event(invocation_id=f"i{n}", author="user", timestamp=2e9 + n) for n in range(9)]
            await service.append_events(session, events)

    asyncio.run(go_on())
    folder = tmp_path / "pruned"
    done = run_sessiondb("prune", used, "--idle", "60d", "--max-events", "4", "--archive", folder)
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == f"archive: {next(folder.iterdir())}"
    assert [line.split() for line in done.stdout.splitlines()[:3]] == [
        ["sessions", "2"],
        ["trimmed", "1"],
        ["events", "8"],
    ]
    listed = run_sessiondb("list", used, "--user", "ada", "--json")
    rows = [json.loads(line) for line in listed.stdout.splitlines()]
    assert {row["session_id"]: row["events"] for row in rows} == {"10": 4, "50": 1}
    imported = run_sessiondb("import", next(folder.iterdir()), tmp_path / "archived.sqlite3", "--json")
    assert json.loads(imported.stdout) == {"sessions": 3, "events": 8, "skipped": 0, "state_kept": 0}
    assert (
        run_sessiondb("check", used).returncode == run_sessiondb("check", tmp_path / "archived.sqlite3").returncode == 0
    )


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--dry-run"],
        ["--archive", "folder"],
        ["--older-than", "1d", "--max-events", "1"],
        ["--max-events", "0"],
        ["--idle", "1"],
    ],
)
def test_prune_without_a_rule_is_usage_error(options: list[str], database: Path, fingerprint: Look) -> None:
    before = fingerprint(database.parent)
    done = run_sessiondb("prune", database, *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert fingerprint(database.parent) == before


def test_prune_by_rules_dry_run_touches_nothing(database: Path, fingerprint: Look) -> None:
    before = fingerprint(database.parent)
    done = run_sessiondb(
        "prune", database, "--age", "1s", "--idle", "30d", "--archive", database.parent / "a", "--dry-run"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert fingerprint(database.parent) == before


def test_prune_of_file_that_is_not_there_creates_none(tmp_path: Path) -> None:
    assert run_sessiondb("prune", tmp_path / "no.sqlite3", "--idle", "1d").returncode == 2
    assert list(tmp_path.iterdir()) == []
