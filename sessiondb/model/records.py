"""Plain records that cross between a service and a store. JSON travels as text: a store keeps it, ADK's room makes it."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NewType, TypeAlias


class SessionKey(NamedTuple):
    """The identity of a session."""

    app_name: str
    user_id: str
    session_id: str


def named(key: SessionKey) -> str:
    """Names a session in a message."""
    return f"session {key.session_id!r} of user {key.user_id!r}, app {key.app_name!r}"


class Selection(NamedTuple):
    """Which sessions, or events of which sessions, are meant; None stands for any."""

    app_name: str | None = None
    user_id: str | None = None
    session_id: str | None = None


EVERYTHING = Selection()

Cursor = NewType("Cursor", str)
"""A place in the log of all sessions, from which a reader goes on. Only the store that gave it can read it."""


class StateDelta(NamedTuple):
    """Changes of state by scope, keys without their prefix; None where there is nothing to do.

    What is set is a JSON object of keys to values, the values as JSON text (so ``{"n": "1"}`` sets n to 1, exactly as
    written); what is removed is a JSON array of keys.
    """

    session_set: str | None = None
    user_set: str | None = None
    app_set: str | None = None
    session_removed: str | None = None
    user_removed: str | None = None
    app_removed: str | None = None


NO_DELTA = StateDelta()


class EventRecord(NamedTuple):
    """One event of the log, as it is stored."""

    event_id: str
    invocation_id: str
    author: str
    time: float
    """Seconds since the epoch, exactly as the event carries them."""
    timestamp: str
    """The same moment as UTC ISO 8601 of fixed width, microseconds."""
    content: str | None
    actions: str
    extra: str | None
    """All fields of the event that have no column of their own, a JSON object; None if all are unset. :data:`STORED_NONE`
    may be a member too."""


STORED_NONE = "stored_none"
"""A member of :attr:`EventRecord.extra` that is no field of an event: the keys of its state delta that were set to None.
Null in a delta deletes otherwise. ADK passes over members that it does not know."""


REDACTED_AT = "sessiondb:redacted_at"
"""A key of an event's ``custom_metadata``: what the event held was removed at this moment, as UTC ISO 8601."""


class EventRow(NamedTuple):
    """One event as it comes back from the log: its place there, and the fields of :class:`EventRecord`."""

    row_id: int
    """The column ``id``, by which messages name the row. It says nothing of the order."""
    seq: int
    """Its number in its session, from 1."""
    revision: int
    """The session's revision right after it."""
    event_id: str
    invocation_id: str
    author: str
    time: float
    timestamp: str
    content: str | None
    actions: str
    extra: str | None


class LoggedEvent(NamedTuple):
    """One event in the log of all sessions."""

    cursor: Cursor
    """The place right after it."""
    key: SessionKey
    row: EventRow


class StateRow(NamedTuple):
    """One key of state; its value is JSON as it is stored."""

    app_name: str
    user_id: str | None
    name: str
    value: str


class SessionHead(NamedTuple):
    """The row of a session, with the state that its reader sees, all of one snapshot.

    The three states are JSON objects as text, keys without prefix; ``{}`` where state was not asked for.
    """

    incarnation: int
    revision: int
    last_seq: int
    log_epoch: int
    update_time: float
    session_state: str
    user_state: str
    app_state: str


class SessionSnapshot(NamedTuple):
    """What one query saw of a session: its head, and the rows of the log that were asked for, in log order."""

    head: SessionHead
    rows: list[EventRow]


class LogPage(NamedTuple):
    """A part of a session's log, in the order that was asked for, and which log that is."""

    incarnation: int
    rows: list[EventRow]


class SessionSummary(NamedTuple):
    """One session in a listing."""

    key: SessionKey
    created_at: str
    updated_at: str
    head: SessionHead
    cut_seq: int = 0
    """The events up to this number were pruned; 0: none."""

    @property
    def events(self) -> int:
        """How many events its log has; more than that if some were deleted outside sessiondb."""
        return self.head.last_seq - self.cut_seq


class StoreSize(NamedTuple):
    """How much a store holds."""

    sessions: int
    events: int
    state_keys: int
    file_bytes: int
    wal_bytes: int
    """Size of the write-ahead log beside the database file; 0 where a store has none."""
    estimated: tuple[str, ...] = ()
    """Which of ``sessions``, ``events`` and ``state_keys`` are estimates; all others are exact."""


class ForkPoint(NamedTuple):
    """The moment of another session of the same app from which a session was forked.

    ``user_id`` and ``session_id`` are None once that user was erased.
    """

    user_id: str | None
    session_id: str | None
    seq: int
    """The last event that was taken over and has not been cut off since, by its number; 0 if there is none."""


class Cut(NamedTuple):
    """Where the log of a session was cut: the event after which what is left of it begins. That one is gone too."""

    seq: int
    revision: int
    """The session's revision right after that event."""
    time: float
    """When the event was, in seconds since the epoch."""


NO_CUT = (0, 0, None)
"""What is stored of a log that was not cut, in place of a :class:`Cut`."""


class Beginning(NamedTuple):
    """What is known of how a session, or what is left of it, began."""

    initial_state: str | None
    """What it was created with: a JSON object of keys with their prefixes to values; None if that is not known. If its log
    was cut, its own state after the cut."""
    origin: ForkPoint | None
    """Where it was forked from, if it was. What it took over is part of its own log."""
    cut: Cut | None = None
    """Where its log was cut, if it was."""

    @classmethod
    def of_columns(cls, initial_state: str | None, *others: Any) -> Beginning:
        """Makes it of what is stored: three columns of a fork, and three of a cut, the last one NULL where it is none."""
        origin, cut = others[:3], others[3:]
        return cls(
            initial_state,
            None if origin[-1] is None else ForkPoint(*origin),
            None if cut[-1] is None else Cut(*cut),
        )


class ForkedSession(NamedTuple):
    """A session that was forked from another one."""

    key: SessionKey
    created_at: str
    origin: ForkPoint


Moment: TypeAlias = tuple[int, ...]
"""A place in the order of all that has changed state in a store. Only the store that gave it knows what the numbers mean."""


class LoggedChange(NamedTuple):
    """What has changed state: an event of a log, or the creation of a session."""

    moment: Moment
    key: SessionKey
    seq: int
    """The number of the event; 0 for the creation."""
    event_id: str
    """Empty for the creation, as ``invocation_id`` and ``author``."""
    invocation_id: str
    author: str
    time: float | None
    """Seconds since the epoch; None for the creation, which has a ``timestamp`` only. What is left of a log that was cut begins
    at the time of the last event that was cut off, and with a ``timestamp`` that says something else."""
    timestamp: str
    actions: str
    """What the event does, as JSON; for the creation an object of which ``state_delta`` is what the session began with."""
    extra: str | None


class Limits(NamedTuple):
    """How much is kept; None: without a limit."""

    updated_before: float | None = None
    """Sessions go whose last update is before this moment, in seconds since the epoch."""
    created_before: str | None = None
    """Sessions go that were created before this moment: UTC in ISO 8601 with microseconds."""
    max_sessions_per_user: int | None = None
    """Of each user of an app the sessions that were updated last stay, as many as this."""
    max_events: int | None = None
    """Of each log the last events stay, as many as this."""


class Surplus(NamedTuple):
    """A session of which there is more than is to be kept."""

    session: SessionSummary
    is_doomed: bool
    """Whether all of it is to go; else the oldest events of its log."""


class LogMark(NamedTuple):
    """An event, as far as it says where a log may be cut."""

    row_id: int
    seq: int
    revision: int
    invocation_id: str
    time: float
    content: str | None
    """As JSON, if it may hold a function call or a response."""
    actions: str | None
    """As JSON, if they may be a compaction or a rewind."""


class PastSnapshot(NamedTuple):
    """What one query saw of a session and of a moment of it."""

    head: SessionHead
    """Of the present."""
    created_at: str
    beginning: Beginning
    seq: int | None
    """The number of the event after which the moment is; for the beginning 0, or where the log was cut. None if the log has
    no such event."""
    moment: Moment
    events: int
    """How many events there were then."""
    revision: int
    """The revision that the session had then."""
    rows: list[EventRow]
    """The events up to there, in log order, if they were asked for."""
    changes: list[LoggedChange]
    """All changes in its log, also those after the moment; without the creation."""


class NewSession(NamedTuple):
    """A session to be imported, without its events."""

    key: SessionKey
    created_at: str
    updated_at: str
    update_time: float
    state: str
    """Its own state: a JSON object of keys to values, the values as JSON text."""
    initial_state: str | None = None
    """What it was created with: a JSON object of keys with their prefixes to values; None if that is not known."""
    origin: ForkPoint | None = None
    """Where it was forked from, if it was."""
    cut: Cut | None = None
    """Where its log was cut, if it was: what follows is numbered from there."""


class NewEvent(NamedTuple):
    """An event of a session to be imported."""

    record: EventRecord
    advances: bool
    """Whether it belongs to the conversation; False for a change of state from outside."""


@dataclass(frozen=True, slots=True)
class BackupReport:
    """What a backup holds.

    Attributes:
        path: Where it is.
        sessions: Sessions in it.
        events: Events in it.
        state_keys: Rows of state in it, of all scopes.
        file_bytes: Its size.
        seconds: How long it took to make and check it.
    """

    path: Path
    sessions: int
    events: int
    state_keys: int
    file_bytes: int
    seconds: float


class Erased(NamedTuple):
    """How much belongs to a user, or did."""

    sessions: int
    events: int
    state_keys: int
    """Keys of state, of the user and of the sessions."""
    forks: int
    """Sessions of other users that were forked from this one's."""
    is_all: bool
    """Whether nothing else belongs to the user."""

    def plus(self, more: Erased) -> Erased:
        """Returns what two parts of an erasure have deleted together; ``more`` is the later one."""
        return Erased(
            self.sessions + more.sessions,
            self.events + more.events,
            self.state_keys + more.state_keys,
            self.forks + more.forks,
            more.is_all,
        )


NOTHING_ERASED = Erased(0, 0, 0, 0, is_all=True)


@dataclass(frozen=True, slots=True)
class ErasureReport:
    """What became of a user.

    Attributes:
        sessions: Sessions that were deleted.
        events: Events that were deleted with them.
        state_keys: Keys of state that were deleted, of the user and of the sessions.
        forks: Sessions of other users that were forked from this one's. They stay, with what they have taken over, and do
            not say any more from where.
        purged: Whether nothing of what was deleted, now or at any time before, is left in the store's own files.
        hint: Why something may be left, and what to do about it; empty if ``purged``.
    """

    sessions: int
    events: int
    state_keys: int
    forks: int
    purged: bool
    hint: str


@dataclass(frozen=True, slots=True)
class PruneReport:
    """What a prune did, or would do.

    Attributes:
        sessions: Sessions that were deleted.
        trimmed: Sessions that stay, of whose logs the oldest events were deleted.
        events: Events that were deleted, those of deleted sessions included.
        in_use: Sessions that were to be pruned, but were written to meanwhile: they wait for the next prune.
        uncut: Sessions that have more events than are to be kept, and no place where their logs may be cut.
        unreadable: Sessions that hold something that cannot be read, and were left alone.
        archives: Files that were written, of what was to be deleted.
        seconds: How long it took.
        dry_run: Whether nothing was deleted: it is what would have been.
    """

    sessions: int
    trimmed: int
    events: int
    in_use: int
    uncut: int
    unreadable: int
    archives: tuple[Path, ...]
    seconds: float
    dry_run: bool


class Status(enum.IntEnum):
    """How a write command ended."""

    DONE = 0
    MISSING = 1
    """The session does not exist."""
    DUPLICATE = 2
    """An equal event is in the log already; nothing was written."""
    STALE = 3
    """Another handle has appended since this one was read."""
    EXISTS = 4
    """A session of this id exists."""


class Outcome(NamedTuple):
    """The answer to a write command.

    The states are set for a created session only: JSON objects as text. ``pruned`` are the sessions that a prune has deleted. ``duplicates``
    are the parts of an :class:`~sessiondb.model.commands.AppendEvents` that were in the log already, by their numbers from 0.
    ``erased`` is what a part of an erasure has deleted.
    """

    status: Status
    incarnation: int = 0
    revision: int = 0
    session_state: str = "{}"
    user_state: str = "{}"
    app_state: str = "{}"
    pruned: tuple[SessionSummary, ...] = ()
    duplicates: tuple[int, ...] = ()
    erased: Erased = NOTHING_ERASED
