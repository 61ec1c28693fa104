"""get_session, warm, cold and in part; list_sessions."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bench.rows import Entry, Row, lines
from bench.tape import clock
from bench.workers import Task


def _warm(events: int, counts: dict[str, tuple[int, int | None]]) -> Row:
    return Row(
        f"get_{events}",
        f"get_session, {events:,} events, read before (median)",
        [*lines("get", counts, {"events": events}, "times")],
    )


ROWS = [
    _warm(
        10,
        {
            "sessiondb": (500, 200),
            "share": (500, 200),
            "mem": (500, 200),
            "spec": (100, 30),
            "sql": (100, 30),
            "db": (60, 20),
        },
    ),
    _warm(
        100,
        {
            "sessiondb": (300, 100),
            "share": (300, 100),
            "mem": (100, 40),
            "spec": (60, 20),
            "sql": (60, 20),
            "db": (40, 10),
        },
    ),
    _warm(
        1_000,
        {"sessiondb": (100, 40), "share": (100, 40), "mem": (20, 6), "spec": (10, 3), "sql": (10, 3), "db": (8, 2)},
    ),
    _warm(
        10_000,
        {"sessiondb": (20, 6), "share": (40, 20), "mem": (3, 1), "spec": (2, None), "sql": (2, 1), "db": (1, None)},
    ),
    Row(
        "get_cold",
        "get_session, 10,000 events, right after opening (median)",
        [
            *lines(
                "get_cold",
                {"sessiondb": (3, 1), "spec": (2, None), "sql": (3, 1), "db": (1, None)},
                {"events": 10_000},
                "times",
            )
        ],
    ),
    Row(
        "get_recent",
        "get_session, 20 events (median): the newest of 10,000, and a session of 20",
        [
            Entry("sessiondb", "get", {"events": 10_000, "last": 20, "times": 300}, {"times": 100}, "newest of 10,000"),
            Entry("sessiondb", "get", {"events": 20, "times": 300}, {"times": 100}, "session of 20"),
            Entry("mem", "get", {"events": 10_000, "last": 20, "times": 30}, {"times": 5}, "newest of 10,000"),
            Entry("mem", "get", {"events": 20, "times": 300}, {"times": 100}, "session of 20"),
            Entry("sql", "get", {"events": 10_000, "last": 20, "times": 30}, {"times": 10}, "newest of 10,000"),
            Entry("sql", "get", {"events": 20, "times": 60}, {"times": 20}, "session of 20"),
        ],
    ),
    Row(
        "list_1000",
        "list_sessions, 1,000 sessions of one user (median)",
        [
            *lines(
                "list_sessions",
                {"sessiondb": (20, 8), "mem": (20, 8), "spec": (20, 3), "sql": (20, 3), "db": (10, None)},
                {"sessions": 1_000},
                "times",
            )
        ],
    ),
    Row(
        "list_10000",
        "list_sessions, 10,000 sessions of one user (median)",
        [
            *lines(
                "list_sessions",
                {"sessiondb": (3, 1), "mem": (3, 1), "spec": (2, None), "sql": (2, None), "db": (1, None)},
                {"sessions": 10_000},
                "times",
            )
        ],
    ),
]


@pytest.mark.benchmark(timer=clock)
def test_reads(row: Row, task: Task, tabulate: Callable[[Row, Task], None]) -> None:
    tabulate(row, task)
