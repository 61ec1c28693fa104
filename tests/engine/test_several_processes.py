"""Several processes on one file: no error, no gap, and one truth for all of their caches.

Seen to fail with a cache that trusts its own process, and with a ``busy_timeout`` of nothing.
"""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

from sessiondb import DatabaseSessionService
from tests.engine import processes, sharing_programs
from tests.engine.tools import texts

PROCESSES = 4


def test_four_processes_append_to_one_file(database_path: Path) -> None:
    started = [processes.start(sharing_programs.write_until_told, database_path, name) for name in "abcd"]
    # They open the file, which is not there yet, in the same moment; and read when all have written.
    for said, then in (("ready", "open"), ("written", "read")):
        for process in started:
            assert process.stdout is not None
            assert process.stdout.readline() == f"{said}\n", process.communicate()[1]
        for process in started:
            assert process.stdin is not None
            process.stdin.write(f"{then}\n")
            process.stdin.flush()
    answers = {processes.finish(process) for process in started}
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
