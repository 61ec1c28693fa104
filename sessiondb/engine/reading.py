"""The read path above a store: what to ask for, and logs made of the answers, with the help of those decoded before."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from sessiondb.engine.cache import CachedLog, LogCache, estimate_bytes
from sessiondb.model.queries import NO_EVENTS, WHOLE_LOG, After, GetSession, Last, LogPosition, Since
from sessiondb.model.records import EventRow, SessionHead, SessionKey, SessionSnapshot


class EventForm(Protocol):
    """What readers want of a row, and what is kept of it for other readers.

    Attributes:
        bytes_per_event: How much memory an event takes that is kept, beside its text.
        is_deferred: Whether kept events are given when somebody looks at them, since it takes a while.
    """

    bytes_per_event: int
    is_deferred: bool

    def decode(self, rows: Sequence[EventRow], key: SessionKey) -> Iterator[Any]:
        """Makes what readers want of rows, one after the other, or raises CorruptRowError."""

    def keep(self, events: list[Any], rows: list[EventRow], *, known: bool) -> list[Any]:
        """Returns what is kept of events, which a reader has got. ``known``: of a log that was read before."""

    def give(self, kept: list[Any], which: slice | list[int], key: SessionKey) -> tuple[list[Any], bool]:
        """Returns events of the kept ones, in a new list, and whether some of these are kept in another form now."""

    def time_of(self, kept: Any) -> float:
        """Returns the timestamp of an event that is kept, in seconds since the epoch."""


_TINY_ROWS = 32
"""A read that was thought to be tiny and finds this many new events goes to a reader's thread instead."""

_FEW_ROWS = 256
"""So many rows, read for the first time, are decoded once more when somebody looks at them, in his thread. Decoding them is
short beside what the garbage collector takes, when many a reader has a log in memory and waits for something else."""

_MAX_COUNT = 2**63 - 1
"""The largest LIMIT that SQL can state."""


class LogHasGrownError(Exception):
    """A log holds too much that is new to be read in the caller's thread; never leaves the package."""


class Wanted(NamedTuple):
    """Which events of a log a caller wants.

    Attributes:
        last: At most so many, the last ones; None: all.
        since: Of those, the ones whose timestamp is at or after this moment, in seconds since the epoch; None: all.
    """

    last: int | None = None
    since: float | None = None

    def is_within(self, cached: CachedLog) -> bool:
        """Whether a cached log, and what came since, hold all of them."""
        return cached.complete or (self.last is not None and len(cached.events) >= self.last)

    def has_first(self, rows: Sequence[EventRow]) -> bool:
        """Whether rows that were read for this hold the log from its first event on."""
        if self.last is None:
            return self.since is None
        return len(rows) < self.last


EVERY_EVENT = Wanted()


class ReadPlan(NamedTuple):
    """How a session is going to be read.

    Attributes:
        query: What to ask the store.
        tiny: Whether the answer is known to be small, so that it may be read in the caller's thread.
        wanted: Which events of the log to give.
        cached: What is known of the log already.
    """

    query: GetSession
    tiny: bool
    wanted: Wanted
    cached: CachedLog | None

    def for_a_thread(self) -> ReadPlan:
        """The same read, however large it turns out to be."""
        part = self.query.part
        if type(part) is After:
            part = part._replace(limit=None)
        return self._replace(query=GetSession(self.query.key, part), tiny=False)


class DeferredEvents:
    """Events of a log that are made when somebody looks at them, since many a turn only appends.

    Attributes:
        lock: Held by whoever calls a method.
    """

    __slots__ = ("_following", "_give", "lock")

    def __init__(self, give: Callable[[], list[Any]], following: list[Any]) -> None:
        self.lock = threading.Lock()
        self._give = give
        self._following = following

    def append(self, event: Any) -> None:
        """Adds an event at the end."""
        self._following.append(event)

    def take(self) -> list[Any]:
        """Makes them, and gives up the list of them."""
        return [*self._give(), *self._following]


class LogReader:
    """Plans reads and decodes the answers; keeps what it decoded for later reads. Safe for any thread."""

    def __init__(self, form: EventForm, cache: LogCache | None) -> None:
        self.cache = cache
        self._form = form

    def plan(self, key: SessionKey, wanted: Wanted) -> ReadPlan:
        """Returns how to read a session."""
        if wanted.last == 0:
            return ReadPlan(GetSession(key, NO_EVENTS), tiny=True, wanted=wanted, cached=None)
        cached = None if self.cache is None else self.cache.get(key)
        if cached is not None and wanted.is_within(cached):
            query = GetSession(key, After(cached.position, _TINY_ROWS))
            return ReadPlan(query, tiny=True, wanted=wanted, cached=cached)
        if wanted.last is not None:
            query = GetSession(key, Last(min(wanted.last, _MAX_COUNT)))
        elif wanted.since is not None:
            query = GetSession(key, Since(wanted.since))
        else:
            query = GetSession(key, WHOLE_LOG)
        return ReadPlan(query, tiny=False, wanted=wanted, cached=None)

    def events(
        self, plan: ReadPlan, snapshot: SessionSnapshot | None, *, later: bool = False
    ) -> list[Any] | DeferredEvents:
        """Returns the events that a plan wants, from the answer to its query.

        Args:
            plan: What was wanted.
            snapshot: The answer.
            later: Whether events of a log that is read for the first time are made when somebody looks at them, however many
                they are. That is over sooner, and takes longer in the end.

        Raises:
            LogHasGrownError: If the query had a limit, and the answer has reached it.
        """
        key, part = plan.query.key, plan.query.part
        if snapshot is None:
            if self.cache is not None:
                self.cache.discard(key)
            return []
        head, rows = snapshot
        if type(part) is After and part.limit is not None and len(rows) >= part.limit:
            raise LogHasGrownError
        known = plan.cached
        if known is not None and known.position[:2] != (head.incarnation, head.log_epoch):
            # The store saw that too, and has read the log from its start.
            known, complete = None, True
        else:
            complete = plan.wanted.has_first(rows)
        new: list[Any] = []
        events: list[Any] | DeferredEvents
        can_be_later = self._form.is_deferred or self.cache is None
        is_for_later = (later and can_be_later and rows) or (self._form.is_deferred and self._are_few(rows))
        if is_for_later and not (known and known.events) and plan.wanted == EVERY_EVENT:
            events = self._checked(rows, key)
        else:
            new = list(self._form.decode(rows, key))
            events = self._given(plan, known, new)
        if self.cache is not None and (rows or known is None) and part is not NO_EVENTS and type(part) is not Since:
            self.cache.put(key, self._extended(known, new, rows, head, complete=complete))
        return events

    @staticmethod
    def _are_few(rows: Sequence[EventRow]) -> bool:
        return 0 < len(rows) <= _FEW_ROWS

    def _checked(self, rows: Sequence[EventRow], key: SessionKey) -> DeferredEvents:
        """Returns the events of rows that can be read; none of them is in memory before somebody looks at them."""
        for _ in self._form.decode(rows, key):
            pass
        return DeferredEvents(lambda: list(self._form.decode(rows, key)), [])

    def _given(self, plan: ReadPlan, known: CachedLog | None, new: list[Any]) -> list[Any] | DeferredEvents:
        """Returns the wanted ones of the events that are known and of the new ones."""
        last, since = plan.wanted
        wanted_new = new if plan.wanted == EVERY_EVENT else _wanted_of(new, plan.wanted)
        if known is None or not known.events:
            return wanted_new
        kept = known.events
        first = 0 if last is None else max(len(kept) + len(new) - last, 0)
        which: slice | list[int] = slice(first, None)
        if since is not None:
            time_of = self._form.time_of
            which = [index for index in range(first, len(kept)) if time_of(kept[index]) >= since]
        give = functools.partial(self._give, known, which, plan.query.key)
        return DeferredEvents(give, wanted_new) if self._form.is_deferred else [*give(), *wanted_new]

    def _give(self, known: CachedLog, which: slice | list[int], key: SessionKey) -> list[Any]:
        events, renewed = self._form.give(known.events, which, key)
        if renewed and self.cache is not None:
            # Later reads may have added to the log since this one was made.
            self.cache.renew_forms(key, known)
        return events

    def note_created(self, key: SessionKey, incarnation: int) -> None:
        """Gives the first read of a new session a log to start from."""
        if self.cache is not None:
            start = LogPosition(incarnation, 0, 0)
            self.cache.put(key, CachedLog(start, [], complete=True, bytes=estimate_bytes(0, 0), origin=[]))

    def forked(
        self, source: SessionKey, end: LogPosition, events: int, key: SessionKey, incarnation: int
    ) -> list[Any] | DeferredEvents | None:
        """Gives a fork the log that it has taken over, and returns its events; None if that must be read.

        Args:
            source: The session that it was forked from.
            end: The last event that was taken over, in the log of the source.
            events: How many events that are.
            key: The fork.
            incarnation: Its incarnation.
        """
        if self.cache is None:
            return None if events else []
        known = self.cache.peek(source)
        if not events:
            known = CachedLog(end, [], complete=True, bytes=estimate_bytes(0, 0), origin=[])
        elif (
            known is None
            or not known.complete
            or known.position[:2] != end[:2]
            or known.position.seq < end.seq
            or len(known.events) < events
        ):
            return None
        # Of a log rows are only added, so the first ones are those that were there then.
        kept = known.events[:events]
        size = known.bytes * events // max(len(known.events), 1) or known.bytes
        log = CachedLog(LogPosition(incarnation, 0, end.seq), kept, complete=True, bytes=size, origin=kept)
        self.cache.put(key, log)
        give = functools.partial(self._give, log, slice(None), key)
        return DeferredEvents(give, []) if self._form.is_deferred else give()

    def note_deleted(self, key: SessionKey) -> None:
        """Forgets the log of a session that is gone."""
        if self.cache is not None:
            self.cache.discard(key)

    def note_erased(self, app_name: str, user_id: str) -> None:
        """Forgets the logs of a user who is gone."""
        if self.cache is not None:
            self.cache.discard_user(app_name, user_id)

    def _extended(
        self, known: CachedLog | None, new: list[Any], rows: Sequence[EventRow], head: SessionHead, *, complete: bool
    ) -> CachedLog:
        """Returns a known log with the events that came since."""
        kept = self._form.keep(new, list(rows), known=known is not None and bool(known.events))
        characters = sum(len(row.content or "") + len(row.actions) + len(row.extra or "") for row in rows)
        size = estimate_bytes(len(rows) * self._form.bytes_per_event, characters)
        position = LogPosition(head.incarnation, head.log_epoch, rows[-1].seq if rows else 0)
        if known is None:
            return CachedLog(position, kept, complete, size, origin=kept)
        size += known.bytes - estimate_bytes(0, 0)
        return CachedLog(position, [*known.events, *kept], known.complete, size, known.origin)


def _wanted_of(events: list[Any], wanted: Wanted) -> list[Any]:
    if wanted.last is not None:
        events = events[-wanted.last :] if wanted.last else []
    if wanted.since is not None:
        events = [event for event in events if event.timestamp >= wanted.since]
    return events
