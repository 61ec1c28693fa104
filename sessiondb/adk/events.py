"""Conversion between ADK's objects and plain records: pure functions, no I/O.

What goes in comes back equal, or is refused before anything is written.
"""

from __future__ import annotations

import functools
import operator
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from json.encoder import encode_basestring
from types import NoneType
from typing import Any

from google.adk.events import Event, EventActions
from google.adk.sessions import Session
from google.genai import types
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, from_json, to_json

from sessiondb.adk import scopes
from sessiondb.adk.fast_decode import event_validator
from sessiondb.adk.limits import MAX_EVENT_BYTES, check_text, json_size
from sessiondb.adk.state import NO_JSON_FORM, EncodedDelta
from sessiondb.errors import CorruptRowError, InvalidInputError
from sessiondb.model.records import EventRecord, EventRow, SessionKey

# JSON nested deeper than pydantic's parser allows (about 200 levels) could be written but never read again. Counting
# brackets is far cheaper than parsing; only what has this many of them is parsed before it is accepted.
_MAY_BE_TOO_DEEP = 100

# The parser's limit is that of int() on text, sys.set_int_max_str_digits.
_MOST_DIGITS = 4300
_LONG_NUMBER = re.compile(rf"\d{{{_MOST_DIGITS}}}")

_EVENT = TypeAdapter(Event)
_CONTENT = TypeAdapter(types.Content)
_ACTIONS = TypeAdapter(EventActions)

_COLUMNS = {"id", "invocation_id", "author", "timestamp", "content", "actions"}
_EMPTY = "{}"

# Most events leave most fields alone: comparing them with those of a fresh event is far cheaper than to serialise them.
_FRESH = Event()
_EXTRA_NAMES = sorted(set(_FRESH.__dict__) - _COLUMNS - {"node_info"})
_extra_fields = operator.itemgetter(*_EXTRA_NAMES)
_EXTRA_UNSET = _extra_fields(_FRESH.__dict__)
_NODE = type(_FRESH.node_info)
_PLAIN_NODE = _FRESH.node_info.__dict__
_other_actions = operator.itemgetter(*sorted(set(_FRESH.actions.__dict__) - {"state_delta"}))
_ACTIONS_UNSET = _other_actions(_FRESH.actions.__dict__)


@functools.lru_cache(maxsize=64)
def _second_text(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).isoformat()[:-6]


def timestamp_text(time: float) -> str:
    """Formats seconds since the epoch as UTC ISO 8601 of fixed width, so that text order is time order.

    Raises:
        InvalidInputError: If the moment lies outside the years 1 to 9999.
    """
    try:
        microseconds = round((time % 1) * 1_000_000)
        second = int(time // 1) + microseconds // 1_000_000
        return f"{_second_text(second)}.{microseconds % 1_000_000:06d}Z"
    except (OverflowError, ValueError, OSError, TypeError) as error:
        raise InvalidInputError(
            f"timestamp {time!r} is not a number of seconds within the years 1 to 9999: {error}"
        ) from None


def encode_event(event: Event, delta: EncodedDelta) -> EventRecord:
    """Encodes an event; ``delta`` stands in for its state delta. The event is left as it is.

    Raises:
        InvalidInputError: If the event cannot be stored so that it reads back.
    """
    try:
        record, doubtful = _record_of(event, delta)
    except InvalidInputError:
        raise
    except NO_JSON_FORM as error:
        # pydantic quotes the value it failed on, which is the user's: only the kind of the error goes on.
        raise InvalidInputError(f"the event has no JSON form ({type(error).__name__})") from None
    # Nearly every event is far below: four bytes is the most that a character takes.
    if record.size * 4 > MAX_EVENT_BYTES and (
        (size := json_size(record.content, record.actions, record.extra)) > MAX_EVENT_BYTES
    ):
        raise InvalidInputError(
            f"the event is {size} bytes of JSON; at most {MAX_EVENT_BYTES} can be stored. Large media belong in an"
            " artifact service."
        )
    if doubtful or _may_be_unreadable(record):
        # What reads back is stored, so that it is the same when it is delivered again.
        return _record_of(_read_back(record), delta)[0]
    return record


def decode_event(row: EventRow, key: SessionKey) -> Event:
    """Decodes a row of the log.

    Raises:
        CorruptRowError: If the row is not an event that this version of ADK can read.
    """
    if not all(isinstance(text, str) for text in (row.event_id, row.invocation_id, row.author, row.actions)):
        raise CorruptRowError(f"{_where(row, key)} holds something else than text; it was changed by hand")
    try:
        return event_validator()(_event_json(row.event_id, row.invocation_id, row.author, row.time, row))
    except ValidationError as error:
        raise CorruptRowError(
            f"{_where(row, key)} cannot be read as an event: {_problems(error)}. A newer ADK may have written it, or it"
            " was changed by hand; other sessions are not affected."
        ) from None


def _where(row: EventRow, key: SessionKey) -> str:
    return (
        f"row {row.row_id} of adk_events (event {row.seq} of session {key.session_id!r}, user {key.user_id!r},"
        f" app {key.app_name!r})"
    )


def copy_events(events: Iterable[Event]) -> list[Event]:
    """Copies decoded events: their own fields are the copies', what they hold is shared."""
    # model_copy() with less to find out: a decoded event is exactly an Event, without extras or private attributes. The
    # record of which fields were given is shared too: copying it would make it the third object of each copy, for
    # the garbage collector as well, and assigning a field of one copy only adds a name to it.
    new, set_fields, set_extra, set_private = object.__new__, _set_fields_set, _set_extra, _set_private
    copies = []
    for event in events:
        copy = new(Event)
        copy.__dict__.update(event.__dict__)
        set_fields(copy, event.__pydantic_fields_set__)
        set_extra(copy, None)
        set_private(copy, None)
        copies.append(copy)
    return copies


_set_fields_set = BaseModel.__dict__["__pydantic_fields_set__"].__set__
_set_extra = BaseModel.__dict__["__pydantic_extra__"].__set__
_set_private = BaseModel.__dict__["__pydantic_private__"].__set__


def row_characters(row: EventRow) -> int:
    """Characters of JSON in a row."""
    return len(row.content or "") + len(row.actions) + len(row.extra or "")


def decode_state(key: SessionKey, session: str, user: str, app: str) -> dict[str, Any]:
    """Decodes three JSON objects of state into one merged dict, user and app keys with their prefix.

    Raises:
        CorruptRowError: If one of them is not JSON.
    """
    state = decode_scope(key, session)
    if app != "{}":
        for name, value in decode_scope(key, app).items():
            state[scopes.APP_PREFIX + name] = value
    if user != "{}":
        for name, value in decode_scope(key, user).items():
            state[scopes.USER_PREFIX + name] = value
    return state


def decode_scope(key: SessionKey, text: str) -> dict[str, Any]:
    """Decodes the state of one scope.

    Raises:
        CorruptRowError: If it is not a JSON object.
    """
    try:
        state: dict[str, Any] = from_json(text)
    except ValueError:
        raise CorruptRowError(
            f"a state_value of adk_state that session {key.session_id!r}, user {key.user_id!r}, app"
            f" {key.app_name!r} reads is not JSON; it was changed by hand"
        ) from None
    return state


def build_session(
    key: SessionKey, state: dict[str, Any], events: list[Event], update_time: float, marker: str
) -> Session:
    """Makes a Session of parts that are known to be valid; the parts are taken over, not copied."""
    # Validating a log of 10,000 decoded events again would cost more than reading it. The record of which fields were
    # given is one for all Sessions, as it holds all of their fields: a listing of thousands would make as many.
    session = object.__new__(Session)
    session.__dict__.update(
        _SESSION_DEFAULTS,
        id=key.session_id,
        app_name=key.app_name,
        user_id=key.user_id,
        state=state,
        events=events,
        last_update_time=update_time,
    )
    _set_fields_set(session, _SESSION_FIELDS)
    _set_extra(session, None)
    _set_private(session, {"_storage_update_marker": marker})
    return session


def marker_of(session: Session) -> str | None:
    """Returns the revision marker of a Session; None if it was built by hand or came from JSON."""
    # The field that ADK gives storage for this purpose. Read where pydantic keeps it: twice an append, its own way there
    # costs as much as encoding the event's actions.
    marker: str | None = (session.__pydantic_private__ or {}).get("_storage_update_marker")
    return marker


def set_marker(session: Session, marker: str) -> None:
    """Sets the revision marker of a Session."""
    private = session.__pydantic_private__
    if private is None:
        session._storage_update_marker = marker  # noqa: SLF001  # as above, with what pydantic does for a first write
    else:
        private["_storage_update_marker"] = marker


def set_field(model: BaseModel, name: str, value: object) -> None:
    """Sets a field of a model, to a value that is known to be valid.

    What pydantic does for it, without finding out what is to be done: three times an append, that costs as much as
    encoding the event's content.
    """
    model.__dict__[name] = value
    model.__pydantic_fields_set__.add(name)


_SESSION_FIELDS = {"id", "app_name", "user_id", "state", "events", "last_update_time"}
_SESSION_DEFAULTS = {
    name: value
    for name, value in Session(id="", app_name="", user_id="").__dict__.items()
    if name not in _SESSION_FIELDS
}


def _record_of(event: Event, delta: EncodedDelta) -> tuple[EventRecord, bool]:
    """Returns an event's record, and whether a field held something of another type than it is declared with."""
    content, content_doubtful = None, False
    if event.content is not None:
        # Another model would be written without the fields it has beside Content's, and read as an empty Content.
        if not isinstance(event.content, types.Content):
            raise InvalidInputError(f"the event's content must be a Content, not {type(event.content).__name__}")
        content, content_doubtful = _dump(_CONTENT, event.content)
    actions, actions_doubtful = _encode_actions(event.actions, delta)
    extra, extra_doubtful = _encode_extra(event)
    record = EventRecord(
        check_text("event id", event.id),
        check_text("invocation_id", event.invocation_id),
        check_text("author", event.author),
        event.timestamp,
        timestamp_text(event.timestamp),
        content,
        actions,
        extra,
    )
    return record, content_doubtful or actions_doubtful or extra_doubtful


def _dump(adapter: TypeAdapter[Any], value: object, **options: Any) -> tuple[str, bool]:
    """Returns a model's JSON without what is unset, and whether pydantic had to serialise something unexpected."""
    text, doubtful = _dump_as_it_is(adapter, value, **options)
    # A set becomes an array, and the parts of a content are one: where there is no other, there is no set.
    if text.count("[") > (adapter is _CONTENT):
        ordered = _ordered(value)
        if ordered is not value:
            return _dump_as_it_is(adapter, ordered, **options)
    return text, doubtful


def _dump_as_it_is(adapter: TypeAdapter[Any], value: object, **options: Any) -> tuple[str, bool]:
    # As dump_json() does it, which has fifteen options to pass on.
    to_json = adapter.serializer.to_json
    try:
        text = to_json(value, exclude_none=True, exclude_defaults=True, warnings="error", **options)
    except PydanticSerializationError:
        text = to_json(value, exclude_none=True, exclude_defaults=True, warnings="none", **options)
        return text.decode(), True
    return text.decode(), False


_LEAVES = (str, int, float, bool, bytes, NoneType)


def _ordered(value: Any) -> Any:
    """Returns a value with its sets as sorted lists; the value itself where it holds none.

    The order of a set is another one in each process, so an event that is delivered again would not look equal.
    """
    if isinstance(value, set | frozenset):
        # A declared set of one member stays what it is declared as.
        members = list(map(_ordered, value))
        return value if len(value) < 2 and members == list(value) else sorted(members, key=_sort_key)
    if isinstance(value, BaseModel):
        changed = _ordered_members({**value.__dict__, **(value.__pydantic_extra__ or {})})
        return value.model_copy(update=changed) if changed else value
    if isinstance(value, dict):
        changed = _ordered_members(value)
        return {**value, **changed} if changed else value
    if isinstance(value, list | tuple):
        changed = _ordered_members(dict(enumerate(value)))
        return [changed.get(index, member) for index, member in enumerate(value)] if changed else value
    return value


def _ordered_members(members: dict[Any, Any]) -> dict[Any, Any]:
    """Returns those members that :func:`_ordered` changes, as it does."""
    changed = {}
    for name, member in members.items():
        if type(member) not in _LEAVES and (ordered := _ordered(member)) is not member:
            changed[name] = ordered
    return changed


def _sort_key(member: object) -> bytes:
    return to_json(member, serialize_unknown=True, bytes_mode="base64")


def _encode_extra(event: Event) -> tuple[str | None, bool]:
    fields = event.__dict__
    node = fields["node_info"]
    if _extra_fields(fields) == _EXTRA_UNSET and type(node) is _NODE and node.__dict__ == _PLAIN_NODE:
        return None, False
    extra, doubtful = _dump(_EVENT, event, exclude=_COLUMNS)
    return (None if extra == _EMPTY else extra), doubtful


def _encode_actions(actions: EventActions, delta: EncodedDelta) -> tuple[str, bool]:
    if _other_actions(actions.__dict__) == _ACTIONS_UNSET:
        return f'{{"state_delta":{delta.json}}}', False
    members = [f'"state_delta":{delta.json}']
    others, doubtful = _dump(_ACTIONS, actions, exclude={"state_delta", "requested_auth_configs"})
    if others != _EMPTY:
        members.append(others[1:-1])
    if actions.requested_auth_configs:
        # The schemes in there are FastAPI's: told apart by fields with a default, and read by their alias only.
        configs = _ACTIONS.dump_json(
            actions, include={"requested_auth_configs"}, by_alias=True, exclude_none=True, warnings="none"
        )
        members.append(configs[1:-1].decode())
        doubtful = True
    return "{" + ",".join(members) + "}", doubtful


def _event_json(event_id: str, invocation_id: str, author: str, time: float, parts: EventRow | EventRecord) -> str:
    content = "" if parts.content is None else f',"content":{parts.content}'
    extra = "" if parts.extra is None else f",{parts.extra[1:-1]}"
    return (
        f'{{"id":{encode_basestring(event_id)},"invocation_id":{encode_basestring(invocation_id)},'
        f'"author":{encode_basestring(author)},"timestamp":{time!r},"actions":{parts.actions}{content}{extra}}}'
    )


def _may_be_unreadable(record: EventRecord) -> bool:
    brackets = 0
    for text in (record.content, record.actions, record.extra):
        if text is not None:
            brackets += text.count("[") + text.count("{")
            # A null may stand for a NaN where a number is required, and numbers have a greatest length.
            if "null" in text or (len(text) > _MOST_DIGITS and _LONG_NUMBER.search(text)):
                return True
    return brackets >= _MAY_BE_TOO_DEEP


def _read_back(record: EventRecord) -> Event:
    """Reads a record that is still to be stored; refuses what could be written but not read again."""
    try:
        return event_validator()(_event_json(record.event_id, record.invocation_id, record.author, record.time, record))
    except ValidationError as error:
        raise InvalidInputError(
            f"the event could be written but not be read again: {_problems(error)}; JSON may be nested about 190 levels"
            " deep"
        ) from None


def _problems(error: ValidationError) -> str:
    """Says where and of what kind the problems are, never what was there."""
    return ", ".join(sorted({f"{'.'.join(map(str, one['loc']))}: {one['type']}" for one in error.errors()[:3]}))
