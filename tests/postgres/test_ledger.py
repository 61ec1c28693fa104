"""What a writer does whose row of the ledger is gone, as after a failover to a standby that had not received it."""

from __future__ import annotations

import psycopg
import pytest

from sessiondb import DatabaseSessionService, errors
from sessiondb.stores.postgres.schema import grants
from tests.contract.places import APP, SESSION, USER, event
from tests.engine.tools import until

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


async def test_ledger_forgets_answers_that_nobody_waits_for(
    postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer holds the state of the session that was created."""
    monkeypatch.setattr("sessiondb.stores.postgres.writer._ANSWER_SECONDS", 0.05)
    async with DatabaseSessionService(postgres_database) as service:
        session = await service.create_session(APP, USER, SESSION, {"user:name": "Ada"})
        with psycopg.connect(postgres_database, autocommit=True) as connection:
            results = "SELECT results FROM sessiondb_writers"
            await until(lambda: connection.execute(results).fetchone() == (None,))
        await service.append_event(session, event(1))
        await service.create_session(APP, USER, "another")
        assert service.get_event_count(APP, USER, SESSION) == 1


async def test_erasure_forgets_answers_of_writers_that_are_gone(postgres_database: str) -> None:
    async with DatabaseSessionService(postgres_database) as service:
        with psycopg.connect(postgres_database, autocommit=True) as connection:
            connection.execute(
                "INSERT INTO sessiondb_writers VALUES"
                " (gen_random_uuid(), 1000, 'of the dead', now() - interval '2 hours'),"
                " (gen_random_uuid(), 2000, 'of the living', now())"
            )
            await service.erase_user(APP, USER)
            found = connection.execute("SELECT results FROM sessiondb_writers WHERE batch >= 1000 ORDER BY batch")
            assert found.fetchall() == [(None,), ("of the living",)]


async def test_role_that_may_not_vacuum_is_told(postgres_database: str) -> None:
    async with DatabaseSessionService(postgres_database) as owner:
        await owner.create_session(APP, USER, SESSION)
    with psycopg.connect(postgres_database, autocommit=True) as connection:
        connection.execute("CREATE ROLE of_an_app LOGIN")
        connection.execute(grants("public", "of_an_app").encode())
    try:
        async with DatabaseSessionService(postgres_database.replace("//postgres@", "//of_an_app@")) as service:
            report = await service.erase_user(APP, USER)
        assert (report.sessions, report.purged) == (1, False)
        assert "was not vacuumed" in report.hint
    finally:
        with psycopg.connect(postgres_database, autocommit=True) as connection:
            connection.execute("DROP OWNED BY of_an_app")
            connection.execute("DROP ROLE of_an_app")
