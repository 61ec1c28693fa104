"""SQL of the read path: what each query asks, from one snapshot."""

from __future__ import annotations

import json
import operator
import sqlite3
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from typing import Any, TypeVar

from sessiondb.errors import CorruptRowError
from sessiondb.model import columns
from sessiondb.model.queries import (
    LOG_START,
    After,
    CountEvents,
    GetBeginning,
    GetLogEnd,
    GetLogPage,
    GetPast,
    GetSession,
    GetUsage,
    GetUserState,
    Last,
    ListChanges,
    ListEvents,
    ListForks,
    ListSessions,
    ListState,
    MeasureStore,
    Query,
    Since,
)
from sessiondb.model.records import (
    EVERYTHING,
    Beginning,
    Cursor,
    EventRow,
    ForkedSession,
    ForkPoint,
    LoggedChange,
    LoggedEvent,
    LogPage,
    PastSnapshot,
    Selection,
    SessionHead,
    SessionKey,
    SessionSnapshot,
    SessionSummary,
    StateRow,
    StoreSize,
)
from sessiondb.model.usage import UsageRow
from sessiondb.stores.sqlite.connection import snapshot
from sessiondb.stores.sqlite.counting import count_rows
from sessiondb.stores.sqlite.sql import OBJECT, equal, names, state_of
from sessiondb.stores.sqlite.usage import get_usage
from sessiondb.stores.sqlite.wal import wal_bytes

ResultT = TypeVar("ResultT")

_NO_LIMIT = 2**63 - 1

_KEY = names(columns.SESSION_KEY)
_EVENT_ROW = names(columns.EVENT_ROW)
_THIS_SESSION = equal(columns.SESSION_KEY, "")

_HEAD_COLUMNS = "incarnation, revision, last_seq, log_epoch, update_time"


def _head(known: str = "0", width: int = len(columns.EVENT_ROW)) -> str:
    """Returns SQL for the head of a session, in rows of a width; ``known`` is the last event that a reader knows."""
    return f"""
    WITH head AS MATERIALIZED (
        SELECT {_HEAD_COLUMNS}, {known} AS known FROM adk_sessions WHERE {_THIS_SESSION}
    )
    SELECT {_HEAD_COLUMNS},
           {state_of("SESSION", "")}, {state_of("USER", "")}, {state_of("APP", "")},
           {", ".join(["NULL"] * (width - 8))}
      FROM head
    """


# All parts of such a statement see one snapshot. The rows of the log are as wide as the head.
_ROWS = f"SELECT {_EVENT_ROW} FROM adk_events WHERE {_THIS_SESSION}"
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


_SUMMARY = ("created_at", "updated_at", "incarnation", "revision", "last_seq", "log_epoch", "update_time")
_SESSIONS = f"SELECT {_KEY}, {names(_SUMMARY)}"
_BY_UPDATE = ("update_time", "user_id", "session_id", "app_name")
_ORDERS = {
    "oldest": names(_BY_UPDATE),
    "newest": ", ".join(f"{column} DESC" for column in _BY_UPDATE),
    "key": _KEY,
}
_BEHIND = {"oldest": ">", "newest": "<"}

_FEW_SESSIONS = 2_000
"""As many are looked up and sorted for a page within about a millisecond."""


def _list_sessions(connection: sqlite3.Connection, query: ListSessions) -> Iterator[SessionSummary]:
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
    where = _where(query.selection, *conditions)
    # A LIMIT, even one that lets all pass, makes SQLite sort in another way, which takes longer.
    rest = f"{where} ORDER BY {_ORDERS[query.order]}"
    if not query.with_state:
        return _summaries(_rows(connection, f"{_SESSIONS}, '{{}}' FROM adk_sessions AS s {rest}", parameters), {}, {})
    of_user = _where(query.selection._replace(session_id=None), "scope = 'USER'")
    of_app = _where(Selection(query.selection.app_name), "scope = 'APP'")
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
    where, order = _where(query.selection, *conditions), _ORDERS[query.order]
    if query.order != "key" and query.selection.app_name is not None:
        # A plus keeps SQLite from looking a column up in an index. The app stands first.
        if _are_many(connection, query.selection):
            where = f"WHERE +{where.removeprefix('WHERE ')}"
        else:
            order = f"+{order}"
    some = f"{_SESSIONS} FROM adk_sessions AS s {where} ORDER BY {order} LIMIT :limit"
    if not query.with_state:
        return _summaries(_rows(connection, f"SELECT *, '{{}}' FROM ({some})", parameters), {}, {})
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
    some = f"SELECT 1 FROM adk_sessions {_where(selection)} LIMIT {_FEW_SESSIONS + 1}"
    (count,) = connection.execute(f"SELECT count(*) FROM ({some})", selection._asdict()).fetchone()
    return int(count) > _FEW_SESSIONS


def _summaries(
    rows: Iterator[Any], users: dict[tuple[str, str], str], apps: dict[str, str]
) -> Generator[SessionSummary, None, None]:
    for row in rows:
        head = (*row[5:], users.get(row[:2], "{}"), apps.get(row[0], "{}"))
        yield SessionSummary(SessionKey._make(row[:3]), row[3], row[4], SessionHead._make(head))


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
        f"SELECT incarnation, {nulls} FROM adk_sessions WHERE {_THIS_SESSION}"
        f" UNION ALL SELECT * FROM ({rows} ORDER BY id {direction} LIMIT :limit)",
        parameters,
    ).fetchall()
    # As with a session, its own row comes first.
    return LogPage(found[0][0], [EventRow._make(row) for row in found[1:]]) if found else None


_HOLDS_KEY = (
    "json_valid(actions) AND EXISTS (SELECT 1 FROM json_each(actions, '$.state_delta') AS changed"
    " WHERE changed.key = :state_key)"
)


def _list_events(connection: sqlite3.Connection, query: ListEvents) -> Generator[LoggedEvent, None, None]:
    after = "" if query.after is None else "id > :after"
    where = _where(query.selection, after, "" if query.state_key is None else _HOLDS_KEY)
    limits = [count for count in (query.last, query.limit) if count is not None]
    parameters = {
        **query.selection._asdict(),
        "after": None if query.after is None else int(query.after),
        "state_key": query.state_key,
        "limit": min(limits, default=_NO_LIMIT),
    }
    order = "id" if query.last is None else "id DESC"
    rows = _rows(
        connection, f"SELECT {_KEY}, {_EVENT_ROW} FROM adk_events {where} ORDER BY {order} LIMIT :limit", parameters
    )
    for app_name, user_id, session_id, *columns_of_row in rows if query.last is None else reversed(list(rows)):
        row = EventRow._make(columns_of_row)
        yield LoggedEvent(Cursor(str(row.row_id)), SessionKey(app_name, user_id, session_id), row)


_BEGINNING = "initial_state, forked_user_id, forked_session_id, forked_seq"


def _beginning_of(initial_state: str | None, *origin: Any) -> Beginning:
    return Beginning(initial_state, None if origin[-1] is None else ForkPoint(*origin))


def _get_beginning(connection: sqlite3.Connection, query: GetBeginning) -> Beginning | None:
    statement = f"SELECT {_BEGINNING} FROM adk_sessions WHERE {_THIS_SESSION}"
    row = connection.execute(statement, query.key._asdict()).fetchone()
    return None if row is None else _beginning_of(*row)


# Which event a moment comes after. Events are looked up in the order of the log, the last one first.
_FIND_EVENT = f"SELECT id, seq, revision FROM adk_events WHERE {_THIS_SESSION}"
_BY_ID = f"{_FIND_EVENT} AND event_id = :event_id ORDER BY id DESC LIMIT 1"
_BY_SEQ = f"{_FIND_EVENT} AND seq = :seq ORDER BY id DESC LIMIT 1"
_BY_TIME = f"{_FIND_EVENT} AND event_time <= :time ORDER BY id DESC LIMIT 1"
_LAST_EVENT = f"{_FIND_EVENT} ORDER BY id DESC LIMIT 1"

# What is written without a state delta begins like that.
_CHANGES = "actions NOT LIKE '{\"state_delta\":{}%'"
_CHANGE = f"{_KEY}, seq, event_id, invocation_id, author, event_time, timestamp, actions, extra"


def _get_past(connection: sqlite3.Connection, query: GetPast) -> PastSnapshot | None:
    at = query.at
    parameters: dict[str, Any] = {**query.key._asdict(), **at._asdict()}
    with snapshot(connection):
        found = _row_by_row(connection, _GET_HEAD, parameters)
        if found is None:
            return None
        created_at, begun_after, *beginning = connection.execute(
            f"SELECT created_at, coalesce(begun_after, 0), {_BEGINNING} FROM adk_sessions WHERE {_THIS_SESSION}",
            parameters,
        ).fetchone()
        if at.event_id is not None:
            statement = _BY_ID
        elif at.seq is not None:
            statement = _BY_SEQ
        else:
            statement = _LAST_EVENT if at.time is None else _BY_TIME
        event = connection.execute(statement, parameters).fetchone()
        is_beginning = event is None and at.event_id is None and not at.seq
        seq, revision = (0 if is_beginning else None, 0) if event is None else event[1:]
        moment = (begun_after, found.head.incarnation) if event is None else (event[0], 0)
        last_id = 0 if event is None else event[0]
        (events,) = connection.execute(
            f"SELECT count(*) FROM adk_events WHERE {_THIS_SESSION} AND id <= :last_id",
            {**parameters, "last_id": last_id},
        ).fetchone()
        rows: list[EventRow] = []
        if query.with_events and event is not None:
            rows = [
                EventRow._make(row)
                for row in connection.execute(
                    f"{_ROWS} AND id <= :last_id ORDER BY id", {**parameters, "last_id": last_id}
                )
            ]
        changes = [
            _change(row)
            for row in connection.execute(
                f"SELECT id, 0, {_CHANGE} FROM adk_events WHERE {_THIS_SESSION} AND {_CHANGES} ORDER BY id", parameters
            )
        ]
    return PastSnapshot(found.head, created_at, _beginning_of(*beginning), seq, moment, events, revision, rows, changes)


def _change(row: Sequence[Any]) -> LoggedChange:
    return LoggedChange((row[0], row[1]), SessionKey(*row[2:5]), *row[5:])


def _list_changes(connection: sqlite3.Connection, query: ListChanges) -> Generator[LoggedChange, None, None]:
    parameters: dict[str, Any] = query.selection._asdict()
    also_events, also_beginnings = [_CHANGES], ["initial_state IS NOT NULL"]
    if query.state_key is not None:
        also_events.append(_HOLDS_KEY)
        parameters["state_key"] = query.state_key
    if query.prefix is not None:
        for also, column in ((also_events, "actions"), (also_beginnings, "initial_state")):
            also.append(f"instr({column}, :prefix)")
        parameters["prefix"] = f'"{query.prefix}'
    # An event has its id as its place; a creation that of the event before it, and comes after that.
    for name, moment, beyond, of_creation in (
        ("after", query.after, "id >", ">"),
        ("until", query.until, "id <=", "<="),
    ):
        if moment is not None:
            also_events.append(f"{beyond} :{name}")
            also_beginnings.append(f"(coalesce(begun_after, 0), incarnation) {of_creation} (:{name}, :{name}_nth)")
            parameters[name], parameters[f"{name}_nth"] = moment
    direction = " DESC" if query.newest_first else ""
    statement = f"""
        SELECT id AS place, 0 AS nth, {_CHANGE} FROM adk_events {_where(query.selection, *also_events)}
        UNION ALL
        SELECT coalesce(begun_after, 0), incarnation, {_KEY}, 0, '', '', '', NULL, created_at,
               '{{"state_delta":' || initial_state || '}}', NULL
          FROM adk_sessions {_where(query.selection, *also_beginnings)}
        ORDER BY place{direction}, nth{direction}
    """
    for row in _rows(connection, statement, parameters):
        yield _change(row)


def _list_forks(connection: sqlite3.Connection, query: ListForks) -> Generator[ForkedSession, None, None]:
    conditions = ["forked_seq IS NOT NULL"]
    for column, value in zip(("app_name", "forked_user_id", "forked_session_id"), query.source, strict=True):
        if value is not None:
            conditions.append(f"{column} = :{column.removeprefix('forked_')}")
    statement = (
        f"SELECT {_KEY}, created_at, forked_user_id, forked_session_id, forked_seq FROM adk_sessions"
        f" WHERE {' AND '.join(conditions)} ORDER BY incarnation"
    )
    for row in _rows(connection, statement, query.source._asdict()):
        yield ForkedSession(SessionKey(*row[:3]), row[3], ForkPoint(*row[4:]))


def _get_log_end(connection: sqlite3.Connection, _query: GetLogEnd) -> Cursor:
    (last,) = connection.execute("SELECT coalesce(max(id), 0) FROM adk_events").fetchone()
    return Cursor(str(last))


def _list_state(connection: sqlite3.Connection, query: ListState) -> Generator[StateRow, None, None]:
    selection = query.selection
    if query.scope != "SESSION":
        selection = selection._replace(session_id=None)
    if query.scope == "APP":
        selection = Selection(selection.app_name)
    where = _where(selection, "scope = :scope")
    rows = _rows(
        connection,
        f"SELECT app_name, user_id, state_key, state_value FROM adk_state {where} ORDER BY {_KEY}, state_key",
        {**selection._asdict(), "scope": query.scope},
    )
    yield from map(StateRow._make, rows)


def _get_user_state(connection: sqlite3.Connection, query: GetUserState) -> str:
    owner = {"app_name": query.app_name, "user_id": query.user_id}
    return str(connection.execute(f"SELECT {state_of('USER', '')}", owner).fetchone()[0])


def _get_usage(connection: sqlite3.Connection, query: GetUsage) -> list[UsageRow]:
    since = "" if query.since is None else "event_time >= :since"
    until = "" if query.until is None else "event_time < :until"
    return get_usage(connection, query, _where(query.selection, since, until))


def _count_events(connection: sqlite3.Connection, query: CountEvents) -> int:
    count = f"SELECT count(*) FROM adk_events WHERE {_THIS_SESSION}"
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
    ListSessions: _list_sessions,
    ListEvents: _list_events,
    GetBeginning: _get_beginning,
    GetPast: _get_past,
    ListChanges: _list_changes,
    ListForks: _list_forks,
    GetLogEnd: _get_log_end,
    ListState: _list_state,
    GetUserState: _get_user_state,
    CountEvents: _count_events,
    GetUsage: _get_usage,
    MeasureStore: _measure,
}


def _where(selection: Selection, *also: str) -> str:
    conditions = [f"{column} = :{column}" for column, value in selection._asdict().items() if value is not None]
    conditions += filter(None, also)
    return f"WHERE {' AND '.join(conditions)}" if conditions else ""


def _rows(connection: sqlite3.Connection, statement: str, parameters: dict[str, Any]) -> Iterator[Any]:
    """Runs a statement, and yields what it finds as it is found; it is ended when whoever asks goes away."""
    with closing(connection.execute(statement, parameters)) as rows:
        yield from rows


_TABLES_OF: dict[type[Any], tuple[str, ...]] = {
    GetSession: ("adk_events", "adk_sessions", "adk_state"),
    GetLogPage: ("adk_events",),
    ListSessions: ("adk_sessions", "adk_state"),
    ListEvents: ("adk_events",),
    GetUsage: ("adk_events",),
    GetBeginning: ("adk_sessions",),
    GetPast: ("adk_events", "adk_sessions", "adk_state"),
    ListChanges: ("adk_events", "adk_sessions"),
    ListForks: ("adk_sessions",),
    ListState: ("adk_state",),
    GetUserState: ("adk_state",),
}
"""The tables whose texts a query reads."""


def not_utf8(connection: sqlite3.Connection, query: Query[Any]) -> CorruptRowError:
    """Looks for the text that could not be read, and returns the error that names its row, never the text."""
    if isinstance(query, GetSession | GetLogPage | GetPast | GetBeginning):
        selection = Selection(*query.key)
    elif isinstance(query, GetUserState):
        selection = Selection(query.app_name, query.user_id)
    else:
        selection = getattr(query, "selection", EVERYTHING)
    connection.text_factory = bytes
    try:
        for table in _TABLES_OF.get(type(query), ()):
            # State that several sessions read has no session of its own.
            where = _where(selection if table == "adk_events" else Selection(selection.app_name))
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
    if not isinstance(query, GetSession | GetLogPage | GetPast | GetBeginning):
        return ""
    app_name, user_id, session_id = query.key
    return f", which session {session_id!r}, user {user_id!r}, app {app_name!r} reads"
