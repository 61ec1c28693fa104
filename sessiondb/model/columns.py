"""The columns of the tables, in the order in which the records hold them.

The tables are public, and every store keeps them under these names (docs/schema.md).
"""

from __future__ import annotations

SESSION_KEY = ("app_name", "user_id", "session_id")
"""In the order of :class:`~sessiondb.model.records.SessionKey`."""

EVENT_RECORD = ("event_id", "invocation_id", "author", "event_time", "timestamp", "content", "actions", "extra")
"""Columns of ``adk_events`` in the order of :class:`~sessiondb.model.records.EventRecord`."""

EVENT_ROW = ("id", "seq", "revision", *EVENT_RECORD)
"""Columns of ``adk_events`` in the order of :class:`~sessiondb.model.records.EventRow`."""
