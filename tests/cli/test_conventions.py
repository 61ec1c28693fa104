"""What holds for every command."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import pytest

from sessiondb.cli import main
from tests.command import run, run_sessiondb

COMMANDS = sorted(main.commands)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_each_command_has_examples(name: str) -> None:
    done = run_sessiondb(name, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    _, _, examples = done.stdout.partition("Examples:\n")
    assert [line for line in examples.splitlines() if line.split()[:2] == ["sessiondb", name]]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_json_option(name: str) -> None:
    options = [option for parameter in main.commands[name].params for option in parameter.opts]
    assert "--json" in options


@pytest.mark.parametrize("name", COMMANDS)
def test_unknown_option_is_usage_error(name: str) -> None:
    done = run_sessiondb(name, "--no-such-option")
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr


def as_sessiondb(**environment: str) -> str:
    """The command under the name that its script has."""
    script = "from sessiondb.cli import main; main(prog_name='sessiondb')"
    done = run([sys.executable, "-c", script], **environment)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_shell_completion_of_commands_and_options() -> None:
    assert "complete" in as_sessiondb(_SESSIONDB_COMPLETE="bash_source")
    completed = as_sessiondb(_SESSIONDB_COMPLETE="bash_complete", COMP_WORDS="sessiondb sh", COMP_CWORD="1")
    assert completed.split() == ["plain,show"]
    completed = as_sessiondb(_SESSIONDB_COMPLETE="bash_complete", COMP_WORDS="sessiondb tail --fo", COMP_CWORD="2")
    assert completed.split() == ["plain,--follow"]


def arguments_of(name: str) -> list[click.Parameter]:
    return [parameter for parameter in main.commands[name].params if isinstance(parameter, click.Argument)]


@pytest.mark.parametrize("name", [name for name in COMMANDS if arguments_of(name)])
def test_missing_file_is_usage_error_and_is_not_created(name: str, tmp_path: Path) -> None:
    words = [
        tmp_path / str(argument.name) for argument in arguments_of(name) if argument.required or argument.name == "file"
    ]
    required = {"prune": ["--older-than", "1d"], "redact": ["--event", "x"], "truncate": ["--all"]}
    done = run_sessiondb(name, *words, *required.get(name, []))
    assert (done.returncode, done.stdout) == (2, "")
    assert "does not exist" in done.stderr
    assert list(tmp_path.iterdir()) == []
