"""The write path: commands become the rows of few statements, executed as one transaction.

What the statements do is in :mod:`sessiondb.stores.sqlite.write_triggers`.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

from sessiondb.model import columns
from sessiondb.model.commands import (
    AppendEvent,
    AppendEvents,
    CreateSession,
    DataCommand,
    DeleteSession,
    Flush,
    ForkSession,
    Handle,
    PruneSessions,
    RedactEvents,
    TruncateSession,
    UpdateKeys,
)
from sessiondb.model.event_identity import event_hash, is_same_event
from sessiondb.model.queries import ListSessions
from sessiondb.model.records import EventRecord, Outcome, StateDelta, Status
from sessiondb.stores.sqlite import edits, reads
from sessiondb.stores.sqlite.sql import equal, names
from sessiondb.stores.sqlite.write_triggers import (
    CREATES,
    FAST_APPENDS,
    FORKS,
    GENERAL_APPENDS,
    OBJECTS,
    RESULTS,
    SAME_ID,
    UNEXPECTED,
)

# The rows of a batch are padded to one of these counts, so that as few statements are ever prepared.
_MAX_ROWS = 1024
_BATCH_SIZES = (1, 2, 4, 8, 16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, _MAX_ROWS)

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
        rows = len(parameters) // len(FAST_APPENDS)
        is_one_statement = rows <= _MAX_ROWS
        if not is_one_statement:
            if not begun:
                connection.execute("BEGIN IMMEDIATE")
                begun = True
            connection.execute("SAVEPOINT fast")
        try:
            # If it is one statement, that is the transaction: it takes the write lock at its start and commits at its end.
            _insert(connection, _FAST_INSERTS, parameters, rows)
        except sqlite3.IntegrityError as error:
            if str(error) != UNEXPECTED:
                raise
            if not is_one_statement:
                connection.execute("ROLLBACK TO fast")
        else:
            if begun:
                connection.execute("COMMIT")
            return outcomes
    runs: list[tuple[_Step, list[Any]]] = [
        (step, list(run)) for step, run in groupby(commands, lambda command: _STEPS[type(command)])
    ]
    progress: _Progress = {}
    if not begun:
        step, run = runs[0]
        if step in (_create, _fork) and len(runs) == 1:
            return step(connection, run, progress)
        connection.execute("BEGIN IMMEDIATE")
    outcomes = []
    for step, run in runs:
        outcomes += step(connection, run, progress)
    connection.execute("COMMIT")
    return outcomes


_Progress = dict[Handle, tuple[int, int]]
"""Incarnation and revision that a handle has after what was written through it in the open transaction."""

_Step = Callable[[sqlite3.Connection, list[Any], _Progress], list[Outcome]]
"""Executes commands of one kind that follow each other."""


def _create(connection: sqlite3.Connection, run: list[CreateSession], _progress: _Progress) -> list[Outcome]:
    parameters: list[Any] = []
    for n, command in enumerate(run):
        parameters += (n, *command.key, command.time, command.timestamp, *command.delta, command.initial_state)
    _insert(connection, _CREATE_INSERTS, parameters, len(run))
    return _results(connection)


def _fork(connection: sqlite3.Connection, run: list[ForkSession], _progress: _Progress) -> list[Outcome]:
    parameters: list[Any] = []
    for n, command in enumerate(run):
        parameters += (n, *command.key, command.time, command.timestamp, *StateDelta(command.session_set))
        parameters += (*command.source[1:], command.incarnation, command.log_epoch)
        parameters += (command.seq, command.events, command.revision)
    _insert(connection, _FORK_INSERTS, parameters, len(run))
    return _results(connection)


def _truncate(connection: sqlite3.Connection, run: list[TruncateSession], _progress: _Progress) -> list[Outcome]:
    return [edits.truncate(connection, command) for command in run]


def _redact(connection: sqlite3.Connection, run: list[RedactEvents], _progress: _Progress) -> list[Outcome]:
    return [edits.redact(connection, command) for command in run]


def _delete(connection: sqlite3.Connection, run: list[DeleteSession], _progress: _Progress) -> list[Outcome]:
    return [
        _DONE if connection.execute(_DELETE, command.key._asdict()).rowcount else Outcome(Status.MISSING)
        for command in run
    ]


def _prune(connection: sqlite3.Connection, run: list[PruneSessions], _progress: _Progress) -> list[Outcome]:
    outcomes = []
    for selection, updated_before, limit in run:
        old = ListSessions(selection, updated_before=updated_before, limit=limit, with_state=False)
        pruned = tuple(reads.answer(connection, old))
        for session in pruned:
            connection.execute(_DELETE, session.key._asdict())
        outcomes.append(_DONE._replace(pruned=pruned))
    return outcomes


_STATUSES = {int(status): status for status in Status}
_DONE = Outcome(Status.DONE)


def _inserts(view: str, width: int) -> dict[int, tuple[int, str]]:
    """Maps a number of rows to how many NULLs pad them to the next size, and the statement for that."""
    row = f"({', '.join('?' * width)})"
    inserts: dict[int, tuple[int, str]] = {}
    for size in _BATCH_SIZES:
        statement = f"INSERT INTO {view} VALUES {', '.join([row] * size)}"
        for rows in range(len(inserts) + 1, size + 1):
            inserts[rows] = ((size - rows) * width, statement)
    return inserts


_FAST_INSERTS = _inserts("fast_appends", len(FAST_APPENDS))
_GENERAL_INSERTS = _inserts("general_appends", len(GENERAL_APPENDS))
_CREATE_INSERTS = _inserts("new_sessions", len(CREATES))
_FORK_INSERTS = _inserts("new_forks", len(FORKS))


def _insert(
    connection: sqlite3.Connection, inserts: dict[int, tuple[int, str]], parameters: list[Any], rows: int
) -> None:
    width = len(parameters) // rows if rows else 0
    for first in range(0, rows, _MAX_ROWS):
        some = parameters if rows <= _MAX_ROWS else parameters[first * width : (first + _MAX_ROWS) * width]
        padding, statement = inserts[min(rows - first, _MAX_ROWS)]
        # Once, but not with execute(): that asks for the last row's id too, and gives up the GIL to do so.
        connection.executemany(statement, (some + [None] * padding,))


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
        kind = type(command)
        if kind is AppendEvent or kind is UpdateKeys:
            outcome = _add_fast_row(parameters, command, seen)  # type: ignore[arg-type]  # as looked at
        elif isinstance(command, AppendEvents):
            outcome = _DONE
            for part in command.parts:
                done = _add_fast_row(parameters, part, seen)
                if done is None:
                    return None
                outcome = max(outcome, done)
        else:
            return None
        if outcome is None:
            return None
        outcomes.append(outcome)
    return parameters, outcomes


def _add_fast_row(parameters: list[Any], command: AppendEvent | UpdateKeys, seen: dict[Handle, int]) -> Outcome | None:
    """Adds the row of one event, and returns its outcome; None if its handle knows no revision.

    ``seen`` is what handles know after the rows before it.
    """
    outcome = _DONE
    if type(command) is AppendEvent:
        handle = command.handle
        if handle is None or handle.incarnation is None:
            return None
        revision = seen.get(handle, handle.revision)
        seen[handle] = revision + 1
        parameters += (1, handle.incarnation, revision)
        outcome = Outcome(Status.DONE, handle.incarnation, revision + 1)
    else:
        parameters += _UPDATE
    _add_event(parameters, command)
    return outcome


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


def _append_lists(connection: sqlite3.Connection, run: Sequence[AppendEvents], progress: _Progress) -> list[Outcome]:
    """Appends lists of events by the general path, each as a whole or not at all."""
    return [_append_list(connection, command, progress) for command in run]


def _append_list(connection: sqlite3.Connection, command: AppendEvents, progress: _Progress) -> Outcome:
    duplicates = tuple(n for n, part in enumerate(command.parts) if _is_in_log(connection, part))
    parts = command.without(duplicates).parts
    if not parts:
        return Outcome(Status.DUPLICATE)
    connection.execute("SAVEPOINT list")
    before = dict(progress)
    outcomes: list[Outcome] = []
    for first in range(0, len(parts), _MAX_ROWS):
        outcomes += _append_rows(connection, parts[first : first + _MAX_ROWS], progress, is_new=True)
    refused = next((outcome for outcome in outcomes if outcome.status is not Status.DONE), None)
    if refused is not None:
        connection.execute("ROLLBACK TO list")
        progress.clear()
        progress |= before
    connection.execute("RELEASE list")
    if refused is not None:
        return Outcome(refused.status)
    # Of the events that belong to the conversation the last one has brought the session to the highest revision.
    return max(outcomes)._replace(duplicates=duplicates)


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
    """Whether an equal event is in the log."""
    key = (*command.key, event_hash(command.event.event_id), command.event.event_id)
    stored = map(EventRecord._make, connection.execute(_EVENTS_OF_ID, key))
    return any(is_same_event(record, command.event) for record in stored)


_STEPS: dict[type[DataCommand], _Step] = {
    AppendEvent: _append,
    UpdateKeys: _append,
    AppendEvents: _append_lists,
    CreateSession: _create,
    ForkSession: _fork,
    TruncateSession: _truncate,
    RedactEvents: _redact,
    DeleteSession: _delete,
    PruneSessions: _prune,
    Flush: lambda _connection, run, _progress: [_DONE] * len(run),
}
