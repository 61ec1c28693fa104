"""The index of texts: a full-text table in the same file, which triggers keep as the log is, whoever writes to that.

It holds no text itself (SQLite calls it contentless), so what is taken out must be given to it once more: what is indexed of
a row is a function of the row alone, in SQL. Triggers on ``adk_events`` give it to the table in the transaction of the write;
so deletions, edits, forks and imports reach it, of other programs too.

Events that were there before are indexed in slices. ``sessiondb_index`` tells how far that has come; the triggers leave alone
what is still to come.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import NamedTuple

from sessiondb.errors import ConfigurationError, SearchIndexError
from sessiondb.model.search import BEING_BUILT, NO_INDEX
from sessiondb.model.words import MAX_TEXT, RUN_CLASS
from sessiondb.stores.sqlite.connection import transaction

TABLE = "sessiondb_text"
_EVENTS = ("added", "removed", "changed")
OBJECTS = (
    "sessiondb_index",
    "sessiondb_positions",
    *(TABLE, *(f"{TABLE}_{part}" for part in ("data", "idx", "config"))),
    *(f"{TABLE}_{event}" for event in _EVENTS),
)
"""The names of all that belongs to it."""

_PIECE = 128
"""A text is cut in pieces of so many characters: to find a place in a text SQLite goes through all that is before it."""


def text_of(row: str) -> str:
    """Returns SQL for what people see of an event: its texts, and what was said aloud; ``""`` if nothing.

    Args:
        row: The row, as a statement or a trigger names it.
    """
    # What SQLite takes out of JSON ends at a NUL: it becomes another character that separates words.
    content, extra = (
        f"CASE WHEN json_valid({row}.{column}) THEN replace({row}.{column}, '\\u0000', '\\ufffd') END"
        for column in ("content", "extra")
    )
    said = " || char(10) || ".join(
        f"coalesce({extra} ->> '$.{name}_transcription.text', '')" for name in ("input", "output")
    )
    return f"""
        substr(coalesce((
            SELECT group_concat(part.value ->> '$.text', char(10)) FROM json_each({content}, '$.parts') AS part
             WHERE part.type = 'object' AND NOT coalesce(part.value ->> '$.thought', 0)
        ), '') || CASE WHEN instr({row}.extra, '_transcription"') THEN char(10) || {said} ELSE '' END, 1, {MAX_TEXT})
    """


# Each character of a script without spaces becomes a pair with the next one, and the last of a run stands alone.
_CUT = f"""
    (WITH RECURSIVE pieces(piece, rest) AS (
        SELECT substr(text, 1, {_PIECE + 1}), substr(text, {_PIECE + 1})
         UNION ALL
        SELECT substr(rest, 1, {_PIECE + 1}), substr(rest, {_PIECE + 1}) FROM pieces WHERE rest <> ''
     )
     SELECT group_concat(CASE WHEN pair GLOB '{RUN_CLASS}{RUN_CLASS}' THEN pair || ' '
                              WHEN pair GLOB '*{RUN_CLASS}*' THEN substr(pair, 1, 1) || ' '
                              ELSE substr(pair, 1, 1) END, '')
       FROM (SELECT substr(piece, place, 2) AS pair
               FROM pieces CROSS JOIN sessiondb_positions WHERE place <= min(length(piece), {_PIECE}) LIMIT -1))
"""


def _words_of(row: str) -> str:
    # SQLite would else evaluate an expression at each place where it is used: a subquery with a LIMIT is left as it is.
    return f"""
        (SELECT CASE WHEN length(text) = length(CAST(text AS BLOB)) OR text NOT GLOB '*{RUN_CLASS}*' THEN text ELSE {_CUT} END
           FROM (SELECT {text_of(row)} AS text LIMIT -1))
    """


def _scope_of(row: str) -> str:
    # Words that no text can have here, since they are in a column of their own: hexadecimal, so that nothing in them separates.
    return f"""
        'a' || hex({row}.app_name) || ' u' || hex({row}.app_name) || 'x' || hex({row}.user_id) || ' s' || {row}.incarnation
    """


def _put(row: str) -> str:
    return f"""
        INSERT INTO {TABLE} (rowid, words, scope)
            SELECT {row}.id, words, {_scope_of(row)} FROM (SELECT {_words_of(row)} AS words LIMIT -1) WHERE words <> '';
    """


def _take_out(row: str) -> str:
    return f"""
        INSERT INTO {TABLE} ({TABLE}, rowid, words, scope)
            SELECT 'delete', {row}.id, words, {_scope_of(row)} FROM (SELECT {_words_of(row)} AS words LIMIT -1)
             WHERE words <> '' AND {_is_indexed(row)};
    """


def _is_indexed(row: str) -> str:
    return f"EXISTS (SELECT 1 FROM sessiondb_index WHERE {row}.id <= built_to OR {row}.id > begun_after)"


_CREATE = (
    "CREATE TABLE sessiondb_positions (place INTEGER PRIMARY KEY)",
    f"""
    INSERT INTO sessiondb_positions
        WITH RECURSIVE places(place) AS (VALUES (1) UNION ALL SELECT place + 1 FROM places WHERE place < {_PIECE})
        SELECT place FROM places
    """,
    # Events up to `begun_after` were there when the index was made; of those it holds the ones up to `built_to`.
    "CREATE TABLE sessiondb_index (begun_after INTEGER NOT NULL, built_to INTEGER NOT NULL)",
    "INSERT INTO sessiondb_index SELECT coalesce(max(id), 0), 0 FROM adk_events",
    # Without the sizes of columns, which ranks of its own would take. Each place in a column that is not the first takes two
    # bytes more: words, of which there are more, come first.
    f"""
    CREATE VIRTUAL TABLE {TABLE} USING fts5(
        words, scope, content = '', columnsize = 0, tokenize = "unicode61 remove_diacritics 2 categories 'L* N* Co Mn Mc'"
    )
    """,
    f"CREATE TRIGGER {TABLE}_added AFTER INSERT ON adk_events BEGIN {_put('NEW')} END",
    f"CREATE TRIGGER {TABLE}_removed AFTER DELETE ON adk_events BEGIN {_take_out('OLD')} END",
    f"""
    CREATE TRIGGER {TABLE}_changed AFTER UPDATE OF id, app_name, user_id, incarnation, content, extra ON adk_events BEGIN
        {_take_out("OLD")}
        {_put("NEW").replace("words <> ''", f"words <> '' AND {_is_indexed('NEW')}")}
    END
    """,
)

_BUILD = f"""
    INSERT INTO {TABLE} (rowid, words, scope)
        SELECT id, words, scope
          FROM (SELECT id, {_scope_of("e")} AS scope, {_words_of("e")} AS words
                  FROM adk_events AS e WHERE id > :built_to AND id <= :to LIMIT -1)
         WHERE words <> ''
"""


def missing(connection: sqlite3.Connection) -> Iterator[tuple[int, str, str, str]]:
    """Yields the ids and sessions of events that an index should hold, and does not."""
    in_index = f"rowid = e.id AND {TABLE} MATCH 'scope : \"s' || e.incarnation || '\"'"
    yield from connection.execute(
        f"SELECT id, app_name, user_id, session_id FROM adk_events AS e WHERE {_is_indexed('e')} AND {text_of('e')} <> ''"
        f" AND NOT EXISTS (SELECT 1 FROM {TABLE} WHERE {in_index})"
    )


def counts(connection: sqlite3.Connection) -> tuple[int, int]:
    """Returns how many events an index holds, as FTS5 has counted them, and how many it should hold."""
    (data,) = connection.execute(f"SELECT block FROM {TABLE}_data WHERE id = 1").fetchone() or (b"",)
    (events,) = connection.execute(
        f"SELECT count(*) FROM adk_events AS e WHERE {_is_indexed('e')} AND {text_of('e')} <> ''"
    ).fetchone()
    return _first_number(data), events


def _first_number(data: bytes) -> int:
    """Reads a number as SQLite writes them: seven bits a byte, the highest first, and another byte follows a set eighth bit."""
    number = 0
    for byte in data[:9]:
        number = number << 7 | byte & 127
        if byte < 128:
            break
    return number


def definitions(connection: sqlite3.Connection) -> dict[str, str]:
    """Returns the names of what belongs to an index, and how it is defined, of a database in memory without one."""
    create(connection)
    found = connection.execute("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL").fetchall()
    return {name: sql for name, sql in found if name in OBJECTS}


def compact(connection: sqlite3.Connection) -> None:
    """Makes one piece of an index, if there is one: what was taken out of it, which was only marked so, is gone then."""
    if exists(connection):
        connection.execute(f"INSERT INTO {TABLE} ({TABLE}) VALUES ('optimize')")


class IndexState(NamedTuple):
    """How far an index is.

    Attributes:
        begun_after: The id of the last event that was there when it was made.
        built_to: The id of the last one of those that it holds.
    """

    begun_after: int
    built_to: int

    @property
    def is_complete(self) -> bool:
        """Whether it holds all events."""
        return self.built_to >= self.begun_after


def exists(connection: sqlite3.Connection) -> bool:
    """Whether a file has an index."""
    found = connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'sessiondb_index' AND type = 'table'")
    return found.fetchone() is not None


def state(connection: sqlite3.Connection) -> IndexState | None:
    """Returns how far the index of a file is; None if it has none."""
    if not exists(connection):
        return None
    return IndexState._make(connection.execute("SELECT begun_after, built_to FROM sessiondb_index").fetchone())


def create(connection: sqlite3.Connection) -> None:
    """Creates an index that holds nothing yet of what is there. In a transaction, which is the caller's.

    Raises:
        ConfigurationError: If this SQLite has no FTS5.
    """
    if connection.execute("SELECT 1 FROM pragma_module_list WHERE name = 'fts5'").fetchone() is None:
        raise ConfigurationError(
            f"index='text' takes SQLite's extension FTS5, which SQLite {sqlite3.sqlite_version} of this Python does not have"
        )
    for statement in _CREATE:
        connection.execute(statement)


def remove(connection: sqlite3.Connection, rows: int) -> bool:
    """Removes a part of the index, in a transaction of its own, and says whether there was anything of it.

    First what makes it an index, at once; then what it holds, by and by: to drop it whole would hold a writer up for seconds.

    Args:
        connection: The connection, in no transaction.
        rows: How many rows to remove, at most; of full ones, which are a page each.
    """
    with transaction(connection):
        if exists(connection):
            for event in _EVENTS:
                connection.execute(f"DROP TRIGGER IF EXISTS {TABLE}_{event}")
            connection.execute("DROP TABLE sessiondb_index")
            return True
        if connection.execute("SELECT 1 FROM sqlite_schema WHERE name = ?", (TABLE,)).fetchone() is None:
            return False
        # The first rows are what FTS5 must find to open the table, and so to drop it.
        data = f"{TABLE}_data"
        done = connection.execute(
            f"DELETE FROM {data} WHERE id IN (SELECT id FROM {data} WHERE id > 10 ORDER BY id DESC LIMIT ?)", (rows,)
        )
        if done.rowcount:
            return True
        connection.execute(f"DROP TABLE {TABLE}")
        connection.execute("DROP TABLE IF EXISTS sessiondb_positions")
        return True


def build(connection: sqlite3.Connection, found: IndexState, events: int) -> IndexState:
    """Adds the next events to the index. In a transaction, which is the caller's.

    Args:
        connection: The connection.
        found: How far the index is, read in this transaction.
        events: How many, at most.

    Returns:
        How far it is now.
    """
    (to,) = connection.execute(
        "SELECT max(id) FROM (SELECT id FROM adk_events WHERE id > ? AND id <= ? ORDER BY id LIMIT ?)",
        (found.built_to, found.begun_after, events),
    ).fetchone()
    # Where there is none any more, the rest is done.
    to = found.begun_after if to is None else to
    connection.execute(_BUILD, {"built_to": found.built_to, "to": to})
    connection.execute("UPDATE sessiondb_index SET built_to = ?", (to,))
    return found._replace(built_to=to)


def check_complete(connection: sqlite3.Connection) -> None:
    """Makes sure that there is an index, and that it can be searched.

    Raises:
        SearchIndexError: If not.
    """
    found = state(connection)
    if found is None:
        raise SearchIndexError(NO_INDEX)
    if not found.is_complete:
        raise SearchIndexError(BEING_BUILT)
