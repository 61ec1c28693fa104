"""Times operations, and sums them up as the sample of one round."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from types import TracebackType
from typing import NamedTuple


class Sample(NamedTuple):
    """One round.

    Attributes:
        seconds: What the table compares: the time of one operation.
        figures: What else there is to say; latencies in seconds.
    """

    seconds: float
    figures: dict[str, float]


class Timer:
    """Times a block, and adds the time to ``latencies`` unless the block raises."""

    __slots__ = ("_latencies", "_started")

    def __init__(self, latencies: list[float]) -> None:
        self._latencies = latencies

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._latencies.append(time.perf_counter() - self._started)


class Tally:
    """Latencies and errors of a round, added up over all clients and threads."""

    def __init__(self) -> None:
        self.latencies: list[float] = []
        # A list, not a number: threads can add to it. Types, not exceptions: these would keep all they refer to alive.
        self.errors: list[type[Exception]] = []

    def sample(self, seconds: float, *, alone: bool) -> Sample:
        """The sample of a round that took ``seconds`` in all."""
        return append_sample(self.latencies, seconds, len(self.errors), alone=alone)


def quantile(latencies: Sequence[float], share: float) -> float:
    """The latency that ``share`` of all stay within."""
    ranked = sorted(latencies)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))]


def median_sample(latencies: Sequence[float], **figures: float) -> Sample:
    """A round of one client that is compared by its median latency."""
    median = statistics.median(latencies)
    return Sample(median, {"p50": median, **figures})


def append_sample(latencies: Sequence[float], seconds: float, errors: int = 0, *, alone: bool) -> Sample:
    """A round of appends or turns: one client is compared by its median latency, many by their throughput."""
    done = len(latencies)
    if not done:
        raise RuntimeError(f"none of {errors} appends succeeded")
    median = statistics.median(latencies)
    return Sample(
        median if alone else seconds / done,
        {
            "p50": median,
            "p99": quantile(latencies, 0.99),
            "per_second": done / seconds,
            "errors": errors,
            "appends": done + errors,
        },
    )
