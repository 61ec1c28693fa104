"""What a writer does whose row of the ledger is gone, as after a failover to a standby that had not received it."""

from __future__ import annotations

import psycopg
import pytest

from sessiondb import DatabaseSessionService, errors
from tests.contract.places import APP, SESSION, USER, event

pytestmark = pytest.mark.anyio


def _forget_writers(url: str) -> None:
    with psycopg.connect(url) as connection:
        assert connection.execute("DELETE FROM sessiondb_writers").rowcount == 1


async def test_writer_that_was_never_answered_takes_another_row(postgres_database: str) -> None:
    async with DatabaseSessionService(postgres_database) as service:
        _forget_writers(postgres_database)
        session = await service.create_session(APP, USER, SESSION)
        await service.append_event(session, event(1))
        assert service.get_event_count(APP, USER, SESSION) == 1


async def test_writer_whose_answers_are_lost_stops_and_says_so(postgres_database: str) -> None:
    async with DatabaseSessionService(postgres_database) as service:
        session = await service.create_session(APP, USER, SESSION)
        _forget_writers(postgres_database)
        with pytest.raises(errors.WritesLostError, match="has lost writes that were acknowledged"):
            await service.append_event(session, event(1))
        assert not service.health().healthy
        with pytest.raises(errors.WritesLostError):
            await service.append_event(session, event(2))
        # What is there can be read.
        assert service.get_event_count(APP, USER, SESSION) == 0
