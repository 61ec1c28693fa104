"""SQL of the write path: the views that a batch is inserted into, and the triggers that do the work of each row.

A batch of appends is *one* statement however many events it holds: an INSERT into a view whose trigger does the work
of each row. ``sqlite3`` gives up the GIL at every statement and has to get it back, which takes up to a switch
interval (5 ms) beside a busy Python thread; what a statement does inside takes no GIL at all.

There are two such views for the log. The fast path expects that each row finds its session as its handle knows it, and
that no event of its id is there; a row that is not as expected takes the whole statement back. Then the batch takes the
general path, which decides row by row, and notes a result for each.
"""

from __future__ import annotations

from sessiondb.model import columns
from sessiondb.model.records import StateDelta, Status
from sessiondb.stores.sqlite.sql import LAST_ID, OWNERS, equal, names, of_scope, state_of

_DELTA = StateDelta._fields
EVENT = (*columns.SESSION_KEY, "event_hash", *columns.EVENT_RECORD, *_DELTA)
"""What a row of a batch holds of an event."""

FAST_APPENDS = ("advance", "incarnation", "revision", *EVENT)
GENERAL_APPENDS = (
    "n",
    "previous",
    "checked",
    "advance",
    "is_new",
    "incarnation",
    "revision",
    "last_event_id",
    "last_event_hash",
    *EVENT,
)
CREATES = ("n", *columns.SESSION_KEY, "event_time", "timestamp", *_DELTA, "initial_state")
FORKS = (
    "n",
    *columns.SESSION_KEY,
    "event_time",
    "timestamp",
    *_DELTA,
    "source_user_id",
    "source_session_id",
    "source_incarnation",
    "source_epoch",
    "last_seq",
    "events",
    "revision",
)

SAME_ID = 100
"""A status for the write path only: an event of this id is there, and whether it is equal takes more than SQL to say."""

NOT_STORED = "a row was not stored: a trigger of another program, or a table that was altered, stands in the way"
"""What a row ends with that something has kept SQLite from writing."""

UNEXPECTED = "a row is not as expected"
"""What the fast path ends with."""

RESULTS = (
    "SELECT json_group_array(json_array(status, incarnation, revision, session_state, user_state, app_state))"
    " FROM (SELECT * FROM results ORDER BY n)"
)
"""What the general path came to, in the order of the rows."""

_THIS_SESSION = equal(columns.SESSION_KEY, "NEW")
# The event of the row's id in the log of the session ``s``.
_EVENT_OF_ID = """
    SELECT 1 FROM adk_events AS e
     WHERE e.incarnation = s.incarnation AND e.event_hash = NEW.event_hash AND e.event_id = NEW.event_id
"""
_GIVEN = (*columns.SESSION_KEY, *columns.EVENT_RECORD, "event_hash")
_EVENT_ROW = names((*_GIVEN, "seq", "revision", "incarnation"))
_NEW_EVENT_ROW = names(_GIVEN, "NEW")

_ADVANCE_SESSION = """
        UPDATE adk_sessions
           SET revision = revision + NEW.advance, last_seq = last_seq + 1, updated_at = NEW.timestamp,
               update_time = NEW.event_time
"""

# Follows each statement that writes one row. What another trigger has SQLite ignore is not counted as a change.
_STORED = f"SELECT RAISE(ABORT, '{NOT_STORED}') WHERE changes() <> 1;"
# Ends the work on a row whose result is not DONE; the rows after it go on.
_NEXT_UNLESS_DONE = f"SELECT RAISE(IGNORE) FROM results WHERE n = NEW.n AND status <> {Status.DONE};"


def _apply_delta(scope: str, index: str) -> str:
    """Does what a delta says of a scope; ``index`` is the one that makes its keys unique."""
    owner = names(f"NEW.{column}" if column in OWNERS[scope] else "NULL" for column in columns.SESSION_KEY)
    given, removed = f"NEW.{scope.lower()}_set", f"NEW.{scope.lower()}_removed"
    return f"""
    INSERT INTO adk_state
        SELECT {owner}, '{scope}', key, value, NEW.timestamp FROM json_each({given}) WHERE {given} IS NOT NULL
        ON CONFLICT {index} DO UPDATE SET state_value = excluded.state_value, updated_at = excluded.updated_at;
    SELECT RAISE(ABORT, '{NOT_STORED}')
     WHERE {given} IS NOT NULL AND changes() <> (SELECT count(*) FROM json_each({given}));
    DELETE FROM adk_state
     WHERE {removed} IS NOT NULL AND {of_scope(scope, "NEW")} AND state_key IN (SELECT value FROM json_each({removed}));
    """


_APPLY_DELTA = (
    _apply_delta("SESSION", "(app_name, user_id, session_id, scope, state_key)")
    + _apply_delta("USER", "(app_name, user_id, state_key) WHERE scope = 'USER'")
    + _apply_delta("APP", "(app_name, state_key) WHERE scope = 'APP'")
)


_RETURN_STATES = f"""
        UPDATE results SET
            session_state = {state_of("SESSION", "NEW")},
            user_state = {state_of("USER", "NEW")},
            app_state = {state_of("APP", "NEW")}
         WHERE n = NEW.n;
"""
_SOURCE = "s.app_name = NEW.app_name AND s.user_id = NEW.source_user_id AND s.session_id = NEW.source_session_id"


def _nulls(names_of_columns: tuple[str, ...]) -> str:
    return ", ".join(f"NULL AS {name}" for name in names_of_columns)


OBJECTS = (
    """
    CREATE TEMP TABLE results (
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
    f"CREATE TEMP VIEW fast_appends AS SELECT {_nulls(FAST_APPENDS)}",
    f"CREATE TEMP VIEW general_appends AS SELECT {_nulls(GENERAL_APPENDS)}",
    f"CREATE TEMP VIEW new_sessions AS SELECT {_nulls(CREATES)}",
    f"CREATE TEMP VIEW new_forks AS SELECT {_nulls(FORKS)}",
    # The fast path: every row is as expected, and what the answers will be is known beforehand.
    f"""
    CREATE TEMP TRIGGER fast_append INSTEAD OF INSERT ON fast_appends WHEN NEW.app_name IS NOT NULL BEGIN
        SELECT RAISE(ABORT, '{UNEXPECTED}') WHERE NOT EXISTS (
            SELECT 1 FROM adk_sessions AS s
             WHERE {_THIS_SESSION}
               AND (NEW.revision IS NULL OR (s.revision = NEW.revision AND s.incarnation = NEW.incarnation))
               AND NOT EXISTS ({_EVENT_OF_ID})
        );
        {_ADVANCE_SESSION} WHERE {_THIS_SESSION};
        {_STORED}
        INSERT INTO adk_events ({_EVENT_ROW})
            SELECT {_NEW_EVENT_ROW}, s.last_seq, s.revision, s.incarnation
              FROM adk_sessions AS s
             WHERE {_THIS_SESSION};
        {_STORED}
        {_APPLY_DELTA}
    END
    """,
    # The general path. `previous` is the row, in the same batch, of the append before this one through the same
    # handle: it knows the revision that the handle has by now. Without it the handle's own revision holds; a handle
    # that has none names the last event it knows instead. The revision in a result is what its handle expects from here on.
    f"""
    CREATE TEMP TRIGGER general_append INSTEAD OF INSERT ON general_appends WHEN NEW.n IS NOT NULL BEGIN
        DELETE FROM results WHERE NEW.n = 0;
        INSERT INTO results (n, status, incarnation, revision, session_row, seq)
            SELECT NEW.n, status, iif(status = {Status.DONE}, incarnation, expected_incarnation),
                   iif(status = {Status.DONE}, revision + NEW.advance, expected), session_row, last_seq + 1
              FROM (
                SELECT s.rowid AS session_row, s.incarnation, s.revision, s.last_seq, expected, expected_incarnation,
                       CASE
                         WHEN s.incarnation IS NULL THEN {Status.MISSING}
                         WHEN EXISTS (
                            {_EVENT_OF_ID} AND e.event_time = NEW.event_time
                               AND e.invocation_id = NEW.invocation_id AND e.author = NEW.author
                               AND e.content IS NEW.content AND e.actions = NEW.actions AND e.extra IS NEW.extra
                         ) THEN {Status.DUPLICATE}
                         WHEN NOT NEW.is_new AND EXISTS ({_EVENT_OF_ID}) THEN {SAME_ID}
                         WHEN NOT NEW.checked THEN {Status.DONE}
                         WHEN expected IS NOT NULL THEN
                            iif(s.revision = expected AND s.incarnation IS expected_incarnation,
                                {Status.DONE}, {Status.STALE})
                         WHEN NEW.last_event_id = '' THEN
                            -- A log that was cut off before its first event has another revision than 0.
                            iif(s.revision = 0 OR NOT EXISTS (
                                SELECT 1 FROM adk_events AS e WHERE e.incarnation = s.incarnation
                            ), {Status.DONE}, {Status.STALE})
                         WHEN EXISTS (
                            SELECT 1 FROM adk_events AS e
                             WHERE e.incarnation = s.incarnation AND e.event_hash = NEW.last_event_hash
                               AND e.event_id = NEW.last_event_id AND e.revision = s.revision
                         ) THEN {Status.DONE}
                         ELSE {Status.STALE}
                       END AS status
                  FROM (
                    SELECT CASE WHEN NEW.previous IS NULL THEN NEW.revision
                                ELSE (SELECT revision FROM results WHERE n = NEW.previous) END AS expected,
                           CASE WHEN NEW.previous IS NULL THEN NEW.incarnation
                                ELSE (SELECT incarnation FROM results WHERE n = NEW.previous) END AS expected_incarnation
                  ) LEFT JOIN adk_sessions AS s
                    ON {_THIS_SESSION}
              );
        {_NEXT_UNLESS_DONE}
        INSERT INTO adk_events ({_EVENT_ROW})
            SELECT {_NEW_EVENT_ROW}, seq, revision, incarnation FROM results WHERE n = NEW.n;
        {_STORED}
        {_ADVANCE_SESSION} WHERE rowid = (SELECT session_row FROM results WHERE n = NEW.n);
        {_STORED}
        {_APPLY_DELTA}
    END
    """,
    f"""
    CREATE TEMP TRIGGER create_session INSTEAD OF INSERT ON new_sessions WHEN NEW.n IS NOT NULL BEGIN
        DELETE FROM results WHERE NEW.n = 0;
        INSERT INTO results (n, status, incarnation, revision)
            SELECT NEW.n, iif(EXISTS (SELECT 1 FROM adk_sessions WHERE {_THIS_SESSION}), {Status.EXISTS}, {Status.DONE}),
                   value + 1, 0
              FROM sessiondb_meta WHERE name = 'incarnations';
        {_NEXT_UNLESS_DONE}
        UPDATE sessiondb_meta SET value = value + 1 WHERE name = 'incarnations';
        INSERT INTO adk_sessions
            (app_name, user_id, session_id, created_at, updated_at, update_time, incarnation, initial_state, begun_after)
            SELECT NEW.app_name, NEW.user_id, NEW.session_id, NEW.timestamp, NEW.timestamp, NEW.event_time, incarnation,
                   NEW.initial_state, {LAST_ID}
              FROM results WHERE n = NEW.n;
        {_STORED}
        {_APPLY_DELTA}
        {_RETURN_STATES}
    END
    """,
    # What was read of the source holds for as long as its incarnation and its epoch do: of a log rows are only added.
    f"""
    CREATE TEMP TRIGGER fork_session INSTEAD OF INSERT ON new_forks WHEN NEW.n IS NOT NULL BEGIN
        DELETE FROM results WHERE NEW.n = 0;
        INSERT INTO results (n, status, incarnation, revision)
            SELECT NEW.n,
                   CASE
                     WHEN EXISTS (SELECT 1 FROM adk_sessions WHERE {_THIS_SESSION}) THEN {Status.EXISTS}
                     WHEN EXISTS (
                        SELECT 1 FROM adk_sessions AS s WHERE {_SOURCE}
                           AND s.incarnation = NEW.source_incarnation AND s.log_epoch = NEW.source_epoch
                     ) THEN {Status.DONE}
                     ELSE {Status.STALE}
                   END, value + 1, NEW.revision
              FROM sessiondb_meta WHERE name = 'incarnations';
        {_NEXT_UNLESS_DONE}
        UPDATE sessiondb_meta SET value = value + 1 WHERE name = 'incarnations';
        INSERT INTO adk_sessions
            (app_name, user_id, session_id, created_at, updated_at, update_time, incarnation, revision, last_seq,
             initial_state, begun_after, forked_user_id, forked_session_id, forked_seq)
            SELECT NEW.app_name, NEW.user_id, NEW.session_id, NEW.timestamp, NEW.timestamp, NEW.event_time, r.incarnation,
                   NEW.revision, NEW.last_seq, s.initial_state, {LAST_ID}, NEW.source_user_id, NEW.source_session_id,
                   NEW.last_seq
              FROM results AS r JOIN adk_sessions AS s ON {_SOURCE}
             WHERE r.n = NEW.n;
        {_STORED}
        INSERT INTO adk_events ({_EVENT_ROW})
            SELECT {names(columns.SESSION_KEY, "NEW")}, {names((*columns.EVENT_RECORD, "event_hash", "seq", "revision"), "s")},
                   r.incarnation
              FROM results AS r JOIN adk_events AS s ON {_SOURCE}
             WHERE r.n = NEW.n AND s.seq <= NEW.last_seq
             ORDER BY s.id;
        SELECT RAISE(ABORT, '{NOT_STORED}') WHERE changes() <> NEW.events;
        {_APPLY_DELTA}
        {_RETURN_STATES}
    END
    """,
)
"""What a writing connection needs beside the tables, in its own temporary schema."""
