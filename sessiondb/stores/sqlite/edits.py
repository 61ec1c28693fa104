"""SQL of what takes something away from a log: cutting it off, and redacting events."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

from sessiondb.model.commands import RedactEvents, TruncateSession
from sessiondb.model.event_identity import event_hash
from sessiondb.model.queries import FindEvents, GetOutline
from sessiondb.model.records import EventRow, Outcome, SessionHead, SessionSnapshot, Status
from sessiondb.stores.sqlite.connection import snapshot
from sessiondb.stores.sqlite.sql import EVENT_ROW, HEAD_COLUMNS, THIS_SESSION, of_scope
from sessiondb.stores.sqlite.write_triggers import NOT_STORED

_NUMBERS = f"SELECT incarnation, log_epoch, revision FROM adk_sessions WHERE {THIS_SESSION}"

_OUTLINE = f"""
    SELECT id, seq, revision, event_id, invocation_id, author, event_time, timestamp,
           iif(instr(content, '"function_'), content, NULL), iif(instr(actions, '"compaction":'), actions, '{{}}'), NULL
      FROM adk_events WHERE {THIS_SESSION} ORDER BY id
"""
_HEAD = f"SELECT {HEAD_COLUMNS}, '{{}}', '{{}}', '{{}}' FROM adk_sessions WHERE {THIS_SESSION}"
_OF_IDS = f"""
    SELECT {EVENT_ROW} FROM adk_events
     WHERE incarnation = :incarnation AND event_hash IN (SELECT value FROM json_each(:hashes))
       AND event_id IN (SELECT value FROM json_each(:event_ids))
     ORDER BY id
"""


def get_outline(connection: sqlite3.Connection, query: GetOutline) -> list[EventRow]:
    """Reads which events a log holds, without most of what is in them."""
    return [EventRow._make(row) for row in connection.execute(_OUTLINE, query.key._asdict())]


def find_events(connection: sqlite3.Connection, query: FindEvents) -> SessionSnapshot | None:
    """Reads the events of some ids."""
    with snapshot(connection):
        found = connection.execute(_HEAD, query.key._asdict()).fetchone()
        if found is None:
            return None
        head = SessionHead._make(found)
        parameters = {
            "incarnation": head.incarnation,
            "hashes": json.dumps([event_hash(event_id) for event_id in query.event_ids]),
            "event_ids": json.dumps(query.event_ids),
        }
        rows = [EventRow._make(row) for row in connection.execute(_OF_IDS, parameters)]
    return SessionSnapshot(head, rows)


# Rows are found by their ids, from the end of the log on: what stands before the cut is not gone through.
_KEPT = f"SELECT id, revision FROM adk_events WHERE {THIS_SESSION} AND seq <= :seq ORDER BY id DESC LIMIT 1"
_ANSWERED = f"""
    SELECT 1 FROM adk_events
     WHERE {THIS_SESSION} AND id > :kept AND seq > :last_seq AND instr(content, '"function_response"')
"""
_CUT = f"DELETE FROM adk_events WHERE {THIS_SESSION} AND id > :kept"
_LEFT = f"SELECT 1 FROM adk_events WHERE {THIS_SESSION} AND id > :kept"
# A Session without a revision is known by its last event, if that has the revision of the log.
_RAISE_REVISION = f"""
    UPDATE adk_events SET revision = :revision
     WHERE {THIS_SESSION} AND id <= :kept AND id > coalesce((
        SELECT id FROM adk_events
         WHERE {THIS_SESSION} AND id <= :kept AND revision <> :kept_revision ORDER BY id DESC LIMIT 1
     ), 0)
"""
# Of what a fork has taken over only what stays is not its own: the numbers after that are used again.
_END_LOG = f"""
    UPDATE adk_sessions SET revision = :revision, last_seq = :seq, updated_at = :timestamp, update_time = :time,
           forked_seq = min(forked_seq, :seq)
     WHERE {THIS_SESSION}
"""
_REMOVE_KEYS = f"""
    DELETE FROM adk_state WHERE {of_scope("SESSION", "")} AND state_key NOT IN (SELECT key FROM json_each(:session_set))
"""
_SET_KEYS = """
    INSERT INTO adk_state
        SELECT :app_name, :user_id, :session_id, 'SESSION', key, value, :timestamp FROM json_each(:session_set) WHERE true
        ON CONFLICT (app_name, user_id, session_id, scope, state_key)
        DO UPDATE SET state_value = excluded.state_value, updated_at = excluded.updated_at
         WHERE state_value <> excluded.state_value
"""
_OTHER_STATE = f"""
    SELECT 1 WHERE (SELECT count(*) FROM adk_state WHERE {of_scope("SESSION", "")})
                <> (SELECT count(*) FROM json_each(:session_set))
"""


def truncate(connection: sqlite3.Connection, command: TruncateSession) -> Outcome:
    """Cuts a log off, in the transaction that is open."""
    parameters: dict[str, Any] = {**command.key._asdict(), **command._asdict()}
    del parameters["key"]
    found = connection.execute(_NUMBERS, parameters).fetchone()
    if found is None:
        return Outcome(Status.MISSING)
    incarnation, log_epoch, revision = found
    kept = connection.execute(_KEPT, parameters).fetchone()
    parameters["kept"], parameters["kept_revision"] = kept or (0, 0)
    if (incarnation, log_epoch) != (command.incarnation, command.log_epoch) or connection.execute(
        _ANSWERED, parameters
    ).fetchone():
        return Outcome(Status.STALE)
    # Never back: there may be Sessions that know the revision that the kept events had.
    parameters["revision"] = revision + 1
    connection.execute(_CUT, parameters)
    connection.execute(_RAISE_REVISION, parameters)
    ended = connection.execute(_END_LOG, parameters).rowcount
    connection.execute(_REMOVE_KEYS, parameters)
    connection.execute(_SET_KEYS, parameters)
    if ended != 1 or any(connection.execute(unexpected, parameters).fetchone() for unexpected in (_LEFT, _OTHER_STATE)):
        raise sqlite3.IntegrityError(NOT_STORED)
    return Outcome(Status.DONE, incarnation, revision + 1)


_REDACT = """
    UPDATE adk_events SET content = :content, actions = :actions, extra = :extra
     WHERE incarnation = :incarnation AND event_hash = :event_hash AND seq = :seq
"""


def redact(connection: sqlite3.Connection, command: RedactEvents) -> Outcome:
    """Puts what is left of events in their places, in the transaction that is open."""
    found = connection.execute(_NUMBERS, command.key._asdict()).fetchone()
    if found is None:
        return Outcome(Status.MISSING)
    incarnation, log_epoch, revision = found
    if (incarnation, log_epoch) != (command.incarnation, command.log_epoch):
        return Outcome(Status.STALE)
    for event in command.events:
        parameters = {**event._asdict(), "incarnation": incarnation, "event_hash": event_hash(event.event_id)}
        if connection.execute(_REDACT, parameters).rowcount != 1:
            raise sqlite3.IntegrityError(NOT_STORED)
    return Outcome(Status.DONE, incarnation, revision)
