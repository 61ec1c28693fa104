"""A program that ends without closing loses nothing that was acknowledged, and ends.

Seen to fail with a writer thread that is no daemon (the process does not end), with acknowledgements before the commit,
and without ``_EXIT_TIMEOUT`` (the exit waits for another program's lock).
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from sessiondb import DatabaseSessionService
from tests.engine import exit_programs, processes
from tests.engine.tools import create, other_program, texts


def stored(path: Path, session_id: str) -> list[str | None]:
    async def read() -> list[str | None]:
        async with DatabaseSessionService(path) as service:
            service.vacuum()
            return await texts(service, session_id)

    return asyncio.run(read())


def test_exit_without_close_keeps_acknowledged_events(database_path: Path) -> None:
    process = processes.start(exit_programs.leave_without_closing, database_path)
    acknowledged = processes.finish(process).split()
    assert stored(database_path, "s") == acknowledged == [f"{number}" for number in range(50)]


def test_exit_while_daemon_thread_is_writing(database_path: Path) -> None:
    process = processes.start(exit_programs.leave_from_a_thread, database_path)
    acknowledged = processes.finish(process, host_writes=True).split()
    assert len(acknowledged) > 50
    found = stored(database_path, "s")
    assert found[: len(acknowledged)] == acknowledged
    # One more may have been on its way.
    assert len(found) <= len(acknowledged) + 1


def test_exit_with_queued_writes_keeps_a_prefix(database_path: Path) -> None:
    """Nobody was told of them, so all of them or only those at the head of the queue are written, each as a whole."""
    assert processes.run(exit_programs.leave_with_writes_queued, database_path).split() == ["leaving"]

    async def read() -> list[int]:
        async with DatabaseSessionService(database_path) as service:
            service.vacuum()
            return [len(await texts(service, f"s{number}")) for number in range(200)]

    counts = asyncio.run(read())
    assert counts == sorted(counts, reverse=True)
    assert set(counts) <= {0, 1}
    assert counts[0] == 1


def test_exit_closes_a_dropped_service_first(tmp_path: Path) -> None:
    """Seen to fail without the stores that are being closed in what is closed at exit: the folder stays."""
    folder = processes.run(exit_programs.leave_while_a_dropped_service_is_closed, tmp_path).strip()
    assert folder
    assert not Path(folder).exists()


def test_exit_does_not_wait_for_lock_of_other_program(database_path: Path) -> None:
    async def prepare() -> None:
        async with DatabaseSessionService(database_path) as service:
            await create(service)

    asyncio.run(prepare())
    with other_program(database_path, "BEGIN IMMEDIATE"):
        said = processes.run(exit_programs.leave_while_another_program_holds_the_lock, database_path).split()
    assert said == ["leaving"]
    assert stored(database_path, "s") == []
