"""What a forked child of :mod:`tests.command` runs; whoever forks it has imported all that commands import."""

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


def run_command(
    _report: Report, *, args: list[str], environment: dict[str, str], folder: str, streams: list[str]
) -> None:
    """Be ``python -m sessiondb`` with ``args``."""
    _become(environment, folder, streams)
    sys.argv = [str(Path(sessiondb.__file__).with_name("__main__.py")), *args]
    runpy.run_module("sessiondb", run_name="__main__")


def run_function(
    _report: Report, *, args: list[str], environment: dict[str, str], folder: str, streams: list[str]
) -> None:
    """Be a program that calls a function: its module, its name and its arguments are ``args``."""
    _become(environment, folder, streams)
    module, name, *rest = args
    getattr(importlib.import_module(module), name)(*rest)


def _become(environment: dict[str, str], folder: str, streams: list[str]) -> None:
    """Take over an environment, a working directory and files to write output and errors to."""
    for stream, path in enumerate(streams, 1):
        file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        os.dup2(file, stream)
        os.close(file)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
