"""Connections that read: a server that is away for a moment, and names that libpq would cut short."""

from __future__ import annotations

from typing import Any

import pytest

from sessiondb import DatabaseSessionService, errors
from sessiondb.model.queries import GetSession
from sessiondb.model.records import SessionKey
from sessiondb.stores import open_reader
from sessiondb.stores.postgres.asked import Asked
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


async def test_name_with_a_nul_does_not_lead_to_the_session_of_what_stands_before_it(postgres_database: str) -> None:
    async with DatabaseSessionService(postgres_database) as service:
        await service.create_session(APP, USER, SESSION)
    with open_reader(postgres_database) as reader:
        assert reader.ask(GetSession(SessionKey(APP, USER, SESSION))) is not None
        with pytest.raises(errors.StorageError, match="NUL"):
            reader.ask(GetSession(SessionKey(APP, USER, f"{SESSION}\0of another")))


async def test_page_by_a_value_of_state_goes_through_no_other_state(
    postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tables without statistics: the planner may not begin with the state of all sessions that have the key."""
    plans: list[str] = []
    ask = Asked.all

    def explaining(asked: Asked, statement: str, parameters: dict[str, Any]) -> list[tuple[Any, ...]]:
        if "ORDER BY" in statement:
            plans.append("\n".join(line for (line,) in ask(asked, f"EXPLAIN {statement}", parameters)))
        return ask(asked, statement, parameters)

    monkeypatch.setattr(Asked, "all", explaining)
    async with DatabaseSessionService(postgres_database) as service:
        for number in range(600):
            await service.create_session(APP, f"user {number % 7}", f"s{number}", {"open": number % 2, "n": 1})
        for state in ({"open": 1}, {"open": 1, "n": 1}):
            page = await service.list_sessions(APP, limit=50, state=state)
            assert [session.id for session in page.sessions] == [f"s{number}" for number in range(1, 101, 2)]
            await service.list_sessions(APP, limit=50, state=state, after=page.next)
    assert len(plans) == 4
    for plan in plans:
        assert "adk_sessions_updated" in plan
        assert not [word for word in ("Nested Loop", "Join", "Sort") if word in plan], plan
