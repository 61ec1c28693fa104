"""sessiondb with one thing broken, to show that the gates notice."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest
from google.adk.sessions import BaseSessionService

from bench.services import Peer, sessiondb
from sessiondb.stores.sqlite import writes
from sessiondb.stores.sqlite.line import Line

_Command = TypeVar("_Command")
_Outcome = TypeVar("_Outcome")


class _InOneTransaction:
    """A connection on which BEGIN and COMMIT are somebody else's."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def execute(self, statement: str, parameters: Any = ()) -> sqlite3.Cursor | None:
        if statement in ("BEGIN IMMEDIATE", "COMMIT"):
            return None
        return self._connection.execute(statement, parameters)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def _row_by_row(
    write: Callable[[sqlite3.Connection, Sequence[_Command]], list[_Outcome]],
) -> Callable[[sqlite3.Connection, Sequence[_Command]], list[_Outcome]]:
    """One transaction a batch, as ever, but statements for each command of it instead of one for all."""

    def write_each(
        connection: sqlite3.Connection, commands: Sequence[_Command], *, begun: bool = False
    ) -> list[_Outcome]:
        joined = cast("sqlite3.Connection", _InOneTransaction(connection))
        if not begun:
            connection.execute("BEGIN IMMEDIATE")
        outcomes = [write(joined, [command])[0] for command in commands]
        connection.execute("COMMIT")
        return outcomes

    return write_each


@asynccontextmanager
async def _statement_per_row(folder: Path) -> AsyncIterator[BaseSessionService]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writes, "execute", _row_by_row(writes.execute))
        async with sessiondb()(folder) as service:
            yield service


@asynccontextmanager
async def _no_line(folder: Path) -> AsyncIterator[BaseSessionService]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Line, "form", lambda _: None)
        async with sessiondb()(folder) as service:
            yield service


MUTANTS: dict[str, Peer] = {
    "commit_per_append": Peer("a commit per append", sessiondb(max_batch=1)),
    "cache_off": Peer("no cache of decoded logs", sessiondb(log_cache="off")),
    "statement_per_row": Peer("a statement per row", _statement_per_row),
    "no_line": Peer("processes that wait for SQLite's lock alone", _no_line),
}
