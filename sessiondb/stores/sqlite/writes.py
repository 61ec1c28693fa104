"""The write path: commands become the rows of few statements, executed as one transaction.

What the statements do is in :mod:`sessiondb.stores.sqlite.write_triggers`.
"""

from __future__ import annotations

import enum
import json
import sqlite3
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

from sessiondb.model import columns
from sessiondb.model.commands import (
    AppendEvent,
    CreateSession,
    DataCommand,
    DeleteSession,
    Flush,
    Handle,
    PruneSessions,
    UpdateKeys,
)
from sessiondb.model.queries import ListSessions
from sessiondb.model.records import STORED_NONE, EventRecord, Outcome, Status
from sessiondb.stores.sqlite import reads
from sessiondb.stores.sqlite.sql import equal, names
from sessiondb.stores.sqlite.write_triggers import (
    CREATES,
    FAST_APPENDS,
    GENERAL_APPENDS,
    OBJECTS,
    RESULTS,
    SAME_ID,
    UNEXPECTED,
)

# The rows of a batch are padded to one of these counts, so that as few statements are ever prepared.
_BATCH_SIZES = (1, 2, 4, 8, 16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)

_DELETE = f"DELETE FROM adk_sessions WHERE {equal(columns.SESSION_KEY, '')}"


def install(connection: sqlite3.Connection) -> None:
    """Creates what a writing connection needs beside the tables, in its own temporary schema."""
    for statement in OBJECTS:
        connection.execute(statement)


def execute(connection: sqlite3.Connection, commands: Sequence[DataCommand], *, begun: bool = False) -> list[Outcome]:
    """Executes commands in their order, as one transaction; returns one outcome for each, after the commit.

    Args:
        connection: One that was given what :func:`install` creates.
        commands: What to do.
        begun: Whether the transaction has been begun, and holds the write lock.

    Raises:
        sqlite3.Error: If SQLite refuses. A transaction may be left open then; whether one command or the file is to
            blame is for the caller to find out.
    """
    fast = _fast_rows(commands)
    if fast is not None:
        parameters, outcomes = fast
        try:
            # This one statement is the transaction: it takes the write lock at its start and commits at its end.
            _insert(connection, _FAST_INSERTS, parameters, len(commands))
        except sqlite3.IntegrityError as error:
            if str(error) != UNEXPECTED:
                raise
        else:
            if begun:
                connection.execute("COMMIT")
            return outcomes
    runs = _runs(commands)
    if not begun:
        if len(runs) == 1 and runs[0][0] is _Kind.CREATE:
            return _execute_run(connection, *runs[0], {})
        connection.execute("BEGIN IMMEDIATE")
    outcomes = []
    progress: _Progress = {}
    for kind, run in runs:
        outcomes += _execute_run(connection, kind, run, progress)
    connection.execute("COMMIT")
    return outcomes


def event_hash(event_id: str) -> int:
    """The value of ``adk_events.event_hash`` for an event id: 64 bits of BLAKE2b, signed."""
    return int.from_bytes(blake2b(event_id.encode(), digest_size=8).digest(), "big", signed=True)


_Progress = dict[Handle, tuple[int, int]]
"""Incarnation and revision that a handle has after what was written through it in the open transaction."""


class _Kind(enum.Enum):
    LOG = enum.auto()
    CREATE = enum.auto()
    DELETE = enum.auto()
    PRUNE = enum.auto()
    FLUSH = enum.auto()


_KINDS: dict[type[Any], _Kind] = {
    AppendEvent: _Kind.LOG,
    UpdateKeys: _Kind.LOG,
    CreateSession: _Kind.CREATE,
    DeleteSession: _Kind.DELETE,
    PruneSessions: _Kind.PRUNE,
    Flush: _Kind.FLUSH,
}


def _runs(commands: Sequence[DataCommand]) -> list[tuple[_Kind, list[Any]]]:
    """Groups commands that follow each other and are of one kind."""
    runs: list[tuple[_Kind, list[Any]]] = []
    for command in commands:
        kind = _KINDS[type(command)]
        if runs and runs[-1][0] is kind:
            runs[-1][1].append(command)
        else:
            runs.append((kind, [command]))
    return runs


def _execute_run(connection: sqlite3.Connection, kind: _Kind, run: list[Any], progress: _Progress) -> list[Outcome]:
    match kind:
        case _Kind.LOG:
            return _append(connection, run, progress)
        case _Kind.CREATE:
            _insert(connection, _CREATE_INSERTS, _create_rows(run), len(run))
            return _results(connection)
        case _Kind.DELETE:
            return [_delete(connection, command) for command in run]
        case _Kind.PRUNE:
            return [_prune(connection, command) for command in run]
        case _Kind.FLUSH:
            return [_DONE] * len(run)


def _delete(connection: sqlite3.Connection, command: DeleteSession) -> Outcome:
    return _DONE if connection.execute(_DELETE, command.key._asdict()).rowcount else _MISSING


def _prune(connection: sqlite3.Connection, command: PruneSessions) -> Outcome:
    old = ListSessions(command.selection, updated_before=command.updated_before, limit=command.limit, with_state=False)
    pruned = tuple(reads.answer(connection, old))
    for session in pruned:
        connection.execute(_DELETE, session.key._asdict())
    return _DONE._replace(pruned=pruned)


_STATUSES = {int(status): status for status in Status}
_DONE = Outcome(Status.DONE)
_MISSING = Outcome(Status.MISSING)


def _inserts(view: str, width: int) -> tuple[dict[int, tuple[int, str]], int]:
    """Maps a number of rows to what is missing to the size it is padded to, and the statement for that."""
    row = f"({', '.join('?' * width)})"
    inserts: dict[int, tuple[int, str]] = {}
    for size in _BATCH_SIZES:
        statement = f"INSERT INTO {view} VALUES {', '.join([row] * size)}"
        for rows in range(len(inserts) + 1, size + 1):
            inserts[rows] = (size - rows, statement)
    return inserts, width


_FAST_INSERTS = _inserts("fast_appends", len(FAST_APPENDS))
_GENERAL_INSERTS = _inserts("general_appends", len(GENERAL_APPENDS))
_CREATE_INSERTS = _inserts("new_sessions", len(CREATES))


def _insert(
    connection: sqlite3.Connection, inserts: tuple[dict[int, tuple[int, str]], int], parameters: list[Any], rows: int
) -> None:
    by_rows, width = inserts
    padding, statement = by_rows[rows]
    # Once, but not with execute(): that asks for the last row's id too, and gives up the GIL to do so.
    connection.executemany(statement, (parameters + [None] * (padding * width),))


def _results(connection: sqlite3.Connection) -> list[Outcome]:
    (results,) = connection.execute(RESULTS).fetchone()
    return [Outcome(_STATUSES.get(status, status), *rest) for status, *rest in json.loads(results)]


def _fast_rows(commands: Sequence[DataCommand]) -> tuple[list[Any], list[Outcome]] | None:
    """Returns the rows of a batch that can be expected to go through, and the outcomes it has then.

    None if the batch holds something else than appends through handles that know their revision, and updates.
    """
    parameters: list[Any] = []
    outcomes: list[Outcome] = []
    seen: dict[Handle, int] = {}
    for command in commands:
        if type(command) is AppendEvent:
            handle = command.handle
            if handle is None or handle.incarnation is None:
                return None
            revision = seen.get(handle, handle.revision)
            seen[handle] = revision + 1
            parameters += (1, handle.incarnation, revision)
            outcomes.append(Outcome(Status.DONE, handle.incarnation, revision + 1))
        elif type(command) is UpdateKeys:
            parameters += _UPDATE
            outcomes.append(_DONE)
        else:
            return None
        _add_event(parameters, command)
    return parameters, outcomes


_UPDATE = (0, None, None)


def _append(
    connection: sqlite3.Connection, run: Sequence[AppendEvent | UpdateKeys], progress: _Progress
) -> list[Outcome]:
    """Appends by the general path, which finds out for each row whether it may be appended."""
    outcomes = _append_rows(connection, run, progress)
    for index, outcome in enumerate(outcomes):
        if outcome.status == SAME_ID:
            # The JSON of an equal event may differ to the letter, which SQL cannot see past.
            if _is_in_log(connection, run[index]):
                outcomes[index] = Outcome(Status.DUPLICATE)
            else:
                # Written after the others of its run: appends in flight together have no order.
                (outcomes[index],) = _append_rows(connection, [run[index]], progress, is_new=True)
    return outcomes


def _append_rows(
    connection: sqlite3.Connection,
    run: Sequence[AppendEvent | UpdateKeys],
    progress: _Progress,
    *,
    is_new: bool = False,
) -> list[Outcome]:
    parameters: list[Any] = []
    last_row: dict[Handle, int] = {}
    handles = [command.handle if isinstance(command, AppendEvent) else None for command in run]
    for n, (command, handle) in enumerate(zip(run, handles, strict=True)):
        advance = int(isinstance(command, AppendEvent))
        if handle is None:
            parameters += (n, None, 0, advance, is_new, None, None, None, None)
        else:
            parameters += (n, last_row.get(handle), 1, advance, is_new)
            if handle in progress:
                parameters += (*progress[handle], None, None)
            elif handle.incarnation is not None:
                parameters += (handle.incarnation, handle.revision, None, None)
            else:
                parameters += (None, None, handle.last_event_id, event_hash(handle.last_event_id))
            last_row[handle] = n
        _add_event(parameters, command)
    _insert(connection, _GENERAL_INSERTS, parameters, len(run))
    outcomes = _results(connection)
    for handle, outcome in zip(handles, outcomes, strict=True):
        if handle is not None and outcome.status is Status.DONE:
            progress[handle] = (outcome.incarnation, outcome.revision)
    return outcomes


def _add_event(parameters: list[Any], command: AppendEvent | UpdateKeys) -> None:
    """Adds the columns :data:`~sessiondb.stores.sqlite.write_triggers.EVENT` to those of a row."""
    event = command.event
    parameters += command.key
    parameters.append(event_hash(event.event_id))
    parameters += event
    parameters += command.delta


_EVENTS_OF_ID = f"""
    SELECT {names(columns.EVENT_RECORD, "e")}
      FROM adk_sessions AS s JOIN adk_events AS e ON e.incarnation = s.incarnation
     WHERE s.app_name = ? AND s.user_id = ? AND s.session_id = ? AND e.event_hash = ? AND e.event_id = ?
"""


def _is_in_log(connection: sqlite3.Connection, command: AppendEvent | UpdateKeys) -> bool:
    """Whether an equal event is in the log: JSON objects are equal whatever the order of their members."""
    event = command.event
    key = (*command.key, event_hash(event.event_id), event.event_id)
    return any(
        stored[:4] == event[:4]
        and _is_same_json(stored.content, event.content)
        and _is_same_json(stored.actions, event.actions)
        and _fields(stored.extra) == _fields(event.extra)
        for stored in map(EventRecord._make, connection.execute(_EVENTS_OF_ID, key))
    )


def _is_same_json(left: str | None, right: str | None) -> bool:
    if left == right or left is None or right is None:
        return left == right
    return bool(json.loads(left) == json.loads(right))


def _fields(extra: str | None) -> dict[str, Any]:
    """Returns the fields of the event. What None did in its delta is the service's matter, not the event's."""
    fields: dict[str, Any] = {} if extra is None else json.loads(extra)
    fields.pop(STORED_NONE, None)
    return fields


def _create_rows(run: Sequence[CreateSession]) -> list[Any]:
    parameters: list[Any] = []
    for n, command in enumerate(run):
        parameters += (n, *command.key, command.time, command.timestamp, *command.delta)
    return parameters
