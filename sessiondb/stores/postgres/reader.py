"""Connections that only read, and answer the queries of the model."""

from __future__ import annotations

import time
import weakref
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from itertools import islice
from types import GeneratorType
from typing import Any, TypeVar, cast

import psycopg
from typing_extensions import override

from sessiondb.engine.store import Reader
from sessiondb.errors import ServerUnreachableError
from sessiondb.model.queries import Query
from sessiondb.stores.postgres import reads, schema
from sessiondb.stores.postgres.asked import AT_ONCE, Asked
from sessiondb.stores.postgres.connection import Link, Server
from sessiondb.stores.postgres.errors import is_connection_lost, translate

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
                with self._deadline(link, deadline):
                    answer = reads.answer(self._asked, query)
            except psycopg.Error as error:
                if not is_connection_lost(error):
                    raise translate(error, self._server.name, reading=True) from error
                self._drop_link()
                if self._in_snapshot or time.monotonic() >= deadline:
                    raise translate(error, self._server.name, reading=True) from error
                continue
            if isinstance(answer, GeneratorType):
                stream = self._streamed(link, answer)
                self._streams.add(stream)
                return cast("ResultT", stream)
            return answer

    @override
    @contextmanager
    def snapshot(self) -> Iterator[None]:
        self._connected(time.monotonic() + self._timeout)
        try:
            with self._asked.snapshot():
                self._in_snapshot = True
                yield
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
        for stream in list(self._streams):
            stream.close()
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
        link = self._link = Link(connection)
        return link

    def _drop_link(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.close()

    def _deadline(self, link: Link, moment: float) -> AbstractContextManager[None]:
        # A command may count, list or sort all there is, and takes as long as that takes.
        return nullcontext() if self._outside else link.deadline(moment + _GRACE_SECONDS)

    def _streamed(self, link: Link, answer: Generator[Any, None, None]) -> Generator[Any, None, None]:
        try:
            with closing(answer):
                while True:
                    with self._deadline(link, time.monotonic() + self._timeout):
                        some = list(islice(answer, AT_ONCE))
                    yield from some
                    if len(some) < AT_ONCE:
                        return
        except psycopg.Error as error:
            raise translate(error, self._server.name, reading=True) from error
