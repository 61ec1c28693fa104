"""Appends, alone and in company, beside an idle and beside a busy interpreter; creating and updating."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bench.rows import Entry, Row, lines
from bench.tape import clock
from bench.workers import Task

ROWS = [
    Row(
        "append_64",
        "append, 64 clients on 64 sessions (per append)",
        [
            *lines(
                "append",
                {
                    "sessiondb": (80, 30),
                    "uvloop": (80, 30),
                    "mem": (80, 30),
                    "spec": (20, 4),
                    "sql": (8, 1),
                    "db": (4, 1),
                },
                {"clients": 64},
                "each",
            ),
            Entry("raw", "append_raw", {"batch": 64, "commits": 60}, {"commits": 30}),
        ],
    ),
    Row(
        "append_1",
        "append, one client (median)",
        [
            *lines(
                "append",
                {
                    "sessiondb": (1000, 300),
                    "uvloop": (1000, 300),
                    "mem": (1000, 300),
                    "spec": (500, 100),
                    "sql": (250, 50),
                    "db": (150, 30),
                },
                {"clients": 1},
                "each",
            ),
            Entry("raw", "append_raw", {"batch": 1, "commits": 1000}, {"commits": 300}),
        ],
    ),
    Row(
        "full_cache",
        "append, 64 clients, while the cache holds 40,000 events (per append)",
        [
            Entry(
                service,
                "append_beside_cache",
                {"clients": 64, "each": 80, "cached": cached},
                {"each": 30, "cached": cached // 10},
                f"{cached:,} events",
            )
            for service in ("sessiondb", "shallow")
            for cached in (0, 40_000)
        ],
    ),
    Row(
        "busy_64",
        "append, 64 clients, beside one CPU-bound Python thread (per append)",
        [
            *lines(
                "append",
                {"sessiondb": (40, 15), "mem": (400, 150), "spec": (4, 1), "sql": (2, 1), "db": (1, None)},
                {"clients": 64, "busy": True},
                "each",
            ),
            Entry("raw", "append_raw", {"batch": 64, "commits": 8, "busy": True}, {"commits": 2}),
        ],
    ),
    Row(
        "busy_1",
        "append, one client, beside one CPU-bound Python thread (median)",
        [
            *lines(
                "append",
                {
                    "sessiondb": (100, 30),
                    "uvloop": (100, 30),
                    "mem": (5000, 2000),
                    "spec": (30, 5),
                    "sql": (10, 3),
                    "db": (6, 2),
                },
                {"clients": 1, "busy": True},
                "each",
            ),
            Entry("raw", "append_raw", {"batch": 1, "commits": 60, "busy": True}, {"commits": 20}),
        ],
    ),
    Row(
        "create",
        "create_session, one client (median)",
        [
            *lines(
                "create",
                {"sessiondb": (500, 150), "mem": (500, 150), "spec": (250, 50), "sql": (150, 30), "db": (100, 20)},
                {},
                "times",
            )
        ],
    ),
    Row(
        "update_keys",
        "update_keys, one client (median)",
        [Entry("sessiondb", "update_keys", {"times": 500}, {"times": 150})],
    ),
]


@pytest.mark.benchmark(timer=clock)
def test_writes(row: Row, task: Task, tabulate: Callable[[Row, Task], None]) -> None:
    tabulate(row, task)
