"""The servers that the other tests stand on: what starts, stops, dies and comes back."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest

from tests.postgres.cluster import Cluster, cluster
from tests.postgres.proxy import Cut, proxy
from tests.postgres.server import TIMEOUT, Mode, Server, server


@pytest.fixture(scope="module")
def own_server() -> Iterator[Server]:
    """A server that the tests of this module may stop."""
    with server(password="it's 'secret' \\ @:/?") as running:  # noqa: S106  # of this server alone
        yield running


def scalar(connection: psycopg.Connection[tuple[object, ...]], query: LiteralString) -> object:
    row = connection.execute(query).fetchone()
    assert row is not None
    return row[0]


def test_server_has_settings_asked_for(own_server: Server) -> None:
    own_server.configure(work_mem="7MB")
    with own_server.connect() as connection:
        assert scalar(connection, "SHOW fsync") == "on"
        assert scalar(connection, "SHOW shared_buffers") == "32MB"
    own_server.restart()
    with own_server.connect() as connection:
        assert scalar(connection, "SHOW work_mem") == "7MB"


def test_server_wants_password_and_listens_on_loopback_address_only(own_server: Server) -> None:
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(f"postgresql://postgres:wrong@127.0.0.1:{own_server.port}/postgres")
    with own_server.connect() as connection:
        assert scalar(connection, "SHOW listen_addresses") == "127.0.0.1"
    with closing(psycopg.connect(own_server.url(through_socket=True))) as connection:
        assert connection.info.host == str(own_server.folder)


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_stopped_server_keeps_what_was_committed(own_server: Server, mode: Mode) -> None:
    with closing(own_server.connect()) as connection:
        connection.execute("DROP TABLE IF EXISTS kept; CREATE TABLE kept AS SELECT 1")
        own_server.stop(mode)
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError, match="refused"):
        own_server.connect()
    own_server.start()
    with own_server.connect() as connection:
        assert scalar(connection, "SELECT count(*) FROM kept") == 1


@pytest.mark.parametrize("everything", [True, False])
def test_killed_server_keeps_what_was_committed(own_server: Server, everything: bool) -> None:
    with closing(own_server.connect()) as connection:
        connection.execute("DROP TABLE IF EXISTS kept; CREATE TABLE kept AS SELECT 1")
        own_server.kill(everything=everything)
        own_server.start()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    with own_server.connect() as connection:
        assert scalar(connection, "SELECT count(*) FROM kept") == 1


def test_terminated_connections_are_those_of_one_database(own_server: Server) -> None:
    own_server.create_database("other")
    with closing(own_server.connect()) as left, closing(own_server.connect("other")) as ended:
        assert own_server.terminate_backends("other") == 1
        assert scalar(left, "SELECT 1") == 1
        with pytest.raises(psycopg.errors.AdminShutdown):
            ended.execute("SELECT 1")
    own_server.drop_database("other")


def test_each_fresh_database_is_empty(postgres_server: Server) -> None:
    for _ in range(2):
        with closing(psycopg.connect(postgres_server.fresh_database())) as connection:
            assert scalar(connection, "SELECT count(*) FROM pg_class WHERE relname = 'mine'") == 0
            connection.execute("CREATE TABLE mine ()")
            connection.commit()


PROGRAM = """
import sys
from tests.postgres.server import server
with server(fsync=False) as one:
    print(one.data / "postmaster.pid", flush=True)
    sys.stdin.read()
"""


def test_server_does_not_outlive_a_killed_program() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        text=True,
    ) as program:
        assert program.stdout is not None
        note = Path(program.stdout.readline().strip())
        end = os.pidfd_open(int(note.read_text(encoding="utf-8").split()[0]))
        program.send_signal(signal.SIGKILL)
        assert select.select([end], [], [], 20)[0]
        os.close(end)


# --- The proxy --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "stored"), [(Cut.BEFORE_REQUEST, 0), (Cut.IN_REQUEST, 0), (Cut.BEFORE_REPLY, 1), (Cut.IN_REPLY, 1)]
)
def test_proxy_cuts_a_request_or_its_answer(postgres_server: Server, where: Cut, stored: int) -> None:
    url = postgres_server.fresh_database()
    with (
        proxy(url) as between,
        closing(psycopg.connect(between.url, autocommit=True)) as through,
        closing(psycopg.connect(url, autocommit=True)) as beside,
    ):
        through.execute("CREATE TABLE seen (a int)")
        happened = between.cut(where, after=1)
        assert scalar(through, "SELECT 1") == 1
        assert not happened.is_set()
        with pytest.raises(psycopg.OperationalError):
            through.execute("INSERT INTO seen VALUES (%s)", [1])
        assert happened.is_set()
        assert scalar(beside, "SELECT count(*) FROM seen") == stored
        with closing(psycopg.connect(between.url)) as again:
            assert scalar(again, "SELECT count(*) FROM seen") == stored


def test_proxy_ends_a_connection_after_the_answer_to_a_large_request(postgres_server: Server) -> None:
    with proxy(postgres_server.url()) as between, closing(psycopg.connect(between.url, autocommit=True)) as through:
        happened = between.cut(Cut.AFTER_REPLY, larger_than=256)
        assert scalar(through, "SELECT 1") == 1
        assert not happened.is_set()
        assert through.execute("SELECT length(%s)", ["x" * 300]).fetchone() == (300,)
        assert happened.is_set()
        with pytest.raises(psycopg.OperationalError):
            through.execute("SELECT 1")


def test_proxy_hands_on_what_it_does_not_understand(postgres_server: Server) -> None:
    with (
        proxy(postgres_server.url(), understood=False) as between,
        closing(psycopg.connect(between.url, autocommit=True)) as through,
    ):
        between.freeze()
        answers: list[object] = []
        thread = threading.Thread(target=lambda: answers.append(scalar(through, "SELECT 1")))
        thread.start()
        thread.join(0.1)
        assert not answers
        between.release()
        thread.join(TIMEOUT)
        assert answers == [1]
        assert between.requests == 0


def test_proxy_holds_a_request_until_it_is_released(postgres_server: Server) -> None:
    url = postgres_server.fresh_database()
    with (
        proxy(url, delay=0.001) as between,
        closing(psycopg.connect(between.url, autocommit=True)) as through,
        closing(psycopg.connect(url, autocommit=True)) as beside,
    ):
        before = between.requests
        held = between.hold()
        answers: list[object] = []
        thread = threading.Thread(target=lambda: answers.append(through.execute("CREATE TABLE held ()").statusmessage))
        thread.start()
        assert held.wait(TIMEOUT)
        assert between.requests == before + 1
        assert scalar(beside, "SELECT to_regclass('held') IS NULL") is True
        between.release()
        thread.join(TIMEOUT)
        assert answers == ["CREATE TABLE"]


def test_proxy_cuts_all_and_refuses_until_told(postgres_server: Server) -> None:
    with proxy(postgres_server.fresh_database()) as between, closing(psycopg.connect(between.url)) as through:
        between.cut_all(refuse=True)
        with pytest.raises(psycopg.OperationalError):
            through.execute("SELECT 1")
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(between.url)
        between.accept()
        psycopg.connect(between.url).close()


# --- Two servers ------------------------------------------------------------------------------------------------------


def insert(cluster: Cluster, value: int) -> None:
    """Commits a row on whichever server takes writes."""
    with closing(psycopg.connect(cluster.url(), autocommit=True, connect_timeout=10)) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept (a int)")
        connection.execute("INSERT INTO kept VALUES (%s)", [value])


def test_promoted_standby_has_what_was_committed_and_old_primary_follows_it() -> None:
    with cluster() as both:
        old = both.primary
        for number, rewind in enumerate([True, False]):
            insert(both, number)
            both.primary.kill(everything=True)
            both.promote()
            both.rejoin(rewind=rewind)
        insert(both, 2)
        assert both.primary is old
        both.wait_until_equal()
        for server in (both.primary, both.standby):
            with server.connect() as connection:
                assert connection.execute("SELECT a FROM kept ORDER BY a").fetchall() == [(0,), (1,), (2,)]
                assert scalar(connection, "SELECT pg_is_in_recovery()") is (server is both.standby)


def test_commit_waits_for_the_standby_only_where_that_is_synchronous() -> None:
    for synchronous in (True, False):
        with cluster(synchronous=synchronous) as both:
            insert(both, 0)
            both.standby.stop()
            with closing(both.primary.connect()) as connection, closing(both.primary.connect()) as other:
                done = threading.Thread(target=connection.execute, args=["INSERT INTO kept VALUES (1)"])
                done.start()
                if synchronous:
                    waiting = "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
                    while not scalar(other, waiting):
                        assert done.is_alive()
                    both.standby.start()
                done.join(TIMEOUT)
                assert not done.is_alive()
