"""Runs the ``sessiondb`` command in a process of its own."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tempfile
from pathlib import Path

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
    with tempfile.TemporaryDirectory(prefix="sessiondb-command-") as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        child = _zygote().start(
            "tests.command_program:run",
            args=list(map(str, args)),
            environment={**os.environ, "COLUMNS": "160", **environment},
            folder=str(PACKAGE_PARENT),
            out=str(out),
            err=str(err),
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
