"""SQL about the past: what sessions began with, what changed, and how a session was."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Sequence
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
from sessiondb.stores.sqlite.connection import snapshot, stream
from sessiondb.stores.sqlite.sql import (
    CHANGES_STATE,
    EVENT_ROW,
    HEAD_COLUMNS,
    HOLDS_KEY,
    KEY,
    THIS_SESSION,
    state_of,
    where_clause,
)

_BEGINNING = "initial_state, forked_user_id, forked_session_id, forked_seq, cut_seq, cut_revision, cut_time"


def get_beginning(connection: sqlite3.Connection, query: GetBeginning) -> Beginning | None:
    """Reads what a session began with; None if there is no such session."""
    statement = f"SELECT {_BEGINNING} FROM adk_sessions WHERE {THIS_SESSION}"
    row = connection.execute(statement, query.key._asdict()).fetchone()
    return None if row is None else Beginning.of_columns(*row)


_SESSION = (
    f"SELECT {HEAD_COLUMNS}, {state_of('SESSION', '')}, {state_of('USER', '')}, {state_of('APP', '')}, created_at,"
    f" coalesce(begun_after, 0), {_BEGINNING} FROM adk_sessions WHERE {THIS_SESSION}"
)

# Which event a moment comes after. Events are looked up in the order of the log, the last one first.
_FIND_EVENT = f"SELECT id, seq, revision FROM adk_events WHERE {THIS_SESSION}"
_BY_ID = f"{_FIND_EVENT} AND event_id = :event_id ORDER BY id DESC LIMIT 1"
_BY_SEQ = f"{_FIND_EVENT} AND seq = :seq ORDER BY id DESC LIMIT 1"
_BY_TIME = f"{_FIND_EVENT} AND event_time <= :time ORDER BY id DESC LIMIT 1"
_LAST_EVENT = f"{_FIND_EVENT} ORDER BY id DESC LIMIT 1"

_CHANGE = f"{KEY}, seq, event_id, invocation_id, author, event_time, timestamp, actions, extra"


def get_past(connection: sqlite3.Connection, query: GetPast) -> PastSnapshot | None:
    """Reads how a session was at a moment; None if there is no such session."""
    at = query.at
    parameters: dict[str, Any] = {**query.key._asdict(), **at._asdict()}
    with snapshot(connection):
        found = connection.execute(_SESSION, parameters).fetchone()
        if found is None:
            return None
        head = SessionHead._make(found[:8])
        created_at, begun_after, *columns_of_beginning = found[8:]
        beginning = Beginning.of_columns(*columns_of_beginning)
        if at.event_id is not None:
            statement = _BY_ID
        elif at.seq is not None:
            statement = _BY_SEQ
        else:
            statement = _LAST_EVENT if at.time is None else _BY_TIME
        event = connection.execute(statement, parameters).fetchone()
        seq, revision = at.in_beginning(beginning) if event is None else event[1:]
        moment = (begun_after, head.incarnation) if event is None else (event[0], 0)
        last_id = 0 if event is None else event[0]
        (events,) = connection.execute(
            f"SELECT count(*) FROM adk_events WHERE {THIS_SESSION} AND id <= :last_id",
            {**parameters, "last_id": last_id},
        ).fetchone()
        rows: list[EventRow] = []
        if query.with_events and event is not None:
            rows = [
                EventRow._make(row)
                for row in connection.execute(
                    f"SELECT {EVENT_ROW} FROM adk_events WHERE {THIS_SESSION} AND id <= :last_id ORDER BY id",
                    {**parameters, "last_id": last_id},
                )
            ]
        changes = [
            _change(row)
            for row in connection.execute(
                f"SELECT id, 0, {_CHANGE} FROM adk_events WHERE {THIS_SESSION} AND {CHANGES_STATE} ORDER BY id",
                parameters,
            )
        ]
    return PastSnapshot(head, created_at, beginning, seq, moment, events, revision, rows, changes)


def _change(row: Sequence[Any]) -> LoggedChange:
    return LoggedChange((row[0], row[1]), SessionKey(*row[2:5]), *row[5:])


def list_changes(connection: sqlite3.Connection, query: ListChanges) -> Generator[LoggedChange, None, None]:
    """Reads which events changed state, and what sessions began with, in one order."""
    parameters: dict[str, Any] = query.selection._asdict()
    also_events, also_beginnings = [CHANGES_STATE], ["initial_state IS NOT NULL"]
    if query.state_key is not None:
        also_events.append(HOLDS_KEY)
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
        SELECT id AS place, 0 AS nth, {_CHANGE} FROM adk_events {where_clause(query.selection, *also_events)}
        UNION ALL
        SELECT coalesce(begun_after, 0), incarnation, {KEY}, 0, '', '', '', cut_time, created_at,
               '{{"state_delta":' || initial_state || '}}', NULL
          FROM adk_sessions {where_clause(query.selection, *also_beginnings)}
        ORDER BY place{direction}, nth{direction}
    """
    for row in stream(connection, statement, parameters):
        yield _change(row)


def list_forks(connection: sqlite3.Connection, query: ListForks) -> Generator[ForkedSession, None, None]:
    """Lists sessions that were forked from others, in the order in which they were made."""
    conditions = ["forked_seq IS NOT NULL"]
    for column, value in zip(("app_name", "forked_user_id", "forked_session_id"), query.source, strict=True):
        if value is not None:
            conditions.append(f"{column} = :{column.removeprefix('forked_')}")
    statement = (
        f"SELECT {KEY}, created_at, forked_user_id, forked_session_id, forked_seq FROM adk_sessions"
        f" WHERE {' AND '.join(conditions)} ORDER BY incarnation"
    )
    for row in stream(connection, statement, query.source._asdict()):
        yield ForkedSession(SessionKey(*row[:3]), row[3], ForkPoint(*row[4:]))
