"""How much of a file an append changes: of a long log no more than of a short one.

Seen to fail with an index of events by their hashes.
"""

from __future__ import annotations

from pathlib import Path

import anyio.to_thread
import pytest

from sessiondb import DatabaseSessionService
from tests.engine.tools import create, event

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]


def changed_pages(database: Path) -> set[int]:
    """The numbers of the pages that are in the write-ahead log, see https://www.sqlite.org/fileformat2.html#walformat."""
    log = Path(f"{database}-wal").read_bytes()
    page_size = int.from_bytes(log[8:12])
    frames = [log[start : start + 24] for start in range(32, len(log), 24 + page_size)]
    # Frames of earlier rounds have another salt.
    return {int.from_bytes(frame[:4]) for frame in frames if frame[8:16] == log[16:24]}


async def test_append_to_a_long_log_changes_few_pages(database_path: Path) -> None:
    async with DatabaseSessionService(database_path) as service:
        session = await create(service)
        for _ in range(10):
            await service.append_events(session, [event() for _ in range(1_000)])
        await anyio.to_thread.run_sync(service.vacuum)
        await service.append_events(session, [event() for _ in range(100)])
        # Most of them for the events themselves.
        assert len(changed_pages(database_path)) < 25
