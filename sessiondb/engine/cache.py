"""Decoded logs, kept between reads. What an event is decoded to is for the reader to say.

A log only grows, so what was decoded stays true: a read fetches and decodes what came since. An entry is valid for one
incarnation of its session and one epoch of its log; who holds it asks storage for both with every read.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

from sessiondb.forking import renew_after_fork
from sessiondb.model.queries import LogPosition
from sessiondb.model.records import SessionKey
from sessiondb.stats import CacheStats

# Measured: what a decoded text event takes beside its text, and what each character of JSON takes (docs/performance).
_EVENT_BYTES = 5_000
_BYTES_PER_CHARACTER = 2
_LOG_BYTES = 1_000


class CachedLog(NamedTuple):
    """The last events of a log, decoded, without a gap.

    Attributes:
        position: The last event that is contained.
        events: The events in log order. Never changed once the entry is made: readers slice it without a lock.
        complete: Whether the first event of the log is contained.
        bytes: About how much memory the events take.
    """

    position: LogPosition
    events: Sequence[Any]
    complete: bool
    bytes: int


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

    def discard(self, key: SessionKey) -> None:
        """Forgets a session."""
        with self._lock:
            entry = self._entries.pop(key, None)
            if entry is not None:
                self.bytes -= entry.bytes


def estimate_bytes(events: int, characters: int) -> int:
    """Estimates the memory of a log, from the number of its events and the length of their JSON."""
    return _LOG_BYTES + events * _EVENT_BYTES + characters * _BYTES_PER_CHARACTER
