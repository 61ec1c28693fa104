"""Encodes state deltas: for the store, for the log, and for the Session and Event objects in memory.

Values are coerced as ADK does it: what JSON cannot hold becomes what pydantic makes of it (dates become ISO text, sets
sorted lists, models objects, NaN and infinities null, bytes UTF-8 text or else URL-safe base64), and what pydantic
cannot serialise becomes its ``repr``.
"""

from __future__ import annotations

import functools
import math
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from json.encoder import encode_basestring
from typing import Any, NamedTuple

from pydantic_core import PydanticSerializationError, from_json, to_json

from sessiondb.adk import scopes
from sessiondb.adk.limits import MAX_EVENT_BYTES, check_text, json_size
from sessiondb.errors import InvalidInputError
from sessiondb.model.records import NO_DELTA, StateDelta

NO_JSON_FORM = (PydanticSerializationError, RecursionError, ValueError, TypeError)
"""The errors that serialising raises for a value that JSON cannot hold."""


class EncodedDelta(NamedTuple):
    """A state delta to store, and the values that the objects in memory get once it is stored."""

    stored: StateDelta
    json: str
    """The delta without its temp keys, as the JSON object in the log."""
    temp: dict[str, Any]
    """Keys that stay in the Session object and are not stored."""
    event_delta: dict[str, Any]
    """``EventActions.state_delta`` as a reader gets it: without temp keys, with None for what is deleted, and with values
    that are the caller's own objects, if equal to the decoded ones."""


_EMPTY_DELTA = EncodedDelta(NO_DELTA, "{}", {}, {})


def encode_delta(delta: Mapping[str, Any]) -> EncodedDelta:
    """Encodes a state delta, and does not change it.

    Raises:
        InvalidInputError: If a key or value cannot be stored.
    """
    if not delta:
        return _EMPTY_DELTA
    columns: dict[str, list[str]] = {}
    members: list[str] = []
    temp: dict[str, Any] = {}
    event_delta: dict[str, Any] = {}
    for key, value in delta.items():
        parts = _key_parts(key)
        if parts is None:
            temp[key] = value
            continue
        text, kept = _encode_value(key, value)
        members.append(f"{parts.quoted_key}:{text}")
        if text == "null":
            # None, or a value such as NaN that becomes null in JSON: whoever reads the log finds one meaning of null.
            event_delta[key] = None
            columns.setdefault(parts.removed_column, []).append(parts.quoted_name)
        else:
            event_delta[key] = kept
            columns.setdefault(parts.set_column, []).append(f"{parts.quoted_name}:{encode_basestring(text)}")
    stored = {
        column: f"{{{','.join(entries)}}}" if column.endswith("_set") else f"[{','.join(entries)}]"
        for column, entries in columns.items()
    }
    return EncodedDelta(StateDelta(**stored), "{" + ",".join(members) + "}", temp, event_delta)


class _KeyParts(NamedTuple):
    """A state key and its name within its scope, both as JSON, and the columns of its scope."""

    quoted_key: str
    quoted_name: str
    set_column: str
    removed_column: str


@functools.lru_cache(maxsize=4096)
def _parts_of_text(key: str) -> _KeyParts | None:
    scope, name = scopes.parse(check_text("state key", key))
    if scope is scopes.Scope.TEMP:
        return None
    prefix = scope.lower()
    return _KeyParts(encode_basestring(key), encode_basestring(name), f"{prefix}_set", f"{prefix}_removed")


def _key_parts(key: object) -> _KeyParts | None:
    """Returns the parts of a key; None for a temp key."""
    # Agents write the same few keys again and again. Only strings are cached: 1 and True would be the same cache key.
    return _parts_of_text(key if type(key) is str else check_text("state key", key))


def _encode_value(key: str, value: object) -> tuple[str, object]:
    """Returns the JSON of a state value, and the value that a reader gets."""
    # The types of most values need no serialiser.
    kind = type(value)
    if kind is bool:
        return ("true" if value else "false"), value
    if kind is int and -(2**63) <= value < 2**63:  # type: ignore[operator]  # kind says so
        return repr(value), value
    if kind is float and math.isfinite(value):  # type: ignore[arg-type]  # kind says so
        return repr(value), value
    if value is None:
        return "null", None
    try:
        direct = _direct_json(value)
        if direct is not None and (kind is str or _same(_parsed(direct), value)):
            return _fitting(key, direct), value
        text = _fitting(key, to_json(_plain_or_cyclic(value), inf_nan_mode="null", serialize_unknown=True).decode())
        return text, _parsed(text)
    except InvalidInputError:
        raise
    except NO_JSON_FORM as error:
        raise InvalidInputError(
            f"the value of state key {key!r} has no JSON form that can be read again ({type(error).__name__})"
        ) from None


def _direct_json(value: object) -> str | None:
    try:
        return to_json(value, inf_nan_mode="null").decode()
    except PydanticSerializationError:
        return None


def _fitting(key: str, text: str) -> str:
    if (size := json_size(text)) > MAX_EVENT_BYTES:
        raise InvalidInputError(
            f"the value of state key {key!r} is {size} bytes of JSON; at most {MAX_EVENT_BYTES} can be stored"
        )
    return text


def _parsed(text: str) -> Any:
    # Readers parse an object of values, one level deeper than the value. The parser's limit of depth applies to that.
    return from_json(f"[{text}]")[0]


def _plain_or_cyclic(value: object) -> object:
    try:
        return _plain(value)
    except RecursionError:
        # Left to pydantic, which writes "..." for an object that holds itself, and refuses other values of such depth.
        return value


def _plain(value: object) -> object:
    """Returns a value with sorted lists for its sets, and UTF-8 text or else URL-safe base64 for its bytes.

    The order of a set differs from process to process, and its JSON must not.
    """
    if isinstance(value, Mapping):
        return {name: _plain(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(member) for member in value]
    if isinstance(value, set | frozenset):
        return sorted(map(_plain, value), key=lambda member: to_json(member, serialize_unknown=True))
    if isinstance(value, bytes | bytearray):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return urlsafe_b64encode(value).decode()
    return value


def _same(decoded: object, value: object) -> bool:
    try:
        return bool(decoded == value)
    except Exception:  # noqa: BLE001  # any __eq__ may be called here; if it fails, the decoded value is used
        return False
