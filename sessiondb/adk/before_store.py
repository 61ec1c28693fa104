"""Asks a host's hook what is to be stored of an event."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from google.adk.events import Event

from sessiondb.adk.events import encode_event, event_of_record
from sessiondb.adk.state import encode_delta
from sessiondb.errors import InvalidInputError
from sessiondb.model.records import NO_DELTA, EventRecord, StateDelta

BeforeStore: TypeAlias = Callable[[Event], Event | None]
"""Is called with a copy of each event, and returns what is stored of it; None: its id, invocation, author and time."""

_PLACE = 4
"""So many fields of a record, the first ones, say which event it is."""


def stored_instead(hook: BeforeStore, record: EventRecord, *, keep_none: bool) -> tuple[EventRecord, StateDelta]:
    """Returns what is stored in place of an event, and the changes of state that this makes.

    Args:
        hook: It is called once, with a copy: what a reader of the record would get.
        record: The event, encoded.
        keep_none: As for :func:`.encode_delta`.

    Raises:
        InvalidInputError: If the hook returned something else than this event with other content, or one that cannot be
            stored.
        Exception: What the hook raises.
    """
    stored = hook(event_of_record(record))
    if stored is None:
        return record._replace(content=None, actions='{"state_delta":{}}', extra=None), NO_DELTA
    if not isinstance(stored, Event):
        raise InvalidInputError(f"before_store must return an Event or None, not {type(stored).__name__}")
    delta = encode_delta(stored.actions.state_delta, keep_none=keep_none)
    kept = encode_event(stored, delta).record
    if kept[:_PLACE] != record[:_PLACE]:
        raise InvalidInputError(
            "before_store returned an event of another id, invocation_id, author or timestamp: these have to stay"
        )
    return kept, delta.stored
