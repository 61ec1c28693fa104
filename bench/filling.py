"""Fills a file at once, in a fraction of the time that appends take, with the rows that a service would have written."""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from bench import data
from sessiondb import DatabaseSessionService
from sessiondb.adk.events import encode_event, timestamp_text
from sessiondb.adk.state import encode_delta
from sessiondb.model.columns import EVENT_RECORD, SESSION_KEY
from sessiondb.model.event_identity import event_hash
from sessiondb.model.records import EventRecord

SESSIONS_OF_A_USER = 100
_AT_ONCE = 64
"""Conversations under way at the same time, so that the events of one are as far apart in the file as on a server."""
_BEGAN = 1_750_000_000.0
_SECONDS_APART = 0.01

_EVENT = (*SESSION_KEY, "seq", "revision", "incarnation", "event_hash", *EVENT_RECORD)
_INSERT_EVENT = f"INSERT INTO adk_events ({', '.join(_EVENT)}) VALUES ({', '.join('?' * len(_EVENT))})"
_SESSION = (*SESSION_KEY, "created_at", "updated_at", "update_time", "incarnation", "revision", "last_seq")
_INSERT_SESSION = f"INSERT INTO adk_sessions ({', '.join(_SESSION)}) VALUES ({', '.join('?' * len(_SESSION))})"
_INSERT_STATE = "INSERT INTO adk_state VALUES (?, ?, ?, ?, ?, ?, ?)"


def key_of(session: int) -> tuple[str, str, str]:
    """The app, user and id of a session."""
    return data.APP, f"user{session // SESSIONS_OF_A_USER}", f"s{session}"


async def fill(path: Path, sessions: int, per_session: int, progress: Callable[[int], object]) -> None:
    """Fills a new file.

    Args:
        path: The file.
        sessions: How many sessions it gets.
        per_session: How many events each of them gets.
        progress: Called with how many events have come since it was last called.
    """
    async with DatabaseSessionService(path):
        pass
    events = [data.event() for _ in range(per_session)]
    records = [encode_event(event).record for event in events]
    last = encode_delta(events[-1].actions.state_delta).stored
    assert last.session_set is not None
    assert last.user_set is not None
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        # Nothing of it is worth anything before it is complete.
        connection.execute("PRAGMA synchronous=OFF")
        for first in range(0, sessions, _AT_ONCE):
            numbers = range(first, min(first + _AT_ONCE, sessions))
            began = _BEGAN + first * per_session * _SECONDS_APART
            ended = began + len(numbers) * per_session * _SECONDS_APART
            now = timestamp_text(ended)
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(
                _INSERT_SESSION,
                ((*key_of(n), timestamp_text(began), now, ended, n + 1, per_session, per_session) for n in numbers),
            )
            connection.executemany(_INSERT_EVENT, _rows(numbers, records, began))
            for n in numbers:
                app, user, session = key_of(n)
                state: list[tuple[str | None, ...]] = [
                    (app, user, session, "SESSION", name, value, now) for name, value in _items(last.session_set)
                ]
                if n % SESSIONS_OF_A_USER == 0:
                    state += [(app, user, None, "USER", name, value, now) for name, value in _items(last.user_set)]
                connection.executemany(_INSERT_STATE, state)
            connection.execute("COMMIT")
            progress(len(numbers) * per_session)
        connection.execute("UPDATE sessiondb_meta SET value = ? WHERE name = 'incarnations'", (sessions,))
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _rows(numbers: range, records: list[EventRecord], began: float) -> Iterator[tuple[object, ...]]:
    time = began
    for seq, record in enumerate(records, start=1):
        for n in numbers:
            time += _SECONDS_APART
            event_id = str(uuid.UUID(int=n << 64 | seq))
            renewed = record._replace(event_id=event_id, time=time, timestamp=timestamp_text(time))
            yield (*key_of(n), seq, seq, n + 1, event_hash(event_id), *renewed)


def _items(values: str) -> Iterator[tuple[str, str]]:
    items: dict[str, str] = json.loads(values)
    return iter(items.items())
