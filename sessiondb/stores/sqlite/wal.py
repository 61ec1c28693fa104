"""What the writer does between batches: checkpoints of the WAL, vacuum, integrity."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path

from sessiondb.errors import DatabaseCorruptError
from sessiondb.logger import logger
from sessiondb.options import Durability
from sessiondb.stores.sqlite.errors import SYNC_FAILED

_DUE_BYTES = 4 * 1024 * 1024
_MOST_BYTES = 64 * 1024 * 1024
_IDLE_SECONDS = 1.0
_RETRY_SECONDS = 10.0
# Readers of this process are done within a fraction of this; others are not waited for, since appends wait meanwhile.
_READERS_MAY_TAKE_MS = 50
_MOST_PROBLEMS = 20


class WalKeeper:
    """Checkpoints the write-ahead log (WAL) between batches: when it has grown, and once when the writer falls idle.

    A checkpointed WAL is written anew from its start (RESTART) and keeps its size: overwriting a file syncs in about
    half the time of making it longer. So a checkpoint is due when the file *grows*, which says that it is full. Only a
    WAL that some reader has made very large is cut (TRUNCATE). Both modes take the write lock: with PASSIVE checkpoints
    SQLite before 3.51.3 can skip frames of a WAL that another connection resets meanwhile ("WAL-reset" defect). They do
    without it if another process has it for longer than the timeout below, which SQLite answers as busy. Slow
    readers are not waited for: a checkpoint that cannot finish is tried again when the WAL has grown by as much again,
    and now and then while no write comes.

    Attributes:
        connection: The writer's; another one to the same file may take its place.
        checkpoints: Checkpoints that moved the whole WAL into the database file, so that it starts anew.
        blocked: Checkpoints that a reader, or another program, kept from finishing.
        failed: Checkpoints that SQLite refused.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path, durability: Durability) -> None:
        self.checkpoints = 0
        self.blocked = 0
        self.failed = 0
        self.connection = connection
        self._path = path
        self._durability = durability
        self._due_bytes = _DUE_BYTES
        self._idle_work = self.size > 0
        self._was_blocked = False

    @property
    def size(self) -> int:
        """Bytes of the WAL's file."""
        return wal_bytes(self._path)

    @property
    def idle_timeout(self) -> float | None:
        """How long the writer waits for commands before it comes back to checkpoint, in seconds; None: for ever."""
        if self._idle_work:
            return _IDLE_SECONDS
        return _RETRY_SECONDS if self._was_blocked else None

    def note_write(self) -> None:
        """Called after each batch: there is something to checkpoint when the writer falls idle."""
        self._idle_work = True

    def checkpoint_if_grown(self, size: int) -> None:
        """Checkpoints a WAL that has grown to ``size`` bytes. Called between batches, after the answers."""
        if size > self._due_bytes:
            self.checkpoint()

    def checkpoint_when_idle(self) -> None:
        """Checkpoints whatever there is. Called when no command came for as long as :attr:`idle_timeout`."""
        self._idle_work = False
        self.checkpoint()

    def checkpoint(self, *, cut: bool = False) -> None:
        """Moves the WAL into the database file, as far as readers allow, and lets it start anew.

        What keeps it from doing so is counted, and no write fails by it.

        Args:
            cut: Whether to give the WAL's space back, however little it is.

        Raises:
            sqlite3.Error: If the WAL could not be synced and holds answered writes that have never been: with
                ``durability="normal"``. The kernel may have dropped them, and a second sync would not notice.
        """
        started = time.perf_counter()
        mode = "TRUNCATE" if cut or self.size > _MOST_BYTES else "RESTART"
        try:
            (timeout,) = self.connection.execute("PRAGMA busy_timeout").fetchone()
            self.connection.execute(f"PRAGMA busy_timeout={_READERS_MAY_TAKE_MS}")
            try:
                busy, frames, done = self.connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
            finally:
                self.connection.execute(f"PRAGMA busy_timeout={timeout}")
        except sqlite3.Error as error:
            if self._durability == "normal" and error.sqlite_errorcode in SYNC_FAILED:
                raise
            self.failed += 1
            self._due_bytes = self.size + _DUE_BYTES
            logger.warning("checkpoint_failed", path=str(self._path), error=str(error))
            return
        self._was_blocked = bool(busy)
        if busy:
            self.blocked += 1
            size = self.size
            self._due_bytes = size + _DUE_BYTES
            logger.info("checkpoint_blocked", path=str(self._path), wal_bytes=size, frames=frames, checkpointed=done)
            if size > _MOST_BYTES:
                logger.warning("log_held_back", path=str(self._path), wal_bytes=size)
            return
        self.checkpoints += 1
        self._due_bytes = max(self.size, _DUE_BYTES)
        logger.debug("checkpoint", path=str(self._path), seconds=time.perf_counter() - started)


def wal_bytes(database: str | Path) -> int:
    """Returns the size of the WAL beside a database file; 0 if there is none."""
    try:
        return os.stat(f"{database}-wal").st_size  # noqa: PTH116  # half the time of Path.stat
    except OSError:
        return 0


def vacuum(connection: sqlite3.Connection, path: Path) -> None:
    """Checks the file, then rebuilds it without free pages and refreshes the planner's statistics."""
    if problems := find_problems(connection):
        raise DatabaseCorruptError(
            f"{str(path)!r} is damaged and was not rebuilt: {'; '.join(problems)}. Restore a backup, or recover what is"
            " readable into a new file"
        )
    connection.execute("VACUUM")
    connection.execute("PRAGMA optimize")


def find_problems(connection: sqlite3.Connection) -> list[str]:
    """Checks pages, indexes and references; returns what is wrong, at most some twenty lines."""
    problems = [row[0] for row in connection.execute(f"PRAGMA integrity_check({_MOST_PROBLEMS})") if row[0] != "ok"]
    for table, row_id, parent, _ in connection.execute("PRAGMA foreign_key_check").fetchmany(_MOST_PROBLEMS):
        problems.append(f"row {row_id} of {table} refers to a row of {parent} that does not exist")
    return problems
