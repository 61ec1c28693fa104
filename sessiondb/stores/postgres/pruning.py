"""SQL of pruning: what is more than is to be kept, and where logs may be cut."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from typing import Any

from sessiondb.model.queries import FindSurplus, ListMarks, ListOwnChanges
from sessiondb.model.records import LoggedChange, LogMark, SessionHead, SessionKey, SessionSummary, Surplus
from sessiondb.stores.postgres.asked import Asked
from sessiondb.stores.postgres.sql import CHANGES_STATE, KEY, THIS_SESSION, where_clause


def find_surplus(asked: Asked, query: FindSurplus) -> list[Surplus]:
    """Finds sessions of which there is more than is to be kept."""
    limits = query.limits
    parameters: dict[str, Any] = {**query.selection._asdict(), **limits._asdict(), "limit": query.limit}
    conditions = ["FALSE"]
    if limits.updated_before is not None:
        conditions.append("update_time < %(updated_before)s::float8")
    if limits.created_before is not None:
        conditions.append('created_at COLLATE "C" < %(created_before)s')
    nth = "0"
    if limits.max_sessions_per_user is not None:
        nth = (
            "row_number() OVER (PARTITION BY app_name, user_id"
            ' ORDER BY update_time DESC, created_at COLLATE "C" DESC, session_id DESC)'
        )
        conditions.append("nth > %(max_sessions_per_user)s")
    is_doomed = f"({' OR '.join(conditions)})"
    is_long = "FALSE" if limits.max_events is None else "last_seq - cut_seq > %(max_events)s"
    from_user = behind = ""
    if query.after is not None:
        parameters |= {f"after_{column}": value for column, value in query.after._asdict().items()}
        # All sessions of the user are counted.
        from_user = "(app_name, user_id) >= (%(after_app_name)s, %(after_user_id)s)"
        behind = f"({KEY}) > (%(after_app_name)s, %(after_user_id)s, %(after_session_id)s) AND"
    found = asked.all(
        f"""
        SELECT {KEY}, created_at, updated_at, cut_seq, {is_doomed},
               incarnation, revision, last_seq, log_epoch, update_time, '{{}}', '{{}}', '{{}}'
          FROM (SELECT *, {nth} AS nth FROM @adk_sessions {where_clause(query.selection, from_user)}) AS counted
         WHERE {behind} ({is_doomed} OR {is_long})
         ORDER BY {KEY} LIMIT %(limit)s
        """,
        parameters,
    )
    return [
        Surplus(SessionSummary(SessionKey(*row[:3]), row[3], row[4], SessionHead(*row[7:]), row[5]), row[6])
        for row in found
    ]


_MARKS = f"""
    SELECT id, seq, revision, invocation_id, event_time,
           CASE WHEN strpos(content, '"function_') > 0 THEN content END,
           CASE WHEN strpos(actions, '"compaction"') > 0 OR strpos(actions, '"rewind_before_invocation_id"') > 0
                THEN actions END
      FROM @adk_events WHERE {THIS_SESSION} AND seq > %(after)s ORDER BY seq LIMIT %(limit)s
"""


def list_own_changes(asked: Asked, query: ListOwnChanges) -> Generator[LoggedChange, None, None]:
    """Reads what the events of a session have changed."""
    changes = f"SELECT seq, actions, extra FROM @adk_events WHERE {THIS_SESSION} AND {CHANGES_STATE} ORDER BY seq"
    with closing(asked.stream(changes, query.key._asdict())) as rows:
        for seq, actions, extra in rows:
            yield LoggedChange((), query.key, seq, "", "", "", None, "", actions, extra)


def list_marks(asked: Asked, query: ListMarks) -> list[LogMark]:
    """Reads of a log what says where it may be cut."""
    after = 0 if query.after is None else query.after.seq
    rows = asked.all(_MARKS, {**query.key._asdict(), "after": after, "limit": query.limit})
    return [LogMark(*row) for row in rows]
