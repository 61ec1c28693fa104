"""What a store can be asked to read. Each query sees one snapshot.

Nobody changes a query that was made. It is not frozen all the same: that would double what making one takes, at each
read, and what making these classes takes, at each import.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from sessiondb.model.records import SessionKey, SessionSnapshot, SessionSummary, StoreSize

ResultT = TypeVar("ResultT")


class Query(Generic[ResultT]):
    """A question to a store, answered with a ``ResultT``."""

    __slots__ = ()


class LogPosition(NamedTuple):
    """Up to where a reader knows a log: valid for one incarnation and one epoch of the session.

    The epoch advances when a row of the log is changed or deleted outside sessiondb, whose own writer never does that.
    """

    incarnation: int
    log_epoch: int
    row_id: int


LOG_START = LogPosition(0, 0, 0)


@dataclass(slots=True, eq=False)
class GetSession(Query[SessionSnapshot | None]):
    """Read a session's head, and of its log what comes after ``known``; None if there is no such session.

    Attributes:
        known: Rows up to this position are left out, if it is still valid; otherwise all rows are read.
        newest: At most this many rows, the newest; ``known`` must be LOG_START then. None: no limit.
        oldest: At most this many rows, the oldest after ``known``. None: no limit.
        since: Only rows whose event's timestamp is at or after this one, in seconds since the epoch.
    """

    key: SessionKey
    known: LogPosition = LOG_START
    newest: int | None = None
    oldest: int | None = None
    since: float | None = None


@dataclass(slots=True, eq=False)
class ListSessions(Query[Iterator[SessionSummary]]):
    """List sessions, oldest update first; None stands for any app, any user."""

    app_name: str | None
    user_id: str | None


@dataclass(slots=True, eq=False)
class GetUserState(Query[str]):
    """Read what is stored for a user of an app, a JSON object with keys without prefix."""

    app_name: str
    user_id: str


@dataclass(slots=True, eq=False)
class CountEvents(Query[int]):
    """Count the events of a session's log."""

    key: SessionKey


@dataclass(slots=True, eq=False)
class MeasureStore(Query[StoreSize]):
    """Count sessions, events and state keys, and measure the file."""
