"""Memory of a process that serves turns for long: ``python -m bench.many_turns`` prints it after each tenth of them.

10,000 sessions are under way. A turn reads one of them and appends two events; after 20 turns a new session takes its
place, so that logs are as long in the end as in the beginning.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from bench import data
from bench.filling import fill, key_of
from bench.workloads.footprint import resident_bytes
from sessiondb import DatabaseSessionService

_CLIENTS = 32
_TURNS_OF_A_SESSION = 20
_EVENTS_AT_FIRST = 20


class _Conversation(NamedTuple):
    user: str
    session_id: str
    turns_left: int


async def serve(folder: Path, sessions: int, turns: int, log_cache_bytes: int) -> list[dict[str, float]]:
    """Serves turns; returns what the process takes after each tenth, the first point before any."""
    path = folder / "sessions.sqlite3"
    await fill(path, sessions, _EVENTS_AT_FIRST, lambda _events: None)
    choice = random.Random(1)
    points: list[dict[str, float]] = []
    done = 0
    started = time.perf_counter()
    async with DatabaseSessionService(path, log_cache_bytes=log_cache_bytes) as service:
        # Sessions are at different points of their lives, so that they do not all end at once.
        ready = [_Conversation(*key_of(n)[1:], n % _TURNS_OF_A_SESSION + 1) for n in range(sessions)]

        def note() -> None:
            stats = service.get_stats()
            points.append(
                {
                    "turns": done,
                    "rss_bytes": resident_bytes(),
                    "cache_bytes": stats["cache_bytes"],
                    "hit_share": stats["cache_hits"] / max(1, stats["cache_hits"] + stats["cache_misses"]),
                    "seconds": time.perf_counter() - started,
                }
            )
            print(json.dumps(points[-1]), flush=True)

        async def turn(conversation: _Conversation) -> _Conversation:
            user, session_id, left = conversation
            if not left:
                session_id, left = f"{session_id}+", _TURNS_OF_A_SESSION
                await service.create_session(app_name=data.APP, user_id=user, session_id=session_id)
            session = await service.get_session(app_name=data.APP, user_id=user, session_id=session_id)
            assert session is not None
            for _ in range(2):
                await service.append_event(session, data.event())
            return _Conversation(user, session_id, left - 1)

        async def client() -> None:
            nonlocal done
            while done < turns:
                number = choice.randrange(len(ready))
                ready[number], ready[-1] = ready[-1], ready[number]
                ready.append(await turn(ready.pop()))
                done += 1
                if done % (turns // 10) == 0:
                    note()

        note()
        async with asyncio.TaskGroup() as group:
            for _ in range(_CLIENTS):
                group.create_task(client())
    return points


def main() -> None:
    """Runs it in a temporary folder."""
    parser = argparse.ArgumentParser(prog="python -m bench.many_turns", description=__doc__)
    parser.add_argument("--turns", type=int, default=1_000_000, help="in all (1,000,000)")
    parser.add_argument("--sessions", type=int, default=10_000, help="under way (10,000)")
    parser.add_argument("--cache-mib", type=int, default=256, help="log_cache_bytes, in MiB (256)")
    parser.add_argument("--figures", type=Path, default=Path("bench/results/many_turns.json"), metavar="FILE")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        points = asyncio.run(serve(Path(folder), arguments.sessions, arguments.turns, arguments.cache_mib * 2**20))
    arguments.figures.write_text(json.dumps(points, indent=1) + "\n")


if __name__ == "__main__":
    main()
