"""SQL of pruning: what is more than is to be kept, and how it goes."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator
from typing import Any

from sessiondb.model.commands import DeleteUnchanged, TrimLog
from sessiondb.model.queries import FindSurplus, ListMarks, ListOwnChanges
from sessiondb.model.records import (
    LoggedChange,
    LogMark,
    Outcome,
    SessionHead,
    SessionKey,
    SessionSummary,
    Status,
    Surplus,
)
from sessiondb.stores.sqlite.connection import stream
from sessiondb.stores.sqlite.sql import CHANGES_STATE, KEY, THIS_SESSION, where_clause

# The rows of a session are in the order of the log by their ids.
_LAST_TO_GO = f"SELECT id, revision, event_time FROM adk_events WHERE {THIS_SESSION} AND seq = :seq ORDER BY id LIMIT 1"
_CUT = f"""
    UPDATE adk_sessions
       SET cut_seq = :seq, cut_revision = :revision, cut_time = :event_time, begun_after = :row_id,
           initial_state = :initial_state, log_epoch = log_epoch + 1
     WHERE {THIS_SESSION} AND incarnation = :incarnation AND log_epoch = :log_epoch
       AND (:last_seq IS NULL OR last_seq = :last_seq)
"""
_DELETE_EVENTS = f"DELETE FROM adk_events WHERE {THIS_SESSION} AND id <= :row_id"
_DELETE_SESSION = f"""
    DELETE FROM adk_sessions
     WHERE {THIS_SESSION} AND incarnation = :incarnation AND revision = :revision AND last_seq = :last_seq
       AND log_epoch = :log_epoch
"""


def trim(connection: sqlite3.Connection, command: TrimLog) -> Outcome:
    """Cuts off the oldest events of a session.

    Raises:
        sqlite3.Error: If SQLite refuses.
    """
    parameters: dict[str, Any] = {**command.key._asdict(), **command._asdict()}
    del parameters["key"]
    found = connection.execute(_LAST_TO_GO, parameters).fetchone()
    if found is None:
        return Outcome(Status.STALE)
    parameters["row_id"], parameters["revision"], parameters["event_time"] = found
    # First: by its cut, the session says of each event that goes that nobody has to be told of it any more.
    if not connection.execute(_CUT, parameters).rowcount:
        return Outcome(Status.STALE)
    connection.execute(_DELETE_EVENTS, parameters)
    return Outcome(Status.DONE)


def delete_unchanged(connection: sqlite3.Connection, command: DeleteUnchanged) -> Outcome:
    """Deletes sessions, if they are as they were read.

    Raises:
        sqlite3.Error: If SQLite refuses.
    """
    gone = tuple(
        session
        for session in command.sessions
        if connection.execute(_DELETE_SESSION, {**session.key._asdict(), **session.head._asdict()}).rowcount
    )
    return Outcome(Status.DONE, pruned=gone)


def find_surplus(connection: sqlite3.Connection, query: FindSurplus) -> list[Surplus]:
    """Finds sessions of which there is more than is to be kept."""
    limits = query.limits
    parameters: dict[str, Any] = {**query.selection._asdict(), **limits._asdict(), "limit": query.limit}
    conditions = ["FALSE"]
    if limits.updated_before is not None:
        conditions.append("update_time < :updated_before")
    if limits.created_before is not None:
        conditions.append("created_at < :created_before")
    nth = "0"
    if limits.max_sessions_per_user is not None:
        nth = (
            "row_number() OVER (PARTITION BY app_name, user_id"
            " ORDER BY update_time DESC, created_at DESC, session_id DESC)"
        )
        conditions.append("nth > :max_sessions_per_user")
    is_doomed = f"({' OR '.join(conditions)})"
    is_long = "FALSE" if limits.max_events is None else "last_seq - cut_seq > :max_events"
    from_user = behind = ""
    if query.after is not None:
        parameters |= {f"after_{column}": value for column, value in query.after._asdict().items()}
        # All sessions of the user are counted.
        from_user = "(app_name, user_id) >= (:after_app_name, :after_user_id)"
        behind = f"({KEY}) > (:after_app_name, :after_user_id, :after_session_id) AND"
    found = connection.execute(
        f"""
        SELECT {KEY}, created_at, updated_at, cut_seq, {is_doomed},
               incarnation, revision, last_seq, log_epoch, update_time, '{{}}', '{{}}', '{{}}'
          FROM (SELECT *, {nth} AS nth FROM adk_sessions {where_clause(query.selection, from_user)})
         WHERE {behind} ({is_doomed} OR {is_long})
         ORDER BY {KEY} LIMIT :limit
        """,
        parameters,
    )
    return [
        Surplus(
            SessionSummary(SessionKey._make(row[:3]), row[3], row[4], SessionHead._make(row[7:]), row[5]), bool(row[6])
        )
        for row in found
    ]


_MARKS = f"""
    SELECT id, seq, revision, invocation_id, event_time,
           CASE WHEN instr(content, '"function_') THEN content END,
           CASE WHEN instr(actions, '"compaction"') OR instr(actions, '"rewind_before_invocation_id"') THEN actions END
      FROM adk_events
     WHERE {THIS_SESSION} AND id > :after ORDER BY id LIMIT :limit
"""


def list_own_changes(connection: sqlite3.Connection, query: ListOwnChanges) -> Generator[LoggedChange, None, None]:
    """Reads what the events of a session have changed."""
    changes = f"SELECT seq, actions, extra FROM adk_events WHERE {THIS_SESSION} AND {CHANGES_STATE} ORDER BY id"
    for seq, actions, extra in stream(connection, changes, query.key._asdict()):
        yield LoggedChange((), query.key, seq, "", "", "", None, "", actions, extra)


def list_marks(connection: sqlite3.Connection, query: ListMarks) -> list[LogMark]:
    """Reads of a log what says where it may be cut."""
    parameters = {
        **query.key._asdict(),
        "after": 0 if query.after is None else query.after.row_id,
        "limit": query.limit,
    }
    return [LogMark._make(row) for row in connection.execute(_MARKS, parameters)]
