"""Appends and reads in a file that holds much already, or that grows."""

from __future__ import annotations

import asyncio
import itertools
import math
import random
import statistics
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from google.adk.sessions import BaseSessionService, Session
from google.adk.sessions.base_session_service import GetSessionConfig

from bench import data
from bench.services import Peer
from bench.timing import Sample, Tally, Timer
from bench.workloads.clients import Client, append_event, append_round
from bench.workloads.registry import Round, workload
from bench.workloads.seeding import SEEDED, SERVICES, file_bytes, read, temporary_folder
from sessiondb import DatabaseSessionService

_NO_EVENTS = GetSessionConfig(num_recent_events=0)


@workload
async def append_seeded(
    name: str, *, clients: int, each: int, sessions: int, events: int, long_session: int = 0
) -> AsyncIterator[Round]:
    """As ``append``, in a file of ``sessions`` x ``events`` events; or all on a session of ``long_session``."""
    async with SEEDED.open(name, sessions, events) as (service, _):
        peer = SERVICES[name]
        if long_session:
            handles = [await _open_long_session(peer, service, long_session)]
        else:
            # Spread over the file, each at most once a round, so that pages are as cold as the file makes them.
            wanted = min(sessions, max(clients, 256))
            handles = [await read(service, f"s{n * sessions // wanted}", _NO_EVENTS) for n in range(wanted)]
        all_clients = [Client(peer, service, handles[n::clients]) for n in range(clients)]
        yield lambda: append_round(all_clients, each)


async def _open_long_session(peer: Peer, service: BaseSessionService, events: int) -> Session:
    session = await service.get_session(
        app_name=data.APP, user_id="long", session_id="long", config=_NO_EVENTS
    ) or await peer.create(service, data.APP, "long", "long")
    # Concurrent appends through one Session are committed in groups.
    assert isinstance(service, DatabaseSessionService)
    missing = events - service.get_event_count(data.APP, "long", "long")
    for start in range(0, missing, 256):
        await asyncio.gather(*(service.append_event(session, data.event()) for _ in range(min(256, missing - start))))
        session.events.clear()
    return session


@dataclass
class _Conversation:
    session: Session
    events: int


@workload
async def fill(name: str, *, clients: int, chunk: int, per_session: int, reads: int) -> AsyncIterator[Round]:
    """Fills a file: each round appends ``chunk`` events and reads ``reads`` sessions that are full already.

    Conversations live as conversations do: ``clients`` are under way, and one that has ``per_session`` events makes
    place for a new one.
    """
    peer = SERVICES[name]
    with temporary_folder() as folder:
        async with peer.open(folder) as service:
            numbers = itertools.count()
            full: list[str] = []
            choice = random.Random(1)

            async def create() -> Session:
                return await peer.create(service, data.APP, data.USER, f"s{next(numbers)}")

            async def converse(conversation: _Conversation, count: int, tally: Tally) -> None:
                for _ in range(count):
                    if conversation.events >= per_session:
                        # The first session of each client began in its middle.
                        if int(conversation.session.id.removeprefix("s")) >= clients:
                            full.append(conversation.session.id)
                        conversation.session = await create()
                        conversation.events = 0
                    await append_event(peer, service, conversation.session, tally)
                    conversation.events += 1

            async def run() -> Sample:
                tally = Tally()
                started = time.perf_counter()
                await asyncio.gather(*(converse(each, chunk // clients, tally) for each in conversations))
                sample = tally.sample(time.perf_counter() - started, alone=False)
                latencies: list[float] = []
                for session_id in choice.sample(full, min(reads, len(full))):
                    with Timer(latencies):
                        await read(service, session_id)
                sample.figures["get"] = statistics.median(latencies) if latencies else math.nan
                sample.figures["bytes"] = file_bytes(folder)
                return sample

            # They are at different points of their conversations, so that not all end at once.
            conversations = [_Conversation(await create(), n * per_session // clients) for n in range(clients)]
            yield run
