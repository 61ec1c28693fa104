"""Rows that cannot be read: named, never quoted, and no harm to other sessions."""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import pytest

from sessiondb import DatabaseSessionService
from sessiondb.errors import CorruptRowError
from tests.engine.tools import APP, USER, create, event, get, other_program, outcomes, texts

pytestmark = pytest.mark.anyio


async def test_text_that_is_not_utf8_is_corrupt_row_error(database_path: Path, service: DatabaseSessionService) -> None:
    """Its row is named, its content is not quoted, and the reader that met it reads what comes later.

    Seen failing while sqlite3's own message went on, which quotes the text, and with a statement left half read, which
    keeps the reader at the moment of the error.
    """
    session = await service.create_session(APP, USER, "s", {"own": 1, "user:theirs": 2})
    await service.append_event(session, event())
    calls: dict[str, list[Callable[[], Awaitable[object]]]] = {
        "adk_events.content": [functools.partial(get, service, "s")],
        "adk_sessions.created_at": [service.list_sessions],
        "adk_state.state_value": [
            functools.partial(get, service, "s"),
            functools.partial(service.list_sessions, APP),
            functools.partial(service.get_user_state, APP, USER),
        ],
    }
    for place, reading in calls.items():
        table, _, column = place.partition(".")
        with closing(sqlite3.connect(database_path)) as connection, connection:
            (before,) = connection.execute(f"SELECT {column} FROM {table} ORDER BY rowid DESC").fetchone()
            connection.execute(f"UPDATE {table} SET {column} = CAST(x'22736563726574ff22' AS TEXT)")
        errors = await outcomes(reading)
        for error in errors:
            assert isinstance(error, CorruptRowError)
            assert f"{column} of row 1 of {table} is not UTF-8" in str(error)
            assert "secret" not in str(error)
        with closing(sqlite3.connect(database_path)) as connection, connection:
            connection.execute(f"UPDATE {table} SET {column} = ?", (before,))
        for read in reading:
            assert not isinstance((await outcomes([read]))[0], Exception)


async def test_corrupt_event_row_fails_its_session_only(database_path: Path, service: DatabaseSessionService) -> None:
    session, other = await create(service), await create(service, "other")
    await service.append_event(session, event())
    await service.append_event(other, event())
    with other_program(database_path, "UPDATE adk_events SET actions = '{\"no\": 1}' WHERE session_id = 's'"):
        pass
    for _ in range(2):
        with pytest.raises(CorruptRowError, match="event 1 of session 's'"):
            await get(service, "s")
    assert await texts(service, "other") == ["hello"]
    with other_program(database_path, "UPDATE adk_events SET actions = '{}' WHERE session_id = 's'"):
        pass
    assert await texts(service, "s") == ["hello"]
