"""What is remembered of a user's sessions is noted in the state of a session of the same user."""

from __future__ import annotations

MEMORY_SESSION_ID = "sessiondb:memory"
"""The session that notes it. Its log holds what is remembered and in no other log."""

SESSION_MARK = "session:"
"""Begins the state key that ends with a session's id. Its value is a moment, as the column ``timestamp`` has it: events of that
session up to then are remembered."""

EVENT_MARK = "event:"
"""Begins the state key that ends with an event's id. Its value, true or false, says whether the event is remembered, whatever
its session's mark says."""
