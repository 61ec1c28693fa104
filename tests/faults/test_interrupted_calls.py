"""A process that is killed in the middle of a call, on a file: see :mod:`tests.faults.interrupted`."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from tests.databases import query
from tests.faults.figures import Figures
from tests.faults.interrupted import CALLS, Killing
from tests.faults.shim import KILL_AFTER, KILL_BEFORE, KILL_TORN, SYNC, TRUNCATE, WRITE
from tests.faults.sizes import sized
from tests.faults.zygote import Zygote

KILLS = sized(4, 60)


def kill_in_a_call(killing: Killing, rng: random.Random, *, at_system_call: bool, mutant: str = "") -> None:
    """Kills a process at a call that writes, syncs or truncates, or at any moment."""
    kill = None
    if at_system_call:
        kill = (WRITE + SYNC + TRUNCATE, rng.randrange(1, 100), rng.choice([KILL_BEFORE, KILL_AFTER, KILL_TORN]))
    checkpoint_bytes = rng.choice([64 * 1024, 1024 * 1024])
    killing.run(lambda child: child.kill(), kill=kill, checkpoint_bytes=checkpoint_bytes, mutant=mutant)


@pytest.mark.parametrize("call", CALLS)
def test_call_of_a_killed_process_is_done_or_not(
    any_zygote: Zygote, tmp_path: Path, rng: random.Random, figures: Figures, call: str
) -> None:
    path = tmp_path / "x.sqlite3"
    killing = Killing(any_zygote, str(path), call, rng)
    for number in range(KILLS):
        kill_in_a_call(killing, rng, at_system_call=any_zygote.has_shim and number % 2 == 0)
        assert asyncio.run(killing.find_problems()) == []
        assert query(path, "PRAGMA integrity_check") == [("ok",)]
        assert query(path, "PRAGMA foreign_key_check") == []
    figures(f"kill -9 in {call}", kills=killing.kills, acknowledged=sum(killing.acknowledged.values()), half=0, lost=0)


@pytest.mark.parametrize("call", sized(["append_events"], ["append_events", "fork_session"]))
def test_mutant_that_does_half_of_a_call_is_noticed(zygote: Zygote, tmp_path: Path, call: str) -> None:
    """The judge of the test above sees calls of which the state is written in a transaction of its own."""
    rng = random.Random(1)
    for number in range(60):
        killing = Killing(zygote, str(tmp_path / f"{number}.sqlite3"), call, rng)
        kill_in_a_call(killing, rng, at_system_call=True, mutant="state in a second transaction")
        if asyncio.run(killing.find_problems()):
            return
    pytest.fail("no kill showed the break")
