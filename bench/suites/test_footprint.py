"""Disk, memory, idle CPU, import and opening."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bench.rows import Entry, Row, lines
from bench.tape import clock
from bench.workers import Task

_SIZE = {"sessions": 2_000, "events": 10_000}
_SIZE_QUICK = {"sessions": 500, "events": 2_000}

ROWS = [
    Row(
        "size",
        "disk: events of 577 bytes of JSON (per append, one client)",
        [
            Entry("sessiondb", "size", {**_SIZE, "small": False}, _SIZE_QUICK),
            Entry("spec", "size", {**_SIZE, "small": False}, None),
            Entry("sql", "size", {**_SIZE, "small": False}, None),
            Entry("db", "size", {**_SIZE, "small": False}, None),
        ],
        rounds=1,
    ),
    Row(
        "size_small",
        "disk: events of the overview's example (per append, one client)",
        [Entry("sessiondb", "size", {**_SIZE, "small": True}, _SIZE_QUICK)],
        rounds=1,
    ),
    Row(
        "idle",
        "CPU time of an idle service (per second)",
        [Entry("sessiondb", "idle", {"seconds": 5.0}, {"seconds": 1.0})],
    ),
    Row(
        "telemetry",
        "get_session of 10 events, read before: what telemetry costs (median)",
        [*lines("get", {"plain": (500, 200), "sessiondb": (500, 200), "sdk": (500, 200)}, {"events": 10}, "times")],
    ),
    Row("import", "import of sessiondb after ADK's sessions", [Entry("sessiondb", "import_time", {}, {})]),
    Row(
        "open",
        "opening a file (median)",
        [
            Entry("sessiondb", "open_file", {"times": 20, "new": True}, {}, "new"),
            Entry("sessiondb", "open_file", {"times": 20, "new": False}, {}, "existing"),
        ],
    ),
    Row(
        "memory",
        "memory over 1,000,000 appends (per append)",
        [Entry("sessiondb", "memory", {"appends": 1_000_000, "traced": 100_000}, {"appends": 20_000, "traced": 6_400})],
        rounds=1,
    ),
    Row(
        "ageing",
        "append, 64 clients: the last 50,000 of 1,000,000 appends of a process, beside its first (per append)",
        [
            Entry(
                "sessiondb",
                "ageing",
                {"clients": 64, "appends": 1_000_000, "window": 50_000},
                {"appends": 40_000, "window": 12_800},
            )
        ],
        rounds=1,
    ),
    Row(
        "cache",
        "memory of the cache: 2,000 logs of 100 events, limit 64 MiB (per get_session)",
        [
            Entry(
                "sessiondb",
                "cache_memory",
                {"sessions": 2_000, "events": 100, "limit": 64 * 2**20},
                {"sessions": 200, "limit": 8 * 2**20},
            )
        ],
        rounds=1,
    ),
]


@pytest.mark.benchmark(timer=clock)
@pytest.mark.timeout(3600)
def test_footprint(row: Row, task: Task, tabulate: Callable[[Row, Task], None]) -> None:
    tabulate(row, task)
