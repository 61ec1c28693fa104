"""Brings what is readable of a damaged file into a new one, and makes it consistent there.

The damaged file is read page by page (:mod:`sessiondb.sqlite.pages`) and never opened by SQLite. Rows that are what rows
of the three tables can be are collected in a database aside; from there the new file is filled.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from sessiondb.errors import CorruptRowError, DatabaseBusyError, DatabaseCorruptError, StorageError
from sessiondb.records import EventRow, SessionKey
from sessiondb.sqlite import schema
from sessiondb.sqlite.connection import is_open_here, open_writer, translate
from sessiondb.sqlite.inspection import DecodeEvent, check
from sessiondb.sqlite.new_file import check_target, create_private, private_folder, publish
from sessiondb.sqlite.pages import PageFile, Row, Value
from sessiondb.sqlite.statements import event_hash

ParseKey: TypeAlias = Callable[[str], tuple[str, str]]
"""Splits a key of a state delta into its scope and its name there."""

_SESSIONS, _EVENTS, _STATE = "adk_sessions", "adk_events", "adk_state"
_STORED_SCOPES = ("SESSION", "USER", "APP")
_OTHER_TABLES = (5, 2, 3)
"""Columns of the tables that SQLite keeps beside ours: sqlite_schema, sqlite_sequence, sqlite_stat1."""

_SHM_ALIVE = 128
"""The byte of the -shm file that SQLite keeps locked for as long as a process has the database open."""

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


@dataclass(frozen=True, slots=True)
class TouchedSession:
    """A session that is not as it was.

    Attributes:
        app_name: Its app.
        user_id: Its user.
        session_id: Its id.
        events: Events of it in the new file; they are numbered anew.
        lost: The numbers (``seq``) that the lost events had, as ranges; events after the last one that is known of may
            be lost as well.
        recreated: Whether its own row was lost: the times of its creation and last update come from its events then.
    """

    app_name: str
    user_id: str
    session_id: str
    events: int
    lost: tuple[Range, ...]
    recreated: bool

    @property
    def lost_events(self) -> int:
        """How many events are known to be lost."""
        return sum(last - first + 1 for first, last in self.lost)


@dataclass(frozen=True, slots=True)
class RecoveryReport:
    """What a recovery has saved.

    Attributes:
        source: The damaged file.
        path: The new file.
        pages: Pages of the damaged file.
        unreadable_pages: Those of them that were damaged as a whole or in part, as far as that shows.
        tables: Names of tables to what became of their rows.
        replayed_keys: Keys of state that come from the log, because no row of them was found.
        touched: Sessions that are not as they were.
        notes: What else is to be known.
    """

    source: Path
    path: Path
    pages: int
    unreadable_pages: tuple[Range, ...]
    tables: dict[str, Tally]
    replayed_keys: int
    touched: tuple[TouchedSession, ...]
    notes: tuple[str, ...]


def recover(source: Path, target: Path, log_format: Format) -> RecoveryReport:
    """Brings what is readable of ``source`` into a new file.

    No program may have ``source`` open; it is not changed. Its write-ahead log is taken into account where there is one.

    Args:
        source: The damaged file.
        target: Where to put the new file; nothing may be there.
        log_format: How to read events and the keys of their state deltas.

    Raises:
        ConfigurationError: If ``target`` cannot be used.
        DatabaseBusyError: If a process has ``source`` open.
        DatabaseCorruptError: If no row of sessiondb's tables can be read.
        StorageError: If a file cannot be read or written.
    """
    check_target(target, overwrite=False)
    with private_folder(target) as folder, _not_in_use(source):
        file = folder / "recovered.sqlite3"
        create_private(file)
        try:
            with PageFile(source) as pages, closing(_open_staging(folder / "found.sqlite3")) as staging:
                found = _Found(staging, log_format)
                found.collect(pages.rows())
                unreadable = pages.unreadable_pages()
                notes = _notes_on(pages, found.passed_over)
                page_count = pages.page_count
                is_ours = pages.header_is_readable and not unreadable
            if not found.any and not is_ours:
                raise DatabaseCorruptError(f"no row of a database of sessiondb can be read in {str(source)!r}")
            damaged = bool(unreadable or found.rejected_ids or notes)
            with closing(open_writer(file, "normal", 1)) as connection:
                schema.prepare(connection, file)
                connection.execute("ATTACH ? AS found", (str(folder / "found.sqlite3"),))
                builder = _Builder(connection, found, log_format.parse_key)
                builder.build(replay=damaged)
                connection.execute("DETACH found")
                connection.execute("PRAGMA journal_mode=DELETE")
        except sqlite3.Error as error:
            raise translate(error, target) from error
        except OSError as error:
            raise StorageError(f"cannot read {str(source)!r}: {error.strerror or error}") from error
        report = check(file, log_format.decode)
        if not report.is_sound:
            problems = "; ".join(problem for finding in report.findings for problem in finding.problems)
            raise StorageError(f"what was recovered of {str(source)!r} does not fit together: {problems}")
        publish(file, target, overwrite=False)
    return RecoveryReport(
        source,
        target,
        page_count,
        _ranges(unreadable),
        {name: found.tally(name, saved) for name, saved in builder.saved.items()},
        builder.replayed,
        tuple(builder.touched),
        tuple(notes),
    )


@contextmanager
def _not_in_use(source: Path) -> Iterator[None]:
    """Keeps other processes from opening a database, where they have ever done so.

    Raises:
        DatabaseBusyError: If one has it open, this one included.
    """
    if is_open_here(source):
        raise DatabaseBusyError(f"a process has {str(source)!r} open, namely this one; close it first")
    try:
        descriptor = os.open(source.with_name(source.name + "-shm"), os.O_RDWR)
    except OSError:
        # Who has a database of ours open has this file, and who could write to it could open it.
        yield
        return
    try:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _SHM_ALIVE)
        except OSError as error:
            raise DatabaseBusyError(f"a process has {str(source)!r} open; stop it first") from error
        yield
    finally:
        os.close(descriptor)


def _notes_on(pages: PageFile, passed_over: int) -> list[str]:
    notes = []
    if not pages.header_is_readable:
        notes.append(
            "the header of the file is damaged; a page size of 4096 bytes was assumed, or that of the log taken"
        )
    if pages.deleted_may_return:
        notes.append("which pages are free cannot be told; sessions and events that were deleted may have come back")
    if pages.skipped_frames:
        notes.append(f"{pages.skipped_frames} pages of the write-ahead log are damaged; earlier versions were taken")
    if passed_over:
        notes.append(f"{passed_over} rows were passed over: of another table, or damaged so that it cannot be told")
    return notes


_STAGING = """
CREATE TABLE sessions (
    app_name, user_id, session_id, created_at, updated_at, update_time, incarnation, revision, last_seq,
    PRIMARY KEY (app_name, user_id, session_id)
);
CREATE TABLE events (
    id INTEGER PRIMARY KEY, app_name, user_id, session_id, invocation_id, author, timestamp, content, actions, extra,
    seq, revision, event_id, event_time, incarnation, event_hash
);
CREATE INDEX events_log ON events (app_name, user_id, session_id, incarnation);
CREATE TABLE state (
    app_name, user_id, session_id, scope, state_key, state_value, updated_at,
    PRIMARY KEY (scope, app_name, user_id, session_id, state_key)
);
CREATE TABLE replayed (
    app_name, user_id, session_id, scope, state_key, state_value, updated_at,
    PRIMARY KEY (scope, app_name, user_id, session_id, state_key)
);
CREATE TABLE incarnations (app_name, user_id, session_id, incarnation, PRIMARY KEY (app_name, user_id, session_id));
CREATE TABLE results (
    app_name, user_id, session_id, created_at, updated_at, update_time, old_incarnation, incarnation, events, last_seq,
    recreated, PRIMARY KEY (app_name, user_id, session_id)
);
"""
# A page of the log that is damaged makes an older version of that page be read: of two versions of one row, the newer
# one is kept. Ids that are NULL are kept as '' here, where the scope tells the cases apart.
_FOUND_SESSION = """
INSERT INTO sessions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET
        created_at = excluded.created_at, updated_at = excluded.updated_at, update_time = excluded.update_time,
        incarnation = excluded.incarnation, revision = excluded.revision, last_seq = excluded.last_seq
    WHERE (excluded.incarnation, excluded.last_seq) > (incarnation, last_seq)
"""
_FOUND_EVENT = "INSERT OR IGNORE INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_FOUND_STATE = """
INSERT INTO state VALUES (?, coalesce(?, ''), coalesce(?, ''), ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET state_value = excluded.state_value, updated_at = excluded.updated_at
    WHERE excluded.updated_at > updated_at
"""


def _open_staging(path: Path) -> sqlite3.Connection:
    create_private(path)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=OFF")
    connection.execute("PRAGMA synchronous=OFF")
    connection.executescript(_STAGING)
    return connection


@dataclass
class _Found:
    """Rows that were found in the damaged file, on their way into the database aside."""

    staging: sqlite3.Connection
    log_format: Format
    any: bool = False
    passed_over: int = 0
    rejected_ids: dict[str, set[int]] = field(default_factory=dict)

    def collect(self, rows: Iterable[Row]) -> None:
        """Keeps those that are whole and of one of the tables."""
        takers = {10: self._take_session, 16: self._take_event, 7: self._take_state}
        names = {10: _SESSIONS, 16: _EVENTS, 7: _STATE}
        self.staging.execute("BEGIN")
        for row in rows:
            # Tables are told apart by how many columns they have: the page that knows their names may be lost.
            taker = takers.get(row.columns)
            if taker is None:
                self.passed_over += row.columns not in _OTHER_TABLES
                continue
            if len(row.values) == row.columns and taker(row):
                self.any = True
            else:
                self.reject(names[row.columns], row.row_id)
        self.staging.execute("COMMIT")

    def reject(self, table: str, row_id: int) -> None:
        """Notes a row that cannot be kept."""
        self.rejected_ids.setdefault(table, set()).add(row_id)

    def tally(self, table: str, saved: int) -> Tally:
        """Returns what became of the rows of a table."""
        rejected = sorted(self.rejected_ids.get(table, ()))
        return Tally(saved, len(rejected), _ranges(rejected))

    def _take_session(self, row: Row) -> bool:
        *texts, update_time, incarnation, revision, last_seq, log_epoch = row.values
        numbers = (incarnation, revision, last_seq, log_epoch)
        if not (_are_texts(texts) and _is_time(update_time) and _are_counts(numbers)):
            return False
        self.staging.execute(_FOUND_SESSION, (*texts, _float(update_time), incarnation, revision, last_seq))
        return True

    def _take_event(self, row: Row) -> bool:
        # The id is the row id, and is kept as such only.
        _, app_name, user_id, session_id, invocation_id, author, timestamp, content, actions, extra, *rest = row.values
        seq, revision, event_id, event_time, incarnation, hashed = rest
        texts = (app_name, user_id, session_id, invocation_id, author, timestamp, actions, event_id)
        if not (
            _are_texts([*texts, *(text for text in (content, extra) if text is not None)])
            and _are_counts((seq, revision, incarnation))
            and _is_time(event_time)
            and hashed == event_hash(str(event_id))
        ):
            return False
        stored: Any = (row.row_id, seq, event_id, invocation_id, author, _float(event_time), content, actions, extra)
        try:
            self.log_format.decode(EventRow._make(stored), SessionKey(str(app_name), str(user_id), str(session_id)))
        except CorruptRowError:
            return False
        values = list(row.values)
        values[0] = row.row_id
        values[13] = _float(event_time)
        self.staging.execute(_FOUND_EVENT, values)
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


# An incarnation is chosen for each key: that of the session's own row, if events bear it out or there are none to do
# so, else the one that most of the events have. Events of another one belong to a session that was deleted, or are
# damaged.
_CHOOSE = """
INSERT INTO found.incarnations
    SELECT app_name, user_id, session_id, incarnation FROM (
        SELECT app_name, user_id, session_id, incarnation,
               row_number() OVER (
                   PARTITION BY app_name, user_id, session_id ORDER BY is_own DESC, events DESC, incarnation DESC
               ) AS choice
          FROM (
            SELECT e.app_name, e.user_id, e.session_id, e.incarnation, count(*) AS events,
                   e.incarnation IS s.incarnation AS is_own, s.last_seq
              FROM found.events AS e LEFT JOIN found.sessions AS s USING (app_name, user_id, session_id)
             GROUP BY e.app_name, e.user_id, e.session_id, e.incarnation
          )
         WHERE is_own OR last_seq IS NOT 0
    ) WHERE choice = 1
"""
# A key that only a few damaged letters make another session's must not become a session.
_STRAY = """
SELECT e.id FROM found.events AS e
 WHERE NOT EXISTS (
           SELECT 1 FROM found.incarnations AS i
            WHERE i.app_name = e.app_name AND i.user_id = e.user_id AND i.session_id = e.session_id
              AND i.incarnation = e.incarnation
       )
    OR (
        NOT EXISTS (
            SELECT 1 FROM found.sessions AS s
             WHERE s.app_name = e.app_name AND s.user_id = e.user_id AND s.session_id = e.session_id
        )
        AND EXISTS (SELECT 1 FROM found.sessions AS s WHERE s.incarnation = e.incarnation)
    )
"""
_RESULTS = """
WITH logs AS (
    SELECT app_name, user_id, session_id, incarnation, count(*) AS events, max(seq) AS last_seq,
           min(timestamp) AS created_at, min(id) AS first_id, max(id) AS last_id
      FROM found.events GROUP BY app_name, user_id, session_id
),
keys AS (
    SELECT app_name, user_id, session_id FROM found.sessions
    UNION SELECT app_name, user_id, session_id FROM logs
    UNION SELECT app_name, user_id, session_id FROM found.state WHERE scope = 'SESSION'
)
INSERT INTO found.results
SELECT k.app_name, k.user_id, k.session_id,
       coalesce(s.created_at, first.timestamp, of_state.updated_at),
       coalesce(s.updated_at, last.timestamp, of_state.updated_at),
       coalesce(s.update_time, last.event_time, unixepoch(of_state.updated_at) + 0.0, 0.0),
       coalesce(l.incarnation, s.incarnation, 0), NULL, coalesce(l.events, 0),
       max(coalesce(s.last_seq, 0), coalesce(l.last_seq, 0)), s.incarnation IS NULL
  FROM keys AS k
  LEFT JOIN found.sessions AS s USING (app_name, user_id, session_id)
  LEFT JOIN logs AS l USING (app_name, user_id, session_id)
  LEFT JOIN found.events AS first ON first.id = l.first_id
  LEFT JOIN found.events AS last ON last.id = l.last_id
  LEFT JOIN (
      SELECT app_name, user_id, session_id, max(updated_at) AS updated_at
        FROM found.state WHERE scope = 'SESSION' GROUP BY app_name, user_id, session_id
  ) AS of_state USING (app_name, user_id, session_id)
"""
# A session that has lost something starts another incarnation: what was read of it before is stale then.
_KEEP_INCARNATIONS = """
UPDATE found.results SET incarnation = old_incarnation
 WHERE NOT recreated AND events = last_seq
   AND old_incarnation IN (SELECT old_incarnation FROM found.results GROUP BY old_incarnation HAVING count(*) = 1)
"""
_NEW_INCARNATIONS = """
UPDATE found.results SET incarnation = numbered.incarnation
  FROM (
    SELECT app_name, user_id, session_id,
           (SELECT max(old_incarnation) FROM found.results) + row_number() OVER () AS incarnation
      FROM found.results WHERE incarnation IS NULL
  ) AS numbered
 WHERE (results.app_name, results.user_id, results.session_id)
     = (numbered.app_name, numbered.user_id, numbered.session_id)
"""
_FILL_SESSIONS = """
INSERT INTO main.adk_sessions
    (app_name, user_id, session_id, created_at, updated_at, update_time, incarnation, revision, last_seq)
SELECT app_name, user_id, session_id, created_at, updated_at, update_time, incarnation, 0, events FROM found.results
"""
# Numbers follow each other again. An event that had advanced the revision still does, by one.
_FILL_EVENTS = """
INSERT INTO main.adk_events
    (id, app_name, user_id, session_id, invocation_id, author, timestamp, content, actions, extra, event_id, event_time,
     event_hash, seq, revision, incarnation)
SELECT id, app_name, user_id, session_id, invocation_id, author, timestamp, content, actions, extra, event_id,
       event_time, event_hash, row_number() OVER log, sum(advances) OVER log, incarnation
  FROM (
    SELECT e.*, r.incarnation AS incarnation,
           e.revision > lag(e.revision, 1, 0) OVER (PARTITION BY app_name, user_id, session_id ORDER BY e.id) AS advances
      FROM (SELECT id, app_name, user_id, session_id, invocation_id, author, timestamp, content, actions, extra, seq,
                   revision, event_id, event_time, event_hash FROM found.events) AS e
      JOIN found.results AS r USING (app_name, user_id, session_id)
  )
WINDOW log AS (PARTITION BY app_name, user_id, session_id ORDER BY id)
ORDER BY id
"""
_FILL_REVISIONS = """
UPDATE main.adk_sessions AS s SET revision = log.revision
  FROM (SELECT incarnation, max(revision) AS revision FROM main.adk_events GROUP BY incarnation) AS log
 WHERE log.incarnation = s.incarnation
"""
_COUNT_MISSING = """
SELECT count(*) FROM found.replayed AS r
 WHERE NOT EXISTS (
    SELECT 1 FROM found.state AS s
     WHERE s.scope = r.scope AND s.app_name = r.app_name AND s.user_id = r.user_id AND s.session_id = r.session_id
       AND s.state_key = r.state_key
 )
"""
_FILL_STATE = """
INSERT INTO main.adk_state
SELECT app_name, iif(scope = 'APP', NULL, user_id), iif(scope = 'SESSION', session_id, NULL), scope, state_key,
       state_value, updated_at
  FROM found.state
"""
_FILL_META = """
UPDATE main.sessiondb_meta
   SET value = max(
       (SELECT coalesce(max(incarnation), 0) FROM main.adk_sessions),
       (SELECT coalesce(max(incarnation), 0) FROM found.sessions)
   )
 WHERE name = 'incarnations'
"""
_REPLAY_SET = "INSERT OR REPLACE INTO found.replayed VALUES (?, ?, ?, ?, ?, ?, ?)"
_REPLAY_REMOVE = """
DELETE FROM found.replayed
 WHERE app_name = ? AND user_id = ? AND session_id = ? AND scope = ? AND state_key = ?
"""
_DELTAS = "SELECT app_name, user_id, session_id, timestamp, actions FROM found.events ORDER BY id"
_TOUCHED = """
SELECT app_name, user_id, session_id, events, last_seq, recreated FROM found.results
 WHERE recreated OR events <> last_seq
 ORDER BY app_name, user_id, session_id
"""
_SEQUENCE = "SELECT seq FROM found.events WHERE app_name = ? AND user_id = ? AND session_id = ? ORDER BY seq"


class _Builder:
    """Fills the new file from what was found."""

    def __init__(self, connection: sqlite3.Connection, found: _Found, parse_key: ParseKey) -> None:
        self._connection = connection
        self._found = found
        self._parse_key = parse_key
        self.saved: dict[str, int] = {}
        self.replayed = 0
        self.touched: list[TouchedSession] = []

    def build(self, *, replay: bool) -> None:
        """Fills it, in one transaction.

        Args:
            replay: Whether keys of state that are missing are taken from the log.
        """
        execute = self._connection.execute
        execute("BEGIN IMMEDIATE")
        execute(_CHOOSE)
        for (row_id,) in execute(_STRAY).fetchall():
            self._found.reject(_EVENTS, row_id)
            execute("DELETE FROM found.events WHERE id = ?", (row_id,))
        execute(_RESULTS)
        execute(_KEEP_INCARNATIONS)
        execute(_NEW_INCARNATIONS)
        execute(_FILL_SESSIONS)
        execute(_FILL_EVENTS)
        execute(_FILL_REVISIONS)
        if replay:
            self._replay()
        execute(_FILL_STATE)
        execute(_FILL_META)
        for table in (_SESSIONS, _EVENTS, _STATE):
            (self.saved[table],) = execute(_COUNTS[table]).fetchone()
        for *key, events, last_seq, recreated in execute(_TOUCHED).fetchall():
            self.touched.append(self._touched(SessionKey._make(key), events, last_seq, recreated=bool(recreated)))
        execute("COMMIT")

    def _replay(self) -> None:
        """Adds the keys that the log has set, and not removed, and of which no row was found."""
        execute = self._connection.execute
        for app_name, user_id, session_id, timestamp, actions in execute(_DELTAS):
            for key, value in json.loads(actions).get("state_delta", {}).items():
                scope, name = self._parse_key(key)
                if scope not in _STORED_SCOPES:
                    continue
                owner = (
                    app_name,
                    "" if scope == "APP" else user_id,
                    session_id if scope == "SESSION" else "",
                )
                if value is None:
                    execute(_REPLAY_REMOVE, (*owner, scope, name))
                else:
                    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
                    execute(_REPLAY_SET, (*owner, scope, name, text, timestamp))
        (self.replayed,) = execute(_COUNT_MISSING).fetchone()
        execute("INSERT OR IGNORE INTO found.state SELECT * FROM found.replayed")

    def _touched(self, key: SessionKey, events: int, last_seq: int, *, recreated: bool) -> TouchedSession:
        found = [seq for (seq,) in self._connection.execute(_SEQUENCE, key)]
        return TouchedSession(*key, events, _gaps(found, last_seq), recreated)


_COUNTS = {
    _SESSIONS: "SELECT count(*) FROM main.adk_sessions",
    _EVENTS: "SELECT count(*) FROM main.adk_events",
    _STATE: "SELECT count(*) FROM main.adk_state",
}


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


def _ranges(numbers: Sequence[int]) -> tuple[Range, ...]:
    """Returns ascending numbers as ranges."""
    ranges: list[Range] = []
    for number in numbers:
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1] = (ranges[-1][0], number)
        else:
            ranges.append((number, number))
    return tuple(ranges)


def _gaps(found: Sequence[int], last: int) -> tuple[Range, ...]:
    """Returns what is missing between 1 and ``last`` in ascending numbers."""
    gaps: list[Range] = []
    expected = 1
    for number in [*found, last + 1]:
        if number > expected:
            gaps.append((expected, number - 1))
        expected = max(expected, number + 1)
    return tuple(gaps)
