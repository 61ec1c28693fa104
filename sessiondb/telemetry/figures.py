"""Figures of the process's open files and caches, read when a collector asks for them."""

from __future__ import annotations

import threading
import weakref
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

from sessiondb.forking import renew_after_fork
from sessiondb.stats import CacheStats, Health, StoreStats


class Store(Protocol):
    """An open file."""

    def measure(self) -> StoreStats:
        """Returns figures of the running machinery; touches no connection."""

    def health(self, stalled_after: float) -> Health:
        """Says whether the writer makes progress; touches no connection and waits for nothing."""


class Cache(Protocol):
    """A cache of decoded logs."""

    stats: CacheStats

    @property
    def bytes(self) -> int:
        """About how much memory the entries take."""


_SUMS = (
    "failed_batches",
    "checkpoints",
    "blocked_checkpoints",
    "failed_checkpoints",
    "lock_waits",
    "lock_wait_seconds",
)
"""Figures of a store that only grow."""

_PRESENT = ("pending_writes", "pending_reads", "readers_in_use", "wal_bytes")
"""Figures of a store that are of the moment, and add up."""


class _Process:
    """What is open in this process, and sums of what was: a counter does not go back when a file is closed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stores: dict[Store, Path] = {}
        self._caches: weakref.WeakSet[Cache] = weakref.WeakSet()
        self._counts: dict[int, CacheStats] = {}
        # Filled by the garbage collector, which may run while the lock is held.
        self._gone: deque[CacheStats] = deque()
        self._past: dict[str, float] = {}
        renew_after_fork(self)

    def renew_in_child(self) -> None:
        """Begins anew: what the parent has open, and what it did, are the parent's to report."""
        self._lock = threading.Lock()
        self._stores = {}
        self._bury()
        self._past.clear()

    def add_store(self, store: Store, path: Path) -> None:
        with self._lock:
            self._stores[store] = path

    def remove_store(self, store: Store) -> None:
        with self._lock:
            # A forked child does not know the stores of its parent.
            if self._stores.pop(store, None) is not None:
                _add(self._past, _picked(store.measure(), _SUMS))

    def add_cache(self, cache: Cache) -> None:
        with self._lock:
            self._bury()
            self._caches.add(cache)
            self._counts[id(cache.stats)] = cache.stats
        weakref.finalize(cache, self._gone.append, cache.stats).atexit = False

    def figures(self) -> Mapping[str, float]:
        """Returns all figures, each summed over what is open."""
        with self._lock:
            self._bury()
            figures = defaultdict(float, self._past)
            stores = list(self._stores.items())
            counts = list(self._counts.values())
            caches = list(self._caches)
        for store, path in stores:
            _add(figures, _picked(store.measure(), (*_SUMS, *_PRESENT)))
            health = store.health(0)
            figures["busy_seconds"] = max(figures["busy_seconds"], health.busy_seconds)
            figures["stopped_writers"] += not health.writer_alive
            figures["file_bytes"] += _size(path)
        for each in counts:
            _add(figures, _lookups(each))
        figures["cache_bytes"] = sum(cache.bytes for cache in caches)
        return figures

    def _bury(self) -> None:
        while self._gone:
            counts = self._gone.popleft()
            del self._counts[id(counts)]
            _add(self._past, _lookups(counts))


def _picked(stats: StoreStats, names: Iterable[str]) -> dict[str, float]:
    return {name: getattr(stats, name) for name in names}


def _lookups(counts: CacheStats) -> dict[str, float]:
    return {"cache_hits": counts.hits, "cache_misses": counts.misses}


def _add(sums: dict[str, float], figures: Mapping[str, float]) -> None:
    for name, value in figures.items():
        sums[name] = sums.get(name, 0) + value


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


PROCESS = _Process()
