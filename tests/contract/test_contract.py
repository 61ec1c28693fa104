"""The cases of the table, in each of the services."""

from __future__ import annotations

import inspect
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from sessiondb import DatabaseSessionService
from sessiondb.errors import UnsupportedDatabaseError
from tests.adk_warnings import ADKS_SQLITE
from tests.contract import handles, logs, sessions, state
from tests.contract.places import KINDS, Kind, Place
from tests.contract.table import HANDLES, TABLE, Row
from tests.loops import UVLOOP

pytestmark = ADKS_SQLITE


@pytest.mark.anyio
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
async def test_contract_case_has_the_result_in_the_table(row: Row, kind: Kind, request: pytest.FixtureRequest) -> None:
    location = request.getfixturevalue("postgres_database" if kind == "postgres" else "database_path")
    async with Place(kind, location) as place:
        assert await row.case(place) == row.expected[kind]


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", [UVLOOP])
@pytest.mark.parametrize("row", HANDLES, ids=lambda row: row.name)
async def test_contract_case_has_the_same_result_on_uvloop(row: Row, database_path: Path) -> None:
    """The cases in which most goes on at the same time; the loops themselves: ``tests/engine/test_event_loops``."""
    async with Place("sessiondb", database_path) as place:
        assert await row.case(place) == row.expected["sessiondb"]


def dump(path: Path) -> str:
    with closing(sqlite3.connect(path)) as connection:
        return "\n".join(connection.iterdump())


@pytest.mark.anyio
async def test_file_of_adk_sqlite_service_is_refused_untouched(database_path: Path) -> None:
    async with Place("sqlite", database_path) as place:
        await place.create()
    before = dump(database_path)
    with pytest.raises(UnsupportedDatabaseError, match="of another program"):
        DatabaseSessionService(database_path)
    assert dump(database_path) == before


def test_contract_table_has_every_case_once() -> None:
    written = [
        name
        for module in (sessions, logs, state, handles)
        for name, function in inspect.getmembers(module, inspect.iscoroutinefunction)
        if function.__module__ == module.__name__ and not name.startswith("_")
    ]
    assert sorted(written) == sorted(row.name for row in TABLE)
