"""Rows of the table of targets: what is measured of which services, in which sizes."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.services import HAS_UVLOOP, TITLES, UVLOOP
from bench.timing import Sample
from bench.workers import Task


@dataclass(frozen=True)
class Entry:
    """One line of a table.

    Attributes:
        service: A key of ``services.PEERS``, or ``services.RAW``.
        workload: A key of ``workloads.WORKLOADS``.
        full: Its arguments.
        quick: What is different with ``--quick``; None leaves the line out there.
        label: What distinguishes it from other lines of the same service.
    """

    service: str
    workload: str
    full: Mapping[str, Any]
    quick: Mapping[str, Any] | None
    label: str = ""

    def task(self, *, quick: bool) -> Task:
        """What a worker is to do."""
        sizes = {**self.full, **(self.quick or {})} if quick else self.full
        return Task(self.service, self.workload, sizes, self.label)


@dataclass(frozen=True)
class Row:
    """One table.

    Attributes:
        name: Its key in ``targets.toml``.
        title: What it measures.
        entries: Its lines.
        rounds: How often each line is measured, at most three times with ``--quick``; the median counts.
    """

    name: str
    title: str
    entries: Sequence[Entry]
    rounds: int = 5

    def tasks(self, *, quick: bool, services: Sequence[str] = ()) -> list[Task]:
        """What the workers are to do; of ``services`` only, if there are any."""
        return [
            entry.task(quick=quick)
            for entry in self.entries
            if (not quick or entry.quick is not None)
            and (not services or entry.service in services)
            and (HAS_UVLOOP or entry.service != UVLOOP)
        ]


def lines(
    workload: str,
    counts: Mapping[str, tuple[int, int | None]],
    sizes: Mapping[str, Any],
    count: str,
) -> Iterator[Entry]:
    """Lines that differ in the service and in one size, ``count``: (full, quick), quick None to leave it out."""
    for service, (full, quick) in counts.items():
        yield Entry(service, workload, {**sizes, count: full}, None if quick is None else {count: quick})


def title_of(task: Task) -> str:
    """The name of a line in its table."""
    return f"{TITLES[task.service]}, {task.label}" if task.label else TITLES[task.service]


def median_figures(samples: Sequence[Sample]) -> dict[str, float]:
    """Medians over the rounds; errors and appends are summed, and of what is longest the longest counts."""
    figures = {"seconds": statistics.median(sample.seconds for sample in samples)}
    for name in samples[0].figures:
        values = [sample.figures[name] for sample in samples]
        of_all = sum if name in ("errors", "appends") else max if name == "max" else statistics.median
        figures[name] = of_all(values)
    return figures
