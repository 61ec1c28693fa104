"""The one thread that writes: it commits whatever is queued as one transaction."""

from __future__ import annotations

import functools
import math
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sessiondb import telemetry
from sessiondb.engine.queue import WriteQueue, WriteTicket, again
from sessiondb.engine.waiting import settle
from sessiondb.errors import FileLostError, ServiceClosedError, StorageError, WriterStoppedError
from sessiondb.logger import logger
from sessiondb.model.commands import AppendEvent, DataCommand, Vacuum
from sessiondb.model.records import Outcome, Status
from sessiondb.options import StoreOptions
from sessiondb.stats import WriterStats
from sessiondb.stores.sqlite import schema
from sessiondb.stores.sqlite import wal as maintenance
from sessiondb.stores.sqlite import writes as statements
from sessiondb.stores.sqlite.connection import SYNC_FAILED, FileIdentity, primary_code, set_busy_timeout, translate

_LOOK_SECONDS = 0.1
"""How often the writer looks whether the file is still in its place and how long the log is, under load."""

_DEAR_LOOK_SECONDS = 0.002
"""A look takes microseconds, but gives up the GIL: beside a Python thread that computes it takes milliseconds."""

_DEAR_LOOKS = 3
"""After so many dear looks in a row there is none after each commit, only one every ``_LOOK_SECONDS``."""

_SLOW_SECONDS = 1.0
"""A transaction that takes longer is worth a line in the host's log."""

_LOCK_WAIT_SECONDS = 0.1
"""And so is a wait for the write lock."""


class WriterThread(threading.Thread):
    """Takes what is queued, commits it as one transaction, answers, and looks again.

    Only this thread writes to the file and checkpoints its log. It ends when the queue is closed and empty, or when a
    sync has failed; whatever the reason, no ticket is left waiting.
    """

    def __init__(
        self, path: Path, options: StoreOptions, queue: WriteQueue, connect: Callable[[], sqlite3.Connection]
    ) -> None:
        super().__init__(name=f"sessiondb-writer-{path.name}", daemon=True)
        self.stats = WriterStats()
        self._path = path
        self._options = options
        self._queue = queue
        self._connect = connect
        self._connection = connect()
        self.wal = maintenance.WalKeeper(self._connection, path, options.durability)
        self._identity = FileIdentity(path)
        self._looked = time.monotonic()
        self._dear_looks = 0
        self._busy_since: float | None = None
        self._stopping: StorageError | None = None
        # Held while the connection is in use; whoever forks takes it to be alone with the file.
        self._at_rest = threading.Lock()

    def run(self) -> None:
        """Serves the queue until it is closed and empty."""
        failure: StorageError = ServiceClosedError("the session service is closed")
        batch: list[WriteTicket] | None = None
        try:
            while True:
                batch = self._queue.take(self._options.max_batch, self.wal.patience)
                if batch is None:
                    break
                with self._at_rest:
                    self._busy_since = time.monotonic()
                    if batch:
                        self._serve(batch)
                    else:
                        self._checkpoint(self.wal.checkpoint_when_idle)
                    self._busy_since = None
        except _Stop as stop:
            failure = stop.failure
        except BaseException as error:  # noqa: BLE001  # the callers must hear of it, whatever it is
            logger.error("writer_failed", path=str(self._path), error=type(error).__name__)
            failure = WriterStoppedError(f"the writer ended after an internal error ({type(error).__name__})")
        finally:
            # Nothing can be queued after this, and whatever was has an answer: no caller waits for a dead thread.
            self.abandon(failure, [ticket for ticket in batch or [] if not ticket.answered])

    def close(self) -> None:
        """Closes the connection of a thread that has ended. SQLite checkpoints the log if nobody else has it open."""
        try:
            self._connection.close()
        except sqlite3.Error as error:
            logger.warning("close_failed", path=str(self._path), error=str(error))

    def abandon(self, failure: StorageError, begun: Sequence[WriteTicket] = ()) -> None:
        """Lets nothing more in, and answers all that has not begun, and ``begun``, with an error."""
        tickets = [*begun, *self._queue.drain(failure)]
        for ticket in tickets:
            ticket.error = again(failure)
        settle(tickets)

    def suspend(self) -> None:
        """Waits until no batch is under way, and gives up the file until :meth:`resume`."""
        self._at_rest.acquire()
        self.close()

    def resume(self) -> None:
        """Opens the file again after :meth:`suspend`."""
        try:
            self._connection = self._connect()
            self.wal.use(self._connection)
            self._identity = FileIdentity(self._path)
        except StorageError as error:
            self._queue.refuse(WriterStoppedError(f"the file could not be opened again after a fork: {error}"))
        finally:
            self._at_rest.release()

    @property
    def busy_seconds(self) -> float:
        """How long the batch under way has taken so far; 0 if there is none."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    def _serve(self, batch: list[WriteTicket]) -> None:
        look = time.monotonic() - self._looked >= _LOOK_SECONDS
        log_bytes = 0
        if look:
            try:
                log_bytes = self._look()
            except FileLostError as error:
                self._lost(batch, error)
                return
            self._looked = time.monotonic()
        # Vacuum cannot run inside a transaction: what stands before and after it is committed by itself.
        together: list[tuple[WriteTicket, DataCommand]] = []
        for ticket in batch:
            command = ticket.work
            if isinstance(command, Vacuum):
                self._serve_transaction(together)
                together = []
                self._serve_vacuum(ticket)
            else:
                together.append((ticket, command))
        self._serve_transaction(together)
        self.wal.note_write()
        if look:
            self._checkpoint(functools.partial(self.wal.checkpoint_if_grown, log_bytes))

    def _checkpoint(self, checkpoint: Callable[[], None]) -> None:
        try:
            checkpoint()
        except sqlite3.Error as error:
            raise _Stop(self._failure(error, 0)) from error

    def _serve_transaction(self, batch: list[tuple[WriteTicket, DataCommand]]) -> None:
        if not batch:
            return
        tickets = [ticket for ticket, _ in batch]
        started = time.perf_counter()
        try:
            outcomes = self._commit([command for _, command in batch])
            # After the commit, before the answers: what is acknowledged is in a file that can be found at its path.
            if self._dear_looks < _DEAR_LOOKS:
                self._look()
        except FileLostError as error:
            self._lost(tickets, error)
            return
        except sqlite3.Error as error:
            self._roll_back()
            self._answer(tickets, self._failure(error, len(tickets)))
            return
        except BaseException as error:  # noqa: BLE001  # reaches its callers, and the writer lives on
            self._roll_back()
            logger.error("batch_failed", path=str(self._path), commands=len(batch), error=type(error).__name__)
            for ticket in tickets:
                ticket.error = error
        else:
            seconds = time.perf_counter() - started
            self.stats.record_batch(len(batch), seconds)
            telemetry.record_batch(len(batch), seconds)
            if seconds >= _SLOW_SECONDS:
                # Most often another program held the lock; else the disk is slow.
                logger.warning("slow_commit", path=str(self._path), seconds=seconds, commands=len(batch))
            for (ticket, command), outcome in zip(batch, outcomes, strict=True):
                if isinstance(outcome, StorageError):
                    ticket.error = outcome
                    continue
                ticket.outcome = outcome
                _advance(command, outcome)
        self._let_go(tickets)

    def _look(self) -> int:
        """Returns the length of the log; raises FileLostError."""
        started = time.monotonic()
        log_bytes = self._identity.check()
        # Now and then one is cheap, whatever runs beside: it takes several to believe that.
        if time.monotonic() - started >= _DEAR_LOOK_SECONDS:
            self._dear_looks = min(self._dear_looks + 1, _DEAR_LOOKS)
        else:
            self._dear_looks = max(self._dear_looks - 1, 0)
        return log_bytes

    def _lost(self, tickets: list[WriteTicket], error: FileLostError) -> None:
        logger.error("file_lost", path=str(self._path))
        # The next batch looks before it writes, so that no more is written than was under way.
        self._looked = -math.inf
        self._answer(tickets, error)

    def _answer(self, tickets: list[WriteTicket], failure: StorageError) -> None:
        for ticket in tickets:
            ticket.error = again(failure)
        self._let_go(tickets)

    def _let_go(self, tickets: list[WriteTicket]) -> None:
        settle(tickets)
        if self._stopping is not None:
            raise _Stop(self._stopping)

    def _commit(self, commands: Sequence[DataCommand]) -> Sequence[Outcome | StorageError]:
        try:
            return self._write(commands)
        except sqlite3.Error as error:
            if not _is_of_one_command(error):
                raise
        # One command is to blame: the others must not pay for it. Or a table was away and is back, which SQLite does not
        # notice by itself where a trigger refers to it.
        self._roll_back()
        with self._patience():
            schema.reload(self._connection)
        return [self._commit_alone(command) for command in commands]

    def _commit_alone(self, command: DataCommand) -> Outcome | StorageError:
        if self._stopping is not None:
            return again(self._stopping)
        try:
            (outcome,) = self._write([command])
        except sqlite3.Error as error:
            self._roll_back()
            return self._failure(error, 1)
        _advance(command, outcome)
        return outcome

    def _write(self, commands: Sequence[DataCommand]) -> list[Outcome]:
        try:
            return statements.write(self._connection, commands)
        except sqlite3.OperationalError as error:
            if primary_code(error) != sqlite3.SQLITE_BUSY or self._connection.in_transaction:
                raise
        self._wait_for_lock()
        return statements.write(self._connection, commands, begun=True)

    def _wait_for_lock(self) -> None:
        """Begins a transaction that holds the write lock, and takes note of how long that took."""
        self.stats.lock_waits += 1
        started = time.perf_counter()
        try:
            with self._patience():
                self._connection.execute("BEGIN IMMEDIATE")
        finally:
            seconds = time.perf_counter() - started
            self.stats.lock_wait_seconds += seconds
            if seconds >= _LOCK_WAIT_SECONDS:
                logger.info("lock_wait", path=str(self._path), seconds=seconds)

    @contextmanager
    def _patience(self) -> Iterator[None]:
        """Has SQLite wait for the locks of others. Elsewhere it does not, so that a wait is noticed."""
        set_busy_timeout(self._connection, self._options.busy_timeout)
        try:
            yield
        finally:
            set_busy_timeout(self._connection, 0)

    def _serve_vacuum(self, ticket: WriteTicket) -> None:
        try:
            self.wal.checkpoint()
            with self._patience():
                maintenance.vacuum(self._connection, self._path)
            self.wal.checkpoint(cut=True)
        except sqlite3.Error as error:
            ticket.error = self._failure(error, 1)
        except BaseException as error:  # noqa: BLE001  # reaches its caller, and the writer lives on
            ticket.error = error
        self._let_go([ticket])

    def _roll_back(self) -> None:
        # After an I/O error SQLite has often rolled back by itself.
        if self._connection.in_transaction:
            try:
                self._connection.execute("ROLLBACK")
            except sqlite3.Error as error:
                logger.warning("rollback_failed", path=str(self._path), error=str(error))

    def _failure(self, error: sqlite3.Error, commands: int) -> StorageError:
        """Returns the error for the callers, and notes it; a failed sync is the writer's last."""
        failure = translate(error, self._path)
        if getattr(error, "sqlite_errorcode", 0) in SYNC_FAILED:
            # Pages that could not be synced may be gone from the page cache all the same: a second fsync would
            # succeed without them. Only a new look at the file tells what is there.
            failure = WriterStoppedError(f"the disk could not be synced, so the writer has stopped: {failure}")
            self._stopping = failure
        self.stats.failed_batches += 1
        logger.warning(
            "batch_refused",
            path=str(self._path),
            commands=commands,
            error=getattr(error, "sqlite_errorname", type(error).__name__),
            stopped=self._stopping is not None,
        )
        return failure


def _is_of_one_command(error: sqlite3.Error) -> bool:
    """Whether an error may come from what one command holds, not from the file or the machine."""
    return (
        isinstance(
            error, sqlite3.IntegrityError | sqlite3.DataError | sqlite3.ProgrammingError | sqlite3.InterfaceError
        )
        or primary_code(error) == sqlite3.SQLITE_ERROR
    )


def _advance(command: DataCommand, outcome: Outcome) -> None:
    """Lets the handle of a committed append know where the session is now; it never goes back."""
    handle = command.handle if isinstance(command, AppendEvent) else None
    if handle is None or outcome.status is not Status.DONE:
        return
    if handle.incarnation == outcome.incarnation:
        handle.revision = max(handle.revision, outcome.revision)
    else:
        handle.incarnation, handle.revision = outcome.incarnation, outcome.revision


class _Stop(Exception):  # noqa: N818  # ends the thread, never seen outside
    def __init__(self, failure: StorageError) -> None:
        self.failure = failure
