"""The one place that opens a connection and sets its PRAGMAs."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from sessiondb.errors import (
    ConfigurationError,
    DatabaseBusyError,
    DatabaseCorruptError,
    FileLostError,
    StorageError,
    UnsupportedDatabaseError,
    WriteFailedError,
)
from sessiondb.options import Durability
from sessiondb.stores.sqlite.opening import closed_on_failure

# Statements vary only in the number of rows of a batch, in a few steps; all of them stay prepared.
_CACHED_STATEMENTS = 256

_OLDEST_SQLITE = (3, 38, 0)
"""The first version with the ``->>`` operator."""

SYNC_FAILED = (sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_DIR_FSYNC)
"""Extended result codes of a sync that failed."""

_PAUSE = threading.Event()
"""Never set: a wait that only lets time pass."""
_PAUSE_SECONDS = 0.005

# Primary result codes, see https://www.sqlite.org/rescode.html; the low byte of an extended code.
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def prepare_file(path: Path) -> None:
    """Makes sure that a private, regular file is at ``path``; missing folders are created, private too.

    An existing file is looked at, never opened: closing any descriptor of a database file gives up all POSIX locks
    that this process holds on it.

    Raises:
        ConfigurationError: If the path is a symlink, a folder or a special file.
        StorageError: If the file or a folder cannot be created.
    """
    try:
        for folder in reversed([parent for parent in path.parents if not parent.exists()]):
            # mkdir(parents=True) gives only the last folder the mode; each one made here is to be private.
            with suppress(FileExistsError):
                folder.mkdir(mode=0o700)
                sync_folder(folder.parent)
        with suppress(FileExistsError):
            # SQLite gives -wal and -shm the mode of the database file.
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
            sync_folder(path.parent)
        mode = path.lstat().st_mode
    except OSError as error:
        raise StorageError(f"cannot create {str(path)!r}: {error.strerror or error}") from error
    if stat.S_ISLNK(mode):
        raise ConfigurationError(
            f"{str(path)!r} is a symbolic link, which could lead writes to a file of somebody else's choice; give the"
            " path of the file itself, or say that links are followed (follow_symlinks=True)"
        )
    if not stat.S_ISREG(mode):
        raise ConfigurationError(f"{str(path)!r} is not a regular file")


def sync_folder(folder: Path) -> None:
    """Makes a folder's entries survive a power cut: syncing a file does not sync its name.

    Raises:
        OSError: If the folder cannot be opened or synced.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class FileIdentity:
    """Tells whether the files that a connection has open are still the ones at their path.

    SQLite goes on writing to a file that was removed or replaced, and nobody would ever read it again.
    """

    def __init__(self, path: Path) -> None:
        # As text: the look is a part of every batch.
        self._files = (str(path), f"{path}-wal")
        self._known = list(map(_identity_of, self._look()))

    def check(self) -> int:
        """Returns the length of the log, in bytes.

        Raises:
            FileLostError: If the database or its log was removed, replaced or renamed since it was opened.
        """
        found = self._look()
        for file, known, now in zip(self._files, self._known, found, strict=True):
            if known != _identity_of(now):
                what = "removed" if now is None else "replaced"
                raise FileLostError(
                    f"{file!r} was {what} while it was open: what is written would be lost. Put the file back, or"
                    " close the service and open it anew"
                )
        log = found[1]
        return 0 if log is None else log.st_size

    def _look(self) -> list[os.stat_result | None]:
        return [_status(file) for file in self._files]


def _status(file: str | Path) -> os.stat_result | None:
    try:
        return os.stat(file)  # noqa: PTH116  # half the time of Path.stat, at every batch
    except OSError:
        # Whatever is in the way: nobody can open it by its path.
        return None


def _identity_of(status: os.stat_result | None) -> tuple[int, int] | None:
    return None if status is None else (status.st_dev, status.st_ino)


def is_open_here(path: Path) -> bool:
    """Says whether this process has a file open, by whatever means.

    Closing any descriptor of a database file gives up all POSIX locks that the process holds on it, so such a file must
    not be opened in any other way than by SQLite.
    """
    wanted = _identity_of(_status(path))
    for name in os.listdir("/dev/fd"):  # noqa: PTH208  # names of descriptors, not paths
        # One of them lists the folder, and is closed by now.
        with suppress(OSError):
            status = os.fstat(int(name))
            if _identity_of(status) == wanted:
                return True
    return False


def open_writer(path: Path, durability: Durability, busy_timeout: float) -> sqlite3.Connection:
    """Opens the connection that writes. Nothing in the file is changed yet.

    Raises:
        ConfigurationError: If Python is linked with an SQLite that is too old.
        DatabaseCorruptError, UnsupportedDatabaseError, DatabaseBusyError, WriteFailedError: If SQLite refuses the
            file.
    """
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        raise ConfigurationError(
            f"SQLite {'.'.join(map(str, _OLDEST_SQLITE))} or newer is needed; this Python is linked with"
            f" {sqlite3.sqlite_version}"
        )
    connection = _connect(path, "rw")
    try:
        with closed_on_failure(connection):
            set_busy_timeout(connection, busy_timeout)
            # Checkpoints are the writer's own, between batches: one inside COMMIT could raise though the data is committed.
            connection.execute("PRAGMA wal_autocheckpoint=0")
            connection.execute(f"PRAGMA synchronous={durability}")
            connection.execute("PRAGMA foreign_keys=ON")
            connection.execute("PRAGMA temp_store=MEMORY")
            connection.execute("PRAGMA trusted_schema=OFF")
            connection.execute("PRAGMA cell_size_check=ON")
            connection.execute("PRAGMA cache_size=-65536")
    except sqlite3.Error as error:
        raise translate(error, path) from error
    return connection


def enter_wal_mode(connection: sqlite3.Connection, path: Path) -> None:
    """Switches a file to WAL mode, which lasts.

    Raises:
        UnsupportedDatabaseError: If the file system cannot do that.
        sqlite3.Error: As SQLite raises it.
    """
    mode = _switched(connection)
    if mode != "wal":
        raise UnsupportedDatabaseError(
            f"{str(path)!r} cannot be kept in WAL mode (it stays in {mode!r}): WAL needs a local file system with shared"
            " memory, not a network mount"
        )
    # SQLite makes the log's file at the first access after the switch, and FileIdentity is to find it.
    connection.execute("PRAGMA schema_version").fetchone()


def _switched(connection: sqlite3.Connection) -> str:
    (milliseconds,) = connection.execute("PRAGMA busy_timeout").fetchone()
    give_up = time.monotonic() + milliseconds / 1000
    while True:
        try:
            mode: str = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
        except sqlite3.OperationalError as error:
            # Two that switch at once cannot wait for each other's locks, so SQLite fails one without its busy handler.
            if primary_code(error) != sqlite3.SQLITE_BUSY or time.monotonic() >= give_up:
                raise
            _PAUSE.wait(_PAUSE_SECONDS)
        else:
            return mode


def open_reader(path: Path, busy_timeout: float) -> sqlite3.Connection:
    """Opens a connection that cannot write."""
    connection = _connect(path, "ro")
    try:
        with closed_on_failure(connection):
            set_busy_timeout(connection, busy_timeout)
            connection.execute("PRAGMA query_only=ON")
            connection.execute("PRAGMA wal_autocheckpoint=0")
            connection.execute("PRAGMA trusted_schema=OFF")
            connection.execute("PRAGMA cache_size=-16384")
    except sqlite3.Error as error:
        raise translate(error, path) from error
    return connection


def primary_code(error: sqlite3.Error) -> int:
    """Returns the primary result code of an error; 0 if SQLite had no part in it."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def translate(error: sqlite3.Error, path: Path, *, reading: bool = False) -> StorageError:
    """Returns the sessiondb error for an error of SQLite."""
    code = primary_code(error)
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    where = f"{str(path)!r}: {error} ({name})"
    if code in _BUSY:
        return DatabaseBusyError(f"another program held the lock for longer than busy_timeout: {where}")
    if code == sqlite3.SQLITE_NOTADB:
        return UnsupportedDatabaseError(f"not an SQLite database; it was not changed: {where}")
    if code == sqlite3.SQLITE_CORRUPT:
        return DatabaseCorruptError(
            f"the file is damaged, and was not changed; restore a backup or recover into a new file: {where}"
        )
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return WriteFailedError(
            "the file cannot be opened for writing: file and folder, and the file system they are on, must be readable"
            f" and writable (not read-only) for this process: {where}"
        )
    if reading:
        return StorageError(f"SQLite refused the read: {where}")
    return WriteFailedError(f"SQLite refused the write: {where}")


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    try:
        return sqlite3.connect(
            f"file:{quote(str(path))}?mode={mode}",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=_CACHED_STATEMENTS,
        )
    except sqlite3.Error as error:
        raise translate(error, path) from error


def set_busy_timeout(connection: sqlite3.Connection, seconds: float) -> None:
    """Sets how long SQLite waits for a lock before it gives up; 0: not at all."""
    connection.execute(f"PRAGMA busy_timeout={int(seconds * 1000)}")
