"""SQL of the read path: what each query asks, from one snapshot."""

from __future__ import annotations

import json
import operator
import sqlite3
from collections.abc import Callable, Generator, Sequence
from typing import Any, TypeVar

from sessiondb.errors import CorruptRowError
from sessiondb.model import columns
from sessiondb.model.queries import (
    LOG_START,
    After,
    CountEvents,
    FindDamage,
    FindEvents,
    FindSurplus,
    GetBeginning,
    GetLogEnd,
    GetLogPage,
    GetOutline,
    GetPast,
    GetSession,
    GetUsage,
    GetUserState,
    Last,
    ListChanges,
    ListEvents,
    ListForks,
    ListMarks,
    ListOwnChanges,
    ListSessions,
    ListState,
    MeasureStore,
    MeasureUser,
    Query,
    SearchEvents,
    Since,
)
from sessiondb.model.records import (
    EVERYTHING,
    Cursor,
    EventRow,
    LoggedEvent,
    LogPage,
    Selection,
    SessionHead,
    SessionKey,
    SessionSnapshot,
    StateRow,
    StoreSize,
)
from sessiondb.model.usage import UsageRow
from sessiondb.stores.sqlite.connection import snapshot, stream
from sessiondb.stores.sqlite.counting import count_rows
from sessiondb.stores.sqlite.edits import find_events, get_outline
from sessiondb.stores.sqlite.erasure import measure_user
from sessiondb.stores.sqlite.past import get_beginning, get_past, list_changes, list_forks
from sessiondb.stores.sqlite.pruning import find_surplus, list_marks, list_own_changes
from sessiondb.stores.sqlite.search import search_events
from sessiondb.stores.sqlite.session_list import list_sessions
from sessiondb.stores.sqlite.sql import EVENT_ROW, HEAD_COLUMNS, HOLDS_KEY, KEY, THIS_SESSION, state_of, where_clause
from sessiondb.stores.sqlite.usage import NOT_COPIED, get_usage
from sessiondb.stores.sqlite.wal import find_problems, wal_bytes

ResultT = TypeVar("ResultT")

_NO_LIMIT = 2**63 - 1


def _head(known: str = "0", width: int = len(columns.EVENT_ROW)) -> str:
    """Returns SQL for the head of a session, in rows of a width; ``known`` is the last event that a reader knows."""
    return f"""
    WITH head AS MATERIALIZED (
        SELECT {HEAD_COLUMNS}, {known} AS known FROM adk_sessions WHERE {THIS_SESSION}
    )
    SELECT {HEAD_COLUMNS},
           {state_of("SESSION", "")}, {state_of("USER", "")}, {state_of("APP", "")},
           {", ".join(["NULL"] * (width - 8))}
      FROM head
    """


# All parts of such a statement see one snapshot. The rows of the log are as wide as the head.
_ROWS = f"SELECT {EVENT_ROW} FROM adk_events WHERE {THIS_SESSION}"
# The index knows the order of the log, not its numbers: what is new are the last rows, as many as the numbers are apart.
# A row deleted outside sessiondb leaves fewer, so the numbers are compared as well.
_AFTER = f"""
    SELECT * FROM (
        {_ROWS} ORDER BY id DESC
         LIMIT coalesce((SELECT min(:limit, iif(known, max(last_seq - known, 0), {_NO_LIMIT})) FROM head), 0)
    ) WHERE seq > (SELECT known FROM head)
"""
_KNOWN = "iif(incarnation = :incarnation AND log_epoch = :log_epoch, :seq, 0)"
_LAST = f"SELECT * FROM ({_ROWS} ORDER BY id DESC LIMIT :last)"
_SINCE = f"{_ROWS} AND event_time >= :since"
_GET_HEAD = _head()

_seq_of = operator.attrgetter("seq")


def answer(connection: sqlite3.Connection, query: Query[ResultT]) -> ResultT:
    """Answers a query from one snapshot. What an iterator in the answer is made of is read as it goes.

    Raises:
        sqlite3.Error: If SQLite refuses.
    """
    found: ResultT = _ANSWERS[type(query)](connection, query)
    return found


# Each row that sqlite3 returns is a step that gives up the GIL, and a thread that computes keeps it for 5 ms then. So SQLite
# makes one text of each column, with a character between the values that hardly occurs in them. Where that does not tell
# all, the rows are read one by one: values that are no text where text belongs (`>= x''` is a blob, `>= ''` a text or a
# blob), empty ones where the text stands for NULL, times that are no whole number of 2**-22 s (all are from 2004 on, since a
# float of that size has no more places; and a whole number is written exactly), numbers that are none, and values that hold
# the character.
_BETWEEN = "\x1f"
_TIME_UNITS = 4194304.0
_TEXTS = ("event_id", "invocation_id", "author", "timestamp", "content", "actions", "extra")
_TIME = f"CAST(event_time * {_TIME_UNITS} AS INTEGER)"
_IS_ODD = " OR ".join(
    [
        *(f"{column} >= x''" for column in _TEXTS),
        *("content = ''", "extra = ''", "seq >= ''", "revision >= ''", "event_time >= ''"),
        f"event_time * {_TIME_UNITS} <> {_TIME}",
    ]
)
_AS_TEXT = {"event_time": _TIME, "content": "coalesce(content, '')", "extra": "coalesce(extra, '')"}
_COLUMN_TEXTS = ", ".join(f"group_concat({_AS_TEXT.get(column, column)}, char(31))" for column in columns.EVENT_ROW)
_MAX_COLUMN_BYTES = 16 * 2**20
"""Larger columns are read row by row, so that memory holds a large log once."""


def _in_one_step(rows: str, known: str = "0") -> str:
    """Returns SQL for the head of a session, and for some rows of the log as one text for each column."""
    head = _head(known, width=len(columns.EVENT_ROW) + 2)
    return f"{head} UNION ALL SELECT count(*), max({_IS_ODD}), {_COLUMN_TEXTS} FROM ({rows})"


def _get_session(connection: sqlite3.Connection, query: GetSession) -> SessionSnapshot | None:
    app_name, user_id, session_id = query.key
    parameters: dict[str, Any] = {"app_name": app_name, "user_id": user_id, "session_id": session_id}
    part = query.part
    if type(part) is After:
        if part.position is LOG_START and part.limit is None:
            by_row, in_one_step = _GET_ALL
        else:
            by_row, in_one_step = _GET_AFTER
            parameters["incarnation"], parameters["log_epoch"], parameters["seq"] = part.position
            parameters["limit"] = _NO_LIMIT if part.limit is None else part.limit
            if part.limit is not None:
                # Mostly there are none.
                return _row_by_row(connection, by_row, parameters)
    elif type(part) is Last:
        if not part.limit:
            return _row_by_row(connection, _GET_HEAD, parameters)
        by_row, in_one_step = _GET_LAST
        parameters["last"] = part.limit
    else:
        assert type(part) is Since  # noqa: S101  # the third of three
        by_row, in_one_step = _GET_SINCE
        parameters["since"] = part.time
    try:
        return _at_once(connection, in_one_step, parameters)
    except _OddRowsError:
        return _row_by_row(connection, by_row, parameters)


class _OddRowsError(Exception):
    """Rows have to be read one by one; never leaves this module."""


def _at_once(connection: sqlite3.Connection, statement: str, parameters: dict[str, Any]) -> SessionSnapshot | None:
    limit = connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_COLUMN_BYTES)
    try:
        found = connection.execute(statement, parameters).fetchall()
    except sqlite3.DataError:
        raise _OddRowsError from None
    finally:
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, limit)
    if len(found) == 1:
        return None
    # SQLite runs the parts of a UNION ALL in the order they are written in: the head comes first.
    head, (count, odd, *texts) = found
    if odd:
        raise _OddRowsError
    rows: list[EventRow] = []
    if count:
        values: list[Any] = [text.split(_BETWEEN) for text in texts]
        try:
            for index in _NUMBERS:
                values[index] = map(int, values[index])
            values[_TIME_INDEX] = [int(units) / _TIME_UNITS for units in values[_TIME_INDEX]]
            for index in _MAY_BE_NULL:
                values[index] = [text or None for text in values[index]]
            # There are as many ids as rows: a value that holds the character makes its column longer.
            rows = list(map(EventRow._make, zip(*values, strict=True)))
        except ValueError:
            raise _OddRowsError from None
    return _snapshot_of(head, rows)


_NUMBERS, _MAY_BE_NULL = (
    [columns.EVENT_ROW.index(column) for column in of_kind]
    for of_kind in (("id", "seq", "revision"), ("content", "extra"))
)
_TIME_INDEX = columns.EVENT_ROW.index("event_time")


def _row_by_row(connection: sqlite3.Connection, statement: str, parameters: dict[str, Any]) -> SessionSnapshot | None:
    found = connection.execute(statement, parameters).fetchall()
    return _snapshot_of(found[0], [EventRow._make(row) for row in found[1:]]) if found else None


def _snapshot_of(head: Sequence[Any], rows: list[EventRow]) -> SessionSnapshot:
    rows.sort(key=_seq_of)
    return SessionSnapshot(SessionHead._make(head[:8]), rows)


def _both_ways(rows: str, known: str = "0") -> tuple[str, str]:
    return f"{_head(known)} UNION ALL SELECT * FROM ({rows})", _in_one_step(rows, known)


_GET_ALL = _both_ways(_ROWS)
_GET_AFTER = _both_ways(_AFTER, _KNOWN)
_GET_LAST = _both_ways(_LAST)
_GET_SINCE = _both_ways(_SINCE)


def _get_log_page(connection: sqlite3.Connection, query: GetLogPage) -> LogPage | None:
    parameters = {
        **query.key._asdict(),
        "after": None if query.after is None else query.after.row_id,
        "before": None if query.before is None else query.before.row_id,
        "authors": None if query.authors is None else json.dumps(query.authors),
        "limit": query.limit,
    }
    behind, ahead, direction = ("<", ">", "DESC") if query.newest_first else (">", "<", "ASC")
    conditions = [
        "" if query.after is None else f"id {behind} :after",
        "" if query.before is None else f"id {ahead} :before",
        "" if query.authors is None else "author IN (SELECT value FROM json_each(:authors))",
    ]
    rows = " AND ".join([_ROWS, *filter(None, conditions)])
    nulls = ", ".join(["NULL"] * (len(columns.EVENT_ROW) - 1))
    found = connection.execute(
        f"SELECT incarnation, {nulls} FROM adk_sessions WHERE {THIS_SESSION}"
        f" UNION ALL SELECT * FROM ({rows} ORDER BY id {direction} LIMIT :limit)",
        parameters,
    ).fetchall()
    # As with a session, its own row comes first.
    return LogPage(found[0][0], [EventRow._make(row) for row in found[1:]]) if found else None


def _list_events(connection: sqlite3.Connection, query: ListEvents) -> Generator[LoggedEvent, None, None]:
    after = "" if query.after is None else "id > :after"
    where = where_clause(query.selection, after, "" if query.state_key is None else HOLDS_KEY)
    limits = [count for count in (query.last, query.limit) if count is not None]
    parameters = {
        **query.selection._asdict(),
        "after": None if query.after is None else int(query.after),
        "state_key": query.state_key,
        "limit": min(limits, default=_NO_LIMIT),
    }
    order = "id" if query.last is None else "id DESC"
    rows = stream(
        connection, f"SELECT {KEY}, {EVENT_ROW} FROM adk_events {where} ORDER BY {order} LIMIT :limit", parameters
    )
    for app_name, user_id, session_id, *columns_of_row in rows if query.last is None else reversed(list(rows)):
        row = EventRow._make(columns_of_row)
        yield LoggedEvent(Cursor(str(row.row_id)), SessionKey(app_name, user_id, session_id), row)


def _get_log_end(connection: sqlite3.Connection, _query: GetLogEnd) -> Cursor:
    (last,) = connection.execute("SELECT coalesce(max(id), 0) FROM adk_events").fetchone()
    return Cursor(str(last))


def _list_state(connection: sqlite3.Connection, query: ListState) -> Generator[StateRow, None, None]:
    selection = query.selection
    if query.scope != "SESSION":
        selection = selection._replace(session_id=None)
    if query.scope == "APP":
        selection = Selection(selection.app_name)
    where = where_clause(selection, "scope = :scope")
    rows = stream(
        connection,
        f"SELECT app_name, user_id, state_key, state_value FROM adk_state {where} ORDER BY {KEY}, state_key",
        {**selection._asdict(), "scope": query.scope},
    )
    yield from map(StateRow._make, rows)


def _get_user_state(connection: sqlite3.Connection, query: GetUserState) -> str:
    owner = {"app_name": query.app_name, "user_id": query.user_id}
    return str(connection.execute(f"SELECT {state_of('USER', '')}", owner).fetchone()[0])


def _get_usage(connection: sqlite3.Connection, query: GetUsage) -> list[UsageRow]:
    since = "" if query.since is None else "event_time >= :since"
    until = "" if query.until is None else "event_time < :until"
    return get_usage(connection, query, where_clause(query.selection, since, until, NOT_COPIED))


def _count_events(connection: sqlite3.Connection, query: CountEvents) -> int:
    count = f"SELECT count(*) FROM adk_events WHERE {THIS_SESSION}"
    return int(connection.execute(count, query.key._asdict()).fetchone()[0])


def _measure(connection: sqlite3.Connection, query: MeasureStore) -> StoreSize:
    with snapshot(connection):
        counted = {name: count_rows(connection, table, query.exact_up_to) for name, table in _COUNTED.items()}
        file_bytes, file = connection.execute(
            "SELECT (SELECT page_count * page_size FROM pragma_page_count, pragma_page_size),"
            " (SELECT file FROM pragma_database_list WHERE name = 'main')"
        ).fetchone()
    return StoreSize(
        **{name: rows for name, (rows, _) in counted.items()},
        file_bytes=file_bytes,
        wal_bytes=wal_bytes(file),
        estimated=tuple(name for name, (_, is_estimate) in counted.items() if is_estimate),
    )


_COUNTED = {"sessions": "adk_sessions", "events": "adk_events", "state_keys": "adk_state"}


_ANSWERS: dict[type[Any], Callable[[sqlite3.Connection, Any], Any]] = {
    GetSession: _get_session,
    GetLogPage: _get_log_page,
    ListSessions: list_sessions,
    ListEvents: _list_events,
    GetBeginning: get_beginning,
    GetPast: get_past,
    ListChanges: list_changes,
    ListForks: list_forks,
    GetOutline: get_outline,
    FindEvents: find_events,
    FindSurplus: find_surplus,
    ListMarks: list_marks,
    ListOwnChanges: list_own_changes,
    GetLogEnd: _get_log_end,
    ListState: _list_state,
    GetUserState: _get_user_state,
    CountEvents: _count_events,
    GetUsage: _get_usage,
    MeasureUser: measure_user,
    FindDamage: lambda connection, _query: find_problems(connection),
    SearchEvents: search_events,
    MeasureStore: _measure,
}


_TABLES_OF: dict[type[Any], tuple[str, ...]] = {
    GetSession: ("adk_events", "adk_sessions", "adk_state"),
    GetLogPage: ("adk_events",),
    ListSessions: ("adk_sessions", "adk_state"),
    ListEvents: ("adk_events",),
    GetUsage: ("adk_events",),
    SearchEvents: ("adk_events",),
    GetBeginning: ("adk_sessions",),
    GetPast: ("adk_events", "adk_sessions", "adk_state"),
    GetOutline: ("adk_events",),
    FindEvents: ("adk_events",),
    ListChanges: ("adk_events", "adk_sessions"),
    ListForks: ("adk_sessions",),
    FindSurplus: ("adk_sessions",),
    ListMarks: ("adk_events",),
    ListOwnChanges: ("adk_events",),
    ListState: ("adk_state",),
    GetUserState: ("adk_state",),
}
"""The tables whose texts a query reads."""


def not_utf8(connection: sqlite3.Connection, query: Query[Any]) -> CorruptRowError:
    """Looks for the text that could not be read, and returns the error that names its row, never the text."""
    if isinstance(
        query, GetSession | GetLogPage | GetPast | GetBeginning | GetOutline | FindEvents | ListMarks | ListOwnChanges
    ):
        selection = Selection(*query.key)
    elif isinstance(query, GetUserState):
        selection = Selection(query.app_name, query.user_id)
    else:
        selection = getattr(query, "selection", EVERYTHING)
    connection.text_factory = bytes
    try:
        for table in _TABLES_OF.get(type(query), ()):
            # State that several sessions read has no session of its own.
            where = where_clause(selection if table == "adk_events" else Selection(selection.app_name))
            rows = connection.execute(f"SELECT rowid, * FROM {table} {where} ORDER BY rowid", selection._asdict())
            for row_id, *values in rows:
                for (column, *_), value in zip(rows.description[1:], values, strict=True):
                    if isinstance(value, bytes) and not _is_utf8(value):
                        return CorruptRowError(
                            f"{column} of row {row_id} of {table} is not UTF-8{_of_session(query)}; it was edited"
                            " outside sessiondb"
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
    if not isinstance(
        query, GetSession | GetLogPage | GetPast | GetBeginning | GetOutline | FindEvents | ListMarks | ListOwnChanges
    ):
        return ""
    app_name, user_id, session_id = query.key
    return f", which session {session_id!r}, user {user_id!r}, app {app_name!r} reads"
