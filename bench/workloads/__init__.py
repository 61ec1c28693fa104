"""What is timed, by name: a workload prepares a service and yields a function that runs one round."""

from __future__ import annotations

from bench.workloads import (  # noqa: F401  # each registers its own
    conversations,
    footprint,
    growth,
    processes,
    reads,
    server,
    writes,
)
from bench.workloads.registry import WORKLOADS, Round

__all__ = ["WORKLOADS", "Round"]
