"""What must hold between sessions, events and state, wherever they are kept; and what a check reports."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

from sessiondb.errors import CorruptRowError
from sessiondb.model.records import EventRow, SessionKey, named

DecodeEvent: TypeAlias = Callable[[EventRow, SessionKey], object]
"""Reads a row of the log as an event, or raises CorruptRowError."""

NOTES = "notes"
"""The name of the check whose finding is no problem."""

# Which of user_id and session_id a scope has.
_OWNERS = {"SESSION": (True, True), "USER": (True, False), "APP": (False, False)}


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
    """What a check of a database has found.

    Attributes:
        path: The file, or the URL of the server, without a password.
        sessions: Sessions that were looked at.
        events: Events that were looked at.
        state_keys: Rows of state that were looked at.
        findings: The checks that have found problems.
        notes: What is not as the service writes it, and was edited outside sessiondb.
    """

    path: str
    sessions: int
    events: int
    state_keys: int
    findings: tuple[Finding, ...]
    notes: Finding

    @property
    def is_sound(self) -> bool:
        """Whether no problem was found."""
        return not self.findings


@dataclass(slots=True)
class _Session:
    """A session's own row, and what its log comes to."""

    incarnation: int
    revision: int
    last_seq: int
    log_epoch: int
    next_seq: int = 1
    last_revision: int = 0


class RowChecks:
    """Checks rows one by one, and gathers what is found: sessions first, then each log in its order, then state.

    Attributes:
        sessions: How many sessions have been seen.
        events: How many events have been seen.
        state_keys: How many rows of state have been seen.
    """

    def __init__(self, decode: DecodeEvent, event_hash: Callable[[str], int], limit: int) -> None:
        """Begins.

        Args:
            decode: Reads a row of the log as an event.
            event_hash: What the store keeps as the hash of an event's id.
            limit: How many problems of each kind are listed; all are counted.
        """
        self._decode = decode
        self._event_hash = event_hash
        self._limit = limit
        self._sessions: dict[SessionKey, _Session] = {}
        self._incarnations: dict[int, SessionKey] = {}
        self._state: set[object] = set()
        self._found: dict[str, Finding] = {}
        self.events = 0
        self.state_keys = 0

    def add(self, check_name: str, problem: str) -> None:
        """Notes a problem."""
        finding = self._found.setdefault(check_name, Finding(check_name))
        finding.count += 1
        if len(finding.problems) < self._limit:
            finding.problems.append(problem)

    def report(self, path: str, order: Iterable[str]) -> CheckReport:
        """Returns what was found.

        Args:
            path: What was checked.
            order: The names of the checks, as they are to be reported.
        """
        return CheckReport(
            path,
            len(self._sessions),
            self.events,
            self.state_keys,
            tuple(self._found[name] for name in order if name in self._found),
            self._found.get(NOTES, Finding(NOTES)),
        )

    def has(self, key: SessionKey) -> bool:
        """Whether a session of this key has been seen."""
        return key in self._sessions

    def see_session(
        self,
        key: SessionKey,
        numbers: tuple[int, int, int, int],
        last_incarnation: int | None,
    ) -> None:
        """Checks a session's own row.

        Args:
            key: The session.
            numbers: Its incarnation, revision, last seq and log epoch.
            last_incarnation: The number of a creation that was given last; None if it is not known.
        """
        session = self._sessions[key] = _Session(*numbers)
        if session.incarnation in self._incarnations:
            self.add(
                "sessions",
                f"{named(key)} has the incarnation (number of its creation) of"
                f" {named(self._incarnations[session.incarnation])}",
            )
        self._incarnations[session.incarnation] = key
        if last_incarnation is not None and session.incarnation > last_incarnation:
            self.add("sessions", f"{named(key)} has an incarnation (number of its creation) that will be given again")

    def see_event(self, key: SessionKey, row: EventRow, incarnation: int, hashed: int) -> None:
        """Checks an event by itself, and against the one before it in its session."""
        where = f"row {row.row_id} of adk_events ({named(key)})"
        if hashed != self._event_hash(row.event_id):
            self.add("events", f"{where}: the hash does not belong to the event's id")
        try:
            self._decode(row, key)
        except CorruptRowError as error:
            self.add("events", str(error))
        session = self._sessions.get(key)
        if session is not None:
            self._follow(session, row, incarnation, where)

    def _follow(self, session: _Session, row: EventRow, incarnation: int, where: str) -> None:
        if incarnation != session.incarnation:
            self.add("sequence", f"{where} is of incarnation {incarnation}, its session of {session.incarnation}")
        # A log that was edited outside sessiondb may have gaps, which readers do not mind; never steps back.
        check_name = NOTES if session.log_epoch and row.seq > session.next_seq else "sequence"
        if row.seq != session.next_seq:
            self.add(check_name, f"{where} has seq {row.seq} where {session.next_seq} was expected")
        step = row.revision - session.last_revision
        # Where something was taken away from a log, its revision has gone forward all the same.
        if step < 0 or (step > 1 and not session.log_epoch):
            self.add("sequence", f"{where} has revision {row.revision} after {session.last_revision}")
        session.next_seq = row.seq + 1
        session.last_revision = row.revision

    def end_logs(self) -> None:
        """Compares where each log ends with what its session's own row says. Only if all events have been seen."""
        for key, session in self._sessions.items():
            # Of a log that was cut off before its first event no event tells the revision.
            is_cut = session.log_epoch and session.next_seq == 1
            last_revision = session.revision if is_cut else session.last_revision
            for what, found, stored in (
                ("seq", session.next_seq - 1, session.last_seq),
                ("revision", last_revision, session.revision),
            ):
                if found != stored:
                    by_hand = session.log_epoch and found < stored
                    self.add(
                        NOTES if by_hand else "sequence",
                        f"{named(key)}: its log ends with {what} {found}, its own row says {stored}",
                    )

    def see_state(
        self, where: str, scope: str, owner: tuple[str, str | None, str | None], name: str, *, is_json: bool
    ) -> None:
        """Checks a row of state.

        Args:
            where: What to call the row.
            scope: Its scope.
            owner: Its app, user and session.
            name: Its key.
            is_json: Whether its value is JSON.
        """
        _, user_id, session_id = owner
        if scope not in _OWNERS or (user_id is not None, session_id is not None) != _OWNERS[scope]:
            self.add("state", f"{where}: the scope does not agree with user_id and session_id")
            return
        texts = tuple(value for value in owner if value is not None)
        if not all(type(text) is str for text in (*texts, name)):
            self.add("state", f"{where}: a value is not UTF-8 text")
        if not is_json:
            self.add("state", f"{where}: state_value is not JSON")
        if (scope, texts, name) in self._state:
            self.add("state", f"{where}: the key is there twice")
        self._state.add((scope, texts, name))
        if scope == "SESSION" and not self.has(SessionKey(*texts)):
            self.add("state", f"{where}: its session does not exist")
