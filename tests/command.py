"""Runs the ``sessiondb`` command in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import sessiondb

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


def run_sessiondb(*args: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``python -m sessiondb`` with ``args``, its tables 160 columns wide."""
    command = [sys.executable, "-m", "sessiondb", *map(str, args)]
    return run(command, **{"COLUMNS": "160", **environment})
