"""Where a backup may go: nothing that is there is replaced unless that is said, and a database in use never."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from sessiondb import DatabaseSessionService
from sessiondb.adk.events import decode_event
from sessiondb.errors import ConfigurationError, StorageError
from sessiondb.stores.sqlite.repair.check import check
from tests.sqlite.repair.copying import Gate, names_in, read, write
from tests.sqlite.repair.files import APP, user_of

pytestmark = pytest.mark.anyio


async def test_backup_overwrites_existing_file_only_if_told(service: DatabaseSessionService, target: Path) -> None:
    write(target, b"yesterday's")
    with pytest.raises(ConfigurationError, match="exists"):
        await service.backup(target)
    assert read(target) == b"yesterday's"
    await service.backup(target, overwrite=True)
    assert check(target, decode_event).is_sound
    assert names_in(target.parent) == [target.name]


async def test_backup_does_not_overwrite_file_made_meanwhile(service: DatabaseSessionService, target: Path) -> None:
    gate = Gate()
    task = asyncio.ensure_future(service.backup(target, progress=gate))
    await gate.begun()
    write(target, b"another's")
    gate.open()
    with pytest.raises(ConfigurationError):
        await task
    assert read(target) == b"another's"
    assert names_in(target.parent) == [target.name]


async def test_backup_never_overwrites_database_in_use(
    service: DatabaseSessionService, path: Path, target: Path
) -> None:
    with pytest.raises(ConfigurationError, match="the database itself"):
        await service.backup(path, overwrite=True)
    async with DatabaseSessionService(target):
        with pytest.raises(ConfigurationError, match="in use"):
            await service.backup(target, overwrite=True)
    assert service.get_event_count(APP, user_of(30), "s30") == 6


async def test_backup_refuses_target_with_leftover_wal(service: DatabaseSessionService, target: Path) -> None:
    write(Path(f"{target}-wal"), b"left over")
    with pytest.raises(ConfigurationError, match=r"copy\.sqlite3-wal"):
        await service.backup(target)
    assert names_in(target.parent) == [f"{target.name}-wal"]


@pytest.mark.parametrize("given", [":memory:", "", "postgresql://host/db"])
async def test_backup_refuses_target_that_is_no_path(service: DatabaseSessionService, given: str) -> None:
    with pytest.raises(ConfigurationError):
        await service.backup(given)


async def test_backup_does_not_overwrite_a_directory(service: DatabaseSessionService, target: Path) -> None:
    os.mkdir(target)  # noqa: PTH102  # Path.mkdir is taken for slow in a coroutine
    with pytest.raises(ConfigurationError, match="not a regular file"):
        await service.backup(target, overwrite=True)


async def test_backup_into_missing_directory_is_storage_error(service: DatabaseSessionService, target: Path) -> None:
    with pytest.raises(StorageError, match="cannot write to"):
        await service.backup(target.parent / "missing" / "copy")


async def test_backup_without_hard_links_names_overwrite(
    service: DatabaseSessionService, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(_source: object, _target: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    with pytest.raises(StorageError, match="overwrite=True"):
        await service.backup(target)
    assert names_in(target.parent) == []
    await service.backup(target, overwrite=True)
