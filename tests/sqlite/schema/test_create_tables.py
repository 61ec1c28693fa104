"""Creating the tables: all or none, by one process."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from sessiondb import DatabaseSessionService
from sessiondb.errors import WriteFailedError
from sessiondb.stores.sqlite import schema
from sessiondb.stores.sqlite.connection import enter_wal_mode
from tests.engine.tools import create, other_program
from tests.sqlite.schema.interrupted import connect
from tests.sqlite.schema.rows import rows

pytestmark = pytest.mark.anyio


def test_create_tables_when_other_process_was_first(database_path: Path) -> None:
    def let_another_be_first(statement: str) -> None:
        if statement == "BEGIN IMMEDIATE":
            with closing(sqlite3.connect(database_path, isolation_level=None)) as other:
                schema.prepare(other, database_path)
                other.execute("UPDATE sessiondb_meta SET value = 7")

    with closing(connect(database_path, let_another_be_first)) as connection:
        schema.prepare(connection, database_path)
        assert not connection.in_transaction
    assert rows(database_path, "SELECT value FROM sessiondb_meta") == [(7,)]


def test_create_tables_is_all_or_nothing(database_path: Path) -> None:
    def fail(statement: str) -> None:
        if "CREATE TRIGGER" in statement:
            raise sqlite3.OperationalError("disk I/O error")

    with closing(connect(database_path, fail)) as connection:
        with pytest.raises(sqlite3.OperationalError):
            schema.prepare(connection, database_path)
        assert not connection.in_transaction
    assert rows(database_path, "SELECT count(*) FROM sqlite_schema") == [(0,)]
    assert rows(database_path, "PRAGMA application_id") == [(0,)]


def test_create_tables_after_rollback_by_sqlite(database_path: Path) -> None:
    def end_and_fail(statement: str) -> None:
        if "CREATE TRIGGER" in statement:
            sqlite3.Connection.execute(connection, "ROLLBACK")
            raise sqlite3.OperationalError("disk I/O error")

    with (
        closing(connect(database_path, end_and_fail)) as connection,
        pytest.raises(sqlite3.OperationalError, match="disk I/O error"),
    ):
        schema.prepare(connection, database_path)
    assert rows(database_path, "SELECT count(*) FROM sqlite_schema") == [(0,)]


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_open_races_with_process_that_creates_tables(
    database_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = enter_wal_mode

    def enter(connection: sqlite3.Connection, path: Path) -> None:
        original(connection, path)
        monkeypatch.setattr(schema, "enter_wal_mode", original)
        other = sqlite3.connect(path, isolation_level=None)
        schema.prepare(other, path)
        other.close()

    monkeypatch.setattr(schema, "enter_wal_mode", enter)
    async with DatabaseSessionService(database_path) as service:
        await create(service)


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_failed_create_table_is_rolled_back(database_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as broken:
        tables = "CREATE TABLE t (x);\nCREATE TABLE u (;\n"
        broken.setattr(schema.prepare, "__defaults__", (schema.PRESENT._replace(tables=tables),))
        with pytest.raises(WriteFailedError, match="syntax error"):
            DatabaseSessionService(database_path)
    async with DatabaseSessionService(database_path) as service:
        await create(service)
        with other_program(database_path) as other:
            assert other.execute("SELECT count(*) FROM sqlite_schema WHERE name = 't'").fetchone() == (0,)
