"""The connection that writes: what a batch meets in one file, and what is done between batches."""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from typing_extensions import override

from sessiondb.engine.store import Writer
from sessiondb.errors import DatabaseBusyError, FileLostError, StorageError, WriterStoppedError
from sessiondb.logger import Repeated, logger
from sessiondb.model.commands import DataCommand, advance_handle
from sessiondb.model.records import Outcome
from sessiondb.options import StoreOptions
from sessiondb.stores.sqlite import schema, text_index, writes
from sessiondb.stores.sqlite.connection import closed_on_failure, open_writer, set_busy_timeout, transaction
from sessiondb.stores.sqlite.errors import SYNC_FAILED, primary_code, translate, translated
from sessiondb.stores.sqlite.file_identity import FileIdentity
from sessiondb.stores.sqlite.line import Line
from sessiondb.stores.sqlite.wal import WalKeeper, refuse_damaged, vacuum

_CHECK_SECONDS = 0.1
"""How often it is checked, under load, whether the file is still in its place and how large the WAL is."""

_SLOW_CHECK_SECONDS = 0.002
"""A check takes microseconds, but gives up the GIL: beside a Python thread that computes it takes milliseconds."""

_SLOW_CHECKS = 3
"""After so many slow checks in a row there is none after each commit, only one every ``_CHECK_SECONDS``."""

_LOCK_WAIT_SECONDS = 0.1
"""A longer wait for the write lock is worth a line in the host's log, when it is over."""

_HELD_LOCK_SECONDS = 1.0
"""A lock that is held for so long is told of while it is waited for; then again at intervals."""

_HELD_LOCK_INTERVAL = 10.0

_SLICE_SECONDS = 0.02
"""What a slice of an index that is built may take, about: so long appends wait for it at most."""

_FEWEST_EVENTS = 64
_MOST_EVENTS = 4096
"""In a slice. With fewer, it would take its time for the commit."""

INDEX_PAUSE = 0.001
"""Between two slices, when nothing is written: others may want the file, too."""


class SqliteWriter(Writer):
    """The connection of a process that writes to one file."""

    def __init__(self, path: Path, options: StoreOptions) -> None:
        self._path = path
        self._options = options
        self.index: text_index.IndexState | None = None
        """How far the index of texts is, if this writer is to make it."""
        self.made_index = False
        """Whether it was missing."""
        self._slice = _FEWEST_EVENTS
        self.slice_seconds = 0.0
        """How long the last slice of it took."""
        self._connection = self._connect()
        with closed_on_failure(self._connection):
            self._wal = WalKeeper(self._connection, path, options.durability)
        self._line = Line(path)
        # Until when the batch under way waits for other processes.
        self._give_up = 0.0
        # How long it has waited for them, in seconds.
        self._waited = 0.0
        self._files = FileIdentity(path)
        self._checked_at = time.monotonic()
        self._slow_checks = 0
        self._wal_bytes_to_look_at: int | None = None
        self._schema_version = 0
        self._stopped: WriterStoppedError | None = None
        self._lost = Repeated()
        self._refused = Repeated()
        self._failed_batches = 0
        self._lock_waits = 0
        self._lock_wait_seconds = 0.0

    @override
    def commit(self, commands: Sequence[DataCommand]) -> Sequence[Outcome | StorageError]:
        with self._in_line():
            try:
                self._check_files_now_and_then()
                try:
                    results = self._execute(commands)
                finally:
                    # Whatever has ended it, an interrupt too: nothing stays open.
                    self._roll_back()
                # After the commit, before the answers: what is acknowledged is in a file that can be found at its path.
                if self._slow_checks < _SLOW_CHECKS:
                    self._check_files()
            except FileLostError as error:
                self._note_lost_file(error)
                raise
            except sqlite3.Error as error:
                raise self._failure(error, len(commands)) from error
        self._wal.note_write()
        self._lost.over()
        self._refused.over()
        return results

    @override
    def vacuum(self) -> None:
        self._rebuild(check=True)

    def _rebuild(self, *, check: bool) -> None:
        try:
            self._check_files_now_and_then()
            if check:
                # Reads all of the file, and keeps nobody waiting meanwhile.
                refuse_damaged(self._connection, self._path)
            with self._in_line():
                self._wal.checkpoint()
                with self._waiting_for_locks():
                    text_index.compact(self._connection)
                    vacuum(self._connection)
                self._wal.checkpoint(cut=True)
        except FileLostError as error:
            self._note_lost_file(error)
            raise
        except sqlite3.Error as error:
            raise self._failure(error, 1) from error

    @override
    def purge(self, *, last_step: bool) -> bool:
        if not last_step:
            self._rebuild(check=False)
        with self._in_line():
            try:
                return self._wal.purge()
            except sqlite3.Error as error:
                raise self._failure(error, 1) from error

    @override
    def idle_after(self) -> float | None:
        return INDEX_PAUSE if self.builds_index else self._wal.idle_timeout

    @override
    def maintain(self, *, idle: bool) -> None:
        if self.builds_index:
            self._build_on()
            return
        self._checkpoint(idle=idle)

    @property
    def builds_index(self) -> bool:
        """Whether there is an index that is not complete, and this writer is to complete it."""
        return self.index is not None and not self.index.is_complete

    def _build_on(self) -> None:
        try:
            self.build_index()
        except WriterStoppedError:
            raise
        except DatabaseBusyError:
            # The next slice finds out whether the lock is free.
            return
        except StorageError as error:
            # The next opening goes on with it; without it, all else works.
            self.index = None
            logger.warning("index_failed", path=str(self._path), hint=str(error))

    def build_index(self) -> text_index.IndexState | None:
        """Adds a slice to the index, and says how far it is; None if there is none any more.

        Raises:
            StorageError: If SQLite refuses.
        """
        with self._writing_slice():
            with transaction(self._connection):
                started = time.perf_counter()
                found = text_index.state(self._connection)
                if found is not None and not found.is_complete:
                    found = text_index.build(self._connection, found, self._slice)
                    if found.is_complete:
                        logger.info("index_built", path=str(self._path), events=found.begun_after)
                self.index = found
            seconds = self.slice_seconds = time.perf_counter() - started
        if seconds > _SLICE_SECONDS:
            self._slice = max(self._slice // 2, _FEWEST_EVENTS)
        elif seconds < _SLICE_SECONDS / 2:
            self._slice = min(self._slice * 2, _MOST_EVENTS)
        return self.index

    def drop_index(self) -> bool:
        """Removes a slice of the index, and says whether there was anything of it.

        Raises:
            StorageError: If SQLite refuses.
        """
        with self._writing_slice():
            return text_index.remove(self._connection, self._slice)

    @contextmanager
    def _writing_slice(self) -> Iterator[None]:
        """Waits until a slice may be written; then sees to the write-ahead log, as no batch is behind it."""
        with self._in_line():
            try:
                with self._waiting_for_locks():
                    yield
            except sqlite3.Error as error:
                raise self._failure(error, 0) from error
        self._wal.note_write()
        # Here nobody else looks how large it has become.
        self._wal_bytes_to_look_at = self._wal.size
        self._checkpoint(idle=False)

    def _checkpoint(self, *, idle: bool) -> None:
        size, self._wal_bytes_to_look_at = self._wal_bytes_to_look_at, None
        if not idle and (size is None or not self._wal.is_due(size)):
            return
        with self._in_line():
            try:
                if idle:
                    self._wal.checkpoint_when_idle()
                else:
                    self._wal.checkpoint()
            except sqlite3.Error as error:
                raise self._failure(error, 0) from error

    @override
    def figures(self) -> dict[str, float]:
        return {
            "failed_batches": self._failed_batches,
            "lock_waits": self._lock_waits,
            "lock_wait_seconds": self._lock_wait_seconds,
            "checkpoints": self._wal.checkpoints,
            "blocked_checkpoints": self._wal.blocked,
            "failed_checkpoints": self._wal.failed,
            "wal_bytes": self._wal.size,
        }

    @override
    def resume(self) -> None:
        self._connection = self._connect()
        with closed_on_failure(self._connection):
            self._wal.attach(self._connection)
        self._files = FileIdentity(self._path)

    @override
    def close(self) -> None:
        try:
            self._line.close()
            self._wal.close()
            # SQLite checkpoints the WAL if nobody else has the file open.
            self._connection.close()
        except sqlite3.Error as error:
            logger.warning("close_failed", path=str(self._path), error=str(error))

    def _connect(self) -> sqlite3.Connection:
        connection = open_writer(self._path, self._options.durability, self._options.busy_timeout)
        with closed_on_failure(connection), translated(self._path):
            schema.prepare(connection, self._path)
            if self._options.index is not None:
                self.index = self._index_of(connection)
            writes.install(connection)
            # From here on SQLite waits for locks only where the wait is taken note of.
            set_busy_timeout(connection, 0)
        return connection

    def _index_of(self, connection: sqlite3.Connection) -> text_index.IndexState | None:
        """Creates the index if it is missing, and returns how far it is."""
        if not text_index.exists(connection):
            # What an end in the middle of a removal has left.
            while text_index.remove(connection, self._slice):
                pass
            with transaction(connection):
                # Another process may have been first.
                if not text_index.exists(connection):
                    text_index.create(connection)
                    self.made_index = True
            schema.check_foreign_objects(connection, self._path)
        return text_index.state(connection)

    def _check_files_now_and_then(self) -> None:
        """Checks the files before a batch, so that little is written into a file that was taken away."""
        now = time.monotonic()
        if now - self._checked_at >= _CHECK_SECONDS:
            self._wal_bytes_to_look_at = self._check_files()
            self._checked_at = now
            # Another program may have created a trigger meanwhile.
            (version,) = self._connection.execute("PRAGMA schema_version").fetchone()
            if version != self._schema_version:
                self._schema_version = schema.check_foreign_objects(self._connection, self._path)

    def _check_files(self) -> int:
        started = time.monotonic()
        wal_bytes = self._files.check()
        # Now and then one is fast, whatever runs beside: it takes several to believe that.
        if time.monotonic() - started >= _SLOW_CHECK_SECONDS:
            self._slow_checks = min(self._slow_checks + 1, _SLOW_CHECKS)
        else:
            self._slow_checks = max(self._slow_checks - 1, 0)
        return wal_bytes

    def _note_lost_file(self, error: FileLostError) -> None:
        if (repeated := self._lost.due()) is not None:
            logger.error("file_lost", path=str(self._path), repeated=repeated, hint=str(error))
        if self._files.only_wal_is_missing():
            # This connection is the last that can read it. From here on what it holds survives a kill, too. (Where
            # another WAL stands in its place, somebody else writes by that, and nothing may be moved.)
            self._wal.checkpoint()
        # The next batch checks before it writes, so that no more is written than was under way.
        self._checked_at = -math.inf

    def _execute(self, commands: Sequence[DataCommand]) -> Sequence[Outcome | StorageError]:
        try:
            return self._execute_together(commands)
        except sqlite3.Error as error:
            if not _is_of_one_command(error):
                raise
        # One command is to blame: the others must not pay for it. Or a table was away and is back, which SQLite does not
        # notice by itself where a trigger refers to it.
        self._roll_back()
        with self._waiting_for_locks():
            schema.reload(self._connection)
            has_index = schema.notice_index(self._connection)
        if has_index:
            try:
                return self._execute_together(commands)
            except sqlite3.Error as error:
                if not _is_of_one_command(error):
                    raise
            self._roll_back()
        return [self._execute_alone(command) for command in commands]

    def _execute_alone(self, command: DataCommand) -> Outcome | StorageError:
        if self._stopped is not None:
            return WriterStoppedError(*self._stopped.args)
        try:
            (outcome,) = self._execute_together([command])
        except sqlite3.Error as error:
            self._roll_back()
            return self._failure(error, 1)
        # The next command through the same handle expects what this one has left behind.
        advance_handle(command, outcome)
        return outcome

    def _execute_together(self, commands: Sequence[DataCommand]) -> list[Outcome]:
        try:
            return writes.execute(self._connection, commands)
        except sqlite3.OperationalError as error:
            if primary_code(error) != sqlite3.SQLITE_BUSY or self._connection.in_transaction:
                raise
        self._begin_when_lock_is_free()
        return writes.execute(self._connection, commands, begun=True)

    @contextmanager
    def _in_line(self) -> Iterator[None]:
        """Waits until the processes have written that came before, as long as there are others; then it is our turn."""
        self._give_up = time.perf_counter() + self._options.busy_timeout
        self._waited = 0.0
        try:
            self._stand_in_line()
            yield
        finally:
            self._line.leave()
            if self._waited and self._waited >= _LOCK_WAIT_SECONDS:
                logger.info("lock_wait", path=str(self._path), seconds=self._waited)

    def _stand_in_line(self) -> None:
        if self._line.is_formed and not self._line.enter(0) and not self._wait_for_others(self._is_our_turn):
            self._line.dissolve()

    def _is_our_turn(self, seconds: float) -> bool:
        if self._line.enter(seconds):
            return True
        # The first in line may be stopped, or what has its file locked is no writer: nobody is to wait for those.
        try:
            self._connection.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            if primary_code(error) == sqlite3.SQLITE_BUSY:
                return False
        # Of any other error the batch is told when it meets it.
        self._roll_back()
        self._line.dissolve()
        return True

    def _begin_when_lock_is_free(self) -> None:
        """Begins a transaction that holds the write lock, and takes note of how long that took."""
        self._line.form()
        # Whoever sleeps until the lock is free gets it last while others hand it on in line.
        self._stand_in_line()
        if not self._wait_for_others(self._begin_within):
            # For the last time: SQLite says why it cannot.
            self._connection.execute("BEGIN IMMEDIATE")

    def _begin_within(self, seconds: float) -> bool:
        set_busy_timeout(self._connection, seconds)
        try:
            self._connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if primary_code(error) != sqlite3.SQLITE_BUSY:
                raise
            return False
        finally:
            set_busy_timeout(self._connection, 0)
        return True

    def _wait_for_others(self, got: Callable[[float], bool]) -> bool:
        """Calls ``got`` with the seconds that it may take until it says so, or until the time of this batch is over.

        Returns whether it said so.
        """
        if not self._waited:
            self._lock_waits += 1
        waited_before = self._waited
        started = time.perf_counter()
        interval = _HELD_LOCK_SECONDS
        try:
            while not got(min(interval, self._seconds_left())):
                if not self._seconds_left():
                    return False
                seconds = waited_before + time.perf_counter() - started
                hint = f"`fuser -v {self._path}` names the programs that have it open"
                logger.warning("lock_held", path=str(self._path), seconds=seconds, hint=hint)
                interval = _HELD_LOCK_INTERVAL
            return True
        finally:
            seconds = time.perf_counter() - started
            self._waited += seconds
            self._lock_wait_seconds += seconds

    def _seconds_left(self) -> float:
        """How long the batch under way may still wait for others, in seconds."""
        return max(self._give_up - time.perf_counter(), 0.0)

    @contextmanager
    def _waiting_for_locks(self) -> Iterator[None]:
        """Has SQLite wait for the locks of others. Elsewhere it does not, so that a wait is noticed."""
        set_busy_timeout(self._connection, self._seconds_left())
        try:
            yield
        finally:
            set_busy_timeout(self._connection, 0)

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
            failure = self._stopped = WriterStoppedError(
                f"the disk could not be synced, so the writer has stopped: {failure}"
            )
        self._failed_batches += 1
        if (repeated := self._refused.due()) is not None:
            logger.warning(
                "batch_refused",
                path=str(self._path),
                commands=commands,
                error=getattr(error, "sqlite_errorname", type(error).__name__),
                stopped=self._stopped is not None,
                repeated=repeated,
                hint=str(failure),
            )
        return failure


def _is_of_one_command(error: sqlite3.Error) -> bool:
    """Whether an error may come from what one command holds, not from the file or the machine."""
    of_values = sqlite3.IntegrityError | sqlite3.DataError | sqlite3.ProgrammingError | sqlite3.InterfaceError
    return isinstance(error, of_values) or primary_code(error) == sqlite3.SQLITE_ERROR
