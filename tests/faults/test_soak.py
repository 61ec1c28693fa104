"""The soak of ``bench/soak.py``, for some seconds."""

from __future__ import annotations

import random
from pathlib import Path

from tests.faults.figures import Figures
from tests.faults.sizes import sized
from tests.faults.soaking import FAULTS, soak
from tests.faults.zygote import Zygote


def test_short_soak_with_each_fault_loses_nothing(
    zygote: Zygote, tmp_path: Path, rng: random.Random, figures: Figures
) -> None:
    """Each fault once at least. Seen failing with the break "errors are swallowed" in its workers."""
    outcome = soak(zygote, tmp_path, sized(1.0, 60.0), rng)
    assert outcome.problems == []
    assert set(outcome.faults) == set(FAULTS)
    figures(
        "soak",
        operations=outcome.operations.total(),
        faults=outcome.faults.total() - outcome.faults["none"],
        errors=outcome.errors.total(),
        lost=outcome.lost,
    )
