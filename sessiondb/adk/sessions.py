"""ADK's Sessions: made of stored records, with the revision marker that they carry; and how models are written to.

Models are made, copied and changed by writing where pydantic keeps their fields.

pydantic's own functions find out on each call what kind of model they were given, and validate values that are known to
be valid. For every event of every read, and several times an append, that costs too much. But where pydantic keeps the
fields may change in any release. So the direct way is compared with pydantic's own on samples, once; if any result
differs, pydantic's own is used.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, SupportsIndex, cast

from google.adk.events import Event, EventActions
from google.adk.sessions import Session
from google.genai import types
from pydantic import BaseModel
from pydantic_core import from_json
from typing_extensions import override

from sessiondb.adk import scopes
from sessiondb.errors import CorruptRowError
from sessiondb.logger import logger
from sessiondb.model.commands import Handle
from sessiondb.model.records import Outcome, SessionHead, SessionKey

_SLOTS = ("__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__")

# What a marker of sessiondb begins with.
_MARKER_KIND = "sessiondb"

# The private attribute that ADK provides for the revision marker of a storage.
_MARKER = "_storage_update_marker"

# The fields that a new Session is given.
_SESSION_FIELDS = {"id", "app_name", "user_id", "state", "events", "last_update_time"}


class DeferredEvents(Protocol):
    """Events that are made when somebody looks at them."""

    @property
    def lock(self) -> AbstractContextManager[object]:
        """Held by whoever calls a method, or changes the Session that has them."""

    def append(self, event: Event) -> None:
        """Adds an event at the end."""

    def take(self) -> list[Event]:
        """Makes them, and gives up the list of them."""


# Where pydantic has the fields of a model, whatever a class says of its __dict__.
_fields_of: Callable[[BaseModel], dict[str, Any]] = BaseModel.__dict__["__dict__"].__get__
_set_fields: Callable[[BaseModel, dict[str, Any]], None] = BaseModel.__dict__["__dict__"].__set__

_DEFERRED = "_deferred_events"
"""The place of a LazySession's events that nobody has looked at."""


class LazySession(Session):
    """A Session whose events are made when somebody looks at them.

    Nobody can tell it from a Session, but by ``type()``. Whoever looks at its ``__dict__``, as pydantic does for all that
    it does with a model, finds all fields there.
    """

    @property  # type: ignore[misc]  # nobody assigns to it
    def __class__(self) -> type[Session]:  # type: ignore[override]  # what it is for everybody else
        return Session

    @property
    def __dict__(self) -> dict[str, Any]:
        deferred: DeferredEvents | None = _fields_of(self).get(_DEFERRED)
        if deferred is not None:
            with deferred.lock:
                fields = _fields_of(self)
                if _DEFERRED in fields:
                    events = deferred.take()
                    # In the order that the class has them in.
                    _set_fields(self, {name: fields.get(name, events) for name in Session.model_fields})
        return _fields_of(self)

    @__dict__.setter
    def __dict__(self, fields: dict[str, Any]) -> None:
        _set_fields(self, fields)

    def __getattr__(self, name: str) -> Any:
        if name == "events":
            return self.__dict__[name]
        return BaseModel.__getattr__(self, name)  # type: ignore[attr-defined]  # pydantic hides it from type checkers

    @override
    def __reduce_ex__(self, protocol: SupportsIndex) -> str | tuple[Any, ...]:
        # A copy in another process is a plain Session, and needs no sessiondb there.
        plain = Session.__new__(Session)
        plain.__setstate__(self.__getstate__())
        return plain.__reduce_ex__(protocol)


class ModelAccess:
    """Copies, makes and changes models with pydantic's public functions."""

    def copy_events(self, events: Iterable[Event]) -> list[Event]:
        """Copies decoded events. Each copy has fields of its own; the values in them are shared."""
        return [event.model_copy() for event in events]

    def new_session(
        self,
        key: SessionKey,
        state: dict[str, Any],
        events: list[Event] | DeferredEvents,
        update_time: float,
        marker: str,
    ) -> Session:
        """Makes a Session of valid values. It may keep the dict and the list that it was given."""
        fields = {
            "id": key.session_id,
            "app_name": key.app_name,
            "user_id": key.user_id,
            "state": state,
            "events": events,
            "last_update_time": update_time,
        }
        return self._make_session(fields, marker)

    def append_event(self, session: Session, event: Event) -> None:
        """Adds an event to those of a Session; it need not look at the others."""
        session.events.append(event)

    def _make_session(self, fields: dict[str, Any], marker: str) -> Session:
        if not isinstance(fields["events"], list):
            deferred: DeferredEvents = fields["events"]
            with deferred.lock:
                fields["events"] = deferred.take()
        session = Session(**fields)
        self.set_marker(session, marker)
        return session

    def set_field(self, model: BaseModel, name: str, value: object) -> None:
        """Sets a field of a model to a valid value."""
        setattr(model, name, value)

    def get_marker(self, session: Session) -> str | None:
        """Returns the revision marker of a Session; None if it was built by hand or came from JSON."""
        marker: str | None = getattr(session, _MARKER, None)
        return marker

    def set_marker(self, session: Session, marker: str) -> None:
        """Sets the revision marker of a Session."""
        setattr(session, _MARKER, marker)


class _DirectAccess(ModelAccess):
    """Does the same without pydantic's functions."""

    def __init__(self) -> None:
        self._set_slots = [BaseModel.__dict__[name].__set__ for name in _SLOTS]
        fields = Session(id="", app_name="", user_id="").__dict__
        self._defaults = {name: value for name, value in fields.items() if name not in _SESSION_FIELDS}

    @override
    def copy_events(self, events: Iterable[Event]) -> list[Event]:
        new = object.__new__
        set_fields_set, set_extra, set_private = self._set_slots
        copies = []
        for event in events:
            # A decoded event is exactly an Event, without extra fields or private attributes.
            copy = new(Event)
            copy.__dict__.update(event.__dict__)
            # The set of the fields that were given is shared: a copy of it would be a third object for the garbage
            # collector to visit, and an assignment to one copy only adds a name to it.
            set_fields_set(copy, event.__pydantic_fields_set__)
            set_extra(copy, None)
            set_private(copy, None)
            copies.append(copy)
        return copies

    @override
    def _make_session(self, fields: dict[str, Any], marker: str) -> Session:
        # To validate 10,000 decoded events once more would cost more than to read them.
        if isinstance(fields["events"], list):
            session = object.__new__(Session)
        else:
            session = object.__new__(LazySession)
            fields[_DEFERRED] = fields.pop("events")
        _fields_of(session).update(self._defaults)
        _fields_of(session).update(fields)
        # One set for all Sessions, as the same fields were given to each: a listing makes thousands of them.
        set_fields_set, set_extra, set_private = self._set_slots
        set_fields_set(session, _SESSION_FIELDS)
        set_extra(session, None)
        set_private(session, {_MARKER: marker})
        return session

    @override
    def append_event(self, session: Session, event: Event) -> None:
        deferred: DeferredEvents | None = _fields_of(session).get(_DEFERRED)
        if deferred is not None:
            with deferred.lock:
                if _DEFERRED in _fields_of(session):
                    deferred.append(event)
                    return
        session.events.append(event)

    @override
    def set_field(self, model: BaseModel, name: str, value: object) -> None:
        # Several times an append; the ordinary way costs as much as encoding the event's content.
        fields = _fields_of(model)
        deferred: DeferredEvents | None = fields.get(_DEFERRED)
        if deferred is None:
            fields[name] = value
        else:
            with deferred.lock:
                _fields_of(model)[name] = value
        model.__pydantic_fields_set__.add(name)

    @override
    def get_marker(self, session: Session) -> str | None:
        marker: str | None = (session.__pydantic_private__ or {}).get(_MARKER)
        return marker

    @override
    def set_marker(self, session: Session, marker: str) -> None:
        private = session.__pydantic_private__
        if private is None:
            # Without private attributes so far: pydantic makes the dict for them.
            setattr(session, _MARKER, marker)
        else:
            private[_MARKER] = marker


@functools.cache
def choose_access() -> ModelAccess:
    """Returns the direct way if its results are those of the ordinary one, otherwise the ordinary one."""
    ordinary = ModelAccess()
    try:
        direct = _DirectAccess()
        if _results(direct) == _results(ordinary):
            return direct
        reason = "its models differ"
    except Exception as error:  # noqa: BLE001  # pydantic's internals: whatever fails, the ordinary way is used
        reason = type(error).__name__
    logger.warning("fast_model_access_unavailable", reason=reason)
    return ordinary


def _results(access: ModelAccess) -> list[object]:
    """Returns what can be observed of models that were copied, made and changed in one way."""
    key = SessionKey("a", "u", "s")
    event = Event(
        id="e",
        author="a",
        timestamp=1.5,
        content=types.Content(role="model", parts=[types.Part(text="text")]),
        actions=EventActions(state_delta={"k": 1}),
        branch="a.b",
    )
    (copy,) = access.copy_events([event])
    session, other = (access.new_session(key, {"k": [1]}, [event], 1.5, "before") for _ in range(2))
    results: list[object] = [_observed(copy), _observed(session), access.get_marker(session)]
    # Two Sessions must not share a default value that can be changed.
    results += [
        vars(session)[name] is vars(other)[name] for name in Session.model_fields if name not in _SESSION_FIELDS
    ]

    access.set_field(copy, "branch", "a.c")
    access.set_field(copy.actions, "state_delta", {"k": None})
    access.set_field(session, "last_update_time", 2.5)
    access.set_marker(session, "after")
    results += [_observed(copy), _observed(session), access.get_marker(session), event.branch]

    # Ordinary assignments, as the owner of the models makes them.
    copy.error_code = "code"
    session.state = {}
    results += [_observed(copy), _observed(session), event.error_code, other.state]

    # Whose events nobody has looked at: written to before, and after.
    lazy = access.new_session(key, {}, _SampleEvents([event]), 1.5, "before")
    access.append_event(lazy, copy)
    access.set_field(lazy, "last_update_time", 2.5)
    results += [len(lazy.events), lazy.last_update_time]
    access.append_event(lazy, event)
    access.set_field(lazy, "last_update_time", 3.5)
    results += [_observed(lazy), access.get_marker(lazy)]

    unmarked = Session(id="s", app_name="a", user_id="u")
    results.append(access.get_marker(unmarked))
    access.set_marker(unmarked, "first")
    return [*results, _observed(unmarked)]


class _SampleEvents:
    def __init__(self, events: list[Event]) -> None:
        self.lock = nullcontext()
        self.append = events.append
        self.take = events.copy


def _observed(model: BaseModel) -> list[object]:
    deep = model.model_copy(deep=True)
    # __getstate__() is what pickle stores: the fields, and all that pydantic keeps beside them.
    return [deep, deep.__getstate__(), model.model_copy(), model.model_dump(), set(model.model_fields_set)]


class _ChosenAtFirstUse:
    """Has the methods of the chosen access. It is not chosen at import: the host may set up its logging later."""

    def __getattr__(self, name: str) -> object:
        # Called once for each name: after that the method is found on the instance.
        method = getattr(choose_access(), name)
        setattr(self, name, method)
        return method


model_access = cast("ModelAccess", _ChosenAtFirstUse())
"""How this process copies, makes and changes models."""


def build_session(
    key: SessionKey, stored: SessionHead | Outcome, events: list[Event] | DeferredEvents, update_time: float
) -> Session:
    """Makes a Session of the revision and the state that a store returned; keys of user and app get their prefix.

    The list of events may become the Session's.

    Raises:
        CorruptRowError: If a value of the state is not JSON.
    """
    state = decode_scope(key, stored.session_state)
    if stored.app_state != "{}":
        for name, value in decode_scope(key, stored.app_state).items():
            state[scopes.APP_PREFIX + name] = value
    if stored.user_state != "{}":
        for name, value in decode_scope(key, stored.user_state).items():
            state[scopes.USER_PREFIX + name] = value
    marker = revision_marker(stored.incarnation, stored.revision)
    return model_access.new_session(key, state, events, update_time, marker)


def decode_scope(key: SessionKey, text: str) -> dict[str, Any]:
    """Decodes the state of one scope; the key names the session that an error speaks of.

    Raises:
        CorruptRowError: If the text is not JSON.
    """
    try:
        state: dict[str, Any] = from_json(text)
    except ValueError:
        raise CorruptRowError(
            f"a state_value of adk_state that session {key.session_id!r}, user {key.user_id!r}, app"
            f" {key.app_name!r} reads is not JSON; it was edited outside sessiondb"
        ) from None
    return state


def revision_marker(incarnation: int | None, revision: int) -> str:
    """Returns the marker of a Session at a revision of an incarnation."""
    return f"{_MARKER_KIND}:{incarnation}:{revision}"


def handle_of(session: Session) -> Handle:
    """Returns a handle with the revision in a Session's marker; without a marker, with the id of its last event."""
    marker = model_access.get_marker(session)
    if marker is not None:
        # A Session of another service carries a marker of another kind.
        kind, _, numbers = marker.partition(":")
        if kind == _MARKER_KIND:
            incarnation, _, revision = numbers.partition(":")
            return Handle(int(incarnation), int(revision), "")
    return Handle(None, 0, session.events[-1].id if session.events else "")
