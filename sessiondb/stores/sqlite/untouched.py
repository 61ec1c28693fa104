"""Opens a file so that nothing of it, and nothing beside it, is changed or created."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from sessiondb.errors import DatabaseBusyError, StorageError
from sessiondb.stores.sqlite.new_file import create_private, sidecars_of

ATTEMPTS = 3
"""How often to read a file anew that another program began to change meanwhile."""


@contextmanager
def opened_untouched(path: Path) -> Iterator[tuple[sqlite3.Connection, Callable[[], bool]]]:
    """Opens a file for reading, whoever else uses it.

    Yields:
        A connection, and what tells after the last read whether all that was read is of one moment.

    Raises:
        StorageError: If the file cannot be opened.
    """
    wal, shm, journal = sidecars_of(path)
    if wal.exists() and shm.exists():
        # In use, or left so by a crash. The shared memory is not written to either: where it cannot be used as it is,
        # SQLite makes an index of the log of its own.
        with closing(_connect(path, "mode=ro&readonly_shm=1")) as connection:
            yield connection, lambda: True
    elif wal.exists() or journal.exists():
        # Nobody has it open, and reading it takes what would write to it.
        with tempfile.TemporaryDirectory(prefix="sessiondb-") as folder:
            copy = Path(folder) / "copy.sqlite3"
            create_private(copy)
            shutil.copyfile(path, copy)
            for file, its_copy in zip((wal, shm, journal), sidecars_of(copy), strict=True):
                if file.exists():
                    shutil.copyfile(file, its_copy)
            with closing(_connect(copy, "mode=rw")) as connection:
                yield connection, lambda: True
    else:
        # An ordinary connection would create -wal and -shm, and could not remove them.
        before = _state_of(path)
        with closing(_connect(path, "mode=ro&immutable=1")) as connection:
            yield connection, lambda: before == _state_of(path) and not wal.exists()


def changed_each_time(path: Path) -> DatabaseBusyError:
    """Returns the error for a file that was changed at each of :data:`ATTEMPTS`."""
    return DatabaseBusyError(f"{str(path)!r} was opened and changed by another program at each of {ATTEMPTS} attempts")


def _state_of(path: Path) -> tuple[int, int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise StorageError(f"cannot look at {str(path)!r}: {error.strerror or error}") from error
    return status.st_ino, status.st_size, status.st_mtime_ns


def _connect(path: Path, options: str) -> sqlite3.Connection:
    try:
        return sqlite3.connect(
            f"file:{quote(str(path))}?{options}", uri=True, isolation_level=None, check_same_thread=False
        )
    except sqlite3.Error as error:
        raise StorageError(f"cannot open {str(path)!r}: {error}") from error
