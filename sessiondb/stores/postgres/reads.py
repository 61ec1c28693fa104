"""SQL of the read path: what each query asks, in one statement."""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from itertools import count, islice
from json.encoder import encode_basestring
from typing import Any, TypeVar

import psycopg
from psycopg import capabilities
from psycopg.adapt import Transformer

from sessiondb.model import columns
from sessiondb.model.queries import (
    LOG_START,
    NO_EVENTS,
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
from sessiondb.model.usage import UsageRow, usage_rows
from sessiondb.stores.postgres import schema
from sessiondb.stores.postgres.connection import checked
from sessiondb.stores.postgres.usage import usage_statement

ResultT = TypeVar("ResultT")

_NO_LIMIT = 2**63 - 1

AT_ONCE = 1000
"""Rows of a long answer that are fetched at a time."""

_KEY = ", ".join(columns.SESSION_KEY)
_EVENT_ROW = ", ".join(columns.EVENT_ROW)
_OWNER = {
    "SESSION": "user_id = {0}user_id{1} AND session_id = {0}session_id{1}",
    "USER": "user_id = {0}user_id{1} AND session_id IS NULL",
    "APP": "user_id IS NULL AND session_id IS NULL",
}


def _state_of(scope: str, before: str = "%(", after: str = ")s") -> str:
    """Returns SQL for the state of a scope as one JSON object, of an owner in parameters or columns."""
    return (
        "(SELECT '{' || coalesce(string_agg(to_json(state_key) || ':' || state_value, ','), '') || '}' FROM @adk_state AS t"
        f" WHERE t.app_name = {before}app_name{after} AND {_OWNER[scope].format(before, after)} AND t.scope = '{scope}')"
    )


_HEAD_COLUMNS = "incarnation, revision, last_seq, log_epoch, update_time"
_THIS_SESSION = "app_name = %(app_name)s AND user_id = %(user_id)s AND session_id = %(session_id)s"


def _head(known: str = "0") -> str:
    """Returns SQL for the head of a session; ``known`` is the number of the last event that a reader knows."""
    return f"""
    WITH head AS MATERIALIZED (
        SELECT {_HEAD_COLUMNS}, {known} AS known FROM @adk_sessions WHERE {_THIS_SESSION}
    )
    SELECT 0::bigint AS place, incarnation, revision, {_state_of("SESSION")}, {_state_of("USER")}, {_state_of("APP")},
           update_time, last_seq::text, log_epoch::text, NULL::text, NULL::text, NULL::text
      FROM head
    """


# The log and the head see one snapshot. Rows of the log are as wide as the head, and come after it when they are sorted by
# the first column: numbers of events begin with 1.
_ROWS = f"""
    SELECT seq, id, revision, event_id, invocation_id, author, event_time, timestamp, content, actions, extra, NULL::text
      FROM @adk_events WHERE {_THIS_SESSION}
"""


class _Prepared:
    """A statement in libpq's own words, which is prepared on each connection that runs it."""

    _numbers = count()

    def __init__(self, text: str) -> None:
        self.name = b"sessiondb_read_%d" % next(self._numbers)
        self.parameters = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", text)))
        for number, name in enumerate(self.parameters, 1):
            text = text.replace(f"%({name})s", f"${number}::{_TYPES[name]}")
        self.text = text


_TYPES = {
    **dict.fromkeys(columns.SESSION_KEY, "text"),
    **dict.fromkeys(("incarnation", "log_epoch", "seq", "limit", "last"), "bigint"),
    "since": "double precision",
}
_GET_HEAD = _Prepared(_head())
_GET_ALL = _Prepared(f"{_head()} UNION ALL {_ROWS}")
_GET_AFTER = _Prepared(f"""
    {_head("CASE WHEN incarnation = %(incarnation)s AND log_epoch = %(log_epoch)s THEN %(seq)s ELSE 0 END")}
    UNION ALL (
        {_ROWS} AND seq > (SELECT known FROM head) ORDER BY seq DESC LIMIT %(limit)s
    )
""")
_GET_LAST = _Prepared(f"{_head()} UNION ALL ({_ROWS} ORDER BY seq DESC LIMIT %(last)s)")
_GET_SINCE = _Prepared(f"{_head()} UNION ALL {_ROWS} AND event_time >= %(since)s")

_place_of = operator.itemgetter(0)


def answer(asked: Asked, query: Query[ResultT]) -> ResultT:
    """Answers a query from one snapshot. What an iterator in the answer is made of is read as it goes.

    Raises:
        psycopg.Error: If the server refuses.
    """
    found: ResultT = _ANSWERS[type(query)](asked, query)
    return found


class Asked:
    """A connection that is asked, and a schema that is put into what it is asked."""

    def __init__(self, connection: psycopg.Connection, schema_name: str, *, prepares: bool) -> None:
        """Runs nothing.

        Args:
            connection: Whose transactions commit by themselves.
            schema_name: The schema.
            prepares: Whether what is prepared on it stays there.
        """
        self.connection = connection
        self.schema = schema_name
        self._prepares = prepares
        self._prepared: set[bytes] = set()
        self._loading = Transformer(connection)

    def often(self, statement: _Prepared, parameters: dict[str, Any]) -> list[tuple[Any, ...]]:
        """Runs a statement that is run all the time, and returns its rows.

        By libpq's own calls: psycopg's take twice as long for a short answer, and give up the GIL several times, each of
        which takes milliseconds beside a busy Python thread. A signal is not noticed before the answer.
        """
        pgconn = self.connection.pgconn
        values = [str(parameters[name]).encode() for name in statement.parameters]
        if any(b"\0" in value for value in values):
            # libpq would take what stands before it for all.
            raise psycopg.DataError("PostgreSQL has no texts with a NUL character")
        if not self._prepares:
            result = pgconn.exec_params(schema.rendered(statement.text, self.schema).encode(), values)
        else:
            if statement.name not in self._prepared:
                text = schema.rendered(statement.text, self.schema).encode()
                checked(pgconn.prepare(statement.name, text), pgconn)
                self._prepared.add(statement.name)
            result = pgconn.exec_prepared(statement.name, values)
        self._loading.set_pgresult(checked(result, pgconn))
        return self._loading.load_rows(0, result.ntuples, tuple)

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Makes the statements within see one moment, unless they do so already."""
        if self.connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
            yield
            return
        with ExitStack() as undo:
            undo.callback(self._forget)
            with self.connection.transaction():
                self.connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                yield
            undo.pop_all()

    def _forget(self) -> None:
        """Deallocates all that is prepared, after a rollback: psycopg has done so then, if it had prepared any itself."""
        if self._prepared and not self.connection.closed:
            self._prepared.clear()
            self.connection.execute("DEALLOCATE ALL")

    def all(self, statement: str, parameters: dict[str, Any]) -> list[tuple[Any, ...]]:
        """Runs a statement, and returns its rows."""
        return schema.run(self.connection, schema.rendered(statement, self.schema), parameters).fetchall()

    def one(self, statement: str, parameters: dict[str, Any]) -> tuple[Any, ...]:
        """Runs a statement, and returns its only row."""
        (row,) = self.all(statement, parameters)
        return row

    def stream(self, statement: str, parameters: dict[str, Any]) -> Generator[tuple[Any, ...], None, None]:
        """Yields rows as they come; the statement is ended when whoever asks goes away."""
        size = AT_ONCE if capabilities.has_stream_chunked() else 1
        with self.connection.cursor() as cursor:
            yield from cursor.stream(schema.rendered(statement, self.schema), parameters, size=size)


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


_SUMMARY = f"{_KEY}, created_at, updated_at, {_HEAD_COLUMNS}"
_BY_UPDATE = ("update_time", "user_id", "session_id", "app_name")
_ORDERS = {
    "oldest": ", ".join(_BY_UPDATE),
    "newest": ", ".join(f"{column} DESC" for column in _BY_UPDATE),
    "key": _KEY,
}
_BEHIND = {"oldest": ">", "newest": "<"}

_FEW_SESSIONS = 500
"""As many are looked up, or counted, and sorted for a page within a millisecond or two."""


def _list_sessions(asked: Asked, query: ListSessions) -> Iterator[SessionSummary]:
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
        conditions.append(
            f"EXISTS (SELECT 1 FROM @adk_state AS t WHERE t.app_name = s.app_name AND {_OWNER['SESSION'].format('s.', '')}"
            f" AND t.scope = 'SESSION' AND t.state_key = %(key_{n})s AND t.state_value = %(value_{n})s)"
        )
    where = _where(query.selection, *conditions)
    limit = "" if query.limit is None else "LIMIT %(limit)s"
    is_page = query.limit is not None and query.order != "key"
    if is_page and query.selection.app_name is not None and _are_many(asked, query.selection):
        # They are read in the order of their update until there are enough. Without statistics the server would rather look
        # them all up by their keys, which it cannot with such an expression.
        where = where.replace("WHERE app_name", "WHERE app_name || ''", 1)
    states = "'{}', '{}', '{}'"
    if query.with_state:
        states = ", ".join(_state_of(scope, "s.", "") for scope in ("SESSION", "USER", "APP"))
    rows = asked.all(
        f"SELECT {_SUMMARY}, {states} FROM @adk_sessions AS s {where} ORDER BY {_ORDERS[query.order]} {limit}",
        parameters,
    )
    # One at a time, so that the garbage collector is not given all of them to look at, again and again.
    return (SessionSummary(SessionKey(*row[:3]), row[3], row[4], SessionHead(*row[5:])) for row in rows)


def _are_many(asked: Asked, selection: Selection) -> bool:
    """Whether more sessions are selected than can be sorted for a page."""
    some = f"SELECT 1 FROM @adk_sessions {_where(selection)} LIMIT {_FEW_SESSIONS + 1}"
    return int(asked.one(f"SELECT count(*) FROM ({some}) AS bounded", selection._asdict())[0]) > _FEW_SESSIONS


def _get_log_page(asked: Asked, query: GetLogPage) -> LogPage | None:
    parameters = {
        **query.key._asdict(),
        "after": None if query.after is None else query.after.seq,
        "before": None if query.before is None else query.before.seq,
        "authors": None if query.authors is None else list(query.authors),
        "limit": query.limit,
    }
    behind, ahead, direction = ("<", ">", "DESC") if query.newest_first else (">", "<", "ASC")
    conditions = [
        "" if query.after is None else f"seq {behind} %(after)s",
        "" if query.before is None else f"seq {ahead} %(before)s",
        "" if query.authors is None else "author = ANY(%(authors)s)",
    ]
    rows = _where(Selection(*query.key), *conditions)
    found = asked.all(
        f"SELECT incarnation, e.* FROM @adk_sessions AS s LEFT JOIN LATERAL ("
        f"SELECT {_EVENT_ROW} FROM @adk_events {rows} ORDER BY seq {direction} LIMIT %(limit)s) AS e ON true"
        f" WHERE {_THIS_SESSION} ORDER BY e.seq {direction}",
        parameters,
    )
    if not found:
        return None
    return LogPage(int(found[0][0]), [EventRow(*row[1:]) for row in found if row[1] is not None])


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
    where = _where(query.selection, may_hold)
    order = ("seq",) if None not in query.selection else ("written", "id")
    direction = "" if query.last is None else " DESC"
    by = ", ".join(f"{column}{direction}" for column in order)
    with closing(
        asked.stream(f"SELECT {_KEY}, {_EVENT_ROW} FROM @adk_events {where} ORDER BY {by}", parameters)
    ) as rows:
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
    where = _where(selection, may_hold, _NEW)
    base, *rest = json.loads(after)
    while True:
        (bound, position) = rest or (asked.one(_SNAPSHOT, {})[0], (0, 0))
        rows = asked.all(
            f"SELECT {_KEY}, {_EVENT_ROW}, written::text FROM @adk_events {where} ORDER BY written, id LIMIT {AT_ONCE}",
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


_BEGINNING = "initial_state, forked_user_id, forked_session_id, forked_seq"


def _beginning_of(initial_state: str | None, *origin: Any) -> Beginning:
    return Beginning(initial_state, None if origin[-1] is None else ForkPoint(*origin))


def _get_beginning(asked: Asked, query: GetBeginning) -> Beginning | None:
    rows = asked.all(f"SELECT {_BEGINNING} FROM @adk_sessions WHERE {_THIS_SESSION}", query.key._asdict())
    return _beginning_of(*rows[0]) if rows else None


# Which event a moment comes after: the last one in the order of the log.
_FIND_EVENT = (
    "SELECT written::text::bigint, id, seq, revision FROM @adk_events"
    f" WHERE {_THIS_SESSION} AND {{}} ORDER BY seq DESC LIMIT 1"
)

# What is written without a state delta begins like that.
_CHANGES = "NOT starts_with(actions, '{\"state_delta\":{}')"
_CHANGE = f"{_KEY}, seq, event_id, invocation_id, author, event_time, timestamp, actions, extra"


def _get_past(asked: Asked, query: GetPast) -> PastSnapshot | None:
    at = query.at
    parameters: dict[str, Any] = {**query.key._asdict(), **at._asdict()}
    with asked.snapshot():
        found = _get_session(asked, GetSession(query.key, NO_EVENTS))
        if found is None:
            return None
        written, created_at, *beginning = asked.one(
            f"SELECT written::text::bigint, created_at, {_BEGINNING} FROM @adk_sessions WHERE {_THIS_SESSION}",
            parameters,
        )
        if at.event_id is not None:
            condition = "event_id = %(event_id)s"
        elif at.seq is not None:
            condition = "seq = %(seq)s"
        else:
            condition = "true" if at.time is None else "event_time <= %(time)s"
        events = asked.all(_FIND_EVENT.format(condition), parameters)
        seq: int | None = None
        moment, revision = (written, 0, found.head.incarnation), 0
        if events:
            moment, seq, revision = (events[0][0], 1, events[0][1]), events[0][2], events[0][3]
        elif at.event_id is None and not at.seq:
            seq = 0
        parameters["last_seq"] = seq or 0
        up_to_there = f"FROM @adk_events WHERE {_THIS_SESSION} AND seq <= %(last_seq)s"
        (count_of_events,) = asked.one(f"SELECT count(*) {up_to_there}", parameters)
        rows: list[EventRow] = []
        if query.with_events and seq:
            rows = [EventRow(*row) for row in asked.all(f"SELECT {_EVENT_ROW} {up_to_there} ORDER BY seq", parameters)]
        changes = [
            _change(row)
            for row in asked.all(
                f"SELECT written::text::bigint, 1, id, {_CHANGE} FROM @adk_events WHERE {_THIS_SESSION} AND {_CHANGES}"
                " ORDER BY seq",
                parameters,
            )
        ]
    return PastSnapshot(
        found.head, created_at, _beginning_of(*beginning), seq, moment, count_of_events, revision, rows, changes
    )


def _change(row: tuple[Any, ...]) -> LoggedChange:
    return LoggedChange(row[:3], SessionKey(*row[3:6]), *row[6:])


def _list_changes(asked: Asked, query: ListChanges) -> Generator[LoggedChange, None, None]:
    parameters: dict[str, Any] = query.selection._asdict()
    also_events, also_beginnings = [_CHANGES], ["initial_state IS NOT NULL"]
    key = query.state_key
    # As in _list_events: whoever asks does the rest.
    if key and encode_basestring(key)[1:-1] == key:
        also_events.append("strpos(actions, %(state_key)s) > 0")
        parameters["state_key"] = key
    if query.prefix is not None:
        also_events.append("strpos(actions, %(prefix)s) > 0")
        also_beginnings.append("strpos(initial_state, %(prefix)s) > 0")
        parameters["prefix"] = f'"{query.prefix}'
    for name, moment, sign in (("after", query.after, ">"), ("until", query.until, "<=")):
        if moment is not None:
            place = f"(%({name}_0)s::text::xid8, %({name}_1)s, %({name}_2)s)"
            also_events.append(f"(written, 1, id) {sign} {place}")
            also_beginnings.append(f"(written, 0, incarnation) {sign} {place}")
            parameters |= {f"{name}_0": str(moment[0]), f"{name}_1": moment[1], f"{name}_2": moment[2]}
    direction = " DESC" if query.newest_first else ""
    statement = f"""
        SELECT written::text::bigint AS place, 1 AS kind, id AS nth, {_CHANGE}
          FROM @adk_events {_where(query.selection, *also_events)}
        UNION ALL
        SELECT written::text::bigint, 0, incarnation, {_KEY}, 0, '', '', '', NULL, created_at,
               '{{"state_delta":' || initial_state || '}}', NULL
          FROM @adk_sessions {_where(query.selection, *also_beginnings)}
        ORDER BY place{direction}, kind{direction}, nth{direction}
    """
    with closing(asked.stream(statement, parameters)) as rows:
        for row in rows:
            yield _change(row)


def _list_forks(asked: Asked, query: ListForks) -> Generator[ForkedSession, None, None]:
    conditions = ["forked_seq IS NOT NULL"]
    for column, value in zip(("app_name", "forked_user_id", "forked_session_id"), query.source, strict=True):
        if value is not None:
            conditions.append(f"{column} = %({column.removeprefix('forked_')})s")
    statement = (
        f"SELECT {_KEY}, created_at, forked_user_id, forked_session_id, forked_seq FROM @adk_sessions"
        f" WHERE {' AND '.join(conditions)} ORDER BY incarnation"
    )
    with closing(asked.stream(statement, query.source._asdict())) as rows:
        for row in rows:
            yield ForkedSession(SessionKey(*row[:3]), row[3], ForkPoint(*row[4:]))


def _get_log_end(asked: Asked, _query: GetLogEnd) -> Cursor:
    return Cursor(json.dumps(list(asked.one(_SNAPSHOT, {}))))


def _list_state(asked: Asked, query: ListState) -> Generator[StateRow, None, None]:
    selection = query.selection
    if query.scope != "SESSION":
        selection = selection._replace(session_id=None)
    if query.scope == "APP":
        selection = Selection(selection.app_name)
    where = _where(selection, "scope = %(scope)s")
    rows = asked.stream(
        f"SELECT app_name, user_id, state_key, state_value FROM @adk_state {where} ORDER BY {_KEY}, state_key",
        {**selection._asdict(), "scope": query.scope},
    )
    for row in rows:
        yield StateRow(*row)


def _get_user_state(asked: Asked, query: GetUserState) -> str:
    owner = {"app_name": query.app_name, "user_id": query.user_id}
    return str(asked.one(f"SELECT {_state_of('USER')}", owner)[0])


def _get_usage(asked: Asked, query: GetUsage) -> list[UsageRow]:
    since = "" if query.since is None else "event_time >= %(since)s"
    until = "" if query.until is None else "event_time < %(until)s"
    statement = usage_statement(query.by, _where(query.selection, since, until))
    parameters = {**query.selection._asdict(), "since": query.since, "until": query.until}
    return usage_rows(query.by, asked.all(statement, parameters))


def _count_events(asked: Asked, query: CountEvents) -> int:
    return int(asked.one(f"SELECT count(*) FROM @adk_events WHERE {_THIS_SESSION}", query.key._asdict())[0])


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
    conditions = [f"{column} = %({column})s" for column, value in selection._asdict().items() if value is not None]
    conditions += filter(None, also)
    return f"WHERE {' AND '.join(conditions)}" if conditions else ""
