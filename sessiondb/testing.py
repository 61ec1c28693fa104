"""Latency gates for services of your own, in your own tests, with pytest-benchmark.

How long an append takes depends on the machine; how much longer it takes than the same rows take plain SQLite there
does not. :func:`measure_appends` times both, in turns, in one run, so that a bound on their ratio holds everywhere::

    from sessiondb import DatabaseSessionService
    from sessiondb.testing import measure_appends


    def open_service(folder):
        return DatabaseSessionService(folder / "sessions.sqlite3", max_batch=64)


    def test_appends_keep_pace(benchmark, tmp_path):
        figures = measure_appends(benchmark, open_service, tmp_path, clients=16)
        assert figures.latency_ratio < 10
        assert figures.throughput_ratio > 0.1

It needs pytest and pytest-benchmark (``pip install sessiondb[testing]``); nothing of either is imported here.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from google.adk.events import Event, EventActions
from google.adk.sessions import BaseSessionService, Session
from google.genai import types

from sessiondb.options import Durability
from sessiondb.stores.sqlite.yardstick import Yardstick

_APP = "sessiondb-benchmark"
_TEXT = (
    "The model was trained on the new data set: accuracy rose from 0.91 to 0.94, loss fell from 0.31 to 0.22 within"
    " twelve epochs, and the report with all figures is in the folder beside the data, as it was asked for earlier."
)
_numbers = itertools.count()


class Benchmark(Protocol):
    """What is used of pytest-benchmark's ``benchmark`` fixture."""

    extra_info: dict[str, Any]

    def pedantic(self, target: Callable[[], None], *, setup: Callable[[], None], rounds: int) -> Any:
        """Calls ``setup`` and ``target`` in turns, and times the latter."""


@dataclass(frozen=True)
class AppendFigures:
    """How a service appends, beside plain SQLite in the same run; times in seconds.

    Attributes:
        median: Of the latencies of single appends.
        p99: What 99 of 100 appends stay within.
        per_second: Appends of all clients together.
        yardstick: The median time in which plain SQLite commits one event of each client in one transaction.
        clients: How many appended at once.
    """

    median: float
    p99: float
    per_second: float
    yardstick: float
    clients: int

    @property
    def latency_ratio(self) -> float:
        """The median append in units of the yardstick; 1 would be no overhead at all."""
        return self.median / self.yardstick

    @property
    def throughput_ratio(self) -> float:
        """Appends a second as a share of what plain SQLite commits; 1 would be no overhead at all."""
        return self.per_second * self.yardstick / self.clients


def measure_appends(
    benchmark: Benchmark,
    open_service: Callable[[Path], BaseSessionService],
    folder: Path,
    *,
    clients: int = 1,
    appends: int = 100,
    rounds: int = 5,
    durability: Durability = "full",
    make_event: Callable[[], Event] | None = None,
) -> AppendFigures:
    """Measures a service's appends with pytest-benchmark, and the raw-SQLite yardstick between its rounds.

    The benchmark's time is that of a round: ``clients`` conversations at once, ``appends`` appends each. Latencies,
    throughput and ratios are in its ``extra_info``, and returned. With ``--benchmark-disable`` one round is run.

    Args:
        benchmark: The fixture of this name.
        open_service: Opens the service on files in the folder it is given; it is closed afterwards if it can be.
        folder: An empty folder, such as ``tmp_path``, on the disk that matters.
        clients: Conversations at once, each in a session of its own.
        appends: Appends of each in a round.
        rounds: How often that is repeated.
        durability: What the yardstick grants: ``"full"`` syncs at each commit.
        make_event: Makes the events; None: :func:`typical_event`.

    Returns:
        What was measured, over all rounds.

    Raises:
        Exception: What the service raises: a failing append fails the measurement.
    """
    make = make_event or typical_event
    body = make().model_dump_json(exclude_none=True)
    yardstick = Yardstick(folder / "yardstick.sqlite3", durability=durability, sessions=clients)
    commits: list[float] = []
    latencies: list[float] = []
    walls: list[float] = []
    with closing(yardstick), asyncio.Runner() as loop, ExitStack() as stack:
        service = open_service(folder)
        close = getattr(service, "close", None)
        if close is not None:
            stack.callback(lambda: loop.run(close()))
        handles = loop.run(_create_sessions(service, clients))

        def run_yardstick() -> None:
            yardstick.checkpoint()
            commits.extend(yardstick.commit(body, clients) for _ in range(appends))

        def run_service() -> None:
            started = time.perf_counter()
            latencies.extend(loop.run(_append_all(service, handles, appends, make)))
            walls.append(time.perf_counter() - started)

        benchmark.pedantic(run_service, setup=run_yardstick, rounds=rounds)
    figures = AppendFigures(
        median=statistics.median(latencies),
        p99=sorted(latencies)[int(0.99 * len(latencies))],
        per_second=len(latencies) / sum(walls),
        yardstick=statistics.median(commits),
        clients=clients,
    )
    benchmark.extra_info.update(
        p50_ms=figures.median * 1000,
        p99_ms=figures.p99 * 1000,
        per_second=figures.per_second,
        yardstick_ms=figures.yardstick * 1000,
        latency_ratio=figures.latency_ratio,
        throughput_ratio=figures.throughput_ratio,
    )
    return figures


def typical_event(author: str = "agent") -> Event:
    """Makes an event of about 570 bytes of JSON: 220 characters of text, a new value for a session and a user key."""
    n = next(_numbers)
    return Event(
        invocation_id=f"e-2f6c5f0a-7d3b-4c0e-9b1a-{n:012d}",
        author=author,
        content=types.Content(role="model", parts=[types.Part(text=_TEXT)]),
        actions=EventActions(state_delta={"step": n, "user:steps": n}),
    )


async def _create_sessions(service: BaseSessionService, clients: int) -> list[Session]:
    return [
        await service.create_session(app_name=_APP, user_id=f"user-{n}", session_id=f"s{n}") for n in range(clients)
    ]


async def _append_all(
    service: BaseSessionService, handles: Sequence[Session], appends: int, make: Callable[[], Event]
) -> list[float]:
    latencies: list[float] = []

    async def append(handle: Session) -> None:
        for _ in range(appends):
            event = make()
            started = time.perf_counter()
            await service.append_event(handle, event)
            latencies.append(time.perf_counter() - started)

    await asyncio.gather(*map(append, handles))
    return latencies
