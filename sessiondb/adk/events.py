"""ADK's ``Event``: encoded as a record of the log, and decoded from a row of it.

An event that is encoded is decoded as an equal one, or it is refused before anything is written.
"""

from __future__ import annotations

import functools
import json
import operator
import re
from datetime import UTC, datetime
from json.encoder import encode_basestring
from types import NoneType
from typing import Any

from google.adk.events import Event, EventActions
from google.genai import types
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, to_json

from sessiondb.adk.fast_decode import event_validator
from sessiondb.adk.limits import MAX_EVENT_BYTES, check_text, json_size
from sessiondb.adk.state import NO_JSON_FORM, EncodedDelta, encode_delta
from sessiondb.errors import CorruptRowError, InvalidInputError
from sessiondb.model.records import EventRecord, EventRow, SessionKey

# pydantic writes JSON that is nested deeper than its parser reads (about 200 levels). To count brackets is far cheaper
# than to parse, and no text is nested deeper than the number of its opening brackets: only a text with this many is
# parsed as a check.
_MAY_BE_TOO_DEEP = 100

# The parser reads integers of up to this many digits, as int() does: sys.set_int_max_str_digits.
_DIGIT_LIMIT = 4300
_LONG_NUMBER = re.compile(rf"\d{{{_DIGIT_LIMIT}}}")

_EVENT = TypeAdapter(Event)
_CONTENT = TypeAdapter(types.Content)
_ACTIONS = TypeAdapter(EventActions)

_COLUMNS = {"id", "invocation_id", "author", "timestamp", "content", "actions"}
_EMPTY = "{}"

# Most events set few fields. To compare the others with those of a fresh event is far cheaper than to serialise them.
_FRESH = Event()
_EXTRA_NAMES = sorted(set(_FRESH.__dict__) - _COLUMNS - {"node_info"})
_extra_fields = operator.itemgetter(*_EXTRA_NAMES)
_EXTRA_UNSET = _extra_fields(_FRESH.__dict__)
_NODE = type(_FRESH.node_info)
_NODE_UNSET = _FRESH.node_info.__dict__
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


def encode_event(event: Event, delta: EncodedDelta | None = None) -> EventRecord:
    """Encodes an event, and does not change it.

    Args:
        event: The event.
        delta: Its state delta, if that is encoded already.

    Raises:
        InvalidInputError: If the event cannot be stored so that it can be read again.
    """
    if delta is None:
        delta = encode_delta(event.actions.state_delta)
    try:
        record, coerced = _record_of(event, delta)
    except InvalidInputError:
        raise
    except NO_JSON_FORM as error:
        # pydantic's message quotes the value, which belongs to the user: only the type of the error is passed on.
        raise InvalidInputError(f"the event has no JSON form ({type(error).__name__})") from None
    if (size := json_size(record.content, record.actions, record.extra)) > MAX_EVENT_BYTES:
        raise InvalidInputError(
            f"the event is {size} bytes of JSON; at most {MAX_EVENT_BYTES} can be stored. Large media belong in an"
            " artifact service."
        )
    if coerced or _may_be_unreadable(record):
        # Decoding may change such a value once more. An event that was read and is appended again is a duplicate if its
        # record is the stored one: so the record of the decoded event is stored.
        return _record_of(_read_back(record), delta)[0]
    return record


def is_aside(event: Event, record: EventRecord, delta: EncodedDelta) -> bool:
    """Whether an event is no step of its conversation: a change of state from outside, or a summary of what is past.

    ADK's server appends the first through a Session that it has just read, in the middle of a run maybe; compaction the
    second after a run, when the next one may have begun.
    """
    if record.content is not None or record.extra is not None:
        return False
    if delta.json != _EMPTY:
        return record.author == "user" and record.actions == f'{{"state_delta":{delta.json}}}'
    return event.actions.compaction is not None


def decode_event(row: EventRow, key: SessionKey) -> Event:
    """Decodes a row of the log; the key names the session that an error speaks of.

    Raises:
        CorruptRowError: If the row is not an event that this version of ADK can read.
    """
    if not all(isinstance(text, str) for text in (row.event_id, row.invocation_id, row.author, row.actions)):
        raise CorruptRowError(f"{_where(row, key)} holds something else than text; it was edited outside sessiondb")
    try:
        return event_validator()(_event_json(row))
    except ValidationError as error:
        raise CorruptRowError(
            f"{_where(row, key)} cannot be read as an event: {describe_problems(error)}. A newer ADK may have written"
            " it, or it was edited outside sessiondb; other sessions are not affected."
        ) from None


def event_as_dict(row: EventRow, key: SessionKey) -> dict[str, Any]:
    """Returns a row of the log as ADK writes an event to JSON, fields that are unset left out; it is not validated.

    Raises:
        CorruptRowError: If a column does not hold what it should.
    """
    try:
        return {
            "id": row.event_id,
            "invocation_id": row.invocation_id,
            "author": row.author,
            "timestamp": row.time,
            **({} if row.content is None else {"content": _json_object(row.content)}),
            "actions": _json_object(row.actions),
            **({} if row.extra is None else _json_object(row.extra)),
        }
    except (TypeError, ValueError, RecursionError):
        raise CorruptRowError(
            f"{_where(row, key)} does not hold JSON objects; it was edited outside sessiondb"
        ) from None


def _json_object(text: str) -> dict[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise TypeError
    return value


def _where(row: EventRow, key: SessionKey) -> str:
    return (
        f"row {row.row_id} of adk_events (event {row.seq} of session {key.session_id!r}, user {key.user_id!r},"
        f" app {key.app_name!r})"
    )


def describe_problems(error: ValidationError) -> str:
    """Returns where the first problems are and of which kind, but no value: values belong to the user."""
    return ", ".join(sorted({f"{'.'.join(map(str, one['loc']))}: {one['type']}" for one in error.errors()[:3]}))


def _record_of(event: Event, delta: EncodedDelta) -> tuple[EventRecord, bool]:
    """Returns an event's record, and whether a value was coerced, as it was not of the type that its field declares."""
    content, content_coerced = None, False
    if event.content is not None:
        # Another model would be written without the fields that Content lacks, and read as an empty Content.
        if not isinstance(event.content, types.Content):
            raise InvalidInputError(f"the event's content must be a Content, not {type(event.content).__name__}")
        content, content_coerced = _dump(_CONTENT, event.content)
    actions, actions_coerced = _encode_actions(event.actions, delta)
    extra, extra_coerced = _encode_extra(event)
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
    return record, content_coerced or actions_coerced or extra_coerced


def _encode_actions(actions: EventActions, delta: EncodedDelta) -> tuple[str, bool]:
    if _other_actions(actions.__dict__) == _ACTIONS_UNSET:
        return f'{{"state_delta":{delta.json}}}', False
    members = [f'"state_delta":{delta.json}']
    others, coerced = _dump(_ACTIONS, actions, exclude={"state_delta", "requested_auth_configs"})
    if others != _EMPTY:
        members.append(others[1:-1])
    if actions.requested_auth_configs:
        # The authentication schemes are FastAPI's models: a field with a default value tells one from another, and they
        # are read by alias only.
        configs = _ACTIONS.dump_json(
            actions, include={"requested_auth_configs"}, by_alias=True, exclude_none=True, warnings="none"
        )
        members.append(configs[1:-1].decode())
        coerced = True
    return "{" + ",".join(members) + "}", coerced


def _encode_extra(event: Event) -> tuple[str | None, bool]:
    fields = event.__dict__
    node = fields["node_info"]
    if _extra_fields(fields) == _EXTRA_UNSET and type(node) is _NODE and node.__dict__ == _NODE_UNSET:
        return None, False
    extra, coerced = _dump(_EVENT, event, exclude=_COLUMNS)
    return (None if extra == _EMPTY else extra), coerced


def _dump(adapter: TypeAdapter[Any], value: object, **options: Any) -> tuple[str, bool]:
    """Returns a model's JSON without unset fields and with sets in order, and whether a value was coerced."""
    text, coerced = _serialize(adapter, value, **options)
    # A set becomes an array, and the parts of a content are one array: a text without another one holds no set.
    if text.count("[") > (adapter is _CONTENT):
        ordered = _ordered(value)
        if ordered is not value:
            return _serialize(adapter, ordered, **options)
    return text, coerced


def _serialize(adapter: TypeAdapter[Any], value: object, **options: Any) -> tuple[str, bool]:
    # Not adapter.dump_json(), which passes on fifteen options.
    to_json = adapter.serializer.to_json
    try:
        text = to_json(value, exclude_none=True, exclude_defaults=True, warnings="error", **options)
    except PydanticSerializationError:
        text = to_json(value, exclude_none=True, exclude_defaults=True, warnings="none", **options)
        return text.decode(), True
    return text.decode(), False


_LEAVES = (str, int, float, bool, bytes, NoneType)


def _ordered(value: Any) -> Any:
    """Returns a value with its sets as sorted lists; the value itself if it holds no set.

    The order of a set differs from process to process: without this, the JSON of an event that is appended again would
    differ from the stored one.
    """
    if isinstance(value, set | frozenset):
        # A set of one member is left as a set, the type that its field may declare.
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
    """Returns the members that :func:`_ordered` changes, changed."""
    changed = {}
    for name, member in members.items():
        if type(member) not in _LEAVES and (ordered := _ordered(member)) is not member:
            changed[name] = ordered
    return changed


def _sort_key(member: object) -> bytes:
    return to_json(member, serialize_unknown=True, bytes_mode="base64")


def _may_be_unreadable(record: EventRecord) -> bool:
    brackets = 0
    for text in (record.content, record.actions, record.extra):
        if text is not None:
            brackets += text.count("[") + text.count("{")
            # A null may stand for a NaN, where the field requires a number.
            if "null" in text or (len(text) > _DIGIT_LIMIT and _LONG_NUMBER.search(text)):
                return True
    return brackets >= _MAY_BE_TOO_DEEP


def _read_back(record: EventRecord) -> Event:
    """Decodes a record that is not stored yet.

    Raises:
        InvalidInputError: If it cannot be decoded.
    """
    try:
        return event_validator()(_event_json(record))
    except ValidationError as error:
        raise InvalidInputError(
            f"the event could be written but not be read again: {describe_problems(error)}; JSON may be nested about"
            " 190 levels deep"
        ) from None


def _event_json(event: EventRow | EventRecord) -> str:
    content = "" if event.content is None else f',"content":{event.content}'
    extra = "" if event.extra is None else f",{event.extra[1:-1]}"
    return (
        f'{{"id":{encode_basestring(event.event_id)},"invocation_id":{encode_basestring(event.invocation_id)},'
        f'"author":{encode_basestring(event.author)},"timestamp":{event.time!r},'
        f'"actions":{event.actions}{content}{extra}}}'
    )
