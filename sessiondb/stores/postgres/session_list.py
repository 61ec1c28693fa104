"""SQL that lists sessions: all of them, or a page."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from typing import Any

from sessiondb.model.queries import ListSessions
from sessiondb.model.records import Selection, SessionHead, SessionKey, SessionSummary
from sessiondb.stores.postgres.asked import Asked
from sessiondb.stores.postgres.patience import AT_ONCE
from sessiondb.stores.postgres.sql import HEAD_COLUMNS, KEY, OWNER, state_of, where_clause

_SUMMARY = f"{KEY}, created_at, updated_at, cut_seq, {HEAD_COLUMNS}"
_BY_UPDATE = ("update_time", "user_id", "session_id", "app_name")
_ORDERS = {
    "oldest": ", ".join(_BY_UPDATE),
    "newest": ", ".join(f"{column} DESC" for column in _BY_UPDATE),
    "key": KEY,
}
_BEHIND = {"oldest": ">", "newest": "<"}

_FEW_SESSIONS = 500
"""As many are looked up, or counted, and sorted for a page within a millisecond or two."""


def list_sessions(asked: Asked, query: ListSessions) -> Generator[SessionSummary, None, None]:
    """Lists sessions; a long list of a snapshot is fetched bit by bit."""
    parameters: dict[str, Any] = {
        **query.selection._asdict(),
        "updated_since": query.updated_since,
        "updated_before": query.updated_before,
        "limit": query.limit,
    }
    conditions = [
        "" if query.updated_since is None else "update_time >= %(updated_since)s",
        "" if query.updated_before is None else "update_time < %(updated_before)s",
    ]
    if query.after is not None:
        time, (app_name, user_id, session_id) = query.after
        parameters |= {"after_0": time, "after_1": user_id, "after_2": session_id, "after_3": app_name}
        conditions.append(
            f"({', '.join(_BY_UPDATE)}) {_BEHIND[query.order]}"
            " (%(after_0)s::double precision, %(after_1)s, %(after_2)s, %(after_3)s)"
        )
    for n, (key, value) in enumerate(query.state):
        parameters |= {f"key_{n}": key, f"value_{n}": value}
        # Not by EXISTS: of that a planner without statistics makes a join, which goes through the state of all sessions.
        conditions.append(
            f"(SELECT t.state_value FROM @adk_state AS t WHERE t.app_name = s.app_name"
            f" AND {OWNER['SESSION'].format('s.', '')} AND t.scope = 'SESSION' AND t.state_key = %(key_{n})s)"
            f" = %(value_{n})s"
        )
    where = where_clause(query.selection, *conditions)
    limit = "" if query.limit is None else "LIMIT %(limit)s"
    is_page = query.limit is not None and query.order != "key"
    if is_page and query.selection.app_name is not None and _are_many(asked, query.selection):
        # They are read in the order of their update until there are enough. Without statistics the server would rather look
        # them all up by their keys, which it cannot with such an expression.
        where = where.replace("WHERE app_name", "WHERE app_name || ''", 1)
    states = "'{}', '{}', '{}'"
    if query.with_state:
        states = ", ".join(state_of(scope, "s.", "") for scope in ("SESSION", "USER", "APP"))
    statement = f"SELECT {_SUMMARY}, {states} FROM @adk_sessions AS s {where} ORDER BY {_ORDERS[query.order]} {limit}"
    if asked.in_snapshot and (query.limit is None or query.limit > AT_ONCE):
        return _summaries(asked.through_cursor(statement, parameters))
    # Most lists are short, and a service makes one list of all. To fetch a short one bit by bit takes three times as long.
    return _summaries(row for row in asked.all(statement, parameters))


def _summaries(rows: Generator[tuple[Any, ...], None, None]) -> Generator[SessionSummary, None, None]:
    # One at a time, so that the garbage collector is not given all of them to look at, again and again.
    with closing(rows):
        for row in rows:
            yield SessionSummary(SessionKey(*row[:3]), row[3], row[4], SessionHead(*row[6:]), row[5])


def _are_many(asked: Asked, selection: Selection) -> bool:
    """Whether more sessions are selected than can be sorted for a page."""
    some = f"SELECT 1 FROM @adk_sessions {where_clause(selection)} LIMIT {_FEW_SESSIONS + 1}"
    return int(asked.one(f"SELECT count(*) FROM ({some}) AS bounded", selection._asdict())[0]) > _FEW_SESSIONS
