"""Reading a file beside the programs that use it, without creating anything and without being in their way."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sessiondb.errors import DatabaseBusyError, FileLostError, StorageError
from sessiondb.stores.sqlite.connection import open_reader, primary_code, translate
from sessiondb.stores.sqlite.opening import closed_on_failure

_UNREADABLE = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY)
_JOURNALS = ("-wal", "-journal")


class QuietReader:
    """A connection that cannot write, and leaves nothing behind. Not for several threads at once.

    A file with a journal beside it is in use, or was when its last program died: it is read as the journal says, with
    SQLite's locks. Otherwise all there is stands in the file itself, and is read without locks and without creating
    anything; a program that begins to write meanwhile is noticed.

    Attributes:
        connection: The connection, for what has no method here.
    """

    def __init__(self, path: Path, busy_timeout: float) -> None:
        """Opens the file.

        Raises:
            StorageError: If it cannot be opened.
        """
        self._path = path
        self._busy_timeout = busy_timeout
        self._version = 0
        self._open()

    def close(self) -> None:
        """Closes the file. Idempotent."""
        self.connection.close()

    def rows(self, statement: str, parameters: Mapping[str, Any] | Sequence[Any] = ()) -> Iterator[Any]:
        """Runs a statement, and yields what it finds as it is found.

        Raises:
            StorageError: If SQLite refuses.
        """
        try:
            with closing(self.connection.execute(statement, parameters)) as rows:
                yield from rows
        except sqlite3.Error as error:
            raise self.translated(error) from error

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Makes all that is read within it be of one moment.

        Raises:
            DatabaseBusyError: At the end, if a program began to write meanwhile and what was read may be mixed up.
        """
        self._run("BEGIN")
        try:
            yield
        finally:
            self._run("COMMIT")
        if self._is_frozen and self._look() != self._known:
            raise self._began_to_write()

    def has_changed(self) -> bool:
        """Says whether something may have been written since this was last asked, or since the opening.

        Raises:
            FileLostError: If the file was removed.
        """
        now = self._look()
        if self._is_frozen or now[:2] != self._known[:2]:
            if now == self._known and not self._has_journal():
                return False
            self.connection.close()
            self._open()
            return True
        known, self._version = self._version, self._data_version()
        return known != self._version

    def translated(self, error: sqlite3.Error) -> StorageError:
        """Returns the error of sessiondb for one of SQLite."""
        if self._is_frozen and self._look() != self._known:
            return self._began_to_write()
        if primary_code(error) in _UNREADABLE:
            return StorageError(f"{str(self._path)!r} cannot be read: {error}")
        return translate(error, self._path, reading=True)

    def _open(self) -> None:
        self._is_frozen = not self._has_journal()
        # Taken first: a change between this and the opening then counts as one, where it would else be missed.
        self._known = self._look()
        try:
            if self._is_frozen:
                # A connection that takes part in a WAL creates it, and one that cannot write never removes it.
                self.connection = sqlite3.connect(
                    f"file:{quote(str(self._path))}?mode=ro&immutable=1", uri=True, isolation_level=None
                )
                self.connection.execute("PRAGMA trusted_schema=OFF")
            else:
                self.connection = open_reader(self._path, self._busy_timeout)
        except sqlite3.Error as error:
            raise self.translated(error) from error
        with closed_on_failure(self.connection):
            self._version = self._data_version()

    def _has_journal(self) -> bool:
        return any(self._path.with_name(self._path.name + suffix).exists() for suffix in _JOURNALS)

    def _data_version(self) -> int:
        ((version,),) = self.rows("PRAGMA data_version")
        return int(version)

    def _look(self) -> tuple[int, int, int, int]:
        try:
            status = self._path.stat()
        except FileNotFoundError:
            raise FileLostError(f"{str(self._path)!r} was removed") from None
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns

    def _run(self, statement: str) -> None:
        for _ in self.rows(statement):
            pass

    def _began_to_write(self) -> StorageError:
        return DatabaseBusyError(
            f"a program began to write to {str(self._path)!r} while it was read; run the command again"
        )
