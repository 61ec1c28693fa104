"""SQL of the read path: what each query asks, from one snapshot."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from sessiondb.errors import CorruptRowError
from sessiondb.model.queries import CountEvents, GetSession, GetUserState, ListSessions, MeasureStore, Query
from sessiondb.model.records import (
    EventRow,
    SessionHead,
    SessionKey,
    SessionSnapshot,
    SessionSummary,
    StoreSize,
)
from sessiondb.stores.sqlite.fragments import OBJECT, object_of

ResultT = TypeVar("ResultT")


_SESSION_KEY = "app_name = :app_name AND user_id = :user_id AND session_id = :session_id"
_HEAD = f"""
    WITH head AS MATERIALIZED (
        SELECT incarnation, revision, last_seq, log_epoch, update_time FROM adk_sessions WHERE {_SESSION_KEY}
    )
    SELECT incarnation, revision, last_seq, log_epoch, update_time,
           {object_of(f"{_SESSION_KEY} AND scope = 'SESSION'")},
           {object_of("app_name = :app_name AND user_id = :user_id AND scope = 'USER'")},
           {object_of("app_name = :app_name AND scope = 'APP'")},
           NULL
      FROM head
"""
_ROWS = f"""
    SELECT id, seq, event_id, invocation_id, author, event_time, content, actions, extra FROM adk_events
     WHERE {_SESSION_KEY}
"""
# Both parts are one statement, so they see one snapshot.
_KNOWN = "iif(incarnation = :incarnation AND log_epoch = :log_epoch, :row_id, 0)"
_GET_HEAD = _HEAD
_GET_TAIL = f"{_HEAD} UNION ALL SELECT * FROM ({_ROWS} AND id > (SELECT {_KNOWN} FROM head) ORDER BY id LIMIT :oldest)"
_GET_NEWEST = f"{_HEAD} UNION ALL SELECT * FROM ({_ROWS} ORDER BY id DESC LIMIT :newest)"
_GET_SINCE = f"{_HEAD} UNION ALL SELECT * FROM ({_ROWS} AND event_time >= :since ORDER BY id)"


def read(connection: sqlite3.Connection, query: Query[ResultT]) -> ResultT:
    """Answers a query from one snapshot.

    Raises:
        CorruptRowError: If a text is not UTF-8.
        sqlite3.Error: If SQLite refuses.
    """
    try:
        answer: ResultT = _READS[type(query)](connection, query)
    except sqlite3.OperationalError as error:
        # The message quotes the text.
        if "decode to UTF-8" in str(error):
            raise _not_utf8(connection, query) from None
        raise
    return answer


def _not_utf8(connection: sqlite3.Connection, query: Query[Any]) -> CorruptRowError:
    """Looks for the text that could not be read, and returns the error that names its row."""
    key: dict[str, str] = {}
    if isinstance(query, GetSession):
        key = query.key._asdict()
    elif isinstance(query, ListSessions | GetUserState) and query.app_name is not None:
        key = {"app_name": query.app_name}
    log = " AND ".join(f"{column} = :{column}" for column in key) or "true"
    others = "app_name = :app_name" if key else "true"
    connection.text_factory = bytes
    try:
        for table, where in (("adk_events", log), ("adk_sessions", others), ("adk_state", others)):
            rows = connection.execute(f"SELECT rowid, * FROM {table} WHERE {where} ORDER BY rowid", key)
            for row_id, *values in rows:
                for (column, *_), value in zip(rows.description[1:], values, strict=True):
                    if isinstance(value, bytes) and not _is_utf8(value):
                        return CorruptRowError(
                            f"{column} of row {row_id} of {table} is not UTF-8{_of_session(query)}; it was changed by"
                            " hand"
                        )
    finally:
        connection.text_factory = str
    return CorruptRowError(f"a text is not UTF-8{_of_session(query)}; it was edited outside sessiondb")


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _of_session(query: Query[Any]) -> str:
    if not isinstance(query, GetSession):
        return ""
    app_name, user_id, session_id = query.key
    return f", which session {session_id!r}, user {user_id!r}, app {app_name!r} reads"


def _get_session(connection: sqlite3.Connection, query: GetSession) -> SessionSnapshot | None:
    app_name, user_id, session_id = query.key
    parameters: dict[str, Any] = {"app_name": app_name, "user_id": user_id, "session_id": session_id}
    if query.newest == 0:
        statement = _GET_HEAD
    elif query.newest is not None:
        statement = _GET_NEWEST
        parameters["newest"] = query.newest
    elif query.since is not None:
        statement = _GET_SINCE
        parameters["since"] = query.since
    else:
        statement = _GET_TAIL
        parameters["incarnation"], parameters["log_epoch"], parameters["row_id"] = query.known
        parameters["oldest"] = -1 if query.oldest is None else query.oldest
    found = connection.execute(statement, parameters).fetchall()
    if not found:
        return None
    # SQLite runs the parts of a UNION ALL in the order they are written in: the head comes first.
    rows = [EventRow._make(row) for row in found[1:]]
    rows.sort(key=_row_id)
    return SessionSnapshot(SessionHead._make(found[0][:8]), rows)


def _row_id(row: EventRow) -> int:
    return row.row_id


def _list_sessions(connection: sqlite3.Connection, query: ListSessions) -> Iterator[SessionSummary]:
    parameters = {"app_name": query.app_name, "user_id": query.user_id}
    wanted = " AND ".join(f"{column} = :{column}" for column, value in parameters.items() if value is not None)
    where = f"WHERE {wanted}" if wanted else ""
    also = f"AND {wanted}" if wanted else ""
    app_only = "AND app_name = :app_name" if query.app_name is not None else ""
    own_state = object_of(
        "app_name = s.app_name AND user_id = s.user_id AND session_id = s.session_id AND scope = 'SESSION'"
    )
    # Three statements, one snapshot. None is left half read if one fails: the error's traceback would keep it, and it the
    # snapshot.
    connection.execute("BEGIN")
    try:
        sessions = connection.execute(
            "SELECT app_name, user_id, session_id, created_at, updated_at, incarnation, revision, last_seq, log_epoch,"
            f" update_time, {own_state} FROM adk_sessions AS s {where} ORDER BY update_time, user_id, session_id, app_name",
            parameters,
        ).fetchall()
        users = {
            (app_name, user_id): state
            for app_name, user_id, state in connection.execute(
                f"SELECT app_name, user_id, {OBJECT} FROM adk_state WHERE scope = 'USER' {also}"
                " GROUP BY app_name, user_id",
                parameters,
            ).fetchall()
        }
        apps = dict(
            connection.execute(
                f"SELECT app_name, {OBJECT} FROM adk_state WHERE scope = 'APP' {app_only} GROUP BY app_name",
                parameters,
            ).fetchall()
        )
    finally:
        connection.execute("COMMIT")
    # One at a time, so that the garbage collector is not given all of them to look at, again and again.
    return (
        SessionSummary(
            SessionKey(app_name, user_id, session_id),
            created_at,
            updated_at,
            SessionHead._make((*head, users.get((app_name, user_id), "{}"), apps.get(app_name, "{}"))),
        )
        for app_name, user_id, session_id, created_at, updated_at, *head in sessions
    )


def _get_user_state(connection: sqlite3.Connection, query: GetUserState) -> str:
    state: str
    (state,) = connection.execute(
        f"SELECT {OBJECT} FROM adk_state WHERE app_name = ? AND user_id = ? AND scope = 'USER'",
        (query.app_name, query.user_id),
    ).fetchone()
    return state


def _count_events(connection: sqlite3.Connection, query: CountEvents) -> int:
    count: int
    (count,) = connection.execute(
        "SELECT count(*) FROM adk_events WHERE app_name = ? AND user_id = ? AND session_id = ?", query.key
    ).fetchone()
    return count


def _measure(connection: sqlite3.Connection, _query: MeasureStore) -> StoreSize:
    return StoreSize._make(
        connection.execute(
            "SELECT (SELECT count(*) FROM adk_sessions), (SELECT count(*) FROM adk_events),"
            " (SELECT count(*) FROM adk_state), (SELECT page_count * page_size FROM pragma_page_count, pragma_page_size)"
        ).fetchone()
    )


_READS: dict[type[Any], Callable[[sqlite3.Connection, Any], Any]] = {
    GetSession: _get_session,
    ListSessions: _list_sessions,
    GetUserState: _get_user_state,
    CountEvents: _count_events,
    MeasureStore: _measure,
}
