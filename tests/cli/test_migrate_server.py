"""``sessiondb migrate``: between files and servers, and from ADK's own tables on a server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy
from google.adk.sessions import BaseSessionService
from google.adk.sessions.database_session_service import DatabaseSessionService as AdkDatabaseService
from google.adk.sessions.schemas import v0
from sqlalchemy import create_engine

from sessiondb import DatabaseSessionService
from sessiondb.location import Database, resolve_location
from sessiondb.transfer import migrate_sessiondb
from tests.adk_warnings import ADKS_SQLITE
from tests.cli.conftest import APP, SESSION, USER
from tests.cli.test_migrate import Opener, event, make, read
from tests.cli.test_transfer import fill, tables
from tests.command import run_sessiondb

pytestmark = ADKS_SQLITE


def place(text: str | Path) -> Database:
    found = resolve_location(text)
    assert found is not None
    return found


def migrated(source: str | Path, target: str | Path) -> dict[str, Any]:
    done = run_sessiondb("migrate", source, target, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    report: dict[str, Any] = json.loads(done.stdout)
    return report


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rich") / "rich.sqlite3"
    asyncio.run(fill(path))
    return path


def test_migrate_to_server_to_server_and_back_is_equal(rich: Path, postgres_database: str, tmp_path: Path) -> None:
    whole = {"sessions": 3, "events": 9, "present": 0, "verified": 3, "notes": [], "failures": []}
    second, back = f"{postgres_database}?schema=second", tmp_path / "back.sqlite3"
    for source, target in ((rich, postgres_database), (postgres_database, second), (second, back)):
        assert migrated(source, target) == whole
    assert tables(postgres_database) == tables(back) == tables(rich)
    # As often as wanted.
    assert migrated(rich, postgres_database) == {**whole, "sessions": 0, "events": 0, "present": 3}
    assert tables(postgres_database) == tables(rich)


def test_migrate_resumes_on_a_server(rich: Path, postgres_database: str) -> None:
    target = place(postgres_database)
    carried = 0

    def interrupt(sessions: int) -> None:
        nonlocal carried
        carried += sessions
        if carried == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        migrate_sessiondb(rich, target, advance=interrupt)
    assert len(tables(postgres_database)["sessions"]) == 2
    report = migrate_sessiondb(rich, target)
    assert (report.sessions, report.present, report.verified, report.failures) == (1, 2, 3, [])
    assert tables(postgres_database) == tables(rich)


def test_migrate_reports_what_differs_on_a_server(rich: Path, postgres_database: str) -> None:
    async def occupy() -> None:
        async with DatabaseSessionService(postgres_database) as service:
            session = await service.create_session(APP, USER, SESSION, {"mine": 1, "user:u": "mine"})
            await service.append_event(session, event(1, 1.0))

    asyncio.run(occupy())
    before = tables(postgres_database)
    report = migrate_sessiondb(rich, place(postgres_database))
    assert (report.sessions, report.present, report.verified) == (2, 1, 2)
    scope, session = report.failures
    assert scope == f"1 keys of user {USER!r} of app {APP!r} have another value in the target, which stays"
    assert session.startswith(f"session {SESSION!r} of user {USER!r}, app {APP!r} differs: the time of its creation;")
    assert "the state" in session
    assert "9 events" in session
    after = tables(postgres_database)
    assert [row for row in after["events"] if row[2] == SESSION] == before["events"]


def test_migrate_names_what_postgresql_cannot_hold_and_carries_the_rest(tmp_path: Path, postgres_database: str) -> None:
    path = tmp_path / "a.sqlite3"
    huge = "".join(chr(0x4E00 + number * 7919 % 20000) for number in range(1300))

    async def make_both() -> None:
        async with DatabaseSessionService(path) as service:
            await service.create_session(APP, USER, "good", {"k": "\0"})
            await service.create_session(APP, USER, "bad", {huge: 1})

    asyncio.run(make_both())
    report = migrate_sessiondb(path, place(postgres_database))
    assert (report.sessions, report.verified) == (1, 1)
    (failure,) = report.failures
    assert failure.startswith(f"session 'bad' of user {USER!r}, app {APP!r} was not carried: ")
    exported = tmp_path / "a.jsonl"
    assert run_sessiondb("export", path, "-o", exported).returncode == 0
    done = run_sessiondb("import", exported, postgres_database, "--skip-existing")
    assert (done.returncode, done.stdout) == (1, "")
    assert "2,600 bytes" in done.stderr


# --- From ADK's tables ------------------------------------------------------------------------------------------------


def adk_url(url: str) -> str:
    return url.replace("postgresql:", "postgresql+psycopg:", 1)


@asynccontextmanager
async def adk_database(url: str) -> AsyncIterator[BaseSessionService]:
    async with AdkDatabaseService(adk_url(url)) as service:
        yield service


@asynccontextmanager
async def adk_pickled(url: str) -> AsyncIterator[BaseSessionService]:
    engine = create_engine(adk_url(url))
    v0.Base.metadata.create_all(engine)
    engine.dispose()
    async with AdkDatabaseService(adk_url(url)) as service:
        yield service


_PSYCOPG_IS_THE_DEFAULT = tuple(map(int, sqlalchemy.__version__.split(".")[:2])) >= (2, 1)

SOURCES = [
    pytest.param(adk_database, id="schema 1"),
    pytest.param(
        adk_pickled,
        id="schema 0",
        marks=pytest.mark.skipif(not _PSYCOPG_IS_THE_DEFAULT, reason="ADK's own migration would take psycopg2"),
    ),
]


def everything(url: str) -> list[Any]:
    with closing(psycopg.connect(url)) as connection:
        return [
            connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall()
            for table in ("sessions", "events", "app_states", "user_states")
        ]


@pytest.mark.parametrize("opener", SOURCES)
def test_migrate_from_adk_on_server_carries_all(opener: Opener, postgres_database: str, tmp_path: Path) -> None:
    expected = make(opener, postgres_database)  # type: ignore[arg-type]  # an opener of a URL
    assert len(expected) == 3
    before = everything(postgres_database)
    counts = {"sessions": 3, "events": 6, "present": 0, "verified": 3, "notes": [], "failures": []}
    # The same schema may hold both, and the URL says whose tables are meant.
    for target in (tmp_path / "target.sqlite3", f"{postgres_database}?schema=ours", postgres_database):
        assert migrated(adk_url(postgres_database), target) == counts
        assert read(target) == expected  # type: ignore[arg-type]  # or a URL
        again = migrated(adk_url(postgres_database), target)
        assert (again["present"], again["verified"]) == (3, 3)
    assert everything(postgres_database) == before


def test_migrate_from_adk_on_server_finds_its_schema(postgres_database: str, tmp_path: Path) -> None:
    with psycopg.connect(postgres_database) as connection:
        connection.execute("CREATE SCHEMA theirs")
    in_schema = f"{postgres_database}?options=-csearch_path%3Dtheirs"
    expected = make(adk_database, in_schema)  # type: ignore[arg-type]  # an opener of a URL
    done = run_sessiondb("migrate", postgres_database, tmp_path / "a.sqlite3")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"Error: {postgres_database} is not a session database of ADK\n"
    assert not (tmp_path / "a.sqlite3").exists()
    migrated(f"{postgres_database}?schema=theirs", tmp_path / "a.sqlite3")
    assert read(tmp_path / "a.sqlite3") == expected


def test_migrate_from_adk_on_server_keeps_the_order_of_adk(postgres_database: str, tmp_path: Path) -> None:
    async def talk(service: BaseSessionService) -> None:
        session = await service.create_session(app_name=APP, user_id=USER, session_id=SESSION)
        for number in (3, 1, 2, 0):
            await service.append_event(session, event(number, 1_900_000_000.0))

    expected = make(adk_database, postgres_database, talk)  # type: ignore[arg-type]  # an opener of a URL
    migrated(postgres_database, tmp_path / "a.sqlite3")
    assert read(tmp_path / "a.sqlite3") == expected


def test_migrate_takes_a_url_of_sqlalchemy(postgres_database: str, tmp_path: Path) -> None:
    make(adk_database, postgres_database)  # type: ignore[arg-type]  # an opener of a URL
    url = postgres_database.replace("postgresql:", "postgresql+asyncpg:") + "?ssl=disable"
    assert migrated(url, tmp_path / "a.sqlite3")["verified"] == 3
