"""What a store can be asked to read. Each query sees one snapshot.

Nobody changes a query that was made. It is not frozen all the same: that would double what making one takes, at each
read, and what making these classes takes, at each import.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, Literal, NamedTuple, TypeAlias, TypeVar

from sessiondb.model.records import (
    EVERYTHING,
    Beginning,
    Cursor,
    Erased,
    EventRow,
    ForkedSession,
    Limits,
    LoggedChange,
    LoggedEvent,
    LogMark,
    LogPage,
    Moment,
    PastSnapshot,
    Selection,
    SessionKey,
    SessionSnapshot,
    SessionSummary,
    StateRow,
    StoreSize,
    Surplus,
)
from sessiondb.model.search import FoundPage, Match, SearchPlace
from sessiondb.model.usage import UsageBy, UsageRow
from sessiondb.model.words import Term

ResultT_co = TypeVar("ResultT_co", covariant=True)


EXACT_UP_TO = 20_000
"""What is counted exactly where nobody says otherwise."""


class Query(Generic[ResultT_co]):
    """A question to a store, answered with a ``ResultT_co``."""

    __slots__ = ()


class LogPosition(NamedTuple):
    """How much of a session's log a reader knows: valid for one incarnation and one epoch of the session.

    The epoch advances when rows of the log are changed or deleted, by a truncation, a redaction, or outside sessiondb.
    """

    incarnation: int
    log_epoch: int
    seq: int
    """The number of the last event that is known; 0: none."""


LOG_START = LogPosition(0, 0, 0)


class After(NamedTuple):
    """The events after a position, the whole log if that is no longer valid.

    Attributes:
        position: What is known already.
        limit: At most this many events; which of them is not said, for whoever only wants to know that there are many.
    """

    position: LogPosition = LOG_START
    limit: int | None = None


class Last(NamedTuple):
    """At most so many events, the last ones of a log; with 0 none are read."""

    limit: int


class Since(NamedTuple):
    """The events whose timestamp is at or after a moment, in seconds since the epoch."""

    time: float


Slice: TypeAlias = After | Last | Since
"""Which part of a session's log is meant."""

WHOLE_LOG = After()
NO_EVENTS = Last(0)


@dataclass(slots=True, eq=False)
class GetSession(Query[SessionSnapshot | None]):
    """Read a session's head and a part of its log; None if there is no such session."""

    key: SessionKey
    part: Slice = WHOLE_LOG


SessionOrder: TypeAlias = Literal["oldest", "newest", "key"]
"""The session updated longest ago first, the one updated last first, or in the order of the keys.

Of sessions updated at the same moment the key decides: its user, then its session, then its app. The one updated last first
is the other way round in all of that.
"""


class SessionPlace(NamedTuple):
    """A place in the list of all sessions by their last update: that of a session as it was when it was listed.

    A session that is written to moves to another place. One that is not stays where it is, whatever others do.
    """

    update_time: float
    key: SessionKey


class LogPlace(NamedTuple):
    """The place of an event in the log of its session."""

    incarnation: int
    """Of the session. A session deleted and created anew has another log."""
    seq: int
    row_id: int


@dataclass(slots=True, eq=False)
class ListSessions(Query[Iterator[SessionSummary]]):
    """List sessions.

    Attributes:
        selection: Which ones.
        order: In which order.
        updated_before: Only those whose last update is before this moment, in seconds since the epoch.
        limit: At most this many.
        with_state: Whether to read their state.
        updated_since: Only those whose last update is at or after this moment.
        after: Only those behind this place. Not in the order of the keys.
        state: Only those whose own state holds each of these keys, with this JSON as its value, to the letter.
    """

    selection: Selection = EVERYTHING
    order: SessionOrder = "oldest"
    updated_before: float | None = None
    limit: int | None = None
    with_state: bool = True
    updated_since: float | None = None
    after: SessionPlace | None = None
    state: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True, eq=False)
class GetLogPage(Query[LogPage | None]):
    """Read a part of a session's log; None if there is no such session.

    Attributes:
        key: Of which session.
        limit: At most so many events.
        after: Only what comes behind this place, in the order of the page.
        before: Only what comes before this place, in the order of the page.
        newest_first: Whether the page begins at the end of the log, and goes back.
        authors: Only events of these authors; None: of any.
    """

    key: SessionKey
    limit: int
    after: LogPlace | None = None
    before: LogPlace | None = None
    newest_first: bool = False
    authors: tuple[str, ...] | None = None


@dataclass(slots=True, eq=False)
class ListEvents(Query[Iterator[LoggedEvent]]):
    """Read the log of all sessions in the order in which it was written.

    Attributes:
        selection: Of which sessions.
        after: Only what follows this cursor.
        last: Only the last so many; they are all read before the first is given.
        limit: At most so many, the first ones.
        state_key: Only events whose state delta holds this key, given with its prefix.
    """

    selection: Selection = EVERYTHING
    after: Cursor | None = None
    last: int | None = None
    limit: int | None = None
    state_key: str | None = None


@dataclass(slots=True, eq=False)
class GetBeginning(Query[Beginning | None]):
    """Read how a session began; None if there is no such session."""

    key: SessionKey


class At(NamedTuple):
    """A moment of a session: right after one of its events, which one of the three names; the present if none does.

    Attributes:
        event_id: The event of this id; if several have it, the last of them.
        seq: The event of this number; 0 is the beginning, right after the creation. Of a log that was cut, the beginning is
            the event where that was done.
        time: The last event, in the order of the log, that is dated at or before this moment, in seconds since the epoch.
            If there is none, the beginning, if that was before.
    """

    event_id: str | None = None
    seq: int | None = None
    time: float | None = None

    def in_beginning(self, beginning: Beginning) -> tuple[int | None, int]:
        """Returns the number and the revision of the beginning, if a moment for which the log has no event is that.

        What is left of a log that was cut begins after the event where it was cut. (None, 0) if it is another moment.
        """
        cut = beginning.cut
        if cut is None:
            return (None if self.event_id is not None or self.seq else 0), 0
        if self == NOW or self.seq == cut.seq or (self.time is not None and self.time >= cut.time):
            return cut.seq, cut.revision
        return None, 0


NOW = At()


@dataclass(slots=True, eq=False)
class GetPast(Query[PastSnapshot | None]):
    """Read a session and a moment of it; None if there is no such session.

    Attributes:
        key: Which session.
        at: Which moment.
        with_events: Whether to read the events up to there.
    """

    key: SessionKey
    at: At
    with_events: bool = True


@dataclass(slots=True, eq=False)
class GetOutline(Query[list[EventRow]]):
    """Read which events a session's log holds, in its order, without most of what is in them.

    The content is there of events that hold function calls or responses, and the actions of those that hold a compaction. The
    others have None and ``{}``, and all of them no ``extra``.
    """

    key: SessionKey


@dataclass(slots=True, eq=False)
class FindEvents(Query[SessionSnapshot | None]):
    """Read the events of some ids, in the order of the log; None if there is no such session. State is left out.

    Attributes:
        key: Of which session.
        event_ids: Those that have one of these ids; several may have the same.
    """

    key: SessionKey
    event_ids: tuple[str, ...]


@dataclass(slots=True, eq=False)
class ListChanges(Query[Iterator[LoggedChange]]):
    """Read what has changed state, creations of sessions included, in the order in which it was written.

    It may hold changes of other keys than those that are asked for, and events that have changed nothing.

    Attributes:
        selection: Of which sessions.
        state_key: Only changes of this key, given with its prefix.
        prefix: Only changes of keys that begin with this, such as ``user:``.
        after: Only what comes after this moment.
        until: Only what comes at or before this moment.
        newest_first: Whether to begin with the last one.
    """

    selection: Selection = EVERYTHING
    state_key: str | None = None
    prefix: str | None = None
    after: Moment | None = None
    until: Moment | None = None
    newest_first: bool = False


@dataclass(slots=True, eq=False)
class ListForks(Query[Iterator[ForkedSession]]):
    """List the sessions that were forked from others, the oldest first.

    Attributes:
        source: From which sessions.
    """

    source: Selection = EVERYTHING


@dataclass(slots=True, eq=False)
class GetLogEnd(Query[Cursor]):
    """Find the end of the log of all sessions: what is written from now on comes after it."""


@dataclass(slots=True, eq=False)
class ListState(Query[Iterator[StateRow]]):
    """Read the state of a scope, owner by owner and key by key.

    Attributes:
        scope: Which scope.
        selection: Whose state; of it, only what names an owner in that scope has a meaning.
    """

    scope: Literal["SESSION", "USER", "APP"]
    selection: Selection = EVERYTHING


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
class MeasureUser(Query[Erased]):
    """Count what belongs to a user of an app."""

    app_name: str
    user_id: str


@dataclass(slots=True, eq=False)
class FindDamage(Query[list[str]]):
    """Look for what is wrong with the files of the store; reads all of them. A server looks after its own."""


@dataclass(slots=True, eq=False)
class MeasureStore(Query[StoreSize]):
    """Count sessions, events and state keys, and measure what they take.

    Attributes:
        exact_up_to: A count up to this is exact. A higher one may be an estimate, so that the answer does not take longer
            the more there is; the answer says which are.
    """

    exact_up_to: int = EXACT_UP_TO


@dataclass(slots=True, eq=False)
class FindSurplus(Query[list[Surplus]]):
    """Find sessions of which there is more than is to be kept, in the order of their keys.

    Attributes:
        selection: Among which ones. Of a user's sessions all are counted, if no single session is selected.
        limits: What is to be kept.
        after: Only those behind this one.
        limit: At most this many.
    """

    selection: Selection
    limits: Limits
    after: SessionKey | None
    limit: int


@dataclass(slots=True, eq=False)
class ListMarks(Query[list[LogMark]]):
    """Read of a session's log what says where it may be cut, in log order.

    Attributes:
        key: Of which session.
        after: Only events behind this one.
        limit: At most so many.
    """

    key: SessionKey
    after: LogMark | None
    limit: int


@dataclass(slots=True, eq=False)
class ListOwnChanges(Query[Iterator[LoggedChange]]):
    """Read which events of a session have changed state, in log order; of each its number, and what it does."""

    key: SessionKey


@dataclass(slots=True, eq=False)
class GetUsage(Query[list[UsageRow]]):
    """Sum up what conversations have used, in the order of what they are counted by.

    Attributes:
        selection: Which ones.
        since: Only events at or after this moment, in seconds since the epoch.
        until: Only events before this moment, in seconds since the epoch.
        by: What a row is of.
    """

    selection: Selection = EVERYTHING
    since: float | None = None
    until: float | None = None
    by: UsageBy = "session"


@dataclass(slots=True, eq=False)
class SearchEvents(Query[FoundPage]):
    """Search the texts of events.

    Attributes:
        selection: Of which sessions.
        terms: What is looked for, at least one.
        match: Whether all of it must be in an event, or any of it.
        limit: At most so many hits.
        author: Only events of this author.
        since: Only events at or after this moment, in seconds since the epoch.
        until: Only events before this moment, in seconds since the epoch.
        after: Only what comes behind this place.
        with_rows: Whether to read the events, too.
        remembered: Only events that their user remembers, see :mod:`sessiondb.model.memory`.
    """

    selection: Selection
    terms: tuple[Term, ...]
    match: Match
    limit: int
    author: str | None = None
    since: float | None = None
    until: float | None = None
    after: SearchPlace | None = None
    with_rows: bool = False
    remembered: bool = False
