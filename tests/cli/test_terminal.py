"""What a terminal must not be given, and what commands do when nobody listens any more."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from sessiondb import DatabaseSessionService
from sessiondb.cli import main
from sessiondb.cli.output import safe_line, safe_text
from tests.cli.conftest import APP, SESSION, USER
from tests.command import PACKAGE_PARENT, run, run_sessiondb, start_sessiondb


def made(path: Path, session_id: str = "s", updates: int = 0) -> Path:
    async def make() -> None:
        async with DatabaseSessionService(path) as service:
            await service.create_session(app_name="app", user_id="user", session_id=session_id)
            for number in range(updates):
                await service.update_keys("app", "user", session_id, {"k": "x" * 2000 + str(number)})

    asyncio.run(make())
    return path


def shown_at_terminal(*args: str | Path, columns: int = 60) -> list[str]:
    """Runs the command at a terminal that is so wide; returns its lines, each as long as it was printed."""
    ours, theirs = os.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "sessiondb", *map(str, args)],
        cwd=PACKAGE_PARENT,
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "COLUMNS": str(columns), "TERM": "xterm"},
    ) as process:
        os.close(theirs)
        shown = b""
        try:
            while read := os.read(ours, 100_000):
                shown += read
        except OSError:
            # Linux: the other end is closed.
            pass
    os.close(ours)
    assert process.returncode == 0
    return shown.decode().splitlines()


@pytest.mark.parametrize("columns", [60, 80])
def test_list_breaks_no_word_at_a_narrow_terminal(columns: int, tmp_path: Path) -> None:
    session_id = "0fb5e5a4-8d2f-4c07-9d5e-6f0e3b7a2c11"
    lines = shown_at_terminal("list", made(tmp_path / "a.sqlite3", session_id), columns=columns)
    assert max(map(len, lines)) <= columns
    assert sum(line.split().count(session_id) for line in lines) == 1
    assert [len(line.split()) for line in lines] == ([3, 2, 3, 2] if columns == 60 else [5, 5])
    assert [line.startswith(" ") for line in lines] == ([False, True] * 2 if columns == 60 else [False] * 2)


def test_history_breaks_no_word_at_a_narrow_terminal(tmp_path: Path) -> None:
    path = made(tmp_path / "a.sqlite3", updates=1)
    *lines, cut = shown_at_terminal("history", path, "k")
    assert [len(line) <= 60 for line in lines] == [True] * 4
    assert lines[-1] == '  "' + "x" * 56 + "…"
    assert cut == "What ends in … is cut to the width of the terminal; --json has all of it."


def test_a_narrow_terminal_gets_its_line_cut_where_a_late_row_is_too_wide(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite3"

    async def make() -> None:
        async with DatabaseSessionService(path) as service:
            await service.create_session(app_name="app", user_id="user", session_id="wide" * 20)
            for number in range(250):
                await service.create_session(app_name="app", user_id="user", session_id=str(number))

    asyncio.run(make())
    *lines, _ = shown_at_terminal("list", path)
    assert max(map(len, lines)) == 60
    assert [line for line in lines if "wide" in line] == [lines[-1]]
    assert lines[-1].endswith("…")


def test_without_a_terminal_a_row_is_one_line_however_long(database: Path) -> None:
    lines = run_sessiondb("list", database, COLUMNS="20").stdout.splitlines()
    assert [len(line.split()) for line in lines] == [5] * 4
    assert [APP, USER, SESSION, "4"] in [line.split()[1:] for line in lines]


@pytest.mark.parametrize("columns", [60, 80])
def test_demo_breaks_no_word_at_a_narrow_terminal(columns: int) -> None:
    done = start_sessiondb("demo", COLUMNS=str(columns))
    assert done.returncode == 0
    *lines, _ = done.stdout.splitlines()
    assert max(map(len, lines)) <= columns
    words = done.stdout.split()
    assert words.count("train_model(algorithm='linear')") == 1
    assert words.count("'models/linear-1.pkl'}") == 1
    assert words.count("app:models_trained") >= 3
    assert sum(word.endswith("-next") for word in words) == 2
    # The events are a table where there is room for their longest words.
    assert ("\nseq         2" in done.stdout) == (columns == 60)


@pytest.mark.parametrize(
    "hidden", ["\u200b", "\u061c", "\u200e", "\ufeff", "\u00ad", "\U000e0041", "\x1b", "\u202e", "\u2066"]
)
def test_invisible_and_control_characters_are_escaped(hidden: str, tmp_path: Path) -> None:
    """Seen failing while ids that differ in one of them looked alike."""
    assert hidden not in safe_line(f"a{hidden}b")
    assert hidden not in safe_text(f"a{hidden}b")
    listed = CliRunner().invoke(main, ["list", str(made(tmp_path / "a.sqlite3", f"se{hidden}ss"))])
    assert hidden not in listed.stdout
    assert listed.stdout.count("\\") == 1


def test_letters_of_all_scripts_are_left_alone() -> None:
    text = "Grüße, ключ, 你好, שלום, 🙂 é"
    assert (safe_line(text), safe_text(f"{text}\n\t")) == (text, f"{text}\n\t")


@pytest.mark.parametrize("command", ["list", "stats", "check", "export", "recover", "migrate"])
def test_file_name_with_escape_sequence_is_escaped_in_errors(command: str, tmp_path: Path) -> None:
    name = tmp_path / "a\x1b]0;owned\x07b.sqlite3"
    more = [str(tmp_path / "new")] if command in ("recover", "migrate") else []
    missing = CliRunner().invoke(main, [command, str(name), *more])
    assert missing.exit_code
    assert "\x1b" not in missing.output
    name.write_text("no database")
    wrong = CliRunner().invoke(main, [command, str(name), *more])
    assert wrong.exit_code
    assert "\x1b" not in wrong.output


def test_reader_that_goes_away_ends_a_command_quietly(tmp_path: Path) -> None:
    path = made(tmp_path / "a.sqlite3", updates=200)
    command = [sys.executable, "-m", "sessiondb", "tail", "-n", "1000", "--json", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=PACKAGE_PARENT) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 1


@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
def test_full_standard_output_fails_in_one_line(
    unbuffered: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    path = made(tmp_path / "a.sqlite3")
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "sessiondb", "list", str(path)]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, cwd=PACKAGE_PARENT)
    assert (done.returncode, done.stderr) == (1, "Error: No space left on device\n")


def test_json_nested_too_deep_fails_in_one_line(tmp_path: Path) -> None:
    """Seen failing with a traceback of fifty lines."""
    deep = "[" * 100_000 + "]" * 100_000
    lines = tmp_path / "deep.jsonl"
    lines.write_text(deep)
    done = CliRunner().invoke(main, ["import", str(lines), str(tmp_path / "target.sqlite3")])
    assert (done.exit_code, done.stderr) == (1, "Error: line 1 is not JSON\n")
    agents = tmp_path / "agents" / "one"
    agents.mkdir(parents=True)
    (agents / "agent.py").write_text("")
    (tmp_path / "agents" / "services.yaml").write_text(deep)
    done = CliRunner().invoke(main, ["init", str(tmp_path / "agents"), str(tmp_path / "target.sqlite3")])
    assert done.exit_code == 1
    assert "nested too deep" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "words", [("show", "\udcff"), ("history", "\udcff"), ("list", "--app", "\udcff"), ("export", "--session", "\udcff")]
)
def test_a_name_that_is_not_utf_8_fails_in_one_line(words: tuple[str, ...], database: Path) -> None:
    """Seen failing with a traceback."""
    done = CliRunner().invoke(main, [words[0], str(database), *words[1:]])
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == "Error: '\\udcff' is not UTF-8, and no name in a database is\n"


def test_standard_output_that_lacks_a_letter_fails_in_one_line(tmp_path: Path) -> None:
    path = made(tmp_path / "a.sqlite3", "ключ")
    done = start_sessiondb("list", path, PYTHONIOENCODING="latin-1")
    assert done.returncode == 1
    assert done.stderr == ("Error: standard output takes latin-1 only; set PYTHONIOENCODING=utf-8, or use --json\n")
    assert start_sessiondb("list", path, "--json", PYTHONIOENCODING="latin-1").returncode == 0


@pytest.mark.parametrize(
    "words", [("list", "--limit"), ("tail", "-n"), ("tail", "--limit"), ("stats", "--limit"), ("check", "--limit")]
)
def test_a_number_that_no_file_reaches_is_a_wrong_call(words: tuple[str, str], database: Path) -> None:
    """Seen failing with a traceback."""
    command, option = words
    done = CliRunner().invoke(main, [command, str(database), option, str(2**31)])
    assert (done.exit_code, done.stdout) == (2, "")
    assert "is not in the range" in done.stderr
    assert CliRunner().invoke(main, [command, str(database), option, str(2**31 - 1)]).exit_code == 0


def test_a_line_without_an_end_fails_in_one_line(tmp_path: Path) -> None:
    """Seen failing with a traceback."""
    command = f"ulimit -v 1500000; exec {sys.executable} -m sessiondb import /dev/zero {tmp_path / 'a.sqlite3'}"
    done = run(["bash", "-c", command])
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "Error: there is not enough memory for it\n")


def test_import_of_text_with_byte_order_mark_works(tmp_path: Path) -> None:
    exported = CliRunner().invoke(main, ["export", str(made(tmp_path / "a.sqlite3"))]).stdout
    marked = tmp_path / "marked.jsonl"
    marked.write_text(exported, encoding="utf-8-sig")
    done = CliRunner().invoke(main, ["import", str(marked), str(tmp_path / "b.sqlite3")])
    assert (done.exit_code, done.stderr) == (0, "")
