"""SQL of the read path: what each query asks, in one statement."""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Generator
from contextlib import closing
from itertools import islice
from json.encoder import encode_basestring
from typing import Any, TypeVar

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
    Cursor,
    Erased,
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
from sessiondb.model.usage import UsageRow, usage_rows
from sessiondb.stores.postgres import schema
from sessiondb.stores.postgres.asked import Asked, Prepared
from sessiondb.stores.postgres.edits import find_events, get_outline
from sessiondb.stores.postgres.erasure import MEASURE
from sessiondb.stores.postgres.past import get_beginning, get_past, list_changes, list_forks
from sessiondb.stores.postgres.patience import AT_ONCE
from sessiondb.stores.postgres.pruning import find_surplus, list_marks, list_own_changes
from sessiondb.stores.postgres.search import search_events
from sessiondb.stores.postgres.session_list import list_sessions
from sessiondb.stores.postgres.sql import EVENT_ROW, HEAD_COLUMNS, KEY, THIS_SESSION, state_of, where_clause
from sessiondb.stores.postgres.usage import NOT_COPIED, usage_statement

ResultT = TypeVar("ResultT")

_NO_LIMIT = 2**63 - 1


def _head(known: str = "0") -> str:
    """Returns SQL for the head of a session; ``known`` is the number of the last event that a reader knows."""
    return f"""
    WITH head AS MATERIALIZED (
        SELECT {HEAD_COLUMNS}, {known} AS known FROM @adk_sessions WHERE {THIS_SESSION}
    )
    SELECT 0::bigint AS place, incarnation, revision, {state_of("SESSION")}, {state_of("USER")}, {state_of("APP")},
           update_time, last_seq::text, log_epoch::text, NULL::text, NULL::text, NULL::text
      FROM head
    """


# The log and the head see one snapshot. Rows of the log are as wide as the head, and come after it when they are sorted by
# the first column: numbers of events begin with 1.
_ROWS = f"""
    SELECT seq, id, revision, event_id, invocation_id, author, event_time, timestamp, content, actions, extra, NULL::text
      FROM @adk_events WHERE {THIS_SESSION}
"""


_GET_HEAD = Prepared(_head())
_GET_ALL = Prepared(f"{_head()} UNION ALL {_ROWS}")
_GET_AFTER = Prepared(f"""
    {_head("CASE WHEN incarnation = %(incarnation)s AND log_epoch = %(log_epoch)s THEN %(seq)s ELSE 0 END")}
    UNION ALL (
        {_ROWS} AND seq > (SELECT known FROM head) ORDER BY seq DESC LIMIT %(limit)s
    )
""")
_GET_LAST = Prepared(f"{_head()} UNION ALL ({_ROWS} ORDER BY seq DESC LIMIT %(last)s)")
_GET_SINCE = Prepared(f"{_head()} UNION ALL {_ROWS} AND event_time >= %(since)s")

_place_of = operator.itemgetter(0)


def answer(asked: Asked, query: Query[ResultT]) -> ResultT:
    """Answers a query from one snapshot. What an iterator in the answer is made of is read as it goes.

    Raises:
        psycopg.Error: If the server refuses.
    """
    found: ResultT = _ANSWERS[type(query)](asked, query)
    return found


def _get_session(asked: Asked, query: GetSession) -> SessionSnapshot | None:
    parameters: dict[str, Any] = query.key._asdict()
    part = query.part
    if type(part) is After:
        if part.position is LOG_START and part.limit is None:
            statement = _GET_ALL
        else:
            statement = _GET_AFTER
            parameters["incarnation"], parameters["log_epoch"], parameters["seq"] = part.position
            parameters["limit"] = _NO_LIMIT if part.limit is None else part.limit
    elif type(part) is Last:
        statement = _GET_LAST if part.limit else _GET_HEAD
        parameters["last"] = part.limit
    else:
        assert type(part) is Since  # noqa: S101  # the third of three
        statement = _GET_SINCE
        parameters["since"] = part.time
    found = asked.often(statement, parameters)
    if not found:
        return None
    found.sort(key=_place_of)
    _, incarnation, revision, session, user, app, update_time, last_seq, log_epoch, *_ = found[0]
    head = SessionHead(incarnation, revision, int(last_seq), int(log_epoch), update_time, session, user, app)
    return SessionSnapshot(head, [EventRow(row[1], row[0], *row[2:-1]) for row in found[1:]])


def _get_log_page(asked: Asked, query: GetLogPage) -> LogPage | None:
    parameters: dict[str, Any] = {
        **query.key._asdict(),
        "authors": None if query.authors is None else list(query.authors),
        "limit": query.limit,
    }
    conditions = ["" if query.authors is None else "author = ANY(%(authors)s)"]
    earliest, latest = (query.before, query.after) if query.newest_first else (query.after, query.before)
    if earliest is not None:
        _, parameters["earliest"], parameters["earliest_id"] = earliest
        conditions.append(f"seq > {_last_seq('earliest', '<=')}")
    if latest is not None:
        _, parameters["latest"], parameters["latest_id"] = latest
        conditions.append(f"seq <= {_last_seq('latest', '<')}")
    rows = where_clause(Selection(*query.key), *conditions)
    direction = "DESC" if query.newest_first else "ASC"
    found = asked.all(
        f"SELECT incarnation, e.* FROM @adk_sessions AS s LEFT JOIN LATERAL ("
        f"SELECT {EVENT_ROW} FROM @adk_events {rows} ORDER BY seq {direction} LIMIT %(limit)s) AS e ON true"
        f" WHERE {THIS_SESSION} ORDER BY e.seq {direction}",
        parameters,
    )
    if not found:
        return None
    return LogPage(int(found[0][0]), [EventRow(*row[1:]) for row in found if row[1] is not None])


def _last_seq(place: str, written: str) -> str:
    """Returns SQL for the number of the last event that was written before that of a place, or (``<=``) is that event.

    Where a log was cut off, another event, that was written later, may have the number of the place.
    """
    return f"""
        coalesce((
            SELECT seq FROM @adk_events WHERE {THIS_SESSION} AND seq <= %({place})s AND id {written} %({place}_id)s
             ORDER BY seq DESC LIMIT 1
        ), 0)
    """


_NEW = (
    "written >= pg_snapshot_xmin(%(base)s::pg_snapshot)"
    " AND NOT pg_visible_in_snapshot(written, %(base)s::pg_snapshot)"
    " AND pg_visible_in_snapshot(written, %(bound)s::pg_snapshot)"
    " AND (written, id) > (%(written)s::xid8, %(id)s)"
)


def _list_events(asked: Asked, query: ListEvents) -> Generator[LoggedEvent, None, None]:
    limit = min((count for count in (query.last, query.limit) if count is not None), default=None)
    key = query.state_key
    # JSON in which there is a NUL can be searched as a text only, so whoever asks does the rest.
    may_hold = "strpos(actions, %(state_key)s) > 0" if key and encode_basestring(key)[1:-1] == key else ""
    parameters = {**query.selection._asdict(), "state_key": key}
    if query.after is not None:
        found = _new_events(asked, query.selection, query.after, may_hold, parameters)
    else:
        found = _logged_events(asked, query, may_hold, parameters)
    with closing(found):
        chosen = islice((event for event in found if key is None or _holds(event.row, key)), limit)
        yield from chosen if query.last is None or query.after is not None else reversed(list(chosen))


def _holds(row: EventRow, key: str) -> bool:
    """Whether the state delta of an event has a key. What is no JSON has none."""
    try:
        return key in json.loads(row.actions)["state_delta"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


def _logged_events(
    asked: Asked, query: ListEvents, may_hold: str, parameters: dict[str, Any]
) -> Generator[LoggedEvent, None, None]:
    """Reads the log from its start, or from its end if the last events are wanted."""
    where = where_clause(query.selection, may_hold)
    order = ("seq",) if None not in query.selection else ("written", "id")
    direction = "" if query.last is None else " DESC"
    by = ", ".join(f"{column}{direction}" for column in order)
    with closing(asked.stream(f"SELECT {KEY}, {EVENT_ROW} FROM @adk_events {where} ORDER BY {by}", parameters)) as rows:
        for row in rows:
            # Nobody goes on from here: cursors come from the end of the log, and from what is read behind one.
            yield LoggedEvent(Cursor(""), SessionKey(*row[:3]), EventRow(*row[3:]))


def _new_events(
    asked: Asked, selection: Selection, after: Cursor, may_hold: str, parameters: dict[str, Any]
) -> Generator[LoggedEvent, None, None]:
    """Reads what is there now, and was not when a cursor was made.

    Transactions are committed in another order than they are numbered, so a cursor says what was there: it holds the
    snapshot up to which all was read, and, in the middle of what came after that, the next snapshot and the last row.
    """
    where = where_clause(selection, may_hold, _NEW)
    base, *rest = json.loads(after)
    while True:
        (bound, position) = rest or (asked.one(_SNAPSHOT, {})[0], (0, 0))
        rows = asked.all(
            f"SELECT {KEY}, {EVENT_ROW}, written::text FROM @adk_events {where} ORDER BY written, id LIMIT {AT_ONCE}",
            {**parameters, "base": base, "bound": bound, "written": str(position[0]), "id": position[1]},
        )
        complete = len(rows) < AT_ONCE
        for index, row in enumerate(rows):
            event = EventRow(*row[3:-1])
            position = (int(row[-1]), event.row_id)
            cursor = [bound] if complete and index == len(rows) - 1 else [base, bound, position]
            yield LoggedEvent(Cursor(json.dumps(cursor)), SessionKey(*row[:3]), event)
        if complete and not rest:
            return
        base, rest = (bound, []) if complete else (base, [bound, position])


_SNAPSHOT = "SELECT pg_current_snapshot()::text"


def _get_log_end(asked: Asked, _query: GetLogEnd) -> Cursor:
    return Cursor(json.dumps(list(asked.one(_SNAPSHOT, {}))))


def _list_state(asked: Asked, query: ListState) -> Generator[StateRow, None, None]:
    selection = query.selection
    if query.scope != "SESSION":
        selection = selection._replace(session_id=None)
    if query.scope == "APP":
        selection = Selection(selection.app_name)
    where = where_clause(selection, "scope = %(scope)s")
    rows = asked.stream(
        f"SELECT app_name, user_id, state_key, state_value FROM @adk_state {where} ORDER BY {KEY}, state_key",
        {**selection._asdict(), "scope": query.scope},
    )
    for row in rows:
        yield StateRow(*row)


def _get_user_state(asked: Asked, query: GetUserState) -> str:
    owner = {"app_name": query.app_name, "user_id": query.user_id}
    return str(asked.one(f"SELECT {state_of('USER')}", owner)[0])


def _get_usage(asked: Asked, query: GetUsage) -> list[UsageRow]:
    since = "" if query.since is None else "event_time >= %(since)s"
    until = "" if query.until is None else "event_time < %(until)s"
    statement = usage_statement(query.by, where_clause(query.selection, since, until, NOT_COPIED))
    parameters = {**query.selection._asdict(), "since": query.since, "until": query.until}
    return usage_rows(query.by, asked.all(statement, parameters))


def _count_events(asked: Asked, query: CountEvents) -> int:
    return int(asked.one(f"SELECT count(*) FROM @adk_events WHERE {THIS_SESSION}", query.key._asdict())[0])


def _measure_user(asked: Asked, query: MeasureUser) -> Erased:
    counts = asked.one(MEASURE, {"app_name": query.app_name, "user_id": query.user_id})
    return Erased._make((*counts, True))


# A partitioned table has its rows in the parts. What was counted when it was last analysed is scaled by how it has grown since.
_PARTS = """
    SELECT oid AS relid FROM pg_class WHERE oid = %(table)s::regclass AND relkind = 'r'
    UNION ALL SELECT relid FROM pg_partition_tree(%(table)s::regclass) WHERE isleaf
"""
_ESTIMATE = f"""
    SELECT coalesce(sum(
        CASE WHEN c.reltuples < 0 THEN 0
             ELSE c.reltuples / greatest(c.relpages, 1) * greatest(pg_relation_size(c.oid) / current_setting('block_size')::int, 1)
        END)::bigint, 0)
      FROM ({_PARTS}) AS t JOIN pg_class AS c ON c.oid = t.relid
"""
_SIZE = f"SELECT sum(pg_total_relation_size(relid)) FROM ({_PARTS}) AS t"


def _measure(asked: Asked, query: MeasureStore) -> StoreSize:
    counts: dict[str, int] = {}
    estimated = []
    size = 0
    with asked.snapshot():
        for name, table in _COUNTED.items():
            statement = f"SELECT count(*) FROM (SELECT 1 FROM @{table} LIMIT %(most)s) AS bounded"
            counts[name] = int(asked.one(statement, {"most": query.exact_up_to + 1})[0])
            named = {"table": schema.rendered(f"@{table}", asked.schema)}
            if counts[name] > query.exact_up_to:
                counts[name] = max(counts[name], int(asked.one(_ESTIMATE, named)[0]))
                estimated.append(name)
            size += int(asked.one(_SIZE, named)[0])
    return StoreSize(**counts, file_bytes=size, wal_bytes=0, estimated=tuple(estimated))


_COUNTED = {"sessions": "adk_sessions", "events": "adk_events", "state_keys": "adk_state"}

_ANSWERS: dict[type[Any], Callable[[Asked, Any], Any]] = {
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
    MeasureUser: _measure_user,
    FindDamage: lambda _asked, _query: [],
    SearchEvents: search_events,
    MeasureStore: _measure,
}
