"""What an append costs when much is there already."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from bench.rows import Entry, Row
from bench.tape import clock
from bench.workers import Task

_SMALL = {"sessions": 64, "events": 100}
_MANY_SESSIONS = {"sessions": 10_000, "events": 0}
_LARGE = {"sessions": 10_000, "events": 100}
# The labels speak of the full sizes; with --quick the large file holds a tenth of the events.
_LARGE_QUICK = {"sessions": 1_000, "events": 20}


def _entry(label: str, full: Mapping[str, Any], quick: Mapping[str, Any], **load: int) -> Entry:
    return Entry("sessiondb", "append_seeded", {**full, **load}, quick, label)


ROWS = [
    Row(
        "growth_1",
        "append, one client, by what is there already (median)",
        [
            _entry("100 events in the session", _SMALL, {}, clients=1, each=500),
            _entry(
                "100,000 events in the session",
                {**_LARGE, "long_session": 100_000},
                {**_LARGE_QUICK, "long_session": 5_000},
                clients=1,
                each=500,
            ),
            _entry("10,000 sessions", _MANY_SESSIONS, {"sessions": 1_000}, clients=1, each=500),
            _entry("1,000,000 events in the file", _LARGE, _LARGE_QUICK, clients=1, each=500),
        ],
    ),
    Row(
        "growth_64",
        "append, 64 clients, by what is there already (per append)",
        [
            _entry("100 events in the session", _SMALL, {}, clients=64, each=40),
            _entry("10,000 sessions", _MANY_SESSIONS, {"sessions": 1_000}, clients=64, each=40),
            _entry("1,000,000 events in the file", _LARGE, _LARGE_QUICK, clients=64, each=40),
        ],
    ),
]


@pytest.mark.benchmark(timer=clock)
@pytest.mark.timeout(3600)
def test_growth(row: Row, task: Task, tabulate: Callable[[Row, Task], None]) -> None:
    tabulate(row, task)
