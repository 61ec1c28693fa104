"""Rows of a damaged file that are what rows of the three tables can be, collected in a database aside."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from sessiondb.errors import CorruptRowError
from sessiondb.model import columns
from sessiondb.model.event_identity import event_hash
from sessiondb.model.records import EventRow, SessionKey
from sessiondb.model.soundness import DecodeEvent
from sessiondb.stores.sqlite import schema
from sessiondb.stores.sqlite.connection import open_scratch
from sessiondb.stores.sqlite.new_file import create_private
from sessiondb.stores.sqlite.repair.pages import Row, Value
from sessiondb.stores.sqlite.sql import names

ParseKey: TypeAlias = Callable[[str], tuple[str, str]]
"""Splits a key of a state delta into its scope and its name there."""

SESSIONS, EVENTS, STATE = "adk_sessions", "adk_events", "adk_state"


def _present_columns() -> dict[str, tuple[str, ...]]:
    listed = "SELECT name FROM pragma_table_info(?)"
    with closing(schema.empty_database()) as database:
        return {
            table: tuple(name for (name,) in database.execute(listed, (table,))) for table in (SESSIONS, EVENTS, STATE)
        }


COLUMNS = _present_columns()
"""The columns of the tables, in their order there."""

_OTHER_TABLES = (5, 2, 3, 1)
"""Columns of the tables that SQLite keeps beside ours (sqlite_schema, sqlite_sequence, sqlite_stat1), and of the index of texts,
which is made anew of what is saved."""

_COUNT_LIMIT = 2**48
"""No file holds as many rows; a number above it is damaged."""

Range: TypeAlias = tuple[int, int]


class Format(NamedTuple):
    """What is to be known about events, which a store does not know."""

    decode: DecodeEvent
    parse_key: ParseKey


@dataclass(frozen=True, slots=True)
class Tally:
    """How it went with the rows of a table.

    Attributes:
        saved: Rows in the new file.
        rejected: Rows that were found, but damaged, or that contradict others.
        rejected_ids: Their row ids, as ranges; as far as they are known.
    """

    saved: int
    rejected: int
    rejected_ids: tuple[Range, ...]


_KEY = names(columns.SESSION_KEY)
_FIRST_WIDTH = 10
"""Columns of a session's row that was written by a release of schema version 1, and not since: the others are NULL."""

_STAGED = tuple(column for column in COLUMNS[SESSIONS] if column != "log_epoch")
BEGINNING = COLUMNS[SESSIONS][_FIRST_WIDTH:]
"""The columns that came with version 2."""
_STAGING = f"""
CREATE TABLE sessions ({names(_STAGED)}, PRIMARY KEY ({_KEY}));
CREATE TABLE events (id INTEGER PRIMARY KEY, {names(COLUMNS[EVENTS][1:])});
CREATE INDEX events_log ON events ({_KEY}, incarnation);
CREATE TABLE state ({names(COLUMNS[STATE])}, PRIMARY KEY (scope, {_KEY}, state_key));
CREATE TABLE replayed ({names(COLUMNS[STATE])}, PRIMARY KEY (scope, {_KEY}, state_key));
CREATE TABLE incarnations ({_KEY}, incarnation, PRIMARY KEY ({_KEY}));
CREATE TABLE results (
    {_KEY}, created_at, updated_at, update_time, old_incarnation, incarnation, events, last_seq,
    recreated, {names(BEGINNING)}, PRIMARY KEY ({_KEY})
);
"""
# A page of the WAL that is damaged makes an older version of that page be read: of two versions of one row, the newer
# one is kept. Ids that are NULL are kept as '' here, where the scope tells the cases apart.
_FOUND_SESSION = f"""
INSERT INTO sessions VALUES ({names("?" * len(_STAGED))})
    ON CONFLICT DO UPDATE SET {names(f"{column} = excluded.{column}" for column in _STAGED[3:])}
    WHERE (excluded.incarnation, excluded.last_seq) > (incarnation, last_seq)
"""
_FOUND_EVENT = f"INSERT OR IGNORE INTO events VALUES ({names('?' * len(COLUMNS[EVENTS]))})"
_FOUND_STATE = """
INSERT INTO state VALUES (?, coalesce(?, ''), coalesce(?, ''), ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET state_value = excluded.state_value, updated_at = excluded.updated_at
    WHERE excluded.updated_at > updated_at
"""


def open_staging(path: Path) -> sqlite3.Connection:
    """Creates the database aside."""
    create_private(path)
    connection = open_scratch(path)
    connection.executescript(_STAGING)
    return connection


@dataclass
class Found:
    """Rows that were found in the damaged file, on their way into the database aside."""

    staging: sqlite3.Connection
    log_format: Format
    any: bool = False
    passed_over: int = 0
    rejected_ids: dict[str, set[int]] = field(default_factory=dict)

    def collect(self, rows: Iterable[Row]) -> None:
        """Keeps those that are whole and of one of the tables."""
        takers = {
            _FIRST_WIDTH: (SESSIONS, self._take_session),
            len(COLUMNS[SESSIONS]): (SESSIONS, self._take_session),
            len(COLUMNS[EVENTS]): (EVENTS, self._take_event),
            len(COLUMNS[STATE]): (STATE, self._take_state),
        }
        self.staging.execute("BEGIN")
        for row in rows:
            # Tables are told apart by how many columns they have: the page that knows their names may be lost.
            if row.columns not in takers:
                self.passed_over += row.columns not in _OTHER_TABLES
                continue
            table, take = takers[row.columns]
            if len(row.values) == row.columns and take(row):
                self.any = True
            else:
                self.reject(table, row.row_id)
        self.staging.execute("COMMIT")

    def reject(self, table: str, row_id: int) -> None:
        """Notes a row that cannot be kept."""
        self.rejected_ids.setdefault(table, set()).add(row_id)

    def tally(self, table: str, saved: int) -> Tally:
        """Returns what became of the rows of a table."""
        rejected = sorted(self.rejected_ids.get(table, ()))
        return Tally(saved, len(rejected), ranges_of(rejected))

    def _take_session(self, row: Row) -> bool:
        *texts, update_time, incarnation, revision, last_seq, log_epoch = row.values[:_FIRST_WIDTH]
        numbers = (incarnation, revision, last_seq, log_epoch)
        if not (_are_texts(texts) and _is_time(update_time) and _are_counts(numbers)):
            return False
        beginning = row.values[_FIRST_WIDTH:] or (None,) * len(BEGINNING)
        initial_state, begun_after, forked_user_id, forked_session_id, forked_seq = beginning
        if not (
            (initial_state is None or (_are_texts([initial_state]) and _is_json(str(initial_state))))
            and (begun_after is None or _are_counts([begun_after]))
            and (
                all(value is None for value in beginning[2:])
                or (_are_texts([forked_user_id, forked_session_id]) and _are_counts([forked_seq]))
            )
        ):
            return False
        row_of_session = (*texts, _float(update_time), incarnation, revision, last_seq, *beginning)
        self.staging.execute(_FOUND_SESSION, row_of_session)
        return True

    def _take_event(self, row: Row) -> bool:
        # The id is the row id, and is kept as such only.
        values: dict[str, Any] = {**dict(zip(COLUMNS[EVENTS], row.values, strict=True)), "id": row.row_id}
        key = SessionKey(*(values[column] for column in columns.SESSION_KEY))
        texts = (*key, *(values[column] for column in ("invocation_id", "author", "timestamp", "actions", "event_id")))
        if not (
            _are_texts([*texts, *(text for text in (values["content"], values["extra"]) if text is not None)])
            and _are_counts((values["seq"], values["revision"], values["incarnation"]))
            and _is_time(values["event_time"])
            and values["event_hash"] == event_hash(values["event_id"])
        ):
            return False
        values["event_time"] = _float(values["event_time"])
        try:
            self.log_format.decode(EventRow._make(values[column] for column in columns.EVENT_ROW), key)
        except CorruptRowError:
            return False
        self.staging.execute(_FOUND_EVENT, tuple(values.values()))
        return True

    def _take_state(self, row: Row) -> bool:
        app_name, user_id, session_id, scope, key, value, updated_at = row.values
        owner = {"SESSION": (user_id, session_id), "USER": (user_id,), "APP": ()}.get(str(scope))
        if owner is None or (user_id is not None) + (session_id is not None) != len(owner):
            return False
        if not _are_texts([app_name, *owner, key, value, updated_at]) or not _is_json(str(value)):
            return False
        self.staging.execute(_FOUND_STATE, row.values)
        return True


def _are_texts(values: Iterable[Value]) -> bool:
    return all(type(value) is str for value in values)


def _are_counts(values: Iterable[Value]) -> bool:
    return all(type(value) is int and 0 <= value < _COUNT_LIMIT for value in values)


def _is_time(value: Value) -> bool:
    # A float without a fraction is stored as a whole number.
    return type(value) in (int, float) and math.isfinite(_float(value))


def _float(value: Value) -> float:
    return float(value or 0)


def _is_json(text: str) -> bool:
    try:
        json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def ranges_of(numbers: Sequence[int]) -> tuple[Range, ...]:
    """Returns ascending numbers as ranges."""
    ranges: list[Range] = []
    for number in numbers:
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1] = (ranges[-1][0], number)
        else:
            ranges.append((number, number))
    return tuple(ranges)
