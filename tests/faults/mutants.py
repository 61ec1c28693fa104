"""Deliberately broken builds: each breaks one promise, and a test shows that its harness notices."""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sessiondb.engine import waiting
from sessiondb.engine import writer as engine_writer
from sessiondb.errors import WriteFailedError
from sessiondb.model.records import Outcome, Status
from sessiondb.stores.sqlite import wal, writer


class _Fetched:
    """The rows of a statement that has ended."""

    def __init__(self, rows: list[Any]) -> None:
        self._rows = iter(rows)

    def __iter__(self) -> Iterator[Any]:
        return self._rows

    def fetchone(self) -> Any:
        return next(self._rows, None)

    def fetchall(self) -> list[Any]:
        return list(self._rows)


class _Breaking(sqlite3.Connection):
    """Has each transaction that writes committed by :meth:`commit_wrongly`, statements that are one by themselves too."""

    def execute(self, sql: str, *parameters: Any) -> Any:
        if not sql.lstrip().startswith("SELECT"):
            self.complete()
        if sql == "COMMIT":
            self.commit_wrongly()
            return _Fetched([])
        if not self.in_transaction and sql.lstrip().startswith(("INSERT", "DELETE", "UPDATE")):
            super().execute("BEGIN IMMEDIATE")
            rows = super().execute(sql, *parameters).fetchall()
            self.commit_wrongly()
            return _Fetched(rows)
        return super().execute(sql, *parameters)

    def executemany(self, sql: str, rows: Iterable[Any]) -> Any:
        for row in rows:
            self.execute(sql, row)

    def close(self) -> None:
        self.complete()
        super().close()

    def complete(self) -> None:
        """Does what an earlier commit has left to do."""

    def commit_wrongly(self) -> None:
        """Breaks the promise."""


class _Late(_Breaking):
    """COMMIT returns at once; it is carried out before the next statement that writes."""

    _owes_commit = False

    @property
    def in_transaction(self) -> bool:
        """As if it had been carried out: else the writer would roll back what it takes for left open."""
        return super().in_transaction and not self._owes_commit

    def complete(self) -> None:
        if self._owes_commit:
            self._owes_commit = False
            sqlite3.Connection.execute(self, "COMMIT")

    def commit_wrongly(self) -> None:
        self._owes_commit = True


class _Halving(_Breaking):
    """COMMIT commits the log and the sessions first, and then the state, each in a transaction of its own."""

    _committed: Sequence[tuple[Any, ...]] = ()
    _changes = 0

    def commit_wrongly(self) -> None:
        execute = functools.partial(sqlite3.Connection.execute, self)
        if self.total_changes == self._changes:
            # A snapshot of a reader, which may write nothing.
            execute("COMMIT")
            return
        state = (
            execute("SELECT name FROM sqlite_schema WHERE name = 'adk_state'").fetchall()
            and execute("SELECT * FROM adk_state").fetchall()
        )
        if state:
            self._write(self._committed)
            execute("COMMIT")
            execute("BEGIN IMMEDIATE")
            self._write(state)
            self._committed = state
        execute("COMMIT")
        self._changes = self.total_changes

    def _write(self, rows: Sequence[tuple[Any, ...]]) -> None:
        sqlite3.Connection.execute(self, "DELETE FROM adk_state")
        self.executemany("INSERT INTO adk_state VALUES (?, ?, ?, ?, ?, ?, ?)", rows)


def _connect_as(kind: type[sqlite3.Connection]) -> None:
    sqlite3.connect = functools.partial(sqlite3.connect, factory=kind)  # type: ignore[assignment]  # overloads


def answer_before_commit() -> None:
    """Appends are answered when their rows are written, before COMMIT."""
    _connect_as(_Late)


def state_in_a_second_transaction() -> None:
    """An event is committed first, its state after it."""
    _connect_as(_Halving)


def synchronous(mode: str) -> None:
    """The connection syncs as ``mode`` says, whatever ``durability`` was asked for."""

    class Connection(sqlite3.Connection):
        def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
            if sql.startswith("PRAGMA synchronous"):
                sql = f"PRAGMA synchronous={mode}"
            return super().execute(sql, *parameters)

    _connect_as(Connection)


def passive_checkpoints() -> None:
    """Checkpoints do not take the write lock."""

    def checkpoint(self: wal.WalKeeper, **_: Any) -> None:
        self.connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        self.checkpoints += 1

    wal.WalKeeper.checkpoint = checkpoint  # type: ignore[method-assign]


def failed_sync_is_retried() -> None:
    """The writer goes on after a failed sync as if nothing was."""
    for module in (wal, writer):
        vars(module)["SYNC_FAILED"] = ()


def errors_are_swallowed() -> None:
    """Whoever waits for a batch that SQLite has refused is told that it was written."""

    complete = waiting.complete

    def complete_well(tickets: Iterable[waiting.AnyTicket]) -> list[waiting.AnyTicket]:
        tickets = list(tickets)
        for ticket in tickets:
            if isinstance(ticket.error, WriteFailedError):
                ticket.error = None
                ticket.outcome = Outcome(Status.DONE, 1, 1)
        return complete(tickets)

    engine_writer.complete = complete_well  # type: ignore[attr-defined]


def checkpoint_at(size: int, *, cut: bool = False) -> None:
    """Checkpoints a WAL that has grown to ``size`` bytes, checked after each batch. (No break: only a small size.)

    Args:
        size: Bytes.
        cut: Whether each checkpoint gives the WAL's space back, as those of a large WAL do.
    """
    wal._DUE_BYTES = size
    writer._CHECK_SECONDS = 0
    if cut:
        wal._MOST_BYTES = 0


MUTANTS = {
    "": lambda: None,
    "answer before commit": answer_before_commit,
    "synchronous=NORMAL": lambda: synchronous("NORMAL"),
    "synchronous=OFF": lambda: synchronous("OFF"),
    "state in a second transaction": state_in_a_second_transaction,
    "passive checkpoints": passive_checkpoints,
    "failed sync is retried": failed_sync_is_retried,
    "errors are swallowed": errors_are_swallowed,
}
"""What :mod:`tests.faults.programs` can be asked to run, by name; "" is the product as it is."""
