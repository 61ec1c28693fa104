"""Without an SDK nothing is paid for: counted in calls of Python functions, in the caller's thread and in the writer's.

Seen to fail with a span that is started whether or not anybody listens, and with a look for providers at every call.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import opentelemetry.trace
import pytest

from sessiondb import DatabaseSessionService, telemetry
from sessiondb.telemetry.operations import PROVIDERS
from tests.telemetry.exporting import no_providers
from tests.telemetry.workload import APP, USER, event, every_call

pytestmark = pytest.mark.anyio

_API = str(Path(opentelemetry.trace.__file__).parents[1]) + os.sep
_OURS = str(Path(telemetry.__file__).parent) + os.sep


class Calls:
    """Calls of Python functions: of OpenTelemetry's, and of those of ``sessiondb.telemetry``. A resumed task counts."""

    def __init__(self) -> None:
        self._counted: Counter[str] = Counter()

    def note(self, frame: FrameType, what: str, _: object) -> None:
        if what == "call":
            path = frame.f_code.co_filename
            self._counted["api"] += path.startswith(_API)
            self._counted["ours"] += path.startswith(_OURS)

    def taken(self) -> tuple[int, int]:
        """How many there were since the last look."""
        taken = self._counted["api"], self._counted["ours"]
        self._counted.clear()
        return taken


@pytest.fixture
def calls() -> Iterator[Calls]:
    """Counts the calls of this thread, and of those that it starts, while OpenTelemetry is not configured."""
    with no_providers(), _counting() as counted:
        yield counted


@contextmanager
def _counting() -> Iterator[Calls]:
    counted = Calls()
    threading.setprofile(counted.note)
    sys.setprofile(counted.note)
    try:
        yield counted
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


def _one_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the next look for providers be the last; opening a file makes one."""
    monkeypatch.setattr("sessiondb.telemetry.operations._LOOK_SECONDS", math.inf)


async def test_append_without_sdk_calls_no_opentelemetry(
    calls: Calls, database_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _one_look(monkeypatch)
    async with DatabaseSessionService(database_path) as service:
        session = await service.create_session(APP, USER, "s")
        await service.flush()
        calls.taken()
        await service.append_event(session, event())
        await service.flush()
        api, ours = calls.taken()
        assert api == 0
        # For the append, and the same for the flush: its start, its going on after the wait, and the record of a batch.
        assert 2 <= ours <= 6


async def test_every_call_without_sdk_calls_no_opentelemetry(
    calls: Calls, database_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _one_look(monkeypatch)
    async with DatabaseSessionService(database_path) as service:
        calls.taken()
        await every_call(service, tmp_path)
        assert calls.taken()[0] == 0


async def test_providers_are_polled_once_in_a_while(
    calls: Calls, database_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with DatabaseSessionService(database_path) as service:
        _one_look(monkeypatch)
        await service.get_user_state(APP, USER)
        calls.taken()
        monkeypatch.setattr(PROVIDERS, "look_at", 0)
        await service.get_user_state(APP, USER)
        one_look, _ = calls.taken()
        assert 0 < one_look <= 4
        for _ in range(100):
            await service.get_user_state(APP, USER)
        assert calls.taken()[0] == 0


_WITHOUT_THE_API = """
import asyncio, sys
from sessiondb import DatabaseSessionService

async def main():
    async with DatabaseSessionService(sys.argv[1]) as service:
        await service.create_session("app", "user", "before")
        print(sorted(name for name in sys.modules if name.startswith("opentelemetry.")))

        from opentelemetry import metrics
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader
        reader = InMemoryMetricReader()
        metrics.set_meter_provider(MeterProvider(metric_readers=[reader], shutdown_on_exit=False))
        await asyncio.sleep(0.02)  # a look is due
        await service.create_session("app", "user", "after")
        (resource,) = reader.get_metrics_data().resource_metrics
        (scope,) = resource.scope_metrics
        for metric in scope.metrics:
            if metric.name in ("db.client.operation.duration", "sessiondb.batch.size"):
                print(metric.name, metric.data.data_points[0].count)
            if metric.name == "sessiondb.queue.depth":
                print(metric.name, metric.data.data_points[0].value)

asyncio.run(main())
"""


def test_opentelemetry_is_imported_by_the_host_alone(tmp_path: Path) -> None:
    """It takes a third of the time that importing sessiondb takes; what the host sets up later is noticed all the same."""
    program = subprocess.run(
        [sys.executable, "-c", _WITHOUT_THE_API, str(tmp_path / "sessions.sqlite3")],
        capture_output=True,
        text=True,
        check=True,
    )
    before, *metrics = program.stdout.splitlines()
    assert before == "[]"
    assert sorted(metrics) == ["db.client.operation.duration 1", "sessiondb.batch.size 1", "sessiondb.queue.depth 0"]
