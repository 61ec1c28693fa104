"""Live Session objects: which revision each one stands at, with appends on their way or without its own marker.

Seen to fail with a handle that trusts the marker of any service.
"""

from __future__ import annotations

import functools
from types import MappingProxyType

import anyio
import pytest
from google.adk.sessions import Session

from sessiondb import DatabaseSessionService
from sessiondb.errors import StaleSessionError
from tests.engine.tools import APP, USER, create, event, get, happened, outcomes, pending, texts, until, writer_stopped

pytestmark = [pytest.mark.anyio, pytest.mark.each_store]


async def test_stale_check_of_session_restored_from_json(service: DatabaseSessionService) -> None:
    """Restored from JSON, or from another service: its last event tells where it stands."""
    session = await create(service)
    empty = Session.model_validate_json(session.model_dump_json())
    await service.append_event(session, event("1"))
    restored = Session.model_validate_json(session.model_dump_json())
    foreign = session.model_copy(deep=True)
    foreign._storage_update_marker = "2026-01-01 00:00:00"
    with pytest.raises(StaleSessionError):
        await service.append_event(empty, event("too late"))
    await service.append_event(restored, event("2"))
    with pytest.raises(StaleSessionError):
        await service.append_event(foreign, event("too late"))
    fresh = restored.model_copy(deep=True)
    fresh._storage_update_marker = "another service:7:7"
    await service.append_event(fresh, event("3"))
    assert await texts(service, "s") == ["1", "2", "3"]


async def test_concurrent_appends_through_restored_session(service: DatabaseSessionService) -> None:
    await create(service)
    other = await create(service, "other")
    restored = Session(id="s", app_name=APP, user_id=USER)
    with writer_stopped(service) as gate:
        async with anyio.create_task_group() as group:
            group.start_soon(service.append_event, other, event())
            await happened(gate.reached)
            for number in range(3):
                group.start_soon(service.append_event, restored, event(f"{number}"))
                await until(lambda number=number: pending(service) == number * 2 + 1)  # type: ignore[misc]
                group.start_soon(service.create_session, APP, USER, f"between {number}")
                await until(lambda number=number: pending(service) == number * 2 + 2)  # type: ignore[misc]
            gate.open()
    assert await texts(service, "s") == ["0", "1", "2"]
    await service.append_event(restored, event("3"))


async def test_append_to_read_only_session_state_is_stored(service: DatabaseSessionService) -> None:
    """The event is stored, the error of bringing the Session in line reaches the caller, and the loop goes on."""
    session, other = await create(service), await create(service, "other")
    session.state = MappingProxyType({})  # type: ignore[assignment]  # a host's own idea
    results = await outcomes(
        [functools.partial(service.append_event, each, event(state={"k": 1})) for each in (session, other)]
    )
    assert isinstance(results[0], AttributeError)
    assert results[1] == other.events[0]
    assert (await get(service, "s")).state == {"k": 1}
