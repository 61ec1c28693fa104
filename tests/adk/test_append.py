"""What may be appended: ADK's own objects, and an event that is delivered again once only.

Seen to fail with redelivery compared letter by letter.
"""

from __future__ import annotations

import functools
from typing import Any

import pytest
from google.adk.events import Event

from sessiondb import DatabaseSessionService
from sessiondb.errors import InvalidInputError
from tests.engine.tools import APP, USER, create, event, get, texts

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.each_store,
    pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"]),
]


async def test_append_of_wrong_type_is_invalid_input(service: DatabaseSessionService) -> None:
    session = await create(service)
    wrong: Any = {"id": "s"}
    no_mapping: Any = ["k"]
    for call in (
        functools.partial(service.append_event, wrong, event()),
        functools.partial(service.append_event, session, wrong),
        functools.partial(service.update_keys, APP, USER, "s", no_mapping),
        functools.partial(service.get_session, APP, USER, wrong),
    ):
        with pytest.raises(InvalidInputError):
            await call()
    partial = event(partial=True)
    assert await service.append_event(session, partial) is partial
    assert session.events == []
    assert (await service.create_session(APP, USER, "t", None)).state == {}


async def test_duplicate_event_is_known_by_its_content(service: DatabaseSessionService) -> None:
    session = await create(service)
    first = event("once", {"a": 1, "b": 2}, id="e", timestamp=5.0)
    await service.append_event(session, first)
    again = await get(service, "s")
    await service.append_event(again, event("once", {"b": 2, "a": 1}, id="e", timestamp=5.0))
    await service.append_event(session, event("once", {"a": 1, "b": 2}, id="e", timestamp=5.0))
    assert await texts(service, "s") == ["once"]
    # Others of the same id are events of their own.
    await service.append_event(session, event("once", {"a": 1, "b": 3}, id="e", timestamp=5.0))
    await service.append_event(session, Event(author="user", id="e", timestamp=5.0))
    await service.update_keys(APP, USER, "s", {"c": 1})
    found = await get(service, "s")
    assert [each.id for each in found.events][:3] == ["e", "e", "e"]
    assert found.state == {"a": 1, "b": 3, "c": 1}
