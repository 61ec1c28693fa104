"""The direct way to copy, make and change models: it does what pydantic does, and is left when it does not."""

from __future__ import annotations

import copy
import logging
import pickle  # noqa: TID251  # what users do with models
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.adk.events import Event, EventActions
from google.adk.sessions import Session
from pydantic import BaseModel, Field, PrivateAttr

from sessiondb import DatabaseSessionService, errors
from sessiondb.adk import sessions
from sessiondb.adk.sessions import LazySession, ModelAccess, choose_access, model_access
from sessiondb.model.records import SessionKey
from tests.full_models import full_event

KEY = SessionKey("my_app", "user_123", "s")


@pytest.fixture(autouse=True)
def _chosen_anew() -> Iterator[None]:
    choose_access.cache_clear()
    yield
    choose_access.cache_clear()


@pytest.fixture(params=["direct", "ordinary"])
def access(request: pytest.FixtureRequest) -> ModelAccess:
    return choose_access() if request.param == "direct" else ModelAccess()


def test_the_direct_way_is_chosen() -> None:
    assert type(choose_access()) is not ModelAccess


def _assert_usable(model: BaseModel, like: BaseModel) -> None:
    for same in (model, model.model_copy(), model.model_copy(deep=True), copy.deepcopy(model), copy.copy(model)):
        assert same == like
    assert pickle.loads(pickle.dumps(model)) == like  # noqa: S301  # pickled here
    assert model.model_dump() == like.model_dump()
    assert model.model_dump_json(exclude_unset=True) == like.model_dump_json(exclude_unset=True)
    assert model.model_fields_set == like.model_fields_set
    assert model.model_extra == like.model_extra
    assert repr(model) == repr(like)


@pytest.mark.parametrize("event", [full_event(), Event(author="agent")], ids=["full", "plain"])
def test_copies_of_events(access: ModelAccess, event: Event) -> None:
    (copied,) = access.copy_events([event])
    _assert_usable(copied, event.model_copy())
    assert copied.actions is event.actions
    branch = event.branch
    copied.branch = "another"
    assert (event.branch, copied.branch) == (branch, "another")
    _assert_usable(copied, event.model_copy(update={"branch": "another"}))


def test_new_sessions_and_their_markers(access: ModelAccess) -> None:
    event = full_event()
    state, events = {"k": [1]}, [event]
    session = access.new_session(KEY, state, events, 1.5, "marker")
    like = Session(
        id="s", app_name="my_app", user_id="user_123", state={"k": [1]}, events=[event], last_update_time=1.5
    )
    assert access.get_marker(like) is None
    like._storage_update_marker = "marker"
    assert access.get_marker(session) == access.get_marker(like) == session._storage_update_marker == "marker"
    _assert_usable(session, like)
    session.state, like.state = {}, {}
    access.set_field(session, "last_update_time", 2.5)
    like.last_update_time = 2.5
    access.set_marker(session, "another")
    like._storage_update_marker = "another"
    _assert_usable(session, like)
    assert session.last_update_time == 2.5


def test_a_session_without_private_attributes_gets_a_marker() -> None:
    access = choose_access()
    session = Session(id="s", app_name="my_app", user_id="user_123")
    object.__setattr__(session, "__pydantic_private__", None)
    assert access.get_marker(session) is None
    access.set_marker(session, "marker")
    assert access.get_marker(session) == session._storage_update_marker == "marker"


def test_a_field_that_is_set_counts_as_given(access: ModelAccess) -> None:
    actions = EventActions()
    access.set_field(actions, "state_delta", {"k": 1})
    _assert_usable(actions, EventActions(state_delta={"k": 1}))


# --- Other releases of ADK and pydantic -------------------------------------------------------------------------------


class SessionWithText(Session):
    title: str = "untitled"


class SessionWithList(Session):
    tags: list[str] = Field(default_factory=list)


class SessionWithAttribute(Session):
    _seen: int = PrivateAttr(default=0)


class SessionThatIsPrepared(Session):
    def model_post_init(self, context: Any) -> None:
        super().model_post_init(context)
        self.state["prepared"] = True


class EventWithAttribute(Event):
    _seen: int = PrivateAttr(default=0)


OTHER_RELEASES: dict[str, tuple[str, object, str]] = {
    "a slot has another name": ("_SLOTS", ("__fields_of_tomorrow__", "b", "c"), "KeyError"),
    "slots have changed places": (
        "_SLOTS",
        ("__pydantic_extra__", "__pydantic_fields_set__", "__pydantic_private__"),
        "AttributeError",
    ),
    "a field of sessions has a default that can be changed": ("Session", SessionWithList, "its models differ"),
    "sessions have another private attribute": ("Session", SessionWithAttribute, "its models differ"),
    "sessions are prepared when they are made": ("Session", SessionThatIsPrepared, "its models differ"),
    "events have private attributes": ("Event", EventWithAttribute, "its models differ"),
}


@pytest.mark.parametrize("release", OTHER_RELEASES)
def test_the_direct_way_is_left_when_adk_or_pydantic_has_changed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, release: str
) -> None:
    name, value, reason = OTHER_RELEASES[release]
    monkeypatch.setattr(sessions, name, value)
    with caplog.at_level(logging.WARNING, logger="sessiondb"):
        access = choose_access()
        assert choose_access() is access
    assert type(access) is ModelAccess
    (record,) = caplog.records
    assert record.message == "fast_model_access_unavailable"
    assert record.__dict__["reason"] == reason
    session = access.new_session(KEY, {"k": 1}, access.copy_events([full_event()]), 1.5, "marker")
    assert (session.state["k"], session.events, session.last_update_time) == (1, [full_event()], 1.5)
    assert access.get_marker(session) == "marker"


def test_a_new_field_with_a_plain_default_is_no_reason_to_leave_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "Session", SessionWithText)
    overridden = ("__class__", "__dict__", "__getattr__", "__reduce_ex__")
    own = {"__module__": __name__, "__qualname__": "Lazy", **{name: vars(LazySession)[name] for name in overridden}}
    metaclass: Any = type(SessionWithText)
    monkeypatch.setattr(sessions, "LazySession", metaclass("Lazy", (SessionWithText,), own))
    access = choose_access()
    assert type(access) is not ModelAccess
    session = access.new_session(KEY, {}, [], 1.5, "marker")
    assert isinstance(session, SessionWithText)
    assert session.title == "untitled"


@pytest.mark.anyio
@pytest.mark.parametrize("log_cache", ["copy", "share", "off"])
async def test_a_service_does_the_same_in_either_way(
    access: ModelAccess, monkeypatch: pytest.MonkeyPatch, database_path: Path, log_cache: Any
) -> None:
    for name in ("copy_events", "new_session", "set_field", "get_marker", "set_marker"):
        monkeypatch.setattr(model_access, name, getattr(access, name))
    async with DatabaseSessionService(database_path, log_cache=log_cache) as service:
        session = await service.create_session(*KEY[:2], session_id="s", state={"own": 1, "user:theme": "dark"})
        stale = await service.get_session(*KEY)
        assert stale == session
        first, second = Event(author="user"), full_event()
        for event in (first, second):
            await service.append_event(session, event)
        read, again = await service.get_session(*KEY), await service.get_session(*KEY)
        assert read == again == session
        assert read is not None
        assert read.events == [first, second]
        assert (await service.list_sessions(KEY.app_name)).sessions == [read.model_copy(update={"events": []})]
        with pytest.raises(errors.StaleSessionError):
            await service.append_event(stale, Event(author="user"))
        await service.append_event(read, Event(author="user", actions=EventActions(state_delta={"own": None})))
        assert "own" not in read.state
        assert await service.get_session(*KEY) == read
