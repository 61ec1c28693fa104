"""``sessiondb truncate`` and ``sessiondb redact``."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from google.adk.events import Event

from sessiondb import DatabaseSessionService
from tests.cli.conftest import APP, SESSION, USER, Look
from tests.command import run_sessiondb

THIS = ["--app", APP, "--user", USER]


def log_of(path: Path | str) -> list[dict[str, Any]]:
    done = run_sessiondb("show", path, SESSION, *THIS, "--json")
    return [json.loads(line)["event"] for line in done.stdout.splitlines()]


def test_truncate_cuts_off_what_it_has_shown(own: str) -> None:
    before = log_of(own)
    arguments = ["truncate", own, SESSION, *THIS, "--after", before[0]["id"]]
    planned = run_sessiondb(*arguments, "--dry-run", "--json")
    assert log_of(own) == before
    told = run_sessiondb(*arguments, "--dry-run")
    assert told.stdout == f"3 events of session {SESSION} would be cut off, after number 1\n"
    done = run_sessiondb(*arguments, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == planned.stdout
    assert json.loads(done.stdout) == {
        "app_name": APP,
        "user_id": USER,
        "session_id": SESSION,
        "after_event_id": before[0]["id"],
        "last_seq": 1,
        "events": 3,
    }
    assert log_of(own) == before[:1]
    # There is nothing left to do.
    assert run_sessiondb(*arguments).stdout == f"0 events of session {SESSION} were cut off, after number 1\n"
    done = run_sessiondb("truncate", own, SESSION, *THIS, "--all")
    assert done.stdout == f"1 events of session {SESSION} were cut off: all\n"
    assert log_of(own) == []


def test_truncate_refuses_to_part_call_and_response(database: Path) -> None:
    before = log_of(database)
    arguments = ["truncate", database, SESSION, *THIS, "--after", before[1]["id"]]
    done = run_sessiondb(*arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert "--force" in done.stderr
    assert before[0]["id"] in done.stderr
    assert log_of(database) == before
    assert run_sessiondb(*arguments, "--force").returncode == 0
    assert log_of(database) == before[:2]


def test_redact_takes_away_what_it_has_shown(own: str) -> None:
    before = log_of(own)
    events = [option for n in (3, 0) for option in ("--event", before[n]["id"])]
    arguments: list[str] = ["redact", own, SESSION, *THIS, *events]
    planned = run_sessiondb(*arguments, "--dry-run", "--json")
    assert log_of(own) == before
    done = run_sessiondb(*arguments, "--replacement", "[removed]", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == planned.stdout
    assert [json.loads(line)["seq"] for line in done.stdout.splitlines()] == [1, 4]
    after = log_of(own)
    assert after[1:3] == before[1:3]
    assert [event["content"] for event in (after[0], after[3])] == [
        {"parts": [{"text": "[removed]"}], "role": "model"}
    ] * 2
    table = run_sessiondb(*arguments, "--dry-run").stdout.splitlines()
    assert [line.split() for line in table] == [["SEQ", "EVENT"], ["1", before[0]["id"]], ["4", before[3]["id"]]]


def test_redact_says_what_is_left_in_the_file(database: Path) -> None:
    event = log_of(database)[0]["id"]
    # A note is for people: it comes where standard error is a terminal.
    assert run_sessiondb("redact", database, SESSION, *THIS, "--event", event).returncode == 0
    assert run_sessiondb("vacuum", database).returncode == 0
    assert b"Weather in Paris" not in database.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["truncate", SESSION, "--after", "x"], 2, "several sessions"),
        (["truncate", SESSION, *THIS], 2, "--after EVENT or --all"),
        (["truncate", SESSION, *THIS, "--all", "--after", "x"], 2, "--after EVENT or --all"),
        (["truncate", SESSION, *THIS, "--after", "x"], 1, "no event with the id 'x'"),
        (["truncate", "missing", "--all"], 1, "no session 'missing'"),
        (["redact", SESSION, "--event", "x"], 2, "several sessions"),
        (["redact", SESSION, *THIS], 2, "--event"),
        (["redact", SESSION, *THIS, "--event", "x"], 1, "no event with the id 'x'"),
        (["redact", "missing", "--event", "x"], 1, "no session 'missing'"),
    ],
)
def test_what_cannot_be_done_changes_nothing(
    arguments: list[str], status: int, words: str, database: Path, fingerprint: Look
) -> None:
    before = fingerprint(database.parent)
    command, *rest = arguments
    done = run_sessiondb(command, database, *rest)
    assert (done.returncode, done.stdout) == (status, "")
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert fingerprint(database.parent) == before


def test_commands_beside_open_service(database: Path) -> None:
    async def beside_a_service() -> None:
        async with DatabaseSessionService(database) as service:
            session = await service.get_session(APP, USER, SESSION)
            assert session is not None
            first = session.events[0].id
            done = await asyncio.to_thread(run_sessiondb, "redact", database, SESSION, *THIS, "--event", first)
            assert done.returncode == 0
            await service.append_event(session, Event(id="new", author="user"))
            read = await service.get_session(APP, USER, SESSION)
            assert read is not None
            assert [read.events[0].content, read.events[-1].id] == [None, "new"]
            done = await asyncio.to_thread(run_sessiondb, "truncate", database, SESSION, *THIS, "--after", first)
            assert done.returncode == 0
            read = await service.get_session(APP, USER, SESSION)
            assert read is not None
            assert [event.id for event in read.events] == [first]

    asyncio.run(beside_a_service())
