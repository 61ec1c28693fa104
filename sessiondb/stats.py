"""Figures about a running service. :class:`ServiceStats` is the list of them; whoever counts uses its names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict


@dataclass(slots=True)
class CacheStats:
    """Sums kept by a cache of decoded logs, under its lock."""

    hits: int = 0
    misses: int = 0


@dataclass(frozen=True, slots=True)
class Health:
    """What a liveness probe wants to know.

    Attributes:
        healthy: The writer runs, its last batch was committed, and the one under way is not older than allowed.
        writer_alive: Whether the writer runs; it ends with a failed sync, for good.
        busy_seconds: How long the batch under way has taken so far, 0 if there is none.
        pending_writes: Writes that are not answered yet.
        pending_reads: Reads that no reader has begun.
        last_error: What kept the last batch as a whole from being committed, the name of an error such as
            ``FileLostError``; None since a batch was committed again.
    """

    healthy: bool
    writer_alive: bool
    busy_seconds: float
    pending_writes: int
    pending_reads: int
    last_error: str | None


class ServiceStats(TypedDict):
    """The answer of ``get_stats``: sums since the file was opened by this process, unless said otherwise."""

    sessions: int
    """Sessions in the file, now. Exact up to 20,000, and an estimate above, as the next two; see ``estimated``."""
    events: int
    """Events in the file, now."""
    state_keys: int
    """Rows of state in the file, of all scopes, now."""
    estimated: tuple[str, ...]
    """Which of ``sessions``, ``events`` and ``state_keys`` are estimates; empty where all are exact."""
    db_size_mb: float
    """Size of the database file without its write-ahead log, or of the tables on a server, in units of 2^20 bytes, now."""
    pending_writes: int
    """Writes that the writer has not begun, now."""
    writes: int
    """Commands committed."""
    batches: int
    """Transactions committed."""
    largest_batch: int
    """The most commands that one transaction took."""
    mean_batch: float
    """Commands a transaction."""
    failed_batches: int
    """Transactions that SQLite or the server refused; their callers got an error."""
    commit_seconds: float
    """Time from the start of a transaction to the end of its commit, summed."""
    last_commit_seconds: float
    """The same for the last transaction."""
    longest_commit_seconds: float
    """The same for the longest one."""
    lock_waits: int
    """Transactions that had to wait for other processes, in line or for their lock, the one that waits now included."""
    lock_wait_seconds: float
    """How long they waited, summed; a part of ``commit_seconds`` for those that got the lock."""
    commit_waits: int
    """Transactions that a server took a tenth of a second or longer to make durable, on its disk and its standby; 0 for a
    file."""
    commit_wait_seconds: float
    """How long these took, summed; a part of ``commit_seconds``."""
    reconnects: int
    """Times that the writer's connection to a server was lost and opened anew; 0 for a file."""
    settled_batches: int
    """Transactions on a server whose callers were told that the outcome is unknown, and that were settled since."""
    checkpoints: int
    """Times that the whole write-ahead log was moved into the database file, so that it starts anew."""
    blocked_checkpoints: int
    """Times that a reader or another program kept a checkpoint from finishing."""
    failed_checkpoints: int
    """Times that SQLite refused to checkpoint; no write fails by that."""
    wal_bytes: int
    """Size of the write-ahead log's file, now. It keeps its length when it starts anew."""
    readers_in_use: int
    """Readers at work, now."""
    pending_reads: int
    """Reads that no reader has begun, now."""
    cache_hits: int
    """Reads by this service that found their session's log decoded."""
    cache_misses: int
    """Reads by this service that did not."""
    cache_bytes: int
    """About how much memory this service's decoded logs take, now."""


STORE_SUMS = (
    "failed_batches",
    "lock_waits",
    "lock_wait_seconds",
    "commit_waits",
    "commit_wait_seconds",
    "reconnects",
    "settled_batches",
    "checkpoints",
    "blocked_checkpoints",
    "failed_checkpoints",
)
"""Names of those figures of a store that only grow, and stay counted when it is closed."""

STORE_FIGURES = (*STORE_SUMS, "wal_bytes")
"""Names of :class:`ServiceStats` that a store counts. One that it has nothing to count for stays 0."""
