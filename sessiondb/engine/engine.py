"""One open SQLite file: its writer, its readers, and the services that share it."""

from __future__ import annotations

import atexit
import os
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.to_thread

from sessiondb import telemetry
from sessiondb.engine.queue import WriteQueue, WriteTicket, queue_full
from sessiondb.engine.readers import ReaderPool, reader_timeout
from sessiondb.engine.waiting import ThreadWaiter, Ticket, settle, waiter_for_task
from sessiondb.engine.writer import WriterThread
from sessiondb.errors import ConfigurationError, ServiceClosedError
from sessiondb.logger import logger
from sessiondb.model.commands import WriteCommand
from sessiondb.model.queries import Query
from sessiondb.options import StoreOptions
from sessiondb.stats import Health, StoreStats
from sessiondb.stores.sqlite import reads, schema
from sessiondb.stores.sqlite import writes as statements
from sessiondb.stores.sqlite.backup import BackupReport, Backups, Progress
from sessiondb.stores.sqlite.connection import open_writer, prepare_file, set_busy_timeout, translate
from sessiondb.stores.sqlite.opening import closed_on_failure

AnswerT = TypeVar("AnswerT")
ResultT = TypeVar("ResultT")

_EXIT_PATIENCE = 0.5
"""How long the interpreter's exit waits for an unclosed file to commit what is queued, in seconds."""


class SqliteStore:
    """One open file. Services of a process that name the same file share one store, and so one writer."""

    def __init__(self, path: Path, options: StoreOptions, folder: Path | None) -> None:
        """Opens the file; use :func:`open_store`, which shares.

        Args:
            path: The file, which exists.
            options: How to keep it.
            folder: A temporary folder to remove in the end, of a database in memory.
        """
        self.path = path
        self.options = options
        self._folder = folder
        self._folder_owner = os.getpid()
        self._lock = threading.Lock()
        self._closing = threading.Lock()
        self._closed = False
        # Set once nobody shares the store any more: it is closing, or closed.
        self.ending = False
        self._engine: _Engine | None = _Engine(path, options)

    @property
    def engine(self) -> _Engine:
        """The running machinery; started here in a process that was forked from the one that opened the file.

        Raises:
            ServiceClosedError: If the store is closed.
        """
        engine = self._engine
        if engine is not None:
            return engine
        with self._lock:
            if self._closed:
                raise ServiceClosedError("the session service is closed")
            if self._engine is None:
                self._engine = _Engine(self.path, self.options)
            return self._engine

    async def write(self, command: WriteCommand, on_settled: Callable[[WriteTicket], None] | None = None) -> Any:
        """Has a command carried out, and returns its outcome once it is on disk.

        A cancelled call is either taken back before the writer has begun, or waits for the answer: after the
        cancellation nothing is left undecided.

        Raises:
            QueueFullError: If the queue stays full for ``busy_timeout``.
            StorageError: If the command cannot be carried out.
        """
        queue = self.engine.queue
        waiter = waiter_for_task()
        ticket: WriteTicket = Ticket(command, waiter, on_settled)
        queued = queue.put(ticket)
        try:
            if not queued:
                with anyio.move_on_after(self.options.busy_timeout):
                    await waiter.wait()
                if not waiter.settled and queue.unpark(ticket):
                    logger.warning("write_queue_full", path=str(self.path), limit=self.options.max_queue)
                    ticket.error = queue_full(self.options.max_queue, self.options.busy_timeout)
                    return ticket.result()
            await waiter.wait()
        except GeneratorExit:
            # The loop is gone and this coroutine with it: nothing can be awaited any more.
            queue.withdraw(ticket)
            raise
        except waiter.cancelled:
            if not queue.withdraw(ticket):
                await waiter.wait_through_cancellation()
            raise
        return ticket.result()

    def write_from_thread(self, command: WriteCommand) -> Any:
        """As :meth:`write`, for a plain thread, which it blocks."""
        queue = self.engine.queue
        waiter = ThreadWaiter()
        ticket: WriteTicket = Ticket(command, waiter)
        if not queue.put(ticket) and not waiter.wait(self.options.busy_timeout) and queue.unpark(ticket):
            raise queue_full(self.options.max_queue, self.options.busy_timeout)
        waiter.wait()
        return ticket.result()

    async def read(self, query: Query[AnswerT], then: Callable[[AnswerT], ResultT]) -> ResultT:
        """Answers a query from one snapshot; ``then`` turns the answer into the result, on the reader's thread.

        A cancelled call is taken back, or its result dropped.

        Raises:
            ReaderTimeoutError: If no reader becomes free within ``busy_timeout``.
            StorageError: If SQLite refuses the read.
        """
        pool = self.engine.readers
        waiter = waiter_for_task()
        ticket: Ticket[Any, ResultT] = Ticket(_job(query, then), waiter)
        begun = pool.submit(ticket)
        try:
            if not begun:
                with anyio.move_on_after(self.options.busy_timeout):
                    await waiter.wait()
                if not waiter.settled and pool.withdraw(ticket):
                    ticket.error = reader_timeout(self.options.readers, self.options.busy_timeout)
                    return ticket.result()
            await waiter.wait()
        except (GeneratorExit, waiter.cancelled):
            pool.withdraw(ticket)
            raise
        return ticket.result()

    def read_inline(self, query: Query[AnswerT], then: Callable[[AnswerT], ResultT]) -> tuple[ResultT] | None:
        """Answers a query in the calling thread, if nothing has to be waited for; else None."""
        return self.engine.readers.try_inline(_job(query, then))

    def read_from_thread(self, query: Query[AnswerT]) -> AnswerT:
        """As :meth:`read`, for a plain thread, which it blocks."""
        pool = self.engine.readers
        waiter = ThreadWaiter()
        ticket: Ticket[Any, AnswerT] = Ticket(_job(query, _as_it_is), waiter)
        pool.submit(ticket)
        if not waiter.wait(self.options.busy_timeout) and pool.withdraw(ticket):
            raise reader_timeout(self.options.readers, self.options.busy_timeout)
        waiter.wait()
        return ticket.result()

    async def backup(self, target: Path, *, overwrite: bool, progress: Progress | None) -> BackupReport:
        """Copies what is committed at this moment to ``target``, beside the writer.

        A cancelled call waits until the copy has stopped and its traces are gone.

        Raises:
            ConfigurationError: If ``target`` is a database in use, or exists and may not be replaced.
            StorageError: If the copy cannot be made, or is damaged as the file is.
        """
        return await self.engine.backups.make(target, overwrite=overwrite, progress=progress)

    def measure(self) -> StoreStats:
        """Returns figures of the running machinery; touches no connection."""
        engine = self.engine
        return engine.measure()

    def health(self, stalled_after: float) -> Health:
        """Says whether the writer makes progress; touches no connection and waits for nothing."""
        return self.engine.health(stalled_after)

    async def release(self, *, first: bool) -> None:
        """Gives up one share; the last one closes the file, after committing what is queued. Waits for the end.

        Args:
            first: Whether this share is given up by this call; False only waits, if the store is closing.
        """
        if first:
            _give_up(self)
        if not self.ending:
            return
        waiter = waiter_for_task()
        ticket: Ticket[None, None] = Ticket(None, waiter)
        # A thread of its own: the loop's shared ones may be used up by the host's own work.
        closer = threading.Thread(target=self._close_for, args=(ticket,), name="sessiondb-close", daemon=True)
        try:
            closer.start()
        except RuntimeError:
            # The interpreter is ending and starts no thread any more; nobody else is there to be held up.
            self.close(_EXIT_PATIENCE)
            return
        try:
            await waiter.wait()
        except waiter.cancelled:
            await waiter.wait_through_cancellation()
            raise
        ticket.result()

    def _close_for(self, ticket: Ticket[None, None]) -> None:
        try:
            self.close()
        except BaseException as error:  # noqa: BLE001  # reaches who waits
            ticket.error = error
        settle([ticket])

    def release_in_background(self) -> None:
        """As :meth:`release`, without waiting."""
        _give_up(self)
        if self.ending:
            threading.Thread(target=self.close, name="sessiondb-close", daemon=True).start()

    def close(self, patience: float | None = None) -> None:
        """Commits what is queued, then ends the threads and closes the file. Blocks; idempotent.

        Args:
            patience: How long to wait for another thread that is closing already, and how long for the writer, in
                seconds; what is queued after that is answered with ServiceClosedError. None: until it is done.
        """
        # Held until all is done, so that whoever closes as well, or forks, waits for it.
        if not self._closing.acquire(timeout=-1 if patience is None else patience):
            return
        try:
            with self._lock:
                self._closed = True
                engine, self._engine = self._engine, None
            if engine is not None:
                engine.close(patience)
            if self._folder is not None and os.getpid() == self._folder_owner:
                shutil.rmtree(self._folder, ignore_errors=True)
        finally:
            self._closing.release()
        with _registry_lock:
            _ending.discard(self)

    def suspend(self) -> None:
        """Gives up the file while the process forks; waits for a close that is under way."""
        self._closing.acquire()
        self._lock.acquire()
        if self._engine is not None:
            self._engine.suspend()

    def resume(self) -> None:
        """Goes on after the fork, in the parent."""
        if self._engine is not None:
            self._engine.resume()
        self._lock.release()
        self._closing.release()

    def start_over(self) -> None:
        """Forgets, in a forked child, the threads and locks that exist in the parent only."""
        self._lock = threading.Lock()
        self._closing = threading.Lock()
        self._engine = None


class _Engine:
    """The threads and connections of a store, in one process."""

    def __init__(self, path: Path, options: StoreOptions) -> None:
        self._path = path
        self._options = options
        self.queue = WriteQueue(options.max_queue)
        self.writer = WriterThread(path, options, self.queue, self._connect)
        self.readers = ReaderPool(path, options.readers, options.busy_timeout)
        self.backups = Backups(path, options.busy_timeout)
        self.writer.start()
        telemetry.store_opened(self, path)

    def close(self, patience: float | None) -> None:
        closed = ServiceClosedError("the session service is closed")
        self.queue.refuse(closed)
        self.writer.join(patience)
        telemetry.store_closed(self)
        if self.writer.is_alive():
            self.writer.abandon(
                ServiceClosedError("the process ended before this write began; nothing of it is stored")
            )
            return
        # The writer's connection goes last: SQLite lets the last one checkpoint the log and remove it.
        self.backups.close()
        self.readers.close(patience)
        self.writer.close()

    def health(self, stalled_after: float) -> Health:
        busy = self.writer.busy_seconds
        alive = self.writer.is_alive()
        return Health(
            healthy=alive and busy < stalled_after,
            writer_alive=alive,
            busy_seconds=busy,
            pending_writes=self.queue.depth,
            pending_reads=self.readers.waiting,
        )

    def measure(self) -> StoreStats:
        sums = self.writer.stats
        wal = self.writer.wal
        return StoreStats(
            pending_writes=self.queue.depth,
            writes=sums.commands,
            batches=sums.batches,
            largest_batch=sums.largest_batch,
            mean_batch=sums.commands / sums.batches if sums.batches else 0.0,
            failed_batches=sums.failed_batches,
            commit_seconds=sums.commit_seconds,
            last_commit_seconds=sums.last_commit_seconds,
            longest_commit_seconds=sums.longest_commit_seconds,
            lock_waits=sums.lock_waits,
            lock_wait_seconds=sums.lock_wait_seconds,
            checkpoints=wal.checkpoints,
            blocked_checkpoints=wal.blocked,
            failed_checkpoints=wal.failed,
            wal_bytes=wal.size,
            readers_in_use=self.readers.in_use,
            pending_reads=self.readers.waiting,
        )

    def suspend(self) -> None:
        self.backups.suspend()
        self.readers.suspend()
        self.writer.suspend()

    def resume(self) -> None:
        self.writer.resume()
        self.readers.resume()
        self.backups.resume()

    def _connect(self) -> sqlite3.Connection:
        connection = open_writer(self._path, self._options.durability, self._options.busy_timeout)
        try:
            with closed_on_failure(connection):
                schema.prepare(connection, self._path)
                statements.install(connection)
                # From here on the writer has SQLite wait only where it takes note of the wait.
                set_busy_timeout(connection, 0)
        except sqlite3.Error as error:
            raise translate(error, self._path) from error
        return connection


_registry_lock = threading.RLock()
_stores: dict[tuple[int, int], SqliteStore] = {}
_shares: dict[SqliteStore, int] = {}
# Stores that nobody shares any more, until they are closed: a fork must wait for them.
_ending: set[SqliteStore] = set()
_suspended: list[SqliteStore] = []


def open_store(path: Path | None, options: StoreOptions) -> SqliteStore:
    """Opens a file, or shares the store that this process has open on it.

    Args:
        path: The file; None for a database in memory, which nobody shares.
        options: How to keep it.

    Raises:
        ConfigurationError: If the path cannot be used, or a service of this process keeps the file in another way.
        StorageError: If the file cannot be opened, is damaged, or is not ours.
    """
    folder = None
    if path is None:
        # A file in the system's memory file system where there is one: WAL, and so readers beside the writer, need a
        # file. It is removed when the store is closed.
        memory = Path("/dev/shm")  # noqa: S108  # a private folder is made in it
        folder = Path(tempfile.mkdtemp(prefix="sessiondb-", dir=memory if os.access(memory, os.W_OK) else None))
        path = folder / "memory.sqlite3"
    with _registry_lock:
        prepare_file(path)
        status = path.stat()
        key = (status.st_dev, status.st_ino)
        store = _stores.get(key)
        if store is None:
            store = _stores[key] = SqliteStore(path, options, folder)
            _shares[store] = 0
        elif store.options != options:
            different = [
                f"{field.name}={getattr(store.options, field.name)!r}"
                for field in fields(options)
                if getattr(store.options, field.name) != getattr(options, field.name)
            ]
            raise ConfigurationError(
                f"another service of this process has {str(path)!r} open with {', '.join(different)}: services that"
                " share a file must agree on how it is kept"
            )
        _shares[store] += 1
        return store


def _give_up(store: SqliteStore) -> None:
    """Gives up one share of a store; the last one ends it."""
    with _registry_lock:
        _shares[store] -= 1
        if _shares[store]:
            return
        store.ending = True
        _ending.add(store)
        del _shares[store]
        for key, candidate in list(_stores.items()):
            if candidate is store:
                del _stores[key]


def _job(query: Query[AnswerT], then: Callable[[AnswerT], ResultT]) -> Callable[[sqlite3.Connection], ResultT]:
    return lambda connection: then(reads.read(connection, query))


def _as_it_is(answer: AnswerT) -> AnswerT:
    return answer


def _before_fork() -> None:
    # SQLite's locks belong to the process, and its bookkeeping of them would be copied into the child, where it is
    # wrong: a child could then commit into a log that the parent has removed. So no file is open while forking.
    _registry_lock.acquire()
    _suspended[:] = [*_stores.values(), *_ending]
    for store in _suspended:
        store.suspend()


def _after_fork_in_parent() -> None:
    for store in _suspended:
        store.resume()
    _suspended.clear()
    _registry_lock.release()


def _after_fork_in_child() -> None:
    global _registry_lock  # noqa: PLW0603  # the parent's is held by a thread that is not here
    _registry_lock = threading.RLock()
    for store in _suspended:
        store.start_over()
    _suspended.clear()
    # The parent's to close.
    _ending.clear()


def _at_exit() -> None:
    # An owner that never closes, as ADK's servers do not, loses nothing by it, and does not keep the process alive. A
    # thread that closes a dropped service would be cut off by the end of the interpreter.
    with _registry_lock:
        stores = [*_stores.values(), *_ending]
    for store in stores:
        store.close(patience=_EXIT_PATIENCE)


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
atexit.register(_at_exit)
