"""Sessions as JSON Lines, out of a database and into one: the format, and both ways.

A file has one JSON object a line: a header first, then the state of apps and users, then each session followed by its
events, and a last line that says how much there was. Both ways are streams: memory does not grow with the database.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby, islice
from typing import Any

from google.adk.events import Event
from pydantic import ValidationError

from sessiondb.adk import scopes
from sessiondb.adk.events import describe_problems, encode_event, stored_nones, timestamp_text
from sessiondb.adk.fast_decode import event_validator
from sessiondb.adk.limits import check_key, check_text
from sessiondb.adk.state import encode_delta
from sessiondb.calls.lines import (
    FORMAT,
    VERSION,
    decode_values,
    end_line,
    header_line,
    json_line,
    now_text,
    session_lines,
)
from sessiondb.engine.store import BulkImport, Reader
from sessiondb.errors import AlreadyExistsError, InvalidInputError, TransferFormatError
from sessiondb.model.queries import ListSessions, ListState
from sessiondb.model.records import (
    EVERYTHING,
    STORED_NONE,
    Cut,
    ForkPoint,
    NewEvent,
    NewSession,
    Selection,
    SessionKey,
    SessionSummary,
    StateRow,
    named,
)

Advance = Callable[[int], object]
"""Told how much was done since it was last told: lines that were read, or sessions that were copied or compared."""

_MAX_NUMBER = 2**48
"""No log has as many events."""

_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
_EVENT_FIELDS = {
    *Event.model_fields,
    *(field.alias for field in Event.model_fields.values() if field.alias),
    STORED_NONE,
}


@dataclass(slots=True)
class Imported:
    """What an import did.

    Attributes:
        sessions: Sessions that were put into the database.
        events: Their events.
        skipped: Sessions that were there already, and stayed as they were.
        state_kept: Keys of users and apps that had another value, and kept it.
    """

    sessions: int = 0
    events: int = 0
    skipped: int = 0
    state_kept: int = 0


def export_lines(reader: Reader, selection: Selection = EVERYTHING, session_ids: Sequence[str] = ()) -> Iterator[str]:
    """Writes sessions as lines, within one snapshot of the database.

    Args:
        reader: The database.
        selection: Whose sessions.
        session_ids: Only sessions of these ids, and the state of their apps and users; all if empty.

    Raises:
        CorruptRowError: If a row does not hold JSON.
        DatabaseBusyError: At the end, if a program began to write meanwhile and what was read may be mixed up.
    """
    with reader.snapshot():
        yield header_line()
        if session_ids:
            chosen = {
                session.key: session
                for session_id in session_ids
                for session in reader.ask(_by_key(selection._replace(session_id=session_id)))
            }
            owners = sorted({key[:2] for key in chosen})
            for app_name in sorted({app_name for app_name, _ in owners}):
                yield from _scope_lines(reader.ask(ListState("APP", Selection(app_name))))
            for owner in owners:
                yield from _scope_lines(reader.ask(ListState("USER", Selection(*owner))))
            sessions: Iterable[SessionSummary] = (session for _, session in sorted(chosen.items()))
        else:
            yield from _scope_lines(reader.ask(ListState("APP", selection)))
            yield from _scope_lines(reader.ask(ListState("USER", selection)))
            sessions = reader.ask(_by_key(selection))
        count = 0
        for session in sessions:
            count += 1
            yield from session_lines(reader, session)
        yield end_line(count)


def import_lines(
    lines: Iterable[str], into: BulkImport, *, skip_existing: bool = False, advance: Advance = lambda _: None
) -> Imported:
    """Puts what the lines say into a database. A session is there completely or not at all.

    An import that was interrupted is resumed by another one with ``skip_existing``. Keys of users and apps that the
    database has keep their values.

    Args:
        lines: The lines, as :func:`export_lines` wrote them.
        into: The database.
        skip_existing: Leave sessions alone that are there, instead of refusing to go on.
        advance: Told about lines that were read.

    Raises:
        AlreadyExistsError: If a session is there; those before it are imported.
        TransferFormatError: If a line is not as it should be, or lines are missing; what came before is imported.
        InvalidInputError: If an id, key or value cannot be stored.
        StorageError: If the database refuses.
    """
    source = _Source(lines, advance)
    _check_header(source.take())
    done = Imported()
    while (line := source.take()).kind != "end":
        match line.kind:
            case "app_state":
                done.state_kept += _put_state(into, line, scopes.Scope.APP)
            case "user_state":
                done.state_kept += _put_state(into, line, scopes.Scope.USER)
            case "session":
                key = check_key(*map(line.text, SessionKey._fields))
                if key.session_id != key.session_id.strip():
                    # The service strips ids, and would never find it.
                    raise line.error("has a session id with spaces around it")
                count = line.number("events")
                remaining = source.take_events(count)
                # Asked first, since reading what is to be skipped is far cheaper than turning it into events.
                if not into.holds(key) and into.put(_new_session(key, line), map(_new_event, remaining)):
                    done.sessions += 1
                    done.events += count
                elif skip_existing:
                    done.skipped += 1
                    for _ in remaining:
                        pass
                else:
                    raise AlreadyExistsError(
                        f"{named(key)} is there already; what came before it is imported. --skip-existing"
                        " (skip_existing=True) leaves such sessions as they are"
                    )
            case other:
                raise line.error(f"is of type {other!r}, which does not belong here")
    if line.number("sessions") != done.sessions + done.skipped:
        raise line.error("speaks of another number of sessions than came before it")
    return done


def checked_lines(lines: Iterable[str]) -> Iterator[str]:
    """Returns the lines, after a look whether the first one begins an export that this version reads.

    Raises:
        TransferFormatError: If it does not.
    """
    remaining = iter(lines)
    first = list(islice(remaining, 1))
    _check_header(_Source(first, lambda _: None).take())
    return chain(first, remaining)


def encode_state(scope: scopes.Scope, state: Mapping[str, Any]) -> str:
    """Encodes the state of one scope, keys without prefix, for an import.

    Raises:
        InvalidInputError: If a key or value cannot be stored in this scope.
    """
    prefix, column = _COLUMNS[scope]
    stored = encode_delta({prefix + name: value for name, value in state.items()}, keep_none=True).stored
    others = [name for name, text in stored._asdict().items() if text and name.endswith("_set") and name != column]
    if others:
        raise InvalidInputError("the state of a session holds a key with the prefix of another scope")
    text: str | None = getattr(stored, column)
    return text or "{}"


_COLUMNS = {
    scopes.Scope.SESSION: ("", "session_set"),
    scopes.Scope.USER: (scopes.USER_PREFIX, "user_set"),
    scopes.Scope.APP: (scopes.APP_PREFIX, "app_set"),
}


def _by_key(selection: Selection) -> ListSessions:
    return ListSessions(selection, "key", with_state=False)


def _scope_lines(rows: Iterable[StateRow]) -> Iterator[str]:
    for app_name, user_id, state in states_by_owner(rows):
        owner = {"type": "app_state"} if user_id is None else {"type": "user_state", "user_id": user_id}
        yield json_line(**owner, app_name=app_name, state=state)


def states_by_owner(rows: Iterable[StateRow]) -> Iterator[tuple[str, str | None, dict[str, Any]]]:
    """Decodes rows of the state of apps or users: app, user or None, and the state.

    Raises:
        CorruptRowError: If a value is not JSON.
    """
    for (app_name, user_id), keys in groupby(rows, lambda row: row[:2]):
        yield app_name, user_id, decode_values(keys)


class _Line:
    """One line of an export."""

    def __init__(self, number: int, text: str) -> None:
        self._number = number
        try:
            members = json.loads(text)
        except (ValueError, RecursionError):
            raise self.error("is not JSON") from None
        if not isinstance(members, dict):
            raise self.error("is not a JSON object")
        self._members: dict[str, Any] = members

    @property
    def kind(self) -> object:
        return self._members.get("type")

    def get(self, name: str) -> object:
        return self._members.get(name)

    def text(self, name: str) -> str:
        value = self.get(name)
        if not isinstance(value, str):
            raise self.error(f"has no text {name!r}")
        return value

    def number(self, name: str) -> int:
        value = self.get(name)
        if not isinstance(value, int) or value < 0:
            raise self.error(f"has no count {name!r}")
        return value

    def mapping(self, name: str) -> dict[str, Any]:
        value = self.get(name)
        if not isinstance(value, dict):
            raise self.error(f"has no object {name!r}")
        return value

    def error(self, problem: str) -> TransferFormatError:
        return TransferFormatError(f"line {self._number} {problem}")


class _Source:
    """The lines of an export, one after the other."""

    def __init__(self, lines: Iterable[str], advance: Advance) -> None:
        self._lines = enumerate(lines, 1)
        self._advance = advance
        self._next: _Line | None = None

    def take(self) -> _Line:
        line = self._next or self._read()
        self._next = None
        return line

    def take_events(self, count: int) -> Iterator[_Line]:
        for _ in range(count):
            line = self.take()
            if line.kind != "event":
                raise line.error(f"is of type {line.kind!r} where an event belongs")
            yield line
        # Looked at before the session is complete for whoever stores it.
        self._next = self._read()
        if self._next.kind == "event":
            raise self._next.error("is one event more than its session is said to have")

    def _read(self) -> _Line:
        for number, text in self._lines:
            self._advance(1)
            return _Line(number, text)
        raise TransferFormatError("the export ends early: its last line is missing")


def _check_header(header: _Line) -> None:
    if (header.kind, header.get("format")) != ("header", FORMAT):
        raise TransferFormatError("line 1 is not the header of an export of sessiondb")
    if header.get("version") != VERSION:
        raise TransferFormatError(
            f"the export has version {header.get('version')!r} of the format; this version of sessiondb knows {VERSION}"
        )


def _put_state(into: BulkImport, line: _Line, scope: scopes.Scope) -> int:
    app_name = check_text("app_name", line.text("app_name"))
    user_id = check_text("user_id", line.text("user_id")) if scope is scopes.Scope.USER else None
    state = encode_state(scope, line.mapping("state"))
    return into.put_scope_state(app_name, user_id, state, now_text())


def _new_session(key: SessionKey, line: _Line) -> NewSession:
    created_at = line.text("created_at")
    if _TIMESTAMP.fullmatch(created_at) is None:
        raise line.error("has a 'created_at' that is not UTC ISO 8601 with microseconds")
    update_time = line.get("update_time")
    if isinstance(update_time, bool) or not isinstance(update_time, int | float):
        raise line.error("has no number 'update_time'")
    state = encode_state(scopes.Scope.SESSION, line.mapping("state"))
    # Not there: not known.
    initial = line.get("initial_state")
    initial_state = None if initial is None else encode_delta(line.mapping("initial_state"), keep_none=True).json
    return NewSession(
        *(key, created_at, timestamp_text(update_time), update_time, state), initial_state, _origin(line), _cut(line)
    )


def _cut(line: _Line) -> Cut | None:
    if line.get("cut") is None:
        return None
    match line.mapping("cut"):
        case {"seq": int(seq), "revision": int(revision), "time": int(time) | float(time)} if (
            0 < seq < _MAX_NUMBER and 0 <= revision < _MAX_NUMBER and math.isfinite(time)
        ):
            return Cut(seq, revision, time)
    raise line.error("has a 'cut' without 'seq', 'revision' and 'time'")


def _origin(line: _Line) -> ForkPoint | None:
    if line.get("forked_from") is None:
        return None
    match line.mapping("forked_from"):
        case {"user_id": str(user_id), "session_id": str(session_id), "seq": int(seq)} if seq >= 0:
            return ForkPoint(check_text("user_id", user_id), check_text("session_id", session_id), seq)
        case {"user_id": None, "session_id": None, "seq": int(seq)} if seq >= 0:
            # That user was erased.
            return ForkPoint(None, None, seq)
    raise line.error("has a 'forked_from' without 'user_id', 'session_id' and 'seq'")


def _new_event(line: _Line) -> NewEvent:
    fields = line.mapping("event")
    unknown = sorted(fields.keys() - _EVENT_FIELDS)
    if unknown:
        # They would be dropped without a word.
        raise line.error(f"has an event with fields that this version of ADK does not know: {', '.join(unknown)}")
    try:
        # Written from an Event's own fields, and no others were let through.
        event = event_validator()(json.dumps(fields))
    except ValidationError as error:
        raise line.error(f"has an event that this version of ADK cannot read: {describe_problems(error)}") from None
    delta = encode_delta(event.actions.state_delta, keep_none=stored_nones(fields))
    return NewEvent(encode_event(event, delta).record, advances=line.get("outside") is not True)
