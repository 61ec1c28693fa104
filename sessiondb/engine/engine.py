"""One open store: its queue and writer, its readers, and what else works on it."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, TypeVar

import anyio

from sessiondb import telemetry
from sessiondb.engine.handles import Handles
from sessiondb.engine.jobs import Jobs
from sessiondb.engine.queue import WriteQueue, WriteTicket
from sessiondb.engine.readers import ReaderPool, ReadTicket
from sessiondb.engine.reading import LogReader
from sessiondb.engine.repeating import Repeated
from sessiondb.engine.store import Progress, Reader, Store, SupportsBackup, SupportsVacuum
from sessiondb.engine.turns import Turns
from sessiondb.engine.waiting import (
    Admission,
    CompletionOrder,
    ThreadWaiter,
    Ticket,
    wait_in_task,
    wait_in_thread,
    waiter_for_task,
)
from sessiondb.engine.writer import WriterThread
from sessiondb.errors import ConfigurationError, ServiceClosedError, StorageError
from sessiondb.logger import logger
from sessiondb.model.commands import Flush, Purge, Vacuum, WriteCommand
from sessiondb.model.queries import FindDamage, Query
from sessiondb.model.records import BackupReport
from sessiondb.options import StoreOptions
from sessiondb.stats import STORE_FIGURES, Health

AnswerT = TypeVar("AnswerT")
ResultT = TypeVar("ResultT")

_PURGE_AGAIN_SECONDS = 0.05
"""How often it is tried again what somebody who reads has kept from being done."""

_HELD_BACK = (
    "somebody has been reading since before, so the write-ahead log still holds what was deleted: end that reader (a backup, a"
    " command, another program), then call it again, or vacuum"
)


class Engine:
    """What works on one open store, for all services of the process that share it.

    Get one from :func:`sessiondb.engine.sharing.share`. After a fork the child starts threads and connections of its own
    when it first needs them.
    """

    def __init__(self, store: Store, options: StoreOptions) -> None:
        """Opens the store and starts the writer."""
        self.store = store
        self.options = options
        self.handles = Handles()
        self.turns = Turns(store)
        self._logs: weakref.WeakSet[LogReader] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._closing = threading.Lock()
        self._closed = False
        self._repeated: set[Repeated] = set()
        self._threads: Threads | None = Threads(store, options)

    @property
    def threads(self) -> Threads:
        """What runs in this process; started here in a process that was forked from the one that opened the store."""
        threads = self._threads
        if threads is not None:
            return threads
        with self._lock:
            if self._closed:
                raise ServiceClosedError("the session service is closed")
            if self._threads is None:
                self._threads = Threads(self.store, self.options)
                for repeated in self._repeated:
                    repeated.start(self._threads.jobs)
            return self._threads

    def go_on_with(self, store: Store, options: StoreOptions) -> None:
        """Has the writer replaced by one of the same store that is kept in another way. Blocks while a batch is under way.

        Raises:
            ConfigurationError: If the store cannot be kept so. The writer is the one before then, as with the others.
            StorageError: If the store cannot be opened.
            ServiceClosedError: If the engine is closed.
        """
        self.threads.writer.go_on_with(store)
        self.options = options
        # A thread that has nothing to do would not find out that there is something.
        self.write_from_thread(Flush())

    async def write(
        self,
        command: WriteCommand,
        on_complete: Callable[[WriteTicket], None] | None = None,
        order: CompletionOrder | None = None,
    ) -> Any:
        """Executes a command, and returns its outcome once it is durable.

        A cancelled call is either taken back before the writer has begun, or waits for the answer: after the
        cancellation nothing is left undecided.
        """
        queue = self.threads.queue
        waiter = waiter_for_task()
        ticket: WriteTicket = Ticket(command, waiter, on_complete, order)
        queued = queue.put(ticket)
        admission = None if queued else self._place_in(queue)
        return await wait_in_task(ticket, waiter, queue.withdraw, admission, queue.abandon)

    def write_from_thread(self, command: WriteCommand) -> Any:
        """As :meth:`write`, for a plain thread, which it blocks."""
        queue = self.threads.queue
        waiter = ThreadWaiter()
        ticket: WriteTicket = Ticket(command, waiter)
        queued = queue.put(ticket)
        return wait_in_thread(ticket, waiter, None if queued else self._place_in(queue))

    async def read(self, query: Query[AnswerT], then: Callable[[AnswerT], ResultT]) -> ResultT:
        """Answers a query from one snapshot; ``then`` turns the answer into the result, on the reader's thread.

        A cancelled call is taken back, or ended soon and its result dropped.
        """
        return await self._read(_job(query, then))

    async def read_together(self, job: Callable[[Reader], ResultT]) -> ResultT:
        """As :meth:`read`, for several questions of one moment: ``job`` asks them, on the reader's thread."""

        def at_one_moment(reader: Reader) -> ResultT:
            with reader.snapshot():
                return job(reader)

        return await self._read(at_one_moment)

    async def _read(self, job: Callable[[Reader], ResultT]) -> ResultT:
        pool = self.threads.readers
        waiter = waiter_for_task()
        ticket: ReadTicket = Ticket(job, waiter)
        admission = None if pool.submit(ticket) else self._reader_of(pool)
        is_abandoned = False
        try:
            result: ResultT = await wait_in_task(ticket, waiter, pool.cancel, admission, pool.abandon)
        except GeneratorExit:
            is_abandoned = True
            raise
        finally:
            if not is_abandoned:
                pool.release(ticket)
        return result

    def read_inline(self, query: Query[AnswerT], then: Callable[[AnswerT], ResultT]) -> tuple[ResultT] | None:
        """Answers a query in the calling thread, if nothing has to be waited for; else None."""
        return self.threads.readers.try_inline(_job(query, then))

    def read_from_thread(self, query: Query[AnswerT]) -> AnswerT:
        """As :meth:`read`, for a plain thread, which it blocks."""
        pool = self.threads.readers
        waiter = ThreadWaiter()
        ticket: ReadTicket = Ticket(lambda reader: reader.ask(query), waiter)
        pool.submit(ticket)
        answer: AnswerT = wait_in_thread(ticket, waiter, self._reader_of(pool))
        return answer

    def vacuum(self) -> None:
        """Does the store's maintenance, in a plain thread, which it blocks."""
        store = self.store
        if isinstance(store, SupportsVacuum):
            self.threads.jobs.run_here(store.vacuum, threading.Event())
        else:
            self.write_from_thread(Vacuum())

    async def purge(self) -> str:
        """Leaves nothing of what was deleted in the store's files; waits ``busy_timeout`` at most for those who read.

        Returns:
            Why something may be left; empty if nothing is.
        """
        give_up: float | None = None
        try:
            # Others write meanwhile.
            problems = await self.read(FindDamage(), list)
        except StorageError as error:
            return str(error)
        if problems:
            return f"{self.store.name!r} is damaged and was not rebuilt: {'; '.join(problems)}"
        store = self.store
        while True:
            try:
                if isinstance(store, SupportsVacuum):
                    await self.threads.jobs.run(store.vacuum, "vacuum", "the vacuum was cancelled")
                    return ""
                if await self.write(Purge(last_step=give_up is not None)):
                    return ""
            except StorageError as error:
                return str(error)
            now = time.monotonic()
            if give_up is None:
                give_up = now + self.options.busy_timeout
            elif now >= give_up:
                return _HELD_BACK
            await anyio.sleep(_PURGE_AGAIN_SECONDS)

    def note_logs(self, logs: LogReader) -> None:
        """Takes note of a reader of this store's logs, for as long as it is there."""
        with self._lock:
            self._logs.add(logs)

    def forget_user(self, app_name: str, user_id: str) -> None:
        """Has every reader of the process forget the logs of a user."""
        with self._lock:
            readers = list(self._logs)
        for logs in readers:
            logs.note_erased(app_name, user_id)

    async def backup(
        self, target: str | os.PathLike[str], *, overwrite: bool, progress: Progress | None
    ) -> BackupReport:
        """Copies what is committed at this moment to ``target``, beside the writer.

        A cancelled call waits until the copy has stopped and its traces are gone.
        """
        store = self.store
        if not isinstance(store, SupportsBackup):
            raise ConfigurationError(f"a {store.system} database cannot be copied to a file; use its own tools")

        def copy(goes_on: Callable[[], bool]) -> BackupReport | None:
            return store.backup(target, overwrite=overwrite, progress=progress, goes_on=goes_on)

        return await self.threads.jobs.run(copy, "backup", "the backup was cancelled; nothing was left behind")

    def repeat(self, job: Callable[[Callable[[], bool]], bool | None], every: float, name: str) -> Repeated:
        """Has a job done again and again, in each process that uses the store, until it is stopped or the store is closed."""
        repeated = Repeated(job, every, f"sessiondb-{name}-{self.store.label}")
        with self._lock:
            self._repeated.add(repeated)
            if self._threads is not None:
                repeated.start(self._threads.jobs)
        return repeated

    def forget(self, repeated: Repeated) -> None:
        """Has a job repeated no more; who wants to know when it has ended waits for that."""
        repeated.stop()
        with self._lock:
            self._repeated.discard(repeated)

    def close(self, timeout: float | None = None) -> None:
        """Commits what is queued, then ends the threads and closes the store. Blocks; idempotent.

        Args:
            timeout: How long to wait for another thread that is closing already, and how long for the writer, in
                seconds; what is queued after that is answered with ServiceClosedError. None: until it is done.
        """
        # Held until all is done, so that whoever closes as well, or forks, waits for it.
        if not self._closing.acquire(timeout=-1 if timeout is None else timeout):
            return
        try:
            with self._lock:
                self._closed = True
                threads, self._threads = self._threads, None
                repeated = [*self._repeated]
            for each in repeated:
                each.stop()
            if threads is not None:
                threads.close(timeout)
            for each in repeated:
                each.join(timeout)
            # After the last commit: whoever has the next turn, in another process, reads it.
            self.turns.close()
            self.store.close()
        finally:
            self._closing.release()

    def suspend(self) -> None:
        """Gives up the store while the process forks; waits for a close that is under way."""
        self._closing.acquire()
        self._lock.acquire()
        if self._threads is not None:
            self._threads.suspend()
        self.turns.suspend()

    def resume(self) -> None:
        """Goes on after the fork, in the parent."""
        self.turns.resume()
        if self._threads is not None:
            self._threads.resume()
        self._lock.release()
        self._closing.release()

    def start_over(self) -> None:
        """Forgets, in a forked child, the threads and locks that exist in the parent only."""
        self._lock = threading.Lock()
        self._closing = threading.Lock()
        self._threads = None
        self.turns.start_over()

    def _place_in(self, queue: WriteQueue) -> Admission:
        def refuse(ticket: WriteTicket) -> BaseException | None:
            error = queue.refuse_parked(ticket, self.options.busy_timeout)
            if error is not None:
                logger.warning("write_queue_full", path=self.store.name, limit=self.options.max_queue)
            return error

        return Admission(self.options.busy_timeout, refuse)

    def _reader_of(self, pool: ReaderPool) -> Admission:
        timeout = self.options.busy_timeout
        return Admission(timeout, lambda ticket: pool.refuse_waiting(ticket, timeout))


class Threads:
    """The threads and connections of an engine, in one process."""

    def __init__(self, store: Store, options: StoreOptions) -> None:
        self.queue = WriteQueue(options.max_queue)
        self.writer = WriterThread(store, self.queue, options.max_batch)
        self.readers = ReaderPool(store, options.readers, options.busy_timeout)
        self.jobs = Jobs(store.label)
        self.writer.start()
        self._store = store
        telemetry.store_opened(self)

    def close(self, timeout: float | None) -> None:
        """Ends them, after committing what is queued."""
        self.queue.refuse(ServiceClosedError("the session service is closed"))
        self.writer.join(timeout)
        telemetry.store_closed(self)
        if self.writer.is_alive():
            self.writer.abandon(
                ServiceClosedError("the process ended before this write began; nothing of it is stored")
            )
            return
        # The writer's connection goes last: SQLite lets the last one checkpoint the WAL and remove it.
        self.jobs.close()
        self.readers.close(timeout)
        self.writer.writer.close()

    def health(self, stalled_after: float) -> Health:
        """Says whether the writer makes progress; touches no connection and waits for nothing."""
        busy = self.writer.busy_seconds
        alive = self.writer.is_alive()
        last_error = self.writer.last_error
        return Health(
            healthy=alive and last_error is None and busy < stalled_after,
            writer_alive=alive,
            busy_seconds=busy,
            pending_writes=self.queue.depth + self.writer.under_way,
            pending_reads=self.readers.waiting,
            last_error=last_error,
        )

    def measure(self) -> dict[str, float]:
        """Returns figures by their names in :class:`~sessiondb.stats.ServiceStats`; touches no connection."""
        stats = self.writer.stats
        return {
            **asdict(stats),
            "mean_batch": stats.writes / stats.batches if stats.batches else 0.0,
            **dict.fromkeys(STORE_FIGURES, 0),
            **self.writer.writer.figures(),
            "pending_writes": self.queue.depth,
            "readers_in_use": self.readers.in_use,
            "pending_reads": self.readers.waiting,
        }

    def file_bytes(self) -> int:
        """Bytes that the store takes."""
        return self._store.file_bytes()

    def suspend(self) -> None:
        """Gives up the store until :meth:`resume`."""
        self.jobs.suspend()
        self.readers.suspend()
        self.writer.suspend()

    def resume(self) -> None:
        """Goes on with it."""
        self.writer.resume()
        self.readers.resume()
        self.jobs.resume()


def _job(query: Query[AnswerT], then: Callable[[AnswerT], ResultT]) -> Callable[[Reader], ResultT]:
    return lambda reader: then(reader.ask(query))
