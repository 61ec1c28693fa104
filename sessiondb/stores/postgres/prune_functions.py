"""SQL of the write path that prunes: parts of the function that executes commands, for its row ``r``."""

from __future__ import annotations

from sessiondb.model.records import Status

SUMMARIES = """coalesce(json_agg(json_build_array(
                       app_name, user_id, session_id, created_at, updated_at, cut_seq, incarnation, revision, last_seq,
                       log_epoch, update_time
                   ) ORDER BY update_time, user_id, session_id, app_name), '[]')"""
"""What is answered of the sessions that are gone."""

# The trigger of the table advances the epoch, once for all events that go.
BRANCHES = f"""
        ELSIF r.kind = 'trim' THEN
            -- What went before is in the index until it is vacuumed, and need not be passed over again.
            SELECT s.cut_seq INTO v_count FROM adk_sessions AS s
             WHERE s.app_name = r.app_name AND s.user_id = r.user_id AND s.session_id = r.session_id;
            UPDATE adk_sessions AS s
               SET cut_seq = e.seq, cut_revision = e.revision, cut_time = e.event_time, written = e.written,
                   initial_state = r.initial_state
              FROM adk_events AS e
             WHERE s.app_name = r.app_name AND s.user_id = r.user_id AND s.session_id = r.session_id
               AND s.incarnation = r.incarnation AND s.log_epoch = r.log_epoch
               AND (r.last_seq IS NULL OR s.last_seq = r.last_seq)
               AND e.app_name = r.app_name AND e.user_id = r.user_id AND e.session_id = r.session_id AND e.seq = r.seq;
            IF NOT FOUND THEN
                v_status := {Status.STALE};
            ELSE
                DELETE FROM adk_events AS e
                 WHERE e.app_name = r.app_name AND e.user_id = r.user_id AND e.session_id = r.session_id
                   AND e.seq > v_count AND e.seq <= r.seq;
            END IF;
        ELSIF r.kind = 'delete_unchanged' THEN
            -- Whoever is writing to one of them has it locked, and what it was is not what it will be.
            WITH unchanged AS MATERIALIZED (
                SELECT s.app_name, s.user_id, s.session_id
                  FROM json_populate_recordset(NULL::sessiondb_command_1, r.sessions) AS c JOIN adk_sessions AS s
                    ON s.app_name = c.app_name AND s.user_id = c.user_id AND s.session_id = c.session_id
                 WHERE s.incarnation = c.incarnation AND s.revision = c.revision AND s.last_seq = c.last_seq
                   AND s.log_epoch = c.log_epoch
                 ORDER BY s.app_name, s.user_id, s.session_id FOR UPDATE OF s SKIP LOCKED
            ), gone AS (
                DELETE FROM adk_sessions AS s USING unchanged AS u
                 WHERE s.app_name = u.app_name AND s.user_id = u.user_id AND s.session_id = u.session_id RETURNING s.*
            )
            SELECT {SUMMARIES} INTO v_pruned FROM gone;
"""
