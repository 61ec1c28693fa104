"""Deliberately broken builds of the store on a server: each breaks one promise, and a test shows that its harness notices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sessiondb.model.commands import DataCommand
from sessiondb.model.records import Outcome
from sessiondb.stores.postgres import writer, writes
from sessiondb.stores.postgres.connection import Link
from sessiondb.stores.postgres.writer import PostgresWriter


def answer_before_commit() -> None:
    """Appends are answered at once; the server is given them before the next batch."""
    execute = PostgresWriter._execute
    owed: list[str] = []

    def execute_late(
        self: PostgresWriter, commands: Sequence[DataCommand], deadline: float, progress: Any = None
    ) -> list[Outcome]:
        while owed:
            self._call(self._connected(deadline), self._append, owed.pop(), deadline)
            self._batch += 1
        expected = writes.expected_rows(commands)
        if expected is None:
            return execute(self, commands, deadline, progress)
        rows, outcomes = expected
        owed.append(rows)
        return outcomes

    PostgresWriter._execute = execute_late  # type: ignore[method-assign]


def new_number_for_each_sending() -> None:
    """What is sent again has another number, so that the ledger does not know it."""
    call = PostgresWriter._call

    def call_anew(self: PostgresWriter, link: Link, statement: bytes, rows: str, deadline: float) -> str:
        row = self._run(
            link.connection, "SELECT batch FROM @sessiondb_writers WHERE writer = %s", (self._writer,)
        ).fetchone()
        assert row is not None
        assert isinstance(row[0], int)
        self._batch = row[0]
        return call(self, link, statement, rows, deadline)

    PostgresWriter._call = call_anew  # type: ignore[method-assign]


def warnings_are_overlooked() -> None:
    """A commit that gave up waiting for its standby is taken for one that is on it."""
    Link._note = lambda *_: None  # type: ignore[method-assign]


def asynchronous_commit() -> None:
    """Commits are answered before they are written, whatever ``durability`` was asked for."""
    settings = PostgresWriter._settings
    writer._SET_DURABLE = "SELECT 1"

    def with_it_off(self: PostgresWriter) -> dict[str, object]:
        return {**settings(self), "synchronous_commit": "off"}

    PostgresWriter._settings = with_it_off  # type: ignore[method-assign]


MUTANTS = {
    "": lambda: None,
    "answer before commit": answer_before_commit,
    "a new number for each sending": new_number_for_each_sending,
    "warnings are overlooked": warnings_are_overlooked,
    "asynchronous commit": asynchronous_commit,
}
"""What :mod:`tests.faults.postgres.clients` can be asked to run, by name; "" is the product as it is."""
