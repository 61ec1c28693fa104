"""Counts the rows of a table: exactly up to a bound, beyond it by a look at some stretches of its row ids.

SQLite keeps no count, and ``count(*)`` reads a whole index. Row ids are given one after the other, so a table has as many
rows as its row ids are apart, less what was deleted; and that is what is estimated. Where nothing was deleted the
estimate is exact. The places that are looked at do not move while a table grows, so that two estimates differ by what came
in between.
"""

from __future__ import annotations

import json
import sqlite3

_STRETCHES = 256
"""At least half as many, and at most so many, are looked into."""

_LOOK = 8
"""Row ids that are looked at in each, where rows are not sparse."""

_MULTIPLIER = 0x9E3779B1
"""Of multiplicative hashing: the place within a stretch looks random, and stays the same."""


def count_rows(connection: sqlite3.Connection, table: str, exact_up_to: int) -> tuple[int, bool]:
    """Counts the rows of a table, in a snapshot that the caller has begun.

    Returns:
        How many rows there are, and whether that is an estimate.

    Raises:
        sqlite3.Error: If SQLite refuses.
    """
    bounded = f"SELECT count(*) FROM (SELECT 1 FROM {table} LIMIT ?)"
    rows: int = connection.execute(bounded, (exact_up_to + 1,)).fetchone()[0]
    if rows <= exact_up_to:
        return rows, False
    return max(rows, _estimate(connection, table)), True


def _estimate(connection: sqlite3.Connection, table: str) -> int:
    low: int
    high: int
    found: int
    # Both in one SELECT, without these of their own, would read the whole table.
    ends = f"SELECT (SELECT min(rowid) FROM {table}), (SELECT max(rowid) FROM {table})"
    low, high = connection.execute(ends).fetchone()
    bits, starts = _stretches(connection, table, low, high)
    size = 1 << bits
    found_at = f"""
        SELECT count(*) FROM json_each(?) AS place CROSS JOIN {table} AS held
         WHERE held.rowid BETWEEN place.value AND place.value + ?
    """
    look = min(_LOOK, size)
    while True:
        places = [start + (start >> bits) * _MULTIPLIER % (size - look + 1) for start in starts]
        places = [place for place in places if low <= place and place + look - 1 <= high]
        (found,) = connection.execute(found_at, (json.dumps(places), look - 1)).fetchone()
        if found >= len(places) or look == size:
            break
        # Few are left, so that a longer look meets no more rows than this one was to meet.
        look = min(look * _LOOK, size)
    # The first and the last stretch hold the ends.
    row_ids = len(starts) * size - (low - starts[0]) - (starts[-1] + size - 1 - high)
    return int(row_ids - (len(places) * look - found) * size // look)


def _stretches(connection: sqlite3.Connection, table: str, low: int, high: int) -> tuple[int, list[int]]:
    """Cuts the row ids into stretches, and leaves out empty ones: what is left of a table may be a small part of them.

    Returns:
        The size of a stretch, as a power of two, and where those begin that hold a row; each at a multiple of its size.
    """
    held = f"""
        SELECT value FROM json_each(?) AS start
         WHERE EXISTS (SELECT 1 FROM {table} AS held WHERE held.rowid BETWEEN start.value AND start.value + ?)
    """
    bits = max((high - low).bit_length() - _STRETCHES.bit_length() + 1, 0)
    starts = [n << bits for n in range(low >> bits, (high >> bits) + 1)]
    while True:
        last = (1 << bits) - 1
        starts = [start for (start,) in connection.execute(held, (json.dumps(starts), last))]
        finer = min((_STRETCHES // len(starts)).bit_length() - 1, bits)
        if finer <= 0:
            return bits, starts
        bits -= finer
        starts = [start + (n << bits) for start in starts for n in range(1 << finer)]
