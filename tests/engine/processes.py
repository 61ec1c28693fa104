"""Runs functions of the tests in Python processes of their own, and lets both sides talk."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests import command

_ROOT = Path(__file__).parents[2]

# The checkout comes last, as for pytest itself: an installed package is what is tested.
_MAIN = """
import importlib, sys
sys.path.append(sys.argv[1])
getattr(importlib.import_module(sys.argv[2]), sys.argv[3])(*sys.argv[4:])
"""


def say(*words: object) -> None:
    """Tell the parent process."""
    print(*words, flush=True)  # noqa: T201  # the parent listens


def listen() -> str:
    """Wait for a line from the parent process."""
    return sys.stdin.readline().strip()


def start(function: Callable[..., Any], *args: object, python: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """Start ``function``, importable by its name, with ``args`` as strings; its standard streams are pipes."""
    program = [sys.executable, *python, "-c", _MAIN, str(_ROOT), function.__module__, function.__name__]
    return subprocess.Popen(
        [*program, *map(str, args)],
        # Not the checkout, which "-c" would put first.
        cwd=_ROOT / "tests",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


def died_in_a_foreign_thread(status: int, err: str) -> bool:
    """Say whether the interpreter aborted because of a daemon thread of the host, which nobody but the host can prevent.

    Before 3.14 a daemon thread that wants the GIL of an interpreter on its way out is ended by ``pthread_exit``. If
    pydantic is at work in it, its Rust does not let that through, and the C library aborts: about once in 400 exits with
    a busy loop in such a thread.
    """
    return sys.version_info < (3, 14) and status == -signal.SIGABRT and "exception not rethrown" in err


def finish(process: subprocess.Popen[str], *, host_writes: bool = False) -> str:
    """Wait for a process to end well, and return what it wrote to its standard output.

    Args:
        process: It.
        host_writes: Whether a daemon thread of its own may be inside pydantic in the end.
    """
    try:
        out, err = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"the process did not end; it wrote {out!r} and {err!r}") from None
    assert process.returncode == 0 or (host_writes and died_in_a_foreign_thread(process.returncode, err)), err
    return out


def run_forked(function: Callable[..., Any], *args: object) -> str:
    """As :func:`run`, sooner: the process is forked from one in which all is imported."""
    done = command.run_function(function, *args)
    assert done.returncode == 0, done.stderr
    return done.stdout


def run(function: Callable[..., Any], *args: object, python: tuple[str, ...] = ()) -> str:
    """Run ``function`` in a process of its own to its end, and return what it wrote to its standard output."""
    return finish(start(function, *args, python=python))
