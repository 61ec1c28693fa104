"""SQL of the write path: what the function of a batch does to take something away from a log.

``r`` is the command, ``s`` the row of its session, which is locked.
"""

from __future__ import annotations

from sessiondb.model.records import Status

_OF_SESSION = "e.app_name = r.app_name AND e.user_id = r.user_id AND e.session_id = r.session_id"
_NOT_STORED = "RAISE EXCEPTION 'a row was not stored: a trigger of another program stands in the way';"
_THIS_SESSION = "s.app_name = r.app_name AND s.user_id = r.user_id AND s.session_id = r.session_id"

# What was read of the session holds for as long as its incarnation and its epoch do.
_FIND_SESSION = f"""
            SELECT * INTO s FROM adk_sessions AS s WHERE {_THIS_SESSION};
            IF NOT FOUND THEN
                v_status := {Status.MISSING};
            ELSIF s.incarnation <> r.incarnation OR s.log_epoch <> r.log_epoch THEN
                v_status := {Status.STALE};
"""

# last_seq is the number of the last event that stays, events the number of the last one that was read. The revision never goes
# back: there may be Sessions that know the one that the kept events had. The kept events at the end get it, too, since a
# Session without a revision is known by its last event, if that has the revision of the log. Of what a fork has taken over only
# what stays is not its own: the numbers after that are used again.
TRUNCATE = f"""
            {_FIND_SESSION}
            ELSIF EXISTS (
                SELECT 1 FROM adk_events AS e
                 WHERE {_OF_SESSION} AND e.seq > r.last_seq AND e.seq > r.events
                   AND strpos(e.content, '"function_response"') > 0
            ) THEN
                v_status := {Status.STALE};
            ELSE
                v_incarnation := s.incarnation;
                v_revision := s.revision + 1;
                DELETE FROM adk_events AS e WHERE {_OF_SESSION} AND e.seq > r.last_seq;
                SELECT e.revision INTO v_count FROM adk_events AS e WHERE {_OF_SESSION} ORDER BY e.seq DESC LIMIT 1;
                IF FOUND THEN
                    UPDATE adk_events AS e SET revision = v_revision
                     WHERE {_OF_SESSION} AND e.seq > coalesce((
                        SELECT e.seq FROM adk_events AS e
                         WHERE {_OF_SESSION} AND e.revision <> v_count ORDER BY e.seq DESC LIMIT 1
                     ), 0);
                END IF;
                UPDATE adk_sessions AS s
                   SET revision = v_revision, last_seq = r.last_seq, updated_at = r."timestamp", update_time = r.event_time,
                       forked_seq = CASE WHEN s.forked_seq > r.last_seq THEN r.last_seq ELSE s.forked_seq END
                 WHERE {_THIS_SESSION};
                DELETE FROM adk_state AS e
                 WHERE {_OF_SESSION} AND e.scope = 'SESSION'
                   AND e.state_key NOT IN (SELECT k FROM json_object_keys(r.session_set) AS k);
                INSERT INTO adk_state AS t
                    SELECT r.app_name, r.user_id, r.session_id, 'SESSION', d.key, d.value, r."timestamp"
                      FROM json_each_text(r.session_set) AS d
                    ON CONFLICT (app_name, user_id, session_id, scope, state_key)
                    DO UPDATE SET state_value = excluded.state_value, updated_at = excluded.updated_at
                     WHERE t.state_value <> excluded.state_value;
                IF EXISTS (SELECT 1 FROM adk_events AS e WHERE {_OF_SESSION} AND e.seq > r.last_seq) THEN
                    {_NOT_STORED}
                END IF;
            END IF;
"""

# In each of the parts last_seq is the number of its event.
REDACT = f"""
            {_FIND_SESSION}
            ELSE
                v_incarnation := s.incarnation;
                v_revision := s.revision;
                UPDATE adk_events AS e SET content = p.content, actions = p.actions, extra = p.extra
                  FROM json_populate_recordset(NULL::sessiondb_command_1, r.parts) AS p
                 WHERE {_OF_SESSION} AND e.seq = p.last_seq;
                GET DIAGNOSTICS v_count = ROW_COUNT;
                IF v_count <> r.events THEN
                    {_NOT_STORED}
                END IF;
            END IF;
"""
