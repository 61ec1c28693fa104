"""Locks of sessions between the processes that use a file: locked bytes of an empty file beside it.

The kernel frees them when their process dies. They are Linux's locks of open files (``F_OFD_SETLK``). The older locks of
processes would be given up as soon as anybody in the process closes the file.
"""

from __future__ import annotations

import fcntl
import os
import struct
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from typing_extensions import override

from sessiondb.engine.store import TurnLocks
from sessiondb.errors import StorageError
from sessiondb.model.records import SessionKey

_RUNGS = 8
"""Bytes for each session. The lowest is its lock. The others are a ladder to it, on which processes wait in the order in
which they came: who holds one takes the next lower one as soon as that is free, and gives up its own."""

_LOCK = struct.Struct("@hhqqi4x")
"""What the system calls ``struct flock``: kind, from where, start, length, process."""


class SqliteTurnLocks(TurnLocks):
    """The locks of the sessions of one file."""

    def __init__(self, database: Path) -> None:
        """Creates the file of locks where it is missing, private to the user.

        Args:
            database: The file whose sessions are meant. It is not opened: closing it would give up SQLite's locks.
        """
        self._path = f"{database}-turns"
        self._file = _File(self._path)
        self._places: dict[SessionKey, _Place] = {}

    @override
    def try_take(self, key: SessionKey) -> bool:
        place = self._places.get(key)
        if place is None:
            file = self._current_file()
            place = _Place(file, _offset(key))
            if file.lock(place.start, _RUNGS):
                # Nobody is there.
                file.unlock(place.start + 1, _RUNGS - 1)
            elif file.lock(place.start + _RUNGS - 1, 1):
                place.rung = _RUNGS - 1
            else:
                return False
            file.users += 1
            self._places[key] = place
        while place.rung:
            if not place.file.lock(place.start + place.rung - 1, 1):
                return False
            place.file.unlock(place.start + place.rung, 1)
            place.rung -= 1
        return True

    @override
    def give_up(self, key: SessionKey) -> None:
        place = self._places.pop(key, None)
        if place is None:
            return
        place.file.unlock(place.start + place.rung, 1)
        place.file.users -= 1
        if place.file is not self._file and not place.file.users:
            place.file.close()

    @override
    def abandon(self) -> None:
        # Closed, not unlocked: the parent has the same open file, and its locks last until both have closed it.
        self.close()

    @override
    def close(self) -> None:
        for file in {self._file, *(place.file for place in self._places.values())}:
            file.close()
        self._places.clear()

    def _current_file(self) -> _File:
        """Returns the file at the path: others have been locking that one since somebody removed ours."""
        if not self._file.is_at(self._path):
            removed, self._file = self._file, _File(self._path)
            if not removed.users:
                removed.close()
        return self._file


class _File:
    """A file of locks that is open.

    Attributes:
        users: How many places are held in it.
    """

    def __init__(self, path: str) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._descriptor = os.open(path, flags, 0o600)
        except OSError as error:
            raise StorageError(f"cannot open the file of locks {path!r}: {error.strerror or error}") from error
        self._identity = _identity_of(os.fstat(self._descriptor))
        self.users = 0

    def is_at(self, path: str) -> bool:
        try:
            return _identity_of(os.stat(path)) == self._identity  # noqa: PTH116  # at every turn
        except OSError:
            return False

    def lock(self, start: int, length: int) -> bool:
        """Locks bytes that nobody else has locked; says whether it did."""
        try:
            fcntl.fcntl(self._descriptor, fcntl.F_OFD_SETLK, _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, start, length, 0))
        except (BlockingIOError, PermissionError):
            return False
        except OSError as error:
            raise StorageError(f"the file system refuses locks of turns: {error.strerror or error}") from error
        return True

    def unlock(self, start: int, length: int) -> None:
        fcntl.fcntl(self._descriptor, fcntl.F_OFD_SETLK, _LOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, start, length, 0))

    def close(self) -> None:
        os.close(self._descriptor)


@dataclass(slots=True)
class _Place:
    """Where this process is in the line for a session."""

    file: _File
    start: int
    rung: int = 0


def _offset(key: SessionKey) -> int:
    # Two sessions of one hash, one pair in 10^17, would take turns with each other.
    digest = blake2b(repr(tuple(key)).encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 5) * _RUNGS


def _identity_of(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
