"""Waits for answers that may take any time, as long as the server is at them.

Commands count, list and sort all there is, and nobody knows how long that takes. But a network that is cut without a word, or
a server that hangs, must not keep them waiting for ever. So whoever has waited for a while looks, over another connection,
whether the server still works for the first one.
"""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from itertools import islice
from typing import TypeVar

import psycopg

from sessiondb.errors import LoginRefusedError, StorageError
from sessiondb.stores.postgres.connection import Link, Server, checked
from sessiondb.stores.postgres.watchdog import WATCHDOG

RowT = TypeVar("RowT")

AT_ONCE = 1000
"""Rows of a long answer that are fetched at a time."""

_LEAST_SECONDS = 5.0
"""How long a look may take at least: a server that is busy is slow to take connections."""

_LOOK_SECONDS = 0.25

_IS_AT_WORK = "SELECT FROM pg_stat_activity WHERE pid = %s AND state = 'active'"


class Patience:
    """Watches the calls on one connection."""

    def __init__(self, server: Server, link: Link, seconds: float) -> None:
        """Does nothing yet.

        Args:
            server: Where the connection leads.
            link: The connection.
            seconds: How long to wait before each look, and how long a look may take, 5 seconds at least.
        """
        self._server = server
        self._link = link
        self._seconds = seconds
        # A pooler lends the connection to somebody else, and has numbers of its own: that it answers has to do.
        self._process = None if server.pooled else link.connection.info.backend_pid
        self._lock = threading.Lock()
        self._call: object | None = None

    @contextmanager
    def watched(self) -> Generator[None, None, None]:
        """Cuts off the call within, if the server is not at it any more."""
        self._call = object()
        WATCHDOG.watch(self, time.monotonic() + self._seconds)
        try:
            yield
        finally:
            with self._lock:
                self._call = None
                WATCHDOG.release(self)

    def cut_off(self) -> None:
        """Looks whether the call is worth waiting for, on another thread, since that may take a while."""
        threading.Thread(target=self._look, args=[self._call], name="sessiondb-patience", daemon=True).start()

    def _look(self, call: object | None) -> None:
        at_work = self._is_at_work()
        with self._lock:
            if call is None or call is not self._call:
                return
            if at_work:
                WATCHDOG.watch(self, time.monotonic() + self._seconds)
            else:
                self._link.cut_off()

    def _is_at_work(self) -> bool:
        deadline = time.monotonic() + max(self._seconds, _LEAST_SECONDS)
        try:
            with self._server.connect_until(deadline) as connection, Link(connection).deadline(deadline):
                return self._process is None or connection.execute(_IS_AT_WORK, (self._process,)).rowcount > 0
        except LoginRefusedError:
            # Whoever refuses is there.
            return True
        except (StorageError, psycopg.Error):
            return False


def run_beside(connection: psycopg.Connection, statement: str, look: Callable[[], None]) -> None:
    """Runs a statement that takes long, and calls ``look`` four times a second until it is done.

    Raises:
        psycopg.Error: If the server refuses, or the connection is cut off.
    """
    pgconn = connection.pgconn
    answered = select.poll()
    answered.register(pgconn.socket, select.POLLIN)
    pgconn.send_query(statement.encode())
    while pgconn.is_busy():
        answered.poll(_LOOK_SECONDS * 1000)
        pgconn.consume_input()
        look()
    while (result := pgconn.get_result()) is not None:
        checked(result, pgconn)


def stepwise(
    rows: Generator[RowT, None, None], watched: Callable[[], AbstractContextManager[None]]
) -> Generator[RowT, None, None]:
    """Yields rows that are fetched from a server, each step of which is watched, the end too."""
    try:
        while True:
            with watched():
                some = list(islice(rows, AT_ONCE))
            yield from some
            if len(some) < AT_ONCE:
                return
    finally:
        with watched():
            rows.close()
