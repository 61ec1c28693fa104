"""Does what a reader of a page would do: its examples one after the other, in one folder and one Python session."""

from __future__ import annotations

import ast
import asyncio
import inspect
import logging
import os
import re
import runpy
import shlex
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from click.testing import CliRunner
from google.adk.cli import main as adk_command
from google.adk.cli.service_registry import get_service_registry, load_services_module
from google.adk.events import Event, EventActions
from google.adk.models import LLMRegistry
from google.adk.models.llm_request import LlmRequest
from google.genai import types
from psycopg import sql

from sessiondb import DatabaseSessionService
from sessiondb.cli import main as sessiondb_command
from sessiondb.demo.model import OfflineModel, Reply, call
from tests.docs.markdown import Block
from tests.telemetry.exporting import no_providers

DATABASE = "sessions.sqlite3"
"""The file that the examples speak of; it holds a session when they begin."""

SQL_PARAMETERS = {"app_name": "my_app", "user_id": "user_123", "session_id": "sess_abc", "key": "model_path"}

_COMMANDS = {"sessiondb": sessiondb_command, "adk": adk_command}

_TAKES_LONG = {"demo", "--follow", "--watch"}
"""Such commands are not run: their name and options are checked, by asking for help with them."""

_FILE = re.compile(r"# (\w+\.(?:py|yaml))\n")
"""How a block begins that a reader saves under this name."""

_PORTS = ("8000", "8001", "8002")
"""The ports that the pages speak of; free ones take their places."""

SERVER = re.compile(r"postgresql://(?:(\w+)@)?localhost/sessions\b")
"""The server that the pages speak of; a real one takes its place, which holds the same session as the file."""


class Reader:
    """A reader with a folder of his own, which is the working directory."""

    def __init__(
        self, folder: Path, loop: asyncio.Runner, output: pytest.CaptureFixture[str], database: str | None = None
    ) -> None:
        self._folder = folder
        self._loop = loop
        self._output = output
        self._database = database
        self._names: dict[str, Any] = {"__name__": "__main__"}
        self._servers: list[subprocess.Popen[str] | None] = []
        self._ports: dict[str, str] = {}

    def run(self, block: Block) -> None:
        """Runs an example.

        Raises:
            AssertionError: If it does not do what the page says.
        """
        block = replace(block, code=SERVER.sub(self._real_server, block.code))
        if name := _FILE.match(block.code):
            (self._folder / name[1]).write_text(block.code)
            return
        match block.language:
            case "python":
                self._run_python(block)
            case "console":
                self._run_console(block)
            case "sql":
                self._run_sql(block)
            case "postgresql":
                self._run_on_server(block)
            case "sh":
                _check_shell(block)
            case "yaml":
                self._load_services(block)
            case "text":
                pass  # a diagram, or what a program prints
            case _:
                raise AssertionError(f"{block.place}: a reader cannot run {block.language!r}")

    def close(self) -> None:
        """Closes the services that the examples leave open for each other, and ends a server."""
        for job, server in enumerate(self._servers, 1):
            if server is not None:
                self._stop_server(job)
        for value in self._names.values():
            if isinstance(value, DatabaseSessionService):
                self._loop.run(value.close())

    def _run_python(self, block: Block) -> None:
        # Lines before the code make line numbers those of the page.
        code = compile(
            "\n" * block.line + re.sub(r"(?<=:)80\d\d\b", lambda named: self._ports[named[0]], block.code),
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
        # Beside the call that prints it, or on lines of its own.
        for promised in re.findall(r"^(?: *print\(.*\)  )?# (.+)$", block.code, re.MULTILINE):
            assert promised in remaining, f"{block.place}: {promised!r} is missing, or too late, in {printed}"

    def _run_sql(self, block: Block) -> None:
        with closing(sqlite3.connect(self._folder / DATABASE)) as connection:
            for statement in _statements(block):
                cursor = connection.execute(statement, SQL_PARAMETERS)
                if cursor.description is not None:
                    assert cursor.fetchall(), f"{block.place}: an example that finds nothing shows nothing"
            connection.commit()

    def _run_on_server(self, block: Block) -> None:
        """Runs what would be given to psql: ``:'name'`` stands for a value."""
        assert self._database is not None
        values = {name: sql.Literal(value).as_string() for name, value in SQL_PARAMETERS.items()}
        text = re.sub(r":'(\w+)'", lambda name: values[name[1]], block.code)
        with psycopg.connect(self._database, autocommit=True) as connection:
            cursor = connection.execute(text.encode())
            while True:
                if cursor.description is not None:
                    assert cursor.fetchall(), f"{block.place}: an example that finds nothing shows nothing"
                if not cursor.nextset():
                    return

    def _real_server(self, named: re.Match[str]) -> str:
        assert self._database is not None
        parts = urlsplit(self._database)
        host = parts.netloc.rpartition("@")[2]
        return parts._replace(netloc=f"{named[1] or parts.username}@{host}").geturl()

    def _run_console(self, block: Block) -> None:
        """Runs each line that begins with a prompt, and looks for the others in what it prints, in order."""
        printed: list[str] = []
        remaining = iter(printed)
        for line in block.code.splitlines():
            if line.startswith("$ "):
                printed = self._run_command(shlex.split(line[2:]), block).splitlines()
                remaining = iter(printed)
            else:
                assert line in remaining, f"{block.place}: {line!r} is missing, or too late, in {printed}"

    def _run_command(self, words: list[str], block: Block) -> str:
        match words:
            case ["sessiondb", *arguments]:
                result = CliRunner().invoke(sessiondb_command, arguments)
                assert result.exit_code == 0, f"{block.place}: {words}: {result.output}"
                return result.output
            case ["python", script, *arguments]:
                self._output.readouterr()
                # Everything but the file begins anew, as in another process, without importing ADK once more.
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(sys, "argv", [script, *arguments])
                    runpy.run_path(script, run_name="__main__")
                return self._output.readouterr().out
            case ["datasette", *_]:
                return subprocess.run(
                    [sys.executable, "-m", *words], check=True, capture_output=True, text=True, timeout=60
                ).stdout
            case ["uvicorn", *arguments, "&"]:
                self._start_server(arguments)
            case ["kill", ("%1" | "%2" | "%3") as job]:
                self._stop_server(int(job[1]))
            case ["kill", "-9", ("%1" | "%2" | "%3") as job]:
                self._kill_server(int(job[1]))
            case _:
                raise AssertionError(f"{block.place}: a reader cannot run {words}")
        return ""

    def _start_server(self, arguments: list[str]) -> None:
        named = arguments[arguments.index("--port") + 1] if "--port" in arguments else _PORTS[0]
        assert named in _PORTS
        if named not in self._ports:
            with socket.create_server(("127.0.0.1", 0)) as free:
                self._ports[named] = str(free.getsockname()[1])
        port = self._ports[named]
        server = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", *arguments, "--port", port], stderr=subprocess.PIPE, text=True
        )
        self._servers.append(server)
        assert server.stderr is not None
        workers = int(arguments[arguments.index("--workers") + 1]) if "--workers" in arguments else 1
        log = ""
        while log.count("Application startup complete.") < workers:
            line = server.stderr.readline()
            assert line, log
            log += line

    def _take_server(self, job: int) -> subprocess.Popen[str]:
        server, self._servers[job - 1] = self._servers[job - 1], None
        assert server is not None
        return server

    def _stop_server(self, job: int) -> None:
        with self._take_server(job) as server:
            server.send_signal(signal.SIGTERM)
            _, log = server.communicate(timeout=60)
        assert "Traceback" not in log, log

    def _kill_server(self, job: int) -> None:
        with self._take_server(job) as server:
            server.kill()

    def _load_services(self, block: Block) -> None:
        (self._folder / "services.yaml").write_text(block.code)
        load_services_module(str(self._folder))
        uri = f"sessiondb:///{DATABASE}" if "postgresql" not in block.code else f"sessiondb+{self._database}"
        service = get_service_registry().create_session_service(uri, agents_dir=str(self._folder))
        assert isinstance(service, DatabaseSessionService), block.place
        self._loop.run(service.close())


@contextmanager
def reader(
    folder: Path, output: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch, database: str | None = None
) -> Iterator[Reader]:
    """Gives a reader a folder with a database and an agent, and a model without a network for each he builds.

    Args:
        folder: The folder.
        output: What the examples print.
        patch: Undone in the end.
        database: The URL of an empty database on a server, for pages that speak of one.
    """
    patch.chdir(folder)
    log = logging.getLogger("sessiondb")
    level, handlers = log.level, list(log.handlers)
    patch.delenv("SESSIONDB_PATH", raising=False)
    patch.setenv("NO_PROXY", "127.0.0.1")
    patch.setattr(LLMRegistry, "new_llm", lambda model: OfflineModel(model=model, respond=_respond))
    # A page may configure OpenTelemetry, which a process can do once.
    with no_providers(), asyncio.Runner() as loop:
        loop.run(_make_database(folder / DATABASE))
        if database is not None:
            loop.run(_make_database(database))
        agent = folder / "agents" / "assistant"
        agent.mkdir(parents=True)
        (agent / "agent.py").touch()
        someone = Reader(folder, loop, output, database)
        try:
            yield someone
        finally:
            someone.close()
            log.setLevel(level)
            log.handlers[:] = handlers


async def _make_database(path: Path | str) -> None:
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
