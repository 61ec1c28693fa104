"""The instruments, and the tracer. Importing this module imports OpenTelemetry's API.

Meter and tracer are proxies for as long as there is no provider, and pass on to the host's as soon as there is one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any

from opentelemetry import metrics, trace
from opentelemetry.metrics import CallbackOptions, Observation

from sessiondb.telemetry.figures import PROCESS

SCOPE = "sessiondb"
"""The name of the instrumentation scope."""

_VERSION = version("sessiondb")
_METER = metrics.get_meter(SCOPE, _VERSION)
TRACER = trace.get_tracer(SCOPE, _VERSION)


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
        now = PROCESS.figures()
        if isinstance(figures, str):
            return [Observation(now[figures])]
        return [Observation(now[figure], {by: value}) for value, figure in figures.items()]

    create(name, callbacks=[observe], unit=unit, description=description)


OPERATION_DURATION = _METER.create_histogram(
    "db.client.operation.duration",
    unit="s",
    description="Duration of the calls of a session service.",
    explicit_bucket_boundaries_advisory=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 10, 30),
)
BATCH_SIZE = _METER.create_histogram(
    "sessiondb.batch.size",
    unit="{write}",
    description="Writes committed by one transaction.",
    explicit_bucket_boundaries_advisory=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024),
)
COMMIT_DURATION = _METER.create_histogram(
    "sessiondb.commit.duration",
    unit="s",
    description="Time from the start of a transaction to the end of its commit, the wait for the lock included.",
    explicit_bucket_boundaries_advisory=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 10, 30),
)
_observe(
    _METER.create_observable_counter,
    "sessiondb.batches.failed",
    "{batch}",
    "Transactions that SQLite refused.",
    "failed_batches",
)
_observe(
    _METER.create_observable_counter,
    "sessiondb.lock.waits",
    "{wait}",
    "Transactions that had to wait for another program's lock.",
    "lock_waits",
)
_observe(
    _METER.create_observable_counter,
    "sessiondb.lock.wait.time",
    "s",
    "Time for which transactions waited for another program's lock.",
    "lock_wait_seconds",
)
_observe(
    _METER.create_observable_counter,
    "sessiondb.checkpoints",
    "{checkpoint}",
    "Attempts to move the write-ahead log into the database file.",
    {"completed": "checkpoints", "blocked": "blocked_checkpoints", "failed": "failed_checkpoints"},
    by="sessiondb.checkpoint.result",
)
_observe(
    _METER.create_observable_counter,
    "sessiondb.cache.lookups",
    "{lookup}",
    "Reads of a session that looked for its log among the decoded ones.",
    {"hit": "cache_hits", "miss": "cache_misses"},
    by="sessiondb.cache.result",
)
_observe(
    _METER.create_observable_up_down_counter,
    "sessiondb.cache.size",
    "By",
    "Estimated memory of the decoded logs.",
    "cache_bytes",
)
_observe(
    _METER.create_observable_up_down_counter,
    "sessiondb.queue.depth",
    "{write}",
    "Writes that no writer has begun.",
    "pending_writes",
)
_observe(
    _METER.create_observable_up_down_counter,
    "sessiondb.reads.pending",
    "{read}",
    "Reads that no reader has begun.",
    "pending_reads",
)
_observe(
    _METER.create_observable_up_down_counter,
    "sessiondb.readers.busy",
    "{reader}",
    "Readers at work.",
    "readers_in_use",
)
_observe(
    _METER.create_observable_up_down_counter,
    "sessiondb.file.size",
    "By",
    "Size of the database files, without their write-ahead logs.",
    "file_bytes",
)
_observe(
    _METER.create_observable_up_down_counter,
    "sessiondb.wal.size",
    "By",
    "Size of the write-ahead logs.",
    "wal_bytes",
)
_observe(
    _METER.create_observable_up_down_counter,
    "sessiondb.writers.stopped",
    "{writer}",
    "Writers that have ended for good while their file is open.",
    "stopped_writers",
)
_observe(
    _METER.create_observable_gauge,
    "sessiondb.writer.busy.time",
    "s",
    "Age of the oldest transaction under way, 0 if there is none.",
    "busy_seconds",
)
