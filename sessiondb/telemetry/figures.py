"""Figures of the process's open stores and caches, read when a collector asks for them."""

from __future__ import annotations

import threading
import weakref
from collections import defaultdict, deque
from collections.abc import Mapping
from typing import Protocol

from sessiondb.forking import renew_after_fork
from sessiondb.stats import STORE_SUMS, CacheStats, Health


class OpenStore(Protocol):
    """What runs on an open store."""

    def measure(self) -> Mapping[str, float]:
        """Returns figures by their names in :class:`~sessiondb.stats.ServiceStats`; touches no connection."""

    def health(self, stalled_after: float) -> Health:
        """Says whether the writer makes progress; touches no connection and waits for nothing."""

    def file_bytes(self) -> int:
        """Bytes that the store takes."""


class Cache(Protocol):
    """A cache of decoded logs."""

    stats: CacheStats

    @property
    def bytes(self) -> int:
        """About how much memory the entries take."""


class _Process:
    """What is open in this process, and sums of what was: a counter does not go back when a store is closed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stores: set[OpenStore] = set()
        self._caches: weakref.WeakSet[Cache] = weakref.WeakSet()
        self._counts: dict[int, CacheStats] = {}
        # Filled by the garbage collector, which may run while the lock is held.
        self._closed: deque[CacheStats] = deque()
        self._totals: dict[str, float] = {}
        renew_after_fork(self)

    def renew_in_child(self) -> None:
        """Begins anew: what the parent has open, and what it did, are the parent's to report."""
        self._lock = threading.Lock()
        self._stores = set()
        self._fold_closed()
        self._totals.clear()

    def add_store(self, store: OpenStore) -> None:
        with self._lock:
            self._stores.add(store)

    def remove_store(self, store: OpenStore) -> None:
        with self._lock:
            # A forked child does not know what its parent has open.
            if store in self._stores:
                self._stores.remove(store)
                figures = store.measure()
                _add(self._totals, {name: figures[name] for name in STORE_SUMS if name in figures})

    def add_cache(self, cache: Cache) -> None:
        with self._lock:
            self._fold_closed()
            self._caches.add(cache)
            self._counts[id(cache.stats)] = cache.stats
        weakref.finalize(cache, self._closed.append, cache.stats).atexit = False

    def figures(self) -> Mapping[str, float]:
        """Returns all figures, each summed over what is open."""
        with self._lock:
            self._fold_closed()
            figures = defaultdict(float, self._totals)
            stores = list(self._stores)
            counts = list(self._counts.values())
            caches = list(self._caches)
        for store in stores:
            _add(figures, store.measure())
            health = store.health(0)
            figures["busy_seconds"] = max(figures["busy_seconds"], health.busy_seconds)
            figures["stopped_writers"] += not health.writer_alive
            figures["file_bytes"] += store.file_bytes()
        for count in counts:
            _add(figures, _lookups(count))
        figures["cache_bytes"] = sum(cache.bytes for cache in caches)
        return figures

    def _fold_closed(self) -> None:
        while self._closed:
            counts = self._closed.popleft()
            del self._counts[id(counts)]
            _add(self._totals, _lookups(counts))


def _lookups(counts: CacheStats) -> dict[str, float]:
    return {"cache_hits": counts.hits, "cache_misses": counts.misses}


def _add(sums: dict[str, float], figures: Mapping[str, float]) -> None:
    for name, value in figures.items():
        sums[name] = sums.get(name, 0) + value


PROCESS = _Process()
