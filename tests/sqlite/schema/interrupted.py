"""Connections that let something happen right before they carry out a statement."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Interrupted(sqlite3.Connection):
    """Calls ``before`` with each statement."""

    before: Callable[[str], None] = staticmethod(lambda statement: None)

    def execute(self, statement: str, /, *parameters: Any) -> sqlite3.Cursor:
        self.before(statement)
        return super().execute(statement, *parameters)


def connect(path: Path, before: Callable[[str], None]) -> sqlite3.Connection:
    """Opens a file with ``before`` to be called."""
    connection = sqlite3.connect(path, isolation_level=None, factory=Interrupted)
    connection.before = before
    return connection
