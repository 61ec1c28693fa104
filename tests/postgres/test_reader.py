"""Connections that read, and a server that is away for a moment."""

from __future__ import annotations

import pytest

from sessiondb import DatabaseSessionService
from tests.contract.places import APP, SESSION, USER
from tests.postgres.proxy import proxy

pytestmark = pytest.mark.anyio


async def test_first_read_of_a_service_waits_for_the_server(postgres_database: str) -> None:
    attempts = 0

    def password() -> str:
        """Is asked before each attempt to connect: the writer's, then the reader's."""
        nonlocal attempts
        attempts += 1
        if attempts == 3:
            between.accept()
        return ""

    with proxy(postgres_database) as between:
        async with DatabaseSessionService(between.url, password=password) as service:
            await service.create_session(APP, USER, SESSION)
            between.cut_all(refuse=True)
            assert len(await service.list_sessions()) == 1
    assert attempts >= 3
