"""Opening: paths, files of others, locks of others, and connections that cannot be set up."""

from __future__ import annotations

import functools
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from sessiondb import DatabaseSessionService
from sessiondb.errors import ConfigurationError, DatabaseBusyError, StorageError, UnsupportedDatabaseError
from sessiondb.stores.sqlite import schema
from sessiondb.stores.sqlite.connection import open_reader, open_writer
from tests.engine.tools import create, other_program

pytestmark = pytest.mark.anyio


def contents(path: Path) -> bytes:
    return path.read_bytes()


def test_symlink_fifo_and_directory_paths_are_refused(tmp_path: Path) -> None:
    target = tmp_path / "target.sqlite3"
    (tmp_path / "link").symlink_to(target)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "plain").touch()
    for path, error in (
        (tmp_path / "link", ConfigurationError),
        (tmp_path, ConfigurationError),
        (tmp_path / "pipe", ConfigurationError),
        (tmp_path / "plain" / "below", StorageError),
    ):
        with pytest.raises(error):
            DatabaseSessionService(path)
    assert not target.exists()


async def test_missing_parent_directories_are_created(tmp_path: Path) -> None:
    async with DatabaseSessionService(tmp_path / "some" / "where" / "adk.sqlite3") as service:
        await create(service)


async def test_foreign_and_newer_schema_files_are_untouched(tmp_path: Path) -> None:
    foreign, newer, current = tmp_path / "foreign", tmp_path / "newer", tmp_path / "current"
    with other_program(foreign, "CREATE TABLE t (x)"):
        pass
    async with DatabaseSessionService(newer):
        pass
    with other_program(newer, f"PRAGMA user_version={schema.SCHEMA_VERSION + 1}"):
        pass
    before = contents(foreign), contents(newer)
    for path, words in ((foreign, "another program"), (newer, "newer sessiondb")):
        with pytest.raises(UnsupportedDatabaseError, match=words):
            DatabaseSessionService(path)
    assert (contents(foreign), contents(newer)) == before
    async with DatabaseSessionService(current) as service:
        await create(service)
    async with DatabaseSessionService(current) as service:
        assert len(await service.list_sessions()) == 1


async def test_open_of_new_locked_file_is_database_busy(database_path: Path) -> None:
    with (
        other_program(database_path, "CREATE TABLE t (x)", "DROP TABLE t", "BEGIN EXCLUSIVE"),
        pytest.raises(DatabaseBusyError),
    ):
        DatabaseSessionService(database_path, busy_timeout=0.05)
    async with DatabaseSessionService(database_path, busy_timeout=0.05) as service:
        await create(service)


async def test_sqlite_version_too_old_is_refused(database_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sessiondb.stores.sqlite.connection._OLDEST_SQLITE", (99, 0, 0))
    with pytest.raises(ConfigurationError, match=r"99\.0\.0 or newer"):
        DatabaseSessionService(database_path)


@pytest.mark.parametrize(
    ("function", "arguments", "error"),
    [
        (open_writer, ("full", 1.0), sqlite3.OperationalError("refused")),
        (open_writer, ("full", 1.0), KeyboardInterrupt()),
        (open_reader, (1.0,), sqlite3.OperationalError("refused")),
        (open_reader, (1.0,), KeyboardInterrupt()),
    ],
)
def test_connection_that_fails_its_setup_is_closed(
    database_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    function: Any,
    arguments: tuple[Any, ...],
    error: BaseException,
) -> None:
    database_path.touch()
    closed: list[bool] = []

    class Refusing(sqlite3.Connection):
        def execute(self, *_: Any) -> sqlite3.Cursor:
            raise error

        def close(self) -> None:
            closed.append(True)
            super().close()

    monkeypatch.setattr(sqlite3, "connect", functools.partial(sqlite3.connect, factory=Refusing))
    with pytest.raises(StorageError if isinstance(error, sqlite3.Error) else KeyboardInterrupt):
        function(database_path, *arguments)
    assert closed == [True]
