"""Connections that only read, and answer the queries of the model."""

from __future__ import annotations

import time
import weakref
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from types import GeneratorType
from typing import Any, TypeVar, cast

import psycopg
from typing_extensions import override

from sessiondb.engine.store import Reader
from sessiondb.errors import ServerUnreachableError
from sessiondb.model.queries import Query
from sessiondb.stores.postgres import reads, schema
from sessiondb.stores.postgres.asked import Asked
from sessiondb.stores.postgres.connection import Link, Server
from sessiondb.stores.postgres.errors import is_connection_lost, translate
from sessiondb.stores.postgres.patience import Patience, stepwise

ResultT = TypeVar("ResultT")

_SETTINGS = {
    "default_transaction_isolation": "read committed",
    # Without statistics a table that has grown is read as a whole; here a log is looked up by its key, always.
    "enable_seqscan": "off",
    # It would look up all there is of an app, where a few are wanted.
    "enable_bitmapscan": "off",
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
    "statement_timeout": 0,
    "idle_in_transaction_session_timeout": 0,
    "idle_session_timeout": 0,
}

_GRACE_SECONDS = 1.0

_SOON = 0.1
"""How long a question may go on that nobody wants an answer to, in seconds: to open a connection anew takes time, too."""


class PostgresReader(Reader):
    """A connection that asks. One that is lost between two questions is opened anew."""

    def __init__(self, server: Server, schema_name: str, timeout: float, *, outside: bool = False) -> None:
        """Opens it.

        Args:
            server: Where to.
            schema_name: The schema.
            timeout: How long a question waits for the server, in seconds.
            outside: Whether no service of this process has the schema open, so that it must be looked at first.

        Raises:
            StorageError: If that cannot be done.
        """
        self._server = server
        self._schema = schema_name
        self._timeout = timeout
        self._streams: weakref.WeakSet[Generator[Any, None, None]] = weakref.WeakSet()
        self._in_snapshot = False
        self._outside = outside
        self._link: Link | None = None
        with ExitStack() as undo:
            undo.callback(self.close)
            try:
                if outside:
                    link = self._attach(server.connect(_SETTINGS, within=timeout))
                    with self._watched():
                        schema.check_version(link.connection, schema_name, server.name)
                else:
                    # A server that is away for a moment keeps a service waiting, whether it has a connection already or not.
                    self._connected(time.monotonic() + timeout)
            except psycopg.Error as error:
                raise translate(error, server.name, reading=True) from error
            undo.pop_all()

    @override
    def ask(self, query: Query[ResultT]) -> ResultT:
        deadline = time.monotonic() + self._timeout
        while True:
            link = self._connected(deadline)
            try:
                with self._watched(deadline):
                    answer = reads.answer(self._asked, query)
                if isinstance(answer, GeneratorType):
                    stream = self._streamed(answer)
                    # With its first rows, so that a connection that has been lost for long is noticed here.
                    next(stream)
                    self._streams.add(stream)
                    return cast("ResultT", stream)
            except psycopg.Error as error:
                if not is_connection_lost(error):
                    raise translate(error, self._server.name, reading=True) from error
                self._drop_link()
                if self._in_snapshot or link.hastened or time.monotonic() >= deadline:
                    raise translate(error, self._server.name, reading=True) from error
                continue
            return answer

    @override
    def hasten(self) -> None:
        link = self._link
        if link is not None:
            link.hasten(time.monotonic() + _SOON)

    @override
    @contextmanager
    def snapshot(self) -> Iterator[None]:
        self._connected(time.monotonic() + self._timeout)
        try:
            with self._in_steps(self._asked.snapshot()):
                self._in_snapshot = True
                try:
                    yield
                finally:
                    # What is left half read would ask for more after the end.
                    self._end_streams()
        except psycopg.Error as error:
            raise translate(error, self._server.name, reading=True) from error
        finally:
            self._in_snapshot = False

    @override
    def changed(self) -> bool:
        # To ask costs as much as to look.
        return True

    @override
    def close(self) -> None:
        self._end_streams()
        self._drop_link()

    @override
    def __exit__(self, *_: object) -> None:
        self.close()

    def _connected(self, deadline: float) -> Link:
        link = self._link
        if link is not None and not link.connection.closed:
            return link
        if self._in_snapshot:
            raise ServerUnreachableError(f"the connection to {self._server.name} was lost in the middle of a snapshot")
        return self._attach(self._server.connect_until(deadline, _SETTINGS))

    def _attach(self, connection: psycopg.Connection) -> Link:
        if not self._server.pooled:
            # A statement is prepared when it is first run; a pooler would run it elsewhere the next time.
            connection.prepare_threshold = 0
        self._asked = Asked(connection, self._schema, prepares=not self._server.pooled)
        link = self._link = Link(connection, reading=True)
        if self._outside:
            self._patience = Patience(self._server, link, self._timeout)
        return link

    def _drop_link(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.close()

    def _end_streams(self) -> None:
        for stream in list(self._streams):
            stream.close()

    def _watched(self, deadline: float | None = None) -> AbstractContextManager[None]:
        """Watches a call: until a moment of the monotonic clock, or as long as a call may take that begins now."""
        if self._outside:
            # A command may count, list or sort all there is, and takes as long as that takes.
            return self._patience.watched()
        if self._link is None:
            # It was lost: there is nobody to wait for.
            return nullcontext()
        return self._link.deadline((deadline or time.monotonic() + self._timeout) + _GRACE_SECONDS)

    @contextmanager
    def _in_steps(self, moment: AbstractContextManager[None]) -> Generator[None, None, None]:
        """Watches the begin and the end of what is done on the server."""
        with self._watched():
            moment.__enter__()
        try:
            yield
        except BaseException as error:  # goes on, whatever it is
            with self._watched():
                moment.__exit__(type(error), error, error.__traceback__)
            raise
        with self._watched():
            moment.__exit__(None, None, None)

    def _streamed(self, answer: Generator[Any, None, None]) -> Generator[Any, None, None]:
        """Yields something, once the first rows are there or there are none, and then the rows."""
        begun = False
        try:
            with closing(stepwise(answer, self._watched)) as rows:
                first = next(rows, self)
                begun = True
                yield None
                if first is not self:
                    yield first
                    yield from rows
        except psycopg.Error as error:
            if not begun:
                raise
            raise translate(error, self._server.name, reading=True) from error
