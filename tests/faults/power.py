"""Power cuts, simulated: from a record of a process's own I/O, what a disk may hold after the power has failed.

The model is the harsh one: of what was written to a file since its last sync, any part may be on the disk, sector by
sector; a truncation or an extension since then may be undone; a file that was created or removed since the last sync
of its folder may be missing or back again.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.shim import MARK, MKDIR, OPEN, SYNC, TRUNCATE, UNLINK, WRITE, Record

SECTORS = (512, 4096)


@dataclass(frozen=True, slots=True)
class Write:
    """Data written at an offset."""

    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Truncate:
    """A new length."""

    length: int


@dataclass(slots=True, eq=False)
class File:
    """A file: what is surely on the disk, and what came since."""

    synced: bytearray = field(default_factory=bytearray)
    pending: list[Write | Truncate] = field(default_factory=list)

    def sync(self) -> None:
        """All of it is on the disk from now on."""
        for change in self.pending:
            _apply(self.synced, change)
        self.pending.clear()

    def survive(self, rng: random.Random) -> bytes:
        """Returns what may be left of it after a cut at this moment."""
        if not self.pending:
            return bytes(self.synced)
        image = bytearray(self.synced)
        fate = rng.random()
        if fate < 0.1:
            return bytes(image)
        # Writes reach the disk in any order, and by sectors; the share that does differs from cut to cut.
        share = 1.0 if fate < 0.2 else rng.random()
        sector = rng.choice(SECTORS)
        whole = rng.random() < 0.4
        for change in self.pending:
            if isinstance(change, Truncate) or whole:
                if rng.random() < share:
                    _apply(image, change)
                continue
            for start in range(0, len(change.data), sector):
                if rng.random() < share:
                    _apply(image, Write(change.offset + start, change.data[start : start + sector]))
        return bytes(image)


class Disk:
    """The files of one folder, as a record of calls goes by."""

    def __init__(self) -> None:
        self._open: dict[int, File | str] = {}
        self._names: dict[str, File] = {}
        self._synced_names: dict[str, File] = {}
        self.unsynced_folders: set[str] = set()

    def apply(self, record: Record) -> None:
        """Goes one call further."""
        match record.operation:
            case "O":
                self._opened(record)
            case "W":
                self._file(record).pending.append(Write(record.number, record.payload))
            case "T":
                self._file(record).pending.append(Truncate(record.number))
            case "S":
                self._sync(record.descriptor)
            case "U":
                self._names.pop(record.text, None)
            case "D":
                self.unsynced_folders.add(record.text)

    def survive(self, rng: random.Random) -> dict[str, bytes]:
        """Returns the files that may be left after a cut at this moment, by path."""
        left: dict[str, bytes] = {}
        for name in self._names.keys() | self._synced_names.keys():
            new, old = self._names.get(name), self._synced_names.get(name)
            file = new if new is old or rng.random() < 0.5 else old
            if file is not None:
                left[name] = file.survive(rng)
        return left

    def _opened(self, record: Record) -> None:
        path = record.text
        if path.endswith((".sqlite3", "-wal", "-journal")):
            if record.number:
                self._names[path] = File()
            self._open[record.descriptor] = self._names[path]
        else:
            # The shared-memory file, which recovery makes anew, or a folder.
            self._open[record.descriptor] = path

    def _file(self, record: Record) -> File:
        file = self._open[record.descriptor]
        return File() if isinstance(file, str) else file

    def _sync(self, descriptor: int) -> None:
        file = self._open[descriptor]
        if isinstance(file, File):
            file.sync()
            return
        for names in (self._names, self._synced_names):
            for name in [name for name in names if str(Path(name).parent) == file]:
                if name in self._names:
                    self._synced_names[name] = self._names[name]
                else:
                    del self._synced_names[name]
        self.unsynced_folders -= {folder for folder in self.unsynced_folders if str(Path(folder).parent) == file}


def cuts(
    records: list[Record], many: int, rng: random.Random, first: int = 0
) -> Iterator[tuple[dict[str, bytes], int]]:
    """Cuts the power at ``many`` random moments, in order of time.

    Args:
        records: What the shim recorded.
        many: How many cuts.
        rng: Where the moments and what survives them come from.
        first: No cut before this record.

    Yields:
        The files that are left, by path, and how many marks there were before the cut.
    """
    moments = sorted(rng.randrange(first, len(records) + 1) for _ in range(many))
    disk = Disk()
    done = marks = 0
    for moment in moments:
        for record in records[done:moment]:
            disk.apply(record)
            marks += record.operation == MARK
        done = moment
        yield disk.survive(rng), marks


def _apply(image: bytearray, change: Write | Truncate) -> None:
    if isinstance(change, Truncate):
        if change.length < len(image):
            del image[change.length :]
        else:
            image.extend(bytes(change.length - len(image)))
        return
    if len(image) < change.offset:
        image.extend(bytes(change.offset - len(image)))
    image[change.offset : change.offset + len(change.data)] = change.data


__all__ = ["MKDIR", "OPEN", "SYNC", "TRUNCATE", "UNLINK", "WRITE", "Disk", "File", "cuts"]
