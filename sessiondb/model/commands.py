"""What a store can be asked to write. Each command says what, a store says how."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from sessiondb.model.records import EventRecord, Outcome, Selection, SessionKey, StateDelta, Status


class Handle:
    """The revision that one live Session object has seen, while appends through it are in flight.

    Concurrent appends through one Session share its handle, so that each expects what the one before it left behind.
    Only the writer changes a handle, after the commit and before it answers.

    Attributes:
        incarnation: The incarnation of the session the handle was read from; None when the Session came without a
            revision (built by hand, or restored from JSON).
        revision: The revision seen, if ``incarnation`` is set.
        last_event_id: For a Session without a revision, the id of its last event, "" if it holds none: it is
            accepted if no handle has appended after that event.
    """

    __slots__ = ("incarnation", "last_event_id", "revision")

    def __init__(self, incarnation: int | None, revision: int, last_event_id: str) -> None:
        self.incarnation = incarnation
        self.revision = revision
        self.last_event_id = last_event_id

    def advance(self, outcome: Outcome) -> None:
        """Moves to where a committed append through this handle has brought the session; never back."""
        if self.incarnation == outcome.incarnation:
            self.revision = max(self.revision, outcome.revision)
        else:
            self.incarnation, self.revision = outcome.incarnation, outcome.revision


class AppendEvent(NamedTuple):
    """Append to a conversation. ``handle`` None appends whatever other handles have done."""

    key: SessionKey
    event: EventRecord
    delta: StateDelta
    handle: Handle | None

    @property
    def size(self) -> int:
        """Characters of JSON that the event holds."""
        return _size_of(self.event)


class UpdateKeys(NamedTuple):
    """Change state from outside any conversation: recorded in the log, the revision stays."""

    key: SessionKey
    event: EventRecord
    delta: StateDelta


class AppendEvents(NamedTuple):
    """Append several events to one session, in their order: all of them or none.

    Events that are in the log already are none of these: an equal one changes nothing.

    Attributes:
        key: Of which session.
        parts: What each event does. No two are equal, and those that belong to the conversation have the command's handle.
        handle: As that of :class:`AppendEvent`; None, too, if no event belongs to the conversation.
    """

    key: SessionKey
    parts: tuple[AppendEvent | UpdateKeys, ...]
    handle: Handle | None

    @property
    def size(self) -> int:
        """Characters of JSON that the events hold."""
        return sum(_size_of(part.event) for part in self.parts)

    def without(self, duplicates: tuple[int, ...]) -> AppendEvents:
        """Returns what is left of it when some of its parts are in the log."""
        return self._replace(parts=tuple(part for n, part in enumerate(self.parts) if n not in duplicates))


class CreateSession(NamedTuple):
    """Create a session, with the state it starts with.

    ``initial_state`` is that state once more, for its history: a JSON object of keys with their prefixes.
    """

    key: SessionKey
    time: float
    timestamp: str
    delta: StateDelta
    initial_state: str


class ForkSession(NamedTuple):
    """Create a session that begins as another one of the same app was at a moment.

    Attributes:
        key: The new session.
        time: When it is created, in seconds since the epoch.
        timestamp: The same moment as text.
        source: The other one.
        incarnation: The incarnation of the source, as it was read.
        log_epoch: The epoch of its log, as it was read. If one of the two is another now, the command is stale.
        seq: The number of the last event that the new session takes over; 0: none.
        events: How many events that are.
        revision: The revision that the source had then.
        session_set: Its own state then, as in :class:`~sessiondb.model.records.StateDelta`.
    """

    key: SessionKey
    time: float
    timestamp: str
    source: SessionKey
    incarnation: int
    log_epoch: int
    seq: int
    events: int
    revision: int
    session_set: str


class DeleteSession(NamedTuple):
    """Delete a session with its log and its session-scoped state; user and app state stay."""

    key: SessionKey


class PruneSessions(NamedTuple):
    """Delete the sessions that were updated longest ago, each as :class:`DeleteSession` does.

    Attributes:
        selection: Which ones.
        updated_before: Only those whose last update is before this moment, in seconds since the epoch.
        limit: At most this many, so that other writers do not wait for long.
    """

    selection: Selection
    updated_before: float
    limit: int


class TruncateSession(NamedTuple):
    """Cut a session's log off after one of its events, and give the session the state of its own that it had then.

    What was appended since the log was read is cut off, too.

    Attributes:
        key: Which session.
        time: The moment of the cut, in seconds since the epoch.
        timestamp: The same moment as text.
        incarnation: The incarnation of the session, as it was read.
        log_epoch: The epoch of its log, as it was read. If one of the two is another now, the command is stale.
        seq: The number of the last event that stays. If none does, the number before that of the first event.
        last_seq: The number of the last event that was read. If one has come since that holds a function response, the command
            is stale, too: it may answer a call that stays.
        session_set: Its own state then, as in :class:`~sessiondb.model.records.StateDelta`.
    """

    key: SessionKey
    time: float
    timestamp: str
    incarnation: int
    log_epoch: int
    seq: int
    last_seq: int
    session_set: str


class RedactedEvent(NamedTuple):
    """What is left of an event that is redacted."""

    seq: int
    event_id: str
    content: str | None
    actions: str
    extra: str


class RedactEvents(NamedTuple):
    """Put others in the place of what some events hold. The revision of their session stays.

    Attributes:
        key: Which session.
        incarnation: The incarnation of the session, as it was read.
        log_epoch: The epoch of its log, as it was read. If one of the two is another now, the command is stale.
        events: What is left of each of these events.
    """

    key: SessionKey
    incarnation: int
    log_epoch: int
    events: tuple[RedactedEvent, ...]


class Flush:
    """Nothing to write: answered once all that was queued before is on disk."""

    __slots__ = ()


class Vacuum:
    """Check integrity, give space back to the file system, refresh the planner's statistics."""

    __slots__ = ()


DataCommand: TypeAlias = (
    AppendEvent
    | UpdateKeys
    | AppendEvents
    | CreateSession
    | ForkSession
    | TruncateSession
    | RedactEvents
    | DeleteSession
    | PruneSessions
    | Flush
)
"""A command that shares a transaction with others."""

WriteCommand: TypeAlias = DataCommand | Vacuum


def advance_handle(command: DataCommand, outcome: Outcome) -> None:
    """Lets the handle of a committed append know where its session is now; for other commands there is none."""
    if isinstance(command, AppendEvent | AppendEvents) and command.handle is not None and outcome.status is Status.DONE:
        command.handle.advance(outcome)


def _size_of(event: EventRecord) -> int:
    return len(event.content or "") + len(event.actions) + len(event.extra or "")
