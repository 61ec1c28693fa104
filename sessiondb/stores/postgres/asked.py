"""A connection that is asked: statements that are run once, all the time, or answered bit by bit; and one moment for several."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from typing import Any

import psycopg
from psycopg import capabilities
from psycopg.adapt import Transformer

from sessiondb.model import columns
from sessiondb.stores.postgres import schema
from sessiondb.stores.postgres.connection import checked
from sessiondb.stores.postgres.patience import AT_ONCE


class Prepared:
    """A statement in libpq's own words, which is prepared on each connection that runs it."""

    _numbers = count()

    def __init__(self, text: str) -> None:
        self.name = b"sessiondb_read_%d" % next(self._numbers)
        self.parameters = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", text)))
        for number, name in enumerate(self.parameters, 1):
            text = text.replace(f"%({name})s", f"${number}::{_TYPES[name]}")
        self.text = text


_TYPES = {
    **dict.fromkeys(columns.SESSION_KEY, "text"),
    **dict.fromkeys(("incarnation", "log_epoch", "seq", "limit", "last"), "bigint"),
    "since": "double precision",
}


class Asked:
    """A connection that is asked, and a schema that is put into what it is asked."""

    def __init__(self, connection: psycopg.Connection, schema_name: str, *, prepares: bool) -> None:
        """Runs nothing.

        Args:
            connection: Whose transactions commit by themselves.
            schema_name: The schema.
            prepares: Whether what is prepared on it stays there.
        """
        self.connection = connection
        self.schema = schema_name
        self._prepares = prepares
        self._prepared: set[bytes] = set()
        self._loading = Transformer(connection)
        self._cursors = count()

    def often(self, statement: Prepared, parameters: dict[str, Any]) -> list[tuple[Any, ...]]:
        """Runs a statement that is run all the time, and returns its rows.

        By libpq's own calls: psycopg's take twice as long for a short answer, and give up the GIL several times, each of
        which takes milliseconds beside a busy Python thread. A signal is not noticed before the answer.
        """
        pgconn = self.connection.pgconn
        values = [str(parameters[name]).encode() for name in statement.parameters]
        if any(b"\0" in value for value in values):
            # libpq would take what stands before it for all.
            raise psycopg.DataError("PostgreSQL has no texts with a NUL character")
        if not self._prepares:
            result = pgconn.exec_params(schema.rendered(statement.text, self.schema).encode(), values)
        else:
            if statement.name not in self._prepared:
                text = schema.rendered(statement.text, self.schema).encode()
                checked(pgconn.prepare(statement.name, text), pgconn)
                self._prepared.add(statement.name)
            result = pgconn.exec_prepared(statement.name, values)
        self._loading.set_pgresult(checked(result, pgconn))
        return self._loading.load_rows(0, result.ntuples, tuple)

    @property
    def in_snapshot(self) -> bool:
        """Whether what is asked is of one moment, until that is over."""
        return self.connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Makes the statements within see one moment, unless they do so already."""
        if self.in_snapshot:
            yield
            return
        with ExitStack() as undo:
            undo.callback(self._forget)
            with self.connection.transaction():
                self.connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                yield
            undo.pop_all()

    def _forget(self) -> None:
        """Deallocates all that is prepared, after a rollback: psycopg has done so then, if it had prepared any itself."""
        if self._prepared and not self.connection.closed:
            self._prepared.clear()
            self.connection.execute("DEALLOCATE ALL")

    def all(self, statement: str, parameters: dict[str, Any]) -> list[tuple[Any, ...]]:
        """Runs a statement, and returns its rows."""
        return schema.run(self.connection, schema.rendered(statement, self.schema), parameters).fetchall()

    def one(self, statement: str, parameters: dict[str, Any]) -> tuple[Any, ...]:
        """Runs a statement, and returns its only row."""
        (row,) = self.all(statement, parameters)
        return row

    def stream(self, statement: str, parameters: dict[str, Any]) -> Generator[tuple[Any, ...], None, None]:
        """Yields rows as they come; the statement is ended when whoever asks goes away."""
        size = AT_ONCE if capabilities.has_stream_chunked() else 1
        with self.connection.cursor() as cursor:
            yield from cursor.stream(schema.rendered(statement, self.schema), parameters, size=size)

    def through_cursor(self, statement: str, parameters: dict[str, Any]) -> Generator[tuple[Any, ...], None, None]:
        """Yields rows as :meth:`stream` does, within a snapshot; other statements may be run between two of them."""
        with self.connection.cursor(name=f"sessiondb_{next(self._cursors)}") as cursor:
            cursor.itersize = AT_ONCE
            yield from cursor.execute(schema.rendered(statement, self.schema), parameters)
