"""SQL of the write path: what each command does to the tables.

A batch of appends is *one* statement however many events it holds: an INSERT into a view whose trigger does the work
of each row. ``sqlite3`` gives up the GIL at every statement and has to get it back, which takes up to a switch
interval (5 ms) beside a busy Python thread; what a statement does inside takes no GIL at all.
"""

from __future__ import annotations

import enum
import json
import sqlite3
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

from sessiondb.model.commands import AppendEvent, CreateSession, DataCommand, DeleteSession, Flush, Handle, UpdateKeys
from sessiondb.model.records import Outcome, Status
from sessiondb.stores.sqlite.fragments import object_of

# The rows of a batch are padded to one of these counts, so that as few statements are ever prepared.
_BATCH_SIZES = (1, 2, 4, 8, 16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)

_EVENT_COLUMNS = (
    "app_name",
    "user_id",
    "session_id",
    "event_id",
    "event_hash",
    "invocation_id",
    "author",
    "event_time",
    "timestamp",
    "content",
    "actions",
    "extra",
    "session_set",
    "user_set",
    "app_set",
    "session_removed",
    "user_removed",
    "app_removed",
)
_PLAIN_WRITE_COLUMNS = ("advance", "incarnation", "revision", *_EVENT_COLUMNS)
_JUDGED_WRITE_COLUMNS = (
    "n",
    "previous",
    "checked",
    "advance",
    "is_new",
    "incarnation",
    "revision",
    "last_event_id",
    "last_event_hash",
    *_EVENT_COLUMNS,
)
_CREATE_COLUMNS = (
    "n",
    "app_name",
    "user_id",
    "session_id",
    "event_time",
    "timestamp",
    "session_set",
    "user_set",
    "app_set",
    "session_removed",
    "user_removed",
    "app_removed",
)

_THIS_SESSION = "app_name = NEW.app_name AND user_id = NEW.user_id AND session_id = NEW.session_id"

# A verdict for this module only: an event of this id is there, and whether it is equal takes more than SQL to say.
_SAME_ID = 100

_UNEXPECTED = "a row is not as expected"

_EVENT_ROW = (
    "app_name, user_id, session_id, invocation_id, author, timestamp, content, actions, extra, event_id, event_time,"
    " event_hash, seq, revision, incarnation"
)
_NEW_EVENT_ROW = (
    "NEW.app_name, NEW.user_id, NEW.session_id, NEW.invocation_id, NEW.author, NEW.timestamp, NEW.content, NEW.actions,"
    " NEW.extra, NEW.event_id, NEW.event_time, NEW.event_hash"
)

# Ends the work on a row whose verdict is not DONE; the rows after it go on.
_NEXT_UNLESS_DONE = f"SELECT RAISE(IGNORE) FROM verdicts WHERE n = NEW.n AND status <> {Status.DONE};"

_APPLY_DELTA = f"""
    INSERT INTO adk_state
        SELECT NEW.app_name, NEW.user_id, NEW.session_id, 'SESSION', key, value, NEW.timestamp
          FROM json_each(NEW.session_set) WHERE NEW.session_set IS NOT NULL
        ON CONFLICT (app_name, user_id, session_id, scope, state_key)
        DO UPDATE SET state_value = excluded.state_value, updated_at = excluded.updated_at;
    INSERT INTO adk_state
        SELECT NEW.app_name, NEW.user_id, NULL, 'USER', key, value, NEW.timestamp
          FROM json_each(NEW.user_set) WHERE NEW.user_set IS NOT NULL
        ON CONFLICT (app_name, user_id, state_key) WHERE scope = 'USER'
        DO UPDATE SET state_value = excluded.state_value, updated_at = excluded.updated_at;
    INSERT INTO adk_state
        SELECT NEW.app_name, NULL, NULL, 'APP', key, value, NEW.timestamp
          FROM json_each(NEW.app_set) WHERE NEW.app_set IS NOT NULL
        ON CONFLICT (app_name, state_key) WHERE scope = 'APP'
        DO UPDATE SET state_value = excluded.state_value, updated_at = excluded.updated_at;
    DELETE FROM adk_state
     WHERE NEW.session_removed IS NOT NULL AND {_THIS_SESSION} AND scope = 'SESSION'
       AND state_key IN (SELECT value FROM json_each(NEW.session_removed));
    DELETE FROM adk_state
     WHERE NEW.user_removed IS NOT NULL AND app_name = NEW.app_name AND user_id = NEW.user_id AND scope = 'USER'
       AND state_key IN (SELECT value FROM json_each(NEW.user_removed));
    DELETE FROM adk_state
     WHERE NEW.app_removed IS NOT NULL AND app_name = NEW.app_name AND scope = 'APP'
       AND state_key IN (SELECT value FROM json_each(NEW.app_removed));
"""


_BATCH_OBJECTS = (
    """
    CREATE TEMP TABLE verdicts (
        n           INTEGER PRIMARY KEY,
        status      INTEGER NOT NULL,
        incarnation INTEGER,
        revision    INTEGER,
        session_row INTEGER,
        seq         INTEGER,
        session_state TEXT,
        user_state  TEXT,
        app_state   TEXT
    )
    """,
    f"CREATE TEMP VIEW plain_writes AS SELECT {', '.join(f'NULL AS {name}' for name in _PLAIN_WRITE_COLUMNS)}",
    f"CREATE TEMP VIEW judged_writes AS SELECT {', '.join(f'NULL AS {name}' for name in _JUDGED_WRITE_COLUMNS)}",
    f"CREATE TEMP VIEW new_sessions AS SELECT {', '.join(f'NULL AS {name}' for name in _CREATE_COLUMNS)}",
    # The ordinary case: every row is as expected, and what the answers will be is known beforehand. One row that is
    # not takes the whole statement back, and the batch is judged row by row instead.
    f"""
    CREATE TEMP TRIGGER plain_write INSTEAD OF INSERT ON plain_writes WHEN NEW.app_name IS NOT NULL BEGIN
        SELECT RAISE(ABORT, '{_UNEXPECTED}') WHERE NOT EXISTS (
            SELECT 1 FROM adk_sessions AS s
             WHERE s.app_name = NEW.app_name AND s.user_id = NEW.user_id AND s.session_id = NEW.session_id
               AND (NEW.revision IS NULL OR (s.revision = NEW.revision AND s.incarnation = NEW.incarnation))
               AND NOT EXISTS (
                   SELECT 1 FROM adk_events AS e
                    WHERE e.incarnation = s.incarnation AND e.event_hash = NEW.event_hash
                      AND e.event_id = NEW.event_id
               )
        );
        UPDATE adk_sessions
           SET revision = revision + NEW.advance, last_seq = last_seq + 1, updated_at = NEW.timestamp,
               update_time = NEW.event_time
         WHERE {_THIS_SESSION};
        INSERT INTO adk_events ({_EVENT_ROW})
            SELECT {_NEW_EVENT_ROW}, s.last_seq, s.revision, s.incarnation
              FROM adk_sessions AS s
             WHERE s.app_name = NEW.app_name AND s.user_id = NEW.user_id AND s.session_id = NEW.session_id;
        {_APPLY_DELTA}
    END
    """,
    # The judging case. `previous` is the row, in the same batch, of the append before this one through the same
    # handle: it knows the revision that the handle has by now. Without it the handle's own revision holds; a handle
    # that has none names the last event it knows instead. A verdict's revision is what its handle expects from here on.
    f"""
    CREATE TEMP TRIGGER judged_write INSTEAD OF INSERT ON judged_writes WHEN NEW.n IS NOT NULL BEGIN
        DELETE FROM verdicts WHERE NEW.n = 0;
        INSERT INTO verdicts (n, status, incarnation, revision, session_row, seq)
            SELECT NEW.n, status, iif(status = {Status.DONE}, incarnation, expected_incarnation),
                   iif(status = {Status.DONE}, revision + NEW.advance, expected), session_row, last_seq + 1
              FROM (
                SELECT s.rowid AS session_row, s.incarnation, s.revision, s.last_seq, expected, expected_incarnation,
                       CASE
                         WHEN s.incarnation IS NULL THEN {Status.MISSING}
                         WHEN EXISTS (
                            SELECT 1 FROM adk_events AS e
                             WHERE e.incarnation = s.incarnation AND e.event_hash = NEW.event_hash
                               AND e.event_id = NEW.event_id AND e.event_time = NEW.event_time
                               AND e.invocation_id = NEW.invocation_id AND e.author = NEW.author
                               AND e.content IS NEW.content AND e.actions = NEW.actions AND e.extra IS NEW.extra
                         ) THEN {Status.DUPLICATE}
                         WHEN NOT NEW.is_new AND EXISTS (
                            SELECT 1 FROM adk_events AS e
                             WHERE e.incarnation = s.incarnation AND e.event_hash = NEW.event_hash
                               AND e.event_id = NEW.event_id
                         ) THEN {_SAME_ID}
                         WHEN NOT NEW.checked THEN {Status.DONE}
                         WHEN expected IS NOT NULL THEN
                            iif(s.revision = expected AND s.incarnation IS expected_incarnation,
                                {Status.DONE}, {Status.STALE})
                         WHEN NEW.last_event_id = '' THEN iif(s.revision = 0, {Status.DONE}, {Status.STALE})
                         WHEN EXISTS (
                            SELECT 1 FROM adk_events AS e
                             WHERE e.incarnation = s.incarnation AND e.event_hash = NEW.last_event_hash
                               AND e.event_id = NEW.last_event_id AND e.revision = s.revision
                         ) THEN {Status.DONE}
                         ELSE {Status.STALE}
                       END AS status
                  FROM (
                    SELECT CASE WHEN NEW.previous IS NULL THEN NEW.revision
                                ELSE (SELECT revision FROM verdicts WHERE n = NEW.previous) END AS expected,
                           CASE WHEN NEW.previous IS NULL THEN NEW.incarnation
                                ELSE (SELECT incarnation FROM verdicts WHERE n = NEW.previous) END AS expected_incarnation
                  ) LEFT JOIN adk_sessions AS s
                    ON s.app_name = NEW.app_name AND s.user_id = NEW.user_id AND s.session_id = NEW.session_id
              );
        {_NEXT_UNLESS_DONE}
        INSERT INTO adk_events ({_EVENT_ROW})
            SELECT {_NEW_EVENT_ROW}, seq, revision, incarnation FROM verdicts WHERE n = NEW.n;
        UPDATE adk_sessions
           SET revision = revision + NEW.advance, last_seq = last_seq + 1, updated_at = NEW.timestamp,
               update_time = NEW.event_time
         WHERE rowid = (SELECT session_row FROM verdicts WHERE n = NEW.n);
        {_APPLY_DELTA}
    END
    """,
    f"""
    CREATE TEMP TRIGGER create_session INSTEAD OF INSERT ON new_sessions WHEN NEW.n IS NOT NULL BEGIN
        DELETE FROM verdicts WHERE NEW.n = 0;
        INSERT INTO verdicts (n, status, incarnation, revision)
            SELECT NEW.n, iif(EXISTS (SELECT 1 FROM adk_sessions WHERE {_THIS_SESSION}), {Status.EXISTS}, {Status.DONE}),
                   value + 1, 0
              FROM sessiondb_meta WHERE name = 'incarnations';
        {_NEXT_UNLESS_DONE}
        UPDATE sessiondb_meta SET value = value + 1 WHERE name = 'incarnations';
        INSERT INTO adk_sessions (app_name, user_id, session_id, created_at, updated_at, update_time, incarnation)
            SELECT NEW.app_name, NEW.user_id, NEW.session_id, NEW.timestamp, NEW.timestamp, NEW.event_time, incarnation
              FROM verdicts WHERE n = NEW.n;
        {_APPLY_DELTA}
        UPDATE verdicts SET
            session_state = {object_of(f"{_THIS_SESSION} AND scope = 'SESSION'")},
            user_state = {object_of("app_name = NEW.app_name AND user_id = NEW.user_id AND scope = 'USER'")},
            app_state = {object_of("app_name = NEW.app_name AND scope = 'APP'")}
         WHERE n = NEW.n;
    END
    """,
)

_VERDICTS = (
    "SELECT json_group_array(json_array(status, incarnation, revision, session_state, user_state, app_state))"
    " FROM (SELECT * FROM verdicts ORDER BY n)"
)
_DELETE = (
    "DELETE FROM adk_sessions WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id"
    " AND (:updated_before IS NULL OR update_time < :updated_before)"
)


def install(connection: sqlite3.Connection) -> None:
    """Creates what a writing connection needs beside the tables, in its own temporary schema."""
    for statement in _BATCH_OBJECTS:
        connection.execute(statement)


def write(connection: sqlite3.Connection, commands: Sequence[DataCommand], *, begun: bool = False) -> list[Outcome]:
    """Carries out commands in their order, as one transaction; one outcome for each, after the commit.

    Args:
        connection: One that was given what :func:`install` creates.
        commands: What to do.
        begun: Whether the transaction has been begun, and holds the write lock.

    Raises:
        sqlite3.Error: If SQLite refuses. A transaction may be left open then; whether one command or the file is to
            blame is for the caller to find out.
    """
    plain = _plain_parameters(commands)
    if plain is not None:
        parameters, outcomes = plain
        try:
            # This one statement is the transaction: it takes the write lock at its start and commits at its end.
            _insert(connection, _PLAIN_WRITES, parameters, len(commands))
        except sqlite3.IntegrityError as error:
            if str(error) != _UNEXPECTED:
                raise
        else:
            if begun:
                connection.execute("COMMIT")
            return outcomes
    runs = _runs(commands)
    if not begun:
        if len(runs) == 1 and runs[0][0] is _Kind.CREATE:
            return _write_run(connection, *runs[0], {})
        connection.execute("BEGIN IMMEDIATE")
    outcomes = []
    progress: _Progress = {}
    for kind, run in runs:
        outcomes += _write_run(connection, kind, run, progress)
    connection.execute("COMMIT")
    return outcomes


_Progress = dict[Handle, tuple[int, int]]
"""Incarnation and revision that a handle has after what was written through it in the open transaction."""


class _Kind(enum.Enum):
    LOG = enum.auto()
    CREATE = enum.auto()
    DELETE = enum.auto()
    FLUSH = enum.auto()


_KINDS: dict[type[Any], _Kind] = {
    AppendEvent: _Kind.LOG,
    UpdateKeys: _Kind.LOG,
    CreateSession: _Kind.CREATE,
    DeleteSession: _Kind.DELETE,
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


def _write_run(connection: sqlite3.Connection, kind: _Kind, run: list[Any], progress: _Progress) -> list[Outcome]:
    if kind is _Kind.LOG:
        return _write_judged(connection, run, progress)
    if kind is _Kind.CREATE:
        _insert(connection, _CREATES, _create_parameters(run), len(run))
        return _verdicts(connection)
    if kind is _Kind.DELETE:
        return [_delete(connection, command) for command in run]
    return [_PLAIN_DONE] * len(run)


def _delete(connection: sqlite3.Connection, command: DeleteSession) -> Outcome:
    deleted = connection.execute(_DELETE, {**command.key._asdict(), "updated_before": command.updated_before}).rowcount
    return _PLAIN_DONE if deleted else _NOT_THERE


_STATUSES = {int(status): status for status in Status}
_PLAIN_DONE = Outcome(Status.DONE)
_NOT_THERE = Outcome(Status.MISSING)


def _inserts(view: str, columns: Sequence[str]) -> dict[int, tuple[int, str]]:
    """Maps a number of rows to the size it is padded to, and the statement for that."""
    row = f"({', '.join('?' * len(columns))})"
    inserts: dict[int, tuple[int, str]] = {}
    for size in _BATCH_SIZES:
        statement = f"INSERT INTO {view} VALUES {', '.join([row] * size)}"
        for rows in range(len(inserts) + 1, size + 1):
            inserts[rows] = (size - rows, statement)
    return inserts


_PLAIN_WRITES = (_inserts("plain_writes", _PLAIN_WRITE_COLUMNS), len(_PLAIN_WRITE_COLUMNS))
_JUDGED_WRITES = (_inserts("judged_writes", _JUDGED_WRITE_COLUMNS), len(_JUDGED_WRITE_COLUMNS))
_CREATES = (_inserts("new_sessions", _CREATE_COLUMNS), len(_CREATE_COLUMNS))


def _insert(
    connection: sqlite3.Connection, inserts: tuple[dict[int, tuple[int, str]], int], parameters: list[Any], rows: int
) -> None:
    by_rows, width = inserts
    padding, statement = by_rows[rows]
    # Once, but not with execute(): that asks for the last row's id too, and gives up the GIL to do so.
    connection.executemany(statement, (parameters + [None] * (padding * width),))


def _verdicts(connection: sqlite3.Connection) -> list[Outcome]:
    (verdicts,) = connection.execute(_VERDICTS).fetchone()
    return [Outcome(_STATUSES.get(status, status), *rest) for status, *rest in json.loads(verdicts)]


def _plain_parameters(commands: Sequence[DataCommand]) -> tuple[list[Any], list[Outcome]] | None:
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
            outcomes.append(_PLAIN_DONE)
        else:
            return None
        _add_event(parameters, command)
    return parameters, outcomes


_UPDATE = (0, None, None)


def _write_judged(
    connection: sqlite3.Connection, run: Sequence[AppendEvent | UpdateKeys], progress: _Progress
) -> list[Outcome]:
    outcomes = _judge(connection, run, progress)
    for index, outcome in enumerate(outcomes):
        if outcome.status == _SAME_ID:
            # The JSON of an equal event may differ to the letter, which SQL cannot see past.
            if _is_in_log(connection, run[index]):
                outcomes[index] = Outcome(Status.DUPLICATE)
            else:
                # Written after the others of its run: appends in flight together have no order.
                (outcomes[index],) = _judge(connection, [run[index]], progress, is_new=True)
    return outcomes


def _judge(
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
    _insert(connection, _JUDGED_WRITES, parameters, len(run))
    outcomes = _verdicts(connection)
    for handle, outcome in zip(handles, outcomes, strict=True):
        if handle is not None and outcome.status is Status.DONE:
            progress[handle] = (outcome.incarnation, outcome.revision)
    return outcomes


def _add_event(parameters: list[Any], command: AppendEvent | UpdateKeys) -> None:
    event = command.event
    parameters += command.key
    parameters += (
        event.event_id,
        event_hash(event.event_id),
        event.invocation_id,
        event.author,
        event.time,
        event.timestamp,
        event.content,
        event.actions,
        event.extra,
    )
    parameters += command.delta


_EVENTS_OF_ID = """
    SELECT e.invocation_id, e.author, e.event_time, e.content, e.actions, e.extra
      FROM adk_sessions AS s JOIN adk_events AS e ON e.incarnation = s.incarnation
     WHERE s.app_name = ? AND s.user_id = ? AND s.session_id = ? AND e.event_hash = ? AND e.event_id = ?
"""


def _is_in_log(connection: sqlite3.Connection, command: AppendEvent | UpdateKeys) -> bool:
    """Whether an equal event is in the log: JSON objects are equal whatever the order of their members."""
    event = command.event
    key = (*command.key, event_hash(event.event_id), event.event_id)
    return any(
        stored[:3] == (event.invocation_id, event.author, event.time)
        and all(map(_same_json, stored[3:], (event.content, event.actions, event.extra)))
        for stored in connection.execute(_EVENTS_OF_ID, key)
    )


def _same_json(left: str | None, right: str | None) -> bool:
    if left == right or left is None or right is None:
        return left == right
    return bool(json.loads(left) == json.loads(right))


def _create_parameters(run: Sequence[CreateSession]) -> list[Any]:
    parameters: list[Any] = []
    for n, command in enumerate(run):
        parameters += (n, *command.key, command.time, command.timestamp, *command.delta)
    return parameters


def event_hash(event_id: str) -> int:
    """The value of ``adk_events.event_hash`` for an event id: 64 bits of BLAKE2b, signed."""
    return int.from_bytes(blake2b(event_id.encode(), digest_size=8).digest(), "big", signed=True)
