"""What other programs have put into a file beside the tables of sessiondb, and what of it would change what is stored."""

from __future__ import annotations

import re
import sqlite3
from typing import NamedTuple

from sessiondb.stores.sqlite import text_index

_OURS = r"(?:adk_sessions|adk_events|adk_state|sessiondb_meta)\b"
# As SQLite takes them in a trigger: quoted in four ways, and without the name of a schema.
_NAME = rf"[\"'`\[]?{_OURS}"
_WRITES = re.compile(
    rf"\b(?:INSERT\s+(?:OR\s+\w+\s+)?INTO|REPLACE\s+INTO|UPDATE(?:\s+OR\s+\w+)?|DELETE\s+FROM)\s+{_NAME}", re.IGNORECASE
)
_IGNORES = re.compile(r"\bRAISE\s*\(\s*IGNORE\b", re.IGNORECASE)
_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)

_FOREIGN = f"""
SELECT type, name, tbl_name, sql FROM sqlite_schema
 WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND name NOT IN (
    'adk_sessions', 'adk_events', 'adk_state', 'sessiondb_meta',
    'adk_sessions_forks', 'adk_sessions_updated', 'adk_events_log', 'adk_events_identity', 'adk_state_user', 'adk_state_app',
    'adk_events_changed', 'adk_events_removed', 'adk_sessions_deleted',
    {", ".join(f"'{name}'" for name in text_index.OBJECTS)}
 )
 ORDER BY name
"""


class ForeignObject(NamedTuple):
    """A table, index, view or trigger of another program.

    Attributes:
        kind: What it is.
        name: Its name.
        harm: What it would do to what is stored, for a message; None if it leaves that alone.
    """

    kind: str
    name: str
    harm: str | None


def foreign_objects(connection: sqlite3.Connection) -> list[ForeignObject]:
    """Lists what is in a file of ours and is not ours."""
    return [
        ForeignObject(kind, name, _harm_of(kind, table, sql)) for kind, name, table, sql in connection.execute(_FOREIGN)
    ]


def _harm_of(kind: str, table: str, sql: str) -> str | None:
    if kind != "trigger":
        return None
    sql = _COMMENT.sub(" ", sql)
    # The head names the event and the table, which is no write.
    body = re.split(r"\bBEGIN\b", sql, maxsplit=1, flags=re.IGNORECASE)[-1]
    if _WRITES.search(body):
        return "writes to the tables of sessiondb"
    if re.fullmatch(_OURS, table, re.IGNORECASE) and _IGNORES.search(body):
        return "has rows ignored that sessiondb stores"
    return None
