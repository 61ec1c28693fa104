"""The hosts, and those who judge by what they were told, see a broken promise."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from sessiondb import DatabaseSessionService
from tests.faults.postgres.judge import find_problems
from tests.faults.postgres.load import BATCH, Load
from tests.faults.postgres.test_failover import cancel_waits, take_over
from tests.faults.zygote import Zygote
from tests.postgres.cluster import cluster
from tests.postgres.proxy import Cut, Proxy, proxy
from tests.postgres.server import Server

ATTEMPTS = 20

_SOON = 10.0
"""How long hosts that are well may take to send something, in seconds."""


def test_answers_before_the_commit_are_noticed_when_a_host_is_killed(
    hosts: Zygote, postgres_database: str, tmp_path: Path
) -> None:
    with Load(hosts, tmp_path, postgres_database, mutant="answer before commit") as load:
        for _ in range(ATTEMPTS):
            load.start()
            load.wait_for(10)
            load.kill_oldest()
            if find_problems(postgres_database, load.acknowledged):
                return
    pytest.fail("no kill showed the break")


def test_asynchronous_commits_are_noticed_when_the_server_is_killed(
    hosts: Zygote, harmed_server: Server, tmp_path: Path
) -> None:
    url = harmed_server.fresh_database()
    # The tables are to be there.
    asyncio.run(DatabaseSessionService(url).close())
    with Load(hosts, tmp_path, url, mutant="asynchronous commit") as load:
        load.start()
        for _ in range(ATTEMPTS):
            load.wait_for(10)
            harmed_server.kill(everything=True)
            harmed_server.start()
            if load.is_over():
                break
        else:
            pytest.fail("no kill showed the break")
        load.join()
    # The ledger is as new as the events are: the host has found it, too.
    assert load.lost
    assert find_problems(url, load.acknowledged)


def test_batch_that_is_sent_again_without_the_ledger_is_noticed(
    hosts: Zygote, harmed_server: Server, tmp_path: Path
) -> None:
    url = harmed_server.fresh_database()

    def cut_replies(load: Load, between: Proxy) -> None:
        load.start()
        for _ in range(ATTEMPTS):
            load.wait_for(1)
            assert between.cut(Cut.BEFORE_REPLY, larger_than=BATCH).wait(_SOON), "nobody sends anything"
        load.stop()

    with proxy(url) as between:
        mutated = Load(hosts, tmp_path, between.url, mutant="a new number for each sending")
        # What finds its event in the log already may also be overtaken by itself: such a host ends, and says nothing more.
        with pytest.raises(AssertionError, match=r"twice|nobody sends anything|StaleSessionError"), mutated as load:
            cut_replies(load, between)


def test_overlooked_warnings_are_noticed_when_the_standby_takes_over(hosts: Zygote, tmp_path: Path) -> None:
    with cluster(fsync=False) as both:
        both.primary.create_database("cancelled")
        with Load(hosts, tmp_path, both.url("cancelled"), mutant="warnings are overlooked") as load:
            load.start()
            load.wait_for(5)
            both.standby.kill(everything=True)
            cancel_waits(both, 20)
            take_over(both)
            load.join()
        assert load.lost
        assert find_problems(both.primary.url("cancelled"), load.acknowledged)
