"""Pages and filters of ``list`` and ``show``, on a file and on a server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from google.adk.events import Event, EventActions

from sessiondb import DatabaseSessionService
from tests.command import run_sessiondb

pytestmark = [pytest.mark.anyio, pytest.mark.each_store]

APP, USER = "my_app", "user_123"


@pytest.fixture
async def filled(location: Path | str) -> str:
    """Five sessions, one updated each day, and one with a log of six events."""
    async with DatabaseSessionService(location) as service:
        for n in range(5):
            status = {"status": "open" if n % 2 else "closed", "rounds": [n, "x"], "grün": True}
            session = await service.create_session(APP, USER, f"s{n}", status)
            await service.append_event(session, Event(author="agent", timestamp=1_000_000_000.0 + n * 86_400))
        session = await service.create_session("other", USER, "long")
        for n in range(6):
            delta = EventActions(state_delta={"n": n})
            event = Event(author=("user", "agent")[n % 2], timestamp=900_000_000.0, actions=delta)
            await service.append_event(session, event)
    return str(location)


def lines_of(*arguments: str) -> list[dict[str, Any]]:
    done = run_sessiondb(*arguments, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


def ids(*arguments: str) -> list[str]:
    return [row["session_id"] for row in lines_of("list", *arguments)]


async def test_list_goes_on_behind_a_cursor(filled: str) -> None:
    for order, expected in (((), ["s4", "s3", "s2", "s1", "s0", "long"]), (("--oldest-first",), ["long", "s0", "s1"])):
        found: list[dict[str, Any]] = []
        while len(found) < len(expected):
            after = ["--after", found[-1]["cursor"]] if found else []
            found += lines_of("list", filled, "--limit", "2", *order, *after)
        assert [row["session_id"] for row in found][: len(expected)] == expected
    done = run_sessiondb("list", filled, "--after", "made up")
    assert (done.returncode, done.stdout) == (2, "")
    assert "that is no cursor" in done.stderr


async def test_cursor_of_list_is_one_of_the_service(filled: str, location: Path | str) -> None:
    cursor = lines_of("list", filled, "--limit", "2")[-1]["cursor"]
    async with DatabaseSessionService(location) as service:
        rest = await service.list_sessions(newest_first=True, after=cursor)
        assert [session.id for session in rest.sessions] == ["s2", "s1", "s0", "long"]


async def test_list_by_time_of_update(filled: str) -> None:
    # 1,000,000,000 s are 2001-09-09T01:46:40Z.
    assert ids(filled, "--updated-after", "2001-09-11T01:46:40Z") == ["s4", "s3", "s2"]
    assert ids(filled, "--updated-after", "2001-09-11", "--updated-before", "2001-09-12T03:46:40+02:00") == ["s2"]
    done = run_sessiondb("list", filled, "--updated-before", "yesterday")
    assert done.returncode == 2
    assert "is no time" in done.stderr


async def test_list_by_values_of_state(filled: str) -> None:
    assert ids(filled, "--state", "status=open") == ["s3", "s1"]
    assert ids(filled, "--state", "status=closed", "--state", 'rounds=[ 2, "x" ]') == ["s2"]
    assert len(ids(filled, "--state", "grün=true")) == 5
    done = run_sessiondb("list", filled, "--state", "status")
    assert done.returncode == 2
    assert "is not KEY=VALUE" in done.stderr


async def test_show_some_events(filled: str) -> None:
    def numbers(*options: str) -> list[int]:
        found = lines_of("show", filled, "long", *options)
        return [row["event"]["actions"]["state_delta"]["n"] for row in found]

    assert numbers() == [0, 1, 2, 3, 4, 5]
    assert numbers("--limit", "2") == [0, 1]
    assert numbers("--newest-first", "--limit", "3") == [5, 4, 3]
    assert numbers("--author", "user", "--newest-first") == [4, 2, 0]
    assert numbers("--author", "user", "--author", "agent", "--limit", "4") == [0, 1, 2, 3]
