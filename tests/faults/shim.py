"""Control of the preload shim (``shim.c``) from inside the process that it was loaded into, and what it records."""

from __future__ import annotations

import ctypes
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

SOURCE = Path(__file__).with_name("shim.c")

KILL_BEFORE, KILL_AFTER, KILL_TORN = -1, -2, -3
FOR_EVER = -1

OPEN, WRITE, TRUNCATE, SYNC, UNLINK, MKDIR, MARK, LOCK = "O", "W", "T", "S", "U", "D", "M", "L"

_HEAD = struct.Struct("<ciqI")
_LOCK = struct.Struct("<iq")


class Record(NamedTuple):
    """One call that the shim saw; what the fields mean for each operation stands in ``shim.c``."""

    operation: str
    descriptor: int
    number: int
    payload: bytes

    @property
    def text(self) -> str:
        """The payload as a path."""
        return os.fsdecode(self.payload)

    @property
    def lock(self) -> tuple[int, int, int]:
        """Type (``fcntl.F_RDLCK`` ...), first byte and length of a lock that was taken or given up."""
        kind, length = _LOCK.unpack(self.payload)
        return kind, self.number, length


def compile_shim(folder: Path) -> Path | None:
    """Compiles the shim into ``folder``; None if there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    library = folder / "shim.so"
    subprocess.run(
        [compiler, "-O2", "-Wall", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl", "-lpthread"],
        check=True,
        capture_output=True,
        text=True,
    )
    return library


class Shim:
    """The shim of this process, which must have been started with it."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None)
        self._library.faults_mark.argtypes = [ctypes.c_int64]
        self._library.faults_counted.restype = ctypes.c_long
        self._library.faults_injected.restype = ctypes.c_long
        self._library.faults_arm.argtypes = [
            ctypes.c_char_p,
            ctypes.c_char_p,
            ctypes.c_long,
            ctypes.c_long,
            ctypes.c_int,
        ]
        self._library.faults_hold.argtypes = [ctypes.c_char]
        self._library.faults_stop_at_lock.argtypes = [ctypes.c_int64]

    def watch(self, folder: Path, log: Path | None = None) -> None:
        """Begins with the files that are opened in ``folder`` from now on; records to the file ``log``, if given."""
        descriptor = -1 if log is None else os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        self._library.faults_watch(os.fsencode(folder), descriptor)

    def mark(self, number: int) -> None:
        """Puts a mark between the records."""
        self._library.faults_mark(number)

    def arm(self, operations: str, action: int, *, nth: int = 1, times: int = 1, name: str = "") -> None:
        """Chooses calls to fail: the ``nth`` from now on, and as many in a row.

        Args:
            operations: Which calls, as letters of ``WRITE``, ``SYNC``, ``TRUNCATE`` and ``OPEN`` (of new files).
            action: An errno, or one of ``KILL_BEFORE``, ``KILL_AFTER``, ``KILL_TORN``.
            nth: The first one to fail, counted from 1.
            times: How many fail, or ``FOR_EVER``.
            name: Only calls on files whose path ends with this.
        """
        self._library.faults_arm(operations.encode(), name.encode(), nth, times, action)

    def disarm(self) -> None:
        """Lets all calls through, and counts none."""
        self._library.faults_arm(b"", b"", 1, 0, 0)

    @property
    def counted(self) -> int:
        """Calls that ``arm`` was about, since then."""
        return int(self._library.faults_counted())

    @property
    def injected(self) -> int:
        """Calls that were made to fail, since then."""
        return int(self._library.faults_injected())

    def hold(self, operation: str) -> None:
        """Holds up every call of a kind until :meth:`release`."""
        self._library.faults_hold(operation.encode())

    def stop_at_lock(self, first: int) -> None:
        """Has the thread that next takes an exclusive lock beginning at byte ``first`` stop (SIGSTOP) once it has it."""
        self._library.faults_stop_at_lock(first)

    def release(self) -> None:
        """Lets the calls go on that :meth:`hold` holds up."""
        self._library.faults_release()


def read_log(path: Path) -> Iterator[Record]:
    """Reads what a shim recorded."""
    data = path.read_bytes()
    position = 0
    while position + _HEAD.size <= len(data):
        operation, descriptor, number, length = _HEAD.unpack_from(data, position)
        position += _HEAD.size
        yield Record(operation.decode(), descriptor, number, data[position : position + length])
        position += length
