"""Latency regression gates: ratios inside one run, held to the bounds in ``gates.toml``.

``tox -e gates`` runs them. ``python -m bench.gates --measure`` writes what is measured now beside each bound.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import threading
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.services import MEMORY, RAW, RAW_SERVER, SERVER, SESSIONDB, TITLES
from bench.workers import Task, Workers

BOUNDS = Path(__file__).with_name("gates.toml")
_ROUNDS = 5

CORES_NEEDED = 1.5
"""Idle cores without which a statement per row may go unnoticed: one for a busy thread, and most of one for the rest."""

NEED_CORES = {"statement_per_row", "pg_statement_per_row"}
"""The mutants that are noticed by them."""


@dataclass(frozen=True)
class Bound:
    """What a gate holds a ratio to; an entry of ``gates.toml``."""

    name: str
    ratio: str
    measured: float
    mutants: Mapping[str, float]
    at_least: float | None = None
    at_most: float | None = None

    def holds(self, ratio: float) -> bool:
        """Whether a ratio is within the bound."""
        if self.at_least is not None:
            return ratio >= self.at_least
        assert self.at_most is not None
        return ratio <= self.at_most

    def __str__(self) -> str:
        return f"at least {self.at_least:g}" if self.at_least is not None else f"at most {self.at_most:g}"


@dataclass(frozen=True)
class Gate:
    """What a gate measures: a figure of one task, divided by the same figure of another."""

    figure: str
    task: Task
    base: Task

    def of(self, service: str) -> Gate:
        """The same gate for another service: a mutant."""
        return replace(self, task=replace(self.task, service=service))

    def measure(self, workers: Workers) -> float:
        """The median over rounds in which both take turns."""
        samples = workers.measure([self.task, self.base], _ROUNDS)
        pairs = zip(samples[self.task.name], samples[self.base.name], strict=True)
        return statistics.median(mine.figures[self.figure] / its.figures[self.figure] for mine, its in pairs)


@dataclass(frozen=True)
class Verdict:
    """How a service stands at a gate: the ratios measured, of which one within the bound is enough."""

    service: str
    bound: Bound
    ratios: Sequence[float]

    @property
    def breached(self) -> bool:
        """Whether no measurement was within the bound."""
        return not any(self.bound.holds(ratio) for ratio in self.ratios)

    def __str__(self) -> str:
        title = TITLES.get(self.service, self.service)
        measured = " and again ".join(f"{ratio:.3g}" for ratio in self.ratios)
        return (
            f"gate {self.bound.name} {'BREACHED' if self.breached else 'holds'} by {title}: measured {measured}, bound"
            f" {self.bound}, measured when the bound was set {self.bound.measured:g}\n  ({self.bound.ratio})"
        )


def _gate(figure: str, workload: str, sizes: Mapping[str, Any], base: Task | None = None, **base_sizes: Any) -> Gate:
    return Gate(figure, Task(SESSIONDB, workload, sizes), base or Task(MEMORY, workload, {**sizes, **base_sizes}))


_WORKERS = {"processes": 8, "clients": 8, "seconds": 1.5}

GATES: dict[str, Gate] = {
    "append_64": _gate("per_second", "append", {"clients": 64, "each": 25}),
    "append_64_raw": _gate(
        "per_second", "append", {"clients": 64, "each": 25}, Task(RAW, "append_raw", {"batch": 64, "commits": 25})
    ),
    "append_1": _gate(
        "p50", "append", {"clients": 1, "each": 200}, Task(RAW, "append_raw", {"batch": 1, "commits": 200})
    ),
    # The in-memory service runs alone: beside a busy thread its pace is a matter of luck in so short a time.
    "busy_64": _gate(
        "per_second",
        "append",
        {"clients": 64, "each": 8, "busy": True},
        Task(MEMORY, "append", {"clients": 64, "each": 25}),
    ),
    "get_10": _gate("p50", "get", {"events": 10, "times": 200}, times=50),
    "get_1000": _gate("p50", "get", {"events": 1000, "times": 20}, times=4),
    "turn_32": _gate("per_second", "turn", {"clients": 32, "each": 6, "rounds": _ROUNDS}, each=3),
    # Compared with itself without the line: what one process does says little about how several wait for each other.
    "workers_8": _gate("p99", "append_processes", _WORKERS, Task("no_line", "append_processes", _WORKERS, "base")),
    "list_1000": _gate("p50", "list_sessions", {"sessions": 1000, "times": 6}),
    "pg_append_64": Gate(
        "per_second",
        Task(SERVER, "append", {"clients": 64, "each": 15}),
        Task(RAW_SERVER, "append_raw_server", {"batch": 64, "commits": 25}),
    ),
    # Compared with itself alone, as the line is: what is given away is the time of Python threads.
    "pg_busy_64": Gate(
        "per_second",
        Task(SERVER, "append", {"clients": 64, "each": 8, "busy": True}),
        Task(SERVER, "append", {"clients": 64, "each": 15}, "alone"),
    ),
}


def load_bounds(path: Path = BOUNDS) -> dict[str, Bound]:
    """Reads the bounds.

    Raises:
        ValueError: If a gate has not exactly one bound, or there is none for a bound.
    """
    with path.open("rb") as file:
        bounds = {name: Bound(name, **fields) for name, fields in tomllib.load(file).items()}
    if bounds.keys() != GATES.keys():
        raise ValueError(f"{path.name} and gates.py differ in: {', '.join(sorted(bounds.keys() ^ GATES.keys()))}")
    for bound in bounds.values():
        if (bound.at_least is None) == (bound.at_most is None):
            raise ValueError(f"{path.name}: {bound.name} needs one of at_least and at_most")
    return bounds


def check(name: str, workers: Workers, mutant: str | None = None) -> Verdict:
    """Holds a service, or a mutant of it, to a gate. What is out of bounds is measured once more: a machine has hiccups."""
    bound = load_bounds()[name]
    gate = GATES[name] if mutant is None else GATES[name].of(mutant)
    ratios = [gate.measure(workers)]
    if not bound.holds(ratios[0]):
        ratios.append(gate.measure(workers))
    return Verdict(gate.task.service, bound, ratios)


def idle_cores() -> float:
    """How many cores other programs leave idle, over one second in which nothing is measured.

    SQLite gives the GIL up for microseconds. A busy thread takes it in that time, and then keeps it for a switch
    interval, only if a core is free to run it at once. Without one, many statements cost little more than one.
    """
    before = _idle_seconds()
    started = time.monotonic()
    threading.Event().wait(1.0)
    return (_idle_seconds() - before) / (time.monotonic() - started)


def _idle_seconds() -> float:
    fields = Path("/proc/stat").read_text().split(maxsplit=6)
    # cpu, user, nice, system, idle, iowait: a core that waits for the disk is free to run a thread.
    return (int(fields[4]) + int(fields[5])) / os.sysconf("SC_CLK_TCK")


def refresh(text: str, name: str, measured: float, mutants: Mapping[str, float]) -> str:
    """Returns the text of ``gates.toml`` with what was measured for one gate put in."""
    head, header, rest = text.partition(f"[{name}]\n")
    if not header:
        raise ValueError(f"no gate {name}")
    inline = ", ".join(f"{mutant} = {value:.3g}" for mutant, value in mutants.items())
    rest = re.sub(r"^measured = .*$", f"measured = {measured:.3g}", rest, count=1, flags=re.MULTILINE)
    rest = re.sub(
        r"^mutants = .*$", f"mutants = {{ {inline} }}" if inline else "mutants = {}", rest, count=1, flags=re.MULTILINE
    )
    return head + header + rest


def main() -> None:
    """Measures every gate and mutant once, and says how each stands; with ``--measure`` writes that into the file."""
    parser = argparse.ArgumentParser(prog="python -m bench.gates", description=__doc__)
    parser.add_argument("--measure", action="store_true", help="write what is measured into gates.toml")
    arguments = parser.parse_args()
    text = BOUNDS.read_text()
    with Workers() as workers:
        for name, bound in load_bounds().items():
            measured = GATES[name].measure(workers)
            print(Verdict(GATES[name].task.service, bound, [measured]))
            mutants = {mutant: GATES[name].of(mutant).measure(workers) for mutant in bound.mutants}
            for mutant, ratio in mutants.items():
                print(f"  {mutant}: {ratio:.3g}, {'not noticed' if bound.holds(ratio) else 'noticed'}")
            for mutant in mutants.keys() & NEED_CORES:
                if bound.holds(mutants[mutant]) and idle_cores() < CORES_NEEDED:
                    print(f"  {mutant} cannot be told here: other programs leave no core free; what it was is kept")
                    mutants[mutant] = bound.mutants[mutant]
            text = refresh(text, name, measured, mutants)
    if arguments.measure:
        BOUNDS.write_text(text)


if __name__ == "__main__":
    main()
