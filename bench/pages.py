"""What pages take, wherever they are: ``python -m bench.pages``.

Two files of 100,000 sessions, of one user and of 1,000 users, and a log of 100,000 events. The first page and one far behind
it are read in turns.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from rich import print as show

from bench import data
from sessiondb import DatabaseSessionService

_AT_ONCE = 1_000
_ROUNDS = 60
_PAGE = 50
_STATE = {"status": "open", "rounds": 3, "note": "x" * 50}


async def _fill(service: DatabaseSessionService, sessions: int, users: int) -> None:
    for first in range(0, sessions, _AT_ONCE):
        numbers = range(first, min(first + _AT_ONCE, sessions))
        calls = (service.create_session(data.APP, f"user{n % users}", f"s{n}", _STATE) for n in numbers)
        await asyncio.gather(*calls)


async def _compare(name: str, read: Callable[..., Awaitable[Any]], pages: int) -> None:
    """Reads the first page and the last of so many in turns; shows the medians and their ratio."""
    after = None
    for _ in range(pages - 1):
        after = (await read(after=after)).next
    times: dict[str | None, list[float]] = {None: [], after: []}
    for _ in range(_ROUNDS):
        for place, latencies in times.items():
            started = time.perf_counter()
            await read(after=place)
            latencies.append(time.perf_counter() - started)
    first, last = (statistics.median(latencies) * 1_000 for latencies in times.values())
    show(f"{name}: page 1 {first:.2f} ms, page {pages:,} {last:.2f} ms, {last / first:.2f} times")


async def measure(folder: Path, size: int) -> None:
    """Fills the files in a folder, and measures pages of them."""
    pages = min(1_000, size // _PAGE - 1)
    for users in (1, 1_000):
        async with DatabaseSessionService(folder / f"{users}.sqlite3") as service:
            await _fill(service, size, users)

            def listing(service: DatabaseSessionService = service, **options: Any) -> Callable[..., Awaitable[Any]]:
                return lambda after: service.list_sessions(limit=_PAGE, after=after, **options)

            await _compare(f"{users:,} users, one app", listing(app_name=data.APP), pages)
            await _compare(f"{users:,} users, newest first", listing(app_name=data.APP, newest_first=True), pages)
            of_user = min(pages, size // users // _PAGE)
            await _compare(f"{users:,} users, one user", listing(app_name=data.APP, user_id="user0"), of_user)
            filtered = listing(app_name=data.APP, state={"status": "open"})
            await _compare(f"{users:,} users, by a value of state", filtered, pages)
    async with DatabaseSessionService(folder / "log.sqlite3") as service:
        session = await service.create_session(data.APP, data.USER, "long")
        for _ in range(size // _AT_ONCE):
            await service.append_events(session, [data.event() for _ in range(_AT_ONCE)])
            session.events.clear()
        await _compare(
            "a log", lambda after: service.get_events(data.APP, data.USER, "long", limit=_PAGE, after=after), pages
        )
        one: list[float] = []
        many: list[float] = []
        for n in range(5):
            for latencies, name in ((one, "one"), (many, "many")):
                session = await service.create_session(data.APP, data.USER, f"{name}{n}")
                events = [data.event() for _ in range(_AT_ONCE)]
                started = time.perf_counter()
                if latencies is many:
                    await service.append_events(session, events)
                else:
                    for event in events:
                        await service.append_event(session, event)
                latencies.append(time.perf_counter() - started)
        show(
            f"{_AT_ONCE:,} events: append_event {statistics.median(one) * 1_000:.0f} ms, append_events"
            f" {statistics.median(many) * 1_000:.0f} ms"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=100_000, help="sessions of a file, and events of the log")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sessiondb-bench-") as temporary:
        asyncio.run(measure(Path(temporary), arguments.size))
