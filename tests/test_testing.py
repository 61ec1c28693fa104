"""The helper by which users gate the speed of their own services."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from google.adk.events import Event
from google.adk.sessions import BaseSessionService, InMemorySessionService, Session
from pytest_benchmark.fixture import BenchmarkFixture
from typing_extensions import override

from sessiondb import DatabaseSessionService
from sessiondb.stores.sqlite.yardstick import Yardstick
from sessiondb.testing import AppendFigures, measure_appends, typical_event


class RecordedBenchmark:
    """Stands in for pytest-benchmark's fixture, and writes down what it is asked for."""

    def __init__(self) -> None:
        self.extra_info: dict[str, Any] = {}
        self.calls: list[str] = []

    def pedantic(self, target: Callable[[], None], *, setup: Callable[[], None], rounds: int) -> None:
        for _ in range(rounds):
            setup()
            self.calls.append("setup")
            target()
            self.calls.append("target")


def open_service(folder: Path) -> DatabaseSessionService:
    return DatabaseSessionService(folder / "sessions.sqlite3", max_batch=64)


# The example of the documentation; a project of your own adds its bounds on the ratios.
def test_appends_keep_pace(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    figures = measure_appends(benchmark, open_service, tmp_path, clients=16, appends=5)
    assert figures.clients == 16
    assert figures.throughput_ratio > 0
    assert figures.latency_ratio > 0
    assert figures.median <= figures.p99
    assert benchmark.extra_info["latency_ratio"] == figures.latency_ratio


def test_measure_appends_writes_each_round_and_closes(tmp_path: Path) -> None:
    benchmark = RecordedBenchmark()
    opened: list[DatabaseSessionService] = []

    def open_and_keep(folder: Path) -> DatabaseSessionService:
        opened.append(open_service(folder))
        return opened[-1]

    measure_appends(benchmark, open_and_keep, tmp_path, clients=3, appends=4, rounds=2)
    assert benchmark.calls == ["setup", "target"] * 2
    assert "closed" in repr(opened[0])
    with sqlite3.connect(tmp_path / "sessions.sqlite3") as connection:
        logs = connection.execute(
            "SELECT session_id, count(*) FROM adk_events GROUP BY session_id ORDER BY 1"
        ).fetchall()
    connection.close()
    assert logs == [("s0", 8), ("s1", 8), ("s2", 8)]
    with sqlite3.connect(tmp_path / "yardstick.sqlite3") as connection:
        assert connection.execute("SELECT count(*) FROM events").fetchone() == (24,)
    connection.close()


def test_measure_appends_of_service_without_close(tmp_path: Path) -> None:
    service = InMemorySessionService()
    made: list[Event] = []

    def make() -> Event:
        made.append(typical_event("somebody"))
        return made[-1]

    measure_appends(RecordedBenchmark(), lambda _: service, tmp_path, appends=3, rounds=1, make_event=make)
    session = asyncio.run(
        service.get_session(app_name="sessiondb-benchmark", user_id="user-0", session_id="s0", config=None)
    )
    assert session is not None
    # The first one made is what the yardstick writes.
    assert [event.id for event in session.events] == [event.id for event in made[1:]]
    assert {event.author for event in session.events} == {"somebody"}


class FailingService(InMemorySessionService):
    @override
    async def append_event(self, session: Session, event: Event) -> Event:
        raise ConnectionError("gone")


def test_measure_appends_raises_what_append_raises(tmp_path: Path) -> None:
    def open_failing(_: Path) -> BaseSessionService:
        return FailingService()

    with pytest.raises(ConnectionError, match="gone"):
        measure_appends(RecordedBenchmark(), open_failing, tmp_path)


def test_append_figures_are_ratios_to_plain_sqlite() -> None:
    figures = AppendFigures(median=0.004, p99=0.010, per_second=4000.0, yardstick=0.002, clients=16)
    assert figures.latency_ratio == pytest.approx(2.0)
    # Plain SQLite commits 16 events in 2 ms: 8,000 a second.
    assert figures.throughput_ratio == pytest.approx(0.5)


@pytest.mark.parametrize(("durability", "synchronous"), [("full", 2), ("normal", 1)])
def test_yardstick_spreads_events_over_sessions(tmp_path: Path, durability: Any, synchronous: int) -> None:
    yardstick = Yardstick(tmp_path / "raw.sqlite3", durability=durability, sessions=2)
    connection = yardstick._connection
    try:
        assert connection.execute("PRAGMA synchronous").fetchone() == (synchronous,)
        assert yardstick.commit("{}", 3) > 0
        assert yardstick.commit("{}") > 0
        yardstick.checkpoint()
        rows = connection.execute("SELECT session, seq FROM events ORDER BY id").fetchall()
        assert rows == [("session-0", 0), ("session-1", 0), ("session-0", 1), ("session-1", 1)]
        assert connection.execute("SELECT id, revision FROM sessions ORDER BY id").fetchall() == [
            ("session-0", 2),
            ("session-1", 2),
        ]
        # A session key each, and one user key for all.
        assert connection.execute("SELECT count(*) FROM state").fetchone() == (3,)
    finally:
        yardstick.close()
    assert (tmp_path / "raw.sqlite3-wal").exists() is False
