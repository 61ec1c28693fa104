"""How benchmarks are judged: bounds, targets, and what a reader is told. Nothing is timed here."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from bench import gates
from bench.gates import BOUNDS, GATES, Bound, Verdict, load_bounds, refresh
from bench.mutants import MUTANTS
from bench.report import Check, Target, figures_of, judge, load_targets, to_comparison, to_markdown
from bench.rows import Row
from bench.suites import (
    test_conversations,
    test_footprint,
    test_growth,
    test_processes,
    test_reads,
    test_server,
    test_writes,
)
from bench.tape import Tape
from bench.timing import append_sample, quantile
from bench.workloads import WORKLOADS

ROWS: list[Row] = [
    row
    for module in (
        test_conversations,
        test_footprint,
        test_growth,
        test_processes,
        test_reads,
        test_server,
        test_writes,
    )
    for row in module.ROWS
]


def bound(**limits: float) -> Bound:
    return Bound("speed", "ours / theirs", measured=0.5, mutants={}, **limits)


def test_gate_has_a_bound_and_known_mutants() -> None:
    bounds = load_bounds()
    assert bounds.keys() == GATES.keys()
    mutants = {mutant for each in bounds.values() for mutant in each.mutants}
    assert mutants == MUTANTS.keys()


def test_gate_bound_admits_product_and_no_mutant() -> None:
    for each in load_bounds().values():
        assert each.holds(each.measured), each.name
        for mutant, ratio in each.mutants.items():
            assert not each.holds(ratio), f"{each.name}: {mutant}"


def test_gate_breach_is_ratio_out_of_bounds_twice() -> None:
    assert Verdict("sessiondb", bound(at_least=0.4), [0.3, 0.39]).breached
    assert not Verdict("sessiondb", bound(at_least=0.4), [0.3, 0.4]).breached
    assert Verdict("sessiondb", bound(at_most=0.4), [0.5, 0.41]).breached
    assert not Verdict("sessiondb", bound(at_most=0.4), [0.4]).breached


def test_gate_breach_says_measured_and_allowed() -> None:
    message = str(Verdict("sessiondb", bound(at_least=0.4), [0.3, 0.31]))
    assert message == (
        "gate speed BREACHED by sessiondb: measured 0.3 and again 0.31, bound at least 0.4, measured when the bound was"
        " set 0.5\n  (ours / theirs)"
    )


@pytest.mark.parametrize("limits", ["", "at_least = 1\nat_most = 2"], ids=["none", "both"])
def test_gate_needs_exactly_one_bound(limits: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gates, "GATES", {"speed": GATES["append_64"]})
    path = tmp_path / "gates.toml"
    path.write_text(f'[speed]\nratio = "r"\nmeasured = 1\nmutants = {{}}\n{limits}\n')
    with pytest.raises(ValueError, match="speed needs one of"):
        load_bounds(path)


def test_gate_bound_without_gate_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "gates.toml"
    path.write_text(BOUNDS.read_text() + '\n[another]\nratio = "r"\nmeasured = 1\nmutants = {}\nat_least = 1\n')
    with pytest.raises(ValueError, match="differ in: another"):
        load_bounds(path)


def test_gate_ratio_is_put_beside_its_own_bound() -> None:
    before = BOUNDS.read_text()
    after = refresh(before, "busy_64", 0.123456, {"statement_per_row": 0.0123456})
    changed = tomllib.loads(after)
    assert changed["busy_64"]["measured"] == 0.123
    assert changed["busy_64"]["mutants"] == {"statement_per_row": 0.0123}
    unchanged = tomllib.loads(before)
    assert {name: gate for name, gate in changed.items() if name != "busy_64"} == {
        name: gate for name, gate in unchanged.items() if name != "busy_64"
    }
    assert refresh(before, "list_1000", 0.5, {}).count("mutants = {}") == before.count("mutants = {}")


def test_benchmark_row_and_gate_name_a_workload() -> None:
    for row in ROWS:
        assert {entry.workload for entry in row.entries} <= WORKLOADS.keys()
        assert row.tasks(quick=True)
    assert {task.workload for gate in GATES.values() for task in (gate.task, gate.base)} <= WORKLOADS.keys()


def test_benchmark_target_is_about_measured_lines() -> None:
    lines = {f"{row.name}/{task.name}" for row in ROWS for task in row.tasks(quick=False)}
    checked = [check for target in load_targets() for check in target.checks]
    assert {figure.rpartition("/")[0] for check in checked for figure in (check.figure, check.to) if figure} <= lines
    assert all((check.at_least is None) != (check.at_most is None) for check in checked)
    # And no row is measured for nothing.
    assert {row.name for row in ROWS} == {check.figure.partition("/")[0] for check in checked}


TARGET = Target(
    "append",
    "twice as fast, within 5 ms",
    [Check("row/ours/rate", to="row/theirs/rate", at_least=2), Check("row/ours/p50", at_most=0.005, unit="ms")],
)


def test_benchmark_target_is_met_missed_or_not_measured() -> None:
    met = judge(TARGET, {"row/ours/rate": 4.0, "row/theirs/rate": 2.0, "row/ours/p50": 0.004})
    assert met.outcome == "met"
    assert met.details == ["row ours rate / theirs: 2 x (>= 2 x)", "row ours p50: 4 ms (<= 5 ms)"]
    missed = judge(TARGET, {"row/ours/rate": 3.0, "row/theirs/rate": 2.0})
    assert missed.outcome == "missed"
    assert missed.details == ["MISSED row ours rate / theirs: 1.5 x (>= 2 x)", "row/ours/p50: not measured"]
    assert judge(TARGET, {"row/ours/p50": 0.004}).outcome == "not measured"


def test_benchmark_report_has_machine_tables_and_verdicts() -> None:
    info = {
        "row": "append_64",
        "service": "sessiondb",
        "title": "sessiondb",
        "sizes": {"clients": 64, "each": 30},
        "rounds": [0.0001, 0.0002],
        "figures": {"seconds": 0.0001, "p50": 0.005, "p99": 0.012, "per_second": 10_000, "errors": 0, "appends": 60},
    }
    run: dict[str, Any] = {
        "datetime": "2025-01-02T03:04:05",
        "machine_info": {
            "cpu": {"brand_raw": "A processor"},
            "processor": "x86_64",
            "system": "Linux",
            "release": "6.1.0-18",
            "python_implementation": "CPython",
            "python_version": "3.11.7",
            "cpus": 2,
            "sqlite": "3.40.1",
            "postgresql": "PostgreSQL 15.18",
            "fsync_ms": 0.1,
            "slowed_by_a_neighbour": 1.4,
            "sizes": "quick",
            "packages": {"google-adk": "2.13.0"},
        },
        "benchmarks": [{"group": "append, 64 clients", "extra_info": info}],
    }
    assert figures_of(run["benchmarks"])["append_64/sessiondb/p99"] == 0.012
    text = to_markdown(run)
    assert "2 CPUs (A processor), Linux 6.1.0, CPython 3.11.7, SQLite 3.40.1, PostgreSQL 15.18; a sync" in text
    assert "| service | time | p99 | per second | errors | rounds x size |" in text
    assert "| sessiondb | 100 µs | 12 ms | 10,000 | 0 | 2 x 30 |" in text
    assert "append_64 sessiondb p99: 12 ms (<= 15 ms)" in text
    assert text.count("| not measured |") > 10
    assert "| append, 64 clients, a second | 10,000 |  |  |  |  |" in to_comparison(run)


def test_benchmark_clock_plays_what_was_measured() -> None:
    tape = Tape()
    tape.load([0.5, 0.0])
    moments = [tape.clock()]
    for _ in range(2):
        tape.play()
        moments.append(tape.clock())
    assert moments[1] - moments[0] == 0.5
    assert moments[2] > moments[1]


def test_benchmark_uses_median_or_throughput_by_clients() -> None:
    latencies = [0.001] * 98 + [0.002, 0.1]
    assert append_sample(latencies, 0.2, alone=True).seconds == 0.001
    many = append_sample(latencies, 0.2, errors=3, alone=False)
    assert many.seconds == pytest.approx(0.002)
    assert many.figures["errors"] == 3
    assert many.figures["per_second"] == pytest.approx(500)
    assert quantile(latencies, 0.99) == 0.1
    with pytest.raises(RuntimeError, match="none of 7 appends"):
        append_sample([], 0.2, errors=7, alone=False)
