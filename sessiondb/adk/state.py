"""Encoding of state deltas: from what an agent wrote to what is stored, and to what the live objects hold then.

Coercions are ADK's own: values that JSON cannot hold become what ``pydantic`` makes of them (dates ISO text, sets sorted
lists, models objects, NaN and infinities null, UTF-8 bytes text and other bytes URL-safe base64), and what even that
cannot encode becomes its ``repr``.
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
"""What encoding raises for a value that JSON cannot hold."""


class EncodedDelta(NamedTuple):
    """A state delta, ready to be stored, and what the live objects hold once it is."""

    stored: StateDelta
    json: str
    """The delta without its temp keys, a JSON object as the log keeps it."""
    live: dict[str, Any]
    """Prefixed keys to the values that storage gives back; the caller's own objects where those are equal."""
    deleted: tuple[str, ...]
    """Prefixed keys that the delta deletes."""
    temp: dict[str, Any]
    """Keys that live on the Session object only."""
    event_delta: dict[str, Any]
    """What ``EventActions.state_delta`` reads as once the event is stored: no temp keys, storable values."""


_EMPTY_DELTA = EncodedDelta(NO_DELTA, "{}", {}, (), {}, {})


def encode_delta(delta: Mapping[str, Any]) -> EncodedDelta:
    """Encodes a state delta; the mapping is left as it is.

    Raises:
        InvalidInputError: If a key or value cannot be stored.
    """
    if not delta:
        return _EMPTY_DELTA
    columns: dict[str, list[str]] = {}
    members: list[str] = []
    live: dict[str, Any] = {}
    deleted: list[str] = []
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
            # None, or what JSON makes null, such as NaN: in a log that people read, null has one meaning.
            deleted.append(key)
            event_delta[key] = None
            columns.setdefault(parts.removed_column, []).append(parts.quoted_name)
        else:
            live[key] = event_delta[key] = kept
            columns.setdefault(parts.set_column, []).append(f"{parts.quoted_name}:{encode_basestring(text)}")
    stored = {
        column: f"{{{','.join(entries)}}}" if column.endswith("_set") else f"[{','.join(entries)}]"
        for column, entries in columns.items()
    }
    return EncodedDelta(StateDelta(**stored), "{" + ",".join(members) + "}", live, tuple(deleted), temp, event_delta)


class _KeyParts(NamedTuple):
    """What becomes of a state key: the key and its name within its scope as JSON, and the columns of its scope."""

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
    """Returns the parts of a key; None for one that is not stored."""
    # Agents write the same few keys over and over. Only strings can be looked up: 1 and True are one key to a cache.
    return _parts_of_text(key if type(key) is str else check_text("state key", key))


def _encode_value(key: str, value: object) -> tuple[str, object]:
    """Returns the JSON of a state value, and the value that it reads back as."""
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
    # State is read as an object of values: one level more than the value itself, which counts for the deepest.
    return from_json(f"[{text}]")[0]


def _plain_or_cyclic(value: object) -> object:
    try:
        return _plain(value)
    except RecursionError:
        # pydantic writes "..." where an object holds itself, and refuses what is merely too deep.
        return value


def _plain(value: object) -> object:
    """Replaces what has no single JSON form: sets become sorted lists, bytes UTF-8 text or URL-safe base64."""
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
    except Exception:  # noqa: BLE001  # a foreign __eq__ may raise anything; then the decoded value is the one to use
        return False
