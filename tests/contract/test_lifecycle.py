"""Opening and closing, and the errors of a service that is closed."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from google.adk.errors import StaleSessionError, already_exists_error, session_not_found_error
from google.adk.errors.input_validation_error import InputValidationError
from google.adk.sessions import BaseSessionService, Session

from sessiondb import DatabaseSessionService, Retention, errors
from tests.contract.places import APP, SESSION, USER, event

pytestmark = [pytest.mark.anyio, pytest.mark.each_store]

Call = Callable[[DatabaseSessionService], Awaitable[object] | object]

CALLS: dict[str, Call] = {
    "create_session": lambda service: service.create_session(APP, USER),
    "get_session": lambda service: service.get_session(APP, USER, SESSION),
    "list_sessions": lambda service: service.list_sessions(),
    "delete_session": lambda service: service.delete_session(APP, USER, SESSION),
    "update_keys": lambda service: service.update_keys(APP, USER, SESSION, {"a": 1}),
    "get_user_state": lambda service: service.get_user_state(APP, USER),
    "flush": lambda service: service.flush(),
    "get_event_count": lambda service: service.get_event_count(APP, USER, SESSION),
    "get_stats": lambda service: service.get_stats(),
    "health": lambda service: service.health(),
    "vacuum": lambda service: service.vacuum(),
    "backup": lambda service: service.backup("never.sqlite3"),
    "history": lambda service: service.history(APP, USER),
    "get_session_at": lambda service: service.get_session_at(APP, USER, SESSION, seq=0),
    "fork_session": lambda service: service.fork_session(APP, USER, SESSION),
    "list_forks": lambda service: service.list_forks(APP),
    "truncate_session": lambda service: service.truncate_session(APP, USER, SESSION, after_event_id=None),
    "redact_events": lambda service: service.redact_events(APP, USER, SESSION, ["e1"]),
    "turn": lambda service: service.turn(APP, USER, SESSION),
    "append_events": lambda service: service.append_events(Session(id=SESSION, app_name=APP, user_id=USER), [event()]),
    "get_events": lambda service: service.get_events(APP, USER, SESSION),
    "iter_sessions": lambda service: anext(service.iter_sessions()),
    "iter_events": lambda service: anext(service.iter_events(APP, USER, SESSION)),
    "usage": lambda service: service.usage(),
    "erase_user": lambda service: service.erase_user(APP, USER),
    "prune": lambda service: service.prune(Retention(max_events=1)),
    "search": lambda service: service.search("word"),
}


async def _carry_out(call: Call, service: DatabaseSessionService) -> None:
    answer = call(service)
    if inspect.isawaitable(answer):
        await answer


async def test_service_is_adk_base_session_service(service: DatabaseSessionService) -> None:
    assert isinstance(service, BaseSessionService)


async def test_errors_derive_from_adk_and_from_one_base() -> None:
    assert issubclass(errors.AlreadyExistsError, already_exists_error.AlreadyExistsError)
    assert issubclass(errors.SessionNotFoundError, session_not_found_error.SessionNotFoundError)
    assert issubclass(errors.StaleSessionError, StaleSessionError)
    assert issubclass(errors.InvalidInputError, InputValidationError)
    # As in ADK itself: two of them are ValueErrors, for the sake of older callers.
    for error, is_value_error in (
        (errors.AlreadyExistsError, False),
        (errors.SessionNotFoundError, True),
        (errors.StaleSessionError, True),
        (errors.StorageError, False),
    ):
        assert issubclass(error, ValueError) == is_value_error
    own = [error for error in vars(errors).values() if inspect.isclass(error) and error.__module__ == errors.__name__]
    assert len(own) > 10
    assert all(issubclass(error, errors.SessionDBError) for error in own)


async def test_async_with_closes_the_service(location: Path | str) -> None:
    opened = DatabaseSessionService(location)
    async with opened as service:
        assert service is opened
        session = await service.create_session(APP, USER, SESSION)
    with pytest.raises(errors.ServiceClosedError):
        await service.append_event(session, event())


async def test_async_with_closes_after_an_exception(location: Path | str) -> None:
    with pytest.raises(ZeroDivisionError):
        async with DatabaseSessionService(location) as service:
            raise ZeroDivisionError
    with pytest.raises(errors.ServiceClosedError):
        await service.flush()


async def test_close_is_idempotent_and_concurrent(database_path: Path) -> None:
    service = DatabaseSessionService(database_path)
    await asyncio.gather(*(service.close() for _ in range(4)))
    await service.close()
    async with service:
        pass
    assert repr(service) == f"<DatabaseSessionService {str(database_path)!r} closed>"


async def test_closed_service_leaves_no_wal_and_no_shm(database_path: Path) -> None:
    async with DatabaseSessionService(database_path) as service:
        assert repr(service) == f"<DatabaseSessionService {str(database_path)!r}>"
        await service.create_session(APP, USER)
    assert [found.name for found in database_path.parent.iterdir()] == [database_path.name]


async def test_close_of_one_service_leaves_the_other_open(location: Path | str) -> None:
    async with DatabaseSessionService(location) as left:
        async with DatabaseSessionService(location):
            pass
        await left.create_session(APP, USER)
        assert left.get_stats()["sessions"] == 1


@pytest.mark.parametrize("name", CALLS)
async def test_each_call_on_closed_service_is_refused(name: str, location: Path | str) -> None:
    service = DatabaseSessionService(location)
    await service.create_session(APP, USER, SESSION)
    await service.close()
    with pytest.raises(errors.ServiceClosedError, match="closed"):
        await _carry_out(CALLS[name], service)


async def test_all_public_calls_are_tried_on_closed_service() -> None:
    public = {
        name
        for name in dir(DatabaseSessionService)
        if not name.startswith("_")
        and getattr(DatabaseSessionService, name) is not getattr(BaseSessionService, name, None)
    }
    assert public == {*CALLS, "append_event", "close"}
