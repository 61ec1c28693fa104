"""One file under two names: each name would have a WAL of its own, so opening is refused."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sessiondb import DatabaseSessionService
from sessiondb.errors import ConfigurationError
from sessiondb.stores import open_import


def sessions_in(path: Path) -> int:
    """Opens a service and counts."""

    async def count() -> int:
        async with DatabaseSessionService(path) as service:
            return service.get_stats()["sessions"]

    return asyncio.run(count())


@pytest.fixture
def closed_file(database_path: Path) -> Path:
    """A database with one session that nobody has open."""

    async def make() -> None:
        async with DatabaseSessionService(database_path) as service:
            await service.create_session(app_name="app", user_id="user", session_id="s")

    asyncio.run(make())
    return database_path


@contextmanager
def mounted(source: Path, target: Path) -> Iterator[None]:
    """Mounts a file or folder at another path, or skips the test."""
    mount, umount = shutil.which("mount"), shutil.which("umount")
    command = [mount or "mount", "--bind", str(source), str(target)]
    if not mount or not umount or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("NOT SHOWN HERE: a bind mount needs root and CAP_SYS_ADMIN")
    try:
        yield
    finally:
        subprocess.run([umount, str(target)], check=True)


def test_hard_link_is_refused_under_each_name(closed_file: Path, tmp_path: Path) -> None:
    """Seen failing while a service on each name acknowledged 20 events that the other did not have."""
    linked = tmp_path / "linked.sqlite3"
    os.link(closed_file, linked)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for name in (closed_file, linked):
        with pytest.raises(ConfigurationError, match=r"one of 2 names of one file.*Remove the other names"):
            DatabaseSessionService(name)
        with pytest.raises(ConfigurationError, match="hard links"):
            open_import(name)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    linked.unlink()
    assert sessions_in(closed_file) == 1


def test_bind_mount_of_single_file_is_refused(closed_file: Path, tmp_path: Path) -> None:
    target = tmp_path / "a folder" / "mounted file.sqlite3"
    target.parent.mkdir()
    target.touch()
    with mounted(closed_file, target):
        with pytest.raises(ConfigurationError, match=r"mounted by itself.*Mount the folder"):
            DatabaseSessionService(target)
        assert [path.name for path in target.parent.iterdir()] == [target.name]
    assert sessions_in(closed_file) == 1


def test_bind_mount_of_folder_is_opened(closed_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mounted folder"
    folder.mkdir()
    with mounted(closed_file.parent, folder):
        assert sessions_in(folder / closed_file.name) == 1
