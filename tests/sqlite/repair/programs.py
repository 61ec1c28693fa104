"""What other processes do in the tests of this package."""

from __future__ import annotations

import asyncio
import sys

from sessiondb import DatabaseSessionService


def hold_open(path: str) -> None:
    """Keeps a database with one session open until standard input ends."""

    async def hold() -> None:
        async with DatabaseSessionService(path) as service:
            await service.create_session("my_app", "user_123", "sess_abc")
            sys.stdout.write("open\n")
            sys.stdout.flush()
            await asyncio.to_thread(sys.stdin.read)

    asyncio.run(hold())
