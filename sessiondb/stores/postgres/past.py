"""SQL about the past: what sessions began with, what changed, and how a session was."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from json.encoder import encode_basestring
from typing import Any

from sessiondb.model.queries import GetBeginning, GetPast, ListChanges, ListForks
from sessiondb.model.records import (
    Beginning,
    EventRow,
    ForkedSession,
    ForkPoint,
    LoggedChange,
    PastSnapshot,
    SessionHead,
    SessionKey,
)
from sessiondb.stores.postgres.asked import Asked
from sessiondb.stores.postgres.sql import (
    CHANGES_STATE,
    EVENT_ROW,
    HEAD_COLUMNS,
    KEY,
    THIS_SESSION,
    state_of,
    where_clause,
)

_BEGINNING = "initial_state, forked_user_id, forked_session_id, forked_seq, cut_seq, cut_revision, cut_time"


def get_beginning(asked: Asked, query: GetBeginning) -> Beginning | None:
    """Reads what a session began with; None if there is no such session."""
    rows = asked.all(f"SELECT {_BEGINNING} FROM @adk_sessions WHERE {THIS_SESSION}", query.key._asdict())
    return Beginning.of_columns(*rows[0]) if rows else None


_SESSION = (
    f"SELECT {HEAD_COLUMNS}, {state_of('SESSION')}, {state_of('USER')}, {state_of('APP')}, written::text::bigint,"
    f" created_at, {_BEGINNING} FROM @adk_sessions WHERE {THIS_SESSION}"
)

# Which event a moment comes after: the last one in the order of the log.
_FIND_EVENT = (
    "SELECT written::text::bigint, id, seq, revision FROM @adk_events"
    f" WHERE {THIS_SESSION} AND {{}} ORDER BY seq DESC LIMIT 1"
)

_CHANGE = f"{KEY}, seq, event_id, invocation_id, author, event_time, timestamp, actions, extra"


def get_past(asked: Asked, query: GetPast) -> PastSnapshot | None:
    """Reads how a session was at a moment; None if there is no such session."""
    at = query.at
    parameters: dict[str, Any] = {**query.key._asdict(), **at._asdict()}
    with asked.snapshot():
        found = asked.all(_SESSION, parameters)
        if not found:
            return None
        head = SessionHead._make(found[0][:8])
        written, created_at, *columns_of_beginning = found[0][8:]
        beginning = Beginning.of_columns(*columns_of_beginning)
        if at.event_id is not None:
            condition = "event_id = %(event_id)s"
        elif at.seq is not None:
            condition = "seq = %(seq)s"
        else:
            condition = "true" if at.time is None else "event_time <= %(time)s"
        events = asked.all(_FIND_EVENT.format(condition), parameters)
        moment = (written, 0, head.incarnation)
        seq, revision = at.in_beginning(beginning)
        if events:
            moment, seq, revision = (events[0][0], 1, events[0][1]), events[0][2], events[0][3]
        parameters["last_seq"] = seq or 0
        up_to_there = f"FROM @adk_events WHERE {THIS_SESSION} AND seq <= %(last_seq)s"
        (count_of_events,) = asked.one(f"SELECT count(*) {up_to_there}", parameters)
        rows: list[EventRow] = []
        if query.with_events and seq:
            rows = [EventRow(*row) for row in asked.all(f"SELECT {EVENT_ROW} {up_to_there} ORDER BY seq", parameters)]
        changes = [
            _change(row)
            for row in asked.all(
                f"SELECT written::text::bigint, 1, id, {_CHANGE} FROM @adk_events WHERE {THIS_SESSION} AND {CHANGES_STATE}"
                " ORDER BY seq",
                parameters,
            )
        ]
    return PastSnapshot(head, created_at, beginning, seq, moment, count_of_events, revision, rows, changes)


def _change(row: tuple[Any, ...]) -> LoggedChange:
    return LoggedChange(row[:3], SessionKey(*row[3:6]), *row[6:])


def list_changes(asked: Asked, query: ListChanges) -> Generator[LoggedChange, None, None]:
    """Reads which events changed state, and what sessions began with, in one order."""
    parameters: dict[str, Any] = query.selection._asdict()
    also_events, also_beginnings = [CHANGES_STATE], ["initial_state IS NOT NULL"]
    key = query.state_key
    # JSON in which there is a NUL can be searched as a text only, so whoever asks does the rest.
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
          FROM @adk_events {where_clause(query.selection, *also_events)}
        UNION ALL
        SELECT written::text::bigint, 0, incarnation, {KEY}, 0, '', '', '', cut_time, created_at,
               '{{"state_delta":' || initial_state || '}}', NULL
          FROM @adk_sessions {where_clause(query.selection, *also_beginnings)}
        ORDER BY place{direction}, kind{direction}, nth{direction}
    """
    with closing(asked.stream(statement, parameters)) as rows:
        for row in rows:
            yield _change(row)


def list_forks(asked: Asked, query: ListForks) -> Generator[ForkedSession, None, None]:
    """Lists sessions that were forked from others, in the order in which they were made."""
    conditions = ["forked_seq IS NOT NULL"]
    for column, value in zip(("app_name", "forked_user_id", "forked_session_id"), query.source, strict=True):
        if value is not None:
            conditions.append(f"{column} = %({column.removeprefix('forked_')})s")
    statement = (
        f"SELECT {KEY}, created_at, forked_user_id, forked_session_id, forked_seq FROM @adk_sessions"
        f" WHERE {' AND '.join(conditions)} ORDER BY incarnation"
    )
    with closing(asked.stream(statement, query.source._asdict())) as rows:
        for row in rows:
            yield ForkedSession(SessionKey(*row[:3]), row[3], ForkPoint(*row[4:]))
