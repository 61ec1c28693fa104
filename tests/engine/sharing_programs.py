"""A process that shares its file with others; the function is the whole of it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from hashlib import blake2b

import anyio
import anyio.to_thread

from sessiondb import DatabaseSessionService
from sessiondb.errors import AlreadyExistsError
from tests.engine.processes import listen, say
from tests.engine.tools import create, event, get


def write_until_told(path: str, name: str) -> None:
    """Open the file when told, 8 tasks with 25 appends each; say what is read once all processes have written."""
    say("ready")
    listen()
    service = DatabaseSessionService(path, on_stale="append", durability="normal")

    async def talk(task: int) -> None:
        own = await create(service, f"{name}-{task}")
        shared = await get(service, "shared")
        for turn in range(25):
            await service.append_event(own, event(f"{turn}", {"turn": turn, f"user:{name}-{task}": turn}))
            if turn % 5 == 0:
                await service.append_event(shared, event(f"{name}-{task}-{turn}"))
                assert len((await get(service, own.id)).events) == turn + 1
                await get(service, "shared")

    async def converse() -> None:
        with suppress(AlreadyExistsError):
            await create(service, "shared")
        async with anyio.create_task_group() as group:
            for task in range(8):
                group.start_soon(talk, task)
        say("written")
        await anyio.to_thread.run_sync(listen)
        digest = blake2b()
        for row in sorted(row["session_id"] for row in await service.list_sessions()):
            session = await get(service, row)
            digest.update(session.model_dump_json().encode())
        say("read", digest.hexdigest(), service.get_stats()["failed_batches"])
        await service.close()

    asyncio.run(converse())
