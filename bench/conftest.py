"""Options, the table's lines as tests, and what a result says about its machine."""

from __future__ import annotations

import importlib.metadata
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench import server
from bench.rows import Row, median_figures, title_of
from bench.services import PEERS, RAW, RAW_SERVER
from bench.tape import TAPE
from bench.timing import Sample
from bench.workers import Task, Workers

_PACKAGES = (
    "sessiondb",
    "google-adk",
    "aiosqlite",
    "SQLAlchemy",
    "sqlspec",
    "pydantic",
    "pytest-benchmark",
    "psycopg",
    "asyncpg",
)

Measured = dict[str, list[Sample]]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("sessiondb benchmarks")
    group.addoption("--quick", action="store_true", help="small sizes, all of it within three minutes")
    group.addoption(
        "--rounds", type=int, default=5, help="how often each line is measured, at most (5); the median counts"
    )
    group.addoption(
        "--services",
        default="",
        help=f"measure only these: some of {','.join([*PEERS, RAW, RAW_SERVER])}, without spaces",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "task" not in metafunc.fixturenames:
        return
    quick: bool = metafunc.config.getoption("--quick")
    services = list(filter(None, metafunc.config.getoption("--services").split(",")))
    rows: list[Row] = metafunc.module.ROWS
    cases = [(row, task) for row in rows for task in row.tasks(quick=quick, services=services)]
    metafunc.parametrize(("row", "task"), cases, ids=[f"{row.name}-{task.name}" for row, task in cases])


@pytest.fixture(scope="session")
def workers() -> Iterator[Workers]:
    """The processes that are measured."""
    with Workers() as all_workers:
        yield all_workers


@pytest.fixture(scope="session")
def measured(workers: Workers, request: pytest.FixtureRequest) -> Callable[[Row], Measured]:
    """Measures a row, all services taking turns; once."""
    results: dict[str, Measured] = {}
    quick: bool = request.config.getoption("--quick")
    services = list(filter(None, request.config.getoption("--services").split(",")))

    def measure(row: Row) -> Measured:
        if row.name not in results:
            most: int = 3 if quick else request.config.getoption("--rounds")
            results[row.name] = workers.measure(row.tasks(quick=quick, services=services), min(most, row.rounds))
        return results[row.name]

    return measure


@pytest.fixture
def tabulate(benchmark: BenchmarkFixture, measured: Callable[[Row], Measured]) -> Callable[[Row, Task], None]:
    """Hands a line of a row over to pytest-benchmark."""

    def hand_over(row: Row, task: Task) -> None:
        samples = measured(row)[task.name]
        benchmark.group = row.title
        benchmark.extra_info.update(
            row=row.name,
            service=task.name,
            title=title_of(task),
            work=task.workload,
            sizes=dict(task.sizes),
            figures=median_figures(samples),
            rounds=[sample.seconds for sample in samples],
        )
        TAPE.load([sample.seconds for sample in samples])
        benchmark.pedantic(TAPE.play, rounds=len(samples))  # type: ignore[no-untyped-call]  # its annotations are missing

    return hand_over


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    # A result speaks of a kind of machine, not of one.
    machine_info.pop("node", None)
    machine_info["cpus"] = os.cpu_count()
    machine_info["sqlite"] = sqlite3.sqlite_version
    machine_info["fsync_ms"] = _fsync_milliseconds()
    machine_info["slowed_by_a_neighbour"] = _slowed_by_a_neighbour()
    machine_info["packages"] = {name: importlib.metadata.version(name) for name in _PACKAGES if _is_installed(name)}
    machine_info["postgresql"] = next(iter(server.versions), "")
    machine_info["sizes"] = "quick" if config.getoption("--quick") else "full"


def _is_installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _fsync_milliseconds() -> float:
    """What the disk takes to sync a page: it is the floor under every commit."""
    seconds = []
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "page").open("wb") as file:
        for _ in range(50):
            file.write(b"\0" * 4096)
            file.flush()
            started = time.perf_counter()
            os.fdatasync(file.fileno())
            seconds.append(time.perf_counter() - started)
    return round(statistics.median(seconds) * 1000, 3)


def _slowed_by_a_neighbour() -> float:
    """How much longer one process takes while another computes beside it: 1 if each has a core to itself.

    Two CPUs are often two threads of one core. What runs beside something else, the writer beside the event loop,
    gains less then than the number of CPUs says.
    """
    alone = _computation_seconds()
    command = [sys.executable, "-c", "while True: sum(range(1000))"]
    with subprocess.Popen(command) as neighbour:
        try:
            beside = _computation_seconds()
        finally:
            neighbour.kill()
    return round(beside / alone, 2)


def _computation_seconds() -> float:
    seconds = []
    for _ in range(21):
        started = time.perf_counter()
        sum(n * n for n in range(200_000))
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)
