"""Crashes: a process that is killed while many clients write."""

from __future__ import annotations

import asyncio
import random
import threading
from collections import defaultdict
from pathlib import Path

import pytest

from tests.faults.figures import Figures
from tests.faults.oracle import assert_service_agrees, assert_sound, find_problems
from tests.faults.shim import KILL_AFTER, KILL_BEFORE, KILL_TORN, SYNC, TRUNCATE, WRITE
from tests.faults.sizes import sized
from tests.faults.workload import APP
from tests.faults.zygote import Zygote

CLIENTS = 32
KILLS = sized(12, 200)
KILLS_PER_FILE = 10


def kill_under_load(
    zygote: Zygote, path: Path, run: int, rng: random.Random, acknowledged: dict[str, list[str]], *, mutant: str = ""
) -> None:
    """Starts a process with many clients and kills it at a random moment; notes what was acknowledged."""
    kill: tuple[str, int, int] | None = None
    if zygote.has_shim and rng.random() < 0.5:
        # At a call that writes, syncs or truncates, in front of it, behind it or in the middle.
        kill = (WRITE + SYNC + TRUNCATE, rng.randrange(20, 400), rng.choice([KILL_BEFORE, KILL_AFTER, KILL_TORN]))
    child = zygote.start(
        "tests.faults.programs:write_until_killed",
        path=str(path),
        run=run,
        clients=CLIENTS,
        kill=kill,
        checkpoint_bytes=rng.choice([64 * 1024, 1024 * 1024, 16 * 1024 * 1024]),
        mutant=mutant,
    )
    last_report = rng.randrange(CLIENTS, 40 * CLIENTS)
    for number, (session, event) in enumerate(child.reports()):
        log = acknowledged[session]
        if event:
            log.append(event)
        if kill is None and number == last_report:
            # The moment lies anywhere between two acknowledgements.
            threading.Event().wait(rng.random() * 0.003)
            child.kill()
    assert child.wait() == -9


def test_sigkill_crash_loses_no_acknowledged_event(
    any_zygote: Zygote, tmp_path: Path, rng: random.Random, figures: Figures
) -> None:
    """Seen failing with the break "state in a second transaction", see below."""
    kills = events = 0
    for number in range(0, KILLS, KILLS_PER_FILE):
        path = tmp_path / f"{number}.sqlite3"
        acknowledged: dict[str, list[str]] = defaultdict(list)
        for run in range(min(KILLS_PER_FILE, KILLS - number)):
            kill_under_load(any_zygote, path, run, rng, acknowledged)
            assert_sound(path, acknowledged)
            kills += 1
        asyncio.run(assert_service_agrees(path, APP))
        events += sum(map(len, acknowledged.values()))
    figures("kill -9", kills=kills, acknowledged=events, lost=0)


@pytest.mark.parametrize("mutant", ["answer before commit", "state in a second transaction"])
def test_mutant_that_loses_events_at_crash_is_noticed(zygote: Zygote, tmp_path: Path, mutant: str) -> None:
    """The judge of the test above sees answers given too early, and halves of an append."""
    rng = random.Random(1)
    for run in range(60):
        acknowledged: dict[str, list[str]] = defaultdict(list)
        path = tmp_path / f"{run}.sqlite3"
        kill_under_load(zygote, path, run, rng, acknowledged, mutant=mutant)
        if find_problems(path, acknowledged):
            return
    pytest.fail("no kill showed the break")
