"""The read path above a store: what to ask for, and Sessions made of the answers, with the help of decoded logs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from google.adk.events import Event
from google.adk.sessions import Session
from google.adk.sessions.base_session_service import GetSessionConfig

from sessiondb.adk import events as codec
from sessiondb.adk.listing import SessionList
from sessiondb.adk.pydantic_internals import model_access
from sessiondb.adk.sessions import build_session
from sessiondb.engine.cache import CachedLog, LogCache, estimate_bytes
from sessiondb.model.queries import GetSession, LogPosition
from sessiondb.model.records import EventRow, SessionHead, SessionKey, SessionSnapshot, SessionSummary
from sessiondb.options import ServiceOptions

_TINY_ROWS = 32
"""A read that was thought to be tiny and finds this many new events goes to a reader's thread instead."""

_MOST_ROWS = 2**63 - 1
"""The largest LIMIT that SQL can state."""


class LogHasGrownError(Exception):
    """A log holds too much that is new to be read in the caller's thread; never leaves the package."""


class Wanted(NamedTuple):
    """Which events of a log a caller wants."""

    newest: int | None
    since: float | None

    @classmethod
    def of(cls, config: GetSessionConfig | None) -> Wanted:
        """Returns what ADK's own configuration asks for."""
        if config is None:
            return _ALL
        newest = config.num_recent_events
        return cls(None if newest is None else min(newest, _MOST_ROWS), config.after_timestamp)

    def is_within(self, cached: CachedLog) -> bool:
        """Whether a cached log, and what came since, hold all of them."""
        return cached.complete or (self.newest is not None and len(cached.events) >= self.newest)

    def has_first(self, rows: Sequence[EventRow]) -> bool:
        """Whether rows that were read for this hold the log from its first event on."""
        if self.newest is None:
            return self.since is None
        return len(rows) < self.newest

    def of_log(self, events: Sequence[Event]) -> Sequence[Event]:
        """Picks them."""
        if self.newest is not None:
            events = events[-self.newest :] if self.newest else ()
        if self.since is not None:
            events = [event for event in events if event.timestamp >= self.since]
        return events


_ALL = Wanted(None, None)


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
        return self._replace(query=replace(self.query, oldest=None), tiny=False)


class SessionReader:
    """Plans reads and makes Sessions of the answers; keeps what it decoded for later reads. Safe for any thread."""

    def __init__(self, options: ServiceOptions) -> None:
        self.cache = None if options.log_cache == "off" else LogCache(options.log_cache_bytes)
        self._copies = options.log_cache == "copy"

    def plan(self, key: SessionKey, config: GetSessionConfig | None) -> ReadPlan:
        """Returns how to read a session."""
        wanted = Wanted.of(config)
        if wanted.newest == 0:
            return ReadPlan(GetSession(key, newest=0), tiny=True, wanted=wanted, cached=None)
        cached = None if self.cache is None else self.cache.get(key)
        if cached is not None and wanted.is_within(cached):
            query = GetSession(key, known=cached.position, oldest=_TINY_ROWS)
            return ReadPlan(query, tiny=True, wanted=wanted, cached=cached)
        query = GetSession(key, newest=wanted.newest, since=wanted.since if wanted.newest is None else None)
        return ReadPlan(query, tiny=False, wanted=wanted, cached=None)

    def assemble(self, plan: ReadPlan, snapshot: SessionSnapshot | None) -> Session | None:
        """Makes a Session of the answer to a plan's query; None if there is none.

        Raises:
            LogHasGrownError: If the query had a limit, and the answer has reached it.
            CorruptRowError: If a row cannot be read.
        """
        query = plan.query
        key = query.key
        if snapshot is None:
            if self.cache is not None:
                self.cache.discard(key)
            return None
        head, rows = snapshot
        if query.oldest is not None and len(rows) >= query.oldest:
            raise LogHasGrownError
        known = plan.cached
        if known is not None and known.position[:2] != (head.incarnation, head.log_epoch):
            # The store saw that too, and has read the log from its start.
            known, complete = None, True
        else:
            complete = plan.wanted.has_first(rows)
        log = _extended(known, rows, head, key, complete=complete)
        if self.cache is not None and log is not known and query.newest != 0 and query.since is None:
            self.cache.put(key, log)
        events = plan.wanted.of_log(log.events)
        own = model_access.copy_events(events) if self._copies else list(events)
        return build_session(key, head, own, head.update_time)

    def note_created(self, key: SessionKey, incarnation: int) -> None:
        """Gives the first read of a new session a log to start from."""
        if self.cache is not None:
            start = LogPosition(incarnation, 0, 0)
            self.cache.put(key, CachedLog(start, [], complete=True, bytes=estimate_bytes(0, 0)))

    def note_deleted(self, key: SessionKey) -> None:
        """Forgets the log of a session that is gone."""
        if self.cache is not None:
            self.cache.discard(key)


def list_of(summaries: Iterable[SessionSummary]) -> SessionList:
    """Makes a list of sessions of a store's answer."""
    sessions = []
    rows = []
    for key, created_at, updated_at, head in summaries:
        sessions.append(build_session(key, head, [], head.update_time))
        # Spelled out: key._asdict() would be a quarter of the time that a listing takes.
        rows.append(
            {
                "app_name": key.app_name,
                "user_id": key.user_id,
                "session_id": key.session_id,
                "created_at": created_at,
                "updated_at": updated_at,
            }
        )
    return SessionList.of(sessions, rows)


def _extended(
    known: CachedLog | None, rows: Sequence[EventRow], head: SessionHead, key: SessionKey, *, complete: bool
) -> CachedLog:
    """Returns a known log with the rows that came since, decoded."""
    if known is not None and not rows:
        return known
    decoded = [codec.decode_event(row, key) for row in rows]
    size = estimate_bytes(len(rows), sum(map(codec.row_characters, rows)))
    position = LogPosition(head.incarnation, head.log_epoch, rows[-1].row_id if rows else 0)
    if known is None:
        return CachedLog(position, decoded, complete, size)
    return CachedLog(position, [*known.events, *decoded], known.complete, known.bytes + size - estimate_bytes(0, 0))
