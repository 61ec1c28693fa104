"""Processes that take turns with others; each function is the whole of one."""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading

import anyio
import anyio.to_thread

from sessiondb import DatabaseSessionService
from sessiondb.errors import TurnTimeoutError
from tests.engine.processes import listen, say
from tests.engine.tools import APP, USER, event, get, until


def hold_for_ever(path: str) -> None:
    """Take the turn of a session, and say so."""

    async def hold() -> None:
        async with DatabaseSessionService(path) as service, service.turn(APP, USER, "s"):
            say("has it")
            await anyio.sleep_forever()

    asyncio.run(hold())


def take_when_told(path: str, name: str) -> None:
    """Say when it waits for the turn; write into the session within it, and say that."""

    async def take() -> None:
        async with DatabaseSessionService(path) as service:
            async with anyio.create_task_group() as group:

                async def work() -> None:
                    async with service.turn(APP, USER, "s"):
                        session = await get(service, "s")
                        await service.append_event(session, event(name))

                await anyio.to_thread.run_sync(listen)
                group.start_soon(work)
                turns = service._shared.turns
                # On a rung of the ladder: its place is taken.
                await until(lambda: turns._locks is not None and bool(vars(turns._locks)["_places"]))
                say("waits")
            say("done")

    asyncio.run(take())


def work_in_turns(path: str, name: str) -> None:
    """20 runs of three appends, each run within a turn, from two tasks of each of two threads."""

    async def work(service: DatabaseSessionService, task: str) -> None:
        for number in range(5):
            async with service.turn(APP, USER, "s"):
                session = await get(service, "s")
                for step in range(3):
                    await service.append_event(session, event(f"{task}-{number}-{step}"))

    async def both(service: DatabaseSessionService, thread: str) -> None:
        async with anyio.create_task_group() as group:
            for task in "ab":
                group.start_soon(work, service, f"{name}{thread}{task}")

    service = DatabaseSessionService(path, durability="normal")
    say("ready")
    listen()
    other = threading.Thread(target=anyio.run, args=(both, service, "y"), kwargs={"backend": "trio"})
    other.start()
    anyio.run(both, service, "x")
    other.join()
    anyio.run(service.close)


def fork_within_a_turn(path: str) -> None:
    """A child has not its parent's turn, and does not keep it from being freed."""

    async def child_takes(service: DatabaseSessionService) -> str:
        try:
            async with service.turn(APP, USER, "s", wait=0):
                return "has it"
        except TurnTimeoutError:
            return "waits"

    async def take(service: DatabaseSessionService) -> int:
        async with service.turn(APP, USER, "s"):
            pid = os.fork()
            if not pid:
                # In a thread of its own, with the context of the turn: no event loop runs there.
                said: list[str] = []
                context = contextvars.copy_context()
                thread = threading.Thread(
                    target=context.run, args=(lambda: said.append(asyncio.run(child_takes(service))),)
                )
                thread.start()
                thread.join()
                say("child", *said)
                listen()
                os._exit(0)
            return pid

    async def again(service: DatabaseSessionService) -> None:
        # The child still runs.
        async with service.turn(APP, USER, "s", wait=10):
            say("parent has it again")

    service = DatabaseSessionService(path)
    pid = asyncio.run(take(service))
    asyncio.run(again(service))
    say("waiting for the child", pid)
    os.waitpid(pid, 0)
    asyncio.run(service.close())
