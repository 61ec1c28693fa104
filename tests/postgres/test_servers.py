"""The servers that the other tests stand on: what starts, stops, dies and comes back."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest

from tests.postgres.server import Mode, Server, server


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
