"""What may be at the path: files of others, damaged ones, links, folders; and the permissions of what is made."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import pytest

from sessiondb import DatabaseSessionService, errors

pytestmark = pytest.mark.anyio

APP, USER, SESSION = "my_app", "user_123", "sess_abc"


@pytest.fixture
def anyio_backend() -> str:
    """The loop does not matter to files."""
    return "asyncio"


def _refused(path: Path, error: type[Exception], says: str) -> None:
    """Opening fails, and neither the file nor what is beside it has changed."""
    before = _content(path.parent)
    with pytest.raises(error, match=says) as refusal:
        DatabaseSessionService(path)
    assert str(path) in str(refusal.value)
    assert _content(path.parent) == before


def _content(folder: Path) -> dict[str, bytes | None]:
    return {found.name: found.read_bytes() if found.is_file() else None for found in sorted(folder.iterdir())}


def _names(folder: Path) -> set[str]:
    return {found.name for found in folder.iterdir()}


def test_foreign_database_is_unsupported_and_untouched(database_path: Path) -> None:
    for statement in ("CREATE TABLE t (x)", "PRAGMA application_id=7", "PRAGMA user_version=3"):
        database_path.unlink(missing_ok=True)
        with closing(sqlite3.connect(database_path)) as connection, connection:
            connection.execute(statement)
        _refused(database_path, errors.UnsupportedDatabaseError, "of another program; it was not changed")


@pytest.mark.parametrize("journal", ["wal", "delete"])
async def test_newer_schema_version_is_unsupported(database_path: Path, journal: str) -> None:
    async with DatabaseSessionService(database_path) as service:
        await service.create_session(APP, USER)
    with closing(sqlite3.connect(database_path)) as connection, connection:
        connection.execute("PRAGMA user_version=99")
        connection.execute(f"PRAGMA journal_mode={journal}")
    _refused(database_path, errors.UnsupportedDatabaseError, "schema version 99.*install a newer sessiondb")


def test_file_that_is_no_database_is_unsupported(database_path: Path) -> None:
    database_path.write_bytes(b"These are the voyages. " * 500)
    _refused(database_path, errors.UnsupportedDatabaseError, "not an SQLite database; it was not changed")


def _damage_schema(path: Path) -> None:
    content = bytearray(path.read_bytes())
    # Page 1 but for the header of the file.
    content[100:4096] = b"\xde" * (4096 - 100)
    path.write_bytes(content)


async def test_corrupt_schema_page_is_database_corrupt(database_path: Path) -> None:
    async with DatabaseSessionService(database_path) as service:
        await service.create_session(APP, USER, SESSION, {"own": "x" * 100_000})
    _damage_schema(database_path)
    _refused(database_path, errors.DatabaseCorruptError, "damaged.*restore a backup")


async def test_empty_file_becomes_a_database(tmp_path: Path) -> None:
    descriptor, path = tempfile.mkstemp(dir=tmp_path)
    os.close(descriptor)
    async with DatabaseSessionService(path) as service:
        await service.create_session(APP, USER)
        assert service.get_stats()["sessions"] == 1


def test_path_of_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(errors.ConfigurationError, match="not a regular file"):
        DatabaseSessionService(tmp_path)


def test_path_of_a_fifo_pipe_is_refused(database_path: Path) -> None:
    os.mkfifo(database_path)
    with pytest.raises(errors.ConfigurationError, match="not a regular file"):
        DatabaseSessionService(database_path)


@pytest.mark.parametrize("exists", [True, False], ids=["to a file", "to nothing"])
def test_symlink_is_refused_by_default(tmp_path: Path, exists: bool) -> None:
    target, link = tmp_path / "target.db", tmp_path / "link.db"
    if exists:
        target.touch()
    link.symlink_to(target)
    _refused(link, errors.ConfigurationError, "symbolic link")
    assert target.exists() == exists


@pytest.mark.parametrize("exists", [True, False], ids=["to a file", "to nothing"])
async def test_symlink_is_resolved_once_with_follow_symlinks(tmp_path: Path, exists: bool) -> None:
    """What the link leads to later is another file. Seen failing with the option taken out of effect."""
    target, link, elsewhere = tmp_path / "real" / "target.db", tmp_path / "link.db", tmp_path / "elsewhere.db"
    for file in (target, elsewhere) if exists else (elsewhere,):
        async with DatabaseSessionService(file) as service:
            await service.create_session(APP, USER, file.stem)
    link.symlink_to("hop")
    (tmp_path / "hop").symlink_to(target)
    async with DatabaseSessionService(link, follow_symlinks=True) as service:
        link.unlink()
        link.symlink_to(elsewhere)
        async with DatabaseSessionService(target) as same:
            await same.create_session(APP, USER, SESSION)
        listed = {row["session_id"] for row in await service.list_sessions()}
        assert listed == {SESSION, *(["target"] if exists else [])}
        assert _names(target.parent) == {"target.db", "target.db-wal", "target.db-shm"}
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


def test_symlink_loop_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.db").symlink_to("b.db")
    (tmp_path / "b.db").symlink_to("a.db")
    with pytest.raises(errors.ConfigurationError, match=r"circle|symbolic link"):
        DatabaseSessionService(tmp_path / "a.db", follow_symlinks=True)


async def test_symlink_to_the_directory_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    async with DatabaseSessionService(tmp_path / "link" / "x.db") as service:
        await service.create_session(APP, USER)
    assert (tmp_path / "real" / "x.db").exists()


def test_directory_that_cannot_be_made_is_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(errors.StorageError, match="cannot create") as refusal:
        DatabaseSessionService(tmp_path / "file" / "x.db")
    assert not isinstance(refusal.value, errors.ConfigurationError)


_OPEN_AND_LOOK = """
import asyncio, json, os, sys
from pathlib import Path
from sessiondb import DatabaseSessionService

async def main():
    path = Path(sys.argv[1])
    async with DatabaseSessionService(path) as service:
        await service.create_session("my_app", "user_123", "s", {"own": 1})
        await service.get_session("my_app", "user_123", "s")
        found = [path.parent.parent, *sorted(path.parent.parent.rglob("*"))]
        print(json.dumps({str(each.relative_to(path.parent.parent)): oct(each.stat().st_mode & 0o7777) for each in found}))

os.umask(int(sys.argv[2], 8))
asyncio.run(main())
"""


@pytest.mark.parametrize("umask", ["000", "022", "077"])
def test_new_files_and_folders_have_private_permissions(tmp_path: Path, umask: str) -> None:
    command = [sys.executable, "-c", _OPEN_AND_LOOK, str(tmp_path / "new" / "folder" / "x.db"), umask]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert json.loads(done.stdout) == {
        ".": "0o700",
        "folder": "0o700",
        "folder/x.db": "0o600",
        "folder/x.db-shm": "0o600",
        "folder/x.db-wal": "0o600",
    }


async def test_existing_file_and_folder_keep_their_permissions(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir(mode=0o755)
    path = folder / "x.db"
    path.touch(mode=0o640)
    path.chmod(0o640)
    async with DatabaseSessionService(path) as service:
        await service.create_session(APP, USER)
        modes = {found.name: stat.S_IMODE(found.stat().st_mode) for found in folder.iterdir()}
    assert modes == {"x.db": 0o640, "x.db-wal": 0o640, "x.db-shm": 0o640}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755
