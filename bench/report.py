"""Tables and verdicts from a run: ``python -m bench.report bench/results/results.json``."""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

TARGETS = Path(__file__).with_name("targets.toml")

_QUICK = (
    "Sizes are small (`--quick`), to see that all works and roughly how things stand: names speak of the full sizes,"
    " peers that take long are left out, and a verdict is not final."
)
_COUNTS = ("each", "times", "commits", "turns", "events", "appends")
_SHOWN = {
    "fresh_p99": "p99 of the first",
    "fresh_per_second": "the first, per second",
    "max": "longest",
    "slowest_share": "slowest process, of the fastest",
    "bytes_per_session": "bytes a session",
    "bytes_per_event": "bytes an event",
    "json_bytes": "of which JSON",
    "late_per_second": "per second from turn 30",
    "cpu_share": "share of a CPU",
    "rss_growth": "RSS growth (bytes)",
    "traced_growth": "traced growth (bytes)",
    "traced_appends": "over appends",
    "limit": "limit (bytes)",
    "cache_bytes": "counted (bytes)",
    "traced": "traced (bytes)",
}


@dataclass(frozen=True)
class Check:
    """One bound of a target.

    Attributes:
        figure: What is bounded, ``row/line/figure``.
        to: What it is divided by, named likewise; None: nothing.
        at_least: The lower bound, or None.
        at_most: The upper bound, or None.
        unit: What an undivided figure is shown in.
    """

    figure: str
    to: str | None = None
    at_least: float | None = None
    at_most: float | None = None
    unit: str = ""

    def value(self, figures: Mapping[str, float]) -> float | None:
        """The figure, divided if it is to be; None if a part of it was not measured."""
        value = figures.get(self.figure)
        if self.to is None or value is None:
            return value
        base = figures.get(self.to)
        return None if not base else value / base

    def is_met(self, value: float) -> bool:
        """Whether a value is within the bounds."""
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)

    def text(self, value: float) -> str:
        """A value beside its bound."""
        bound, sign = (self.at_least, ">=") if self.at_least is not None else (self.at_most, "<=")
        assert bound is not None
        subject = self._subject()
        return f"{subject}: {self._number(value)} ({sign} {self._number(bound)})"

    def _subject(self) -> str:
        row, line, figure = self.figure.split("/")
        if self.to is None:
            return f"{row} {line} {figure}"
        to_row, to_line, to_figure = self.to.split("/")
        where = [part for part, other in ((to_row, row), (to_line, line), (to_figure, figure)) if part != other]
        return f"{row} {line} {figure} / {' '.join(where)}"

    def _number(self, value: float) -> str:
        if self.to is not None or not self.unit:
            return f"{value:.3g} x"
        if self.unit == "ms":
            return f"{value * 1000:.3g} ms"
        if self.unit == "%":
            return f"{value:.3%}"
        return f"{value:,.0f} {self.unit}"


@dataclass(frozen=True)
class Target:
    """A row of the table of targets: what is promised, and how to tell."""

    work: str
    promise: str
    checks: Sequence[Check]


@dataclass(frozen=True)
class Verdict:
    """How a target stands: ``met``, ``missed`` or ``not measured``, and each check in words."""

    target: Target
    outcome: str
    details: Sequence[str]


def load_targets(path: Path = TARGETS) -> list[Target]:
    """Reads the table of targets."""
    with path.open("rb") as file:
        rows = tomllib.load(file)["target"]
    return [Target(row["work"], row["promise"], [Check(**check) for check in row["checks"]]) for row in rows]


def figures_of(benchmarks: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """All figures of a run, by ``row/line/figure``."""
    return {
        f"{info['row']}/{info['service']}/{name}": value
        for info in (benchmark["extra_info"] for benchmark in benchmarks)
        for name, value in info["figures"].items()
    }


def judge(target: Target, figures: Mapping[str, float]) -> Verdict:
    """Compares a run with a target. One missed check misses it; what was left out of a run is said."""
    details = []
    outcome = "met"
    for check in target.checks:
        value = check.value(figures)
        if value is None:
            details.append(f"{check.figure}{f' / {check.to}' if check.to else ''}: not measured")
            outcome = outcome if outcome == "missed" else "not measured"
        else:
            met = check.is_met(value)
            details.append(check.text(value) if met else f"MISSED {check.text(value)}")
            outcome = outcome if met else "missed"
    return Verdict(target, outcome, details)


def render_tables(benchmarks: Sequence[Mapping[str, Any]]) -> Iterable[tuple[str, list[str], list[list[str]]]]:
    """One table for each row that was measured, in the order of the targets: its title, its header and its lines."""
    rows = [check.figure.partition("/")[0] for target in load_targets() for check in target.checks]
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for benchmark in sorted(benchmarks, key=lambda each: rows.index(each["extra_info"]["row"])):
        groups.setdefault(benchmark["group"], []).append(benchmark["extra_info"])
    for title, infos in groups.items():
        names = {name for info in infos for name in info["figures"]}
        extra = [name for name in _SHOWN if name in names]
        latencies = "p99" in names
        rates = "per_second" in names
        header = ["service", "time", *(["p99"] if latencies else []), *(["per second"] if rates else [])]
        header += [*(_SHOWN[name] for name in extra), *(["errors"] if "errors" in names else []), "rounds x size"]
        yield title, header, [_line(info, extra, names, latencies=latencies, rates=rates) for info in infos]


def _line(info: Mapping[str, Any], extra: Sequence[str], names: set[str], *, latencies: bool, rates: bool) -> list[str]:
    figures = info["figures"]
    cells = [info["title"], _time(figures["seconds"])]
    if latencies:
        cells.append(_time(figures["p99"]) if "p99" in figures else "")
    if rates:
        cells.append(f"{figures['per_second']:,.0f}" if "per_second" in figures else "")
    cells += [_quantity(name, figures[name]) if name in figures else "" for name in extra]
    if "errors" in names:
        cells.append(f"{figures['errors']:,.0f} of {figures['appends']:,.0f}" if figures["errors"] else "0")
    sizes = [f"{info['sizes'][name]:,}" for name in _COUNTS if name in info["sizes"] and name != "events"][:1]
    cells.append(" x ".join([str(len(info["rounds"])), *sizes]))
    return cells


def _quantity(name: str, value: float) -> str:
    if name in ("max", "fresh_p99"):
        return _time(value)
    return f"{value:.3%}" if name.endswith("share") else f"{value:,.0f}"


def _time(seconds: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e3)):
        if seconds * scale >= 1:
            return f"{seconds * scale:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


def to_markdown(run: Mapping[str, Any]) -> str:
    """The whole report."""
    machine = run["machine_info"]
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    cpu = machine["cpu"].get("brand_raw", machine["processor"])
    server = f", {machine['postgresql']}" if machine.get("postgresql") else ""
    parts = [
        f"Measured on {run['datetime'][:10]}, {machine['sizes']} sizes: {machine['cpus']} CPUs ({cpu}),"
        f" {machine['system']} {machine['release'].partition('-')[0]},"
        f" {machine['python_implementation']} {machine['python_version']}, SQLite {machine['sqlite']}{server}; a sync of one"
        f" page takes the disk {machine['fsync_ms']} ms, and one process takes {machine['slowed_by_a_neighbour']} times as"
        f" long while another computes beside it. {packages}.",
        "Times are medians over the rounds; the rounds of all services took turns, each service in a process of its"
        " own. The last column says how many rounds there were, and how many operations of each client make one.",
        *([_QUICK] if machine["sizes"] == "quick" else []),
        "### Targets",
        _markdown_table(["work", "target", "measured", "verdict"], _verdict_rows(run["benchmarks"])),
    ]
    for title, header, rows in render_tables(run["benchmarks"]):
        parts += [f"### {title[0].upper()}{title[1:]}", _markdown_table(header, rows)]
    return "\n\n".join(parts) + "\n"


_COMPARED = {
    "append_1": ("append, one client, median", "p50"),
    "append_64": ("append, 64 clients, a second", "per_second"),
    "busy_64": ("the same beside a CPU-bound Python thread", "per_second"),
    "turn_32": ("turns (a read of 100 events, two appends), 32 clients, a second", "per_second"),
    "create": ("create_session, median", "p50"),
    "get_100": ("get_session, 100 events read before, median", "p50"),
    "get_10000": ("get_session, 10,000 events read before, median", "p50"),
    "get_cold": ("get_session, 10,000 events not read before, median", "p50"),
    "list_1000": ("list_sessions, 1,000 sessions, median", "p50"),
    "size": ("bytes on disk for an event of 577 bytes", "bytes_per_event"),
}
"""Rows of the comparison: the title there, and the figure shown."""


def to_comparison(run: Mapping[str, Any]) -> str:
    """One table of the services side by side, for the page that compares them."""
    figures = figures_of(run["benchmarks"])
    peers = ("sessiondb", "mem", "sql", "db", "spec")
    lines = []
    for row, (title, figure) in _COMPARED.items():
        values = [figures.get(f"{row}/{peer}/{figure}") for peer in peers]
        lines.append([title, *("" if value is None else _compared(figure, value) for value in values)])
    return (
        f"Of one run on {run['datetime'][:10]}, with the versions named above; the machine and all other figures are in"
        " [performance](../performance.md).\n\n"
        + _markdown_table(["work", "sessiondb", "InMemory", "Sqlite", "Database", "sqlspec"], lines)
        + "\n\nAn empty cell was not measured.\n"
    )


def _compared(figure: str, value: float) -> str:
    return _time(value) if figure == "p50" else f"{value:,.0f}"


def _verdict_rows(benchmarks: Iterable[Mapping[str, Any]]) -> list[list[str]]:
    figures = figures_of(benchmarks)
    verdicts = [judge(target, figures) for target in load_targets()]
    return [
        [verdict.target.work, verdict.target.promise, "<br>".join(verdict.details), verdict.outcome]
        for verdict in verdicts
    ]


def _markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _print(run: Mapping[str, Any], console: Console) -> None:
    colours = {"met": "green", "missed": "red", "not measured": "yellow"}
    for title, header, rows in render_tables(run["benchmarks"]):
        table = Table(*header, title=title, title_justify="left")
        for row in rows:
            table.add_row(*row)
        console.print(table)
    table = Table("work", "target", "measured", "verdict", title="targets", title_justify="left", show_lines=True)
    for work, promise, details, outcome in _verdict_rows(run["benchmarks"]):
        table.add_row(work, promise, details.replace("<br>", "\n"), f"[{colours[outcome]}]{outcome}[/]")
    console.print(table)


def main() -> None:
    """Prints the report of a run; writes it as Markdown where it is told to."""
    parser = argparse.ArgumentParser(prog="python -m bench.report", description=__doc__)
    parser.add_argument("results", type=Path, help="what pytest wrote with --benchmark-json")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the report here, too")
    parser.add_argument("--comparison", type=Path, metavar="FILE", help="write the services side by side here, too")
    arguments = parser.parse_args()
    run = json.loads(arguments.results.read_text())
    # Where nobody looks on, in a log, nothing says how wide a line may be.
    _print(run, Console(width=None if sys.stdout.isatty() else 160))
    if arguments.markdown is not None:
        arguments.markdown.write_text(to_markdown(run))
    if arguments.comparison is not None:
        arguments.comparison.write_text(to_comparison(run))


if __name__ == "__main__":
    main()
