"""Turns of conversations: by hand, and by ADK's Runner."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator

from google.adk.agents import LlmAgent
from google.adk.apps import App
from google.adk.runners import Runner
from google.genai import types

from bench import data
from bench.timing import Sample, Tally, Timer
from bench.workloads.registry import Round, workload
from bench.workloads.seeding import SEEDED, SERVICES, open_empty, read
from sessiondb import OneTurnAtATime
from sessiondb.demo.model import OfflineModel


@workload
async def turn(
    name: str, *, clients: int, each: int, rounds: int, threads: int = 1, pause: float = 0, look: bool = False
) -> AsyncIterator[Round]:
    """A turn: get_session, then two appends to what it returned; ``pause`` seconds of sleep in between, as for a model.

    With ``look``, each event is looked at, as by an agent that makes a request to a model of them.

    The sessions hold 100 events in the middle of all rounds: they start with fewer, and end with as many more.
    """
    async with open_empty(name) as (peer, service):
        for n in range(clients):
            session = await peer.create(service, data.APP, f"user-{n}", f"s{n}")
            for _ in range(max(0, 100 - each * rounds)):
                await service.append_event(session, data.event())

        async def converse(n: int, tally: Tally) -> None:
            for _ in range(each):
                try:
                    with Timer(tally.latencies):
                        session = await read(service, f"s{n}", user=f"user-{n}")
                        if look:
                            sum(len(event.content.parts or ()) for event in session.events if event.content)
                        await service.append_event(session, data.event("user"))
                        if pause:
                            await asyncio.sleep(pause)
                        await service.append_event(session, data.event())
                except peer.errors as error:
                    tally.errors.append(type(error))

        async def converse_all(numbers: range, tally: Tally) -> None:
            await asyncio.gather(*(converse(n, tally) for n in numbers))

        async def run() -> Sample:
            tally = Tally()
            gc.collect()
            started = time.perf_counter()
            if threads == 1:
                await converse_all(range(clients), tally)
            else:
                # Each thread has a loop of its own; an exception in one is this round's.
                await asyncio.gather(
                    *(
                        asyncio.to_thread(asyncio.run, converse_all(range(first, clients, threads), tally))
                        for first in range(threads)
                    )
                )
            return tally.sample(time.perf_counter() - started, alone=False)

        yield run


@workload
async def first_turn(name: str, *, clients: int, each: int, rounds: int) -> AsyncIterator[Round]:
    """A turn on each of ``each`` sessions a client, none of which the service has read: it is opened anew each round.

    The sessions hold 100 events in the middle of all rounds: they start with fewer, and end with as many more.
    """
    sessions, peer = clients * each, SERVICES[name]
    seeded = (name, sessions, 100 - rounds)

    async def run() -> Sample:
        async with SEEDED.open(*seeded) as (service, _):

            async def converse(first: int, tally: Tally) -> None:
                for n in range(first, sessions, clients):
                    try:
                        with Timer(tally.latencies):
                            session = await read(service, f"s{n}")
                            await service.append_event(session, data.event("user"))
                            await service.append_event(session, data.event())
                    except peer.errors as error:
                        tally.errors.append(type(error))

            tally = Tally()
            gc.collect()
            started = time.perf_counter()
            await asyncio.gather(*(converse(n, tally) for n in range(clients)))
            return tally.sample(time.perf_counter() - started, alone=False)

    async with SEEDED.open(*seeded):
        pass
    yield run


@workload
async def runner(
    name: str, *, conversations: int, turns: int, late: int, in_turns: bool = False
) -> AsyncIterator[Round]:
    """ADK's Runner with an offline model: ``conversations`` at once, ``turns`` each; ``in_turns``: with the plugin.

    ``late_per_second`` is the pace from turn ``late`` on, taken from when the first conversation gets there to the end.
    """

    async def converse(one: Runner, session_id: str, moments: list[list[float]]) -> None:
        for n in range(turns):
            moments[n].append(time.perf_counter())
            async for _ in one.run_async(
                user_id=data.USER,
                session_id=session_id,
                new_message=types.Content(role="user", parts=[types.Part(text=data.TEXT)]),
            ):
                pass

    async def run() -> Sample:
        async with open_empty(name) as (peer, service):
            model = OfflineModel(respond=lambda request: f"{len(request.contents)} contents. {data.TEXT}")
            agent = LlmAgent(name="agent", model=model)
            app = App(name=data.APP, root_agent=agent, plugins=[OneTurnAtATime()] if in_turns else [])
            async with Runner(app=app, session_service=service) as one:
                for n in range(conversations):
                    await peer.create(service, data.APP, data.USER, f"s{n}")
                gc.collect()
                moments: list[list[float]] = [[] for _ in range(turns)]
                started = time.perf_counter()
                await asyncio.gather(*(converse(one, f"s{n}", moments) for n in range(conversations)))
                ended = time.perf_counter()
        late_from = min(moments[late])
        done_before = sum(moment < late_from for later in moments[1:] for moment in later)
        total = conversations * turns
        return Sample(
            (ended - started) / total,
            {
                "per_second": total / (ended - started),
                "late_per_second": (total - done_before) / (ended - late_from),
            },
        )

    yield run
