"""Latency and throughput against size: ``python -m bench.scale`` fills each service with a million events.

64 conversations at a time, 100 events each, 10,000 conversations in all. A service is filled until it is full or its
time is up. Writes the figures and draws them.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypedDict

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from bench.services import PEERS
from bench.timing import Sample
from bench.workers import Task, Workers

_CHUNK = 1024
_CLIENTS = 64
_PEERS = ("sessiondb", "mem", "spec", "sql", "db")
_FIGURES = Path("bench/results/scale.json")
_PLOT = Path("docs/images/scale.svg")


class Point(TypedDict):
    """How a service was doing while it grew to a size; times in seconds, sizes in bytes."""

    events: int
    per_second: float
    p50: float
    p99: float
    get: float | None
    bytes: float
    errors: float


def sizes(limit: int) -> list[int]:
    """Sizes to look at: 1, 2 and 5 of each power of ten from a thousand on, and ``limit`` itself."""
    steps = [lead * 10**power for power in range(3, 9) for lead in (1, 2, 5)]
    return [*(size for size in steps if size < limit), limit]


def summarize(samples: Sequence[Sample], events: int) -> Point:
    """Sums up the rounds by which a service grew to a size."""
    figures = [sample.figures for sample in samples]
    gets = [each["get"] for each in figures if not math.isnan(each["get"])]
    appended = sum(each["appends"] - each["errors"] for each in figures)
    return {
        "events": events,
        "per_second": appended / sum((each["appends"] - each["errors"]) / each["per_second"] for each in figures),
        "p50": statistics.median(each["p50"] for each in figures),
        "p99": statistics.median(each["p99"] for each in figures),
        # None of the first conversations is finished yet: there is nothing to read.
        "get": statistics.median(gets) if gets else None,
        "bytes": figures[-1]["bytes"],
        "errors": sum(each["errors"] for each in figures),
    }


def grow(service: str, limit: int, per_session: int, timeout: float) -> Iterator[tuple[int, Point | None]]:
    """Fills a service until it holds ``limit`` events or ``timeout`` seconds are over.

    Yields how many events it holds after each round, with a point whenever a size is reached.
    """
    task = Task(service, "fill", {"clients": _CLIENTS, "chunk": _CHUNK, "per_session": per_session, "reads": 5})
    with Workers() as workers:
        worker = workers.of(task)
        worker.prepare(task)
        worker.wait()
        deadline = time.monotonic() + timeout
        events = 0
        for size in sizes(limit):
            samples: list[Sample] = []
            while events < size and time.monotonic() < deadline:
                samples.append(worker.run(task))
                events += _CHUNK
                yield events, None
            if samples:
                yield events, summarize(samples, events)
        worker.finish(task)


def plot(points: Mapping[str, Sequence[Point]], paths: Sequence[Path]) -> None:
    """Draws the four pictures of a run into files, each in the format that its name ends with."""
    mpl.rcParams["svg.hashsalt"] = "sessiondb"
    figure = Figure(figsize=(11, 8), layout="constrained")
    upper, lower = figure.subplots(2, 2)
    for service, series in points.items():
        title = PEERS[service].title
        events = [point["events"] for point in series]
        (line,) = upper[0].plot(
            events, [point["per_second"] for point in series], marker="o", markersize=3, label=title
        )
        colour = line.get_color()
        upper[1].plot(events, [point["p50"] * 1000 for point in series], color=colour, marker="o", markersize=3)
        upper[1].plot(events, [point["p99"] * 1000 for point in series], color=colour, linestyle="--")
        lower[0].plot(
            events, [1000 * (point["get"] or math.nan) for point in series], color=colour, marker="o", markersize=3
        )
        if PEERS[service].durable:
            lower[1].plot(events, [point["bytes"] / 1e6 for point in series], color=colour, marker="o", markersize=3)
    _label(upper[0], f"appends a second, {_CLIENTS} clients")
    _label(upper[1], "append, ms: median, and p99 (dashed)")
    _label(lower[0], "get_session of a finished conversation, ms, median")
    _label(lower[1], "MB on disk")
    upper[0].legend(fontsize="small")
    for path in paths:
        # A date would make every drawing of the same figures another file.
        figure.savefig(path, dpi=130, metadata={"Date": None} if path.suffix == ".svg" else None)


def _label(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize="medium")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("events in the file")
    axes.grid(visible=True, alpha=0.3)


def main() -> None:
    """Fills the services one after the other, with a progress bar, and draws."""
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000, help="events in all (1,000,000)")
    parser.add_argument("--sessions", type=int, default=10_000, help="conversations they are spread over (10,000)")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds after which a peer is given up (300)")
    parser.add_argument("--services", default=",".join(_PEERS), help=f"some of {','.join(_PEERS)}")
    parser.add_argument("--figures", type=Path, default=_FIGURES, metavar="FILE", help=f"the figures ({_FIGURES})")
    parser.add_argument(
        "--plots",
        type=Path,
        nargs="+",
        default=[_PLOT],
        metavar="FILE",
        help=f"the pictures, as SVG or PNG by their names ({_PLOT})",
    )
    arguments = parser.parse_args()
    for path in (arguments.figures, *arguments.plots):
        path.parent.mkdir(parents=True, exist_ok=True)
    points: dict[str, list[Point]] = {}
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns) as progress:
        for service in arguments.services.split(","):
            bar = progress.add_task(PEERS[service].title, total=arguments.events)
            points[service] = []
            # This service is to show that it gets there.
            timeout = math.inf if service == "sessiondb" else arguments.timeout
            for events, point in grow(service, arguments.events, arguments.events // arguments.sessions, timeout):
                progress.update(bar, completed=min(events, arguments.events))
                if point is not None:
                    points[service].append(point)
    arguments.figures.write_text(json.dumps(points, indent=1) + "\n")
    plot(points, arguments.plots)


if __name__ == "__main__":
    main()
