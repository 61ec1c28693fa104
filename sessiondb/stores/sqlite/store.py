"""One SQLite file as a store."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from typing_extensions import override

from sessiondb.engine.store import Progress, Store, SupportsBackup
from sessiondb.model.records import BackupReport
from sessiondb.options import StoreOptions
from sessiondb.stores.sqlite.backup import check_backup_target, copy_database
from sessiondb.stores.sqlite.connection import open_reader
from sessiondb.stores.sqlite.new_file import memory_folder, prepare_file
from sessiondb.stores.sqlite.reader import SqliteReader
from sessiondb.stores.sqlite.turns import SqliteTurnLocks
from sessiondb.stores.sqlite.writer import SqliteWriter


class SqliteStore(Store, SupportsBackup):
    """A file that exists."""

    system = "sqlite"
    reads_inline = True

    def __init__(self, path: Path | None, options: StoreOptions) -> None:
        """Creates the file where it is missing; opens no connection.

        Args:
            path: The file; None for a database in memory.
            options: How to keep it.
        """
        self._folder: Path | None = None
        self._folder_owner = os.getpid()
        if path is None:
            # WAL, and so readers beside the writer, need a file.
            self._folder = memory_folder()
            path = self._folder / "memory.sqlite3"
        prepare_file(path)
        status = path.stat()
        self.path = path
        self.name = str(path)
        self.label = path.name
        self.identity = self._file = (status.st_dev, status.st_ino)
        self._options = options

    @override
    def writer(self) -> SqliteWriter:
        return SqliteWriter(self.path, self._options)

    @override
    def reader(self, timeout: float) -> SqliteReader:
        return SqliteReader.open(self.path, timeout, self._file)

    @override
    def turn_locks(self) -> SqliteTurnLocks:
        return SqliteTurnLocks(self.path)

    @override
    def file_bytes(self) -> int:
        try:
            return self.path.stat().st_size
        except OSError:
            return 0

    @override
    def backup(
        self,
        target: str | os.PathLike[str],
        *,
        overwrite: bool,
        progress: Progress | None,
        goes_on: Callable[[], bool],
    ) -> BackupReport | None:
        path = Path(target)
        check_backup_target(path, self.path, overwrite=overwrite)
        with closing(open_reader(self.path, self._options.busy_timeout)) as source:
            return copy_database(source, self.path, path, overwrite=overwrite, progress=progress, goes_on=goes_on)

    @override
    def close(self) -> None:
        # A forked child leaves a database in memory to its parent.
        if self._folder is not None and os.getpid() == self._folder_owner:
            shutil.rmtree(self._folder, ignore_errors=True)
