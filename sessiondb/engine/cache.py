"""Logs kept between reads. In which form an event is kept is for the reader to say.

A log only grows, so what was decoded stays true: a read fetches and decodes what came since. An entry is valid for one
incarnation of its session and one epoch of its log; who holds it asks storage for both with every read.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any, NamedTuple

from sessiondb.forking import renew_after_fork
from sessiondb.model.queries import LogPosition
from sessiondb.model.records import SessionKey
from sessiondb.stats import CacheStats

# Measured: what each character of JSON takes, and a log beside its events (docs/performance).
_BYTES_PER_CHARACTER = 2
_LOG_BYTES = 1_000


class CachedLog(NamedTuple):
    """The last events of a log, without a gap.

    Attributes:
        position: The last event that is contained.
        events: What is kept of the events, in log order. Readers use it without a lock: once the entry is made, one may
            only be replaced by another form of the same.
        complete: Whether the first event of the log is contained.
        bytes: About how much memory the events take.
        origin: The list that this one was made of by adding events, if it was: both begin with the same event.
    """

    position: LogPosition
    events: list[Any]
    complete: bool
    bytes: int
    origin: list[Any]


class LogCache:
    """Entries for the sessions read last, within a budget of memory. Safe for any number of threads."""

    def __init__(self, limit: int) -> None:
        self.stats = CacheStats()
        self._limit = limit
        self._lock = threading.Lock()
        self._entries: OrderedDict[SessionKey, CachedLog] = OrderedDict()
        # About how much memory the entries take.
        self.bytes = 0
        renew_after_fork(self)

    def renew_in_child(self) -> None:
        """Starts empty: a thread of the parent may have been at work in here. The parent's reads are not this process's."""
        self.stats.hits = self.stats.misses = 0
        self._lock = threading.Lock()
        self._entries = OrderedDict()
        self.bytes = 0

    def get(self, key: SessionKey) -> CachedLog | None:
        """Returns the entry of a session, which is used last from now on."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                self.stats.misses += 1
            else:
                self.stats.hits += 1
                self._entries.move_to_end(key)
            return entry

    def peek(self, key: SessionKey) -> CachedLog | None:
        """Returns the entry of a session, for somebody who does not read that session."""
        with self._lock:
            return self._entries.get(key)

    def put(self, key: SessionKey, entry: CachedLog) -> None:
        """Keeps an entry, unless one that knows more of the same log is there; drops those not used for longest."""
        with self._lock:
            present = self._entries.get(key)
            if present is not None:
                same_log = present.position[:2] == entry.position[:2]
                if same_log and present.position.seq >= entry.position.seq and len(present.events) > len(entry.events):
                    return
                self.bytes -= present.bytes
                del self._entries[key]
            if entry.bytes > self._limit:
                return
            self._entries[key] = entry
            self.bytes += entry.bytes
            while self.bytes > self._limit:
                _, dropped = self._entries.popitem(last=False)
                self.bytes -= dropped.bytes

    def renew_forms(self, key: SessionKey, log: CachedLog) -> None:
        """Has the entry of a session take over the forms in which a log keeps its events, if it is that log, or began so."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None and entry.origin is log.origin:
                entry.events[: len(log.events)] = log.events

    def discard(self, key: SessionKey) -> None:
        """Forgets a session."""
        with self._lock:
            entry = self._entries.pop(key, None)
            if entry is not None:
                self.bytes -= entry.bytes

    def discard_user(self, app_name: str, user_id: str) -> None:
        """Forgets all sessions of a user of an app."""
        with self._lock:
            keys = [key for key in self._entries if key[:2] == (app_name, user_id)]
        for key in keys:
            self.discard(key)


def estimate_bytes(event_bytes: int, characters: int) -> int:
    """Estimates the memory of a log, from the bytes that its events take beside their text, and the length of their JSON."""
    return _LOG_BYTES + event_bytes + characters * _BYTES_PER_CHARACTER
