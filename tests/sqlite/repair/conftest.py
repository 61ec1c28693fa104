"""The file that the tests of this package damage, and what a backup is made of and to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sessiondb import DatabaseSessionService
from sessiondb.stores.sqlite import backup
from tests.sqlite.repair.files import Layout, Rows, fill, layout_of, rows_of


@dataclass(frozen=True)
class Original:
    """A sound file, closed, and what it holds."""

    path: Path
    data: bytes
    rows: dict[str, Rows]
    layout: Layout


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Original:
    path = tmp_path_factory.mktemp("repair") / "adk.sqlite3"
    asyncio.run(fill(path))
    data = path.read_bytes()
    found = Original(path, data, rows_of(path), layout_of(path))
    # What the tests rely on: every kind of page is there.
    assert found.layout.free
    assert found.layout.inner
    assert found.layout.indexes
    assert any(len(pages) > 1 for pages in found.layout.rows["adk_events"].values())
    return found


@pytest.fixture
def path(original: Original, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A database of several steps, in a folder of its own."""
    monkeypatch.setattr(backup, "_STEP_PAGES", 50)
    assert original.layout.count > 4 * backup._STEP_PAGES
    path = tmp_path / "data" / "adk.sqlite3"
    path.parent.mkdir()
    path.write_bytes(original.data)
    return path


@pytest.fixture
async def service(path: Path) -> AsyncIterator[DatabaseSessionService]:
    async with DatabaseSessionService(path) as opened:
        yield opened


@pytest.fixture
def target(tmp_path: Path) -> Path:
    folder = tmp_path / "backups"
    folder.mkdir()
    return folder / "copy.sqlite3"


@pytest.fixture
def anyio_backend() -> str:
    """The loop does not matter to files."""
    return "asyncio"
