"""Starts and ends ADK's commands as a user does, in processes of their own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sysconfig
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sessiondb.cli import services_file
from tests.command import start_sessiondb

APP = "assistant"

IN_TURNS = """\

from google.adk.apps import App

from sessiondb import OneTurnAtATime

app = App(name="assistant", root_agent=root_agent, plugins=[OneTurnAtATime()])
"""
"""What the agent's module ends with to have its runs take turns."""

AGENT = '''\
"""An agent that remembers where the user lives, with a model that needs no network."""

import re

from google.adk.agents import LlmAgent
from google.adk.tools import ToolContext

from sessiondb.demo.model import OfflineModel, call


def remember_city(city: str, tool_context: ToolContext) -> dict[str, str]:
    """Remembers where the user lives."""
    tool_context.state["user:city"] = city
    tool_context.state["moves"] = tool_context.state.get("moves", 0) + 1
    return {"remembered": city}


def respond(request):
    part = request.contents[-1].parts[-1]
    if part.function_response:
        return f"I will remember that you live in {part.function_response.response['remembered']}."
    if found := re.search(r"I live in (\\w+)", part.text):
        return call("remember_city", city=found[1])
    known = re.search(r"They live in: (\\w+)", str(request.config.system_instruction))
    return f"You live in {known[1]}." if known else "I do not know."


root_agent = LlmAgent(
    name="assistant",
    model=OfflineModel(respond=respond),
    instruction="Help the user. They live in: {user:city?}",
    tools=[remember_city],
)
'''


@dataclass(frozen=True)
class Home:
    """A folder that stands for a user's home, with agents and a database in it."""

    folder: Path

    @property
    def agents(self) -> Path:
        return self.folder / "agents"

    @property
    def database(self) -> Path:
        return self.folder / "sessions.sqlite3"

    @property
    def environment(self) -> dict[str, str]:
        """An environment in which ADK finds no cloud, and keeps what it writes to itself."""
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("ADK_", "GOOGLE_", "GEMINI_"))
        }
        scripts = f"{sysconfig.get_path('scripts')}{os.pathsep}{kept.get('PATH', '')}"
        here = {"HOME": str(self.folder), "TMPDIR": str(self.folder), "PYTHONUNBUFFERED": "1", "PATH": scripts}
        return {**kept, **here}

    def init(self) -> list[str]:
        """Runs ``sessiondb init``; returns the command that it prints, for the page of ``adk web``."""
        done = start_sessiondb("init", self.agents, self.database, "--json", **self.environment)
        assert done.returncode == 0, done.stderr
        report: dict[str, Any] = json.loads(done.stdout)
        (command,) = report["commands"]
        assert isinstance(command, list)
        return command

    def command(self, verb: str, folder: Path) -> list[str]:
        """Registers the service in ``folder``, unchecked; returns the command of ADK for it."""
        services_file.plan(folder).write()
        return ["adk", verb, f"--session_service_uri=sessiondb:///{self.database}", str(folder)]


def make_home(folder: Path, more: str = "") -> Home:
    """Puts the agent into ``folder``/agents, its module with ``more`` in the end."""
    home = Home(folder)
    agent = home.agents / APP
    agent.mkdir(parents=True)
    (agent / "agent.py").write_text(AGENT + more, encoding="utf-8")
    return home


class Server:
    """A server of ADK that answers at ``url``."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._log: list[str] = []
        self.url = self._wait_until_it_listens()
        # Whoever does not read a pipe ends up holding its writer.
        self._reader = threading.Thread(target=self._log.extend, args=(process.stdout,))
        self._reader.start()

    @property
    def log(self) -> str:
        """What the server has printed; all of it once it has ended."""
        return "".join(self._log)

    def send(self, number: signal.Signals) -> None:
        """Asks the server to end, without waiting for it."""
        self._process.send_signal(number)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ends the server by a signal, unless it has ended; returns its exit status."""
        if self._process.poll() is None:
            self.send(number)
        return self.wait()

    def wait(self) -> int:
        """Waits until the server has ended; returns its exit status."""
        try:
            status = self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise AssertionError(f"the server does not end:\n{self.log}") from None
        self._reader.join()
        return status

    def _wait_until_it_listens(self) -> str:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._log.append(line)
            if found := re.search(r"Uvicorn running on (http://\S+)", line):
                return found[1]
        raise AssertionError(f"the server does not start:\n{self.log}")


@contextmanager
def serve(home: Home, command: Sequence[str]) -> Iterator[Server]:
    """Runs a server of ADK on a free port of this machine, and ends it if that is still to be done."""
    with subprocess.Popen(
        [*command, "--port", "0"],
        cwd=home.folder,
        env=home.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    ) as process:
        try:
            server = Server(process)
        except BaseException:
            process.kill()
            raise
        try:
            yield server
        finally:
            server.end()
