"""The columns of the tables, each order spelled once: as a table has them, and as the records hold them.

The tables are public, and every store keeps them under these names (docs/schema.md).
"""

from __future__ import annotations

SESSION_KEY = ("app_name", "user_id", "session_id")
"""In the order of :class:`~sessiondb.model.records.SessionKey`."""

SESSIONS = (
    *SESSION_KEY,
    "created_at",
    "updated_at",
    "update_time",
    "incarnation",
    "revision",
    "last_seq",
    "log_epoch",
)
"""All of ``adk_sessions``, in the order of the table."""

EVENTS = (
    "id",
    *SESSION_KEY,
    "invocation_id",
    "author",
    "timestamp",
    "content",
    "actions",
    "extra",
    "seq",
    "revision",
    "event_id",
    "event_time",
    "incarnation",
    "event_hash",
)
"""All of ``adk_events``, in the order of the table."""

STATE = (*SESSION_KEY, "scope", "state_key", "state_value", "updated_at")
"""All of ``adk_state``, in the order of the table."""

EVENT_RECORD = ("event_id", "invocation_id", "author", "event_time", "timestamp", "content", "actions", "extra")
"""Columns of ``adk_events`` in the order of :class:`~sessiondb.model.records.EventRecord`."""

EVENT_ROW = ("id", "seq", "revision", *EVENT_RECORD)
"""Columns of ``adk_events`` in the order of :class:`~sessiondb.model.records.EventRow`."""
