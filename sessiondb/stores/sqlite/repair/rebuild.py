"""Fills a new file from the rows that were found of a damaged one, and makes them consistent there."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sessiondb.model import columns
from sessiondb.model.records import STORED_NONE, SessionKey
from sessiondb.stores.sqlite.repair.salvage import BEGINNING, COLUMNS, EVENTS, SESSIONS, STATE, Found, ParseKey, Range
from sessiondb.stores.sqlite.sql import OWNERS, equal, names


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


_KEY = names(columns.SESSION_KEY)
_OF_EVENT = equal(columns.SESSION_KEY, "e")

# An incarnation is chosen for each key: that of the session's own row, if events bear it out or there are none to do
# so, else the one that most of the events have. Events of another one belong to a session that was deleted, or are
# damaged.
_CHOOSE = f"""
INSERT INTO found.incarnations
    SELECT {_KEY}, incarnation FROM (
        SELECT {_KEY}, incarnation,
               row_number() OVER (PARTITION BY {_KEY} ORDER BY is_own DESC, events DESC, incarnation DESC) AS choice
          FROM (
            SELECT {_KEY}, e.incarnation, count(*) AS events, e.incarnation IS s.incarnation AS is_own, s.last_seq
              FROM found.events AS e LEFT JOIN found.sessions AS s USING ({_KEY})
             GROUP BY {_KEY}, e.incarnation
          )
         WHERE is_own OR last_seq IS NOT 0
    ) WHERE choice = 1
"""
# A key that only a few damaged letters make another session's must not become a session. What was pruned, and is still to be
# found in an older version of a page, stays pruned.
_STRAY = f"""
SELECT e.id FROM found.events AS e
 WHERE NOT EXISTS (SELECT 1 FROM found.incarnations WHERE {_OF_EVENT} AND incarnation = e.incarnation)
    OR (
        NOT EXISTS (SELECT 1 FROM found.sessions WHERE {_OF_EVENT})
        AND EXISTS (SELECT 1 FROM found.sessions WHERE incarnation = e.incarnation)
    )
    OR EXISTS (
        SELECT 1 FROM found.sessions WHERE {_OF_EVENT} AND incarnation = e.incarnation AND e.seq <= cut_seq
    )
"""
_BEGINNING_OF_FOUND = [
    f"coalesce(s.{column}, 0)" if column in ("cut_seq", "cut_revision") else f"s.{column}" for column in BEGINNING
]
_RESULTS = f"""
WITH logs AS (
    SELECT {_KEY}, incarnation, count(*) AS events, max(seq) AS last_seq, min(id) AS first_id, max(id) AS last_id
      FROM found.events GROUP BY {_KEY}
),
keys AS (
    SELECT {_KEY} FROM found.sessions
    UNION SELECT {_KEY} FROM logs
    UNION SELECT {_KEY} FROM found.state WHERE scope = 'SESSION'
)
INSERT INTO found.results
SELECT {names(columns.SESSION_KEY, "k")},
       coalesce(s.created_at, first.timestamp, of_state.updated_at),
       coalesce(s.updated_at, last.timestamp, of_state.updated_at),
       coalesce(s.update_time, last.event_time, unixepoch(of_state.updated_at) + 0.0, 0.0),
       coalesce(l.incarnation, s.incarnation, 0), NULL, coalesce(l.events, 0),
       max(coalesce(s.last_seq, 0), coalesce(l.last_seq, 0)), s.incarnation IS NULL,
       {names(_BEGINNING_OF_FOUND)}
  FROM keys AS k
  LEFT JOIN found.sessions AS s USING ({_KEY})
  LEFT JOIN logs AS l USING ({_KEY})
  LEFT JOIN found.events AS first ON first.id = l.first_id
  LEFT JOIN found.events AS last ON last.id = l.last_id
  LEFT JOIN (
      SELECT {_KEY}, max(updated_at) AS updated_at FROM found.state WHERE scope = 'SESSION' GROUP BY {_KEY}
  ) AS of_state USING ({_KEY})
"""
# A session that has lost something starts another incarnation: what was read of it before is stale then.
_KEEP_INCARNATIONS = """
UPDATE found.results SET incarnation = old_incarnation
 WHERE NOT recreated AND events = last_seq - cut_seq
   AND old_incarnation IN (SELECT old_incarnation FROM found.results GROUP BY old_incarnation HAVING count(*) = 1)
"""
_NEW_INCARNATIONS = f"""
UPDATE found.results SET incarnation = numbered.incarnation
  FROM (
    SELECT {_KEY}, (SELECT max(old_incarnation) FROM found.results) + row_number() OVER () AS incarnation
      FROM found.results WHERE incarnation IS NULL
  ) AS numbered
 WHERE ({names(columns.SESSION_KEY, "results")}) = ({names(columns.SESSION_KEY, "numbered")})
"""
_FILL_SESSIONS = f"""
INSERT INTO main.adk_sessions
    ({_KEY}, created_at, updated_at, update_time, incarnation, revision, last_seq, {names(BEGINNING)})
SELECT {_KEY}, created_at, updated_at, update_time, incarnation, cut_revision, cut_seq + events, {names(BEGINNING)}
  FROM found.results
"""
# Numbers follow each other again. An event that had advanced the revision still does, by one.
_KEPT = [column for column in COLUMNS[EVENTS] if column not in ("seq", "revision", "incarnation")]
_FILL_EVENTS = f"""
INSERT INTO main.adk_events ({names(_KEPT)}, seq, revision, incarnation)
SELECT {names(_KEPT)}, cut_seq + row_number() OVER log, cut_revision + sum(advances) OVER log, incarnation
  FROM (
    SELECT {names(_KEPT, "e")}, r.incarnation, r.cut_seq, r.cut_revision,
           e.revision > lag(e.revision, 1, r.cut_revision) OVER (PARTITION BY {_KEY} ORDER BY e.id) AS advances
      FROM found.events AS e JOIN found.results AS r USING ({_KEY})
  )
WINDOW log AS (PARTITION BY {_KEY} ORDER BY id)
ORDER BY id
"""
_FILL_REVISIONS = """
UPDATE main.adk_sessions AS s SET revision = log.revision
  FROM (SELECT incarnation, max(revision) AS revision FROM main.adk_events GROUP BY incarnation) AS log
 WHERE log.incarnation = s.incarnation
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
_REPLAY_SET = f"INSERT OR REPLACE INTO found.replayed VALUES ({names('?' * len(COLUMNS[STATE]))})"
_REPLAY_REMOVE = f"DELETE FROM found.replayed WHERE ({_KEY}, scope, state_key) = (?, ?, ?, ?, ?)"
_DELTAS = f"SELECT {_KEY}, timestamp, actions, extra FROM found.events ORDER BY id"
_TOUCHED = f"""
SELECT {_KEY}, events, last_seq, recreated, cut_seq FROM found.results
 WHERE recreated OR events <> last_seq - cut_seq
 ORDER BY {_KEY}
"""
_SEQUENCE = f"SELECT seq FROM found.events WHERE ({_KEY}) = (?, ?, ?) ORDER BY seq"


class Rebuilt(NamedTuple):
    """What the new file holds."""

    saved: dict[str, int]
    """Rows by table."""
    replayed: int
    """Keys of state that come from the log, because no row of them was found."""
    touched: tuple[TouchedSession, ...]


def rebuild(connection: sqlite3.Connection, found: Found, *, replay: bool) -> Rebuilt:
    """Fills the new file from what was found, in one transaction.

    Args:
        connection: The new file; what was found is attached as ``found``.
        found: What was found.
        replay: Whether keys of state that are missing are taken from the log.
    """
    execute = connection.execute
    execute("BEGIN IMMEDIATE")
    execute(_CHOOSE)
    for (row_id,) in execute(_STRAY).fetchall():
        found.reject(EVENTS, row_id)
        execute("DELETE FROM found.events WHERE id = ?", (row_id,))
    for statement in (_RESULTS, _KEEP_INCARNATIONS, _NEW_INCARNATIONS, _FILL_SESSIONS, _FILL_EVENTS, _FILL_REVISIONS):
        execute(statement)
    replayed = _replay(connection, found.log_format.parse_key) if replay else 0
    execute(_FILL_STATE)
    execute(_FILL_META)
    saved = {table: execute(f"SELECT count(*) FROM main.{table}").fetchone()[0] for table in (SESSIONS, EVENTS, STATE)}
    touched = []
    for *owner, events, last_seq, recreated, cut_seq in execute(_TOUCHED).fetchall():
        key = SessionKey._make(owner)
        sequence = [seq for (seq,) in execute(_SEQUENCE, key)]
        touched.append(TouchedSession(*key, events, _gaps(sequence, cut_seq + 1, last_seq), bool(recreated)))
    execute("COMMIT")
    return Rebuilt(saved, replayed, tuple(touched))


def _replay(connection: sqlite3.Connection, parse_key: ParseKey) -> int:
    """Adds the keys that the log has set, and not removed, and of which no row was found; returns how many."""
    execute = connection.execute
    for app_name, user_id, session_id, timestamp, actions, extra in execute(_DELTAS):
        stored_none = json.loads(extra).get(STORED_NONE) if extra else None
        for key, value in json.loads(actions).get("state_delta", {}).items():
            scope, name = parse_key(key)
            if scope not in OWNERS:
                continue
            owner = (app_name, "" if scope == "APP" else user_id, session_id if scope == "SESSION" else "")
            if value is None and not (isinstance(stored_none, list) and key in stored_none):
                execute(_REPLAY_REMOVE, (*owner, scope, name))
            else:
                text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
                execute(_REPLAY_SET, (*owner, scope, name, text, timestamp))
    return execute("INSERT OR IGNORE INTO found.state SELECT * FROM found.replayed").rowcount


def _gaps(found: Sequence[int], first: int, last: int) -> tuple[Range, ...]:
    """Returns what is missing from ``first`` to ``last`` in ascending numbers."""
    gaps: list[Range] = []
    expected = first
    for number in [*found, last + 1]:
        if number > expected:
            gaps.append((expected, number - 1))
        expected = max(expected, number + 1)
    return tuple(gaps)
