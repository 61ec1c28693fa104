"""A cluster that a failover manager looks after; nobody helps it, or the hosts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.figures import Figures
from tests.faults.postgres.judge import assert_sound
from tests.faults.postgres.load import Load
from tests.faults.postgres.patroni import cluster
from tests.faults.sizes import FULL
from tests.faults.zygote import Zygote


@pytest.mark.skipif(not FULL, reason="a cluster takes its time to find a new leader: SESSIONDB_FAULTS=full")
def test_cluster_that_loses_its_leader_loses_nothing_else(hosts: Zygote, tmp_path: Path, figures: Figures) -> None:
    """The leader's computer goes, or its server, or its way to etcd; with a synchronous standby, as Patroni keeps it."""
    losses = 12
    kinds = ("computer killed", "server killed", "cut off")
    with cluster() as three, Load(hosts, tmp_path, three.url) as load:
        load.start(4)
        for number in range(losses):
            load.wait_for(20)
            leader = three.leader()
            match kinds[number % len(kinds)]:
                case "computer killed":
                    leader.kill()
                case "server killed":
                    leader.kill_server()
                case "cut off":
                    leader.etcd.freeze()
            three.leader(other_than=leader)
            load.wait_for(5)
            leader.etcd.release()
            if not leader.is_started:
                leader.start()
            three.wait_until_whole()
        load.wait_for(5)
        load.stop()
        assert not load.lost
        assert_sound(f"{three.url}?target_session_attrs=read-write", load.acknowledged, load.refused)
    figures(
        "leaders lost, Patroni",
        **{kind.replace(" ", "_"): losses // len(kinds) for kind in kinds},
        acknowledged=load.total,
        lost=0,
        twice=0,
        **load.figures,
    )
