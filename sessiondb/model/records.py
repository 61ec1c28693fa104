"""Plain records that cross between the facade and a store.

Nothing here knows of ADK or of SQL. JSON travels as text: a store keeps it, the codec makes and reads it.
"""

from __future__ import annotations

import enum
from typing import NamedTuple


class SessionKey(NamedTuple):
    """The identity of a session."""

    app_name: str
    user_id: str
    session_id: str


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
    """All fields of the event that have no column of their own, a JSON object; None if all are unset."""

    @property
    def size(self) -> int:
        """Characters of JSON that the record holds."""
        return len(self.content or "") + len(self.actions) + len(self.extra or "")


class EventRow(NamedTuple):
    """One event as it comes back from the log."""

    row_id: int
    seq: int
    event_id: str
    invocation_id: str
    author: str
    time: float
    content: str | None
    actions: str
    extra: str | None


class SessionHead(NamedTuple):
    """The row of a session, with the state that its reader sees, all of one snapshot.

    The three states are JSON objects as text, keys without prefix.
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

    The states are set for a created session only: JSON objects as text.
    """

    status: Status
    incarnation: int = 0
    revision: int = 0
    session_state: str = "{}"
    user_state: str = "{}"
    app_state: str = "{}"
