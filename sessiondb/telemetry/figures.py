"""Figures of the process's open files and caches, read when a collector asks for them, and of each batch."""

from __future__ import annotations

import threading
import weakref
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from time import monotonic
from typing import Any, Protocol

from opentelemetry.metrics import CallbackOptions, Observation

from sessiondb.forking import renew_after_fork
from sessiondb.stats import CacheStats, Health, StoreStats
from sessiondb.telemetry.providers import METER, PROVIDERS


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


_PROCESS = _Process()

store_opened = _PROCESS.add_store
store_closed = _PROCESS.remove_store
cache_made = _PROCESS.add_cache


def _observe(
    create: Callable[..., Any],
    name: str,
    unit: str,
    description: str,
    figures: str | Mapping[str, str],
    *,
    by: str = "",
) -> None:
    """Makes an instrument that shows one figure, or several told apart by the attribute ``by``."""

    def observe(_: CallbackOptions) -> list[Observation]:
        now = _PROCESS.figures()
        if isinstance(figures, str):
            return [Observation(now[figures])]
        return [Observation(now[figure], {by: value}) for value, figure in figures.items()]

    create(name, callbacks=[observe], unit=unit, description=description)


_BATCH_SIZE = METER.create_histogram(
    "sessiondb.batch.size",
    unit="{write}",
    description="Writes committed by one transaction.",
    explicit_bucket_boundaries_advisory=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024),
)
_COMMIT_DURATION = METER.create_histogram(
    "sessiondb.commit.duration",
    unit="s",
    description="Time from the start of a transaction to the end of its commit, the wait for the lock included.",
    explicit_bucket_boundaries_advisory=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 10, 30),
)
_observe(
    METER.create_observable_counter,
    "sessiondb.batches.failed",
    "{batch}",
    "Transactions that SQLite refused.",
    "failed_batches",
)
_observe(
    METER.create_observable_counter,
    "sessiondb.lock.waits",
    "{wait}",
    "Transactions that had to wait for another program's lock.",
    "lock_waits",
)
_observe(
    METER.create_observable_counter,
    "sessiondb.lock.wait.time",
    "s",
    "Time for which transactions waited for another program's lock.",
    "lock_wait_seconds",
)
_observe(
    METER.create_observable_counter,
    "sessiondb.checkpoints",
    "{checkpoint}",
    "Attempts to move the write-ahead log into the database file.",
    {"completed": "checkpoints", "blocked": "blocked_checkpoints", "failed": "failed_checkpoints"},
    by="sessiondb.checkpoint.result",
)
_observe(
    METER.create_observable_counter,
    "sessiondb.cache.lookups",
    "{lookup}",
    "Reads of a session that looked for its log among the decoded ones.",
    {"hit": "cache_hits", "miss": "cache_misses"},
    by="sessiondb.cache.result",
)
_observe(
    METER.create_observable_up_down_counter,
    "sessiondb.cache.size",
    "By",
    "Estimated memory of the decoded logs.",
    "cache_bytes",
)
_observe(
    METER.create_observable_up_down_counter,
    "sessiondb.queue.depth",
    "{write}",
    "Writes that no writer has begun.",
    "pending_writes",
)
_observe(
    METER.create_observable_up_down_counter,
    "sessiondb.reads.pending",
    "{read}",
    "Reads that no reader has begun.",
    "pending_reads",
)
_observe(
    METER.create_observable_up_down_counter,
    "sessiondb.readers.busy",
    "{reader}",
    "Readers at work.",
    "readers_in_use",
)
_observe(
    METER.create_observable_up_down_counter,
    "sessiondb.file.size",
    "By",
    "Size of the database files, without their write-ahead logs.",
    "file_bytes",
)
_observe(
    METER.create_observable_up_down_counter,
    "sessiondb.wal.size",
    "By",
    "Size of the write-ahead logs.",
    "wal_bytes",
)
_observe(
    METER.create_observable_up_down_counter,
    "sessiondb.writers.stopped",
    "{writer}",
    "Writers that have ended for good while their file is open.",
    "stopped_writers",
)
_observe(
    METER.create_observable_gauge,
    "sessiondb.writer.busy.time",
    "s",
    "Age of the oldest transaction under way, 0 if there is none.",
    "busy_seconds",
)


def record_batch(commands: int, seconds: float) -> None:
    """Records a batch that was committed. Called by the writer, once for each."""
    if monotonic() >= PROVIDERS.look_at:
        PROVIDERS.look()
    if PROVIDERS.metering:
        _BATCH_SIZE.record(commands)
        _COMMIT_DURATION.record(seconds)
