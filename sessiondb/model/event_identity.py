"""When two events are one: for finding an event that is delivered again."""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import Any

from sessiondb.model.records import REDACTED_AT, STORED_NONE, EventRecord


def event_hash(event_id: str) -> int:
    """The value of ``adk_events.event_hash`` for an event id: 64 bits of BLAKE2b, signed."""
    return int.from_bytes(blake2b(event_id.encode(), digest_size=8).digest(), "big", signed=True)


def is_same_event(stored: EventRecord, given: EventRecord) -> bool:
    """Whether two records are of one event: JSON objects are equal whatever the order of their members.

    What a redacted event held nobody can tell any more. It is the event that its id, invocation, author and time say.
    """
    if stored[:4] != given[:4]:
        return False
    fields = _fields(stored.extra)
    return is_redacted(fields) or (
        _is_same_json(stored.content, given.content)
        and _is_same_json(stored.actions, given.actions)
        and fields == _fields(given.extra)
    )


def is_redacted(fields: dict[str, Any]) -> bool:
    """Whether an event of these fields is what a redaction has left."""
    metadata = fields.get("custom_metadata")
    return isinstance(metadata, dict) and REDACTED_AT in metadata


def _is_same_json(left: str | None, right: str | None) -> bool:
    if left == right or left is None or right is None:
        return left == right
    return bool(json.loads(left) == json.loads(right))


def _fields(extra: str | None) -> dict[str, Any]:
    """Returns the fields of the event. What None did in its delta is the service's matter, not the event's."""
    fields: dict[str, Any] = {} if extra is None else json.loads(extra)
    fields.pop(STORED_NONE, None)
    return fields
