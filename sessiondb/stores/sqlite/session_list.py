"""SQL that lists sessions: all of them, or a page."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Iterator
from typing import Any

from sessiondb.model import columns
from sessiondb.model.queries import ListSessions
from sessiondb.model.records import Selection, SessionHead, SessionKey, SessionSummary
from sessiondb.stores.sqlite.connection import snapshot, stream
from sessiondb.stores.sqlite.sql import KEY, OBJECT, equal, names, state_of, where_clause

_SUMMARY = ("created_at", "updated_at", "cut_seq", "incarnation", "revision", "last_seq", "log_epoch", "update_time")
_SESSIONS = f"SELECT {KEY}, {names(_SUMMARY)}"
_BY_UPDATE = ("update_time", "user_id", "session_id", "app_name")
_ORDERS = {
    "oldest": names(_BY_UPDATE),
    "newest": ", ".join(f"{column} DESC" for column in _BY_UPDATE),
    "key": KEY,
}
_BEHIND = {"oldest": ">", "newest": "<"}

_FEW_SESSIONS = 2_000
"""As many are looked up and sorted for a page within about a millisecond."""


def list_sessions(connection: sqlite3.Connection, query: ListSessions) -> Iterator[SessionSummary]:
    """Lists sessions."""
    parameters: dict[str, Any] = {
        **query.selection._asdict(),
        "updated_since": query.updated_since,
        "updated_before": query.updated_before,
        "limit": query.limit,
    }
    conditions = [
        "" if query.updated_since is None else "update_time >= :updated_since",
        "" if query.updated_before is None else "update_time < :updated_before",
    ]
    if query.after is not None:
        time, (app_name, user_id, session_id) = query.after
        parameters |= {"after_0": time, "after_1": user_id, "after_2": session_id, "after_3": app_name}
        conditions.append(f"({names(_BY_UPDATE)}) {_BEHIND[query.order]} (:after_0, :after_1, :after_2, :after_3)")
    for n, (key, value) in enumerate(query.state):
        parameters |= {f"key_{n}": key, f"value_{n}": value}
        conditions.append(
            f"EXISTS (SELECT 1 FROM adk_state AS t WHERE {equal(columns.SESSION_KEY, 's')} AND scope = 'SESSION'"
            f" AND state_key = :key_{n} AND state_value = :value_{n})"
        )
    if query.limit is not None:
        return _list_some_sessions(connection, query, conditions, parameters)
    where = where_clause(query.selection, *conditions)
    # A LIMIT, even one that lets all pass, makes SQLite sort in another way, which takes longer.
    rest = f"{where} ORDER BY {_ORDERS[query.order]}"
    if not query.with_state:
        return _summaries(stream(connection, f"{_SESSIONS}, '{{}}' FROM adk_sessions AS s {rest}", parameters), {}, {})
    of_user = where_clause(query.selection._replace(session_id=None), "scope = 'USER'")
    of_app = where_clause(Selection(query.selection.app_name), "scope = 'APP'")
    # Three statements, one snapshot. None is left half read if one fails: the error's traceback would keep it, and it the
    # snapshot.
    with snapshot(connection):
        sessions = connection.execute(
            f"{_SESSIONS}, {state_of('SESSION', 's')} FROM adk_sessions AS s {rest}", parameters
        ).fetchall()
        users = {
            (app_name, user_id): state
            for app_name, user_id, state in connection.execute(
                f"SELECT app_name, user_id, {OBJECT} FROM adk_state {of_user} GROUP BY app_name, user_id", parameters
            ).fetchall()
        }
        apps = dict(
            connection.execute(
                f"SELECT app_name, {OBJECT} FROM adk_state {of_app} GROUP BY app_name", parameters
            ).fetchall()
        )
    # One at a time, so that the garbage collector is not given all of them to look at, again and again.
    return _summaries(iter(sessions), users, apps)


def _list_some_sessions(
    connection: sqlite3.Connection, query: ListSessions, conditions: list[str], parameters: dict[str, Any]
) -> Iterator[SessionSummary]:
    """Lists sessions up to a limit. SQLite is told how: what it knows of the tables may be old, or nothing.

    Many are read in the order of their update, by the index that has it, until there are enough. Of few, which may be anywhere
    in that order, all are looked up by their keys, and sorted.
    """
    where, order = where_clause(query.selection, *conditions), _ORDERS[query.order]
    if query.order != "key" and query.selection.app_name is not None:
        # A plus keeps SQLite from looking a column up in an index. The app stands first.
        if _are_many(connection, query.selection):
            where = f"WHERE +{where.removeprefix('WHERE ')}"
        else:
            order = f"+{order}"
    some = f"{_SESSIONS} FROM adk_sessions AS s {where} ORDER BY {order} LIMIT :limit"
    if not query.with_state:
        return _summaries(stream(connection, f"SELECT *, '{{}}' FROM ({some})", parameters), {}, {})
    # The state of a user or an app is read once, and comes behind the sessions.
    nulls = ", ".join(["NULL"] * len(_SUMMARY))
    found = connection.execute(
        f"""
        WITH page AS MATERIALIZED ({some})
        SELECT *, {state_of("SESSION", "page")} FROM page
        UNION ALL
        SELECT app_name, user_id, NULL, {nulls}, {state_of("USER", "o")}
          FROM (SELECT DISTINCT app_name, user_id FROM page) AS o
        UNION ALL
        SELECT app_name, NULL, NULL, {nulls}, {state_of("APP", "o")} FROM (SELECT DISTINCT app_name FROM page) AS o
        """,
        parameters,
    ).fetchall()
    users = {row[:2]: row[-1] for row in found if row[2] is None and row[1] is not None}
    apps = {row[0]: row[-1] for row in found if row[1] is None}
    return _summaries((row for row in found if row[2] is not None), users, apps)


def _are_many(connection: sqlite3.Connection, selection: Selection) -> bool:
    """Whether more sessions are selected than can be sorted for a page."""
    some = f"SELECT 1 FROM adk_sessions {where_clause(selection)} LIMIT {_FEW_SESSIONS + 1}"
    (count,) = connection.execute(f"SELECT count(*) FROM ({some})", selection._asdict()).fetchone()
    return int(count) > _FEW_SESSIONS


def _summaries(
    rows: Iterator[Any], users: dict[tuple[str, str], str], apps: dict[str, str]
) -> Generator[SessionSummary, None, None]:
    for row in rows:
        head = (*row[6:], users.get(row[:2], "{}"), apps.get(row[0], "{}"))
        yield SessionSummary(SessionKey._make(row[:3]), row[3], row[4], SessionHead._make(head), row[5])
