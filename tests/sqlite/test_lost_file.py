"""A file, or a table in it, that is taken away while it is open: calls fail, nothing is stored, and all goes on once
it is back.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest

from sessiondb import DatabaseSessionService
from sessiondb.errors import StorageError
from tests.engine.tools import APP, USER, create, event, get, move, other_program, outcomes, texts

pytestmark = pytest.mark.anyio


async def test_file_lost_replaced_and_put_back(database_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sessiondb.stores.sqlite.writer._CHECK_SECONDS", 0)
    async with DatabaseSessionService(database_path) as service:
        session = await create(service)
        away = database_path.with_suffix(".away")
        with other_program(database_path.with_name("another"), "CREATE TABLE t (x)"):
            pass
        move(database_path, away)
        results = await outcomes([functools.partial(service.append_event, session, event())])
        assert type(results[0]).__name__ == "FileLostError"
        assert session.events == []
        move(away.with_name("another"), database_path)
        results = await outcomes([functools.partial(service.append_event, session, event())])
        assert "replaced" in str(results[0])
        move(away, database_path)
        await service.append_event(session, event())
        assert await texts(service, "s") == ["hello"]


async def test_file_lost_before_a_reader_opens_it(database_path: Path, service: DatabaseSessionService) -> None:
    """No reader is open yet, and none can be opened: the caller is told, and the service recovers."""
    await create(service)
    away = database_path.with_suffix(".away")
    move(database_path, away)
    results: list[Any] = await outcomes([service.list_sessions])
    assert isinstance(results[0], StorageError)
    with pytest.raises(StorageError):
        await service.get_user_state(APP, USER)
    move(away, database_path)
    assert len(await service.list_sessions()) == 1
    assert await service.get_user_state(APP, USER) == {}


async def test_renamed_table_fails_calls_until_it_is_back(database_path: Path, service: DatabaseSessionService) -> None:
    """Calls fail meanwhile, nothing of them is stored, and the service goes on.

    Seen failing while a batch of one command was not tried again: every single append was refused from then on.
    """
    session = await create(service)
    await service.append_event(session, event("before"))
    assert await texts(service, "s") == ["before"]
    with other_program(database_path, "PRAGMA legacy_alter_table=ON", "ALTER TABLE adk_events RENAME TO away") as other:
        for call in (
            functools.partial(service.append_event, session, event("meanwhile")),
            functools.partial(get, service, "s"),
        ):
            assert isinstance((await outcomes([call]))[0], StorageError)
        other.execute("ALTER TABLE away RENAME TO adk_events")
    await service.append_event(session, event("after"))
    assert await texts(service, "s") == ["before", "after"]
    assert service.get_event_count(APP, USER, "s") == 2
