"""Does what a reader of a page would do: its examples one after the other, in one folder and one Python session."""

from __future__ import annotations

import ast
import asyncio
import inspect
import logging
import os
import re
import shlex
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from google.adk.cli import main as adk_command
from google.adk.cli.service_registry import get_service_registry, load_services_module
from google.adk.events import Event, EventActions
from google.adk.models import LLMRegistry
from google.adk.models.llm_request import LlmRequest
from google.genai import types

from sessiondb import DatabaseSessionService
from sessiondb.cli import main as sessiondb_command
from sessiondb.demo.model import OfflineModel, Reply, call
from tests.docs.markdown import Block

DATABASE = "sessions.sqlite3"
"""The file that the examples speak of; it holds a session when they begin."""

SQL_PARAMETERS = {"app_name": "my_app", "user_id": "user_123", "session_id": "sess_abc", "key": "model_path"}

_COMMANDS = {"sessiondb": sessiondb_command, "adk": adk_command}

_TAKES_LONG = {"demo", "--follow", "--watch"}
"""Such commands are not run: their name and options are checked, by asking for help with them."""


class Reader:
    """A reader with a folder of his own, which is the working directory."""

    def __init__(self, folder: Path, loop: asyncio.Runner, output: pytest.CaptureFixture[str]) -> None:
        self._folder = folder
        self._loop = loop
        self._output = output
        self._names: dict[str, Any] = {"__name__": "__main__"}

    def run(self, block: Block) -> None:
        """Runs an example.

        Raises:
            AssertionError: If it does not do what the page says.
        """
        match block.language:
            case "python":
                self._run_python(block)
            case "sql":
                self._run_sql(block)
            case "sh":
                _check_shell(block)
            case "yaml":
                self._load_services(block)
            case "text":
                pass  # a diagram, or what a program prints
            case _:
                raise AssertionError(f"{block.place}: a reader cannot run {block.language!r}")

    def close(self) -> None:
        """Closes the services that the examples leave open for each other."""
        for value in self._names.values():
            if isinstance(value, DatabaseSessionService):
                self._loop.run(value.close())

    def _run_python(self, block: Block) -> None:
        # Lines before the code make line numbers those of the page.
        code = compile(
            "\n" * block.line + block.code,
            str(block.page),
            "exec",
            flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
            dont_inherit=True,
        )
        self._output.readouterr()
        result = eval(code, self._names)  # noqa: S307  # the project's own pages
        if inspect.iscoroutine(result):
            self._loop.run(result)
        printed = self._output.readouterr().out.splitlines()
        remaining = iter(printed)
        for promised in re.findall(r"^ *print\(.*\)  # (.+)$", block.code, re.MULTILINE):
            assert promised in remaining, f"{block.place}: {promised!r} is missing, or too late, in {printed}"

    def _run_sql(self, block: Block) -> None:
        with closing(sqlite3.connect(self._folder / DATABASE)) as connection:
            for statement in _statements(block):
                cursor = connection.execute(statement, SQL_PARAMETERS)
                if cursor.description is not None:
                    assert cursor.fetchall(), f"{block.place}: an example that finds nothing shows nothing"
            connection.commit()

    def _load_services(self, block: Block) -> None:
        (self._folder / "services.yaml").write_text(block.code)
        load_services_module(str(self._folder))
        uri = f"sessiondb:///{DATABASE}"
        service = get_service_registry().create_session_service(uri, agents_dir=str(self._folder))
        assert isinstance(service, DatabaseSessionService), block.place
        self._loop.run(service.close())


@contextmanager
def reader(folder: Path, output: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch) -> Iterator[Reader]:
    """Gives a reader a folder with a database in it, and a model without a network for every agent he builds."""
    patch.chdir(folder)
    log = logging.getLogger("sessiondb")
    level, handlers = log.level, list(log.handlers)
    patch.delenv("SESSIONDB_PATH", raising=False)
    patch.setattr(LLMRegistry, "new_llm", lambda model: OfflineModel(model=model, respond=_respond))
    with asyncio.Runner() as loop:
        loop.run(_make_database(folder / DATABASE))
        someone = Reader(folder, loop, output)
        try:
            yield someone
        finally:
            someone.close()
            log.setLevel(level)
            log.handlers[:] = handlers


async def _make_database(path: Path) -> None:
    async with DatabaseSessionService(path) as service:
        session = await service.create_session("my_app", "user_123", "sess_abc", {"user:language": "en", "app:v": 2})
        for number, model in enumerate(("linear", "forest")):
            event = Event(
                invocation_id=f"inv_{number}",
                author="agent",
                content=types.Content(role="model", parts=[types.Part(text=f"Trained a {model} model.")]),
                actions=EventActions(state_delta={"model_path": f"models/{model}.pkl", "user:models": number + 1}),
            )
            await service.append_event(session, event)


def _respond(request: LlmRequest) -> Reply:
    last = (request.contents[-1].parts or [types.Part()])[-1]
    if last.function_response:
        return "I will remember that."
    city = re.search(r"I live in (\w+)", last.text or "")
    if city and "remember_city" in request.tools_dict:
        return call("remember_city", city=city[1])
    return "Hello!"


def _statements(block: Block) -> Iterator[str]:
    pending = ""
    for line in block.code.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""
    assert not pending.strip(), f"{block.place}: a statement without an end"


def _check_shell(block: Block) -> None:
    """Checks the syntax, and runs the commands of the project; those of ADK, and some, are asked for help instead."""
    subprocess.run(["bash", "-n", "-c", block.code], check=True)  # noqa: S607  # a developer's machine has one bash
    for line in block.code.splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, "&&"]:
            if set(word) <= set("&|;<>"):
                _check_command(words, block)
                words = []
            else:
                words.append(word)


def _check_command(words: list[str], block: Block) -> None:
    if not words or (name := os.path.basename(words[0])) not in _COMMANDS:  # noqa: PTH119  # of a word, not of a path
        return
    arguments = words[1:]
    if name == "adk" or _TAKES_LONG.intersection(arguments):
        arguments.append("--help")
    result = CliRunner().invoke(_COMMANDS[name], arguments)
    assert result.exit_code == 0, f"{block.place}: {words}: {result.output}"
