"""Whether the files that are open are still the ones at their path."""

from __future__ import annotations

import os
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
        """Returns the size of the WAL, in bytes.

        Raises:
            FileLostError: If the database or its WAL was removed, replaced or renamed since it was opened.
        """
        found = self._stat()
        for file, known, now in zip(self._files, self._known, found, strict=True):
            if known != _identity_of(now):
                what = "removed" if now is None else "replaced"
                raise FileLostError(
                    f"{file!r} was {what} while it was open: what is written would be lost. Put the file back, or"
                    " close the service and open it anew"
                )
        wal = found[1]
        return 0 if wal is None else wal.st_size

    def _stat(self) -> list[os.stat_result | None]:
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
