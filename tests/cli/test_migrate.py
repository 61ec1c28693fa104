"""``sessiondb migrate``: from files that ADK's own services wrote, and to one that they read."""

from __future__ import annotations

import asyncio
import json
import pickle  # noqa: TID251  # what an old database of ADK holds
import sqlite3
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from google.adk.events import Event, EventActions
from google.adk.sessions import BaseSessionService, InMemorySessionService, Session
from google.adk.sessions.database_session_service import DatabaseSessionService as AdkDatabaseService
from google.adk.sessions.schemas import v0
from google.adk.sessions.sqlite_session_service import SqliteSessionService
from google.genai import types
from sqlalchemy import create_engine

from sessiondb import DatabaseSessionService
from sessiondb.errors import MigrationError
from sessiondb.transfer import MigrationReport, migrate_adk_file, migrate_memory, migrate_to_adk_sqlite
from tests.adk_warnings import ADKS_SQLITE
from tests.cli.conftest import APP, SESSION, USER, Look
from tests.command import run_sessiondb
from tests.full_models import full_event

pytestmark = ADKS_SQLITE

Opener: TypeAlias = Callable[[Path], Any]

ODD = '"it\'s" % _ $.a[0] \\ grün 日本 🤖 \x01'


@asynccontextmanager
async def adk_sqlite(path: Path) -> AsyncIterator[BaseSessionService]:
    service = SqliteSessionService(str(path))
    yield service
    await service.close()


@asynccontextmanager
async def adk_database(path: Path) -> AsyncIterator[BaseSessionService]:
    async with AdkDatabaseService(f"sqlite+aiosqlite:///{path}") as service:
        yield service


@asynccontextmanager
async def adk_pickled(path: Path) -> AsyncIterator[BaseSessionService]:
    # ADK's service goes on with the old tables where it finds them.
    engine = create_engine(f"sqlite:///{path}")
    v0.Base.metadata.create_all(engine)
    engine.dispose()
    async with AdkDatabaseService(f"sqlite+aiosqlite:///{path}") as service:
        yield service


def event(number: int, moment: float, **delta: object) -> Event:
    return Event(
        id=f"event {number}",
        invocation_id=f"inv {number}",
        author="agent" if number % 2 else "user",
        timestamp=moment,
        content=types.Content(role="model", parts=[types.Part(text=f"{number} {ODD}")]),
        actions=EventActions(state_delta=delta),
    )


async def converse(service: BaseSessionService) -> None:
    """Conversations of two apps, with state of all scopes."""
    state = {"float": 0.1 + 0.2, "deep": {"a": [1, None, ODD]}, "user:theme": "dark", "app:version": 1}
    session = await service.create_session(app_name=APP, user_id=USER, session_id=SESSION, state=state)
    for number in range(5):
        moment = 1_900_000_000 + number / 3
        await service.append_event(session, event(number, moment, n=number, **{"user:n": number, "app:n": number}))
    await service.create_session(app_name=APP, user_id=USER, session_id="no events")
    other = await service.create_session(app_name=ODD, user_id=ODD, session_id="other", state={ODD: ODD})
    await service.append_event(other, event(0, 1_900_000_000.000001))
    # Its state stays behind.
    await service.create_session(app_name=APP, user_id="gone", session_id="gone", state={"user:left": "behind"})
    await service.delete_session(app_name=APP, user_id="gone", session_id="gone")


async def sessions_of(service: BaseSessionService) -> dict[tuple[str, str, str], Session]:
    """What a service says of the conversations."""
    found = {}
    for app_name in (APP, ODD):
        for listed in (await service.list_sessions(app_name=app_name)).sessions:
            session = await service.get_session(app_name=app_name, user_id=listed.user_id, session_id=listed.id)
            assert session is not None
            found[app_name, listed.user_id, listed.id] = session
    return found


def dumped(sessions: dict[tuple[str, str, str], Session]) -> dict[tuple[str, str, str], dict[str, Any]]:
    return {key: session.model_dump() for key, session in sessions.items()}


def make(
    opener: Opener, path: Path, fill: Callable[[BaseSessionService], Awaitable[None]] = converse
) -> dict[Any, Any]:
    async def run() -> dict[Any, Any]:
        async with opener(path) as service:
            await fill(service)
        # Opened anew: what is in the file counts.
        async with opener(path) as service:
            return dumped(await sessions_of(service))

    return asyncio.run(run())


def read(path: Path) -> dict[Any, Any]:
    async def run() -> dict[Any, Any]:
        async with DatabaseSessionService(path) as service:
            assert await service.get_user_state(APP, "gone") in ({}, {"left": "behind"})
            return dumped(await sessions_of(service))

    return asyncio.run(run())


SOURCES = [
    pytest.param(adk_sqlite, id="SqliteSessionService"),
    pytest.param(adk_database, id="DatabaseSessionService"),
    pytest.param(adk_pickled, id="schema 0"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where sources are, and nothing else."""
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("opener", SOURCES)
def test_migrate_carries_all_and_leaves_source_untouched(
    opener: Opener, folder: Path, tmp_path: Path, fingerprint: Look
) -> None:
    source, target = folder / "adk.db", tmp_path / "new" / "target.sqlite3"
    expected = make(opener, source)
    before = fingerprint(folder)
    done = run_sessiondb("migrate", source, target, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {
        "sessions": 3,
        "events": 6,
        "present": 0,
        "verified": 3,
        "notes": [],
        "failures": [],
    }
    assert fingerprint(folder) == before
    assert list(before) == ["adk.db"]
    assert len(expected) == 3
    assert read(target) == expected

    async def user_state() -> dict[str, Any]:
        async with DatabaseSessionService(target) as service:
            return await service.get_user_state(APP, "gone")

    assert asyncio.run(user_state()) == {"left": "behind"}


@pytest.mark.parametrize("opener", SOURCES[:2])
def test_migrate_loses_no_field_of_an_event(opener: Opener, folder: Path, tmp_path: Path) -> None:
    async def fill(service: BaseSessionService) -> None:
        session = await service.create_session(app_name=APP, user_id=USER, session_id=SESSION)
        await service.append_event(session, full_event())

    source, target = folder / "adk.db", tmp_path / "target.sqlite3"
    expected = make(opener, source, fill)
    report = migrate_adk_file(source, target)
    assert report.failures == []
    (found,) = read(target).values()
    (session,) = expected.values()
    assert found["events"] == session["events"]
    # In ADK's services a key that is set to None holds it.
    assert found["state"] == session["state"]
    assert found["state"]["gone"] is None
    assert report.notes == []


@pytest.mark.parametrize("opener", SOURCES[:2])
def test_migrate_keeps_order_of_equal_timestamps(opener: Opener, folder: Path, tmp_path: Path) -> None:
    async def fill(service: BaseSessionService) -> None:
        session = await service.create_session(app_name=APP, user_id=USER, session_id=SESSION)
        for number in (3, 1, 2, 0):
            await service.append_event(session, event(number, 1_900_000_000.0))

    source, target = folder / "adk.db", tmp_path / "target.sqlite3"
    make(opener, source, fill)
    assert migrate_adk_file(source, target).verified == 1
    (session,) = read(target).values()
    assert [one["id"] for one in session["events"]] == ["event 3", "event 1", "event 2", "event 0"]


@pytest.mark.parametrize("opener", SOURCES[:2])
def test_migrate_keeps_creation_time(opener: Opener, folder: Path, tmp_path: Path) -> None:
    source, target = folder / "adk.db", tmp_path / "target.sqlite3"
    make(opener, source)
    migrate_adk_file(source, target)
    with closing(sqlite3.connect(source)) as connection:
        (created,) = connection.execute("SELECT create_time FROM sessions WHERE id = 'no events'").fetchone()
    if isinstance(created, float):
        created = str(datetime.fromtimestamp(created, UTC).replace(tzinfo=None))
    with closing(sqlite3.connect(target)) as connection:
        statement = "SELECT created_at, updated_at FROM adk_sessions WHERE session_id = 'no events'"
        assert connection.execute(statement).fetchone() == (f"{created.replace(' ', 'T')}Z",) * 2


def test_migrate_resumes_after_interruption(folder: Path, tmp_path: Path) -> None:
    source, target = folder / "adk.db", tmp_path / "target.sqlite3"
    expected = make(adk_sqlite, source)
    carried = 0

    def interrupt(sessions: int) -> None:
        nonlocal carried
        carried += sessions
        if carried == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        migrate_adk_file(source, target, advance=interrupt)
    assert len(read(target)) == 2
    report = migrate_adk_file(source, target)
    assert (report.sessions, report.present, report.verified, report.failures) == (1, 2, 3, [])
    assert read(target) == expected
    again = migrate_adk_file(source, target)
    assert (again.sessions, again.present, again.verified, again.failures) == (0, 3, 3, [])


def test_migrate_reports_conflicting_session_of_target(folder: Path, tmp_path: Path) -> None:
    source, target = folder / "adk.db", tmp_path / "target.sqlite3"
    make(adk_sqlite, source)

    async def occupy() -> None:
        async with DatabaseSessionService(target) as service:
            await service.create_session(APP, USER, SESSION, {"mine": 1, "app:version": "mine"})

    asyncio.run(occupy())
    done = run_sessiondb("migrate", source, target, "--json")
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert (report["sessions"], report["present"], report["verified"]) == (2, 1, 2)
    assert len(report["failures"]) == 2
    assert report["failures"][0] == f"1 keys of app {APP!r} have another value in the target, which stays"
    assert report["failures"][1].startswith(f"session {SESSION!r} of user {USER!r}, app {APP!r} differs: ")
    assert "5 events in the source, 0 in the target" in report["failures"][1]
    assert read(target)[APP, USER, SESSION]["state"]["mine"] == 1


def test_migrate_reports_corrupt_rows_and_carries_the_rest(folder: Path, tmp_path: Path) -> None:
    source, target = folder / "adk.db", tmp_path / "target.sqlite3"
    make(adk_sqlite, source)
    with closing(sqlite3.connect(source)) as connection:
        connection.execute("UPDATE events SET event_data = '{\"author\": 1}' WHERE id = 'event 3'")
        connection.execute("UPDATE sessions SET state = 'nonsense' WHERE id = 'no events'")
        connection.execute("UPDATE user_states SET state = '[1]' WHERE user_id = 'gone'")
        connection.commit()
    done = run_sessiondb("migrate", source, target)
    assert done.returncode == 1
    assert done.stderr == "Error: 3 things were not carried, or differ; the report names them\n"
    lines = done.stdout.splitlines()
    assert [line.split() for line in lines[:4]] == [
        ["sessions", "1"],
        ["events", "1"],
        ["present", "0"],
        ["verified", "1"],
    ]
    assert [line.split(" was not carried")[0] for line in lines[4:]] == [
        f"failure: the state of user 'gone' of app {APP!r}",
        f"failure: session 'no events' of user {USER!r}, app {APP!r}",
        f"failure: session {SESSION!r} of user {USER!r}, app {APP!r}",
    ]
    assert list(read(target)) == [(ODD, ODD, "other")]


def test_migrate_runs_no_pickle_code(folder: Path, tmp_path: Path) -> None:
    source, target, trace = folder / "adk.db", tmp_path / "target.sqlite3", tmp_path / "trace"
    make(adk_pickled, source)

    class Payload:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (trace,)

    with closing(sqlite3.connect(source)) as connection:
        payload = pickle.dumps(Payload())
        connection.execute("UPDATE events SET actions = ? WHERE id = 'event 3'", (payload,))
        connection.commit()
    report = migrate_adk_file(source, target)
    assert not trace.exists()
    assert (report.sessions, report.events) == (3, 6)
    (failure,) = report.failures
    assert failure.startswith("ADK's own migration says: Failed to unpickle actions for event event 3")


def test_migrate_in_memory_service_into_open_database(tmp_path: Path) -> None:
    target = tmp_path / "target.sqlite3"

    async def run() -> MigrationReport:
        memory = InMemorySessionService()
        await converse(memory)
        async with DatabaseSessionService(target) as service:
            report = migrate_memory(memory, target)
            assert dumped(await sessions_of(service)) == dumped(await sessions_of(memory))
            assert await service.get_user_state(APP, "gone") == {"left": "behind"}
        return report

    report = asyncio.run(run())
    assert (report.sessions, report.events, report.verified) == (3, 6, 3)
    assert (report.notes, report.failures) == ([], [])


def test_migrate_notes_values_that_are_not_json(tmp_path: Path) -> None:
    async def run() -> None:
        memory = InMemorySessionService()
        moment = datetime(2026, 1, 2, tzinfo=UTC)
        session = await memory.create_session(app_name=APP, user_id=USER, session_id=SESSION, state={"when": moment})
        await memory.append_event(session, event(1, 1_900_000_000.0, tags={"b", "a"}))
        report = migrate_memory(memory, tmp_path / "target.sqlite3")
        assert (report.verified, report.failures) == (1, [])
        assert [note.partition(" holds ")[2] for note in report.notes] == [
            "values that JSON has not; they are stored as ADK stores them"
        ]

    asyncio.run(run())
    (session,) = read(tmp_path / "target.sqlite3").values()
    assert session["state"] == {"when": "2026-01-02T00:00:00Z", "tags": ["a", "b"]}


def test_migrate_to_adk_and_back_is_equal(folder: Path, tmp_path: Path, fingerprint: Look) -> None:
    source, adk, again = folder / "source.sqlite3", tmp_path / "adk.db", tmp_path / "again.sqlite3"

    async def fill() -> None:
        async with DatabaseSessionService(source, none_in_delta="store") as service:
            await converse(service)
            session = await service.get_session(APP, USER, "no events")
            assert session is not None
            await service.append_event(session, full_event())

    asyncio.run(fill())
    expected = read(source)
    before = fingerprint(folder)
    done = run_sessiondb("migrate", source, adk, "--to", "adk-sqlite", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert (report["sessions"], report["events"], report["verified"]) == (3, 7, 3)
    assert (report["notes"], report["failures"]) == ([], [])
    assert fingerprint(folder) == before
    assert adk.stat().st_mode & 0o777 == 0o600

    async def by_adk() -> dict[Any, Any]:
        async with adk_sqlite(adk) as service:
            found = dumped(await sessions_of(service))
            session = await service.get_session(app_name=APP, user_id=USER, session_id=SESSION)
            assert session is not None
            await service.append_event(session, event(9, 2_000_000_000.0, more=1))
            return found

    assert asyncio.run(by_adk()) == expected
    resumed = migrate_to_adk_sqlite(source, adk)
    assert (resumed.sessions, resumed.present, resumed.verified, len(resumed.failures)) == (0, 3, 2, 1)
    assert migrate_adk_file(adk, again).failures == []

    def mentions(path: Path, table: str, column: str) -> int:
        with closing(sqlite3.connect(path)) as connection:
            count: int
            (count,) = connection.execute(
                f"SELECT count(*) FROM {table} WHERE instr({column}, 'stored_none')"
            ).fetchone()
            return count

    # None is a value in ADK's services always, and is told from a deletion here only.
    assert mentions(source, "adk_events", "extra") == mentions(again, "adk_events", "extra") == 1
    assert mentions(adk, "events", "event_data") == 0


def test_migrate_to_adk_reports_conflicting_state(tmp_path: Path) -> None:
    source, adk = tmp_path / "source.sqlite3", tmp_path / "adk.db"

    async def fill() -> None:
        async with DatabaseSessionService(source) as service:
            await service.create_session(APP, USER, SESSION, {"user:theme": "dark", "app:version": 1})
        async with adk_sqlite(adk) as theirs:
            await theirs.create_session(app_name=APP, user_id=USER, session_id="x", state={"user:theme": "light"})

    asyncio.run(fill())
    report = migrate_to_adk_sqlite(source, adk)
    assert (report.sessions, report.verified) == (1, 1)
    assert report.failures == [f"1 keys of user {USER!r} of app {APP!r} have another value in the target, which stays"]


def test_migrate_to_adk_reports_what_adk_cannot_hold(tmp_path: Path) -> None:
    source, adk = tmp_path / "source.sqlite3", tmp_path / "adk.db"

    async def fill() -> None:
        async with DatabaseSessionService(source) as service:
            session = await service.create_session(APP, USER, SESSION)
            await service.append_event(session, event(1, 2000.0))
            await service.append_event(session, event(2, 1000.0))
            await service.append_event(session, event(1, 3000.0))

    asyncio.run(fill())
    report = migrate_to_adk_sqlite(source, adk)
    named = f"session {SESSION!r} of user {USER!r}, app {APP!r}"
    assert report.events == 2
    assert report.notes == [f"1 events of {named} are dated before the one they follow: ADK sorts by date"]
    assert report.failures == [
        f"1 events of {named} were not carried: ADK keeps one event of an id",
        f"{named} differs: 3 events in the source, 2 in the target",
    ]


@pytest.mark.parametrize("options", [[], ["--to", "adk-sqlite"]])
def test_migrate_refuses_wrong_files_in_one_line(
    options: list[str], database: Path, folder: Path, tmp_path: Path, fingerprint: Look
) -> None:
    adk = folder / "adk.db"
    make(adk_sqlite, adk)
    notes = folder / "notes.txt"
    notes.write_bytes(b"not a database, but long enough to look at" * 100)
    (folder / "empty").touch()
    ours, theirs = (adk, database) if options else (database, adk)
    before = fingerprint(folder), fingerprint(database.parent)
    for source, target in [
        *([(ours, tmp_path / "new")] if options else []),
        (ours, ours),
        (notes, tmp_path / "new"),
        (folder / "empty", tmp_path / "new"),
        (theirs, notes),
        (theirs, theirs),
    ]:
        done = run_sessiondb("migrate", source, target, *options)
        assert (done.returncode, done.stdout) == (1, ""), (source, target)
        assert done.stderr.startswith("Error: ")
        assert len(done.stderr.splitlines()) == 1
    assert (fingerprint(folder), fingerprint(database.parent)) == before
    assert not (tmp_path / "new").exists()


def test_migrate_does_not_carry_padded_ids(folder: Path, tmp_path: Path) -> None:
    async def fill(service: BaseSessionService) -> None:
        await service.create_session(app_name=APP, user_id=USER, session_id=" padded ")
        await service.create_session(app_name=APP, user_id=USER, session_id="plain")

    source, target = folder / "adk.db", tmp_path / "target.sqlite3"
    make(adk_database, source, fill)
    report = migrate_adk_file(source, target)
    assert (report.sessions, report.verified) == (1, 1)
    assert report.failures == [
        f"session ' padded ' of user {USER!r}, app {APP!r} was not carried: its id has spaces around it, which sessiondb strips"
    ]


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        ("UPDATE adk_internal_metadata SET value = '2'", "has a schema of ADK that is not known"),
        ("UPDATE sessions SET create_time = 'never'", "'never' stands where a time belongs"),
    ],
)
def test_migrate_refuses_unknown_adk_schema_in_one_line(
    damage: str, problem: str, folder: Path, tmp_path: Path
) -> None:
    source = folder / "adk.db"
    make(adk_database, source)
    with closing(sqlite3.connect(source)) as connection:
        connection.execute(damage)
        connection.commit()
    done = run_sessiondb("migrate", source, tmp_path / "target.sqlite3")
    assert (done.returncode, done.stdout) == (1, "")
    assert problem in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_migrate_names_missing_sqlalchemy(
    database: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = folder / "adk.db"
    make(adk_pickled, source)
    monkeypatch.setitem(sys.modules, "google.adk.sessions.migration.migration_runner", None)
    monkeypatch.delattr("google.adk.sessions.migration.migration_runner", raising=False)
    with pytest.raises(MigrationError, match="needs SQLAlchemy"):
        migrate_adk_file(source, tmp_path / "target.sqlite3")
    monkeypatch.setitem(sys.modules, "google.adk.sessions.sqlite_session_service", None)
    with pytest.raises(MigrationError, match="SqliteSessionService cannot be imported"):
        migrate_to_adk_sqlite(database, tmp_path / "adk.db")


def test_migrate_to_adk_skips_session_with_corrupt_event(database: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("UPDATE adk_events SET content = '[1]' WHERE seq = 2")
        connection.commit()
    report = migrate_to_adk_sqlite(database, tmp_path / "adk.db")
    assert (report.sessions, report.verified) == (2, 2)
    (failure,) = report.failures
    assert failure.startswith(f"session {SESSION!r} of user {USER!r}, app {APP!r} was not carried: row 2 of adk_events")
