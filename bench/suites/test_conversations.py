"""Turns of many conversations: by hand on one loop and on four, and by ADK's own Runner."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bench.rows import Entry, Row, lines
from bench.tape import clock
from bench.workers import Task

_ROUNDS = 5
_ALONE = {"conversations": 1, "turns": 50, "late": 30}
_TURNS = {"clients": 32, "rounds": _ROUNDS}

ROWS = [
    Row(
        "turn_32",
        "turn (get_session of 100 events + 2 appends), 32 clients on one loop (per turn)",
        [
            *lines(
                "turn",
                {
                    "sessiondb": (9, 9),
                    "uvloop": (9, 9),
                    "shallow": (9, 9),
                    "mem": (9, 4),
                    "spec": (4, 1),
                    "sql": (4, 1),
                    "db": (2, None),
                },
                _TURNS,
                "each",
            )
        ],
        _ROUNDS,
    ),
    Row(
        "turn_32_looking",
        "the same, each event of the session looked at (per turn)",
        [
            *lines(
                "turn",
                {"sessiondb": (9, 9), "shallow": (9, 9), "mem": (9, 4), "spec": (4, 1), "sql": (4, 1)},
                {**_TURNS, "look": True},
                "each",
            )
        ],
        _ROUNDS,
    ),
    Row(
        "turn_32_waiting",
        "the turn with 20 ms of waiting for a model, so that all sessions are in memory at once (per turn)",
        [
            *lines(
                "turn",
                {"sessiondb": (9, 9), "shallow": (9, 9), "mem": (9, 4)},
                {**_TURNS, "pause": 0.02},
                "each",
            )
        ],
        _ROUNDS,
    ),
    Row(
        "first_turn_32",
        "the first turn on sessions of 100 events that the service has not read, 32 clients on one loop (per turn)",
        [
            *lines(
                "first_turn",
                {"sessiondb": (6, 3), "mem": (6, 3), "spec": (2, 1), "sql": (2, 1), "db": (1, None)},
                _TURNS,
                "each",
            )
        ],
        _ROUNDS,
    ),
    Row(
        "turn_threads",
        "the same turn from one loop and from 4 threads, each with its own loop (per turn)",
        [
            Entry("sessiondb", "turn", {**_TURNS, "each": 9}, {}, "one loop"),
            Entry("sessiondb", "turn", {**_TURNS, "each": 9, "threads": 4}, {}, "4 threads"),
            # What several threads cost by themselves: Python code runs in one of them at a time.
            Entry("mem", "turn", {**_TURNS, "each": 9}, {"each": 4}, "one loop"),
            Entry("mem", "turn", {**_TURNS, "each": 9, "threads": 4}, {"each": 4}, "4 threads"),
        ],
        _ROUNDS,
    ),
    Row(
        "runner",
        "Runner with an offline model, 32 conversations at once, 50 turns each (per turn)",
        [
            Entry("sessiondb", "runner", {"conversations": 32, "turns": 50, "late": 30}, {"conversations": 4}),
            Entry("mem", "runner", {"conversations": 32, "turns": 50, "late": 30}, {"conversations": 4}),
        ],
        _ROUNDS,
    ),
    Row(
        "runner_in_turns",
        "the same of one conversation, without and with the plugin by which runs take turns (per turn)",
        [
            Entry("sessiondb", "runner", _ALONE, {}, "without"),
            Entry("sessiondb", "runner", {**_ALONE, "in_turns": True}, {}, "with"),
        ],
        15,
    ),
]


@pytest.mark.benchmark(timer=clock)
def test_conversations(row: Row, task: Task, tabulate: Callable[[Row, Task], None]) -> None:
    tabulate(row, task)
