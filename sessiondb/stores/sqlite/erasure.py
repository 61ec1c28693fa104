"""SQL that deletes what belongs to a user, some at a time, and counts it."""

from __future__ import annotations

import sqlite3
from itertools import accumulate, takewhile

from sessiondb.model.columns import SESSION_KEY
from sessiondb.model.commands import EraseUser
from sessiondb.model.queries import MeasureUser
from sessiondb.model.records import Erased
from sessiondb.stores.sqlite.connection import snapshot
from sessiondb.stores.sqlite.sql import THIS_SESSION, equal

_OF_USER = equal(SESSION_KEY[:2], "")
_SESSIONS = f"SELECT session_id, last_seq + 1 FROM adk_sessions WHERE {_OF_USER} ORDER BY session_id LIMIT :limit"
_OLDEST_EVENTS = f"(SELECT id FROM adk_events WHERE {THIS_SESSION} ORDER BY id LIMIT :limit)"
# One that another program has made from a session of its own says so too.
_FORKS = "app_name = :app_name AND forked_user_id = :user_id AND user_id <> :user_id AND forked_seq IS NOT NULL"
_COUNTS = """
    (SELECT count(*) FROM adk_events WHERE {0}), (SELECT count(*) FROM adk_state WHERE {0})
"""


def erase(connection: sqlite3.Connection, command: EraseUser) -> Erased:
    """Deletes the next part of what belongs to a user, within a transaction."""
    user = command._asdict()
    found = connection.execute(_SESSIONS, user).fetchall()
    # A log has no more events than its last number says.
    rows = accumulate(size for _, size in found)
    whole = sum(1 for _ in takewhile(lambda size: size <= command.limit, rows))
    if found and not whole:
        session = {**user, "session_id": found[0][0]}
        events = connection.execute(f"DELETE FROM adk_events WHERE id IN {_OLDEST_EVENTS}", session).rowcount
        if events == command.limit:
            return Erased(0, events, 0, 0, is_all=False)
        whole = 1
    else:
        events = 0
    keys = 0
    for session_id, _ in found[:whole]:
        session = {**user, "session_id": session_id}
        counts = connection.execute(f"SELECT {_COUNTS.format(THIS_SESSION)}", session).fetchone()
        connection.execute(f"DELETE FROM adk_sessions WHERE {THIS_SESSION}", session)
        events, keys = events + counts[0], keys + counts[1]
    if whole < len(found) or whole == command.limit:
        return Erased(whole, events, keys, 0, is_all=False)
    # Of a table that others have edited, what belongs to no session goes too.
    others = connection.execute(
        f"DELETE FROM adk_events WHERE id IN (SELECT id FROM adk_events WHERE {_OF_USER} LIMIT :limit)", user
    ).rowcount
    of_user = connection.execute(
        f"DELETE FROM adk_state WHERE rowid IN (SELECT rowid FROM adk_state WHERE {_OF_USER} LIMIT :limit)", user
    ).rowcount
    forks = connection.execute(
        "UPDATE adk_sessions SET forked_user_id = NULL, forked_session_id = NULL"
        f" WHERE rowid IN (SELECT rowid FROM adk_sessions WHERE {_FORKS} LIMIT :limit)",
        user,
    ).rowcount
    is_all = max(others, of_user, forks) < command.limit
    return Erased(whole, events + others, keys + of_user, forks, is_all)


def measure_user(connection: sqlite3.Connection, query: MeasureUser) -> Erased:
    """Counts what belongs to a user."""
    user = {"app_name": query.app_name, "user_id": query.user_id}
    with snapshot(connection):
        counts = connection.execute(
            f"SELECT (SELECT count(*) FROM adk_sessions WHERE {_OF_USER}), {_COUNTS.format(_OF_USER)},"
            f" (SELECT count(*) FROM adk_sessions WHERE {_FORKS})",
            user,
        ).fetchone()
    return Erased._make((*counts, True))
