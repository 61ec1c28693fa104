"""Whether the files that are open are still the ones at their path."""

from __future__ import annotations

import fcntl
import os
import struct
from contextlib import suppress
from pathlib import Path

from sessiondb.errors import FileLostError


class FileIdentity:
    """Tells whether the files that a connection has open are still the ones at their path.

    SQLite goes on writing to a file that was removed or replaced, and nobody would ever read it again.
    """

    def __init__(self, path: Path) -> None:
        # As text: they are looked up with every batch.
        self._files = (str(path), f"{path}-wal")
        self._known = list(map(_identity_of, self._stat()))

    def check(self) -> int:
        """Looks whether database and WAL are the ones that were opened; returns the size of the WAL, in bytes."""
        found = self._stat()
        for file, known, now in zip(self._files, self._known, found, strict=True):
            if known != _identity_of(now):
                what = "removed" if now is None else "replaced"
                raise FileLostError(
                    f"{file!r} was {what} while it was open: what is written would be lost. {self._advice()}"
                )
        wal = found[1]
        return 0 if wal is None else wal.st_size

    def only_wal_is_missing(self) -> bool:
        """Whether the database is in its place, and at the path of its WAL is nothing."""
        database, wal = self._stat()
        return wal is None and _identity_of(database) == self._known[0]

    def _advice(self) -> str:
        if self.only_wal_is_missing():
            return (
                "What was acknowledged has been moved into the database as far as its readers allow. End every process that"
                " has it open with SIGTERM, never SIGKILL, and start them again"
            )
        return "Put the file back, or close the service and open it anew"

    def _stat(self) -> list[os.stat_result | None]:
        return [_status(file) for file in self._files]


def lost_file(path: Path, identity: tuple[int, int]) -> FileLostError | None:
    """Returns the error for a reader of a file that is no longer at its path, or whose WAL is gone; None if all is there.

    ``identity`` is device and inode of the file that was opened.
    """
    now = _status(path)
    if _identity_of(now) != identity:
        what = "removed" if now is None else "replaced"
        return FileLostError(
            f"{str(path)!r} was {what} while it was open. Put the file back, or close the service and open it anew"
        )
    if _status(f"{path}-wal") is None:
        return FileLostError(
            f"the write-ahead log of {str(path)!r} was removed while it was open. Close the service and open it anew"
        )
    return None


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
    return _descriptor_of(path) is not None


def process_with(path: Path) -> int | None:
    """Returns the id of a process that has a database in WAL mode open, this one included; None if there is none."""
    descriptor = _descriptor_of(path)
    if descriptor is not None:
        return os.getpid() if _is_in_wal_mode(descriptor) else None
    # Nobody of this process has the file open, so closing it gives up nobody's locks.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        asked = _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, *_SHARED_LOCK, 0)
        kind, *_, process = _LOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
        return process if kind != fcntl.F_UNLCK and _is_in_wal_mode(descriptor) else None
    finally:
        os.close(descriptor)


_SHARED_LOCK = (0x40000002, 510)
"""Start and length of the bytes that SQLite keeps locked in a database file for as long as it has it open in WAL mode."""

_LOCK = struct.Struct("@hhqqi4x")
"""What the system calls ``struct flock``: kind, from where, start, length, process."""


def _is_in_wal_mode(descriptor: int) -> bool:
    return os.pread(descriptor, 2, 18) == b"\2\2"


def _descriptor_of(path: Path) -> int | None:
    """Returns a descriptor of this process for a file; None if there is none."""
    wanted = _identity_of(_status(path))
    for name in os.listdir("/dev/fd"):  # noqa: PTH208  # names of descriptors, not paths
        # One of them lists the folder, and is closed by now.
        with suppress(OSError):
            if _identity_of(os.fstat(int(name))) == wanted:
                return int(name)
    return None
