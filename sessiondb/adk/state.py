"""Encodes state deltas: for the store, for the log, and for the Session and Event objects in memory.

Values are coerced as ADK does it: what JSON cannot hold becomes what pydantic makes of it (dates become ISO text, sets
sorted lists, iterators lists, models objects, NaN and infinities null, bytes UTF-8 text or else URL-safe base64), and
what pydantic cannot serialise becomes its ``str()``. A lone surrogate, which UTF-8 cannot hold, becomes U+FFFD.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from json.encoder import encode_basestring
from typing import Any, NamedTuple

from pydantic_core import PydanticSerializationError, from_json, to_json

from sessiondb.adk import scopes
from sessiondb.adk.limits import MAX_EVENT_BYTES, check_text, json_size
from sessiondb.adk.values import (
    DIGIT_LIMIT,
    MAY_BE_TOO_DEEP,
    NO_JSON_FORM,
    Place,
    Plainer,
    describe_refusal,
    is_json,
)
from sessiondb.errors import InvalidInputError
from sessiondb.model.records import NO_DELTA, StateDelta


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
    kept_nones: tuple[str, ...] = ()
    """The keys that are set to None, not deleted."""


_EMPTY_DELTA = EncodedDelta(NO_DELTA, "{}", {}, {})


def encode_delta(delta: Mapping[str, Any], *, keep_none: bool | Sequence[str] = False) -> EncodedDelta:
    """Encodes a state delta.

    Nothing of it is changed, but for iterators: they are read up, and their lists take their places.

    Args:
        delta: The delta.
        keep_none: Whether None, or a value such as NaN that becomes null in JSON, is a value; else it deletes the key.
            Or the keys for which that is so.

    Raises:
        InvalidInputError: If a key or value cannot be stored.
    """
    if not delta:
        return _EMPTY_DELTA
    columns: dict[str, list[str]] = {}
    members: list[str] = []
    temp: dict[str, Any] = {}
    event_delta: dict[str, Any] = {}
    kept_nones: list[str] = []
    for key, value in delta.items():
        parts = _key_parts(key)
        if parts is None:
            temp[key] = value
            continue
        text, kept = _encode_value(key, value, delta)
        members.append(f"{parts.quoted_key}:{text}")
        if text == "null" and not (keep_none if isinstance(keep_none, bool) else key in keep_none):
            event_delta[key] = None
            columns.setdefault(parts.removed_column, []).append(parts.quoted_name)
        else:
            if text == "null":
                kept = None
                kept_nones.append(key)
            event_delta[key] = kept
            columns.setdefault(parts.set_column, []).append(f"{parts.quoted_name}:{encode_basestring(text)}")
    stored = {
        column: f"{{{','.join(entries)}}}" if column.endswith("_set") else f"[{','.join(entries)}]"
        for column, entries in columns.items()
    }
    return EncodedDelta(StateDelta(**stored), "{" + ",".join(members) + "}", temp, event_delta, tuple(kept_nones))


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


def _encode_value(key: str, value: object, delta: Mapping[str, Any]) -> tuple[str, object]:
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
    plain = value
    try:
        text = _direct_json(value)
        direct = text is not None
        if text is None:
            plainer = Plainer(for_state=True)
            plain = plainer.set_in(delta, key, value, _place_of(key))
            text = to_json(plain, inf_nan_mode="null", serialize_unknown=True).decode()
            plainer.report()
        if (size := json_size(text)) > MAX_EVENT_BYTES:
            raise InvalidInputError(
                f"{_place_of(key)} is {size} bytes of JSON; at most {MAX_EVENT_BYTES} can be stored"
            )
        if direct and (kind is str or _is_readable(text)):
            return text, value
        parsed = _parsed(text)
        return text, value if direct and parsed == value else parsed
    except InvalidInputError:
        raise
    except NO_JSON_FORM:
        # pydantic's message quotes the value, which belongs to the user.
        raise InvalidInputError(describe_refusal(plain, _place_of(key), for_state=True)) from None


def _place_of(key: str) -> Place:
    return Place(Place(None, "state"), key, "[")


def _direct_json(value: object) -> str | None:
    """Returns the JSON of a value that needs no change; None for others."""
    try:
        return to_json(value, inf_nan_mode="null").decode() if type(value) is str or is_json(value) else None
    except (PydanticSerializationError, RecursionError):
        # A lone surrogate, or a value that is too deep or holds itself.
        return None


def _is_readable(text: str) -> bool:
    """Whether JSON is surely read as it was written.

    It may be neither too deep nor hold too long an integer; and a null may stand for NaN.
    """
    return len(text) < DIGIT_LIMIT and text.count("[") + text.count("{") < MAY_BE_TOO_DEEP and "null" not in text


def _parsed(text: str) -> Any:
    # Readers parse an object of values, one level deeper than the value. The parser's limit of depth applies to that.
    return from_json(f"[{text}]")[0]


def checked_state(state: object) -> Mapping[str, Any]:
    """Returns what was given as state, ``{}`` for None.

    Raises:
        InvalidInputError: If it is no mapping.
    """
    if state is None:
        return {}
    if not isinstance(state, Mapping):
        raise InvalidInputError(f"state must be a mapping of keys to values, not {type(state).__name__}")
    return state
