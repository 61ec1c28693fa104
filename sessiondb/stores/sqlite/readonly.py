"""Opens a file from outside so that nothing of it, and nothing beside it, is changed or created."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from typing_extensions import override

from sessiondb.errors import CorruptRowError, DatabaseBusyError, FileLostError, StorageError
from sessiondb.stores.sqlite.connection import (
    LARGEST_VALUE,
    ClosedAtExit,
    closed_on_failure,
    let_pass,
    open_untouched,
    snapshot,
)
from sessiondb.stores.sqlite.errors import NO_ACCESS, is_not_utf8, primary_code, translate
from sessiondb.stores.sqlite.file_identity import process_with
from sessiondb.stores.sqlite.header import look
from sessiondb.stores.sqlite.new_file import create_private, sidecars_of

ResultT = TypeVar("ResultT")

_State: TypeAlias = tuple[int, ...]
"""Of a file: device, inode, size, time of the last change; nothing if there is none."""

_MOMENT_SECONDS = 0.02

BUSY_TIMEOUT = 5.0
"""How long to wait for a lock that is held for moments only, in seconds."""

ATTEMPTS = 3
"""How often to read a file anew that another program began to change meanwhile."""


class ReadOnlyFile(ClosedAtExit):
    """A file opened for reading, whoever else uses it. Not for several threads at once.

    There are three cases, by what stands beside the file:

    - ``-wal`` and ``-shm``: it is in use, or its last program was killed. It is read with SQLite's locks. The shared memory
      is not written to either: where it cannot be used as it is, SQLite makes an index of the WAL of its own.
    - ``-wal`` alone, or a rollback journal: nobody has it open, and reading it takes what would write to it: it is read in
      a copy.
    - Neither: all there is stands in the file. An ordinary connection would create ``-wal`` and ``-shm``, and could not
      remove them; so it is read as one that nobody changes, and a program that begins to write meanwhile is noticed.

    Attributes:
        connection: The connection.
        is_shared: Whether the connection sees what other programs write.
    """

    def __init__(self, path: Path, busy_timeout: float) -> None:
        self._path = path
        self._busy_timeout = busy_timeout
        self._opened = ExitStack()
        self._open()

    @override
    def close(self) -> None:
        self._opened.close()

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Makes all that is read within it be of one moment.

        Raises:
            DatabaseBusyError: At the end, if a program began to write meanwhile and what was read may be mixed up.
        """
        with self.translated(), snapshot(self.connection):
            yield
        if not self.is_unchanged():
            raise self._began_to_write()

    def rows(self, statement: str, parameters: Sequence[Any] = ()) -> Iterator[Any]:
        """Runs a statement, and yields what it finds as it is found."""
        with self.translated(), closing(self.connection.execute(statement, parameters)) as rows:
            yield from rows

    def reopen(self) -> None:
        """Opens what is at the path now."""
        self.close()
        self._open()

    def is_unchanged(self) -> bool:
        """Whether all that was read is of one moment, as far as the file was read as one that nobody changes."""
        return self.is_shared or self._look() == self._known

    def is_current(self) -> bool:
        """Whether the connection still belongs to what is at the path."""
        now = self._look()
        return now[0][:2] == self._known[0][:2] if self.is_shared else now == self._known

    def failure(self, error: sqlite3.Error) -> StorageError | None:
        """Returns the error of sessiondb for one of SQLite that has to do with how the file was opened; else None."""
        with suppress(FileLostError):
            if not self.is_unchanged():
                return self._began_to_write()
        code = primary_code(error)
        if code == sqlite3.SQLITE_INTERRUPT:
            # Nobody else interrupts: Python has met a Ctrl-C in the progress handler, where sqlite3 drops it.
            raise KeyboardInterrupt from None
        if code == sqlite3.SQLITE_TOOBIG:
            return CorruptRowError(
                f"a value in {str(self._path)!r} has more than {LARGEST_VALUE:,} bytes, which no event or state of"
                " sessiondb has; it was edited outside sessiondb"
            )
        if code in NO_ACCESS:
            return StorageError(f"{str(self._path)!r} cannot be read: {error}")
        return None

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Raises sessiondb's errors in place of SQLite's."""
        try:
            yield
        except sqlite3.Error as error:
            failure = self.failure(error) or translate(error, self._path, reading=True)
            raise failure from (None if is_not_utf8(error) else error)

    def _open(self) -> None:
        with closed_on_failure(self._opened):
            for attempt in range(1, ATTEMPTS + 1):
                if self._try_to_open(last=attempt == ATTEMPTS):
                    return
                # Somebody opens or closes the file at this moment.
                let_pass(_MOMENT_SECONDS)

    def _try_to_open(self, *, last: bool) -> bool:
        wal, shm, journal = sidecars_of(self._path)
        # Taken first: a change between this and the opening then counts as one, where it would else be missed.
        self._known = self._look()
        self.is_shared = wal.exists() and shm.exists()
        if self.is_shared:
            self._connect(self._path, "mode=ro&readonly_shm=1")
            if self._is_attached() or last:
                return True
            # The last program has closed the file meanwhile, and taken both away.
            self._opened.close()
            return False
        if wal.exists() or journal.exists():
            self._connect(self._copied(), "mode=rw")
            return True
        try:
            process = process_with(self._path)
        except OSError as error:
            raise StorageError(f"{str(self._path)!r} cannot be read: {error.strerror or error}") from error
        if process is None:
            self._connect(self._path, "mode=ro&immutable=1")
            return True
        if last:
            raise FileLostError(
                f"the write-ahead log of {str(self._path)!r} was removed while process {process} has the database open:"
                " what it wrote is in a file that has no name any more. End it with SIGTERM, which puts that into the"
                " database; SIGKILL would lose it"
            )
        return False

    def _is_attached(self) -> bool:
        """Has SQLite open the WAL, which it else does with the first read; says whether it was still there."""
        try:
            self.connection.execute("PRAGMA data_version").fetchone()
        except sqlite3.Error as error:
            # Any other error is for whoever reads.
            return primary_code(error) != sqlite3.SQLITE_CANTOPEN
        return True

    def _connect(self, path: Path, options: str) -> None:
        self.connection = self._opened.enter_context(closing(open_untouched(path, options, self._busy_timeout)))

    def _copied(self) -> Path:
        """Copies the file, with those beside it, into a folder that lasts as long as the connection."""
        copy = Path(self._opened.enter_context(tempfile.TemporaryDirectory(prefix="sessiondb-"))) / "copy.sqlite3"
        create_private(copy)
        for file, its_copy in zip([self._path, *sidecars_of(self._path)], [copy, *sidecars_of(copy)], strict=True):
            with suppress(FileNotFoundError):
                shutil.copyfile(file, its_copy)
        return copy

    def _began_to_write(self) -> DatabaseBusyError:
        return DatabaseBusyError(
            f"a program began to write to {str(self._path)!r} while it was read; run the command again"
        )

    def _look(self) -> tuple[_State, ...]:
        """Returns what tells whether the file, and those beside it, are as they were."""
        try:
            status = self._path.stat()
        except FileNotFoundError:
            raise FileLostError(f"{str(self._path)!r} was removed") from None
        except OSError as error:
            raise StorageError(f"cannot look at {str(self._path)!r}: {error.strerror or error}") from error
        if not stat.S_ISREG(status.st_mode):
            # Opening a pipe would wait for somebody who writes to it.
            raise StorageError(f"{str(self._path)!r} is not a regular file")
        beside: list[_State] = []
        for file in sidecars_of(self._path):
            try:
                beside.append(_state_of(file.stat()))
            except OSError:
                beside.append(())
        return _state_of(status), *beside


def _state_of(status: os.stat_result) -> _State:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def is_ours(path: Path) -> bool:
    """Whether a file is a database of sessiondb, of whatever version.

    Raises:
        StorageError: If it cannot be read, or is no file of SQLite.
    """
    with ReadOnlyFile(path, BUSY_TIMEOUT) as file, file.translated():
        return look(file.connection).is_ours


def read_whole(path: Path, read: Callable[[ReadOnlyFile], ResultT | None]) -> ResultT:
    """Reads a file, up to three times, until it did not change meanwhile.

    ``read`` returns None if :meth:`ReadOnlyFile.is_unchanged` said in the end that it did change.
    """
    for _ in range(ATTEMPTS):
        with ReadOnlyFile(path, BUSY_TIMEOUT) as file:
            result = read(file)
        if result is not None:
            return result
    raise DatabaseBusyError(f"{str(path)!r} was opened and changed by another program at each of {ATTEMPTS} attempts")
