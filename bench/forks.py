"""How long a fork takes, in the store and as a call, of a log that is in the cache and of one that is not.

``python -m bench.forks [FILE-OR-URL]``: without one, a file in a temporary folder.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

from google.adk.events import Event, EventActions
from google.genai import types

from sessiondb import DatabaseSessionService

APP, USER = "bench", "user"
SIZES = (100, 1_000, 10_000)
ROUNDS = 7


def _event(number: int) -> Event:
    content = types.Content(role="model", parts=[types.Part(text=f"{number} " + "word " * 40)])
    actions = EventActions(state_delta={"n": number} if number % 10 == 0 else {})
    return Event(author="agent", invocation_id=f"i-{number // 2}", content=content, actions=actions)


async def _measure(location: str, size: int) -> dict[str, float]:
    times: dict[str, list[float]] = {}
    async with DatabaseSessionService(location) as service:
        session = await service.create_session(APP, USER, f"of {size}")
        for first in range(0, size, 1_000):
            await service.append_events(session, [_event(n) for n in range(first, min(first + 1_000, size))])
    async with DatabaseSessionService(location) as warm, DatabaseSessionService(location, log_cache="off") as cold:
        for service in (warm, warm):
            # The second read packs what the first has kept.
            found = await service.get_session(APP, USER, f"of {size}")
            assert found is not None
            assert len(found.events) == size
        for number in range(ROUNDS):
            for name, service in (("cached", warm), ("not cached", cold)):
                started = perf_counter()
                stats = service.get_stats()
                before = stats["commit_seconds"]
                started = perf_counter()
                fork = await service.fork_session(APP, USER, f"of {size}", new_session_id=f"{size} {number} {name}")
                called = perf_counter()
                assert len(fork.events) == size
                looked = perf_counter()
                stored = service.get_stats()["commit_seconds"] - before
                for what, seconds in (
                    (f"{name}: store", stored),
                    (f"{name}: call", called - started),
                    (f"{name}: first look at the events", looked - called),
                ):
                    times.setdefault(what, []).append(seconds)
            started = perf_counter()
            read = await cold.get_session(APP, USER, f"of {size}")
            assert read is not None
            times.setdefault("get, not cached", []).append(perf_counter() - started)
    return {what: median(seconds) for what, seconds in times.items()}


def main() -> None:
    """Prints a table of milliseconds."""
    with tempfile.TemporaryDirectory() as folder:
        location = sys.argv[1] if len(sys.argv) > 1 else str(Path(folder, "forks.sqlite3"))
        rows = {size: asyncio.run(_measure(location, size)) for size in SIZES}
    print(f"{'events':>32}", *(f"{size:>10,}" for size in SIZES))
    for what in rows[SIZES[0]]:
        print(f"{what:>32}", *(f"{rows[size][what] * 1000:>7.1f} ms" for size in SIZES))


if __name__ == "__main__":
    main()
