"""Whether ADK finds the service in a folder of agents: asked of the Python that ``adk`` runs on."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import registration_probe
from .services_file import Kind

_TIMEOUT_SECONDS = 120
"""For ADK to be imported and a services.py to run."""


@dataclass(frozen=True, slots=True)
class Adk:
    """The ``adk`` that a shell would start.

    Attributes:
        command: How to start it.
        python: The Python that it runs on; None if that cannot be told.
    """

    command: tuple[str, ...]
    python: str | None


@dataclass(frozen=True, slots=True)
class Registration:
    """What came of opening the service as ADK does.

    Attributes:
        problem: Why ADK would not use this package's service; None if it would.
        notes: What is worth knowing all the same.
        is_unknown: Whether ADK finds no service at all under the scheme.
    """

    problem: str | None
    notes: list[str] = field(default_factory=list)
    is_unknown: bool = False


def find_adk() -> Adk:
    """Finds the command ``adk``: on the path, else beside this Python."""
    if found := shutil.which("adk"):
        return Adk(("adk",), _python_of(Path(found)))
    if found := shutil.which("adk", path=sysconfig.get_path("scripts")):
        return Adk((found,), _python_of(Path(found)))
    return Adk((sys.executable, "-m", "google.adk.cli"), sys.executable)


def check(adk: Adk, agents_dir: Path, uri: str, password: str | None = None, kind: Kind = "session") -> Registration:
    """Opens the service as ``adk`` would with ``--session_service_uri=uri``, or the same for memory, which creates a missing database.

    ``password`` is what libpq is to log in with, if it is not to find one by itself. ``kind`` is the type of service.
    """
    python = adk.python or sys.executable
    notes = []
    if adk.python is None:
        notes.append(f"it cannot be told which Python {shlex.join(adk.command)} runs on; {python} was asked")
    try:
        done = subprocess.run(
            [python, registration_probe.__file__, str(agents_dir), uri, kind],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
            timeout=_TIMEOUT_SECONDS,
            # Otherwise the modules beside the program would stand before those of services.py.
            env={**os.environ, "PYTHONSAFEPATH": "1", **({} if password is None else {"PGPASSWORD": password})},
        )
    except OSError as error:
        return Registration(f"{shlex.join(adk.command)} cannot run: {error}", notes)
    except subprocess.TimeoutExpired:
        return Registration(f"loading the services of {agents_dir} took longer than {_TIMEOUT_SECONDS} seconds", notes)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"]
        return Registration(f"the service cannot be opened: {lines[-1]}", notes)
    return _judge(json.loads(done.stdout), python, notes)


def check_all(adk: Adk, agents_dir: Path, uri: str, password: str | None, kinds: Sequence[Kind]) -> Registration:
    """Checks services of several types, up to the first that ADK would not use; with the notes of all."""
    problem, notes, is_unknown = None, dict[str, None](), False
    for kind in kinds:
        if problem is None:
            found = check(adk, agents_dir, uri, password, kind)
            problem, is_unknown = found.problem, found.is_unknown
            notes |= dict.fromkeys(found.notes)
    return Registration(problem, list(notes), is_unknown)


def _judge(answer: dict[str, Any], python: str, notes: list[str]) -> Registration:
    if reason := answer.get("missing"):
        remedy = f"install it there: {shlex.join([python, '-m', 'pip', 'install', 'sessiondb'])}"
        scripts = sysconfig.get_path("scripts")
        if Path(python).parent != Path(scripts):
            remedy += f"; or put {scripts} first on the PATH, for the adk beside this command"
        return Registration(f"adk runs on {python}, which cannot import sessiondb ({reason}): {remedy}", notes)
    by_services_py = bool(answer["origins"]) and not answer["origins"][-1]
    if answer["service"] is None:
        problem = "; ".join(["ADK does not find the scheme", *answer["warnings"]])
        return Registration(problem, notes, is_unknown=True)
    if not answer["is_own"]:
        where = "services.py registers the scheme, and " if by_services_py else ""
        return Registration(f"{where}ADK takes that one: {answer['service']}", notes)
    if by_services_py:
        notes.append("services.py registers the scheme, and ADK takes that one")
    return Registration(None, notes + answer["warnings"])


def _python_of(script: Path) -> str | None:
    """Returns the Python in the first lines of an installed script, as installers write them; None if it has none."""
    with script.open("rb") as file:
        first, second = (os.fsdecode(file.readline(1024)) for _ in range(2))
    if not first.startswith("#!"):
        return None
    try:
        words = shlex.split(first[2:])
        if words and Path(words[0]).name == "sh":
            # Where the path is too long or has a space, the shell starts it: '''exec' "/a b/python" "$0" "$@"
            words = shlex.split(second)[1:]
    except ValueError:
        return None
    if words and Path(words[0]).name == "env":
        found = shutil.which(words[-1])
        words = [found] if found else []
    return words[0] if words and "python" in Path(words[0]).name else None
