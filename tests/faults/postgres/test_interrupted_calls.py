"""A process, or its server, that is killed in the middle of a call: see :mod:`tests.faults.interrupted`."""

from __future__ import annotations

import asyncio
import random

import pytest

from tests.faults.figures import Figures
from tests.faults.interrupted import CALLS, Killing
from tests.faults.sizes import sized
from tests.faults.zygote import Child, Zygote
from tests.postgres.server import Server

KILLS = sized(3, 30)


@pytest.mark.parametrize("call", CALLS)
def test_call_of_a_killed_process_or_server_is_done_or_not(
    hosts: Zygote, harmed_server: Server, rng: random.Random, figures: Figures, call: str
) -> None:
    killing = Killing(hosts, harmed_server.fresh_database(), call, rng)

    def end_both(child: Child) -> None:
        harmed_server.kill(everything=True)
        child.kill()

    for number in range(KILLS):
        of_server = number % 3 == 2
        killing.run(end_both if of_server else lambda child: child.kill())
        if of_server:
            harmed_server.start()
        assert asyncio.run(killing.find_problems()) == []
    figures(f"kill -9 in {call}", kills=killing.kills, acknowledged=sum(killing.acknowledged.values()), half=0, lost=0)
