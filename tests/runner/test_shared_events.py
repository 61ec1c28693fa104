"""With ``log_cache="share"`` a Runner works on the cached events themselves, and leaves them as they were decoded.

Seen to fail with a plugin that changes the request's contents in place at what they share with the events (the check
at the end of this file does just that).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from sessiondb import DatabaseSessionService
from tests.runner.scripts import SCRIPTS, SESSION
from tests.runner.traces import dump, read
from tests.scripted import APP, USER, say, scripted_runner

pytestmark = pytest.mark.filterwarnings(
    "ignore:(Sequential|Parallel)Agent is deprecated:DeprecationWarning",
    "ignore:The `plugins` argument is deprecated:DeprecationWarning",
)


async def deep_dump(service: DatabaseSessionService) -> list[list[dict[str, Any]]]:
    return [[dump(event) for event in session.events] for session in await read(service)]


@pytest.mark.each_store
@pytest.mark.parametrize("name", SCRIPTS)
def test_runner_does_not_mutate_shared_cached_events(name: str, location: Path | str) -> None:
    async def compare() -> None:
        async with (
            DatabaseSessionService(location, log_cache="share") as sharing,
            DatabaseSessionService(location, log_cache="off") as decoding,
        ):
            await SCRIPTS[name](sharing)
            assert await deep_dump(sharing) == await deep_dump(decoding)
            # All is cached by now: one more turn.
            for session in await read(sharing):
                async with scripted_runner(sharing, ["once more"]) as runner:
                    await say(runner, "again", session_id=session.id)
            assert await deep_dump(sharing) == await deep_dump(decoding)
            assert sharing.get_stats()["cache_hits"] > 0

    anyio.run(compare)


def test_mutation_of_shared_cached_event_is_noticed(tmp_path: Path) -> None:
    async def compare() -> None:
        path = tmp_path / "adk.sqlite3"
        async with (
            DatabaseSessionService(path, log_cache="share") as sharing,
            DatabaseSessionService(path, log_cache="off") as decoding,
        ):
            await SCRIPTS["tool_calls"](sharing)
            before = await deep_dump(decoding)
            assert await deep_dump(sharing) == before
            session = await sharing.get_session(APP, USER, SESSION)
            again = await sharing.get_session(APP, USER, SESSION)
            assert session is not None
            assert again is not None
            assert all(a is b for a, b in zip(session.events, again.events, strict=True))
            (asked,) = session.events[1].get_function_calls()
            asked.args = {"thing": "something else"}
            assert await deep_dump(sharing) != before
            assert await deep_dump(decoding) == before

    anyio.run(compare)
