"""Processes that stand in line; each public function is the whole of one."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import threading
from functools import partial
from pathlib import Path
from typing import Any

from sessiondb import DatabaseSessionService
from sessiondb.stores.sqlite import line, writes
from sessiondb.stores.sqlite.file_identity import process_with
from tests.engine.fork_programs import in_child, reap
from tests.engine.processes import listen, say
from tests.engine.tools import create, event, other_program, outcomes, texts, until, waits_for_lock

_HOUR = 3600.0


async def meet_another(service: DatabaseSessionService, path: Path) -> None:
    """Has a service find the lock held, which forms the line, and wait until it is given up."""
    session = await create(service, "meeting")
    with other_program(path, "BEGIN IMMEDIATE") as other:
        waiting = asyncio.ensure_future(service.append_event(session, event()))
        await until(lambda: waits_for_lock(service))
        await until(lambda: Path(f"{path}-line").exists())
        other.execute("ROLLBACK")
        await waiting


def stop_in_line(path: str, inside: str) -> None:
    """Stops itself while it is the first in line: in its transaction, if it is told so, or before; then it goes on."""
    line._QUIET_SECONDS = _HOUR
    execute = writes.execute

    def stop_and_execute(connection: sqlite3.Connection, *args: Any, **options: Any) -> Any:
        writes.execute = execute
        if inside:
            connection.execute("BEGIN IMMEDIATE")
            options["begun"] = True
        # To this thread, or it would go on until another one has taken the signal.
        signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
        return execute(connection, *args, **options)

    async def main() -> None:
        async with DatabaseSessionService(path) as service:
            await meet_another(service, Path(path))
            session = await create(service, "stopped")
            writes.execute = stop_and_execute
            await service.append_event(session, event("while others waited"))
            say(*await texts(service, "stopped"))

    asyncio.run(main())


def fork_in_line(path: str) -> None:
    """Forks while its thread waits in a line that does not move; child and parent append then."""
    line._QUIET_SECONDS = _HOUR

    async def wait_in_vain(service: DatabaseSessionService) -> None:
        session = await create(service, "s")
        for _ in range(2):
            with other_program(Path(path), "BEGIN IMMEDIATE"):
                await outcomes([partial(service.append_event, session, event("refused"))])
            say("refused")
            listen()

    async def append(service: DatabaseSessionService, who: str) -> None:
        session = await create(service, who)
        await service.append_event(session, event(who))
        say(who, *descriptors(f"{path}-line"))

    service = DatabaseSessionService(path, busy_timeout=0.1)
    asyncio.run(wait_in_vain(service))

    def child() -> None:
        asyncio.run(append(service, "child"))

    reap(in_child(child))
    asyncio.run(append(service, "parent"))
    asyncio.run(service.close())


def descriptors(path: str) -> list[str]:
    """Which file each descriptor of this process has open, of those at ``path``."""
    names = []
    for link in Path("/proc/self/fd").iterdir():
        try:
            names.append(str(link.readlink()))
        except FileNotFoundError:
            continue
    return ["open" for name in names if name == path]


def say_process_with(path: str) -> None:
    """Says which process has a database open, judged by its locks."""
    say(process_with(Path(path)))
