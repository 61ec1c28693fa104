"""A server that dies, ends connections, is silent, or has no space left; and a network that fails."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest
from psycopg import sql

from sessiondb import DatabaseSessionService
from sessiondb.errors import OutcomeUnknownError, ServerUnreachableError, WriteFailedError
from tests.faults.figures import Figures
from tests.faults.postgres.clients import APP, REFUSALS, make_event
from tests.faults.postgres.judge import assert_sound
from tests.faults.postgres.load import BATCH, Load
from tests.faults.sizes import sized
from tests.faults.zygote import Zygote
from tests.postgres.proxy import Cut, Proxy, proxy
from tests.postgres.server import TIMEOUT, Server

_HOSTS = "FROM pg_stat_activity WHERE application_name = 'sessiondb' AND state = 'active'"


def test_server_killed_under_load_loses_nothing(
    hosts: Zygote, harmed_server: Server, tmp_path: Path, rng: random.Random, figures: Figures
) -> None:
    kills = sized(3, 50)
    url = harmed_server.fresh_database()
    with Load(hosts, tmp_path, url) as load:
        load.start(2)
        for _ in range(kills):
            load.wait_for(rng.randrange(5, 100))
            harmed_server.kill(everything=rng.random() < 0.5)
            harmed_server.start()
        load.wait_for(10)
        load.stop()
    assert_sound(url, load.acknowledged, load.refused)
    figures("server killed", kills=kills, acknowledged=load.total, lost=0, twice=0, **load.figures)


@pytest.mark.parametrize("what", ["pg_terminate_backend", "pg_cancel_backend"])
def test_ended_connections_and_cancelled_statements_cost_nothing(
    hosts: Zygote, harmed_server: Server, tmp_path: Path, figures: Figures, what: LiteralString
) -> None:
    goal = sized(20, 200)
    url = harmed_server.fresh_database()
    done = 0
    with Load(hosts, tmp_path, url) as load, psycopg.connect(url, autocommit=True) as connection:
        load.start(2)
        load.wait_for(1)
        while done < goal:
            row = connection.execute(f"SELECT count(*) FILTER (WHERE {what}(pid)) {_HOSTS}").fetchone()
            assert row is not None
            done += row[0]
            load.wait_for(1)
        load.stop()
    assert_sound(url, load.acknowledged, load.refused)
    figures(what, times=done, acknowledged=load.total, lost=0, twice=0, **load.figures)


def test_cut_connections_cost_nothing(
    hosts: Zygote, harmed_server: Server, tmp_path: Path, rng: random.Random, figures: Figures
) -> None:
    cuts = sized(25, 250)
    url = harmed_server.fresh_database()
    with proxy(url) as between, Load(hosts, tmp_path, between.url) as load:
        load.start(2, creates=1)
        for number in range(cuts):
            where = list(Cut)[number % len(Cut)]
            assert between.cut(where, larger_than=BATCH).wait(TIMEOUT), "nobody sends anything"
            load.wait_for(rng.randrange(1, 5))
        load.stop()
    assert_sound(url, load.acknowledged, load.refused)
    figures("connections cut", cuts=cuts, acknowledged=load.total, lost=0, twice=0, **load.figures)


# --- Silence ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("silent", ["network", "server"])
def test_silence_is_an_unknown_outcome_and_the_event_appended_again_is_stored_once(
    harmed_server: Server, figures: Figures, silent: str
) -> None:
    rounds = sized(2, 20)
    url = harmed_server.fresh_database()

    async def main(between: Proxy) -> list[str]:
        @contextmanager
        def silence() -> Iterator[None]:
            if silent == "network":
                between.freeze()
                yield
                between.release()
            else:
                with stopped_backends(url):
                    yield

        async with DatabaseSessionService(between.url, busy_timeout=0.2) as service:
            session = await service.create_session(app_name=APP, user_id="user", session_id="session")
            for n in range(rounds):
                event = make_event("session", n)
                with silence(), pytest.raises(OutcomeUnknownError):
                    await service.append_event(session, event)
                while True:
                    read = await service.get_session(app_name=APP, user_id="user", session_id="session")
                    assert read is not None
                    try:
                        await service.append_event(read, event)
                    except OutcomeUnknownError:
                        continue
                    break
                read = await service.get_session(app_name=APP, user_id="user", session_id="session")
                assert read is not None
                session = read
                assert [each.id for each in session.events] == [f"session/{each}" for each in range(n + 1)]
            assert service.get_stats()["settled_batches"] >= rounds
            return [event.id for event in session.events]

    with proxy(url) as between:
        events = asyncio.run(main(between))
    assert_sound(url, {"session": events})
    figures(f"silence of the {silent}", times=rounds, unknown=rounds, settled=rounds, lost=0, twice=0)


@contextmanager
def stopped_backends(url: str) -> Iterator[None]:
    """Stops the server's processes that serve a database, as a computer that hangs would."""
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "SELECT pid FROM pg_stat_activity WHERE application_name = 'sessiondb' AND datname = current_database()"
        ).fetchall()
    for (pid,) in rows:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for (pid,) in rows:
            os.kill(pid, signal.SIGCONT)


def test_requests_that_arrive_late_change_nothing(harmed_server: Server, figures: Figures) -> None:
    """A batch, and the question what became of it, reach the server when the host has long gone on.

    Seen failing while such a question took the ledger back to where it was when it was asked.
    """
    rounds = sized(2, 20)
    url = harmed_server.fresh_database()

    async def main(between: Proxy) -> list[str]:
        async with DatabaseSessionService(between.url, busy_timeout=0.2) as service:
            session = await service.create_session(app_name=APP, user_id="user", session_id="session")
            for n in range(0, 4 * rounds, 4):
                event = make_event("session", n)
                between.delay(event.id.encode())
                with pytest.raises(OutcomeUnknownError):
                    await service.append_event(session, event)
                between.delay(b"WITH old AS")
                with pytest.raises(ServerUnreachableError):
                    await service.append_event(session, event)
                for step in range(3):
                    await service.append_event(session, make_event("session", n + step))
                between.deliver()
                await service.append_event(session, make_event("session", n + 3))
            return [event.id for event in session.events]

    with proxy(url) as between:
        events = asyncio.run(main(between))
    assert len(events) == 4 * rounds
    assert_sound(url, {"session": events})
    figures("requests that arrive late", batches=rounds, questions=rounds, lost=0, twice=0)


def test_silent_host_in_the_url_is_passed_over(harmed_server: Server) -> None:
    """Whoever waits for the first of two hosts still has time for the second. Seen failing while it had none."""
    url = harmed_server.fresh_database()
    database = url.rpartition("/")[2]
    event = make_event("session", 0)

    async def create() -> None:
        async with DatabaseSessionService(url) as service:
            await service.create_session(app_name=APP, user_id="user", session_id="session")

    async def append(service: DatabaseSessionService) -> None:
        session = await service.get_session(app_name=APP, user_id="user", session_id="session")
        assert session is not None
        await service.append_event(session, event)

    async def main(port: int) -> None:
        both = f"postgresql://postgres@127.0.0.1:{port},127.0.0.1:{harmed_server.port}/{database}"
        # Longer than the computer may need for a statement, and shorter than libpq waits for a host.
        async with DatabaseSessionService(both, busy_timeout=1.5) as service:
            harmed_server.terminate_backends(database)
            for _ in range(5):
                with suppress(OutcomeUnknownError, *REFUSALS):
                    await append(service)
                    return
        pytest.fail("no attempt succeeds")

    asyncio.run(create())
    # The system takes connections for it, and nobody ever answers.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        asyncio.run(main(silent.getsockname()[1]))
    assert_sound(url, {"session": [event.id]})


# --- A full disk ------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(harmed_server: Server) -> Iterator[Path]:
    """A folder on a small file system of its own."""
    folder = harmed_server.folder / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", folder],  # noqa: S607  # wherever it is
        capture_output=True,
        check=False,
    )
    if mounted.returncode != 0:
        folder.rmdir()
        pytest.skip("NOT SHOWN HERE: no small file system can be mounted")
    shutil.chown(folder, harmed_server.data.owner())
    yield folder
    subprocess.run(["umount", folder], check=True)  # noqa: S607  # as above
    folder.rmdir()


def fill(ballast: Path) -> None:
    """Leaves no space where a file is."""
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(1 << 16))


def test_full_disk_refuses_and_goes_on_when_there_is_space(
    harmed_server: Server, small_disk: Path, figures: Figures
) -> None:
    with harmed_server.connect() as connection:
        connection.execute(sql.SQL("CREATE TABLESPACE small LOCATION {}").format(sql.Literal(str(small_disk))))
        connection.execute("CREATE DATABASE small TABLESPACE small STRATEGY file_copy")
    url = harmed_server.url("small")
    rounds = sized(2, 10)

    async def main() -> tuple[list[str], int]:
        acknowledged: list[str] = []
        refused = 0
        ballast = small_disk / "ballast"
        async with DatabaseSessionService(url) as service:
            session = await service.create_session(app_name=APP, user_id="user", session_id="session")
            for _ in range(rounds):
                fill(ballast)
                while True:
                    event = make_event("session", len(acknowledged))
                    try:
                        await service.append_event(session, event)
                    except WriteFailedError:
                        refused += 1
                        break
                    acknowledged.append(event.id)
                # Reads are answered meanwhile.
                read = await service.get_session(app_name=APP, user_id="user", session_id="session")
                assert read is not None
                assert [each.id for each in read.events] == acknowledged
                ballast.unlink()
                await service.append_event(session, event)
                acknowledged.append(event.id)
        return acknowledged, refused

    try:
        acknowledged, refused = asyncio.run(main())
        assert_sound(url, {"session": acknowledged})
    finally:
        harmed_server.drop_database("small")
        with harmed_server.connect() as connection:
            connection.execute("DROP TABLESPACE small")
    figures("disk of the server full", times=rounds, acknowledged=len(acknowledged), refused=refused, lost=0)
