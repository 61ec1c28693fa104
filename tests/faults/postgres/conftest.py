"""Processes that are hosts, and servers to harm."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.zygote import Zygote
from tests.postgres.server import Server, server


@pytest.fixture(scope="session")
def hosts() -> Iterator[Zygote]:
    """Starts processes that use a server."""
    with Zygote(None, imports="tests.faults.postgres.clients") as zygote:
        yield zygote


@pytest.fixture(scope="module")
def harmed_server() -> Iterator[Server]:
    """A server that the tests of a module may do anything to, if it runs in the end."""
    # Processes are killed here, not computers: what was written is there, synced or not.
    with server(fsync=False) as running:
        yield running
