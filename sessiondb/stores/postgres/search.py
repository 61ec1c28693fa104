"""SQL that searches the texts of events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sessiondb.errors import SearchIndexError
from sessiondb.model.memory import EVENT_MARK, MEMORY_SESSION_ID, SESSION_MARK
from sessiondb.model.queries import SearchEvents
from sessiondb.model.records import EventRow, SessionKey
from sessiondb.model.search import BEING_BUILT, NO_INDEX, WINDOW, Candidate, Found, FoundPage, each_of_any, find_page
from sessiondb.stores.postgres import text_index
from sessiondb.stores.postgres.asked import Asked
from sessiondb.stores.postgres.sql import EVENT_ROW, KEY, THIS_SESSION, where_clause

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
        search = _Search(asked, query, scope)
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
        scope = text_index.scope_of("app", app_name="%(app_name)s::text")
    elif session_id is None:
        scope = text_index.scope_of("user", app_name="%(app_name)s::text", user_id="%(user_id)s::text")
    else:
        scope = text_index.scope_of("session", incarnation="incarnation")
        found = asked.all(f"SELECT {scope} FROM @adk_sessions WHERE {THIS_SESSION}", parameters)
        return [str(found[0][0])] if found else None
    return [str(asked.one(f"SELECT {scope}", parameters)[0])]


class _Search:
    """A query in the words of the server."""

    def __init__(self, asked: Asked, query: SearchEvents, scope: list[str]) -> None:
        self._asked = asked
        self._query = query
        words = asked.all(_FOLDED, {"given": [term.words for term in query.terms]})
        texts = asked.all(_FOLDED, {"given": [term.text for term in query.terms]})
        self._scope = [_lexeme(word) for word in scope]
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

    def _newest(self, terms: list[str], phrases: list[str], newest: int | None, limit: int) -> Sequence[Candidate]:
        query = self._query
        # A term of which the server knows no letter as one is in no text.
        if not all(terms):
            return []
        parameters: dict[str, Any] = {
            **query.selection._asdict(),
            "author": query.author,
            "since": query.since,
            "until": query.until,
            "newest": newest,
            "words": " & ".join([*self._scope, *terms]),
            "phrases": phrases,
            "limit": limit,
        }
        where = where_clause(
            query.selection,
            f"{text_index.VECTOR} @@ %(words)s::tsquery",
            "" if query.author is None else "author = %(author)s",
            "" if query.since is None else "event_time >= %(since)s",
            "" if query.until is None else "event_time < %(until)s",
            "" if newest is None else "id <= %(newest)s",
            _IS_REMEMBERED if query.remembered else "",
            "(SELECT bool_and(strpos(@sessiondb_phrases_1(content, extra), phrase) > 0) FROM unnest(%(phrases)s::text[]) AS t(phrase))"
            if phrases
            else "",
        )
        rows = self._asked.all(
            f"SELECT id, {KEY}, event_id, seq, author, event_time, @sessiondb_text_1(content, extra)"
            f" FROM @adk_events AS e {where} ORDER BY id DESC LIMIT %(limit)s",
            parameters,
        )
        return [Candidate(row[0], SessionKey(*row[1:4]), *row[4:]) for row in rows]


def _lexeme(word: str) -> str:
    return "'" + word.replace("\\", "\\\\").replace("'", "''") + "'"
