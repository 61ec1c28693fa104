"""SQL that deletes what belongs to a user, some at a time, and counts it."""

from __future__ import annotations

_OF_USER = "app_name = r.app_name AND user_id = r.user_id"
_FORKS = (
    "s.app_name = {0}app_name{1} AND s.forked_user_id = {0}user_id{1} AND s.user_id <> {0}user_id{1}"
    " AND s.forked_seq IS NOT NULL"
)

ERASE = f"""
            v_erased := '{{0,0,0,0,1}}';
            v_ids := ARRAY(
                SELECT session_id FROM adk_sessions WHERE {_OF_USER} ORDER BY session_id LIMIT r.max_rows FOR UPDATE
            );
            -- A log has no more events than its last number says.
            v_whole := ARRAY(
                SELECT session_id FROM (
                    SELECT session_id, sum(last_seq + 1) OVER (ORDER BY session_id) AS up_to_here
                      FROM adk_sessions WHERE {_OF_USER} AND session_id = ANY(v_ids)
                ) AS s WHERE up_to_here <= r.max_rows
            );
            IF cardinality(v_whole) = 0 AND cardinality(v_ids) > 0 THEN
                DELETE FROM adk_events WHERE {_OF_USER} AND session_id = v_ids[1] AND seq <= (
                    SELECT max(seq) FROM (
                        SELECT seq FROM adk_events WHERE {_OF_USER} AND session_id = v_ids[1] ORDER BY seq LIMIT r.max_rows
                    ) AS oldest
                );
                GET DIAGNOSTICS v_count = ROW_COUNT;
                v_erased[2] := v_count;
                v_whole := CASE WHEN v_count < r.max_rows THEN v_ids[:1] ELSE v_whole END;
            END IF;
            v_erased[1] := cardinality(v_whole);
            v_erased[2] := v_erased[2]
                + (SELECT count(*) FROM adk_events WHERE {_OF_USER} AND session_id = ANY(v_whole));
            v_erased[3] := (SELECT count(*) FROM adk_state WHERE {_OF_USER} AND session_id = ANY(v_whole));
            DELETE FROM adk_sessions WHERE {_OF_USER} AND session_id = ANY(v_whole);
            IF cardinality(v_whole) < cardinality(v_ids) OR cardinality(v_ids) = r.max_rows THEN
                v_erased[5] := 0;
            ELSE
                v_ids := ARRAY(
                    SELECT state_key FROM adk_state WHERE {_OF_USER} ORDER BY state_key LIMIT r.max_rows FOR UPDATE
                );
                DELETE FROM adk_state WHERE {_OF_USER} AND state_key = ANY(v_ids);
                GET DIAGNOSTICS v_count = ROW_COUNT;
                v_erased[3] := v_erased[3] + v_count;
                IF cardinality(v_ids) = r.max_rows THEN
                    v_erased[5] := 0;
                END IF;
                -- Of tables that others have edited, what belongs to no session goes too.
                DELETE FROM adk_events WHERE {_OF_USER} AND (session_id, seq) IN (
                    SELECT e.session_id, e.seq FROM adk_events AS e
                     WHERE e.app_name = r.app_name AND e.user_id = r.user_id AND NOT EXISTS (
                        SELECT 1 FROM adk_sessions AS s
                         WHERE s.app_name = e.app_name AND s.user_id = e.user_id AND s.session_id = e.session_id
                     ) LIMIT r.max_rows
                );
                GET DIAGNOSTICS v_count = ROW_COUNT;
                v_erased[2] := v_erased[2] + v_count;
                IF v_count = r.max_rows THEN
                    v_erased[5] := 0;
                END IF;
                UPDATE adk_sessions AS s SET forked_user_id = NULL, forked_session_id = NULL
                 WHERE (s.user_id, s.session_id) IN (
                    SELECT s.user_id, s.session_id FROM adk_sessions AS s WHERE {_FORKS.format("r.", "")}
                     ORDER BY s.user_id, s.session_id LIMIT r.max_rows FOR UPDATE
                 ) AND s.app_name = r.app_name;
                GET DIAGNOSTICS v_count = ROW_COUNT;
                v_erased[4] := v_count;
                IF v_count = r.max_rows THEN
                    v_erased[5] := 0;
                END IF;
                -- The answers that other writers had: one that has died, or has nothing to write, would keep its last one.
                UPDATE sessiondb_writers SET results = NULL WHERE writer IN (
                    SELECT writer FROM sessiondb_writers
                     WHERE results IS NOT NULL AND seen < now() - interval '1 hour' FOR UPDATE SKIP LOCKED
                );
            END IF;
"""
"""The branch of the function for batches that does so; five numbers in ``v_erased`` say what it has deleted, as
:class:`~sessiondb.model.records.Erased` does."""

MEASURE = f"""
    SELECT (SELECT count(*) FROM @adk_sessions WHERE app_name = %(app_name)s AND user_id = %(user_id)s),
           (SELECT count(*) FROM @adk_events WHERE app_name = %(app_name)s AND user_id = %(user_id)s),
           (SELECT count(*) FROM @adk_state WHERE app_name = %(app_name)s AND user_id = %(user_id)s),
           (SELECT count(*) FROM @adk_sessions AS s WHERE {_FORKS.format("%(", ")s")})
"""
"""What belongs to a user, counted."""
