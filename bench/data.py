"""What is appended: the same event for everyone."""

from __future__ import annotations

import itertools

from google.adk.events import Event, EventActions

from sessiondb.testing import typical_event

APP = "bench"
USER = "user"

event = typical_event
"""The event of everyone: about 570 bytes of JSON, 220 characters of text, a new value for a session and a user key."""

TEXT = "What has changed since the last run, and is the accuracy better on the new data set? Please write the figures down."

_numbers = itertools.count()


def small_event() -> Event:
    """The event of the overview's example: no content, a session key and a user key."""
    n = next(_numbers)
    return Event(
        invocation_id=f"inv_{n}",
        author="agent",
        actions=EventActions(state_delta={"theme": "light", "user:login_count": n}),
    )


def json_size(event: Event) -> int:
    """Bytes of an event's own JSON, as a service has to keep it."""
    return len(event.model_dump_json(exclude_none=True, by_alias=False).encode())
