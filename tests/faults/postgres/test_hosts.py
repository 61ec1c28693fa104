"""Hosts that share a server: that start at once, write to the same rows, and are killed."""

from __future__ import annotations

from pathlib import Path

import psycopg

from tests.faults.figures import Figures
from tests.faults.postgres.judge import assert_sound
from tests.faults.postgres.load import PROGRAM, Load
from tests.faults.sizes import sized
from tests.faults.zygote import Zygote
from tests.postgres.server import Server


def test_hosts_that_start_at_once_create_the_tables(
    hosts: Zygote, postgres_server: Server, tmp_path: Path, figures: Figures
) -> None:
    """Seen failing while nobody waited for another who creates them."""
    rounds, together = sized(3, 50), 6
    for number in range(rounds):
        url = postgres_server.fresh_database()
        go = tmp_path / f"go{number}"
        children = [hosts.start(PROGRAM + "open_new", url=url, name=f"host{n}", go=str(go)) for n in range(together)]
        reports = [child.reports() for child in children]
        assert {next(said) for said in reports} == {"ready"}
        go.touch()
        names = [name for said in reports for name in said]
        assert [child.wait() for child in children] == [0] * together
        assert len(names) == together
        assert_sound(url, {name: [] for name in names})
    figures(f"empty databases opened by {together} hosts at once", databases=rounds, errors=0)


def test_hosts_that_write_to_the_same_rows_never_deadlock(
    hosts: Zygote, postgres_database: str, tmp_path: Path, figures: Figures
) -> None:
    together, tasks, appends = sized((8, 5, 40), (8, 20, 100))
    with Load(hosts, tmp_path, postgres_database, tasks=tasks, appends=appends, busy_timeout=30.0) as load:
        load.start(together)
        load.join()
    assert load.total == together * tasks * appends
    assert not load.told
    assert_sound(postgres_database, load.acknowledged, load.refused)
    with psycopg.connect(postgres_database) as connection:
        row = connection.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()").fetchone()
    assert row == (0,)
    figures("hosts that share rows", hosts=together, acknowledged=load.total, deadlocks=0, lost=0, twice=0)


def test_killed_host_loses_nothing_and_holds_nobody_up(
    hosts: Zygote, postgres_database: str, tmp_path: Path, figures: Figures
) -> None:
    kills = sized(5, 100)
    with Load(hosts, tmp_path, postgres_database) as load:
        load.start(2)
        for _ in range(kills):
            load.start()
            load.wait_for(10)
            load.kill_oldest()
        load.wait_for(10)
        load.stop()
    assert_sound(postgres_database, load.acknowledged, load.refused)
    figures("hosts killed", kills=kills, acknowledged=load.total, lost=0, twice=0)
