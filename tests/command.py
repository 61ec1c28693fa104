"""Runs the ``sessiondb`` command, and functions of the tests, in processes of their own."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sessiondb
from tests.faults.zygote import Zygote

PACKAGE_PARENT = Path(sessiondb.__file__).parents[1]


def run(command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``command`` to its end, with ``environment`` added to this process's own."""
    return subprocess.run(
        command,
        # "-m" and "-c" look here first, so that the process runs the package under test.
        cwd=PACKAGE_PARENT,
        env={**os.environ, **environment},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


def start_sessiondb(*args: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``python -m sessiondb`` with ``args``, its tables 160 columns wide, as a user starts it."""
    command = [sys.executable, "-m", "sessiondb", *map(str, args)]
    return run(command, **{"COLUMNS": "160", **environment})


def run_sessiondb(*args: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """As :func:`start_sessiondb`, in a process that is forked from one in which all is imported: ADK takes a second."""
    return _run_forked("run_command", list(map(str, args)), {"COLUMNS": "160", **environment})


def run_function(function: Callable[..., Any], *args: object) -> subprocess.CompletedProcess[str]:
    """Run ``function``, importable by its name, with ``args`` as strings, in a process that is forked like those."""
    return _run_forked("run_function", [function.__module__, function.__name__, *map(str, args)], {})


def _run_forked(target: str, args: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    with tempfile.TemporaryDirectory(prefix="sessiondb-command-") as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        child = _zygote().start(
            f"tests.command_program:{target}",
            args=args,
            environment={**os.environ, **environment},
            folder=str(PACKAGE_PARENT),
            streams=[str(out), str(err)],
        )
        status = child.wait()
        return subprocess.CompletedProcess(args, status, out.read_text("utf-8"), err.read_text("utf-8"))


@functools.cache
def _zygote() -> Zygote:
    return Zygote(None, imports="tests.command_program")


def close() -> None:
    """End what the commands were forked from."""
    if _zygote.cache_info().currsize:
        _zygote().close()
        _zygote.cache_clear()
