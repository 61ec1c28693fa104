"""The same on a PostgreSQL server, beside what others make of one."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from bench.rows import Entry, Row, lines
from bench.tape import clock
from bench.workers import Task

_ROUNDS = 5
_TURNS = {"clients": 32, "rounds": _ROUNDS}
_FILLED = {"sessions": 10_000, "events": 100}
# The labels speak of the full sizes.
_FILLED_QUICK = {"sessions": 1_000, "events": 20}
_NOTHING: Mapping[str, int] = {}


def _warm(events: int, counts: dict[str, tuple[int, int | None]]) -> Row:
    return Row(
        f"pg_get_{events}",
        f"PostgreSQL: get_session, {events:,} events, read before (median)",
        [*lines("get", counts, {"events": events}, "times")],
    )


def _commit(label: str, batch: int, commits: int, *, quick: Mapping[str, int] = _NOTHING, **more: int) -> Entry:
    sizes = {"batch": batch, "commits": commits, **more}
    return Entry("pg", "commit_server", sizes, {"commits": commits // 3, **quick}, label)


def _hosts(clients: int) -> Row:
    return Row(
        f"pg_hosts_{clients}",
        f"PostgreSQL: append, 1 and 2 processes of {clients} clients each on sessions of their own (per append)",
        [
            Entry(
                "pg",
                "append_processes",
                {"processes": count, "clients": clients, "seconds": 4.0},
                {"seconds": 0.5},
                label,
            )
            for count, label in ((1, "one"), (2, "two"))
        ],
        rounds=3,
    )


ROWS = [
    Row(
        "pg_append_1",
        "PostgreSQL: append, one client (median)",
        [
            *lines(
                "append",
                {"pg": (500, 150), "pg_divided": (500, 150), "pg_spec": (200, 50), "pg_db": (100, 20)},
                {"clients": 1},
                "each",
            ),
            Entry("pg_raw", "append_raw_server", {"batch": 1, "commits": 500}, {"commits": 150}),
            # What it takes to leave the event loop and to come back.
            Entry(
                "pg_raw", "append_raw_server", {"batch": 1, "commits": 500, "threaded": True}, {}, "from an event loop"
            ),
        ],
    ),
    Row(
        "pg_append_64",
        "PostgreSQL: append, 64 clients on 64 sessions (per append)",
        [
            *lines(
                "append",
                {"pg": (60, 20), "pg_divided": (60, 20), "pg_spec": (10, 3), "pg_db": (4, 1)},
                {"clients": 64},
                "each",
            ),
        ],
    ),
    Row(
        "pg_far_64",
        "PostgreSQL: append, 64 clients, 2 ms further away each way (per append)",
        [*lines("append", {"pg_far": (30, 10), "pg_db_far": (3, 1)}, {"clients": 64}, "each")],
    ),
    _hosts(64),
    _hosts(8),
    Row(
        "pg_turn_32",
        "PostgreSQL: turn (get_session of 100 events + 2 appends), 32 clients on one loop (per turn)",
        [
            *lines(
                "turn",
                {"pg": (9, 9), "pg_shallow": (9, 9), "pg_spec": (4, 1), "pg_db": (3, 1)},
                _TURNS,
                "each",
            )
        ],
        _ROUNDS,
    ),
    _warm(
        100,
        {
            "pg": (300, 100),
            "pg_shallow": (300, 100),
            "pg_uncached": (60, 20),
            "pg_spec": (40, 10),
            "pg_db": (30, 10),
        },
    ),
    _warm(
        1_000,
        {"pg": (100, 40), "pg_shallow": (100, 40), "pg_uncached": (10, 3), "pg_spec": (8, 2), "pg_db": (8, 2)},
    ),
    Row(
        "pg_busy_64",
        "PostgreSQL: commit of a batch of 64, alone and beside one CPU-bound Python thread (median)",
        [_commit("alone", 64, 60), _commit("beside it", 64, 60, busy=True)],
    ),
    Row(
        "pg_growth_1",
        "PostgreSQL: commit of one append, by what is there already (median)",
        [
            _commit("new tables", 1, 300),
            _commit("1,000,000 events", 1, 300, quick=_FILLED_QUICK, **_FILLED),
            _commit("100,000 events in the session", 1, 300, quick={"events": 2_000}, sessions=1, events=100_000),
        ],
    ),
    Row(
        "pg_growth_64",
        "PostgreSQL: commit of a batch of 64, by what is there already (median)",
        [_commit("new tables", 64, 60), _commit("1,000,000 events", 64, 60, quick=_FILLED_QUICK, **_FILLED)],
    ),
    # Few commits a round, so that the start is still one in the last round.
    *(
        Row(
            f"pg_fresh_{batch}",
            f"PostgreSQL: commit of a batch of {batch} to new tables without statistics, by the events in them (median)",
            [_commit("at the start", batch, commits, fresh=0), _commit("15,000 events", batch, commits, fresh=15_000)],
        )
        for batch, commits in ((1, 150), (64, 12))
    ),
]


@pytest.mark.benchmark(timer=clock)
@pytest.mark.timeout(3600)
def test_server(row: Row, task: Task, tabulate: Callable[[Row, Task], None]) -> None:
    tabulate(row, task)
