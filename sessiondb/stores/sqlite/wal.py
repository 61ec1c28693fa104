"""What the writer does between batches: checkpoints of the WAL, vacuum, integrity."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path

from sessiondb.errors import DatabaseCorruptError
from sessiondb.logger import logger
from sessiondb.options import Durability
from sessiondb.stores.sqlite.connection import closed_on_failure, let_pass, open_writer
from sessiondb.stores.sqlite.errors import SYNC_FAILED, primary_code, translated

_DUE_BYTES = 4 * 1024 * 1024
_MOST_BYTES = 64 * 1024 * 1024
_IDLE_SECONDS = 1.0
_RETRY_SECONDS = 10.0
# Readers of this process, and commits of others, take a fraction of this; longer is not waited, since appends wait.
_OTHERS_MAY_TAKE = 0.05
_PAUSE_SECONDS = 0.005
_MOST_PROBLEMS = 20

# The format of the file: https://www.sqlite.org/fileformat2.html#walformat
_HEADER_BYTES = 32
_FRAME_HEADER_BYTES = 24


class WalKeeper:
    """Checkpoints the write-ahead log (WAL) between batches: when it has grown, and once when the writer falls idle.

    A checkpointed WAL is written anew from its start by the next commit, and keeps its size: overwriting a file syncs in
    about half the time of making it longer. So a checkpoint is due when the file *grows*, which says that it is full.
    Only a WAL that some reader has made very large is cut.

    A second connection holds the write lock meanwhile. Without it SQLite before 3.51.3 can skip frames of a WAL that
    another process resets during the checkpoint ("WAL-reset" defect). SQLite's own modes that take that lock (RESTART,
    TRUNCATE) go on without it where somebody else has it for too long, and do not say so.

    Slow readers are not waited for: a checkpoint that cannot finish is tried again when the WAL has grown by as much
    again, and now and then while no write comes.

    Attributes:
        connection: The writer's.
        checkpoints: Checkpoints that moved the whole WAL into the database file, so that it starts anew.
        blocked: Checkpoints that a reader, or another program, kept from finishing.
        failed: Checkpoints that SQLite refused.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path, durability: Durability) -> None:
        self.checkpoints = 0
        self.blocked = 0
        self.failed = 0
        self._path = path
        self._durability: Durability = durability
        self.attach(connection)
        self._due_bytes = _DUE_BYTES
        self._idle_work = self.size > 0
        self._was_blocked = False
        self._moved_round: bytes | None = None

    def attach(self, connection: sqlite3.Connection) -> None:
        """Goes on with another connection of the writer, after :meth:`close`."""
        self.connection = connection
        self._lock_holder = open_writer(self._path, self._durability, _OTHERS_MAY_TAKE)
        with closed_on_failure(self._lock_holder), translated(self._path):
            # Opens its WAL now: later another file may stand in its place.
            self._lock_holder.execute("PRAGMA schema_version").fetchone()

    def close(self) -> None:
        """Gives up the second connection. To be called before the writer's is closed, whose checkpoint is the last."""
        self._lock_holder.close()

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

    def is_due(self, size: int) -> bool:
        """Whether a WAL of so many bytes is to be checkpointed: between batches, after the answers."""
        return size > self._due_bytes

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
        try:
            frames, done = self._backfill()
            whole = 0 <= frames == done
            if whole and (cut or self.size > _MOST_BYTES):
                self._cut()
        except sqlite3.Error as error:
            if self._durability == "normal" and error.sqlite_errorcode in SYNC_FAILED:
                raise
            self.failed += 1
            self._due_bytes = self.size + _DUE_BYTES
            logger.warning("checkpoint_failed", path=str(self._path), error=str(error))
            return
        self._was_blocked = not whole
        if not whole:
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

    def purge(self) -> bool:
        """Moves all of the WAL into the database file, and cuts it; says whether nothing is left of what it has held.

        Its file becomes shorter only there: what it holds when it has become shorter was written afterwards.
        """
        size = self.size
        self.checkpoint(cut=True)
        (page_bytes,) = self.connection.execute("PRAGMA page_size").fetchone()
        return self.size < size or size <= _HEADER_BYTES + _FRAME_HEADER_BYTES + page_bytes

    def _backfill(self) -> tuple[int, int]:
        """Moves what readers allow; returns how many frames the WAL has, and how many of them are in the file now.

        Both are -1 if another program is writing or checkpointing just now.
        """
        give_up = time.monotonic() + _OTHERS_MAY_TAKE
        try:
            self._lock_holder.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if primary_code(error) != sqlite3.SQLITE_BUSY:
                raise
            return -1, -1
        try:
            while True:
                _, frames, done = self.connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                if frames == done or time.monotonic() >= give_up:
                    break
                let_pass(_PAUSE_SECONDS)
            this_round = self._round()
            if this_round == self._moved_round:
                # Readers that began before the last checkpoint's end kept the next commit from starting the WAL anew.
                # Whoever begins to read from here on reads the database file alone: this time the others may end first.
                let_pass(_PAUSE_SECONDS)
            self._moved_round = this_round
            return frames, done
        finally:
            self._lock_holder.execute("ROLLBACK")

    def _round(self) -> bytes:
        """What changes each time that the WAL is started anew: its count of checkpoints and its salt."""
        try:
            with Path(f"{self._path}-wal").open("rb", buffering=0) as file:
                file.seek(12)
                return file.read(12)
        except OSError:
            return b""

    def _cut(self) -> None:
        """Gives a moved WAL's space back: the commit that starts it anew cuts it, if no reader is in its way."""
        (version,) = self.connection.execute("PRAGMA user_version").fetchone()
        self.connection.execute("PRAGMA journal_size_limit=0")
        try:
            self.connection.execute(f"PRAGMA user_version={version}")
        except sqlite3.OperationalError as error:
            if primary_code(error) != sqlite3.SQLITE_BUSY:
                raise
        finally:
            self.connection.execute("PRAGMA journal_size_limit=-1")


def wal_bytes(database: str | Path) -> int:
    """Returns the size of the WAL beside a database file; 0 if there is none."""
    try:
        return os.stat(f"{database}-wal").st_size  # noqa: PTH116  # half the time of Path.stat
    except OSError:
        return 0


def refuse_damaged(connection: sqlite3.Connection, path: Path) -> None:
    """Makes sure that a file can be rebuilt. Reads all of it.

    Raises:
        DatabaseCorruptError: If it is damaged.
    """
    if problems := find_problems(connection):
        raise DatabaseCorruptError(
            f"{str(path)!r} is damaged and was not rebuilt: {'; '.join(problems)}. Restore a backup, or recover what is"
            " readable into a new file"
        )


def vacuum(connection: sqlite3.Connection) -> None:
    """Rebuilds a file without free pages, and without remains of what was deleted, and refreshes the planner's statistics."""
    if connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'sqlite_stat4'").fetchone():
        # An SQLite that is built with it keeps keys of rows there, as samples.
        connection.execute("DELETE FROM sqlite_stat4")
    (before,) = connection.execute("PRAGMA secure_delete").fetchone()
    # The pages of the new file are empty where they are not written.
    connection.execute("PRAGMA secure_delete=ON")
    try:
        connection.execute("VACUUM")
    finally:
        connection.execute(f"PRAGMA secure_delete={before}")
    connection.execute("PRAGMA optimize")


def find_problems(connection: sqlite3.Connection) -> list[str]:
    """Checks pages, indexes and references; returns what is wrong, at most some twenty lines."""
    problems = [row[0] for row in connection.execute(f"PRAGMA integrity_check({_MOST_PROBLEMS})") if row[0] != "ok"]
    for table, row_id, parent, _ in connection.execute("PRAGMA foreign_key_check").fetchmany(_MOST_PROBLEMS):
        problems.append(f"row {row_id} of {table} refers to a row of {parent} that does not exist")
    return problems
