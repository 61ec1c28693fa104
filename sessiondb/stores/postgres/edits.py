"""SQL of what has to be known of a log before something is taken away from it."""

from __future__ import annotations

from sessiondb.model.event_identity import event_hash
from sessiondb.model.queries import FindEvents, GetOutline
from sessiondb.model.records import EventRow, SessionHead, SessionSnapshot
from sessiondb.stores.postgres.asked import Asked
from sessiondb.stores.postgres.sql import EVENT_ROW, HEAD_COLUMNS, THIS_SESSION

_OUTLINE = f"""
    SELECT id, seq, revision, event_id, invocation_id, author, event_time, timestamp,
           CASE WHEN strpos(content, '"function_') > 0 THEN content END,
           CASE WHEN strpos(actions, '"compaction":') > 0 THEN actions ELSE '{{}}' END, NULL
      FROM @adk_events WHERE {THIS_SESSION} ORDER BY seq
"""
_HEAD = f"SELECT {HEAD_COLUMNS}, '{{}}', '{{}}', '{{}}' FROM @adk_sessions WHERE {THIS_SESSION}"
_OF_IDS = f"""
    SELECT {EVENT_ROW} FROM @adk_events
     WHERE app_name = %(app_name)s AND user_id = %(user_id)s AND incarnation = %(incarnation)s
       AND event_hash = ANY(%(hashes)s) AND event_id = ANY(%(event_ids)s)
     ORDER BY seq
"""


def get_outline(asked: Asked, query: GetOutline) -> list[EventRow]:
    """Reads which events a log holds, without most of what is in them."""
    return [EventRow._make(row) for row in asked.all(_OUTLINE, query.key._asdict())]


def find_events(asked: Asked, query: FindEvents) -> SessionSnapshot | None:
    """Reads the events of some ids."""
    with asked.snapshot():
        found = asked.all(_HEAD, query.key._asdict())
        if not found:
            return None
        head = SessionHead._make(found[0])
        parameters = {
            **query.key._asdict(),
            "incarnation": head.incarnation,
            "hashes": [event_hash(event_id) for event_id in query.event_ids],
            "event_ids": list(query.event_ids),
        }
        rows = [EventRow._make(row) for row in asked.all(_OF_IDS, parameters)]
    return SessionSnapshot(head, rows)
