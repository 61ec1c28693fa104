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
    """A child says whether it can take its parent's turn, and lives until the parent's input ends; the parent keeps it."""

    async def try_it(service: DatabaseSessionService) -> str:
        try:
            async with service.turn(APP, USER, "s", wait=0):
                return "has it"
        except TurnTimeoutError:
            return "waits"

    async def hold(service: DatabaseSessionService) -> None:
        async with service.turn(APP, USER, "s"):
            if not os.fork():
                said: list[str] = []
                # Within the parent's turn, as contexts go; on a thread, since a loop of the parent's runs on this one.
                context = contextvars.copy_context()
                thread = threading.Thread(target=context.run, args=(lambda: said.append(asyncio.run(try_it(service))),))
                thread.start()
                thread.join()
                say(*said)
                listen()
                os._exit(0)
            await anyio.sleep_forever()

    asyncio.run(hold(DatabaseSessionService(path)))
