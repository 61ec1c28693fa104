"""get_session, warm and cold; list_sessions."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator

from google.adk.sessions import BaseSessionService
from google.adk.sessions.base_session_service import GetSessionConfig

from bench import data
from bench.timing import Sample, Timer, median_sample, quantile
from bench.workloads.registry import Round, workload
from bench.workloads.seeding import SEEDED, read


async def _get_round(
    service: BaseSessionService, times: int, expected: int, config: GetSessionConfig | None = None
) -> Sample:
    gc.collect()
    latencies: list[float] = []
    for _ in range(times):
        with Timer(latencies):
            session = await read(service, "s0", config)
        assert len(session.events) == expected
    return median_sample(latencies, p99=quantile(latencies, 0.99))


@workload
async def get(name: str, *, events: int, times: int, last: int | None = None) -> AsyncIterator[Round]:
    """get_session of ``events`` events that were read before, median; or of the ``last`` of them."""
    config = None if last is None else GetSessionConfig(num_recent_events=last)
    async with SEEDED.open(name, 1, events) as (service, _):
        await read(service, "s0", config)
        yield lambda: _get_round(service, times, events if last is None else min(events, last), config)


@workload
async def get_cold(name: str, *, events: int, times: int) -> AsyncIterator[Round]:
    """The first get_session of a service that was opened just before, median."""

    async def run() -> Sample:
        latencies = []
        for _ in range(times):
            async with SEEDED.open(name, 1, events) as (service, _):
                latencies.append((await _get_round(service, 1, events)).seconds)
        return median_sample(latencies)

    async with SEEDED.open(name, 1, events):
        pass
    yield run


@workload
async def list_sessions(name: str, *, sessions: int, times: int) -> AsyncIterator[Round]:
    """list_sessions of one user with ``sessions`` sessions, median."""
    async with SEEDED.open(name, sessions, 0) as (service, _):

        async def run() -> Sample:
            gc.collect()
            latencies: list[float] = []
            for _ in range(times):
                with Timer(latencies):
                    listed = await service.list_sessions(app_name=data.APP, user_id=data.USER)
                assert len(listed.sessions) == sessions
            return median_sample(latencies)

        yield run
