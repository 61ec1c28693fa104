"""Checks a file without changing anything: SQLite's own checks, and what must hold between the rows of ours."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from sessiondb.errors import ConfigurationError, CorruptRowError
from sessiondb.model import columns
from sessiondb.model.event_identity import event_hash
from sessiondb.model.records import EventRow, SessionKey, named
from sessiondb.stores.sqlite import schema
from sessiondb.stores.sqlite.errors import primary_code
from sessiondb.stores.sqlite.foreign import foreign_objects
from sessiondb.stores.sqlite.header import look
from sessiondb.stores.sqlite.new_file import refuse_second_name
from sessiondb.stores.sqlite.readonly import ReadOnlyFile, read_whole
from sessiondb.stores.sqlite.sql import names

DecodeEvent: TypeAlias = Callable[[EventRow, SessionKey], object]
"""Reads a row of the log as an event, or raises CorruptRowError."""

_TABLES = ("adk_sessions", "adk_events", "adk_state")


@dataclass(slots=True)
class Finding:
    """What one check has found.

    Attributes:
        check: The name of the check.
        count: How many problems it has found.
        problems: The first of them, each in a line; they name sessions and rows, never what those hold.
    """

    check: str
    count: int = 0
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a check of a file has found.

    Attributes:
        path: The file.
        sessions: Sessions that were looked at.
        events: Events that were looked at.
        state_keys: Rows of state that were looked at.
        findings: The checks that have found problems.
        notes: What is not as the service writes it, and was edited outside sessiondb.
    """

    path: Path
    sessions: int
    events: int
    state_keys: int
    findings: tuple[Finding, ...]
    notes: Finding

    @property
    def is_sound(self) -> bool:
        """Whether no problem was found."""
        return not self.findings


def check(path: Path, decode: DecodeEvent, *, limit: int = 20) -> CheckReport:
    """Checks a file. Nothing is changed or created, and services that use the file meanwhile are not disturbed.

    Args:
        path: The file.
        decode: Reads a row of the log as an event.
        limit: How many problems of each kind are listed; all are counted, but for those of SQLite's own checks.

    Raises:
        StorageError: If the file cannot be read, or is changed all the time.
    """

    def inspect(file: ReadOnlyFile) -> CheckReport | None:
        file.connection.text_factory = _text
        report = _Inspection(file.connection, path, decode, limit).run()
        return report if file.is_unchanged() else None

    return read_whole(path, inspect)


class _NotUtf8(str):
    """A text that is not UTF-8, with what cannot be decoded replaced."""

    __slots__ = ()


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return _NotUtf8(data.decode(errors="replace"))


@dataclass(slots=True)
class _Session:
    """A session's own row, and what its log comes to."""

    incarnation: int
    revision: int
    last_seq: int
    log_epoch: int
    next_seq: int = 1
    last_revision: int = 0


_NOTES = "notes"
_KEY = names(columns.SESSION_KEY)
_SESSIONS = f"SELECT {_KEY}, incarnation, revision, last_seq, log_epoch FROM adk_sessions NOT INDEXED"
_EVENTS = f"""
SELECT {_KEY}, incarnation, event_hash, {names(columns.EVENT_ROW)}
  FROM adk_events NOT INDEXED ORDER BY id
"""
_STATE = f"""
SELECT rowid, {_KEY}, scope, json_valid(state_value), typeof(state_value), state_key
  FROM adk_state NOT INDEXED
"""
_INTEGRITY = "SELECT * FROM pragma_integrity_check(?)"
_NULLS = {"SESSION": (True, True), "USER": (True, False), "APP": (False, False)}


class _Inspection:
    """One check of one file. Each step goes on where another one failed."""

    def __init__(self, connection: sqlite3.Connection, path: Path, decode: DecodeEvent, limit: int) -> None:
        self._connection = connection
        self._path = path
        self._decode = decode
        self._limit = limit
        self._sessions: dict[SessionKey, _Session] = {}
        self._events = 0
        self._log_is_read = False
        self._state_keys = 0
        self._found: dict[str, Finding] = {}

    def run(self) -> CheckReport:
        steps: dict[str, Callable[[], object]] = {
            "file": self._check_file,
            "schema": self._check_schema,
            "pages": self._check_pages,
            "references": self._check_references,
            "sessions": self._check_sessions,
            "events": self._check_events,
            "sequence": self._check_sequences,
            "state": self._check_state,
        }
        # One snapshot for all of them.
        self._connection.execute("BEGIN")
        for name, step in steps.items():
            try:
                step()
            except sqlite3.Error as error:
                self._add(name, f"cannot be read any further: {error}")
                if primary_code(error) == sqlite3.SQLITE_NOTADB:
                    # Every further step would say the same.
                    break
        return CheckReport(
            self._path,
            len(self._sessions),
            self._events,
            self._state_keys,
            tuple(self._found[name] for name in steps if name in self._found),
            self._found.get(_NOTES, Finding(_NOTES)),
        )

    def _add(self, check_name: str, problem: str) -> None:
        finding = self._found.setdefault(check_name, Finding(check_name))
        finding.count += 1
        if len(finding.problems) < self._limit:
            finding.problems.append(problem)

    def _check_file(self) -> None:
        found = look(self._connection)
        if not found.is_ours:
            self._add("file", f"its application id is {found.application_id}, not that of sessiondb")
        if found.version != schema.SCHEMA_VERSION:
            self._add("file", f"it has schema version {found.version}; {schema.SCHEMA_VERSION} is known here")
        try:
            refuse_second_name(self._path)
        except ConfigurationError as error:
            # What was written under the other name may be in a WAL that is not read here.
            self._add("file", str(error))

    def _check_schema(self) -> None:
        found = _objects(self._connection)
        for name, definition in _expected_objects().items():
            if name not in found:
                self._add("schema", f"{name} is missing")
            elif found[name] != definition:
                self._add("schema", f"{name} is not defined as it should be")
        for foreign in foreign_objects(self._connection):
            what = f"{foreign.kind} {foreign.name!r} of another program"
            if foreign.harm:
                self._add("schema", f"{what} {foreign.harm}")
            else:
                self._add(_NOTES, f"{what} is beside the tables of sessiondb")

    def _check_pages(self) -> None:
        try:
            problems = self._connection.execute(_INTEGRITY, (self._limit,)).fetchall()
        except sqlite3.DatabaseError as error:
            # It has stopped at a page that it cannot read, and sqlite3 drops what it had said until then. The first
            # row, which tells of all pages, can be had without going on from there.
            problems = self._connection.execute(f"{_INTEGRITY} LIMIT 1", (self._limit,)).fetchall()
            self._add("pages", f"not all rows can be compared with their indexes: {error}")
        for (lines,) in problems:
            for problem in lines.splitlines():
                if problem != "ok" and not problem.startswith("*** "):
                    self._add("pages", problem)

    def _check_references(self) -> None:
        for table, row_id, parent, _ in self._connection.execute("PRAGMA foreign_key_check"):
            self._add("references", f"row {row_id} of {table} refers to a row of {parent} that does not exist")

    def _check_sessions(self) -> None:
        (last,) = self._connection.execute(
            "SELECT value FROM sessiondb_meta WHERE name = 'incarnations'"
        ).fetchone() or (None,)
        if not isinstance(last, int):
            self._add("sessions", "the incarnation (number of a session's creation) given last is not known")
        seen: dict[object, SessionKey] = {}
        for row in self._connection.execute(_SESSIONS):
            key = SessionKey._make(row[:3])
            numbers = row[3:]
            if not all(type(text) is str for text in key) or not all(type(number) is int for number in numbers):
                self._add("sessions", f"{named(key)}: a value is of another type than its column")
                continue
            session = self._sessions[key] = _Session(*numbers)
            if session.incarnation in seen:
                self._add(
                    "sessions",
                    f"{named(key)} has the incarnation (number of its creation) of {named(seen[session.incarnation])}",
                )
            seen[session.incarnation] = key
            if isinstance(last, int) and session.incarnation > last:
                self._add(
                    "sessions", f"{named(key)} has an incarnation (number of its creation) that will be given again"
                )

    def _check_events(self) -> None:
        for app_name, user_id, session_id, incarnation, hashed, *columns_of_row in self._connection.execute(_EVENTS):
            self._events += 1
            key = SessionKey(app_name, user_id, session_id)
            row = EventRow._make(columns_of_row)
            where = f"row {row.row_id} of adk_events ({named(key)})"
            texts = (*key, row.event_id, row.invocation_id, row.author, row.timestamp, row.actions)
            if (
                not all(type(text) is str for text in texts)
                or not all(text is None or type(text) is str for text in (row.content, row.extra))
                or not all(type(number) is int for number in (incarnation, row.revision, hashed, row.seq))
                or type(row.time) is not float
            ):
                self._add("events", f"{where}: a value is of another type than its column, or text is not UTF-8")
                continue
            if hashed != event_hash(row.event_id):
                self._add("events", f"{where}: the hash does not belong to the event's id")
            try:
                self._decode(row, key)
            except CorruptRowError as error:
                self._add("events", str(error))
            session = self._sessions.get(key)
            if session is not None:
                self._follow(session, row, incarnation, where)
        self._log_is_read = True

    def _follow(self, session: _Session, row: EventRow, incarnation: int, where: str) -> None:
        """Compares an event with the one before it in its session."""
        if incarnation != session.incarnation:
            self._add("sequence", f"{where} is of incarnation {incarnation}, its session of {session.incarnation}")
        # A log that was edited outside sessiondb may have gaps, which readers do not mind; never steps back.
        check_name = _NOTES if session.log_epoch and row.seq > session.next_seq else "sequence"
        if row.seq != session.next_seq:
            self._add(check_name, f"{where} has seq {row.seq} where {session.next_seq} was expected")
        step = row.revision - session.last_revision
        if step < 0 or (step > 1 and check_name != _NOTES):
            self._add("sequence", f"{where} has revision {row.revision} after {session.last_revision}")
        session.next_seq = row.seq + 1
        session.last_revision = row.revision

    def _check_sequences(self) -> None:
        if not self._log_is_read:
            return
        for key, session in self._sessions.items():
            for what, found, stored in (
                ("seq", session.next_seq - 1, session.last_seq),
                ("revision", session.last_revision, session.revision),
            ):
                if found != stored:
                    by_hand = session.log_epoch and found < stored
                    self._add(
                        _NOTES if by_hand else "sequence",
                        f"{named(key)}: its log ends with {what} {found}, its own row says {stored}",
                    )

    def _check_state(self) -> None:
        seen = set()
        for row_id, app_name, user_id, session_id, scope, is_json, kind, name in self._connection.execute(_STATE):
            self._state_keys += 1
            where = f"row {row_id} of adk_state"
            if scope not in _NULLS or (user_id is not None, session_id is not None) != _NULLS[scope]:
                self._add("state", f"{where}: the scope does not agree with user_id and session_id")
                continue
            owner = tuple(value for value in (app_name, user_id, session_id) if value is not None)
            if not all(type(text) is str for text in (*owner, name)):
                self._add("state", f"{where}: a value is not UTF-8 text")
            if kind != "text" or not is_json:
                self._add("state", f"{where}: state_value is not JSON")
            if (scope, owner, name) in seen:
                self._add("state", f"{where}: the key is there twice")
            seen.add((scope, owner, name))
            if scope == "SESSION" and SessionKey(*owner) not in self._sessions:
                self._add("state", f"{where}: its session does not exist")


def _objects(connection: sqlite3.Connection) -> dict[str, str]:
    return dict(connection.execute("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL").fetchall())


def _expected_objects() -> dict[str, str]:
    with closing(schema.empty_database()) as connection:
        return _objects(connection)
