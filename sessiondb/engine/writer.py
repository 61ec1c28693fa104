"""The one thread that writes: it commits whatever is queued as one transaction."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import cast

from sessiondb import telemetry
from sessiondb.engine.queue import WriteQueue, WriteTicket, copy_of
from sessiondb.engine.store import Store
from sessiondb.engine.waiting import complete
from sessiondb.errors import ServiceClosedError, StorageError, WriterStoppedError
from sessiondb.logger import logger
from sessiondb.model.commands import DataCommand, MaintenanceCommand, Purge, advance_handle

_SLOW_SECONDS = 1.0
"""A transaction that takes longer is worth a line in the host's log."""


@dataclass(slots=True)
class WriterStats:
    """Sums kept by the writer thread since the store was opened, named as in :class:`~sessiondb.stats.ServiceStats`."""

    writes: int = 0
    batches: int = 0
    largest_batch: int = 0
    commit_seconds: float = 0.0
    last_commit_seconds: float = 0.0
    longest_commit_seconds: float = 0.0

    def record_batch(self, commands: int, seconds: float) -> None:
        """Adds a batch that was committed."""
        self.batches += 1
        self.writes += commands
        self.largest_batch = max(self.largest_batch, commands)
        self.commit_seconds += seconds
        self.last_commit_seconds = seconds
        self.longest_commit_seconds = max(self.longest_commit_seconds, seconds)


class WriterThread(threading.Thread):
    """Takes what is queued, commits it as one transaction, answers, and looks again.

    Only this thread writes to the store. It ends when the queue is closed and empty, or when the store says that nothing
    can be written any more; whatever the reason, no ticket is left waiting.
    """

    def __init__(self, store: Store, queue: WriteQueue, max_batch: int) -> None:
        """Opens the store's writer; start the thread to serve the queue."""
        super().__init__(name=f"sessiondb-writer-{store.label}", daemon=True)
        self.stats = WriterStats()
        self.writer = store.writer()
        self._store_name = store.name
        self._queue = queue
        self._max_batch = max_batch
        # What health() tells: set and read in one step each, so no lock.
        self.last_error: str | None = None
        self.under_way = 0
        self._busy_since: float | None = None
        # Held while the store's writer is in use; whoever forks takes it to be alone with the file.
        self._at_rest = threading.Lock()

    def run(self) -> None:
        """Serves the queue until it is closed and empty."""
        failure: StorageError = ServiceClosedError("the session service is closed")
        batch: list[WriteTicket] | None = None
        try:
            while True:
                batch = self._queue.take(self._max_batch, self.writer.idle_after())
                if batch is None:
                    break
                with self._at_rest:
                    self._busy_since = time.monotonic()
                    self.under_way = len(batch)
                    self._execute(batch)
                    self.writer.maintain(idle=not batch)
                    self._busy_since = None
        except WriterStoppedError as stop:
            failure = stop
        except BaseException as error:  # noqa: BLE001  # the callers must hear of it, whatever it is
            logger.error("writer_failed", path=self._store_name, error=type(error).__name__)
            failure = WriterStoppedError(f"the writer ended after an internal error ({type(error).__name__})")
        finally:
            # Nothing can be queued after this, and whatever was has an answer: no caller waits for a dead thread.
            self.abandon(failure, [ticket for ticket in batch or [] if not ticket.completed])

    def abandon(self, failure: StorageError, begun: Sequence[WriteTicket] = ()) -> None:
        """Rejects new commands, and answers all that has not begun, and ``begun``, with an error."""
        tickets = [*begun, *self._queue.drain(failure)]
        for ticket in tickets:
            ticket.error = copy_of(failure)
        complete(tickets)

    def suspend(self) -> None:
        """Waits until no batch is under way, and gives up the store until :meth:`resume`."""
        self._at_rest.acquire()
        self.writer.close()

    def resume(self) -> None:
        """Opens the store again after :meth:`suspend`."""
        try:
            self.writer.resume()
        except StorageError as error:
            self._queue.refuse(WriterStoppedError(f"the file could not be opened again after a fork: {error}"))
        finally:
            self._at_rest.release()

    def go_on_with(self, store: Store) -> None:
        """Has the store's writer replaced by another one of the same store, between two batches."""
        with self._at_rest:
            before, self.writer = self.writer, store.writer()
            before.close()

    @property
    def busy_seconds(self) -> float:
        """How long the batch under way has taken so far; 0 if there is none."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    def _execute(self, batch: list[WriteTicket]) -> None:
        # Vacuum cannot run inside a transaction: what stands before and after it is committed by itself.
        for alone, tickets in groupby(batch, lambda ticket: isinstance(ticket.work, MaintenanceCommand)):
            if alone:
                for ticket in tickets:
                    self._vacuum(ticket)
            else:
                self._commit(list(tickets))

    def _commit(self, tickets: list[WriteTicket]) -> None:
        commands = cast("list[DataCommand]", [ticket.work for ticket in tickets])
        started = time.perf_counter()
        try:
            results = self.writer.commit(commands)
        except BaseException as error:  # noqa: BLE001  # reaches its callers, and the writer lives on
            if not isinstance(error, StorageError):
                logger.error("batch_failed", path=self._store_name, commands=len(tickets), error=type(error).__name__)
            self._fail(tickets, error)
            return
        seconds = time.perf_counter() - started
        self.last_error = None
        self.stats.record_batch(len(tickets), seconds)
        telemetry.record_batch(len(tickets), seconds)
        if seconds >= _SLOW_SECONDS:
            # Most often another program held the lock; else the disk is slow.
            logger.warning("slow_commit", path=self._store_name, seconds=seconds, commands=len(tickets))
        stopped: WriterStoppedError | None = None
        for ticket, command, result in zip(tickets, commands, results, strict=True):
            if isinstance(result, StorageError):
                ticket.error = result
                if isinstance(result, WriterStoppedError):
                    stopped = result
                continue
            ticket.outcome = result
            # Before the answers: a caller that goes on must find its handle where its append has brought it.
            advance_handle(command, result)
        self._answer(tickets)
        if stopped is not None:
            raise copy_of(stopped)

    def _vacuum(self, ticket: WriteTicket) -> None:
        try:
            if isinstance(ticket.work, Purge):
                ticket.outcome = self.writer.purge(last_step=ticket.work.last_step)
            else:
                self.writer.vacuum()
        except StorageError as error:
            self._fail([ticket], error)
            return
        except BaseException as error:  # noqa: BLE001  # reaches its caller, and the writer lives on
            ticket.error = error
        self._answer([ticket])

    def _fail(self, tickets: list[WriteTicket], error: BaseException) -> None:
        self.last_error = type(error).__name__
        for ticket in tickets:
            ticket.error = copy_of(error) if isinstance(error, StorageError) else error
        self._answer(tickets)
        if isinstance(error, WriterStoppedError):
            raise error

    def _answer(self, tickets: list[WriteTicket]) -> None:
        # First, so that nobody who has an answer still counts as pending.
        self.under_way -= len(tickets)
        complete(tickets)
