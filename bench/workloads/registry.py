"""The workloads by name."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from bench.timing import Sample

Round = Callable[[], Awaitable[Sample]]
Workload = AbstractAsyncContextManager[Round]
WORKLOADS: dict[str, Callable[..., Workload]] = {}


def workload(make: Callable[..., AsyncIterator[Round]]) -> Callable[..., Workload]:
    """Registers a workload under the name of its function."""
    made = asynccontextmanager(make)
    WORKLOADS[make.__name__] = made
    return made
