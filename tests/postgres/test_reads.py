"""Reading by libpq's own calls."""

from __future__ import annotations

import pytest

from sessiondb import DatabaseSessionService, errors
from sessiondb.model.queries import GetSession
from sessiondb.model.records import SessionKey
from sessiondb.stores import open_reader
from tests.contract.places import APP, USER

pytestmark = pytest.mark.anyio


async def test_name_with_a_nul_does_not_lead_to_the_session_of_what_stands_before_it(postgres_database: str) -> None:
    async with DatabaseSessionService(postgres_database) as service:
        await service.create_session(APP, USER, "s")
    with open_reader(postgres_database) as reader:
        assert reader.ask(GetSession(SessionKey(APP, USER, "s"))) is not None
        with pytest.raises(errors.StorageError, match="NUL"):
            reader.ask(GetSession(SessionKey(APP, USER, "s\0of another")))
