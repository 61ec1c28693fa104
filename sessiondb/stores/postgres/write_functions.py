r"""SQL of the write path: the functions that a batch is given to, each one transaction and one round trip.

A batch is one parameter, a JSON array of its rows, since each parameter costs client and server more than its text. Texts
that are JSON themselves travel as JSON strings: so a ``\u0000`` in them stays the six characters that it is. A row without an
array around it is a batch of its own, for which ``append`` has a shorter way: most of what a few rows take is the number
and the size of the plans that are run for them.

There are two functions. ``append`` expects that each row finds its session as its handle knows it, and that no event of its
id is there; a row that is not as expected takes all of it back. ``execute`` decides command by command, and notes a result
for each.

Locks are taken in one order, or two hosts would wait for each other: the writer's own row of the ledger, sessions by their
keys, state by its keys, the state of apps last. A lock and what is judged by it are two statements, so that the judgement
sees what the lock has waited for.

Their names end with a number. A release that changes one brings another, so that hosts of both releases may run beside each
other.
"""

from __future__ import annotations

from sessiondb.model.records import Status
from sessiondb.stores.postgres.edit_functions import REDACT, TRUNCATE

LOST = "SDB01"
"""SQLSTATE: the ledger knows less of this writer than was acknowledged."""

RUNGS = 8
"""Advisory locks for each session. The first is its lock, the others a ladder to it, on which hosts wait in the order in which
they came: who holds one takes the next lower one as soon as that is free, and gives up its own."""

UNEXPECTED = "SDB02"
"""SQLSTATE: a row is not as the fast path expects it."""

SAME_ID = 100
"""A status for the write path only: an event of this id is there, and whether it is equal takes more than SQL to say."""

# Statistics are missing on fresh tables, and a plan that is kept may have been made then: whatever they say, rows are looked
# up by their keys.
_ATTRIBUTES = """
    LANGUAGE plpgsql
    SET search_path = @path
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
    SET plan_cache_mode = force_generic_plan
"""

# Whoever sends a batch again, since its answer was lost, gets the answer it had. That commits a change of the ledger, too:
# behind it, whatever this server had committed by then is on the standby as well.
_LEDGER = f"""
    UPDATE sessiondb_writers SET batch = p_batch, results = NULL, seen = now()
     WHERE writer = p_writer AND batch = p_batch - 1;
    IF NOT FOUND THEN
        UPDATE sessiondb_writers SET seen = now() WHERE writer = p_writer RETURNING batch, results INTO v_batch, v_results;
        IF v_batch = p_batch THEN
            RETURN coalesce(v_results, '');
        END IF;
        RAISE EXCEPTION 'the ledger is at batch %, not at %', v_batch, p_batch - 1 USING ERRCODE = '{LOST}';
    END IF;
"""

_CHANGES = """
    SELECT r.n, r.app_name, r.user_id, r.session_id, 'SESSION' AS scope, d.key COLLATE "C", d.value, r."timestamp"
      FROM unnest(v_rows) AS r, json_each_text(r.session_set) AS d
    UNION ALL
    SELECT r.n, r.app_name, r.user_id, NULL, 'USER', d.key, d.value, r."timestamp"
      FROM unnest(v_rows) AS r, json_each_text(r.user_set) AS d
    UNION ALL
    SELECT r.n, r.app_name, NULL, NULL, 'APP', d.key, d.value, r."timestamp"
      FROM unnest(v_rows) AS r, json_each_text(r.app_set) AS d
    UNION ALL
    SELECT r.n, r.app_name, r.user_id, r.session_id, 'SESSION', d, NULL, r."timestamp"
      FROM unnest(v_rows) AS r, json_array_elements_text(r.session_removed) AS d
    UNION ALL
    SELECT r.n, r.app_name, r.user_id, NULL, 'USER', d, NULL, r."timestamp"
      FROM unnest(v_rows) AS r, json_array_elements_text(r.user_removed) AS d
    UNION ALL
    SELECT r.n, r.app_name, NULL, NULL, 'APP', d, NULL, r."timestamp"
      FROM unnest(v_rows) AS r, json_array_elements_text(r.app_removed) AS d
"""

# Of several changes of a key the last one counts. A key that is removed is written first, and so locked in its turn.
_APPLY_DELTAS = f"""
    INSERT INTO adk_state
        SELECT app_name, user_id, session_id, scope, key, coalesce(value, 'null'), "timestamp" FROM (
            SELECT DISTINCT ON (scope, app_name, user_id, session_id, key) * FROM ({_CHANGES}) AS c
             ORDER BY scope, app_name, user_id, session_id, key, n DESC
        ) AS c
        ORDER BY scope = 'APP', scope = 'USER', app_name, user_id, session_id, key
        ON CONFLICT (app_name, user_id, session_id, scope, state_key)
        DO UPDATE SET state_value = excluded.state_value, updated_at = excluded.updated_at;
    IF EXISTS (
        SELECT 1 FROM unnest(v_rows) AS r
         WHERE r.session_removed IS NOT NULL OR r.user_removed IS NOT NULL OR r.app_removed IS NOT NULL
    ) THEN
        DELETE FROM adk_state AS t USING (
            SELECT DISTINCT ON (scope, app_name, user_id, session_id, key) * FROM ({_CHANGES}) AS c
             ORDER BY scope, app_name, user_id, session_id, key, n DESC
        ) AS c
         WHERE c.value IS NULL AND t.app_name = c.app_name AND t.user_id IS NOT DISTINCT FROM c.user_id
           AND t.session_id IS NOT DISTINCT FROM c.session_id AND t.scope = c.scope AND t.state_key = c.key;
    END IF;
"""

# The same for one row, of which no key is named twice.
_APPLY_DELTAS_OF_ONE = f"""
    IF r.session_removed IS NOT NULL OR r.user_removed IS NOT NULL OR r.app_removed IS NOT NULL THEN
        v_rows := ARRAY[r];
        {_APPLY_DELTAS}
    ELSIF r.session_set IS NOT NULL OR r.user_set IS NOT NULL OR r.app_set IS NOT NULL THEN
        INSERT INTO adk_state
            SELECT r.app_name, user_id, session_id, scope, key, value, r."timestamp" FROM (
                SELECT 0 AS place, r.user_id, r.session_id, 'SESSION' AS scope, d.key COLLATE "C", d.value
                  FROM json_each_text(r.session_set) AS d
                UNION ALL
                SELECT 1, r.user_id, NULL, 'USER', d.key, d.value FROM json_each_text(r.user_set) AS d
                UNION ALL
                SELECT 2, NULL, NULL, 'APP', d.key, d.value FROM json_each_text(r.app_set) AS d
            ) AS c
            ORDER BY place, key
            ON CONFLICT (app_name, user_id, session_id, scope, state_key)
            DO UPDATE SET state_value = excluded.state_value, updated_at = excluded.updated_at;
    END IF;
"""

_LOCK_SESSIONS = """
    PERFORM 1 FROM adk_sessions AS s
     WHERE (s.app_name, s.user_id, s.session_id) IN (SELECT r.app_name, r.user_id, r.session_id FROM unnest(v_rows) AS r)
     ORDER BY s.app_name, s.user_id, s.session_id FOR UPDATE;
"""

_LOCK_SESSIONS_AND_SOURCES = """
    PERFORM 1 FROM adk_sessions AS s
     WHERE (s.app_name, s.user_id, s.session_id) IN (
        SELECT r.app_name, r.user_id, r.session_id FROM unnest(v_rows) AS r
        UNION ALL SELECT r.app_name, r.source_user_id, r.source_session_id FROM unnest(v_rows) AS r WHERE r.kind = 'fork'
     )
     ORDER BY s.app_name, s.user_id, s.session_id FOR UPDATE;
"""

_RAISE_UNEXPECTED = f"RAISE EXCEPTION 'a row is not as expected' USING ERRCODE = '{UNEXPECTED}';"
_SOURCE = "s.app_name = r.app_name AND s.user_id = r.source_user_id AND s.session_id = r.source_session_id"
_THIS_SESSION = "s.app_name = r.app_name AND s.user_id = r.user_id AND s.session_id = r.session_id"
# The event of the row's id in the log of the session ``s``.
_EVENT_OF_ID = """
    SELECT 1 FROM adk_events AS e
     WHERE e.app_name = s.app_name AND e.user_id = s.user_id AND e.incarnation = s.incarnation
       AND e.event_hash = r.event_hash AND e.event_id = r.event_id
"""
_EVENT_COLUMNS = (
    'app_name, user_id, session_id, invocation_id, author, "timestamp", content, actions, extra, seq, revision, event_id,'
    " event_time, incarnation, event_hash"
)


def _state(scope: str, condition: str) -> str:
    return f"""(
        SELECT '{{' || coalesce(string_agg(to_json(state_key) || ':' || state_value, ','), '') || '}}' FROM adk_state
         WHERE app_name = r.app_name AND {condition} AND scope = '{scope}'
    )"""


FUNCTIONS = f"""
CREATE TYPE @sessiondb_append_1 AS (
    n int,
    app_name text COLLATE "C", user_id text COLLATE "C", session_id text COLLATE "C",
    -- How many rows of this session stand before it, how many of these advance its revision, and whether it is the last one.
    nth int, advanced int, is_last boolean,
    -- Whether it advances the revision, and is expected to find it and the incarnation as they are told.
    advance int, incarnation bigint, revision bigint,
    event_hash bigint,
    event_id text, invocation_id text, author text, event_time double precision, "timestamp" text,
    content text, actions text, extra text,
    session_set json, user_set json, app_set json, session_removed json, user_removed json, app_removed json
);

CREATE FUNCTION @sessiondb_append_1(p_writer uuid, p_batch bigint, p_rows text) RETURNS text {_ATTRIBUTES} AS $$
#variable_conflict use_column
DECLARE
    v_batch bigint;
    v_results text;
    v_rows sessiondb_append_1[];
    r sessiondb_append_1;
    v_incarnation bigint;
    v_revision bigint;
    v_seq bigint;
BEGIN
    {_LEDGER}
    IF starts_with(p_rows, '{{') THEN
        r := json_populate_record(NULL::sessiondb_append_1, p_rows::json);
        -- What is judged is the row itself, which an UPDATE judges anew when it has waited for it.
        UPDATE adk_sessions AS s
           SET revision = s.revision + r.advance, last_seq = s.last_seq + 1, updated_at = r."timestamp",
               update_time = r.event_time
         WHERE {_THIS_SESSION} AND (r.revision IS NULL OR (s.incarnation = r.incarnation AND s.revision = r.revision))
         RETURNING s.incarnation, s.revision, s.last_seq INTO v_incarnation, v_revision, v_seq;
        IF FOUND THEN
            INSERT INTO adk_events ({_EVENT_COLUMNS})
                SELECT r.app_name, r.user_id, r.session_id, r.invocation_id, r.author, r."timestamp", r.content, r.actions,
                       r.extra, v_seq, v_revision, r.event_id, r.event_time, v_incarnation, r.event_hash
                 WHERE (
                    SELECT 1 FROM adk_events AS e
                     WHERE e.app_name = r.app_name AND e.user_id = r.user_id AND e.incarnation = v_incarnation
                       AND e.event_hash = r.event_hash AND e.event_id = r.event_id LIMIT 1
                 ) IS NULL;
        END IF;
        IF NOT FOUND THEN
            {_RAISE_UNEXPECTED}
        END IF;
        {_APPLY_DELTAS_OF_ONE}
        RETURN '';
    END IF;
    v_rows := ARRAY(SELECT r FROM json_populate_recordset(NULL::sessiondb_append_1, p_rows::json) AS r);
    {_LOCK_SESSIONS}
    IF cardinality(v_rows) <> (
        SELECT count(*) FROM unnest(v_rows) AS r JOIN adk_sessions AS s ON {_THIS_SESSION}
         WHERE (r.revision IS NULL OR (s.incarnation = r.incarnation AND s.revision + r.advanced = r.revision))
           -- Not by NOT EXISTS: of that a planner makes a join, which may go through the whole log of a session.
           AND ({_EVENT_OF_ID} LIMIT 1) IS NULL
    ) THEN
        {_RAISE_UNEXPECTED}
    END IF;
    INSERT INTO adk_events ({_EVENT_COLUMNS})
        SELECT r.app_name, r.user_id, r.session_id, r.invocation_id, r.author, r."timestamp", r.content, r.actions, r.extra,
               s.last_seq + r.nth + 1, s.revision + r.advanced + r.advance, r.event_id, r.event_time, s.incarnation,
               r.event_hash
          FROM unnest(v_rows) AS r JOIN adk_sessions AS s ON {_THIS_SESSION}
         ORDER BY r.n;
    UPDATE adk_sessions AS s
       SET revision = s.revision + r.advanced + r.advance, last_seq = s.last_seq + r.nth + 1, updated_at = r."timestamp",
           update_time = r.event_time
      FROM unnest(v_rows) AS r
     WHERE r.is_last AND {_THIS_SESSION};
    {_APPLY_DELTAS}
    RETURN '';
END $$;

CREATE TYPE @sessiondb_command_1 AS (
    n int,
    kind text,
    app_name text COLLATE "C", user_id text COLLATE "C", session_id text COLLATE "C",
    -- An append through a handle: which of the batch's it is, and what it knows. A handle without a revision names the last
    -- event that it knows, '' if there is none.
    handle int, incarnation bigint, revision bigint, last_event_id text, last_event_hash bigint,
    -- Whether it is to be stored although an event of its id is there, which is another one.
    advance int, is_new boolean,
    event_hash bigint,
    event_id text, invocation_id text, author text, event_time double precision, "timestamp" text,
    content text, actions text, extra text,
    session_set json, user_set json, app_set json, session_removed json, user_removed json, app_removed json,
    -- What a prune may delete.
    updated_before double precision, max_sessions bigint,
    -- The events that are appended all or none, as rows of this type; or what is left of those that are redacted.
    parts json,
    -- What a session is created with; and of a fork where it comes from, beside what a handle would know of that. A truncation
    -- and a redaction say in the same columns what they know.
    initial_state text,
    source_user_id text COLLATE "C", source_session_id text COLLATE "C", log_epoch bigint, last_seq bigint, events bigint
);

CREATE FUNCTION @sessiondb_execute_1(p_writer uuid, p_batch bigint, p_rows text) RETURNS text {_ATTRIBUTES} AS $$
#variable_conflict use_column
DECLARE
    v_batch bigint;
    v_results text;
    v_all sessiondb_command_1[];
    -- Those of one command, for what is written as for a batch.
    v_rows sessiondb_command_1[];
    r sessiondb_command_1;
    s adk_sessions;
    v_status int;
    v_incarnation bigint;
    v_revision bigint;
    -- What each handle knows by now.
    v_incarnations bigint[] := '{{}}';
    v_revisions bigint[] := '{{}}';
    v_states json;
    v_pruned json;
    v_count bigint;
    v_answers text[] := '{{}}';
BEGIN
    {_LEDGER}
    v_all := ARRAY(SELECT c FROM json_populate_recordset(NULL::sessiondb_command_1, p_rows::json) AS c);
    v_rows := v_all || ARRAY(
        SELECT p FROM unnest(v_all) AS c, json_populate_recordset(NULL::sessiondb_command_1, c.parts) AS p
    );
    {_LOCK_SESSIONS_AND_SOURCES}
    PERFORM 1 FROM adk_state AS t
     WHERE (t.app_name, t.user_id, t.scope, t.state_key) IN (
        SELECT c.app_name, c.user_id, c.scope, c.key FROM ({_CHANGES}) AS c WHERE c.scope = 'USER'
     ) AND t.session_id IS NULL
     ORDER BY t.app_name, t.user_id, t.state_key FOR UPDATE;
    PERFORM 1 FROM adk_state AS t
     WHERE (t.app_name, t.scope, t.state_key) IN (
        SELECT c.app_name, c.scope, c.key FROM ({_CHANGES}) AS c WHERE c.scope = 'APP'
     ) AND t.user_id IS NULL AND t.session_id IS NULL
     ORDER BY t.app_name, t.state_key FOR UPDATE;
    FOREACH r IN ARRAY v_all LOOP
        v_status := {Status.DONE};
        v_incarnation := 0;
        v_revision := 0;
        v_states := '["{{}}", "{{}}", "{{}}"]';
        v_pruned := '[]';
        v_rows := ARRAY[r];
        IF r.kind IN ('append', 'append_all') THEN
            IF r.kind = 'append_all' THEN
                v_rows := ARRAY(SELECT p FROM json_populate_recordset(NULL::sessiondb_command_1, r.parts) AS p);
            END IF;
            IF r.handle IS NOT NULL AND r.handle > cardinality(v_revisions) THEN
                v_incarnations[r.handle] := r.incarnation;
                v_revisions[r.handle] := r.revision;
            END IF;
            SELECT * INTO s FROM adk_sessions AS s WHERE {_THIS_SESSION};
            IF NOT FOUND THEN
                v_status := {Status.MISSING};
            ELSIF r.kind = 'append' AND EXISTS (
                {_EVENT_OF_ID} AND e.event_time = r.event_time AND e.invocation_id = r.invocation_id
                   AND e.author = r.author AND e.content IS NOT DISTINCT FROM r.content AND e.actions = r.actions
                   AND e.extra IS NOT DISTINCT FROM r.extra
            ) THEN
                v_status := {Status.DUPLICATE};
            ELSIF r.is_new IS NULL AND EXISTS (
                SELECT 1 FROM unnest(v_rows) AS r WHERE ({_EVENT_OF_ID} LIMIT 1) IS NOT NULL
            ) THEN
                v_status := {SAME_ID};
            ELSIF r.handle IS NULL THEN
                NULL;
            ELSIF v_revisions[r.handle] IS NOT NULL THEN
                IF s.revision <> v_revisions[r.handle] OR s.incarnation <> v_incarnations[r.handle] THEN
                    v_status := {Status.STALE};
                END IF;
            ELSIF r.last_event_id = '' THEN
                -- A log that was cut off before its first event has another revision than 0.
                IF s.revision <> 0 AND EXISTS (
                    SELECT 1 FROM adk_events AS e
                     WHERE e.app_name = s.app_name AND e.user_id = s.user_id AND e.session_id = s.session_id
                ) THEN
                    v_status := {Status.STALE};
                END IF;
            ELSIF NOT EXISTS (
                SELECT 1 FROM adk_events AS e
                 WHERE e.app_name = s.app_name AND e.user_id = s.user_id AND e.incarnation = s.incarnation
                   AND e.event_hash = r.last_event_hash AND e.event_id = r.last_event_id AND e.revision = s.revision
            ) THEN
                v_status := {Status.STALE};
            END IF;
            IF v_status = {Status.DONE} THEN
                v_incarnation := s.incarnation;
                v_revision := s.revision + (SELECT sum(r.advance) FROM unnest(v_rows) AS r);
                INSERT INTO adk_events ({_EVENT_COLUMNS})
                    SELECT r.app_name, r.user_id, r.session_id, r.invocation_id, r.author, r."timestamp", r.content,
                           r.actions, r.extra, s.last_seq + row_number() OVER before,
                           s.revision + sum(r.advance) OVER before, r.event_id, r.event_time, s.incarnation, r.event_hash
                      FROM unnest(v_rows) AS r WINDOW before AS (ORDER BY r.n) ORDER BY r.n;
                UPDATE adk_sessions AS s
                   SET revision = v_revision, last_seq = s.last_seq + cardinality(v_rows), updated_at = r."timestamp",
                       update_time = r.event_time
                  FROM unnest(v_rows[cardinality(v_rows):]) AS r
                 WHERE {_THIS_SESSION};
                IF r.handle IS NOT NULL THEN
                    v_incarnations[r.handle] := v_incarnation;
                    v_revisions[r.handle] := v_revision;
                END IF;
            END IF;
        ELSIF r.kind = 'create' THEN
            INSERT INTO adk_sessions
                (app_name, user_id, session_id, created_at, updated_at, update_time, incarnation, initial_state)
                VALUES (r.app_name, r.user_id, r.session_id, r."timestamp", r."timestamp", r.event_time,
                        nextval('sessiondb_incarnations'), r.initial_state)
                ON CONFLICT DO NOTHING RETURNING incarnation INTO v_incarnation;
            IF NOT FOUND THEN
                v_status := {Status.EXISTS};
                v_incarnation := 0;
            END IF;
        ELSIF r.kind = 'fork' THEN
            -- What was read of the source holds for as long as its incarnation and its epoch do: of a log rows are only added.
            IF EXISTS (SELECT 1 FROM adk_sessions AS s WHERE {_THIS_SESSION}) THEN
                v_status := {Status.EXISTS};
            ELSE
                INSERT INTO adk_sessions
                    (app_name, user_id, session_id, created_at, updated_at, update_time, incarnation, revision, last_seq,
                     initial_state, forked_user_id, forked_session_id, forked_seq)
                    SELECT r.app_name, r.user_id, r.session_id, r."timestamp", r."timestamp", r.event_time,
                           nextval('sessiondb_incarnations'), r.revision, r.last_seq,
                           s.initial_state, r.source_user_id, r.source_session_id, r.last_seq
                      FROM adk_sessions AS s
                     WHERE {_SOURCE} AND s.incarnation = r.incarnation AND s.log_epoch = r.log_epoch
                    ON CONFLICT DO NOTHING RETURNING incarnation INTO v_incarnation;
                IF NOT FOUND THEN
                    v_status := {Status.STALE};
                    v_incarnation := 0;
                ELSE
                    v_revision := r.revision;
                    INSERT INTO adk_events ({_EVENT_COLUMNS})
                        SELECT r.app_name, r.user_id, r.session_id, s.invocation_id, s.author, s."timestamp", s.content,
                               s.actions, s.extra, s.seq, s.revision, s.event_id, s.event_time, v_incarnation, s.event_hash
                          FROM adk_events AS s
                         WHERE {_SOURCE} AND s.seq <= r.last_seq
                         ORDER BY s.seq;
                    GET DIAGNOSTICS v_count = ROW_COUNT;
                    IF v_count <> r.events THEN
                        RAISE EXCEPTION 'a row was not stored: a trigger of another program stands in the way';
                    END IF;
                END IF;
            END IF;
        ELSIF r.kind = 'truncate' THEN
            {TRUNCATE.strip()}
        ELSIF r.kind = 'redact' THEN
            {REDACT.strip()}
        ELSIF r.kind = 'delete' THEN
            DELETE FROM adk_sessions AS s WHERE {_THIS_SESSION};
            IF NOT FOUND THEN
                v_status := {Status.MISSING};
            END IF;
        ELSIF r.kind = 'prune' THEN
            -- What another host is writing to is not old.
            WITH old AS MATERIALIZED (
                SELECT s.app_name, s.user_id, s.session_id FROM adk_sessions AS s
                 WHERE (r.app_name IS NULL OR s.app_name = r.app_name) AND (r.user_id IS NULL OR s.user_id = r.user_id)
                   AND (r.session_id IS NULL OR s.session_id = r.session_id) AND s.update_time < r.updated_before
                 ORDER BY s.update_time, s.user_id, s.session_id, s.app_name LIMIT r.max_sessions FOR UPDATE SKIP LOCKED
            ), gone AS (
                DELETE FROM adk_sessions AS s USING old AS r WHERE {_THIS_SESSION} RETURNING s.*
            )
            SELECT coalesce(json_agg(json_build_array(
                       app_name, user_id, session_id, created_at, updated_at, incarnation, revision, last_seq, log_epoch,
                       update_time
                   ) ORDER BY update_time, user_id, session_id, app_name), '[]') INTO v_pruned FROM gone;
        END IF;
        IF v_status = {Status.DONE} AND r.kind IN ('append', 'append_all', 'create', 'fork') THEN
            {_APPLY_DELTAS}
        END IF;
        IF v_status = {Status.DONE} AND r.kind IN ('create', 'fork') THEN
            v_states := json_build_array(
                {_state("SESSION", "user_id = r.user_id AND session_id = r.session_id")},
                {_state("USER", "user_id = r.user_id AND session_id IS NULL")},
                {_state("APP", "user_id IS NULL AND session_id IS NULL")}
            );
        END IF;
        v_answers := v_answers
            || json_build_array(v_status, v_incarnation, v_revision, v_states, v_pruned)::text;
    END LOOP;
    v_results := '[' || array_to_string(v_answers, ',') || ']';
    UPDATE sessiondb_writers SET results = v_results WHERE writer = p_writer;
    RETURN v_results;
END $$;

CREATE FUNCTION @sessiondb_turn_1(p_first bigint, p_rung int) RETURNS int
    LANGUAGE plpgsql SET search_path = @path AS $$
BEGIN
    IF p_rung IS NULL THEN
        IF NOT pg_try_advisory_lock(p_first + {RUNGS - 1}) THEN
            RETURN NULL;
        END IF;
        p_rung := {RUNGS - 1};
    END IF;
    WHILE p_rung > 0 AND pg_try_advisory_lock(p_first + p_rung - 1) LOOP
        PERFORM pg_advisory_unlock(p_first + p_rung);
        p_rung := p_rung - 1;
    END LOOP;
    RETURN p_rung;
END $$;
"""
