"""The gates hold, and they bite. Run by ``tox -e gates``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench.gates import CORES_NEEDED, GATES, NEED_CORES, check, idle_cores, load_bounds
from bench.mutants import MUTANTS
from bench.workers import Workers

_MUTANTS = [(mutant, name) for name, bound in load_bounds().items() for mutant in bound.mutants]


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with Workers() as all_workers:
        yield all_workers


@pytest.mark.parametrize("name", GATES)
def test_gate_holds(name: str, workers: Workers) -> None:
    verdict = check(name, workers)
    print(verdict)
    assert not verdict.breached, str(verdict)


@pytest.mark.parametrize(("mutant", "name"), _MUTANTS, ids=[f"{mutant}-{name}" for mutant, name in _MUTANTS])
def test_gate_bites(mutant: str, name: str, workers: Workers) -> None:
    verdict = check(name, workers, mutant)
    print(verdict)
    if mutant in NEED_CORES and not verdict.breached and (idle := idle_cores()) < CORES_NEEDED:
        pytest.skip(f"other programs leave {idle:.1f} cores idle: a statement does not wait for the GIL there")
    assert verdict.breached, f"goes unnoticed: {verdict}"


def test_each_mutant_is_led_to_a_gate() -> None:
    assert {mutant for mutant, _ in _MUTANTS} == MUTANTS.keys()
