"""Files to damage: what they hold, and which row lies on which pages, as SQLite itself says."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from google.adk.events import Event, EventActions
from google.genai import types

from sessiondb import DatabaseSessionService
from sessiondb.adk import scopes
from sessiondb.adk.events import decode_event
from sessiondb.stores.sqlite.repair.salvage import Format

PAGE = 4096
APP = "my_app"
SESSIONS = 200
DELETED = 20
TABLES = ("adk_sessions", "adk_events", "adk_state")
FORMAT = Format(decode_event, scopes.parse)

Rows: TypeAlias = dict[int, tuple[Any, ...]]


def user_of(number: int) -> str:
    return f"user_{number % 7}"


def event_of(number: int, turn: int) -> Event:
    """An event with a text of up to 10 kB, so that some rows need pages of their own, and with state of all scopes."""
    text = f"{number}.{turn} " * (1 + (number * 31 + turn * 7) % 8 * (1 + 200 * (turn == 3)))
    delta: dict[str, Any] = {"turn": turn, f"user:of_{number}": [turn], "app:latest": f"{number}.{turn}"}
    if turn:
        delta[f"gone_{turn - 1}"] = None
    delta[f"gone_{turn}"] = "x" * 50
    return Event(
        id=f"event_{number}_{turn}",
        invocation_id=f"inv_{turn}",
        author="agent",
        timestamp=1_700_000_000.0 + number + turn / 8,
        content=types.Content(role="model", parts=[types.Part(text=text)]),
        actions=EventActions(state_delta=delta),
    )


async def fill(path: Path) -> None:
    """Makes a database of 180 sessions, and as many free pages as 20 more had taken. All state is in the logs."""
    async with DatabaseSessionService(path) as service:
        for number in range(SESSIONS):
            session = await service.create_session(APP, user_of(number), f"s{number}")
            for turn in range(5):
                await service.append_event(session, event_of(number, turn))
            await service.update_keys(APP, user_of(number), f"s{number}", {"updated": True})
    with closing(sqlite3.connect(path)) as connection:
        # Some builds of SQLite overwrite what is deleted, and most do not: here it stays on the free pages.
        connection.execute("PRAGMA secure_delete=OFF")
        deleted = [(f"s{number}",) for number in range(DELETED)]
        connection.executemany("DELETE FROM adk_sessions WHERE session_id = ?", deleted)
        connection.commit()


def rows_of(path: Path) -> dict[str, Rows]:
    """Returns the rows of the tables by row id, read without indexes; those of state without their row ids."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as connection:
        return {
            table: {row[0]: row[1:] for row in connection.execute(f"SELECT rowid, * FROM {table} NOT INDEXED")}
            for table in TABLES
        }


def state_of(rows: Rows) -> set[tuple[Any, ...]]:
    """Returns rows of state without the time of their last change."""
    return {row[:-1] for row in rows.values()}


@dataclass(frozen=True)
class Layout:
    """Which pages a file has.

    Attributes:
        count: How many there are.
        rows: For each table, row ids to the pages that the row lies on.
        inner: Pages of the tables that hold no rows.
        indexes: Pages of indexes.
        free: Pages that are not in use.
    """

    count: int
    rows: dict[str, dict[int, set[int]]]
    inner: set[int]
    indexes: set[int]
    free: set[int]

    def surviving(self, table: str, damaged: Iterable[int]) -> set[int]:
        """Returns the ids of the rows that lie on other pages than these."""
        damaged = set(damaged)
        return {row_id for row_id, pages in self.rows[table].items() if not pages & damaged}

    def of_table(self, table: str) -> set[int]:
        """Returns the pages that rows of a table lie on."""
        return set().union(*self.rows[table].values())


def layout_of(path: Path) -> Layout:
    """Finds out which row lies where, from SQLite's own statistics of pages."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as connection:
        pages = connection.execute("SELECT name, path, pageno, pagetype, ncell FROM dbstat ORDER BY path").fetchall()
        (count,) = connection.execute("PRAGMA page_count").fetchone()
        ids = {
            table: [row[0] for row in connection.execute(f"SELECT rowid FROM {table} NOT INDEXED ORDER BY rowid")]
            for table in TABLES
        }
    rows: dict[str, dict[int, set[int]]] = {}
    for table in TABLES:
        remaining = iter(ids[table])
        cells: dict[tuple[str, int], set[int]] = {}
        rows[table] = {}
        for name, place, number, kind, size in pages:
            if name == table and kind == "leaf":
                for cell in range(size):
                    cells[place, cell] = rows[table][next(remaining)] = {number}
        for name, place, number, kind, _ in pages:
            if name == table and kind == "overflow":
                leaf, _, chain = place.rpartition("/")
                cells[f"{leaf}/", int(chain.partition("+")[0], 16)].add(number)
        assert not list(remaining)
    inner = {number for name, _, number, kind, _ in pages if name in TABLES and kind == "internal"}
    indexes = {
        number for name, _, number, _, _ in pages if name.startswith(("adk_events_", "adk_state_", "sqlite_auto"))
    }
    return Layout(count, rows, inner, indexes, set(range(1, count + 1)) - {number for _, _, number, _, _ in pages})


def overwrite(data: bytes, pages: Iterable[int], content: bytes) -> bytes:
    """Returns a file with some pages overwritten."""
    damaged = bytearray(data)
    for number in pages:
        damaged[(number - 1) * PAGE : number * PAGE] = content
    return bytes(damaged)
