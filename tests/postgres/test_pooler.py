"""A service behind a pooler in transaction mode: each transaction may be served by another connection."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from urllib.parse import urlsplit

import psycopg
import pytest

from sessiondb import DatabaseSessionService, errors
from sessiondb.model.queries import GetLogEnd, ListEvents
from sessiondb.stores import open_reader
from tests.contract.places import APP, SESSION, USER, event
from tests.postgres.pooler import pooler
from tests.postgres.server import Server

pytestmark = pytest.mark.anyio


@pytest.fixture
def behind(postgres_server: Server, postgres_database: str) -> Iterator[str]:
    """The URL of an empty database, by way of a pooler with two connections."""
    with pooler(postgres_server) as port:
        yield urlsplit(postgres_database)._replace(netloc=f"postgres@127.0.0.1:{port}").geturl()


async def test_hosts_behind_a_pooler_share_sessions(behind: str) -> None:
    url = f"{behind}?transaction_pooling=true"
    # Another spelling of the address makes the second a host of its own.
    async with DatabaseSessionService(url) as one, DatabaseSessionService(url.replace("127.0.0.1", "localhost")) as two:

        async def converse(service: DatabaseSessionService, user: str) -> None:
            session = await service.create_session(APP, user, SESSION)
            for n in range(20):
                await service.append_event(session, event(n, n=n, app__last=user))
            found = await service.get_session(APP, user, SESSION)
            assert found is not None
            assert found.events == session.events

        await asyncio.gather(*(converse(service, f"{n}") for n, service in enumerate([one, two] * 4)))
        for user in map(str, range(8)):
            for service in (one, two):
                session = await service.get_session(APP, user, SESSION)
                assert session is not None
                assert [found.timestamp for found in session.events] == list(range(20))
                assert session.state["n"] == 19
        assert len((await one.list_sessions()).sessions) == 8
        one.vacuum()
        with open_reader(url) as reader:
            with reader.snapshot():
                assert len(list(reader.ask(ListEvents()))) == 160
                end = reader.ask(GetLogEnd())
            await two.update_keys(APP, "0", SESSION, {"k": 1})
            assert [found.key.user_id for found in reader.ask(ListEvents(after=end))] == ["0"]


async def test_stale_and_repeated_appends_behind_a_pooler(behind: str) -> None:
    async with DatabaseSessionService(behind, transaction_pooling=True) as service:
        session = await service.create_session(APP, USER, SESSION)
        stale = session.model_copy(deep=True)
        stored = await service.append_event(session, event(1, event_id="e"))
        await service.append_event(session, stored)
        with pytest.raises(errors.StaleSessionError):
            await service.append_event(stale, event(2))
        assert service.get_event_count(APP, USER, SESSION) == 1


async def test_turns_are_refused_behind_a_pooler(behind: str) -> None:
    async with DatabaseSessionService(behind, transaction_pooling=True) as service:
        with pytest.raises(errors.ConfigurationError, match="turns need a connection of their own"):
            async with service.turn(APP, USER, SESSION):
                pytest.fail("the turn began")


async def test_pooler_of_which_nothing_was_said_is_recognized(behind: str) -> None:
    with pytest.raises(errors.ServerUnreachableError, match="transaction_pooling"):
        DatabaseSessionService(behind)


async def test_server_whose_settings_do_not_fit_is_refused(behind: str, postgres_database: str) -> None:
    database = postgres_database.rpartition("/")[2]
    with psycopg.connect(postgres_database, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {database} SET default_transaction_isolation = 'repeatable read'")
    with pytest.raises(errors.UnsupportedDatabaseError, match=r"repeatable read.*ALTER ROLE"):
        DatabaseSessionService(behind, transaction_pooling=True)
    # On a connection of its own it sets what it needs.
    async with DatabaseSessionService(postgres_database) as service:
        session = await service.create_session(APP, USER, SESSION)
        await service.append_event(session, event(1))
