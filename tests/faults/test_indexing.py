"""The index of texts is made by a process that is killed, again and again, while others write."""

from __future__ import annotations

import asyncio
import random
import threading
from pathlib import Path

from sessiondb import DatabaseSessionService, stores
from sessiondb.adk.events import decode_event
from tests.contract.places import APP, USER
from tests.contract.test_search import found, said, say
from tests.faults.zygote import Zygote


def test_killed_builds_are_gone_on_with(any_zygote: Zygote, tmp_path: Path, rng: random.Random) -> None:
    """Seen failing with the slice and how far it is in two transactions."""
    path = tmp_path / "db.sqlite3"

    async def fill() -> None:
        async with DatabaseSessionService(path) as service:
            await say(service, *(f"apple {n}" for n in range(1200)))

    asyncio.run(fill())
    kills = 0
    while kills < 5:
        child = any_zygote.start("tests.faults.programs:index_until_killed", path=str(path))
        last = rng.randrange(3)
        for number, (done, of) in enumerate(child.reports()):
            if number == last and done < of:
                # The moment lies anywhere in a slice.
                threading.Event().wait(rng.random() * 0.03)
                child.kill()
        if child.wait() == 0:
            break
        kills += 1

        async def write(number: int = kills) -> None:
            async with DatabaseSessionService(path) as service:
                session = await service.get_session(APP, USER, "beside") or await service.create_session(
                    APP, USER, "beside"
                )
                await service.append_event(session, said(f"beside {number}"))

        asyncio.run(write())
    assert kills
    stores.build_index(path)

    async def look() -> None:
        async with DatabaseSessionService(path) as service:
            assert await found(service, "beside") == list(range(1, kills + 1))
            for n in (0, 1, 31, 600, 1198, 1199):
                assert await found(service, f'"apple {n}"') == [n + 1]

    asyncio.run(look())
    assert stores.check(path, decode_event).is_sound
