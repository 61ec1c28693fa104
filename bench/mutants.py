"""sessiondb with one thing broken, to show that the gates notice."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import pytest
from google.adk.sessions import BaseSessionService

from bench import server
from bench.services import Peer, sessiondb
from sessiondb.model.commands import DataCommand, advance_handle
from sessiondb.model.records import Outcome
from sessiondb.stores.sqlite import writes
from sessiondb.stores.sqlite.line import Line

if TYPE_CHECKING:
    from sessiondb.stores.postgres.connection import Link
    from sessiondb.stores.postgres.writer import PostgresWriter

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


@asynccontextmanager
async def _statement_per_row_on_server(folder: Path) -> AsyncIterator[BaseSessionService]:
    from sessiondb.stores.postgres import writes as server_writes  # noqa: PLC0415
    from sessiondb.stores.postgres.connection import checked  # noqa: PLC0415
    from sessiondb.stores.postgres.writer import PostgresWriter  # noqa: PLC0415

    send = PostgresWriter._send

    def send_each(
        writer: PostgresWriter,
        link: Link,
        commands: Sequence[DataCommand],
        _expected: Any,
        progress: Any,
        deadline: float,
    ) -> list[Outcome]:
        """One transaction a batch, as ever, but a statement for each command of it, and a step of the ledger."""
        pgconn = link.connection.pgconn
        checked(pgconn.exec_(b"BEGIN"), pgconn)
        outcomes: list[Outcome] = []
        for command in commands:
            expected = server_writes.expected_rows([command])
            outcomes += send(writer, link, [command], expected, progress, deadline)
            advance_handle(command, outcomes[-1])
            writer._batch += 1
        checked(pgconn.exec_(b"COMMIT"), pgconn)
        # Who calls this counts one.
        writer._batch -= 1
        return outcomes

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PostgresWriter, "_send", send_each)
        async with server.sessiondb()(folder) as service:
            yield service


MUTANTS: dict[str, Peer] = {
    "commit_per_append": Peer("a commit per append", sessiondb(max_batch=1)),
    "cache_off": Peer("no cache of decoded logs", sessiondb(log_cache="off")),
    "statement_per_row": Peer("a statement per row", _statement_per_row),
    "no_line": Peer("processes that wait for SQLite's lock alone", _no_line),
    "pg_commit_per_append": Peer("PostgreSQL: a commit per append", server.sessiondb(max_batch=1), on_server=True),
    "pg_statement_per_row": Peer("PostgreSQL: a statement per row", _statement_per_row_on_server, on_server=True),
}
