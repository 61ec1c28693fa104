"""Reads the rows of a damaged database from its pages, without SQLite, which stops at the first page it cannot follow.

The file format is documented and fixed, see https://www.sqlite.org/fileformat2.html. Every leaf page of a table is read for
itself, whether or not a tree leads to it, so that damage anywhere costs the rows of the damaged pages and no others.
The WAL is taken into account, frame by frame. Files are only read.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple, TypeAlias

from sessiondb.stores.sqlite.connection import ClosedAtExit, closed_on_failure

Value: TypeAlias = "int | float | str | bytes | None"

_MAGIC = b"SQLite format 3\0"
_DEFAULT_PAGE_SIZE = 4096
_WAL_HEADER = struct.Struct(">8I")
_FRAME_HEADER = struct.Struct(">6I")
_WAL_MAGIC = 0x377F0682
"""The lowest bit says whether checksums are of big-endian words."""

_TABLE_LEAF = 13
_TABLE_INNER = 5
_TREE_KINDS = {2: 12, 5: 12, 10: 8, 13: 8}
"""Kinds of pages of a tree, and the length of their header."""

_LOCK_BYTE = 0x40000000
_PAYLOAD_LIMIT = 2**31 - 1
_NO_PAGE = 0


class Row(NamedTuple):
    """A row as it was found.

    Attributes:
        row_id: Its row id.
        columns: How many columns it has.
        values: Their values, in order; fewer than ``columns`` if the rest cannot be read. Text that is not UTF-8 comes
            as bytes.
    """

    row_id: int
    columns: int
    values: tuple[Value, ...]


class PageFile(ClosedAtExit):
    """The pages of a database file, with those of its WAL in their place; a context manager.

    Attributes:
        page_count: How many pages there are to look at.
        header_is_readable: Whether the file begins with the header of an SQLite database.
        free: The free pages, which hold rows that were deleted; empty if their list is damaged.
        deleted_may_return: Whether free pages cannot be told from others, neither by their list nor by the trees.
        skipped_frames: Frames of the WAL that are damaged; their pages are read as they were before.
    """

    def __init__(self, path: Path) -> None:
        """Opens the files for reading.

        Raises:
            OSError: If the database cannot be opened.
        """
        self._files = ExitStack()
        self._database = self._open(path)
        self._database_size = os.fstat(self._database).st_size
        self._in_wal: dict[int, tuple[int, int]] = {}
        self.skipped_frames = 0
        with closed_on_failure(self._files):
            head = os.pread(self._database, 100, 0)
            self.header_is_readable = _is_header(head)
            self._page_size = _page_size(head[16:18]) if self.header_is_readable else _DEFAULT_PAGE_SIZE
            committed_pages = self._read_wal(path.with_name(path.name + "-wal"))
            first = self._page(1) or b""
            self.header_is_readable = _is_header(first)
            self._usable = self._page_size - (first[20] if self.header_is_readable else 0)
            self.page_count = (
                committed_pages or self._pages_by_header(first) or -(-self._database_size // self._page_size)
            )
            self._overflow: set[int] = set()
            self._suspects: set[int] = set()
            known = self._read_free_list(first)
            self.free = known or set()
            self._leaves = self._walk_tables() if known is None else None
            self.deleted_may_return = known is None and self._leaves is None

    def close(self) -> None:
        """Closes the files. Idempotent."""
        self._files.close()

    def rows(self) -> Iterator[Row]:
        """Yields the rows of all tables, page by page."""
        for number in range(1, self.page_count + 1):
            if number in self.free or (number - 1) * self._page_size == _LOCK_BYTE:
                continue
            page = self._sane_page(number)
            if page is None:
                self._suspects.add(number)
            elif page[_start_of(number)] == _TABLE_LEAF and (self._leaves is None or number in self._leaves):
                yield from self._rows_of(number, page)

    def unreadable_pages(self) -> list[int]:
        """Returns the pages, once all rows were read, that are neither free nor of any kind there is."""
        return sorted(self._suspects - self._overflow)

    def _open(self, path: Path) -> int:
        descriptor = os.open(path, os.O_RDONLY)
        self._files.callback(os.close, descriptor)
        return descriptor

    def _page(self, number: int) -> bytes | None:
        """Returns a page; None if the file ends before its end."""
        file, offset = self._in_wal.get(number, (self._database, (number - 1) * self._page_size))
        page = os.pread(file, self._page_size, offset)
        return page if len(page) == self._page_size else None

    def _sane_page(self, number: int) -> bytes | None:
        """Returns a page if it can be of a tree or an overflow chain."""
        page = self._page(number)
        return page if page is not None and _is_sane(page, _start_of(number), self._usable) else None

    def _pages_by_header(self, first: bytes) -> int:
        """Returns the size that the header gives; 0 if it cannot be trusted."""
        if not self.header_is_readable or first[24:28] != first[92:96]:
            return 0
        return _number(first, 28)

    def _read_wal(self, path: Path) -> int:
        """Finds the latest committed version of each page in the WAL; returns the size of the database it gives, or 0."""
        try:
            wal = self._open(path)
        except FileNotFoundError:
            return 0
        head = os.pread(wal, _WAL_HEADER.size, 0)
        if len(head) < _WAL_HEADER.size:
            return 0
        magic, _, page_size, _, *salts, sum_1, sum_2 = _WAL_HEADER.unpack(head)
        if magic & ~1 != _WAL_MAGIC or _checksum(head[:24], bool(magic & 1), (0, 0)) != (sum_1, sum_2):
            return 0
        if not self.header_is_readable:
            self._page_size = page_size
        elif page_size != self._page_size:
            return 0
        committed_pages = 0
        pending: dict[int, tuple[int, int]] = {}
        damaged = 0
        before = (sum_1, sum_2)
        offset = _WAL_HEADER.size
        length = _FRAME_HEADER.size + page_size
        while len(frame := os.pread(wal, length, offset)) == length:
            number, commit, *frame_salts, sum_1, sum_2 = _FRAME_HEADER.unpack_from(frame)
            content = frame[:8] + frame[_FRAME_HEADER.size :]
            if frame_salts != salts or _checksum(content, bool(magic & 1), before) != (sum_1, sum_2):
                # Damaged, or left over from before the WAL was last reset.
                damaged += 1
            else:
                # Each frame's checksum goes on from the one before it: a damaged frame does not spoil its successors.
                pending[number] = (wal, offset + _FRAME_HEADER.size)
                if commit:
                    self._in_wal |= pending
                    pending.clear()
                    committed_pages = commit
                    self.skipped_frames += damaged
                    damaged = 0
            before = (sum_1, sum_2)
            offset += length
        return committed_pages

    def _read_free_list(self, first: bytes) -> set[int] | None:
        """Returns the free pages; None if their list is damaged anywhere."""
        if not self.header_is_readable:
            return None
        free: list[int] = []
        trunk, count = struct.unpack_from(">2I", first, 32)
        while trunk != _NO_PAGE and len(free) < count:
            page = self._page(trunk)
            if page is None:
                break
            free.append(trunk)
            trunk, leaves = struct.unpack_from(">2I", page)
            if leaves > self._usable // 4 - 2:
                break
            free += struct.unpack_from(f">{leaves}I", page, 8)
        known = set(free)
        if len(free) != count or len(known) != count or not all(1 < number <= self.page_count for number in known):
            return None
        return known

    def _walk_tables(self) -> set[int] | None:
        """Returns the leaf pages of all tables; None if a page that leads to some of them is damaged."""
        leaves = self._walk(1) if self.header_is_readable else None
        if leaves is None:
            return None
        for number in list(leaves):
            page = self._sane_page(number)
            if page is None:
                return None
            for row in self._rows_of(number, page):
                if row.values[:1] == ("table",):
                    found = self._walk(row.values[3])
                    if found is None:
                        return None
                    leaves |= found
        return leaves

    def _walk(self, root: Value) -> set[int] | None:
        """Returns the leaf pages of one table; all of them are on one level."""
        level = [root] if isinstance(root, int) else []
        while level:
            children: list[int] = []
            damaged = False
            for number in level:
                start = _start_of(number)
                page = self._sane_page(number) if 0 < number <= self.page_count else None
                if page is None:
                    damaged = True
                elif page[start] == _TABLE_LEAF:
                    return set(level)
                elif page[start] == _TABLE_INNER:
                    children += _children_of(page, start)
                elif level == [root] and page[start]:
                    # A table WITHOUT ROWID, which is kept as an index.
                    return set()
                else:
                    damaged = True
            if damaged:
                return None
            level = children
        return None

    def _rows_of(self, number: int, page: bytes) -> Iterator[Row]:
        for pointer in _pointers(page, _start_of(number)):
            try:
                row = self._row(page, pointer)
            except (IndexError, struct.error):
                row = None
            if row is None:
                self._suspects.add(number)
            else:
                yield row

    def _row(self, page: bytes, offset: int) -> Row | None:
        size, offset = _varint(page, offset)
        row_id, offset = _varint(page, offset)
        if not 0 < size <= _PAYLOAD_LIMIT:
            return None
        local = size
        if size > self._usable - 35:
            least = (self._usable - 12) * 32 // 255 - 23
            local = least + (size - least) % (self._usable - 4)
            if local > self._usable - 35:
                local = least
        payload = page[offset : min(offset + local, self._usable)]
        if local < size and len(payload) == local:
            payload += self._overflow_of(_number(page, offset + local), size - local)
        return Row(row_id, *_decode(payload))

    def _overflow_of(self, number: int, size: int) -> bytes:
        """Returns what a chain of overflow pages holds, as far as it can be followed."""
        parts = []
        chain: dict[int, None] = {}
        while size > 0 and 0 < number <= self.page_count and number not in self.free and number not in chain:
            page = self._page(number)
            if page is None:
                break
            chain[number] = None
            part = page[4 : min(4 + size, self._usable)]
            parts.append(part)
            size -= len(part)
            number = _number(page, 0)
        if size == 0 and number == _NO_PAGE:
            self._overflow.update(chain)
            return b"".join(parts)
        # Where in the chain it went wrong is not known: what follows the local part cannot be trusted.
        return b""


def _is_header(head: bytes) -> bool:
    return len(head) >= 100 and head.startswith(_MAGIC) and _page_size(head[16:18]) in {2**n for n in range(9, 17)}


def _page_size(field: bytes) -> int:
    size = int.from_bytes(field, "big")
    return 65536 if size == 1 else size


def _is_sane(page: bytes, start: int, usable: int) -> bool:
    """Whether a page can be of a tree or an overflow chain; the latter begin with the number of a page."""
    kind = page[start]
    if kind in _TREE_KINDS:
        first = start + _TREE_KINDS[kind] + 2 * _cell_count(page, start)
        return first <= usable and all(first <= pointer < usable for pointer in _pointers(page, start))
    return kind == 0 and start == 0 and page.count(0) < len(page)


def _start_of(number: int) -> int:
    """Returns where the header of a page of a tree begins: on the first one, after that of the file."""
    return 100 if number == 1 else 0


def _cell_count(page: bytes, start: int) -> int:
    return int.from_bytes(page[start + 3 : start + 5], "big")


def _pointers(page: bytes, start: int) -> tuple[int, ...]:
    """Returns where on a page of a tree its cells are."""
    return struct.unpack_from(f">{_cell_count(page, start)}H", page, start + _TREE_KINDS[page[start]])


def _children_of(page: bytes, start: int) -> list[int]:
    children = (_number(page, pointer) for pointer in _pointers(page, start) if pointer + 4 <= len(page))
    return [*children, _number(page, start + 8)]


def _number(page: bytes, offset: int) -> int:
    return int(struct.unpack_from(">I", page, offset)[0])


def _varint(data: bytes, offset: int) -> tuple[int, int]:
    """Returns a number and the offset after it; numbers of nine bytes are signed."""
    value = 0
    for index in range(offset, offset + 8):
        byte = data[index]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, index + 1
    value = value << 8 | data[offset + 8]
    return value - (value >> 63 << 64), offset + 9


_INTEGER_SIZES = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}
_FLOAT = 7
_CONSTANTS = {0: None, 8: 0, 9: 1}


def _decode(payload: bytes) -> tuple[int, tuple[Value, ...]]:
    """Returns how many columns a record has, and those of them that the payload holds.

    Raises:
        IndexError: If the payload ends within the record's header.
    """
    header_size, offset = _varint(payload, 0)
    kinds = []
    while offset < header_size:
        kind, offset = _varint(payload, offset)
        kinds.append(kind)
    values: list[Value] = []
    for kind in kinds:
        if kind in _CONSTANTS:
            values.append(_CONSTANTS[kind])
            continue
        size = _INTEGER_SIZES.get(kind) or (8 if kind == _FLOAT else (kind - 12) // 2)
        data = payload[offset : offset + size]
        offset += size
        if size < 0 or len(data) < size:
            break
        values.append(_value(kind, data))
    return len(kinds), tuple(values)


def _value(kind: int, data: bytes) -> Value:
    if kind in _INTEGER_SIZES:
        return int.from_bytes(data, "big", signed=True)
    if kind == _FLOAT:
        return float(struct.unpack(">d", data)[0])
    if kind % 2 == 0:
        return data
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def _checksum(data: bytes, big_endian: bool, before: tuple[int, int]) -> tuple[int, int]:
    """Returns the checksum of a WAL, which goes on from the one before."""
    sum_1, sum_2 = before
    words = struct.unpack(f"{'>' if big_endian else '<'}{len(data) // 4}I", data)
    for index in range(0, len(words), 2):
        sum_1 = sum_1 + words[index] + sum_2 & 0xFFFFFFFF
        sum_2 = sum_2 + words[index + 1] + sum_1 & 0xFFFFFFFF
    return sum_1, sum_2
