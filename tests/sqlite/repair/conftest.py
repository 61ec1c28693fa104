"""The file that the tests of this package damage."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

import pytest

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
