"""Reading a file whose content nobody vouches for: it ends when told to, in bounded memory."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from sessiondb import DatabaseSessionService
from sessiondb.cli import main
from sessiondb.errors import CorruptRowError, StorageError
from sessiondb.model.queries import ListEvents, ListSessions
from sessiondb.stores import open_reader
from tests.engine.processes import say, start


@pytest.fixture
def closed_file(database_path: Path) -> Path:
    """A database with one session that nobody has open."""

    async def make() -> None:
        async with DatabaseSessionService(database_path) as service:
            await service.create_session(app_name="app", user_id="user", session_id="s")
            await service.update_keys("app", "user", "s", {"k": 1})

    asyncio.run(make())
    return database_path


def read_without_end(path: str) -> None:
    """Asks a question whose answer never comes; a program of its own."""
    with open_reader(path) as reader:
        try:
            say("asking")
            list(reader.ask(ListSessions(with_state=False)))
        except KeyboardInterrupt:
            say("interrupted")


def test_ctrl_c_ends_a_query_that_never_ends(closed_file: Path) -> None:
    """Seen failing while SQLite went on with its statement, and Ctrl-C had no effect."""
    with closing(sqlite3.connect(closed_file)) as connection, connection:
        connection.execute("ALTER TABLE adk_sessions RENAME TO real_sessions")
        connection.execute(
            "CREATE VIEW adk_sessions AS WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n)"
            " SELECT real_sessions.* FROM n, real_sessions WHERE x < 0"
        )
    process = start(read_without_end, closed_file)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "asking\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out, err) == (0, "interrupted\n", "")
    finally:
        process.kill()


def test_value_that_is_far_too_large_is_corrupt_row_not_memory(
    closed_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(sqlite3.connect(closed_file)) as connection, connection:
        connection.execute("UPDATE adk_events SET content = json_quote(hex(zeroblob(100000)))")
    monkeypatch.setattr("sessiondb.stores.sqlite.connection.LARGEST_VALUE", 100_000)
    with open_reader(closed_file) as reader, pytest.raises(CorruptRowError, match="edited outside sessiondb"):
        list(reader.ask(ListEvents()))


@pytest.mark.parametrize("command", ["list", "stats", "check", "tail", "export"])
def test_fifo_as_file_is_refused_at_once(tmp_path: Path, command: str) -> None:
    """Seen failing while the command waited for somebody to write into the pipe."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    done = CliRunner().invoke(main, [command, str(fifo)])
    assert done.exit_code != 0
    assert "is not a regular file" in done.stderr
    with pytest.raises(StorageError, match="not a regular file"):
        open_reader(fifo)


SECRET = b"the code of the door is 4711 \xff"


@pytest.mark.parametrize(
    "column", ["adk_events.content", "adk_events.author", "adk_state.state_value", "adk_sessions.created_at"]
)
def test_text_that_is_not_utf8_is_not_shown_by_commands(closed_file: Path, tmp_path: Path, column: str) -> None:
    """Seen failing while the error quoted the text."""
    table, _, name = column.partition(".")
    with closing(sqlite3.connect(closed_file)) as connection, connection:
        connection.execute(f"UPDATE {table} SET {name} = CAST(? AS TEXT)", (SECRET,))
    failed = 0
    commands: list[list[str | Path]] = [
        ["list", closed_file],
        ["show", closed_file, "s"],
        ["tail", closed_file],
        ["history", closed_file, "k"],
        ["export", closed_file],
        ["migrate", closed_file, tmp_path / "adk.db", "--to", "adk-sqlite"],
    ]
    for command in commands:
        done = CliRunner().invoke(main, list(map(str, command)))
        assert "4711" not in done.output
        assert done.exception is None or isinstance(done.exception, SystemExit)
        if done.exit_code:
            failed += 1
            assert "is not UTF-8" in done.stderr or "not carried" in done.stderr
    assert failed
