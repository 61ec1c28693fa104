"""The ``sessiondb`` command as a forked child runs it; whoever forks has imported all that commands import."""

from __future__ import annotations

import importlib
import os
import pkgutil
import runpy
import sys
from pathlib import Path

import sessiondb
from tests.faults.zygote import Report


def _import_all() -> None:
    for module in pkgutil.walk_packages(sessiondb.__path__, "sessiondb."):
        # What is run, and what pytest loads.
        if module.name.rpartition(".")[2] not in ("__main__", "testing"):
            importlib.import_module(module.name)
    for name in ("database_session_service", "sqlite_session_service", "migration.migration_runner"):
        importlib.import_module(f"google.adk.sessions.{name}")


_import_all()


def run(_report: Report, *, args: list[str], environment: dict[str, str], folder: str, out: str, err: str) -> None:
    """Be ``python -m sessiondb`` with ``args``, in ``folder``; its streams go to the files ``out`` and ``err``."""
    for stream, path in ((1, out), (2, err)):
        file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        os.dup2(file, stream)
        os.close(file)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = [str(Path(sessiondb.__file__).with_name("__main__.py")), *args]
    runpy.run_module("sessiondb", run_name="__main__")
