"""Searching what was said."""

from __future__ import annotations

from sessiondb import telemetry
from sessiondb.adk.limits import check_count, check_moment, check_text
from sessiondb.calls.base import Calls, stripped
from sessiondb.errors import InvalidInputError
from sessiondb.model.cursors import decode_search_place, encode_place
from sessiondb.model.queries import SearchEvents
from sessiondb.model.records import Selection
from sessiondb.model.search import MATCHES, FoundPage, Match, SearchPage, terms_of
from sessiondb.model.words import MAX_QUERY, Term


class Search(Calls):
    """Calls that search."""

    @telemetry.operation
    async def search(
        self,
        query: str,
        *,
        app_name: str | None = None,
        user_id: str | None = None,
        session_id: str | None = None,
        author: str | None = None,
        since: float | None = None,
        until: float | None = None,
        match: Match = "all",
        limit: int = 20,
        after: str | None = None,
    ) -> SearchPage:
        """Finds events by the words of their texts: what people and models have said, transcriptions of speech included.

        It takes an index (see ``index``). What a tool was called with or has returned is not searched, and neither are
        thoughts. Case and accents make no difference. Words in double quotes must follow each other; ``*`` behind three letters
        or more stands for any end of the word. All else is a separator: there are no operators, and no query is wrong. Texts
        without spaces between words, such as Chinese, Japanese and Thai ones, are found by any part of them.

        The best hits come first: those that have the words often, and little else. The 500 newest hits are ranked with
        each other; the next pages go on with the 500 before them. Hits that were not there for the first page are on none.

        Args:
            query: What to look for. Without a letter or digit it finds nothing.
            app_name: Only this app's; None: all apps. Whoever serves several tenants names app and user in each call.
            user_id: Only this user's; None: all users.
            session_id: Only sessions of this id, stripped of white space around it; None: all sessions.
            author: Only events of this author.
            since: Only events at or after this moment, in seconds since the epoch.
            until: Only events before this moment, in seconds since the epoch.
            match: ``"all"``: each word or phrase of the query must be there. ``"any"``: one is enough; then the newest hits
                of each are ranked, rare words count more, and of the query its 64 longest words do.
            limit: At most so many hits, from 1.
            after: Where to go on: what ``next`` of the page before was, for a call with the same other arguments.

        Returns:
            The page.

        Raises:
            SearchIndexError: If there is no index, or it is being built; the message says how to make one.
            InvalidInputError: If an argument cannot be one; a query of more than 65,536 characters, among others.
        """
        asked = SearchEvents(
            Selection(
                None if app_name is None else check_text("app_name", app_name),
                None if user_id is None else check_text("user_id", user_id),
                None if session_id is None else check_text("session_id", stripped(session_id)),
            ),
            _checked_terms(query, match),
            match,
            check_count("limit", limit),
            author=None if author is None else check_text("author", author),
            since=check_moment("since", since),
            until=check_moment("until", until),
            after=decode_search_place(after),
        )
        found, place = await self._found(asked)
        return SearchPage([one.hit for one in found], None if place is None else encode_place(place))

    async def _found(self, asked: SearchEvents) -> FoundPage:
        """Answers a query, of which all is checked; MemoryService has its own."""
        return await self._engine.read(asked, _as_it_is)


def _as_it_is(page: FoundPage) -> FoundPage:
    return page


def _checked_terms(query: str, match: Match) -> tuple[Term, ...]:
    if not isinstance(query, str):
        raise InvalidInputError(f"query must be a string, not {type(query).__name__}")
    if len(query) > MAX_QUERY:
        raise InvalidInputError(f"query has {len(query):,} characters; at most {MAX_QUERY:,} can be looked for")
    if match not in MATCHES:
        raise InvalidInputError(f"match must be one of {', '.join(map(repr, MATCHES))}, not {match!r}")
    return terms_of(query, match)
