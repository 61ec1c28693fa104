"""Files of every version that was ever released are read as they were then."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from sessiondb import DatabaseSessionService
from sessiondb.adk.events import decode_event
from sessiondb.stores.sqlite import schema
from sessiondb.stores.sqlite.repair.check import check
from tests.sqlite.schema import frozen

pytestmark = pytest.mark.anyio

VERSIONS = range(1, schema.SCHEMA_VERSION + 1)


def test_every_schema_version_is_frozen_and_upgradable() -> None:
    assert sorted(frozen.FOLDER.glob("version_*.sql")) == [frozen.FOLDER / f"version_{n}.sql" for n in VERSIONS]
    assert sorted(schema.PRESENT.steps) == list(VERSIONS[:-1])


@pytest.mark.parametrize("version", VERSIONS)
async def test_frozen_schema_file_is_read_as_it_was(version: int, database_path: Path) -> None:
    frozen.load(version, database_path)
    recorded = frozen.recorded(version)
    assert len(recorded["sessions"]) == 4
    assert await frozen.read(database_path) == recorded
    # And conversations go on, up to what a check finds sound.
    async with DatabaseSessionService(database_path) as service:
        for each in recorded["sessions"]:
            await service.update_keys(each["app_name"], each["user_id"], each["id"], {"later": True})
        created = await service.create_session("my_app", "user_123", "later")
        assert created.state["user:theme"] == "dark"
    report = check(database_path, decode_event)
    assert report.is_sound, report.findings
    assert (report.sessions, report.events) == (
        5,
        sum(len(each.get("events", ())) + 1 for each in recorded["sessions"]),
    )


def objects(path: Path) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name").fetchall()


@pytest.mark.parametrize("version", VERSIONS)
async def test_upgraded_schema_equals_that_of_new_file(version: int, tmp_path: Path) -> None:
    """Whoever changes the tables must raise the version, or this fails for the present one."""
    old, new = tmp_path / "old.sqlite3", tmp_path / "new.sqlite3"
    frozen.load(version, old)
    for path in (old, new):
        async with DatabaseSessionService(path):
            pass
    assert objects(old) == objects(new)
