"""The command that says what conversations have used."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from google.adk.events import Event
from google.genai import types

from sessiondb import DatabaseSessionService
from tests.cli.conftest import APP, HOSTILE, SESSION, USER
from tests.command import run, run_sessiondb


def lines_of(*arguments: str) -> list[dict[str, Any]]:
    done = run_sessiondb("usage", *arguments, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


async def talk(location: str) -> None:
    """Three answers of two models on two days, the last in January, with calls of two tools."""
    async with DatabaseSessionService(location) as service:
        session = await service.create_session(APP, USER, "used")
        for number, (model, tool, day) in enumerate(
            [("big", "search", 1), ("small", "plot", 2), ("big", "plot", 2)], 1
        ):
            call = types.Part.from_function_call(name=tool, args={})
            await service.append_event(
                session,
                Event(
                    author="agent",
                    invocation_id=f"inv-{number}",
                    timestamp=1_767_225_600 + 86_400 * (27 + day),
                    model_version=model,
                    content=types.Content(role="model", parts=[call]),
                    usage_metadata=types.GenerateContentResponseUsageMetadata(
                        prompt_token_count=1000 * number, total_token_count=1001 * number
                    ),
                ),
            )


def test_usage_prints_a_table_the_tools_and_a_chart_of_days(own: str) -> None:
    asyncio.run(talk(own))
    done = run_sessiondb("usage", own, "--session", "used")
    assert (done.returncode, done.stderr) == (0, "")
    table, tools, chart = (part.splitlines() for part in done.stdout.split("\n\n"))
    assert table[0].split() == [
        *("DAY", "TURNS", "EVENTS", "PROMPT", "CANDIDATES", "CACHED", "THOUGHTS", "TOKENS", "ERRORS", "INTERRUPTED")
    ]
    assert [line.split() for line in table[1:]] == [
        ["2026-01-29", "1", "1", "1,000", "0", "0", "0", "1,001", "0", "0"],
        ["2026-01-30", "2", "2", "5,000", "0", "0", "0", "5,005", "0", "0"],
    ]
    assert len({len(line) for line in table}) == 1
    assert [line.split() for line in tools] == [["TOOL", "CALLS"], ["plot", "2"], ["search", "1"]]
    assert chart[0].split() == ["DAY", "TOKENS"]
    bars = [line.split() for line in chart[1:]]
    assert [(day, count) for day, _, count in bars] == [("2026-01-29", "1,001"), ("2026-01-30", "5,005")]
    assert [len(bar) for _, bar, _ in bars] == [8, 40]


def test_usage_prints_a_chart_in_ascii_where_nothing_else_is_taken(own: str) -> None:
    asyncio.run(talk(own))
    done = run([sys.executable, "-m", "sessiondb", "usage", own, "--by", "model"], PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert "-" * 40 in done.stdout
    # What the others, who name no model, have used is a row of its own.
    assert [line.split()[0] for line in done.stdout.splitlines()[:4]] == ["MODEL", "-", "big", "small"]


@pytest.mark.parametrize(
    ("by", "names"),
    [
        ("session", ["app_name", "user_id", "session_id"]),
        ("user", ["app_name", "user_id"]),
        ("app", ["app_name"]),
        ("author", ["app_name", "author"]),
        ("model", ["model"]),
        ("day", ["day"]),
        ("invocation", ["app_name", "user_id", "session_id", "invocation_id"]),
    ],
)
def test_usage_by_each_kind_is_json_with_its_names(by: str, names: list[str], filled: str) -> None:
    rows = lines_of(filled, "--by", by)
    assert {tuple(row) for row in rows} == {
        (
            *names,
            *("turns", "events", "tool_calls", "prompt_tokens", "candidates_tokens", "cached_tokens"),
            *("thoughts_tokens", "total_tokens", "errors", "interruptions"),
        )
    }
    assert sum(row["events"] for row in rows) == 4
    assert [row["tool_calls"] for row in rows if row["tool_calls"]] == [{"weather": 1}]


def test_usage_takes_a_part_of_the_time(own: str) -> None:
    asyncio.run(talk(own))
    assert [row["day"] for row in lines_of(own)] == ["2023-11-14", "2026-01-29", "2026-01-30"]
    assert [row["day"] for row in lines_of(own, "--since", "2023-11-15")] == ["2026-01-29", "2026-01-30"]
    until = ["--since", "2023-11-14T22:13:27", "--until", "2023-11-14T22:13:34"]
    assert [row["events"] for row in lines_of(own, *until)] == [1]


def test_usage_says_so_where_nothing_was_used(filled: str) -> None:
    for more in ([], ["--json"]):
        done = run_sessiondb("usage", filled, "--app", "nobody", "--session", SESSION, *more)
        assert (done.returncode, done.stdout) == (0, "")
        assert done.stderr == f"there is no event of app 'nobody' of session {SESSION!r}\n"
    done = run_sessiondb("usage", filled, "--since", "yesterday")
    assert (done.returncode, done.stdout) == (2, "")


def test_usage_prints_nothing_that_a_terminal_obeys(database: Path) -> None:
    async def say() -> None:
        async with DatabaseSessionService(database) as service:
            session = await service.create_session(HOSTILE, HOSTILE, "s")
            call = types.Part(function_call=types.FunctionCall(name=HOSTILE, args={}))
            content = types.Content(role="model", parts=[call])
            await service.append_event(session, Event(author=HOSTILE, model_version=HOSTILE, content=content))

    asyncio.run(say())
    for by in ("session", "author", "model"):
        printed = run_sessiondb("usage", str(database), "--by", by).stdout
        assert "red" in printed
        assert not set(printed) & {"\x1b", "\x07", "\x9b", "\r", "\u202e"}
