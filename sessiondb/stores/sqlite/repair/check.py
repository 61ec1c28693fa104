"""Checks a file without changing anything: SQLite's own checks, and what must hold between the rows of ours."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from sessiondb.errors import ConfigurationError
from sessiondb.model import columns
from sessiondb.model.event_identity import event_hash
from sessiondb.model.records import EventRow, SessionKey, named
from sessiondb.model.soundness import NOTES, CheckReport, DecodeEvent, RowChecks
from sessiondb.stores.sqlite import schema, text_index
from sessiondb.stores.sqlite.errors import primary_code
from sessiondb.stores.sqlite.foreign import foreign_objects
from sessiondb.stores.sqlite.header import look
from sessiondb.stores.sqlite.new_file import refuse_second_name
from sessiondb.stores.sqlite.readonly import ReadOnlyFile, read_whole
from sessiondb.stores.sqlite.sql import names

_TABLES = ("adk_sessions", "adk_events", "adk_state")


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
_REMOVE = "`sessiondb index --drop`"
_ANEW = f"{_REMOVE} and `sessiondb index` make it anew"
_INTEGRITY = "SELECT * FROM pragma_integrity_check(?)"


class _Inspection:
    """One check of one file. Each step goes on where another one failed."""

    def __init__(self, connection: sqlite3.Connection, path: Path, decode: DecodeEvent, limit: int) -> None:
        self._connection = connection
        self._path = path
        self._limit = limit
        self._rows = RowChecks(decode, event_hash, limit)
        self._log_is_read = False

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
            "index": self._check_index,
        }
        # One snapshot for all of them.
        self._connection.execute("BEGIN")
        for name, step in steps.items():
            try:
                step()
            except sqlite3.Error as error:
                self._rows.add(name, f"cannot be read any further: {error}")
                if primary_code(error) == sqlite3.SQLITE_NOTADB:
                    # Every further step would say the same.
                    break
        return self._rows.report(str(self._path), steps)

    def _check_file(self) -> None:
        found = look(self._connection)
        if not found.is_ours:
            self._rows.add("file", f"its application id is {found.application_id}, not that of sessiondb")
        if found.version != schema.SCHEMA_VERSION:
            self._rows.add("file", f"it has schema version {found.version}; {schema.SCHEMA_VERSION} is known here")
        try:
            refuse_second_name(self._path)
        except ConfigurationError as error:
            # What was written under the other name may be in a WAL that is not read here.
            self._rows.add("file", str(error))

    def _check_schema(self) -> None:
        found = _objects(self._connection)
        for name, definition in _expected_objects().items():
            if name not in found:
                self._rows.add("schema", f"{name} is missing")
            elif found[name] != definition:
                self._rows.add("schema", f"{name} is not defined as it should be")
        for foreign in foreign_objects(self._connection):
            what = f"{foreign.kind} {foreign.name!r} of another program"
            if foreign.harm:
                self._rows.add("schema", f"{what} {foreign.harm}")
            else:
                self._rows.add(NOTES, f"{what} is beside the tables of sessiondb")

    def _check_index(self) -> None:
        found = _objects(self._connection)
        if not any(name in found for name in text_index.OBJECTS):
            return
        state = text_index.state(self._connection)
        if state is None:
            self._rows.add(NOTES, f"an index of texts was not removed as a whole: {_REMOVE} does it")
            return
        wrong = [name for name, definition in _index_objects().items() if found.get(name) != definition]
        for name in wrong:
            self._rows.add("index", f"{name} is missing, or not defined as it should be: {_ANEW}")
        if wrong:
            return
        if not state.is_complete:
            self._rows.add(NOTES, "the index of texts is not complete: `sessiondb index` goes on with it")
        held, events = text_index.counts(self._connection)
        if held != events:
            self._rows.add("index", f"the index of texts holds {held:,} events, and not {events:,}: {_ANEW}")
        for row_id, *key in text_index.missing(self._connection):
            name = named(SessionKey._make(key))
            self._rows.add("index", f"row {row_id} of adk_events ({name}) is not in the index of texts: {_ANEW}")

    def _check_pages(self) -> None:
        try:
            problems = self._connection.execute(_INTEGRITY, (self._limit,)).fetchall()
        except sqlite3.DatabaseError as error:
            # It has stopped at a page that it cannot read, and sqlite3 drops what it had said until then. The first
            # row, which tells of all pages, can be had without going on from there.
            problems = self._connection.execute(f"{_INTEGRITY} LIMIT 1", (self._limit,)).fetchall()
            self._rows.add("pages", f"not all rows can be compared with their indexes: {error}")
        for (lines,) in problems:
            for problem in lines.splitlines():
                if problem != "ok" and not problem.startswith("*** "):
                    self._rows.add("pages", problem)

    def _check_references(self) -> None:
        for table, row_id, parent, _ in self._connection.execute("PRAGMA foreign_key_check"):
            self._rows.add("references", f"row {row_id} of {table} refers to a row of {parent} that does not exist")

    def _check_sessions(self) -> None:
        (last,) = self._connection.execute(
            "SELECT value FROM sessiondb_meta WHERE name = 'incarnations'"
        ).fetchone() or (None,)
        if not isinstance(last, int):
            self._rows.add("sessions", "the incarnation (number of a session's creation) given last is not known")
        for row in self._connection.execute(_SESSIONS):
            key = SessionKey._make(row[:3])
            numbers = row[3:]
            if not all(type(text) is str for text in key) or not all(type(number) is int for number in numbers):
                self._rows.add("sessions", f"{named(key)}: a value is of another type than its column")
                continue
            self._rows.see_session(key, numbers, last if isinstance(last, int) else None)

    def _check_events(self) -> None:
        for app_name, user_id, session_id, incarnation, hashed, *columns_of_row in self._connection.execute(_EVENTS):
            self._rows.events += 1
            key = SessionKey(app_name, user_id, session_id)
            row = EventRow._make(columns_of_row)
            texts = (*key, row.event_id, row.invocation_id, row.author, row.timestamp, row.actions)
            if (
                not all(type(text) is str for text in texts)
                or not all(text is None or type(text) is str for text in (row.content, row.extra))
                or not all(type(number) is int for number in (incarnation, row.revision, hashed, row.seq))
                or type(row.time) is not float
            ):
                self._rows.add(
                    "events",
                    f"row {row.row_id} of adk_events ({named(key)}): a value is of another type than its column, or text is not UTF-8",
                )
                continue
            self._rows.see_event(key, row, incarnation, hashed)
        self._log_is_read = True

    def _check_sequences(self) -> None:
        if self._log_is_read:
            self._rows.end_logs()

    def _check_state(self) -> None:
        for row_id, app_name, user_id, session_id, scope, is_json, kind, name in self._connection.execute(_STATE):
            self._rows.state_keys += 1
            self._rows.see_state(
                f"row {row_id} of adk_state",
                scope,
                (app_name, user_id, session_id),
                name,
                is_json=kind == "text" and bool(is_json),
            )


def _objects(connection: sqlite3.Connection) -> dict[str, str]:
    return dict(connection.execute("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL").fetchall())


def _index_objects() -> dict[str, str]:
    with closing(schema.empty_database()) as connection:
        return text_index.definitions(connection)


def _expected_objects() -> dict[str, str]:
    with closing(schema.empty_database()) as connection:
        return _objects(connection)
