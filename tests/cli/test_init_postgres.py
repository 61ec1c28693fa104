"""``sessiondb init-postgres``: tables that are made beforehand, by another role, in parts."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator

import psycopg
import pytest
from google.adk.events import Event, EventActions

from sessiondb import DatabaseSessionService
from sessiondb.errors import StorageError
from tests.cli.conftest import APP
from tests.command import run_sessiondb
from tests.postgres.server import Server

ROLE = 'app "role"'


@pytest.fixture
def role(postgres_server: Server, postgres_database: str) -> Iterator[str]:
    """The URL by which a role logs in that may create nothing."""
    with postgres_server.connect() as connection:
        connection.execute("""CREATE ROLE "app ""role""\" LOGIN""")
    yield postgres_database.replace("postgres@", "app%20%22role%22@")
    with postgres_server.connect(postgres_database.rpartition("/")[2]) as connection:
        connection.execute("""DROP OWNED BY "app ""role""\"; DROP ROLE "app ""role""\"""")


def say(number: int, **delta: object) -> Event:
    return Event(
        id=f"event {number}",
        invocation_id="i",
        author="user",
        timestamp=100.0 + number,
        actions=EventActions(state_delta=delta),
    )


async def use(url: str) -> None:
    """All that is written, by several users."""
    async with DatabaseSessionService(url) as service:
        users = [f"user {number}" for number in range(20)]
        for user_id in users:
            session = await service.create_session(APP, user_id, "s", {"n": 0, "user:n": 0, "app:n": 0})
            for number in range(3):
                await service.append_event(session, say(number, **{"n": number, "user:n": number, "app:n": number}))
            # Delivered again: stored once.
            await service.append_event(session, say(2, **{"n": 2, "user:n": 2, "app:n": 2}))
            await service.update_keys(APP, user_id, "s", {"user:n": None, "app:n": 5})
        await asyncio.gather(*(service.update_keys(APP, user_id, "s", {"app:n": 6}) for user_id in users))
        session = await service.create_session(APP, "gone", "s", {"n": 1})
        await service.append_event(session, say(1))
        await service.delete_session(APP, "gone", "s")
    async with DatabaseSessionService(url) as service:
        for user_id in users:
            found = await service.get_session(APP, user_id, "s")
            assert found is not None
            assert [event.id for event in found.events[:3]] == ["event 0", "event 1", "event 2"]
            assert (len(found.events), found.state) == (5, {"n": 2, "app:n": 6})
        stats = service.get_stats()
        assert (stats["sessions"], stats["events"]) == (20, 100)


def counted(connection: psycopg.Connection[tuple[object, ...]], query: str) -> object:
    row = connection.execute(query).fetchone()
    assert row is not None
    return row[0]


@pytest.mark.parametrize("schema", ["public", "theirs"])
@pytest.mark.parametrize("partitions", [0, 4])
def test_service_works_on_tables_made_beforehand(partitions: int, schema: str, postgres_database: str) -> None:
    options = ["--partitions", str(partitions), "--schema", schema]
    done = run_sessiondb("init-postgres", postgres_database, *options)
    shown = postgres_database if schema == "public" else f"{postgres_database}?schema={schema}"
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{shown}: created\n", "")
    again = run_sessiondb("init-postgres", shown, *options, "--json")
    assert json.loads(again.stdout) == {"path": shown, "schema": schema, "created": False, "granted_to": None}
    asyncio.run(use(shown))
    with psycopg.connect(postgres_database) as connection:
        parts = counted(connection, f"SELECT count(DISTINCT tableoid) FROM {schema}.adk_events")
        assert parts == (partitions or 1)
        # What is edited outside sessiondb is noticed.
        connection.execute(f"UPDATE {schema}.adk_events SET author = 'other' WHERE user_id = 'user 1'")
        assert counted(connection, f"SELECT log_epoch FROM {schema}.adk_sessions WHERE user_id = 'user 1'") == 1
        connection.execute(f"DELETE FROM {schema}.adk_sessions WHERE user_id = 'user 2'")
        assert counted(connection, f"SELECT count(*) FROM {schema}.adk_events WHERE user_id = 'user 2'") == 0
        assert counted(connection, f"SELECT count(*) FROM {schema}.adk_state WHERE session_id IS NOT NULL") == 19
    assert run_sessiondb("check", shown).returncode == 0
    pruned = run_sessiondb("prune", shown, "--older-than", "0s", "--json")
    assert len(pruned.stdout.splitlines()) == 19
    assert run_sessiondb("vacuum", shown).returncode == 0


def test_print_needs_no_server_and_does_the_same(postgres_database: str) -> None:
    nowhere = "postgresql://nobody:secret@127.0.0.1:1/none"
    done = run_sessiondb("init-postgres", nowhere, "--schema", "theirs", "--partitions", "3", "--print")
    assert (done.returncode, done.stderr) == (0, "")
    assert "secret" not in done.stdout
    with psycopg.connect(postgres_database, autocommit=True) as connection:
        connection.execute(done.stdout)
    asyncio.run(use(f"{postgres_database}?schema=theirs"))
    assert run_sessiondb("check", f"{postgres_database}?schema=theirs").returncode == 0


def test_role_that_creates_nothing_uses_tables_made_beforehand(postgres_database: str, role: str) -> None:
    with pytest.raises(StorageError, match="grants it needs"):
        asyncio.run(use(role))
    assert run_sessiondb("init-postgres", postgres_database).returncode == 0
    with pytest.raises(StorageError, match="grants it needs"):
        asyncio.run(use(role))
    done = run_sessiondb("init-postgres", postgres_database, "--grant", ROLE, "--json")
    assert json.loads(done.stdout)["granted_to"] == ROLE
    asyncio.run(use(role))
    for command in (["list"], ["stats"], ["check"], ["tail"], ["prune", "--older-than", "0s"]):
        assert (run_sessiondb(command[0], role, *command[1:])).returncode == 0, command


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["sqlite:///a.sqlite3"], "does not exist"),
        (["postgresql://h/db?schema=a", "--schema", "b"], "another schema"),
        (["postgresql://h/db", "--schema", "a b"], "cannot be a schema"),
        (["postgresql://h/db", "--partitions", "-1"], "not in the range"),
    ],
)
def test_wrong_words_are_usage_errors(words: list[str], says: str) -> None:
    done = run_sessiondb("init-postgres", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr


def silent_about(password: str, done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode in (1, 2)
    said = done.stdout + done.stderr
    assert said.count("Error: ") == 1
    assert password not in said


def test_password_is_in_no_message(postgres_server: Server) -> None:
    address = f"127.0.0.1:{postgres_server.port}"
    url = f"postgresql://someone:hunter2@{address}/none"
    for command in (["list"], ["check"], ["init-postgres"], ["backup", "other"], ["show", "x"], ["migrate", "other"]):
        silent_about("hunter2", run_sessiondb(command[0], url, *command[1:]))
    silent_about("hunter2", run_sessiondb("show", "x", SESSIONDB_PATH=url))
    for url in (
        f"postgresql://someone@{address}/none?password=hunter2",
        "postgresql://someone:hunter2@127.0.0.1:1/none",
        "postgresql://someone:hunter2@127.0.0.1:1/none?unheard=of",
        f"postgresql://someone:x@hunter2@{address}/none",
        f"postgresql://someone:hunter2/x@{address}/none",
        f"postgresql://someone:hunter2#x@{address}/none",
        f"postgresql://someone:hunter2?x=1@{address}/none",
        "postgresql://someone:hunter2@[127.0.0.1/none",
    ):
        silent_about("hunter2", run_sessiondb("list", url))
