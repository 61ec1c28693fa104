"""Clients that append at the same time."""

from __future__ import annotations

import asyncio
import gc
import itertools
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

from google.adk.sessions import BaseSessionService, Session

from bench import data
from bench.services import Peer
from bench.timing import Sample, Tally, Timer


class Client:
    """Appends events one after the other, to each of its sessions in turn."""

    def __init__(self, peer: Peer, service: BaseSessionService, sessions: Sequence[Session]) -> None:
        self._peer = peer
        self._service = service
        self._sessions = itertools.cycle(sessions)

    async def append(self, count: int, tally: Tally) -> None:
        """Makes and appends ``count`` events."""
        for _ in range(count):
            await append_event(self._peer, self._service, next(self._sessions), tally)


async def append_event(peer: Peer, service: BaseSessionService, session: Session, tally: Tally) -> None:
    """Makes an event, and times its append."""
    # Part of what the loop has to do, as in a Runner; no part of the latency.
    event = data.event()
    try:
        with Timer(tally.latencies):
            await service.append_event(session, event)
    except peer.errors as error:
        tally.errors.append(type(error))


async def append_round(clients: Sequence[Client], each: int, *, busy: bool = False) -> Sample:
    """Lets all clients append ``each`` events at once."""
    tally = Tally()
    gc.collect()
    with busy_thread() if busy else nullcontext():
        started = time.perf_counter()
        await asyncio.gather(*(client.append(each, tally) for client in clients))
        seconds = time.perf_counter() - started
    return tally.sample(seconds, alone=len(clients) == 1)


@contextmanager
def busy_thread() -> Iterator[None]:
    """A thread that computes in Python all the time."""
    stop = threading.Event()

    def spin() -> None:
        value = 0
        while not stop.is_set():
            for n in range(1000):
                value ^= n

    thread = threading.Thread(target=spin, name="busy")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
