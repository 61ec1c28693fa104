"""Fills a new file from the rows that were found of a damaged one, and makes them consistent there."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from sessiondb.model import columns
from sessiondb.model.records import SessionKey
from sessiondb.stores.sqlite.repair.salvage import EVENTS, SESSIONS, STATE, Found, ParseKey, Range
from sessiondb.stores.sqlite.sql import names

_STORED_SCOPES = ("SESSION", "USER", "APP")


@dataclass(frozen=True, slots=True)
class TouchedSession:
    """A session that is not as it was.

    Attributes:
        app_name: Its app.
        user_id: Its user.
        session_id: Its id.
        events: Events of it in the new file; they are numbered anew.
        lost: The numbers (``seq``) that the lost events had, as ranges; events after the last one that is known of may
            be lost as well.
        recreated: Whether its own row was lost: the times of its creation and last update come from its events then.
    """

    app_name: str
    user_id: str
    session_id: str
    events: int
    lost: tuple[Range, ...]
    recreated: bool

    @property
    def lost_events(self) -> int:
        """How many events are known to be lost."""
        return sum(last - first + 1 for first, last in self.lost)


# An incarnation is chosen for each key: that of the session's own row, if events bear it out or there are none to do
# so, else the one that most of the events have. Events of another one belong to a session that was deleted, or are
# damaged.
_CHOOSE = """
INSERT INTO found.incarnations
    SELECT app_name, user_id, session_id, incarnation FROM (
        SELECT app_name, user_id, session_id, incarnation,
               row_number() OVER (
                   PARTITION BY app_name, user_id, session_id ORDER BY is_own DESC, events DESC, incarnation DESC
               ) AS choice
          FROM (
            SELECT e.app_name, e.user_id, e.session_id, e.incarnation, count(*) AS events,
                   e.incarnation IS s.incarnation AS is_own, s.last_seq
              FROM found.events AS e LEFT JOIN found.sessions AS s USING (app_name, user_id, session_id)
             GROUP BY e.app_name, e.user_id, e.session_id, e.incarnation
          )
         WHERE is_own OR last_seq IS NOT 0
    ) WHERE choice = 1
"""
# A key that only a few damaged letters make another session's must not become a session.
_STRAY = """
SELECT e.id FROM found.events AS e
 WHERE NOT EXISTS (
           SELECT 1 FROM found.incarnations AS i
            WHERE i.app_name = e.app_name AND i.user_id = e.user_id AND i.session_id = e.session_id
              AND i.incarnation = e.incarnation
       )
    OR (
        NOT EXISTS (
            SELECT 1 FROM found.sessions AS s
             WHERE s.app_name = e.app_name AND s.user_id = e.user_id AND s.session_id = e.session_id
        )
        AND EXISTS (SELECT 1 FROM found.sessions AS s WHERE s.incarnation = e.incarnation)
    )
"""
_RESULTS = """
WITH logs AS (
    SELECT app_name, user_id, session_id, incarnation, count(*) AS events, max(seq) AS last_seq,
           min(timestamp) AS created_at, min(id) AS first_id, max(id) AS last_id
      FROM found.events GROUP BY app_name, user_id, session_id
),
keys AS (
    SELECT app_name, user_id, session_id FROM found.sessions
    UNION SELECT app_name, user_id, session_id FROM logs
    UNION SELECT app_name, user_id, session_id FROM found.state WHERE scope = 'SESSION'
)
INSERT INTO found.results
SELECT k.app_name, k.user_id, k.session_id,
       coalesce(s.created_at, first.timestamp, of_state.updated_at),
       coalesce(s.updated_at, last.timestamp, of_state.updated_at),
       coalesce(s.update_time, last.event_time, unixepoch(of_state.updated_at) + 0.0, 0.0),
       coalesce(l.incarnation, s.incarnation, 0), NULL, coalesce(l.events, 0),
       max(coalesce(s.last_seq, 0), coalesce(l.last_seq, 0)), s.incarnation IS NULL
  FROM keys AS k
  LEFT JOIN found.sessions AS s USING (app_name, user_id, session_id)
  LEFT JOIN logs AS l USING (app_name, user_id, session_id)
  LEFT JOIN found.events AS first ON first.id = l.first_id
  LEFT JOIN found.events AS last ON last.id = l.last_id
  LEFT JOIN (
      SELECT app_name, user_id, session_id, max(updated_at) AS updated_at
        FROM found.state WHERE scope = 'SESSION' GROUP BY app_name, user_id, session_id
  ) AS of_state USING (app_name, user_id, session_id)
"""
# A session that has lost something starts another incarnation: what was read of it before is stale then.
_KEEP_INCARNATIONS = """
UPDATE found.results SET incarnation = old_incarnation
 WHERE NOT recreated AND events = last_seq
   AND old_incarnation IN (SELECT old_incarnation FROM found.results GROUP BY old_incarnation HAVING count(*) = 1)
"""
_NEW_INCARNATIONS = """
UPDATE found.results SET incarnation = numbered.incarnation
  FROM (
    SELECT app_name, user_id, session_id,
           (SELECT max(old_incarnation) FROM found.results) + row_number() OVER () AS incarnation
      FROM found.results WHERE incarnation IS NULL
  ) AS numbered
 WHERE (results.app_name, results.user_id, results.session_id)
     = (numbered.app_name, numbered.user_id, numbered.session_id)
"""
_FILL_SESSIONS = """
INSERT INTO main.adk_sessions
    (app_name, user_id, session_id, created_at, updated_at, update_time, incarnation, revision, last_seq)
SELECT app_name, user_id, session_id, created_at, updated_at, update_time, incarnation, 0, events FROM found.results
"""
# Numbers follow each other again. An event that had advanced the revision still does, by one.
_KEPT = [column for column in columns.EVENTS if column not in ("seq", "revision", "incarnation")]
_FILL_EVENTS = f"""
INSERT INTO main.adk_events ({names(_KEPT)}, seq, revision, incarnation)
SELECT {names(_KEPT)}, row_number() OVER log, sum(advances) OVER log, incarnation
  FROM (
    SELECT {names(_KEPT, "e")}, r.incarnation,
           e.revision > lag(e.revision, 1, 0) OVER (PARTITION BY app_name, user_id, session_id ORDER BY e.id) AS advances
      FROM found.events AS e JOIN found.results AS r USING (app_name, user_id, session_id)
  )
WINDOW log AS (PARTITION BY app_name, user_id, session_id ORDER BY id)
ORDER BY id
"""
_FILL_REVISIONS = """
UPDATE main.adk_sessions AS s SET revision = log.revision
  FROM (SELECT incarnation, max(revision) AS revision FROM main.adk_events GROUP BY incarnation) AS log
 WHERE log.incarnation = s.incarnation
"""
_COUNT_MISSING = """
SELECT count(*) FROM found.replayed AS r
 WHERE NOT EXISTS (
    SELECT 1 FROM found.state AS s
     WHERE s.scope = r.scope AND s.app_name = r.app_name AND s.user_id = r.user_id AND s.session_id = r.session_id
       AND s.state_key = r.state_key
 )
"""
_FILL_STATE = """
INSERT INTO main.adk_state
SELECT app_name, iif(scope = 'APP', NULL, user_id), iif(scope = 'SESSION', session_id, NULL), scope, state_key,
       state_value, updated_at
  FROM found.state
"""
_FILL_META = """
UPDATE main.sessiondb_meta
   SET value = max(
       (SELECT coalesce(max(incarnation), 0) FROM main.adk_sessions),
       (SELECT coalesce(max(incarnation), 0) FROM found.sessions)
   )
 WHERE name = 'incarnations'
"""
_REPLAY_SET = "INSERT OR REPLACE INTO found.replayed VALUES (?, ?, ?, ?, ?, ?, ?)"
_REPLAY_REMOVE = """
DELETE FROM found.replayed
 WHERE app_name = ? AND user_id = ? AND session_id = ? AND scope = ? AND state_key = ?
"""
_DELTAS = "SELECT app_name, user_id, session_id, timestamp, actions FROM found.events ORDER BY id"
_TOUCHED = """
SELECT app_name, user_id, session_id, events, last_seq, recreated FROM found.results
 WHERE recreated OR events <> last_seq
 ORDER BY app_name, user_id, session_id
"""
_SEQUENCE = "SELECT seq FROM found.events WHERE app_name = ? AND user_id = ? AND session_id = ? ORDER BY seq"


class Builder:
    """Fills the new file from what was found."""

    def __init__(self, connection: sqlite3.Connection, found: Found, parse_key: ParseKey) -> None:
        self._connection = connection
        self._found = found
        self._parse_key = parse_key
        self.saved: dict[str, int] = {}
        self.replayed = 0
        self.touched: list[TouchedSession] = []

    def build(self, *, replay: bool) -> None:
        """Fills it, in one transaction.

        Args:
            replay: Whether keys of state that are missing are taken from the log.
        """
        execute = self._connection.execute
        execute("BEGIN IMMEDIATE")
        execute(_CHOOSE)
        for (row_id,) in execute(_STRAY).fetchall():
            self._found.reject(EVENTS, row_id)
            execute("DELETE FROM found.events WHERE id = ?", (row_id,))
        execute(_RESULTS)
        execute(_KEEP_INCARNATIONS)
        execute(_NEW_INCARNATIONS)
        execute(_FILL_SESSIONS)
        execute(_FILL_EVENTS)
        execute(_FILL_REVISIONS)
        if replay:
            self._replay()
        execute(_FILL_STATE)
        execute(_FILL_META)
        for table in (SESSIONS, EVENTS, STATE):
            (self.saved[table],) = execute(_COUNTS[table]).fetchone()
        for *key, events, last_seq, recreated in execute(_TOUCHED).fetchall():
            self.touched.append(self._touched(SessionKey._make(key), events, last_seq, recreated=bool(recreated)))
        execute("COMMIT")

    def _replay(self) -> None:
        """Adds the keys that the log has set, and not removed, and of which no row was found."""
        execute = self._connection.execute
        for app_name, user_id, session_id, timestamp, actions in execute(_DELTAS):
            for key, value in json.loads(actions).get("state_delta", {}).items():
                scope, name = self._parse_key(key)
                if scope not in _STORED_SCOPES:
                    continue
                owner = (
                    app_name,
                    "" if scope == "APP" else user_id,
                    session_id if scope == "SESSION" else "",
                )
                if value is None:
                    execute(_REPLAY_REMOVE, (*owner, scope, name))
                else:
                    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
                    execute(_REPLAY_SET, (*owner, scope, name, text, timestamp))
        (self.replayed,) = execute(_COUNT_MISSING).fetchone()
        execute("INSERT OR IGNORE INTO found.state SELECT * FROM found.replayed")

    def _touched(self, key: SessionKey, events: int, last_seq: int, *, recreated: bool) -> TouchedSession:
        found = [seq for (seq,) in self._connection.execute(_SEQUENCE, key)]
        return TouchedSession(*key, events, _gaps(found, last_seq), recreated)


_COUNTS = {
    SESSIONS: "SELECT count(*) FROM main.adk_sessions",
    EVENTS: "SELECT count(*) FROM main.adk_events",
    STATE: "SELECT count(*) FROM main.adk_state",
}


def _gaps(found: Sequence[int], last: int) -> tuple[Range, ...]:
    """Returns what is missing between 1 and ``last`` in ascending numbers."""
    gaps: list[Range] = []
    expected = 1
    for number in [*found, last + 1]:
        if number > expected:
            gaps.append((expected, number - 1))
        expected = max(expected, number + 1)
    return tuple(gaps)
