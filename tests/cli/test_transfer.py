"""``sessiondb export`` and ``sessiondb import``: what goes out comes in again, equal."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from google.adk.events import Event, EventActions
from google.genai import types

from sessiondb import DatabaseSessionService, stores
from sessiondb.errors import SessionDBError
from sessiondb.model.queries import MeasureStore
from sessiondb.transfer.jsonl import export_lines, import_lines
from tests.cli.conftest import APP, HOSTILE, SESSION, USER, Look
from tests.command import PACKAGE_PARENT, run_sessiondb
from tests.full_models import full_event

ODD = '"it\'s" % _ $.a[0] \\ grün 日本 🤖 \x01\x7f\x85\u2028'

TABLES = {
    "sessions": (
        "SELECT app_name, user_id, session_id, created_at, updated_at, update_time, revision, last_seq"
        " FROM adk_sessions ORDER BY app_name, user_id, session_id"
    ),
    "events": (
        "SELECT app_name, user_id, session_id, seq, revision, event_id, invocation_id, author, event_time, timestamp,"
        " event_hash, content, actions, extra FROM adk_events ORDER BY app_name, user_id, session_id, id"
    ),
    "state": (
        "SELECT app_name, user_id, session_id, scope, state_key, state_value FROM adk_state"
        " ORDER BY app_name, user_id, session_id, scope, state_key"
    ),
}


def tables(place: Path | str) -> dict[str, list[tuple[Any, ...]]]:
    """All that a database holds but for row ids, incarnations, and when a key of state was stored."""
    if str(place).startswith("postgresql:"):
        return tables_on_server(str(place))
    with closing(sqlite3.connect(place)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        return {name: connection.execute(statement).fetchall() for name, statement in TABLES.items()}


def tables_on_server(url: str) -> dict[str, list[tuple[Any, ...]]]:
    checked = run_sessiondb("check", url)
    assert (checked.returncode, checked.stderr) == (0, "")
    with psycopg.connect(url) as connection:
        found = {name: connection.execute(statement).fetchall() for name, statement in TABLES.items()}
    # SQLite sorts NULL first.
    return {
        name: sorted(rows, key=lambda row: [(value is not None, value) for value in row])
        for name, rows in found.items()
    }


async def fill(path: Path | str) -> None:
    async with DatabaseSessionService(path) as service:
        rich = {"none": {"a": None}, "float": 0.1 + 0.2, "large": 2**70, "text": ODD, ODD: [1, {"x": HOSTILE}]}
        session = await service.create_session(APP, USER, SESSION, {**rich, "user:u": rich, "app:a": rich})
        await service.append_event(session, full_event())
        for number, moment in enumerate([1e9 + 1 / 3, 1e9, 1e9, 1_700_000_000.123456789]):
            # Time stands still and goes back; the last two share an id.
            event = Event(
                id=f"id {max(number, 2)}",
                invocation_id=ODD,
                author=ODD,
                timestamp=moment,
                content=types.Content(role="user", parts=[types.Part(text=HOSTILE), types.Part(text="")]),
                actions=EventActions(state_delta={"n": number, "text": None, "temp:t": 1}),
            )
            await service.append_event(session, event)
            await service.update_keys(APP, USER, SESSION, {"outside": number, "user:u2": [number]})
        await service.create_session(APP, USER, "no events")
        await service.create_session(ODD, ODD, ODD.strip(), {ODD: ODD, f"app:{ODD}": 1})
        await service.create_session(APP, "gone", "gone", {"user:left": "behind"})
        await service.delete_session(APP, "gone", "gone")
        await service.create_session("app without sessions", "gone", "gone", {"app:left": "behind"})
        await service.delete_session("app without sessions", "gone", "gone")


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with all that is hard to carry. Read by several tests."""
    path = tmp_path_factory.mktemp("rich") / "rich.sqlite3"
    asyncio.run(fill(path))
    return path


@pytest.fixture(params=["file", "server"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a database is to be created: a path, or the URL of a server."""
    if request.param == "file":
        return str(tmp_path / "new" / "target.sqlite3")
    url: str = request.getfixturevalue("postgres_database")
    return url


@pytest.fixture(scope="module")
def exported(rich: Path) -> Path:
    """What ``export`` makes of it."""
    output = rich.with_name("rich.jsonl")
    done = run_sessiondb("export", rich, "-o", output)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return output


def import_(source: Path, target: Path | str, *options: str) -> dict[str, int]:
    done = run_sessiondb("import", source, target, "--json", *options)
    assert (done.returncode, done.stderr) == (0, "")
    counts: dict[str, int] = json.loads(done.stdout)
    return counts


def test_export_and_import_of_whole_file_is_equal(rich: Path, exported: Path, empty: str) -> None:
    assert import_(exported, empty) == {"sessions": 3, "events": 9, "skipped": 0, "state_kept": 0}
    assert tables(empty) == tables(rich)
    again = run_sessiondb("export", empty)
    assert again.stdout.splitlines()[1:] == exported.read_text(encoding="utf-8").splitlines()[1:]


def test_import_into_open_service_is_seen(rich: Path, exported: Path, empty: str) -> None:
    async def go_on() -> None:
        async with DatabaseSessionService(rich) as source, DatabaseSessionService(empty) as service:
            # It has looked before: nothing it keeps in memory may hide what comes.
            assert await service.get_session(APP, USER, SESSION) is None
            await asyncio.to_thread(import_, exported, empty)
            old, new = [await one.get_session(APP, USER, SESSION) for one in (source, service)]
            assert old is not None
            assert new is not None
            # Not the objects: each knows the revision of its own database.
            assert new.model_dump() == old.model_dump()
            assert await service.get_user_state(APP, "gone") == {"left": "behind"}
            await service.append_event(new, old.events[0])
            assert service.get_event_count(APP, USER, SESSION) == len(old.events)
            event = Event(invocation_id="i", author="user", actions=EventActions(state_delta={"more": 1}))
            await service.append_event(new, event)
            assert await service.get_session(APP, USER, SESSION) == new

    asyncio.run(go_on())


def test_export_of_one_session_has_only_its_state(rich: Path, tmp_path: Path) -> None:
    output, target = tmp_path / "one.jsonl", tmp_path / "one.sqlite3"
    assert run_sessiondb("export", rich, "--session", SESSION, "-o", output).returncode == 0
    assert import_(output, target)["sessions"] == 1
    whole, part = tables(rich), tables(target)
    assert part["sessions"] == [row for row in whole["sessions"] if row[2] == SESSION]
    assert part["events"] == [row for row in whole["events"] if row[2] == SESSION]
    assert part["state"] == [row for row in whole["state"] if row[:2] in ((APP, USER), (APP, None))]
    missing = run_sessiondb("export", rich, "--session", SESSION, "--session", "nobody", "-o", tmp_path / "none")
    assert (missing.returncode, missing.stderr) == (1, f"Error: there is no session 'nobody' in {rich}\n")
    assert not (tmp_path / "none").exists()


def test_export_filters_by_app_and_user(rich: Path) -> None:
    lines = [
        json.loads(line) for line in run_sessiondb("export", rich, "--app", APP, "--user", USER).stdout.splitlines()
    ]
    kinds = [line["type"] for line in lines]
    assert kinds[:4] == ["header", "app_state", "user_state", "session"]
    assert (kinds.count("session"), kinds.count("event"), lines[-1]) == (2, 9, {"type": "end", "sessions": 2})


def test_export_output_has_private_permissions(database: Path, fingerprint: Look, tmp_path: Path) -> None:
    before = fingerprint(database.parent)
    output = tmp_path / "out.jsonl"
    assert run_sessiondb("export", database, "-o", output).returncode == 0
    assert fingerprint(database.parent) == before
    assert output.stat().st_mode & 0o777 == 0o600
    assert output.read_text(encoding="utf-8").isascii()


def test_failed_export_keeps_earlier_output(database: Path, tmp_path: Path) -> None:
    folder = tmp_path / "exports"
    folder.mkdir()
    output = folder / "out.jsonl"
    output.write_text("earlier")
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("UPDATE adk_events SET actions = 'nonsense' WHERE seq = 3")
        connection.commit()
    done = run_sessiondb("export", database, "-o", output, "--overwrite")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: row 3 of adk_events")
    assert output.read_text() == "earlier"
    assert list(folder.iterdir()) == [output]


def test_export_to_missing_directory_fails_in_one_line(database: Path, tmp_path: Path) -> None:
    done = run_sessiondb("export", database, "-o", tmp_path / "no folder" / "out.jsonl")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: cannot write to ")
    assert len(done.stderr.splitlines()) == 1


def test_import_refuses_or_skips_existing_sessions(rich: Path, exported: Path, tmp_path: Path) -> None:
    target = tmp_path / "target.sqlite3"

    async def occupy() -> None:
        async with DatabaseSessionService(target) as service:
            await service.create_session(APP, USER, SESSION, {"mine": 1, "user:u": "mine", "app:other": 1})

    asyncio.run(occupy())
    refused = run_sessiondb("import", exported, target)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "--skip-existing" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    counts = import_(exported, target, "--skip-existing")
    assert (counts["skipped"], counts["state_kept"]) == (3, 1)
    merged = tables(target)
    assert [row[:3] for row in merged["sessions"]] == [row[:3] for row in tables(rich)["sessions"]]
    own = [row[3:] for row in merged["state"] if row[:3] == (APP, USER, SESSION)]
    assert own == [("SESSION", "mine", "1")]
    assert (APP, USER, None, "USER", "u", '"mine"') in merged["state"]
    assert (APP, None, None, "APP", "other", "1") in merged["state"]
    assert [row for row in merged["events"] if row[2] == SESSION] == []
    assert import_(exported, target, "--skip-existing")["skipped"] == 3
    assert tables(target) == merged


def test_import_of_truncated_export_is_resumed(rich: Path, exported: Path, tmp_path: Path) -> None:
    lines = exported.read_text(encoding="utf-8").splitlines()
    whole = tables(rich)
    for kept in range(len(lines)):
        target = tmp_path / f"{kept}.sqlite3"
        with stores.open_import(target) as into:
            with pytest.raises(ValueError, match="ends early"):
                import_lines(lines[:kept], into)
            with closing(sqlite3.connect(target)) as connection:
                found = connection.execute(TABLES["sessions"]).fetchall()
                events = connection.execute(TABLES["events"]).fetchall()
            assert [row for row in whole["sessions"] if row in found] == found
            names = [row[:3] for row in found]
            assert events == [row for row in whole["events"] if row[:3] in names]
            import_lines(lines, into, skip_existing=True)
        assert tables(target) == whole


def test_export_and_import_stream_session_by_session(rich: Path, tmp_path: Path) -> None:
    with stores.open_reader(rich) as reader, stores.open_import(tmp_path / "target.sqlite3") as into:
        previous: list[str] = []

        def watched() -> Iterator[str]:
            for line in export_lines(reader):
                if '"type":"session"' in line:
                    with stores.open_reader(tmp_path / "target.sqlite3") as look:
                        # Where a session ends is seen at the line after it; all before that one are in the database.
                        assert look.ask(MeasureStore()).sessions >= len(previous) - 1
                    previous.append(line)
                yield line

        assert import_lines(watched(), into).sessions == len(previous) == 3


def replaced(exported: Path, number: int, **members: object) -> str:
    lines = exported.read_text(encoding="utf-8").splitlines()
    lines[number] = json.dumps({**json.loads(lines[number]), **members})
    return "\n".join(lines)


SESSION_LINE, EVENT_LINE = 8, 9


@pytest.mark.parametrize(
    ("number", "members", "problem"),
    [
        (0, {"format": "another"}, "not the header"),
        (0, {"version": 2}, "version 2"),
        (1, {"type": "surprise"}, "line 2 is of type 'surprise'"),
        (1, {"state": 1}, "line 2 has no object 'state'"),
        (1, {"app_name": None}, "line 2 has no text 'app_name'"),
        (SESSION_LINE, {"session_id": "a\0b"}, "NUL"),
        (SESSION_LINE, {"session_id": " spaces "}, "spaces"),
        (SESSION_LINE, {"created_at": "yesterday"}, "line 9 has a 'created_at'"),
        (SESSION_LINE, {"update_time": "now"}, "line 9 has no number 'update_time'"),
        (SESSION_LINE, {"update_time": 1e30}, "timestamp"),
        (SESSION_LINE, {"events": -1}, "line 9 has no count 'events'"),
        (SESSION_LINE, {"events": 100}, "where an event belongs"),
        (SESSION_LINE, {"events": 1}, "one event more"),
        (SESSION_LINE, {"state": {"app:x": 1}}, "prefix"),
        (EVENT_LINE, {"event": []}, "line 10 has no object 'event'"),
        (EVENT_LINE, {"event": {"author": "x", "future_field": 1}}, "does not know: future_field"),
        (EVENT_LINE, {"event": {"author": 7}}, "author: string_type"),
        (EVENT_LINE, {"type": "session"}, "where an event belongs"),
    ],
)
def test_import_names_wrong_line_and_drops_its_session(
    number: int, members: dict[str, object], problem: str, exported: Path, tmp_path: Path
) -> None:
    lines = [json.loads(line) for line in exported.read_text(encoding="utf-8").splitlines()]
    assert lines[SESSION_LINE]["session_id"] == SESSION
    assert lines[EVENT_LINE]["type"] == "event"
    source = tmp_path / "wrong.jsonl"
    source.write_text(replaced(exported, number, **members), encoding="utf-8")
    target = tmp_path / "target.sqlite3"
    with stores.open_import(target) as into, source.open(encoding="utf-8") as opened:
        with pytest.raises(SessionDBError) as caught:
            import_lines(opened, into)
        assert problem in str(caught.value)
    assert SESSION not in [row[2] for row in tables(target)["sessions"]]


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"{}\n", b"[1]\n", b"not JSON\n", b'{"type":"header"}\n'])
def test_import_refuses_what_is_no_export_in_one_line(content: bytes, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(content)
    done = run_sessiondb("import", source, tmp_path / "target.sqlite3")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: ")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "target.sqlite3").exists()


def test_export_piped_into_import(rich: Path, tmp_path: Path) -> None:
    target = tmp_path / "target.sqlite3"
    command = [sys.executable, "-m", "sessiondb"]
    with subprocess.Popen([*command, "export", str(rich)], cwd=PACKAGE_PARENT, stdout=subprocess.PIPE) as export:
        done = subprocess.run(
            [*command, "import", "-", str(target)],
            cwd=PACKAGE_PARENT,
            stdin=export.stdout,
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
    assert (export.returncode, done.returncode, done.stderr) == (0, 0, "")
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["sessions", "3"],
        ["events", "9"],
        ["skipped", "0"],
        ["state_kept", "0"],
    ]
    assert tables(target) == tables(rich)


def test_export_progress_bar_on_terminal_only(rich: Path) -> None:
    ours, theirs = os.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "sessiondb", "export", str(rich)],
        cwd=PACKAGE_PARENT,
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm"},
    ) as process:
        assert process.stdout is not None
        lines = process.stdout.read().splitlines()
    os.close(theirs)
    shown = os.read(ours, 100_000).decode()
    os.close(ours)
    assert process.returncode == 0
    assert "exported lines" in shown
    assert [json.loads(line)["type"] for line in lines][-1] == "end"
