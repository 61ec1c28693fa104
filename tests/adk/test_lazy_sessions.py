"""Sessions whose events are made when somebody looks at them: they do all that a Session does.

Seen failing with each of ``__class__``, ``__dict__``, its setter, ``__getattr__`` and ``__reduce_ex__`` taken out.
"""

from __future__ import annotations

import copy
import pickle  # noqa: TID251  # what users do with models
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from google.adk.events import Event
from google.adk.sessions import Session
from pydantic import BaseModel, TypeAdapter

from sessiondb import DatabaseSessionService
from sessiondb.adk.sessions import LazySession, _fields_of
from sessiondb.engine.reading import DeferredEvents
from sessiondb.testing import typical_event

KEY = ("my_app", "user_123", "s")

pytestmark = [pytest.mark.anyio, pytest.mark.each_store]


class Holder(BaseModel):
    """A model of a host, with a Session in it."""

    session: Session


WAYS: dict[str, Callable[[Session], object]] = {
    "itself": lambda session: session,
    "events": lambda session: session.events,
    "getattr": lambda session: getattr(session, "events"),  # noqa: B009  # by its name
    "hasattr": lambda session: (hasattr(session, "events"), hasattr(session, "nothing")),
    "class": lambda session: (session.__class__, isinstance(session, Session), isinstance(session, BaseModel)),
    "dict": dict,
    "vars": vars,
    "list": list,
    "repr": repr,
    "str": str,
    "model_dump": lambda session: session.model_dump(),
    "model_dump of some": lambda session: session.model_dump(include={"id", "events"}),
    "model_dump_json": lambda session: session.model_dump_json(by_alias=True, exclude_none=True),
    "type adapter": lambda session: TypeAdapter(list[Session]).dump_json([session]),
    "within a model": lambda session: Holder(session=session).model_dump_json(),
    "model_validate": Session.model_validate,
    "from JSON": lambda session: Session.model_validate_json(session.model_dump_json()),
    "from dict": lambda session: Session(**session.model_dump()),
    "model_copy": lambda session: session.model_copy(),
    "model_copy with other events": lambda session: session.model_copy(update={"events": []}),
    "model_copy(deep=True)": lambda session: session.model_copy(deep=True),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "deepcopy within": lambda session: copy.deepcopy([session]),
    "pickle": lambda session: pickle.loads(pickle.dumps(session)),  # noqa: S301  # pickled here
    "fields set": lambda session: session.model_fields_set,
    "extra": lambda session: session.model_extra,
    "state": lambda session: session.__getstate__(),
}


async def read(service: DatabaseSessionService) -> Session:
    session = await service.get_session(*KEY)
    assert session is not None
    return session


async def unread(service: DatabaseSessionService) -> Session:
    """A Session that nobody has looked into."""
    session = await read(service)
    assert type(session) is LazySession
    assert _is_deferred(session)
    return session


def _is_deferred(session: Session) -> bool:
    return "events" not in _fields_of(session)


@pytest.fixture
async def filled(service: DatabaseSessionService) -> DatabaseSessionService:
    session = await service.create_session(*KEY[:2], "s", {"k": 1})
    for _ in range(3):
        await service.append_event(session, typical_event())
    await read(service)
    return service


@pytest.mark.parametrize("way", WAYS)
async def test_lazy_session_is_a_session_in_every_way(
    filled: DatabaseSessionService, location: Path | str, way: str
) -> None:
    async with DatabaseSessionService(location, log_cache="off") as other:
        plain = await read(other)
    assert type(plain) is Session
    assert WAYS[way](await unread(filled)) == WAYS[way](plain)


async def test_pickled_lazy_session_is_a_plain_one(filled: DatabaseSessionService) -> None:
    """It can be read where sessiondb is not installed."""
    pickled = pickle.dumps(await unread(filled))
    assert b"sessiondb" not in pickled.replace(b"sessiondb:", b"")
    assert type(pickle.loads(pickled)) is Session  # noqa: S301  # pickled here


async def test_append_does_not_look_at_the_events(filled: DatabaseSessionService) -> None:
    session = await unread(filled)
    for number in range(2):
        await filled.append_event(session, Event(author="agent", id=f"e{number}"))
    assert _is_deferred(session)
    assert session == await read(filled)
    await filled.append_event(session, Event(author="agent", id="after"))
    assert [event.id for event in session.events][-3:] == ["e0", "e1", "after"]
    assert session == await read(filled)


async def test_fields_of_lazy_session_are_assigned(filled: DatabaseSessionService) -> None:
    session = await unread(filled)
    session.events = []
    session.last_update_time = 2.5
    assert (session.events, session.last_update_time) == ([], 2.5)
    session = await unread(filled)
    session.id = "another"
    assert (session.id, len(session.events)) == ("another", 3)


async def test_lazy_session_shows_the_moment_at_which_it_was_read(filled: DatabaseSessionService) -> None:
    session = await unread(filled)
    await filled.append_event(await read(filled), typical_event())
    assert len(session.events) == 3
    deleted = await unread(filled)
    await filled.delete_session(*KEY)
    assert len(deleted.events) == 4


async def test_threads_that_look_at_the_same_time_see_one_list(
    filled: DatabaseSessionService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen failing without the lock."""
    session = await unread(filled)
    begun, go_on = threading.Event(), threading.Event()
    take = DeferredEvents.take

    def held_up(self: DeferredEvents) -> list[Any]:
        begun.set()
        assert go_on.wait(60)
        return take(self)

    monkeypatch.setattr(DeferredEvents, "take", held_up)
    seen: list[list[Event]] = []

    def look() -> None:
        seen.append(session.events)

    def append() -> None:
        # Meanwhile an append of another loop is answered.
        anyio.run(filled.append_event, session, Event(author="agent", id="meanwhile"))

    async with anyio.create_task_group() as group:
        group.start_soon(anyio.to_thread.run_sync, look)
        await anyio.to_thread.run_sync(begun.wait)
        group.start_soon(anyio.to_thread.run_sync, look)
        group.start_soon(anyio.to_thread.run_sync, append)
        await anyio.to_thread.run_sync(filled.get_stats)
        go_on.set()
    assert seen[0] is seen[1] is session.events
    assert session.events[-1].id == "meanwhile"
    assert session == await read(filled)
