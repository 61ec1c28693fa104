"""What a host's settings do: ``python -m bench.hosts`` measures sessiondb in processes that are set up differently.

First the interval at which threads take turns, beside a thread that computes, on each event loop; then Python's garbage
collector. The rounds of all settings of a table take turns.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.rows import median_figures
from bench.services import HAS_UVLOOP, SESSIONDB, Host
from bench.timing import Sample
from bench.workers import Task, Worker

_INTERVALS = {
    f"{'uvloop' if uvloop else 'asyncio'}, {seconds * 1000:g} ms": Host(uvloop=uvloop, switch_interval=seconds)
    for uvloop in ((False, True) if HAS_UVLOOP else (False,))
    for seconds in (0.005, 0.001, 0.0002)
}
_COLLECTORS = {
    "as Python starts": Host(collector="as it is"),
    "gc.freeze() after start": Host(collector="frozen"),
    "gc.set_threshold(70_000, 10, 10)": Host(collector="rare"),
    "gc.disable()": Host(collector="off"),
}


def _busy(clients: int, each: int) -> Task:
    return Task(SESSIONDB, "append", {"clients": clients, "each": each, "busy": True}, f"busy_{clients}")


def _beside_computing(rounds: int) -> list[Task]:
    del rounds
    return [_busy(1, 60), _busy(64, 30)]


def _in_memory_at_once(rounds: int) -> list[Task]:
    turns = {"clients": 32, "rounds": rounds, "each": 9}
    return [
        Task(SESSIONDB, "append", {"clients": 64, "each": 150}, "append_64"),
        Task(SESSIONDB, "turn", turns, "turn_32"),
        Task(SESSIONDB, "turn", {**turns, "look": True}, "turn_32_looking"),
    ]


TABLES = {
    "sys.setswitchinterval(), beside one CPU-bound Python thread": (_INTERVALS, _beside_computing),
    "Python's garbage collector": (_COLLECTORS, _in_memory_at_once),
}


def measure(
    hosts: Mapping[str, Host], tasks: Sequence[Task], rounds: int, folder: Path
) -> dict[tuple[str, str], list[Sample]]:
    """Runs each task in a process of each host, all taking turns; the samples are by task and host."""
    samples: dict[tuple[str, str], list[Sample]] = {}
    with ExitStack() as stack:
        workers = {name: stack.enter_context(closing(Worker(str(folder), host))) for name, host in hosts.items()}
        for task in tasks:
            for worker in workers.values():
                worker.prepare(task)
                worker.wait()
            for n in range(rounds):
                for name in hosts if n % 2 == 0 else reversed(list(hosts)):
                    samples.setdefault((task.label, name), []).append(workers[name].run(task))
            for worker in workers.values():
                worker.finish(task)
    return samples


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(prog="python -m bench.hosts", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured; the median counts")
    rounds: int = parser.parse_args().rounds
    console = Console()
    for title, (hosts, tasks_of) in TABLES.items():
        table = Table("work", "host", "p50", "p99", "per second", title=title, title_justify="left")
        with tempfile.TemporaryDirectory(prefix="sessiondb-bench-") as folder:
            for (label, name), samples in measure(hosts, tasks_of(rounds), rounds, Path(folder)).items():
                figures = median_figures(samples)
                p50, p99 = (f"{figures[key] * 1000:.3g} ms" for key in ("p50", "p99"))
                table.add_row(label, name, p50, p99, f"{figures['per_second']:,.0f}")
        console.print(table)


if __name__ == "__main__":
    main()
