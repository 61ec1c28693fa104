"""What is appended: the same event for everyone."""

from __future__ import annotations

import itertools

from google.adk.events import Event, EventActions
from google.genai import types

APP = "bench"
USER = "user"

TEXT = (
    "The model was trained on the new data set; accuracy rose from 0.91 to 0.94, and the report is in the folder. " * 3
)[:220]
assert len(TEXT) == 220

_numbers = itertools.count()


def event(author: str = "agent") -> Event:
    """An event of about 570 bytes of JSON: 220 characters of text, and a new value for a session and a user key."""
    n = next(_numbers)
    return Event(
        invocation_id=f"e-2f6c5f0a-7d3b-4c0e-9b1a-{n:012d}",
        author=author,
        content=types.Content(role="model", parts=[types.Part(text=TEXT)]),
        actions=EventActions(state_delta={"step": n, "user:steps": n}),
    )


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
