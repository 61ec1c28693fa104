"""ADK's ``Event``: encoded as a record of the log, and decoded from a row of it.

An event that is encoded is decoded as an equal one, or it is refused before anything is written.
"""

from __future__ import annotations

import functools
import json
import operator
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from json.encoder import encode_basestring
from typing import Any, NamedTuple

from google.adk.events import Event, EventActions
from google.genai import types
from pydantic import BaseModel, TypeAdapter, ValidationError

from sessiondb.adk.fast_decode import event_validator, events_validator
from sessiondb.adk.limits import MAX_EVENT_BYTES, check_text, json_size
from sessiondb.adk.sessions import model_access
from sessiondb.adk.state import EncodedDelta, encode_delta
from sessiondb.adk.values import (
    DIGIT_LIMIT,
    LEAVES,
    MAY_BE_TOO_DEEP,
    NO_JSON_FORM,
    Place,
    Plainer,
    describe_refusal,
    is_json,
    is_plain,
)
from sessiondb.errors import CorruptRowError, InvalidInputError
from sessiondb.model.records import STORED_NONE, EventRecord, EventRow, SessionKey

_LONG_NUMBER = re.compile(rf"\d{{{DIGIT_LIMIT}}}")

_EVENT = TypeAdapter(Event)
_CONTENT = TypeAdapter(types.Content)
_ACTIONS = TypeAdapter(EventActions)

_COLUMNS = {"id", "invocation_id", "author", "timestamp", "content", "actions"}
_EMPTY = "{}"
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}".encode()

# Most events set few fields. To compare the others with those of a fresh event is far cheaper than to serialise them.
_FRESH = Event()
_EXTRA_NAMES = sorted(set(_FRESH.__dict__) - _COLUMNS - {"node_info"})
_extra_fields = operator.itemgetter(*_EXTRA_NAMES)
_EXTRA_UNSET = _extra_fields(_FRESH.__dict__)
_NODE = type(_FRESH.node_info)
_NODE_UNSET = _FRESH.node_info.__dict__
_OTHER_ACTIONS = sorted(set(_FRESH.actions.__dict__) - {"state_delta"})
_NOT_PLAIN_ACTIONS = {"state_delta", "requested_auth_configs"}
_OTHER_THAN_CONFIGS = set(_FRESH.actions.__dict__) - {"requested_auth_configs"}
_other_actions = operator.itemgetter(*_OTHER_ACTIONS)
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


class EncodedEvent(NamedTuple):
    """An event to store."""

    record: EventRecord
    as_read: Event | None
    """The event as its reader gets it, if that may differ from the one that was given: see :func:`show_as_read`."""


def encode_event(event: Event, delta: EncodedDelta | None = None, *, of_any_size: bool = False) -> EncodedEvent:
    """Encodes an event.

    Nothing of it is changed, but for iterators: they are read up, and their lists take their places.

    Args:
        event: The event.
        delta: Its state delta, if that is encoded already.
        of_any_size: Whether it may be larger than what is stored.

    Raises:
        InvalidInputError: If the event cannot be stored so that it can be read again.
    """
    if delta is None:
        delta = encode_delta(event.actions.state_delta)
    record, coerced = _record_of(event, delta)
    if not of_any_size and (size := json_size(record.content, record.actions, record.extra)) > MAX_EVENT_BYTES:
        raise InvalidInputError(
            f"the event is {size} bytes of JSON; at most {MAX_EVENT_BYTES} can be stored. Large media belong in an"
            " artifact service."
        )
    if coerced or _may_be_unreadable(record):
        # Decoding may change such a value once more. An event that was read and is appended again is a duplicate if its
        # record is the stored one: so the record of the decoded event is stored.
        as_read = event_of_record(record)
        return EncodedEvent(_record_of(as_read, delta)[0], as_read)
    return EncodedEvent(record, None)


def show_as_read(event: Event, as_read: Event) -> None:
    """Gives an event the fields that its reader gets, where they differ, but for its state delta."""
    _show_as_read(event, as_read, as_read.__dict__.keys() - {"actions"})
    _show_as_read(event.actions, as_read.actions, _OTHER_ACTIONS)


def _show_as_read(model: BaseModel, as_read: BaseModel, names: Iterable[str]) -> None:
    for name in names:
        value = as_read.__dict__[name]
        if not _same(value, model.__dict__[name]):
            model_access.set_field(model, name, value)


def _same(decoded: object, value: object) -> bool:
    try:
        return bool(decoded == value)
    except Exception:  # noqa: BLE001  # any __eq__ may be called here; if it fails, the decoded value is used
        return False


def is_aside(event: Event, record: EventRecord, delta: EncodedDelta) -> bool:
    """Whether an event is no step of its conversation: a change of state from outside, or a summary of what is past.

    ADK's server appends the first through a Session that it has just read, in the middle of a run maybe; compaction the
    second after a run, when the next one may have begun.
    """
    if record.content is not None or record.extra not in (None, f"{{{_kept_nones(delta)}}}"):
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


_AT_ONCE = 32
"""Events decoded together: while these are in memory, the garbage collector has not begun yet."""


def decode_events(rows: Sequence[EventRow], key: SessionKey) -> Iterator[Event]:
    """Decodes rows of a log one after the other, as :func:`decode_event`."""
    for first in range(0, len(rows), _AT_ONCE):
        yield from _decode_together(rows[first : first + _AT_ONCE], key)


def _decode_together(rows: Sequence[EventRow], key: SessionKey) -> list[Event]:
    try:
        events = events_validator()(f"[{','.join(map(_event_json, rows))}]")
    except (TypeError, ValidationError):
        events = []
    # What is edited may also be something else together than it is alone. Alone it has a name.
    return events if len(events) == len(rows) else [decode_event(row, key) for row in rows]


def event_as_dict(row: EventRow, key: SessionKey) -> dict[str, Any]:
    """Returns a row of the log as ADK writes an event to JSON, fields that are unset left out; it is not validated.

    Beside the fields of an event it may hold :data:`~sessiondb.model.records.STORED_NONE`.

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


def stored_nones(fields: Mapping[str, Any]) -> Sequence[str]:
    """Returns, of what :func:`event_as_dict` returned, the keys of the delta whose null is a value; others are deleted."""
    names = fields.get(STORED_NONE)
    return names if isinstance(names, list) else ()


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
    """Returns an event's record, and whether a value was coerced: a reader may get another one than was given."""
    content, content_coerced = None, False
    if event.content is not None:
        # Another model would be written without the fields that Content lacks, and read as an empty Content.
        if not isinstance(event.content, types.Content):
            raise InvalidInputError(f"the event's content must be a Content, not {type(event.content).__name__}")
        content, content_coerced = _dump(
            _CONTENT, event.content, _PLACE_OF_CONTENT, plain=_is_plain_content(event.content)
        )
    actions, actions_coerced = _encode_actions(event.actions, delta)
    extra, extra_coerced = _encode_extra(event)
    if delta.kept_nones:
        member = _kept_nones(delta)
        extra = f"{{{member}}}" if extra is None else f"{extra[:-1]},{member}}}"
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


_PLACE_OF_EVENT = Place(None, "")
_PLACE_OF_CONTENT = Place(_PLACE_OF_EVENT, "content", ".")
_PLACE_OF_ACTIONS = Place(_PLACE_OF_EVENT, "actions", ".")


def _kept_nones(delta: EncodedDelta) -> str:
    """Returns the member of a record's ``extra`` that names the keys of a delta whose None is a value."""
    return f'"{STORED_NONE}":[{",".join(map(encode_basestring, delta.kept_nones))}]'


def _encode_actions(actions: EventActions, delta: EncodedDelta) -> tuple[str, bool]:
    others = _other_actions(actions.__dict__)
    if others == _ACTIONS_UNSET:
        return f'{{"state_delta":{delta.json}}}', False
    members = [f'"state_delta":{delta.json}']
    plain = _are_plain(others, actions.set_model_response)
    text, coerced = _dump(_ACTIONS, actions, _PLACE_OF_ACTIONS, plain=plain, exclude=_NOT_PLAIN_ACTIONS)
    if text != _EMPTY:
        members.append(text[1:-1])
    if actions.requested_auth_configs:
        # The authentication schemes are FastAPI's models: a field with a default value tells one from another, and they
        # are read by alias only.
        configs = _dump_slowly(
            _ACTIONS,
            actions,
            _PLACE_OF_ACTIONS,
            exclude=_OTHER_THAN_CONFIGS,
            by_alias=True,
            exclude_none=True,
            exclude_defaults=False,
        )
        members.append(configs[1:-1])
        coerced = True
    return "{" + ",".join(members) + "}", coerced


def _encode_extra(event: Event) -> tuple[str | None, bool]:
    fields = event.__dict__
    others = _extra_fields(fields)
    node = fields["node_info"]
    if others == _EXTRA_UNSET and type(node) is _NODE and node.__dict__ == _NODE_UNSET:
        return None, False
    ids = fields["long_running_tool_ids"]
    # ADK gives each function call a set, mostly an empty one; and no set of so few members has two orders. pydantic writes a
    # list there without a warning.
    has_one_order = ids is None or (type(ids) is set and (not ids or (len(ids) == 1 and type(next(iter(ids))) is str)))
    plain = has_one_order and _are_plain([node, *(other for other in others if other is not ids)], fields["output"])
    text, coerced = _dump(_EVENT, event, _PLACE_OF_EVENT, plain=plain, exclude=_COLUMNS)
    return (None if text == _EMPTY else text), coerced


def _is_plain_content(content: types.Content) -> bool:
    # Most contents are text, and is_plain() would take twice as long to see that.
    parts = content.parts
    if type(parts) is list and type(content.role) is str:
        for part in parts:
            if type(part) is not types.Part or not LEAVES.issuperset(map(type, part.__dict__.values())):
                return _are_plain(parts)
        return True
    return _are_plain([content])


def _are_plain(values: Iterable[object], anything: object = None) -> bool:
    """Whether the fields of a model are plain; and the one declared as Any, where a model would come back as a dict."""
    try:
        return is_json(anything) and all(map(is_plain, values))
    except RecursionError:
        return False


def _dump(
    adapter: TypeAdapter[Any], model: BaseModel, place: Place, *, plain: bool, exclude: set[str] | None = None
) -> tuple[str, bool]:
    """Returns a model's JSON without unset fields, and whether a value was coerced.

    Args:
        adapter: Serialises the model.
        model: The model.
        place: Where it is.
        plain: Whether its fields are plain, see :func:`sessiondb.adk.values.is_plain`.
        exclude: Fields to leave out.

    Raises:
        InvalidInputError: If it has no JSON form.
    """
    if plain:
        try:
            # Not adapter.dump_json(), which passes on fifteen options.
            text = adapter.serializer.to_json(
                model, exclude_none=True, exclude_defaults=True, warnings="error", exclude=exclude
            )
        except NO_JSON_FORM:
            # A field does not hold what it declares, or a text has a lone surrogate. What is plain was not used up.
            pass
        else:
            # pydantic puts three of these into a key that is declared as text for each lone surrogate of it.
            if text.isascii() or _REPLACEMENT not in text:
                return text.decode(), False
    return _dump_slowly(adapter, model, place, exclude=exclude, exclude_none=True, exclude_defaults=True), True


def _dump_slowly(
    adapter: TypeAdapter[Any], model: BaseModel, place: Place, *, exclude: set[str] | None, **options: Any
) -> str:
    try:
        plainer = Plainer(for_state=False)
        model = plainer.fields(model, place, exclude or ())
        try:
            text = adapter.serializer.to_json(model, warnings="none", exclude=exclude, **options)
        except NO_JSON_FORM:
            # pydantic's message quotes the value, which belongs to the user.
            raise InvalidInputError(describe_refusal(model, place, exclude=exclude or ())) from None
    except RecursionError:
        raise InvalidInputError(f"{place} is nested deeper than the about 190 levels that JSON may have") from None
    plainer.report()
    return text.decode()


def _may_be_unreadable(record: EventRecord) -> bool:
    brackets = 0
    for text in (record.content, record.actions, record.extra):
        if text is not None:
            brackets += text.count("[") + text.count("{")
            # A null may stand for a NaN, where the field requires a number.
            if "null" in text or (len(text) > DIGIT_LIMIT and _LONG_NUMBER.search(text)):
                return True
    return brackets >= MAY_BE_TOO_DEEP


def event_of_record(record: EventRecord) -> Event:
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
