"""After a fork the child has connections of its own, and the parent goes on as if nothing had been.

Seen to fail without ``os.register_at_fork`` (the child waits for threads it does not have), with locks that the child
inherits from threads it does not have, and with a fork that does not wait for a file that is being closed (all that the
child writes is lost).
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from sessiondb import DatabaseSessionService
from tests.engine import fork_programs, processes
from tests.engine.tools import texts


async def check(path: Path) -> dict[str, list[str | None]]:
    async with DatabaseSessionService(path) as service:
        service.vacuum()
        return {row["session_id"]: await texts(service, row["session_id"]) for row in await service.list_sessions()}


def test_fork_while_writing_parent_and_children_go_on(database_path: Path) -> None:
    acknowledged = int(processes.run_forked(fork_programs.fork_while_writing, database_path))
    found = asyncio.run(check(database_path))
    parents = found.pop("parent")
    assert [text for text in parents if not str(text).startswith("child")] == [f"{n}" for n in range(acknowledged)]
    for number in range(5):
        assert found[f"child-{number}"] == [f"child {n}" for n in range(20)]
        mine = [text for text in parents if str(text).startswith(f"child-{number}")]
        assert mine == [f"child-{number} {n}" for n in range(5)]


def test_fork_with_append_queued_and_read_waiting(database_path: Path) -> None:
    assert processes.run_forked(fork_programs.fork_with_calls_waiting, database_path).split() == ["done"]


def test_fork_context_of_multiprocessing(database_path: Path) -> None:
    assert processes.run_forked(fork_programs.fork_with_multiprocessing, database_path).split() == ["60"]


def test_fork_of_four_workers_from_a_server(database_path: Path) -> None:
    assert processes.run_forked(fork_programs.prefork, database_path).split() == ["17", "245", "85"]
    found = asyncio.run(check(database_path))
    for number in range(4):
        for task in range(4):
            assert found[f"{number}-{task}"] == [f"own {n}" for n in range(10)]
            mine = [text for text in found["shared"] if str(text).startswith(f"{number}-{task}")]
            assert mine == [f"{number}-{task} {n}" for n in range(5)]


def test_fork_while_threads_hold_locks_is_no_deadlock(database_path: Path) -> None:
    assert processes.run_forked(fork_programs.fork_while_a_lock_is_held, database_path).split() == ["2"]


def test_fork_while_closing_loses_nothing(database_path: Path) -> None:
    assert processes.run_forked(fork_programs.fork_while_closing, database_path).split() == ["1", "20"]
    assert sorted(asyncio.run(check(database_path))) == ["child", "s"]


def test_fork_with_lost_file_stops_the_writer(database_path: Path) -> None:
    assert processes.run_forked(fork_programs.lose_the_file_while_forking, database_path).split() == [
        "WriterStoppedError"
    ]
