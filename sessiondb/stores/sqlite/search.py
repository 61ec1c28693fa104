"""SQL that searches the texts of events."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

from sessiondb.model.memory import EVENT_MARK, MEMORY_SESSION_ID, SESSION_MARK
from sessiondb.model.queries import SearchEvents
from sessiondb.model.records import EventRow, SessionKey
from sessiondb.model.search import WINDOW, Candidate, Found, FoundPage, each_of_any, find_page
from sessiondb.model.words import Term
from sessiondb.stores.sqlite import text_index
from sessiondb.stores.sqlite.connection import snapshot
from sessiondb.stores.sqlite.sql import EVENT_ROW, THIS_SESSION

_MARK = f"""
    FROM adk_state AS m
   WHERE m.app_name = e.app_name AND m.user_id = e.user_id AND m.session_id = '{MEMORY_SESSION_ID}' AND m.scope = 'SESSION'
     AND m.state_key =
"""
# Both moments are texts of one form.
_IS_REMEMBERED = f"""
    coalesce((SELECT m.state_value = 'true' {_MARK} '{EVENT_MARK}' || e.event_id),
             (SELECT m.state_value >= '"' || e.timestamp || '"' {_MARK} '{SESSION_MARK}' || e.session_id), 0)
"""


def search_events(connection: sqlite3.Connection, query: SearchEvents) -> FoundPage:
    """Answers a query.

    Raises:
        SearchIndexError: If the file has no index, or one that is not complete.
        sqlite3.Error: If SQLite refuses.
    """
    with snapshot(connection):
        text_index.check_complete(connection)
        scope = _scope(connection, query)
        if not query.terms or scope is None:
            return FoundPage([], None)

        def window(newest: int | None) -> Sequence[Candidate]:
            return _candidates(connection, query, scope, newest)

        page, place = find_page(window, query.terms, query.match, query.limit, query.after)
        if not query.with_rows:
            return FoundPage([Found(hit) for _, hit in page], place)
        statement = f"SELECT {EVENT_ROW} FROM adk_events WHERE id = ?"
        rows = (connection.execute(statement, (row_id,)).fetchone() for row_id, _ in page)
        return FoundPage([Found(hit, EventRow._make(row)) for (_, hit), row in zip(page, rows, strict=True)], place)


def _scope(connection: sqlite3.Connection, query: SearchEvents) -> str | None:
    """Returns what a match says of apps, users and sessions; ``""``: nothing; None if there is no such session.

    What it does not say, conditions do: they are there all the same.
    """
    app_name, user_id, session_id = query.selection
    if app_name is None:
        return ""
    app = app_name.encode().hex()
    if user_id is None:
        return f'scope : "a{app}" AND '
    if session_id is None:
        return f'scope : "u{app}x{user_id.encode().hex()}" AND '
    statement = f"SELECT incarnation FROM adk_sessions WHERE {THIS_SESSION}"
    found = connection.execute(statement, query.selection._asdict()).fetchone()
    return None if found is None else f'scope : "s{found[0]}" AND '


def _candidates(
    connection: sqlite3.Connection, query: SearchEvents, scope: str, newest: int | None
) -> Sequence[Candidate]:
    if query.match == "all":
        words = " AND ".join(map(_match_of, query.terms))
        return _newest(connection, query, f"{scope}words : ({words})", newest, WINDOW)
    each = each_of_any(len(query.terms))
    found: dict[int, Candidate] = {}
    for term in query.terms:
        for candidate in _newest(connection, query, f"{scope}words : {_match_of(term)}", newest, each):
            found[candidate.row_id] = candidate
    return sorted(found.values(), reverse=True)


def _match_of(term: Term) -> str:
    # A term holds no quote: FTS5 takes all in it for words, which it finds as it does in texts.
    return f'"{term.words}"{"*" if term.prefix else ""}'


def _newest(
    connection: sqlite3.Connection, query: SearchEvents, match: str, newest: int | None, limit: int
) -> Sequence[Candidate]:
    parameters: dict[str, Any] = {
        **query.selection._asdict(),
        "author": query.author,
        "since": query.since,
        "until": query.until,
        "newest": newest,
        "match": match,
        "limit": limit,
    }
    conditions = [
        f"e.{column} {operator} :{name}"
        for name, column, operator in (
            ("app_name", "app_name", "="),
            ("user_id", "user_id", "="),
            ("session_id", "session_id", "="),
            ("author", "author", "="),
            ("since", "event_time", ">="),
            ("until", "event_time", "<"),
        )
        if parameters[name] is not None
    ]
    if newest is not None:
        conditions.append("t.rowid <= :newest")
    if query.remembered:
        conditions.append(_IS_REMEMBERED)
    also = "".join(f" AND {condition}" for condition in conditions)
    # One row for all of them: each that sqlite3 returns is a step that gives up the GIL. JSON would round the time.
    statement = f"""
        SELECT json_group_array(json_array(
                   id, app_name, user_id, session_id, event_id, seq, author, printf('%!.17g', event_time), text))
          FROM (SELECT e.id, e.app_name, e.user_id, e.session_id, e.event_id, e.seq, e.author, e.event_time,
                       {text_index.text_of("e")} AS text
                  FROM {text_index.TABLE} AS t CROSS JOIN adk_events AS e ON e.id = t.rowid
                 WHERE t.{text_index.TABLE} MATCH :match{also}
                 ORDER BY t.rowid DESC LIMIT :limit)
    """
    (rows,) = connection.execute(statement, parameters).fetchone()
    return [
        Candidate(row_id, SessionKey(*key), event_id, seq, author, float(time), text)
        for row_id, *key, event_id, seq, author, time, text in json.loads(rows)
    ]
