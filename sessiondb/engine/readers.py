"""The read path: a few threads, each with a connection of its own, and connections for tiny reads in the callers'."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from sessiondb.engine.waiting import Ticket, settle
from sessiondb.errors import ReaderTimeoutError, ServiceClosedError, StorageError
from sessiondb.stores.sqlite.connection import open_reader, primary_code, translate

ResultT = TypeVar("ResultT")
Job: TypeAlias = Callable[[sqlite3.Connection], ResultT]
ReadTicket: TypeAlias = Ticket[Job[Any], Any]


class ReaderPool:
    """Reads beside the writer.

    Jobs are served in the order in which they came, by up to ``size`` threads that are started when there is more to
    do than those running can take. A job runs to its end on one connection, so nobody holds a connection between two
    steps of his own.
    """

    def __init__(self, path: Path, size: int, busy_timeout: float) -> None:
        self._path = path
        self._size = size
        self._busy_timeout = busy_timeout
        self._lock = threading.Condition(threading.Lock())
        self._waiting: dict[ReadTicket, None] = {}
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._closed = False
        self._suspended = False
        self._inline = _InlineConnections(path, size)

    @property
    def in_use(self) -> int:
        """Readers at work at this moment."""
        return len(self._threads) - self._idle

    @property
    def waiting(self) -> int:
        """Jobs that no reader has begun yet."""
        return len(self._waiting)

    def submit(self, ticket: ReadTicket) -> bool:
        """Queues a job; says whether a reader is free to begin it at once.

        Raises:
            ServiceClosedError: If the pool is closed.
        """
        with self._lock:
            if self._closed:
                raise ServiceClosedError("the session service is closed")
            self._waiting[ticket] = None
            if len(self._waiting) <= self._idle:
                self._lock.notify()
                return True
            if len(self._threads) < self._size and not self._suspended:
                thread = threading.Thread(
                    target=self._serve, name=f"sessiondb-reader-{len(self._threads)}-{self._path.name}", daemon=True
                )
                self._threads.append(thread)
                thread.start()
                return True
            return False

    def withdraw(self, ticket: ReadTicket) -> bool:
        """Takes a job back that no reader has begun; says whether that was so."""
        with self._lock:
            return self._waiting.pop(ticket, self) is None

    def try_inline(self, job: Job[ResultT]) -> tuple[ResultT] | None:
        """Runs a job in the calling thread, if that can be done without waiting for anything; None if not.

        For reads known to be shorter than a hop to a thread and back (50 to 80 us).

        Returns:
            The job's result, wrapped; None if it was not run.

        Raises:
            ServiceClosedError: If the pool is closed.
            StorageError: If SQLite refuses the read.
        """
        try:
            with self._inline.borrowed() as connection:
                return None if connection is None else (job(connection),)
        except sqlite3.Error as error:
            if primary_code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                return None
            raise translate(error, self._path, reading=True) from error

    def close(self, patience: float | None = None) -> None:
        """Ends the pool: running jobs finish, waiting jobs get ServiceClosedError. Blocks; idempotent.

        Args:
            patience: How long to wait for each running job, in seconds; None: until it is done.
        """
        with self._lock:
            self._closed = True
            refused = list(self._waiting)
            self._waiting.clear()
            threads = list(self._threads)
            self._lock.notify_all()
        for ticket in refused:
            ticket.error = ServiceClosedError("the session service was closed before this read began")
        settle(refused)
        for thread in threads:
            thread.join(patience)
        self._inline.close()

    def suspend(self) -> None:
        """Waits until no job is running, and gives up the file until :meth:`resume`."""
        self._inline.suspend()
        with self._lock:
            self._suspended = True
            threads = list(self._threads)
            self._lock.notify_all()
        # Threads end when told to suspend, closing their connections; they are started anew when needed.
        for thread in threads:
            thread.join()

    def resume(self) -> None:
        """Serves again after :meth:`suspend`."""
        with self._lock:
            self._suspended = False
            waiting = list(self._waiting)
            self._waiting.clear()
        self._inline.resume()
        for ticket in waiting:
            self.submit(ticket)

    def _serve(self) -> None:
        connection: sqlite3.Connection | None = None
        try:
            while True:
                ticket = self._next()
                if ticket is None:
                    return
                try:
                    if connection is None:
                        connection = open_reader(self._path, self._busy_timeout)
                    ticket.outcome = ticket.work(connection)
                except sqlite3.Error as error:
                    ticket.error = translate(error, self._path, reading=True)
                except BaseException as error:  # noqa: BLE001  # reaches its caller, and the reader lives on
                    ticket.error = error
                settle([ticket])
        finally:
            if connection is not None:
                connection.close()

    def _next(self) -> ReadTicket | None:
        with self._lock:
            while not self._waiting or self._suspended:
                if self._closed or self._suspended:
                    self._threads.remove(threading.current_thread())
                    return None
                self._idle += 1
                self._lock.wait()
                self._idle -= 1
            ticket = next(iter(self._waiting))
            del self._waiting[ticket]
            return ticket


class _InlineConnections:
    """Connections for reads in the callers' own threads: as many as there are callers at once, at most ``limit``.

    Event loops in several threads read beside each other then; a loop that finds none free goes to the reader threads.
    """

    def __init__(self, path: Path, limit: int) -> None:
        self._path = path
        self._limit = limit
        self._changed = threading.Condition(threading.Lock())
        self._free: list[sqlite3.Connection] = []
        self._borrowed = 0
        self._closed = False
        self._suspended = False

    @contextmanager
    def borrowed(self) -> Iterator[sqlite3.Connection | None]:
        """Lends a connection; None if that would take waiting.

        Raises:
            ServiceClosedError: If they are closed.
            StorageError: If a connection cannot be opened.
        """
        with self._changed:
            if self._closed:
                raise ServiceClosedError("the session service is closed")
            if self._suspended or self._borrowed >= self._limit:
                connection, lent = None, False
            else:
                connection, lent = self._free.pop() if self._free else None, True
                self._borrowed += 1
        if not lent:
            yield None
            return
        try:
            if connection is None:
                connection = open_reader(self._path, 0)
            yield connection
        finally:
            with self._changed:
                self._borrowed -= 1
                if connection is not None:
                    self._free.append(connection)
                self._changed.notify_all()

    def suspend(self) -> None:
        """Lends nothing until :meth:`resume`; waits until all are back, and closes them."""
        with self._changed:
            self._suspended = True
            self._close_all()

    def resume(self) -> None:
        """Lends again after :meth:`suspend`."""
        with self._changed:
            self._suspended = False

    def close(self) -> None:
        """Lends nothing any more; waits until all are back, and closes them."""
        with self._changed:
            self._closed = True
            self._close_all()

    def _close_all(self) -> None:
        while self._borrowed:
            self._changed.wait()
        while self._free:
            self._free.pop().close()


def reader_timeout(readers: int, seconds: float) -> StorageError:
    """Returns the error for a read that waited in vain for a reader."""
    return ReaderTimeoutError(
        f"none of the {readers} readers became free within {seconds:g} s; raise `readers`, or read less at once"
    )
