"""A standby that takes over."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.figures import Figures
from tests.faults.postgres.judge import assert_sound
from tests.faults.postgres.load import Load
from tests.faults.postgres.pair import Pair, pair, wait_until
from tests.faults.sizes import sized
from tests.faults.zygote import Zygote


@pytest.fixture(scope="module")
def synchronous_pair() -> Iterator[Pair]:
    with pair() as both:
        yield both


def test_promoted_standby_has_all_that_was_acknowledged(
    hosts: Zygote, synchronous_pair: Pair, tmp_path: Path, rng: random.Random, figures: Figures
) -> None:
    """The old primary is killed before or after, or goes on beside the new one for a while."""
    promotions = sized(3, 24)
    both = synchronous_pair
    both.primary.create_database("promoted")
    done = dict.fromkeys(("fenced", "unfenced"), 0)
    with Load(hosts, tmp_path, both.url("promoted")) as load:
        load.start(4)
        for number in range(promotions):
            load.wait_for(rng.randrange(5, 50))
            if number % 2:
                both.primary.kill(everything=rng.random() < 0.5)
                both.promote()
                done["fenced"] += 1
            else:
                both.promote()
                # Whoever writes to it waits for a standby that does not follow it any more.
                wait_until(both.standby, "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
                both.standby.kill(everything=rng.random() < 0.5)
                done["unfenced"] += 1
            both.follow()
        load.wait_for(5)
        load.stop()
    assert not load.lost
    assert_sound(both.primary.url("promoted"), load.acknowledged, load.refused)
    figures("promotions", **done, acknowledged=load.total, lost=0, twice=0, **load.figures)
