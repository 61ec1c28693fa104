"""``sessiondb erase-user``."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from sessiondb import DatabaseSessionService, ForkedSession
from sessiondb.cli import main
from tests.cli.conftest import APP, SESSION, USER, Look
from tests.command import run_sessiondb
from tests.engine.tools import other_program


async def _fill(database: Path | str) -> None:
    async with DatabaseSessionService(database) as service:
        for user in ("ada", "bob"):
            for name in ("one", "two"):
                session = await service.create_session(APP, user, name, {"user:name": user, "own": 1})
                await service.update_keys(*(session.app_name, user, name), {"own": 2})


@pytest.fixture(params=["file", "server"])
def filled(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    found: Path | str = tmp_path / "filled.sqlite3"
    if request.param == "server":
        found = request.getfixturevalue("postgres_database")
    asyncio.run(_fill(found))
    return str(found)


def _owners(database: str) -> list[str]:
    return [json.loads(line)["user_id"] for line in run_sessiondb("list", database, "--json").stdout.splitlines()]


def test_command_erases_a_user_and_says_how_much(filled: str) -> None:
    options = ["--app", APP, "--user", "ada"]
    planned = run_sessiondb("erase-user", filled, *options, "--dry-run", "--json")
    assert json.loads(planned.stdout) == {"sessions": 2, "events": 2, "state_keys": 3, "forks": 0}
    assert sorted(_owners(filled)) == ["ada", "ada", "bob", "bob"]
    done = run_sessiondb("erase-user", filled, *options, "--yes", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == planned.stdout
    assert _owners(filled) == ["bob", "bob"]
    again = run_sessiondb("erase-user", filled, *options, "--yes", "--no-purge")
    assert (again.returncode, again.stderr) == (0, "")
    assert again.stdout.split() == ["sessions", "0", "events", "0", "state_keys", "0", "forks", "0"]


def test_command_asks_first(filled: str) -> None:
    arguments = ["erase-user", filled, "--app", APP, "--user", "ada"]
    for answer in ("n\n", "\n", ""):
        refused = CliRunner().invoke(main, arguments, input=answer)
        assert refused.exit_code == 1
        assert "Delete 2 sessions with 2 events and 3 keys of state of user 'ada' of app 'my_app'?" in refused.output
    assert len(_owners(filled)) == 4
    assert CliRunner().invoke(main, arguments, input="y\n").exit_code == 0
    assert _owners(filled) == ["bob", "bob"]


def test_dry_run_touches_nothing(database: Path, fingerprint: Look) -> None:
    before = fingerprint(database.parent)
    done = run_sessiondb("erase-user", database, "--app", APP, "--user", USER, "--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    assert fingerprint(database.parent) == before
    assert SESSION in run_sessiondb("list", database).stdout


def test_reader_that_does_not_end_is_an_error_after_the_deletion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "read.sqlite3"
    asyncio.run(_fill(path))
    monkeypatch.setattr("sessiondb.cli.erase_user._READERS_SECONDS", 0.2)
    arguments = ["erase-user", str(path), "--app", APP, "--user", "ada", "--yes"]
    with other_program(path, "BEGIN", "SELECT count(*) FROM adk_events"):
        done = CliRunner().invoke(main, arguments)
        assert done.exit_code == 1
        assert "somebody who reads since before keeps it in the write-ahead log" in done.output
        assert _owners(str(path)) == ["bob", "bob"]
    assert CliRunner().invoke(main, arguments).exit_code == 0


def test_fork_that_forgot_where_it_is_from_is_exported_and_imported(tmp_path: Path) -> None:
    source, target, lines = tmp_path / "source.sqlite3", tmp_path / "target.sqlite3", tmp_path / "lines.jsonl"

    async def fork() -> None:
        async with DatabaseSessionService(source) as service:
            await service.create_session(APP, "ada", "one")
            await service.update_keys(APP, "ada", "one", {"own": 2})
            await service.fork_session(APP, "ada", "one", new_user_id="bob", new_session_id="fork")
            await service.erase_user(APP, "ada")

    async def forks() -> list[ForkedSession]:
        async with DatabaseSessionService(target) as service:
            return await service.list_forks(APP)

    asyncio.run(fork())
    assert run_sessiondb("export", source, "-o", lines).returncode == 0
    done = run_sessiondb("import", lines, target)
    assert (done.returncode, done.stderr) == (0, "")
    (found,) = asyncio.run(forks())
    assert (found.key, found.origin) == ((APP, "bob", "fork"), (None, None, 1))
    lines.write_text(lines.read_text().replace('"session_id":null', '"session_id":"one"', 1))
    assert "has a 'forked_from' without" in run_sessiondb("import", lines, tmp_path / "half.sqlite3").stderr


@pytest.mark.parametrize("options", [[], ["--app", APP], ["--user", "ada"]])
def test_command_wants_app_and_user(database: Path, options: list[str]) -> None:
    assert run_sessiondb("erase-user", database, *options, "--yes").returncode == 2
