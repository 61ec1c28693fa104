"""The commands that only look: list, show, history, stats, tail."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from google.adk.events import Event, EventActions
from google.genai import types

from sessiondb import DatabaseSessionService, stores
from sessiondb.adk.events import event_as_dict
from sessiondb.engine.store import Reader
from sessiondb.errors import CorruptRowError, DatabaseBusyError, FileLostError
from sessiondb.model.queries import GetLogEnd, ListEvents
from sessiondb.model.records import Selection
from tests.cli.conftest import APP, SESSION, USER, Look
from tests.command import PACKAGE_PARENT, run_sessiondb

READING = [
    ["list"],
    ["show", SESSION, "--app", APP, "--user", USER],
    ["history", "progress"],
    ["stats"],
    ["tail"],
    ["usage"],
]


def reading(arguments: list[str], file: Path | str, *more: str) -> list[str]:
    """The command with its file, which comes first."""
    return [arguments[0], str(file), *arguments[1:], *more]


def lines_of(*arguments: str | Path, says: str = "") -> list[dict[str, Any]]:
    done = run_sessiondb(*arguments, "--json")
    assert (done.returncode, done.stderr) == (0, says and f"{says}\n")
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("arguments", READING, ids=lambda arguments: arguments[0])
@pytest.mark.parametrize("more", [[], ["--json"]], ids=["text", "json"])
def test_read_only_commands_leave_closed_file_untouched(
    arguments: list[str], more: list[str], database: Path, fingerprint: Look
) -> None:
    before = fingerprint(database.parent)
    done = run_sessiondb(*reading(arguments, database, *more))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout
    assert fingerprint(database.parent) == before
    assert list(before) == ["adk.sqlite3"]


@pytest.mark.parametrize("arguments", READING, ids=lambda arguments: arguments[0])
def test_read_only_commands_see_the_wal_of_running_service(arguments: list[str], database: Path) -> None:
    async def beside_a_service() -> None:
        async with DatabaseSessionService(database) as service:
            await service.update_keys(APP, USER, SESSION, {"progress": "fresh"})
            done = await asyncio.to_thread(run_sessiondb, *reading(arguments, database, "--json"))
            assert (done.returncode, done.stderr) == (0, "")
            last = json.loads(done.stdout) if arguments == ["stats"] else json.loads(done.stdout.splitlines()[-1])
            match arguments[0]:
                case "list":
                    assert len(done.stdout.splitlines()) == 3
                case "show":
                    assert last["event"]["actions"]["state_delta"] == {"progress": "fresh"}
                case "history":
                    assert last["value"] == "fresh"
                case "stats":
                    assert last["events"] == 5
                case "usage":
                    assert (last["day"], last["events"]) > ("2023-11-14", 0)
                case _:
                    assert last["seq"] == 5
            await service.update_keys(APP, USER, SESSION, {"progress": "later"})
            await asyncio.to_thread(service.vacuum)

    asyncio.run(beside_a_service())


def test_list_sorts_by_last_update(filled: str) -> None:
    rows = lines_of("list", filled)
    assert [(row["app_name"], row["user_id"], row["session_id"], row["events"]) for row in rows] == [
        ("zoo", USER, "lonely", 0),
        (APP, "other", SESSION, 0),
        (APP, USER, SESSION, 4),
    ]
    assert rows[-1]["update_time"] == 1_700_000_021.1
    assert rows[-1]["updated_at"] == "2023-11-14T22:13:41.100000Z"


@pytest.mark.parametrize(
    ("options", "found"),
    [(["--app", APP], 2), (["--user", USER], 2), (["--app", APP, "--user", USER], 1), (["--app", "x' OR 1=1--"], 0)],
)
def test_list_filters_by_app_user_and_limit(options: list[str], found: int, filled: str) -> None:
    nothing = "" if found else f"there is no session of app {options[1]!r}"
    assert len(lines_of("list", filled, *options, says=nothing)) == found
    assert len(lines_of("list", filled, *options, "--limit", "1", says=nothing)) == min(found, 1)


def test_list_prints_aligned_columns_or_nothing(filled: str) -> None:
    table = run_sessiondb("list", filled).stdout.splitlines()
    assert table[0].split() == ["UPDATED", "APP", "USER", "SESSION", "EVENTS"]
    assert [line.split()[1:] for line in table[1:]] == [
        ["zoo", USER, "lonely", "0"],
        [APP, "other", SESSION, "0"],
        [APP, USER, SESSION, "4"],
    ]
    column = table[0].index("SESSION")
    assert [line[column : column + 6].strip() for line in table[1:]] == ["lonely", "sess_a", "sess_a"]
    nothing = run_sessiondb("list", filled, "--app", "nobody")
    assert (nothing.returncode, nothing.stdout) == (0, "")
    assert nothing.stderr == "there is no session of app 'nobody'\n"


def test_show_tells_the_conversation(filled: str) -> None:
    done = run_sessiondb("show", filled, SESSION, "--app", APP, "--user", USER)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"session {SESSION}  user {USER}  app {APP}  created 20")
    assert lines[1:9] == [
        "#1  2023-11-14T22:13:20.100000Z  user",
        "    Weather in Paris?",
        "    state progress = 1",
        "#2  2023-11-14T22:13:27.100000Z  agent",
        '    call weather {"city": "Paris"}',
        "    state progress = 2",
        "#3  2023-11-14T22:13:34.100000Z  agent",
        '    response weather {"sky": "blue"}',
    ]
    assert lines[9] == "    state progress deleted"
    assert '    state user:theme = "light"' in lines
    assert all(line.startswith(("#", "    ")) for line in lines[1:])


def test_show_json_is_read_by_adk(filled: str) -> None:
    shown = lines_of("show", filled, SESSION, "--app", APP, "--user", USER)

    async def stored() -> list[Event]:
        async with DatabaseSessionService(filled) as service:
            session = await service.get_session(APP, USER, SESSION)
            assert session is not None
            return session.events

    assert [Event.model_validate_json(json.dumps(line["event"])) for line in shown] == asyncio.run(stored())
    assert [line["seq"] for line in shown] == [1, 2, 3, 4]


@pytest.mark.parametrize("arguments", READING, ids=lambda arguments: arguments[0])
@pytest.mark.parametrize("more", [[], ["--json"]], ids=["text", "json"])
def test_terminal_escape_sequences_are_not_printed(arguments: list[str], more: list[str], database: Path) -> None:
    hostile = "\x1b[2J\x07\x9b\u202e\r\x7f"

    async def attack() -> None:
        async with DatabaseSessionService(database) as service:
            session = await service.create_session(f"app{hostile}", f"user{hostile}", f"s{hostile}s")
            delta = {"progress": hostile, f"key{hostile}": 1}
            event = Event(invocation_id="i", author=f"me{hostile}", actions=EventActions(state_delta=delta))
            await service.append_event(session, event)

    asyncio.run(attack())
    if arguments[0] == "show":
        arguments = ["show", f"s{hostile}s"]
    done = run_sessiondb(*reading(arguments, database, *more))
    assert done.returncode == 0, done.stderr
    assert re.findall(r"[^\n\x20-\x7e]", re.sub("[…━╸╺]", "", done.stdout)) == []


def test_show_escapes_control_characters_of_unknown_id(filled: str) -> None:
    done = run_sessiondb("show", filled, "no\x1b[2Jone")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"Error: there is no session 'no\\x1b[2Jone' in {filled}\n"


def test_show_ambiguous_session_id_is_usage_error(filled: str) -> None:
    done = run_sessiondb("show", filled, SESSION)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"--app '{APP}' --user 'other'" in done.stderr
    assert f"--app '{APP}' --user '{USER}'" in done.stderr
    assert run_sessiondb("show", filled, SESSION, "--user", "other").returncode == 0


@pytest.mark.parametrize("command", [["show", "lonely"], ["history", "app:version"]], ids=lambda command: command[0])
def test_file_may_stand_last_as_in_first_versions(command: list[str], database: Path) -> None:
    name, word = command
    expected = run_sessiondb(name, database, word).stdout
    assert expected
    assert run_sessiondb(name, word, database).stdout == expected
    assert run_sessiondb(name, word, f"sqlite:///{database}").stdout == expected


def test_default_database_may_be_a_url(made_on_server: str) -> None:
    expected = run_sessiondb("list", made_on_server).stdout
    assert expected
    for url in (made_on_server, f"sessiondb+{made_on_server}"):
        done = run_sessiondb("list", SESSIONDB_PATH=url)
        assert (done.returncode, done.stdout, done.stderr) == (0, expected, "")
    shown = run_sessiondb("show", "lonely", made_on_server)
    assert (shown.returncode, shown.stdout) == (0, run_sessiondb("show", made_on_server, "lonely").stdout)


@pytest.mark.parametrize("word", ["https://host/id", ":memory:", "."])
def test_word_before_the_file_may_look_like_another_path(word: str, database: Path) -> None:
    done = run_sessiondb("show", word, database)
    assert done.stderr == f"Error: there is no session {word!r} in {database}\n"


def test_show_names_wrong_file_and_too_many_arguments(database: Path) -> None:
    missing = database.with_name("missing")
    done = run_sessiondb("show", missing, SESSION)
    assert (done.returncode, f"{missing} does not exist" in done.stderr) == (2, True)
    done = run_sessiondb("show", database, SESSION, "more")
    assert (done.returncode, "give [FILE] SESSION" in done.stderr) == (2, True)


def test_show_truncates_long_values_unless_full(database: Path) -> None:
    async def grow() -> None:
        async with DatabaseSessionService(database) as service:
            await service.update_keys("zoo", USER, "lonely", {"long": "x" * 5000})

    asyncio.run(grow())
    short = run_sessiondb("show", database, "lonely").stdout
    assert len(short) < 1000
    assert "--full shows all" in short
    assert "x" * 5000 in run_sessiondb("show", database, "lonely", "--full").stdout


def test_show_names_thoughts_files_and_other_parts(database: Path) -> None:
    parts = [
        types.Part(text="let me think", thought=True),
        types.Part.from_bytes(data=b"x" * 3000, mime_type="image/png"),
        types.Part.from_uri(file_uri="gs://bucket/file", mime_type="text/plain"),
    ]
    event = Event(
        invocation_id="inv",
        author="agent",
        content=types.Content(role="model", parts=parts),
        error_code="429",
        error_message="slow\ndown",
        actions=EventActions(transfer_to_agent="other"),
    )

    async def append() -> None:
        async with DatabaseSessionService(database) as service:
            session = await service.get_session("zoo", USER, "lonely")
            assert session is not None
            await service.append_event(session, event)

    asyncio.run(append())
    assert run_sessiondb("show", database, "lonely").stdout.splitlines()[2:] == [
        "    (thought) let me think",
        "    data image/png, about 3,000 bytes",
        '    file_data {"file_uri": "gs://bucket/file", "mime_type": "text/plain"}',
        "    error 429: slow",
        "    down",
        '    actions {"transfer_to_agent": "other"}',
    ]


def test_history_notes_go_to_a_terminal_only(database: Path) -> None:
    # As in a file that an earlier release has filled.
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE adk_sessions SET initial_state = NULL")

    def errors_of(descriptor: int) -> None:
        subprocess.run(
            [sys.executable, "-m", "sessiondb", "history", str(database), "progress"],
            cwd=PACKAGE_PARENT,
            stdout=subprocess.DEVNULL,
            stderr=descriptor,
            check=True,
        )

    ours, theirs = os.openpty()
    errors_of(theirs)
    os.close(theirs)
    assert os.read(ours, 1000).decode().strip() == (
        "What some of these sessions were created with is not known: an earlier release made them."
    )
    os.close(ours)
    reading_end, writing_end = os.pipe()
    errors_of(writing_end)
    os.close(writing_end)
    assert os.read(reading_end, 1000) == b""
    os.close(reading_end)


@pytest.mark.parametrize(
    ("key", "values"),
    [("progress", [1, 2, None]), ("user:theme", ["dark", "light"]), ("app:version", [1, 2]), ("theme", [])],
)
def test_history_has_every_change_of_a_key(key: str, values: list[object], filled: str) -> None:
    changes = lines_of("history", filled, key, says="" if values else f"there is no change of {key!r} in the log")
    assert [change["value"] for change in changes] == values
    assert [change["deleted"] for change in changes] == [value is None for value in values]
    assert all((change["session_id"], change["key"]) == (SESSION, key) for change in changes)
    text = run_sessiondb("history", filled, key).stdout.splitlines()
    assert len(text) == len(values) + bool(values)


def test_history_filters_by_user_app_and_session(own: str) -> None:
    nothing = "there is no change of 'progress' of user 'other' in the log"
    assert lines_of("history", own, "progress", "--user", "other", says=nothing) == []
    assert len(lines_of("history", own, "progress", "--app", APP, "--user", USER, "--session", SESSION)) == 3
    keys = ['we"ird', "$.a[0]", "a.b", "ключ"]

    async def odd_keys() -> None:
        async with DatabaseSessionService(own) as service:
            await service.update_keys("zoo", USER, "lonely", dict.fromkeys(keys, 2**70))

    asyncio.run(odd_keys())
    for key in keys:
        assert [change["value"] for change in lines_of("history", own, key)] == [2**70]


def test_stats_watch_repeats_up_to_limit(filled: str) -> None:
    done = run_sessiondb("stats", filled, "--watch", "--interval", "0.01", "--limit", "3", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert [json.loads(line)["events"] for line in done.stdout.splitlines()] == [4, 4, 4]
    text = run_sessiondb("stats", filled, "--watch", "--interval", "0.01", "--limit", "2").stdout
    assert text.count("state_keys") == 2
    assert text.count("events_per_second") == 1


def test_stats_watch_redraws_in_place_at_a_terminal(database: Path) -> None:
    ours, theirs = os.openpty()
    command = [
        sys.executable,
        "-m",
        "sessiondb",
        "stats",
        str(database),
        "--watch",
        "--interval",
        "0.01",
        "--limit",
        "3",
    ]
    environment = {**os.environ, "TERM": "xterm"}
    subprocess.run(command, cwd=PACKAGE_PARENT, stdout=theirs, env=environment, check=True)
    os.close(theirs)
    shown = os.read(ours, 100_000).decode()
    os.close(ours)
    up_a_line = "\x1b[1A"
    # Six lines first, without a rate, then seven; at the end they are drawn once more, to stay.
    assert (shown.count("state_keys"), shown.count(up_a_line)) == (4, 5 + 6 + 6)


def test_tail_shows_the_newest(filled: str) -> None:
    assert [line["seq"] for line in lines_of("tail", filled)] == [1, 2, 3, 4]
    assert [line["seq"] for line in lines_of("tail", "-n", "2", filled)] == [3, 4]
    assert lines_of("tail", "-n", "0", filled) == []
    nothing = "there is no event of user 'other' of session 'x'"
    assert lines_of("tail", "--user", "other", "--session", "x", filled, says=nothing) == []
    heads = [line for line in run_sessiondb("tail", filled).stdout.splitlines() if line.startswith("#")]
    assert len(heads) == 4
    assert heads[-1].endswith(f"agent  {APP}/{USER}/{SESSION}")


def following(database: Path | str, *options: str) -> subprocess.Popen[str]:
    """``tail --follow`` in a process of its own, looking often."""
    command = [sys.executable, "-m", "sessiondb", "tail", str(database), "--follow", "--interval", "0.01", "--json"]
    return subprocess.Popen(
        [*command, *options], cwd=PACKAGE_PARENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8"
    )


def test_tail_follows_what_is_written_and_ends_at_ctrl_c_with_0(own: str) -> None:
    with following(own, "-n", "1") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            assert json.loads(process.stdout.readline())["seq"] == 4

            async def write() -> None:
                for number in range(3):
                    # Each turn is another service: opened, and closed with its log removed or left as may be.
                    async with DatabaseSessionService(own) as service:
                        await service.update_keys("zoo", USER, "lonely", {"number": number})

            asyncio.run(write())
            deltas = [json.loads(process.stdout.readline())["event"]["actions"]["state_delta"] for _ in range(3)]
            assert deltas == [{"number": 0}, {"number": 1}, {"number": 2}]
            process.send_signal(signal.SIGINT)
            assert process.stdout.read() == ""
            assert process.stderr.read() == ""
            assert process.wait() == 0
        finally:
            process.kill()


def test_tail_follows_one_session_and_ends_after_its_limit(database: Path) -> None:
    with following(database, "-n", "1", "--limit", "3", "--session", SESSION) as process:
        assert process.stdout is not None
        try:
            assert json.loads(process.stdout.readline())["seq"] == 4

            async def write() -> None:
                async with DatabaseSessionService(database) as service:
                    await service.update_keys("zoo", USER, "lonely", {"number": 0})
                    await service.update_keys(APP, USER, SESSION, {"number": 1})
                    await service.update_keys(APP, USER, SESSION, {"number": 2})

            asyncio.run(write())
            assert [json.loads(line)["seq"] for line in process.stdout] == [5, 6]
            assert process.wait() == 0
        finally:
            process.kill()


def test_tail_into_broken_pipe_is_no_traceback(database: Path) -> None:
    with following(database) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            process.stdout.readline()
            process.stdout.close()

            async def write() -> None:
                async with DatabaseSessionService(database) as service:
                    await service.update_keys("zoo", USER, "lonely", {"number": 0})

            asyncio.run(write())
            assert process.stderr.read() == ""
            assert process.wait() == 1
        finally:
            process.kill()


def test_reader_notices_writer_on_closed_file(database: Path) -> None:
    async def write() -> None:
        async with DatabaseSessionService(database) as service:
            await service.update_keys("zoo", USER, "lonely", {"number": 0})

    def read_meanwhile(reader: Reader) -> None:
        with reader.snapshot():
            assert len(list(reader.ask(ListEvents()))) == 4
            # Closing the service moves its log into the file that is being read.
            asyncio.run(write())

    with stores.open_reader(database) as reader:
        with pytest.raises(DatabaseBusyError, match="began to write"):
            read_meanwhile(reader)
        assert reader.changed()
        assert not reader.changed()
        with reader.snapshot():
            assert len(list(reader.ask(ListEvents()))) == 5


def test_reader_notices_removed_file(database: Path) -> None:
    with stores.open_reader(database) as reader:
        shutil.copy(database, database.with_name("copy"))
        database.unlink()
        with pytest.raises(FileLostError):
            reader.changed()


def test_reader_snapshot_is_of_one_moment(database: Path) -> None:
    async def write(service: DatabaseSessionService) -> None:
        await service.update_keys("zoo", USER, "lonely", {"number": 0})

    async def both() -> None:
        async with DatabaseSessionService(database) as service:
            await write(service)
            with stores.open_reader(database) as reader:
                with reader.snapshot():
                    assert reader.ask(GetLogEnd()) == "5"
                    await write(service)
                    assert reader.ask(GetLogEnd()) == "5"
                assert reader.changed()
                assert reader.ask(GetLogEnd()) == "6"

    asyncio.run(both())


def test_show_names_corrupt_row_in_one_line(database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("UPDATE adk_events SET content = '[1]' WHERE seq = 2")
        connection.commit()
    done = run_sessiondb("show", database, SESSION, "--user", USER)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: row 2 of adk_events (event 2 of session 'sess_abc'")
    assert len(done.stderr.splitlines()) == 1
    with stores.open_reader(database) as reader, pytest.raises(CorruptRowError):
        [event_as_dict(event.row, event.key) for event in reader.ask(ListEvents(Selection(APP)))]


@pytest.mark.parametrize("arguments", READING, ids=lambda arguments: arguments[0])
@pytest.mark.parametrize("content", [b"", b"not a database at all, but long enough to look at" * 100, None])
def test_read_only_commands_refuse_foreign_file_in_one_line(
    arguments: list[str], content: bytes | None, tmp_path: Path, fingerprint: Look
) -> None:
    file = tmp_path / "notes"
    if content is None:
        with closing(sqlite3.connect(file)) as connection:
            connection.execute("CREATE TABLE mine (x)")
    else:
        file.write_bytes(content)
    before = fingerprint(tmp_path)
    done = run_sessiondb(*reading(arguments, file))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: ")
    assert len(done.stderr.splitlines()) == 1
    assert fingerprint(tmp_path) == before


def test_list_refuses_newer_schema_version(database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA user_version=1000")
    done = run_sessiondb("list", database)
    assert done.returncode == 1
    assert "schema version 1000" in done.stderr
