"""The instruments, and the tracer. Importing this module imports OpenTelemetry's API.

Meter and tracer are proxies for as long as there is no provider, and pass on to the host's as soon as there is one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import TypeAlias

from opentelemetry import metrics, trace
from opentelemetry.metrics import CallbackOptions, Observation

from sessiondb.telemetry.figures import PROCESS

SCOPE = "sessiondb"
"""The name of the instrumentation scope."""

_VERSION = version("sessiondb")
_METER = metrics.get_meter(SCOPE, _VERSION)
TRACER = trace.get_tracer(SCOPE, _VERSION)

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 10, 30)

OPERATION_DURATION = _METER.create_histogram(
    "db.client.operation.duration",
    unit="s",
    description="Duration of the calls of a session service.",
    explicit_bucket_boundaries_advisory=_SECONDS,
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
    explicit_bucket_boundaries_advisory=_SECONDS,
)
PRUNED_SESSIONS = _METER.create_counter(
    "sessiondb.pruned.sessions", unit="{session}", description="Sessions that prunes of this process have deleted."
)
PRUNED_EVENTS = _METER.create_counter(
    "sessiondb.pruned.events", unit="{event}", description="Events that prunes of this process have deleted."
)

Observed: TypeAlias = tuple[str, str | Mapping[str, Mapping[str, str]], str]
"""The unit; the figure, or several told apart by attributes; the description."""

_COUNTERS: dict[str, Observed] = {
    "sessiondb.batches.failed": ("{batch}", "failed_batches", "Transactions that the store refused."),
    "sessiondb.lock.waits": ("{wait}", "lock_waits", "Transactions that had to wait for other processes."),
    "sessiondb.lock.wait.time": (
        "s",
        "lock_wait_seconds",
        "Time for which transactions waited for other processes, in line and for their lock.",
    ),
    "sessiondb.commit.waits": (
        "{wait}",
        "commit_waits",
        "Transactions that a server took a tenth of a second or longer to make durable.",
    ),
    "sessiondb.commit.wait.time": (
        "s",
        "commit_wait_seconds",
        "Time for which transactions waited for a server's disk and standby.",
    ),
    "sessiondb.reconnects": ("{connection}", "reconnects", "Connections of writers that were lost and opened anew."),
    "sessiondb.batches.settled": (
        "{batch}",
        "settled_batches",
        "Transactions whose callers were told that the outcome is unknown, settled since.",
    ),
    "sessiondb.checkpoints": (
        "{checkpoint}",
        {
            "checkpoints": {"sessiondb.checkpoint.result": "completed"},
            "blocked_checkpoints": {"sessiondb.checkpoint.result": "blocked"},
            "failed_checkpoints": {"sessiondb.checkpoint.result": "failed"},
        },
        "Attempts to move the write-ahead log into the database file.",
    ),
    "sessiondb.cache.lookups": (
        "{lookup}",
        {"cache_hits": {"sessiondb.cache.result": "hit"}, "cache_misses": {"sessiondb.cache.result": "miss"}},
        "Reads of a session that looked for its log among the decoded ones.",
    ),
}
_UP_DOWN_COUNTERS: dict[str, Observed] = {
    "sessiondb.cache.size": ("By", "cache_bytes", "Estimated memory of the decoded logs."),
    "sessiondb.queue.depth": ("{write}", "pending_writes", "Writes that no writer has begun."),
    "sessiondb.reads.pending": ("{read}", "pending_reads", "Reads that no reader has begun."),
    "sessiondb.readers.busy": ("{reader}", "readers_in_use", "Readers at work."),
    "sessiondb.file.size": ("By", "file_bytes", "Size of the database files, without their write-ahead logs."),
    "sessiondb.wal.size": ("By", "wal_bytes", "Size of the write-ahead logs."),
    "sessiondb.writers.stopped": (
        "{writer}",
        "stopped_writers",
        "Writers that have ended for good while their file is open.",
    ),
}
_GAUGES: dict[str, Observed] = {
    "sessiondb.writer.busy.time": ("s", "busy_seconds", "Age of the oldest transaction under way, 0 if there is none."),
}


def _observer(figures: str | Mapping[str, Mapping[str, str]]) -> Callable[[CallbackOptions], list[Observation]]:
    observed = {figures: {}} if isinstance(figures, str) else figures

    def observe(_: CallbackOptions) -> list[Observation]:
        now = PROCESS.figures()
        return [Observation(now[figure], attributes) for figure, attributes in observed.items()]

    return observe


for _create, _instruments in (
    (_METER.create_observable_counter, _COUNTERS),
    (_METER.create_observable_up_down_counter, _UP_DOWN_COUNTERS),
    (_METER.create_observable_gauge, _GAUGES),
):
    for _name, (_unit, _figures, _description) in _instruments.items():
        _create(_name, callbacks=[_observer(_figures)], unit=_unit, description=_description)
