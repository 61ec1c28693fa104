"""Appends by several processes on one file, as web servers with several workers make them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bench.rows import Entry, Row
from bench.tape import clock
from bench.workers import Task


def _row(processes: int, clients: int, *, quick_peers: bool) -> Row:
    sizes = {"processes": processes, "clients": clients, "seconds": 5.0}
    quick = {"seconds": 0.5}
    return Row(
        f"workers_{processes}",
        f"append, {processes} processes of {clients} clients on one file, as fast as they can (per append)",
        [
            Entry("sessiondb", "append_processes", sizes, quick),
            Entry("sessiondb", "append_processes", {**sizes, "processes": 1}, quick, "one process"),
            *(Entry(peer, "append_processes", sizes, quick if quick_peers else None) for peer in ("spec", "sql")),
        ],
        rounds=3,
    )


ROWS = [
    _row(2, 16, quick_peers=True),
    _row(4, 16, quick_peers=False),
    _row(8, 8, quick_peers=False),
]


@pytest.mark.benchmark(timer=clock)
def test_processes(row: Row, task: Task, tabulate: Callable[[Row, Task], None]) -> None:
    tabulate(row, task)
