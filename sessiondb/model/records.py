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
    """The moment of another session of the same app from which a session was forked."""

    user_id: str
    session_id: str
    seq: int
    """The last event that was taken over, by its number; 0 if none was."""


class Beginning(NamedTuple):
    """What is known of how a session began."""

    initial_state: str | None
    """What it was created with: a JSON object of keys with their prefixes to values; None if that is not known."""
    origin: ForkPoint | None
    """Where it was forked from, if it was. What it took over is part of its own log."""

    @classmethod
    def of_columns(cls, initial_state: str | None, *origin: Any) -> Beginning:
        """Makes it of what is stored: ``origin`` is the three columns of a fork, NULL where it is none."""
        return cls(initial_state, None if origin[-1] is None else ForkPoint(*origin))


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
    """Seconds since the epoch; None for the creation, which has a ``timestamp`` only."""
    timestamp: str
    actions: str
    """What the event does, as JSON; for the creation an object of which ``state_delta`` is what the session began with."""
    extra: str | None


class PastSnapshot(NamedTuple):
    """What one query saw of a session and of a moment of it."""

    head: SessionHead
    """Of the present."""
    created_at: str
    beginning: Beginning
    seq: int | None
    """The number of the event after which the moment is, 0 for the beginning; None if the log has no such event."""
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

    The states are set for a created session only: JSON objects as text. ``pruned`` is what a prune has deleted. ``duplicates``
    are the parts of an :class:`~sessiondb.model.commands.AppendEvents` that were in the log already, by their numbers from 0.
    """

    status: Status
    incarnation: int = 0
    revision: int = 0
    session_state: str = "{}"
    user_state: str = "{}"
    app_state: str = "{}"
    pruned: tuple[SessionSummary, ...] = ()
    duplicates: tuple[int, ...] = ()
