"""Several processes on one file: no error, no gap, and one truth for all of their caches.

Seen to fail with a cache that trusts its own process, and with a ``busy_timeout`` of nothing.
"""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

from sessiondb import DatabaseSessionService
from tests.machine import processes, programs
from tests.machine.tools import create, texts

PROCESSES = 4


def test_four_processes_with_eight_tasks_each(database_path: Path) -> None:
    async def prepare() -> None:
        async with DatabaseSessionService(database_path) as service:
            await create(service, "shared")

    asyncio.run(prepare())
    started = [processes.start(programs.write_until_told, database_path, name) for name in "abcd"]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "written\n", process.stderr.read() if process.stderr else ""
    answers = set()
    for process in started:
        assert process.stdin is not None
        process.stdin.write("read\n")
        process.stdin.flush()
    for process in started:
        answers.add(processes.finish(process))
    # One digest of all sessions, and no failed batch.
    (answer,) = answers
    assert answer.split()[0] == "read"
    assert answer.split()[2] == "0"

    async def check() -> None:
        async with DatabaseSessionService(database_path) as service:
            assert service.get_stats()["sessions"] == PROCESSES * 8 + 1
            shared = await texts(service, "shared")
            for name in "abcd":
                for task in range(8):
                    assert await texts(service, f"{name}-{task}") == [f"{turn}" for turn in range(25)]
                    mine = [text for text in shared if str(text).startswith(f"{name}-{task}-")]
                    assert mine == [f"{name}-{task}-{turn}" for turn in range(0, 25, 5)]

    asyncio.run(check())
    connection = sqlite3.connect(database_path)
    gaps = connection.execute(
        "SELECT session_id FROM adk_events GROUP BY session_id HAVING count(*) <> max(seq) OR min(seq) <> 1"
    ).fetchall()
    connection.close()
    assert gaps == []
