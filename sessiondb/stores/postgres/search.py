"""SQL that searches the texts of events."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from sessiondb.errors import SearchIndexError
from sessiondb.model.memory import EVENT_MARK, MEMORY_SESSION_ID, SESSION_MARK
from sessiondb.model.queries import SearchEvents
from sessiondb.model.records import EventRow, Selection, SessionKey
from sessiondb.model.search import BEING_BUILT, NO_INDEX, WINDOW, Candidate, Found, FoundPage, each_of_any, find_page
from sessiondb.stores.postgres import text_index
from sessiondb.stores.postgres.asked import Asked
from sessiondb.stores.postgres.sql import EVENT_ROW, KEY, THIS_SESSION, where_clause

_FEW = 1_000
"""So many hits are looked up at once, if they are expected where nobody has looked yet."""

_SMALL = 10_000
"""A session or a user of so many events is not searched block by block."""

_WIDENING = 16
"""So many times the numbers that were looked at let expect what is in others, at most: words come and go."""

_MOST_BLOCKS = 32

# An index of words is read as a bitmap, which readers do without otherwise.
_SETTINGS = """
    SELECT set_config('enable_bitmapscan', 'on', true), set_config('enable_indexscan', 'off', true),
           set_config('enable_indexonlyscan', 'off', true)
"""

_FOLDED = (
    "SELECT @sessiondb_folded_1(given) FROM unnest(%(given)s::text[]) WITH ORDINALITY AS t(given, place) ORDER BY place"
)

_MARK = f"""
    FROM @adk_state AS m
   WHERE m.app_name = e.app_name AND m.user_id = e.user_id AND m.session_id = '{MEMORY_SESSION_ID}' AND m.scope = 'SESSION'
     AND m.state_key =
"""
# Both moments are texts of one form.
_IS_REMEMBERED = f"""
    coalesce((SELECT m.state_value = 'true' {_MARK} '{EVENT_MARK}' || e.event_id),
             (SELECT m.state_value COLLATE "C" >= '"' || e.timestamp || '"' {_MARK} '{SESSION_MARK}' || e.session_id), false)
"""


def search_events(asked: Asked, query: SearchEvents) -> FoundPage:
    """Answers a query.

    Raises:
        SearchIndexError: If the schema has no index, or one that is not complete.
        psycopg.Error: If the server refuses.
    """
    with asked.snapshot():
        is_complete = text_index.is_complete(asked.connection, asked.schema)
        if not is_complete:
            raise SearchIndexError(NO_INDEX if is_complete is None else BEING_BUILT)
        scope = _scope(asked, query)
        if not query.terms or scope is None:
            return FoundPage([], None)
        last_id = None if _is_small(asked, query.selection) else asked.one("SELECT @sessiondb_last_id_1()", {})[0]
        search = _Search(asked, query, scope, last_id)
        asked.connection.execute(_SETTINGS)
        page, place = find_page(search.window, query.terms, query.match, query.limit, query.after)
        if not query.with_rows:
            return FoundPage([Found(hit) for _, hit in page], place)
        found = []
        for _, hit in page:
            key = {"app_name": hit.app_name, "user_id": hit.user_id, "session_id": hit.session_id, "seq": hit.seq}
            row = asked.one(f"SELECT {EVENT_ROW} FROM @adk_events WHERE {THIS_SESSION} AND seq = %(seq)s", key)
            found.append(Found(hit, EventRow._make(row)))
        return FoundPage(found, place)


def _scope(asked: Asked, query: SearchEvents) -> list[str] | None:
    """Returns the words by which the server finds what is of an app, user or session; None if there is no such session.

    What they do not say, conditions do: they are there all the same.
    """
    app_name, user_id, session_id = query.selection
    parameters = query.selection._asdict()
    if app_name is None:
        return []
    if user_id is None:
        scope = text_index.word_of("app", app_name="%(app_name)s::text")
    elif session_id is None:
        scope = text_index.word_of("user", app_name="%(app_name)s::text", user_id="%(user_id)s::text")
    else:
        scope = text_index.word_of("session", incarnation="incarnation")
        found = asked.all(f"SELECT {scope} FROM @adk_sessions WHERE {THIS_SESSION}", parameters)
        return [str(found[0][0])] if found else None
    return [str(asked.one(f"SELECT {scope}", parameters)[0])]


def _is_small(asked: Asked, selection: Selection) -> bool:
    """Whether a session, or a user with few of them, has few events. Those that were cut off count, too."""
    if selection.user_id is None:
        return False
    (is_small,) = asked.one(
        f"SELECT count(*) < 200 AND coalesce(sum(last_seq), 0) <= {_SMALL}"
        f" FROM (SELECT last_seq FROM @adk_sessions {where_clause(selection)} LIMIT 200) AS s",
        selection._asdict(),
    )
    return bool(is_small)


class _Search:
    """A query in the words of the server."""

    def __init__(self, asked: Asked, query: SearchEvents, scope: list[str], last_id: int | None) -> None:
        """Asks how the server writes the words.

        Args:
            asked: The server.
            query: The query.
            scope: The words of the app, user or session.
            last_id: The last number that a row may have; None: all rows that fit are looked up at once.
        """
        self._asked = asked
        self._query = query
        words = asked.all(_FOLDED, {"given": [term.words for term in query.terms]})
        texts = asked.all(_FOLDED, {"given": [term.text for term in query.terms]})
        self._scope = [_lexeme(word) for word in scope]
        self._last_id = last_id
        self._queries: list[str] = []
        self._phrases: list[str | None] = []
        for term, (found,), (text,) in zip(query.terms, words, texts, strict=True):
            lexemes = [_lexeme(word) for word in found.split()]
            if term.prefix and lexemes:
                lexemes[-1] += ":*"
            self._queries.append(" & ".join(lexemes))
            # The index knows no places: what holds all words of a phrase is looked at.
            phrase = " ".join(text.split())
            before = "" if term.begins_with_run else " "
            after = "" if term.prefix or term.ends_with_run else " "
            self._phrases.append(f"{before}{phrase}{after}" if len(lexemes) > 1 else None)

    def window(self, newest: int | None) -> Sequence[Candidate]:
        """Gives what fits, for :func:`~sessiondb.model.search.find_page`."""
        if self._query.match == "all":
            phrases = [phrase for phrase in self._phrases if phrase is not None]
            return self._newest(self._queries, phrases, newest, WINDOW)
        found: dict[int, Candidate] = {}
        for term, phrase in zip(self._queries, self._phrases, strict=True):
            phrases = [] if phrase is None else [phrase]
            for candidate in self._newest([term], phrases, newest, each_of_any(len(self._queries))):
                found[candidate.row_id] = candidate
        return sorted(found.values(), reverse=True)

    def _newest(self, terms: list[str], phrases: list[str], newest: int | None, limit: int) -> list[Candidate]:
        """Returns the newest events that fit, the newest first.

        The server finds all events with a word before it sorts them. So where there may be many it is asked for those of the
        newest blocks first, and then of as many as what was found lets expect to suffice.
        """
        # A term of which the server knows no letter as one is in no text.
        if not all(terms):
            return []
        if self._last_id is None:
            return self._look_up(terms, phrases, [], None if newest is None else newest + 1, limit)
        top = below = 1 + (self._last_id if newest is None else newest)
        found: list[Candidate] = []
        size, blocks = text_index.BLOCK, 2
        while True:
            last = (below - 1) // size
            first = max(last - blocks + 1, 0)
            words = text_index.words_of_blocks(size, first, last)
            found += self._look_up(terms, phrases, words, below, limit - len(found))
            below = first * size
            if len(found) >= limit or below <= 0:
                return found
            looked_at = top - below
            numbers_a_hit = looked_at / (1 + len(found))
            if below <= min(looked_at * _WIDENING, numbers_a_hit * _FEW):
                return found + self._look_up(terms, phrases, [], below, limit - len(found))
            size = text_index.LARGE_BLOCK
            wanted = min(1.5 * (limit - len(found)) * numbers_a_hit, looked_at * _WIDENING, _MOST_BLOCKS * size)
            blocks = math.ceil(wanted / size)

    def _look_up(
        self, terms: list[str], phrases: list[str], blocks: list[str], below: int | None, limit: int
    ) -> list[Candidate]:
        """Returns the newest of those events that fit that are in one of some blocks, in any if none are named."""
        query = self._query
        words = [*self._scope, *terms]
        if blocks:
            words.append(f"({' | '.join(map(_lexeme, blocks))})")
        parameters: dict[str, Any] = {
            **query.selection._asdict(),
            "author": query.author,
            "since": query.since,
            "until": query.until,
            "below": below,
            "words": " & ".join(words),
            "phrases": phrases,
            "limit": limit,
        }
        where = where_clause(
            query.selection,
            "" if below is None else "id < %(below)s",
            "" if query.author is None else "author = %(author)s",
            "" if query.since is None else "event_time >= %(since)s",
            "" if query.until is None else "event_time < %(until)s",
            _IS_REMEMBERED if query.remembered else "",
            "(SELECT bool_and(strpos(@sessiondb_phrases_1(content, extra), phrase) > 0) FROM unnest(%(phrases)s::text[]) AS t(phrase))"
            if phrases
            else "",
        )
        # The index of words must be the one that is used, whatever the planner knows of the columns: what they say is asked
        # of what it finds.
        rows = self._asked.all(
            f"SELECT id, {KEY}, event_id, seq, author, event_time, @sessiondb_text_1(content, extra)"
            f" FROM (SELECT * FROM @adk_events WHERE {text_index.VECTOR} @@ %(words)s::tsquery OFFSET 0) AS e"
            f" {where} ORDER BY id DESC LIMIT %(limit)s",
            parameters,
        )
        return [Candidate(row[0], SessionKey(*row[1:4]), *row[4:]) for row in rows]


def _lexeme(word: str) -> str:
    return "'" + word.replace("\\", "\\\\").replace("'", "''") + "'"
