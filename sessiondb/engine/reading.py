"""The read path above a store: what to ask for, and logs made of the answers, with the help of those decoded before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

from sessiondb.engine.cache import CachedLog, LogCache, estimate_bytes
from sessiondb.model.queries import NO_EVENTS, WHOLE_LOG, After, GetSession, Last, LogPosition, Since
from sessiondb.model.records import EventRow, SessionHead, SessionKey, SessionSnapshot

DecodeEvent: TypeAlias = Callable[[EventRow, SessionKey], Any]
"""Makes what readers want of a row, or raises CorruptRowError. What it makes has the time as ``timestamp``."""

_TINY_ROWS = 32
"""A read that was thought to be tiny and finds this many new events goes to a reader's thread instead."""

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

    def of_log(self, events: Sequence[Any]) -> Sequence[Any]:
        """Picks them."""
        if self.last is not None:
            events = events[-self.last :] if self.last else ()
        if self.since is not None:
            events = [event for event in events if event.timestamp >= self.since]
        return events


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


class LogReader:
    """Plans reads and decodes the answers; keeps what it decoded for later reads. Safe for any thread."""

    def __init__(self, decode: DecodeEvent, cache: LogCache | None) -> None:
        self.cache = cache
        self._decode = decode

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

    def events(self, plan: ReadPlan, snapshot: SessionSnapshot | None) -> Sequence[Any]:
        """Returns the decoded events that a plan wants, from the answer to its query. Nobody may change the sequence.

        Raises:
            LogHasGrownError: If the query had a limit, and the answer has reached it.
        """
        key, part = plan.query.key, plan.query.part
        if snapshot is None:
            if self.cache is not None:
                self.cache.discard(key)
            return ()
        head, rows = snapshot
        if type(part) is After and part.limit is not None and len(rows) >= part.limit:
            raise LogHasGrownError
        known = plan.cached
        if known is not None and known.position[:2] != (head.incarnation, head.log_epoch):
            # The store saw that too, and has read the log from its start.
            known, complete = None, True
        else:
            complete = plan.wanted.has_first(rows)
        log = self._extended(known, rows, head, key, complete=complete)
        if self.cache is not None and log is not known and part is not NO_EVENTS and type(part) is not Since:
            self.cache.put(key, log)
        return plan.wanted.of_log(log.events)

    def note_created(self, key: SessionKey, incarnation: int) -> None:
        """Gives the first read of a new session a log to start from."""
        if self.cache is not None:
            start = LogPosition(incarnation, 0, 0)
            self.cache.put(key, CachedLog(start, [], complete=True, bytes=estimate_bytes(0, 0)))

    def note_deleted(self, key: SessionKey) -> None:
        """Forgets the log of a session that is gone."""
        if self.cache is not None:
            self.cache.discard(key)

    def _extended(
        self,
        known: CachedLog | None,
        rows: Sequence[EventRow],
        head: SessionHead,
        key: SessionKey,
        *,
        complete: bool,
    ) -> CachedLog:
        """Returns a known log with the rows that came since, decoded."""
        if known is not None and not rows:
            return known
        decode = self._decode
        decoded = [decode(row, key) for row in rows]
        characters = sum(len(row.content or "") + len(row.actions) + len(row.extra or "") for row in rows)
        size = estimate_bytes(len(rows), characters)
        position = LogPosition(head.incarnation, head.log_epoch, rows[-1].seq if rows else 0)
        if known is None:
            return CachedLog(position, decoded, complete, size)
        return CachedLog(position, [*known.events, *decoded], known.complete, known.bytes + size - estimate_bytes(0, 0))
