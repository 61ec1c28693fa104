r"""The index of texts on a server: an expression over each event, which the server keeps as it keeps every index.

What an event is found by is a function of its row. Case, accents and what separates words are dealt with in SQL, by ranges of
characters, so that it does not depend on the language of the server; its own parser then finds letters, digits and blanks only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from sessiondb.errors import ConfigurationError
from sessiondb.logger import logger
from sessiondb.model.search import NO_INDEX
from sessiondb.model.words import MAX_TEXT, RUN_CLASS
from sessiondb.stores.postgres import schema

INDEX = "adk_events_text"

_SEPARATORS = (
    "[^ 0-9A-Za-z\u00aa\u00b2\u00b3\u00b5\u00b9-\u00ba\u00bc-\u00be\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u1fff"
    "\u2070-\u209c\u2c00-\u2dff\u3005-\u3007\u3021-\u3029\u3031-\u3035\u3038-\u303c\u3041-\u30fa\u30fc-\ud7ff\uf900-\ufdff"
    "\ufe70-\ufefc\uff10-\uff19\uff21-\uff3a\uff41-\uff5a\uff66-\uffdc\U00010000-\U0001cfff\U0001e000-\U0001efff"
    "\U00020000-\U0003ffff]+"
)
_NO_RUN = f"[^{RUN_CLASS[1:]}"
_LONGEST_WORD = 250

# The collation is there wherever the server was built with ICU, or else that of the database serves.
# An index over the words alone, without their places, takes the server a quarter of the time: phrases are looked for in the texts
# that hold their words. Likewise blanks, of which there are many, are left as they are: each match of an expression costs.
FUNCTIONS = f"""
CREATE OR REPLACE FUNCTION @sessiondb_text_1(p_content text, p_extra text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    v_text text;
    v_extra jsonb;
BEGIN
    v_text := coalesce((
        SELECT string_agg(part ->> 'text', E'\\n') FROM jsonb_array_elements(
            replace(p_content, '\\u0000', '\\ufffd')::jsonb -> 'parts'
        ) AS part WHERE part -> 'thought' IS DISTINCT FROM 'true'::jsonb
    ), '');
    IF strpos(p_extra, '_transcription"') > 0 THEN
        v_extra := replace(p_extra, '\\u0000', '\\ufffd')::jsonb;
        v_text := v_text || E'\\n' || coalesce(v_extra -> 'input_transcription' ->> 'text', '')
            || E'\\n' || coalesce(v_extra -> 'output_transcription' ->> 'text', '');
    END IF;
    RETURN left(v_text, {MAX_TEXT});
EXCEPTION WHEN data_exception THEN
    -- What is no such JSON was edited by hand: it has no text.
    RETURN '';
END $$;
CREATE OR REPLACE FUNCTION @sessiondb_folded_1(p_text text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF octet_length(p_text) = length(p_text) THEN
        p_text := regexp_replace(lower(p_text COLLATE "C"), '[^0-9a-z ]+', ' ', 'g');
    ELSE
        p_text := regexp_replace(normalize(p_text, NFD), '[\u0300-\u036f]+', '', 'g');
        p_text := regexp_replace(lower(normalize(p_text, NFC)@collation), '{_SEPARATORS}', ' ', 'g');
        IF p_text ~ '{RUN_CLASS}' THEN
            p_text := regexp_replace(p_text, '({RUN_CLASS}+)', ' \\1 ', 'g');
        END IF;
    END IF;
    -- A lexeme has at most 2046 bytes.
    IF length(p_text) > {_LONGEST_WORD} THEN
        p_text := regexp_replace(p_text, '([^ ]{{{_LONGEST_WORD}}})[^ ]+', '\\1', 'g');
    END IF;
    RETURN p_text;
END $$;
CREATE OR REPLACE FUNCTION @sessiondb_vector_1(
    p_app_name text, p_user_id text, p_incarnation bigint, p_id bigint, p_content text, p_extra text
) RETURNS tsvector LANGUAGE plpgsql IMMUTABLE COST 10000 AS $$
DECLARE
    v_text text := @sessiondb_text_1(p_content, p_extra);
    v_runs text;
    v_pairs text[];
BEGIN
    IF v_text = '' THEN
        RETURN '';
    END IF;
    v_text := @sessiondb_folded_1(v_text);
    IF octet_length(v_text) > length(v_text) AND v_text ~ '{RUN_CLASS}' THEN
        v_runs := regexp_replace(v_text, '{_NO_RUN}+', ' ', 'g');
        v_text := regexp_replace(v_text, '{RUN_CLASS}+', ' ', 'g');
        v_pairs := (
            SELECT array_agg(rtrim(a || coalesce(b, '')))
              FROM unnest(string_to_array(v_runs, NULL), string_to_array(substr(v_runs, 2), NULL)) AS pair(a, b)
             WHERE a <> ' '
        );
    END IF;
    RETURN array_to_tsvector(array_remove(string_to_array(v_text, ' '), '') || v_pairs || ARRAY[
        @word_of_app, @word_of_user, @word_of_session, @word_of_block, @word_of_large_block
    ]);
END $$;
CREATE OR REPLACE FUNCTION @sessiondb_phrases_1(p_content text, p_extra text) RETURNS text
    LANGUAGE sql IMMUTABLE AS $$
    SELECT regexp_replace(' ' || @sessiondb_folded_1(@sessiondb_text_1(p_content, p_extra)) || ' ', ' +', ' ', 'g')
$$;
-- Whoever may call it may know it: a role that reads the table has no right on the sequence.
CREATE OR REPLACE FUNCTION @sessiondb_last_id_1() RETURNS bigint
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog AS $$
    SELECT last_value FROM @adk_events_id_seq
$$;
"""

BLOCK = 4_096
LARGE_BLOCK = 16 * BLOCK
"""Events are found by the block of numbers that theirs is in, too: so the newest that fit are found without all others."""

_WORDS = {
    # No word of a text begins with a slash. What has the same number by chance is told apart by the columns themselves.
    "app": "'/a' || hashtextextended({app_name}, 0)",
    "user": "'/u' || hashtextextended({user_id}, hashtextextended({app_name}, 0))",
    "session": "'/s' || {incarnation}",
    "block": f"'/b' || {{id}} / {BLOCK}",
    "large_block": f"'/l' || {{id}} / {LARGE_BLOCK}",
}


def word_of(what: str, **values: str) -> str:
    """Returns SQL for the word by which the events of an app, a user or a session are found."""
    return _WORDS[what].format_map(values)


def words_of_blocks(size: int, first: int, last: int) -> list[str]:
    """Returns the words by which events are found that are in one of some blocks, of either size."""
    initial = {BLOCK: "b", LARGE_BLOCK: "l"}[size]
    return [f"/{initial}{number}" for number in range(first, last + 1)]


def _functions(schema_name: str, collation: str | None) -> str:
    text = FUNCTIONS.replace("@collation", "" if collation is None else f" COLLATE {schema.quoted(collation)}")
    parameters = {name: f"p_{name}" for name in ("app_name", "user_id", "incarnation", "id")}
    for what in _WORDS:
        text = text.replace(f"@word_of_{what}", word_of(what, **parameters))
    return schema.rendered(text, schema_name)


VECTOR = "@sessiondb_vector_1(app_name, user_id, incarnation, id, content, extra)"
"""What is indexed of a row."""

_COLLATION = """
    SELECT collname FROM pg_collation AS c, unnest(%(known)s::text[]) WITH ORDINALITY AS known(name, place)
     WHERE collname = name AND collnamespace = 'pg_catalog'::regnamespace
       AND collencoding IN (-1, pg_char_to_encoding(getdatabaseencoding()))
     ORDER BY place LIMIT 1
"""
# Letters of all scripts have a small form in these.
_COLLATIONS = ["und-x-icu", "pg_unicode_fast", "pg_c_utf8", "C.utf8", "C.UTF-8", "en_US.utf8"]

_PARTS = """
    SELECT n.nspname, c.relname FROM pg_partition_tree(%(table)s::regclass) AS t
      JOIN pg_class AS c ON c.oid = t.relid JOIN pg_namespace AS n ON n.oid = c.relnamespace
     WHERE t.isleaf AND t.level > 0 ORDER BY c.oid
"""


def is_complete(connection: psycopg.Connection, schema_name: str) -> bool | None:
    """Whether the index can be searched; None if there is none."""
    found = connection.execute(
        "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(%s)", (_qualified(schema_name, INDEX),)
    ).fetchone()
    return None if found is None else bool(found[0])


def create_if_empty(connection: psycopg.Connection, schema_name: str, name: str) -> None:
    """Creates the index, if it is missing and there are no events yet: to make it of many takes a while.

    Args:
        connection: Whose transactions commit by themselves.
        schema_name: The schema.
        name: What messages call the database.

    Raises:
        ConfigurationError: If the role may not create it.
        psycopg.Error: If the server refuses otherwise.
    """
    if is_complete(connection, schema_name) is not None:
        return
    events = schema.run(connection, schema.rendered("SELECT FROM @adk_events LIMIT 1", schema_name))
    if events.fetchone() is not None:
        logger.warning("index_missing", path=name, hint=NO_INDEX)
        return
    with allowed(name), connection.transaction():
        schema.take_init_lock(connection)
        # Another host may have been first.
        if is_complete(connection, schema_name) is None:
            create_functions(connection, schema_name)
            schema.run(
                connection, schema.rendered(f"CREATE INDEX {INDEX} ON @adk_events USING gin ({VECTOR})", schema_name)
            )


def create_functions(connection: psycopg.Connection, schema_name: str) -> None:
    """Creates what the index is made by."""
    found = connection.execute(_COLLATION, {"known": _COLLATIONS}).fetchone()
    schema.run(connection, _functions(schema_name, None if found is None else str(found[0])))


def drop(connection: psycopg.Connection, schema_name: str) -> bool:
    """Removes the index and what it was made by, and says whether there was one."""
    was_there = is_complete(connection, schema_name) is not None
    divided = parts(connection, schema_name)
    # That of a divided table cannot be dropped beside others: it takes a lock, for a moment.
    how = "" if divided else "CONCURRENTLY "
    schema.run(connection, schema.rendered(f"DROP INDEX {how}IF EXISTS @{INDEX}", schema_name))
    for of_part, part in divided:
        # An attempt that was ended may have left some.
        index = f"{schema.quoted(of_part)}.{schema.quoted(f'{part}_text')}"
        was_there |= connection.execute("SELECT to_regclass(%s) IS NOT NULL", (index,)).fetchone() == (True,)
        schema.run(connection, f"DROP INDEX CONCURRENTLY IF EXISTS {index}")
    for function in reversed(_FUNCTION_NAMES):
        schema.run(connection, schema.rendered(f"DROP FUNCTION IF EXISTS @{function}", schema_name))
    return was_there


_FUNCTION_NAMES = re.findall(r"CREATE OR REPLACE FUNCTION @(\w+)", FUNCTIONS)


def parts(connection: psycopg.Connection, schema_name: str) -> list[tuple[str, str]]:
    """Returns the schemas and names of the parts of a divided table of events."""
    table = schema.rendered("@adk_events", schema_name)
    return [(str(row[0]), str(row[1])) for row in connection.execute(_PARTS, {"table": table}).fetchall()]


@contextmanager
def allowed(name: str) -> Iterator[None]:
    """Says what to do where a role may not create the index.

    Raises:
        ConfigurationError: In place of the server's refusal.
    """
    try:
        yield
    except psycopg.errors.InsufficientPrivilege as error:
        raise ConfigurationError(
            f"the role may not make or drop the index of texts on {name}: the role that owns the tables does, with"
            f" `sessiondb index` and its URL ({error.diag.message_primary})"
        ) from error


def _qualified(schema_name: str, name: str) -> str:
    return f"{schema.quoted(schema_name)}.{schema.quoted(name)}"
