"""Files of what is going to be deleted: JSON Lines, as an export is."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from sessiondb.calls.lines import end_line, header_line
from sessiondb.errors import StorageError


class Archive:
    """A new file in a folder. It has its name once it is complete and on disk; what fails before leaves nothing behind."""

    def __init__(self, folder: Path) -> None:
        """Opens it, readable for its owner only, in a folder that is created where it is missing.

        Raises:
            StorageError: If that cannot be done.
        """
        # By the moment, and different from those that other hosts write now.
        name = f"pruned-{datetime.now(UTC).strftime('%Y%m%dT%H%M%S.%fZ')}-{uuid.uuid4().hex[:8]}.jsonl"
        self.path = folder / name
        self._unfinished = folder / f".{name}.part"
        self._sessions = 0
        try:
            if not folder.is_dir():
                folder.mkdir(mode=0o700, exist_ok=True)
                _sync_folder(folder.parent)
            descriptor = os.open(self._unfinished, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        except OSError as error:
            raise self._failed(error) from error
        self._file = open(descriptor, "w", encoding="utf-8")  # noqa: PTH123, SIM115  # a descriptor; closed by close()
        self._write([header_line()])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self._file.close()
        with suppress(FileNotFoundError):
            self._unfinished.unlink()

    def add(self, lines: Iterable[str]) -> None:
        """Adds a session. If its lines cannot be read, what there is of them is taken back.

        Raises:
            StorageError: If the file cannot be written.
            CorruptRowError: As the lines raise it.
        """
        try:
            self._file.flush()
            before = self._file.tell()
        except OSError as error:
            raise self._failed(error) from error
        try:
            self._write(lines)
        except StorageError:
            with suppress(OSError):
                self._file.seek(before)
                self._file.truncate()
            raise
        self._sessions += 1

    def finish(self) -> Path | None:
        """Puts it on disk, and in its place. None if nothing was added: then there is no file.

        Raises:
            StorageError: If that cannot be done.
        """
        if not self._sessions:
            return None
        self._write([end_line(self._sessions)])
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._unfinished.rename(self.path)
            _sync_folder(self.path.parent)
        except OSError as error:
            raise self._failed(error) from error
        return self.path

    def _write(self, lines: Iterable[str]) -> None:
        for line in lines:
            try:
                self._file.write(line + "\n")
            except OSError as error:
                raise self._failed(error) from error

    def _failed(self, error: OSError) -> StorageError:
        return StorageError(
            f"the archive {str(self.path)!r} cannot be written: {error.strerror or error}. What was to go into it stays"
        )


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
