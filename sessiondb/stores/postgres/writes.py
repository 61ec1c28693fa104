"""The write path: commands become the rows of one parameter, and answers become outcomes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import islice
from json.encoder import encode_basestring as quoted
from typing import Any, TypeAlias

from sessiondb.model.commands import (
    AppendEvent,
    AppendEvents,
    CreateSession,
    DataCommand,
    DeleteSession,
    DeleteUnchanged,
    EraseUser,
    Flush,
    ForkSession,
    Handle,
    PruneSessions,
    RedactEvents,
    TrimLog,
    TruncateSession,
    UpdateKeys,
)
from sessiondb.model.event_identity import event_hash
from sessiondb.model.records import (
    NOTHING_ERASED,
    Erased,
    EventRecord,
    Outcome,
    SessionHead,
    SessionKey,
    SessionSummary,
    StateDelta,
    Status,
)
from sessiondb.stores.postgres.write_functions import SAME_ID

Progress: TypeAlias = dict[Handle, tuple[int, int]]
"""Incarnation and revision that a handle has after what was written through it."""


def expected_rows(commands: Sequence[DataCommand]) -> tuple[str, list[Outcome]] | None:
    """Returns the rows of a batch that can be expected to go through, and the outcomes it has then.

    None if the batch holds something else than appends through handles that know their revision, and updates; or one event
    twice.
    """
    outcomes: list[Outcome] = []
    heads: list[str] = []
    seen: dict[Handle, int] = {}
    # For each session: how many rows there are so far, how many of them advance it, and the last of them.
    sessions: dict[SessionKey, list[int]] = {}
    ids = set()
    events = [part for command in commands for part in _parts_of(command)]
    for n, command in enumerate(events):
        if type(command) is AppendEvent:
            handle = command.handle
            if handle is None or handle.incarnation is None:
                return None
            revision = seen.get(handle, handle.revision)
            seen[handle] = revision + 1
            outcomes.append(Outcome(Status.DONE, handle.incarnation, revision + 1))
            known = f'"advance":1,"incarnation":{handle.incarnation},"revision":{revision}'
            advance = 1
        elif type(command) is UpdateKeys:
            outcomes.append(_DONE)
            known = '"advance":0'
            advance = 0
        else:
            return None
        session = sessions.get(command.key)
        if session is None:
            session = sessions[command.key] = [0, 0, n]
        heads.append(f'{{"n":{n},"nth":{session[0]},"advanced":{session[1]},{known}')
        session[0] += 1
        session[1] += advance
        session[2] = n
        ids.add((command.key, command.event.event_id))
    if len(ids) < len(events):
        return None
    last = {session[2] for session in sessions.values()}
    rows = [
        f'{head},"is_last":{"true" if n in last else "false"},{_event(command)}}}'  # type: ignore[arg-type]  # as looked at
        for n, (head, command) in enumerate(zip(heads, events, strict=True))
    ]
    remaining = iter(outcomes)
    # Of the parts of a command the last one that belongs to the conversation has the highest revision.
    done = [max(islice(remaining, len(_parts_of(command)))) for command in commands]
    return rows[0] if len(rows) == 1 else f"[{','.join(rows)}]", done


def _parts_of(command: DataCommand) -> tuple[DataCommand, ...]:
    return command.parts if isinstance(command, AppendEvents) else (command,)


def all_rows(commands: Sequence[DataCommand], progress: Progress | None = None) -> str:
    """Returns the rows of a batch of whatever commands.

    Args:
        commands: What to do.
        progress: What handles know by now, if the commands are appends whose ids are known to be there already, in other
            events.
    """
    handles: dict[Handle, int] = {}
    rows = []
    for n, command in enumerate(commands):
        if isinstance(command, AppendEvent | UpdateKeys | AppendEvents):
            handle = None if isinstance(command, UpdateKeys) else command.handle
            known = ""
            if handle is not None:
                known = f',"handle":{handles.setdefault(handle, len(handles) + 1)}'
                incarnation, revision = (progress or {}).get(handle, (handle.incarnation, handle.revision))
                if incarnation is not None:
                    known += f',"incarnation":{incarnation},"revision":{revision}'
                else:
                    last = handle.last_event_id
                    known += f',"last_event_id":{quoted(last)},"last_event_hash":{event_hash(last)}'
            if progress is not None:
                known += ',"is_new":true'
            if isinstance(command, AppendEvents):
                rows.append(
                    f'{{"n":{n},"kind":"append_all"{known},{_key(command.key)},"parts":{_rows_of(command.parts)}}}'
                )
            else:
                rows.append(f'{{"n":{n},"kind":"append"{known},{_row(command)}}}')
        else:
            rows.append(json.dumps({"n": n, **_fields_of(command)}))
    return f"[{','.join(rows)}]"


def _rows_of(parts: Sequence[AppendEvent | UpdateKeys]) -> str:
    rows = [f'{{"n":{n},{_row(part)}}}' for n, part in enumerate(parts)]
    return f"[{','.join(rows)}]"


def _row(command: AppendEvent | UpdateKeys) -> str:
    return f'"advance":{int(type(command) is AppendEvent)},{_event(command)}'


def outcomes_of(results: str) -> list[Outcome]:
    """Returns the outcomes that a batch came to."""
    return [
        Outcome(
            *(_STATUSES[status], incarnation, revision, session, user, app, tuple(map(_summary, pruned))),
            erased=NOTHING_ERASED if erased is None else Erased._make((*erased[:4], bool(erased[4]))),
        )
        for status, incarnation, revision, (session, user, app), pruned, erased in json.loads(results)
    ]


def _summary(row: list[Any]) -> SessionSummary:
    head = SessionHead._make((*row[6:], "{}", "{}", "{}"))
    return SessionSummary(SessionKey._make(row[:3]), row[3], row[4], head, row[5])


# SAME_ID stays a number: it never leaves the store.
_STATUSES: dict[int, Any] = {**{int(status): status for status in Status}, SAME_ID: SAME_ID}
_DONE = Outcome(Status.DONE)


def _fields_of(command: DataCommand) -> dict[str, Any]:
    match command:
        case CreateSession(key, time, timestamp, delta, initial_state):
            states = {name: json.loads(text) for name, text in delta._asdict().items() if text is not None}
            created = {**key._asdict(), "event_time": time, "timestamp": timestamp, "initial_state": initial_state}
            return {"kind": "create", **created, **states}
        case ForkSession(key, time, timestamp, source):
            return {
                "kind": "fork",
                **key._asdict(),
                "event_time": time,
                "timestamp": timestamp,
                "source_user_id": source.user_id,
                "source_session_id": source.session_id,
                "incarnation": command.incarnation,
                "log_epoch": command.log_epoch,
                "last_seq": command.seq,
                "events": command.events,
                "revision": command.revision,
                "session_set": json.loads(command.session_set),
            }
        case DeleteSession(key):
            return {"kind": "delete", **key._asdict()}
        case PruneSessions(selection, updated_before, limit):
            return {"kind": "prune", **selection._asdict(), "updated_before": updated_before, "max_sessions": limit}
        case EraseUser(app_name, user_id, limit):
            return {"kind": "erase", "app_name": app_name, "user_id": user_id, "max_rows": limit}
        case TruncateSession() | RedactEvents() | TrimLog() | DeleteUnchanged():
            return _fields_of_edit(command)
        case Flush():
            return {"kind": "flush"}
    raise TypeError(type(command).__name__)


def _fields_of_edit(command: TruncateSession | RedactEvents | TrimLog | DeleteUnchanged) -> dict[str, Any]:
    """Returns the fields of what changes or removes what was read before."""
    match command:
        case TruncateSession(key, time, timestamp):
            return {
                "kind": "truncate",
                **key._asdict(),
                "event_time": time,
                "timestamp": timestamp,
                "incarnation": command.incarnation,
                "log_epoch": command.log_epoch,
                "last_seq": command.seq,
                "events": command.last_seq,
                "session_set": json.loads(command.session_set),
            }
        case RedactEvents(key, incarnation, log_epoch, events):
            return {
                "kind": "redact",
                **key._asdict(),
                "incarnation": incarnation,
                "log_epoch": log_epoch,
                "events": len(events),
                "parts": [{"last_seq": event.seq, **event._asdict()} for event in events],
            }
        case TrimLog(key):
            return {
                "kind": "trim",
                **key._asdict(),
                "incarnation": command.incarnation,
                "log_epoch": command.log_epoch,
                "seq": command.seq,
                "last_seq": command.last_seq,
                "initial_state": command.initial_state,
            }
        case DeleteUnchanged(sessions):
            return {"kind": "delete_unchanged", "sessions": [_seen(session) for session in sessions]}


def _seen(session: SessionSummary) -> dict[str, Any]:
    """Returns what is compared of a session before it is deleted."""
    _, revision, last_seq, log_epoch, *_ = session.head
    seen = {"incarnation": session.head.incarnation, "revision": revision, "last_seq": last_seq, "log_epoch": log_epoch}
    return {**session.key._asdict(), **seen}


def _key(key: SessionKey) -> str:
    app_name, user_id, session_id = map(quoted, key)
    return f'"app_name":{app_name},"user_id":{user_id},"session_id":{session_id}'


def _event(command: AppendEvent | UpdateKeys) -> str:
    """Returns the members of a row that hold the event."""
    event: EventRecord = command.event
    members = (
        f"{_key(command.key)},"
        f'"event_hash":{event_hash(event.event_id)},"event_id":{quoted(event.event_id)},'
        f'"invocation_id":{quoted(event.invocation_id)},"author":{quoted(event.author)},"event_time":{event.time!r},'
        f'"timestamp":"{event.timestamp}","actions":{quoted(event.actions)}'
    )
    if event.content is not None:
        members += f',"content":{quoted(event.content)}'
    if event.extra is not None:
        members += f',"extra":{quoted(event.extra)}'
    # Their values are JSON texts in strings, so they go in as they are.
    for name, text in zip(StateDelta._fields, command.delta, strict=True):
        if text is not None:
            members += f',"{name}":{text}'
    return members
