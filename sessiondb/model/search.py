"""What a search finds, in which order, and what is shown of it."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias, get_args

from sessiondb.model.records import EventRow, SessionKey
from sessiondb.model.words import Term, fold, parse

Match: TypeAlias = Literal["all", "any"]
MATCHES: tuple[Match, ...] = get_args(Match)

WINDOW = 500
"""So many hits, the newest, are ranked with each other; then the next ones."""

MOST_WORDS_OF_ANY = 64
"""So many different words of a query are looked for if any will do, the longest."""

_FEWEST = 8

_RANKED_BY = 16
"""Terms that a rank is made of."""

_SNIPPET = 160
_BEFORE = 50

NO_INDEX = (
    "there is no index of texts to search in: open the service with index='text', or make one with `sessiondb index`"
)

BEING_BUILT = (
    "the index of texts is not complete: it is being built, and can be searched when that is done. If nobody is at it,"
    " `sessiondb index` goes on with it"
)


def terms_of(query: str, match: Match) -> tuple[Term, ...]:
    """Returns what of a query is looked for."""
    terms = parse(query)
    if match == "all" or len(terms) <= MOST_WORDS_OF_ANY:
        return terms
    return tuple(sorted(terms, key=lambda term: -len(term.text))[:MOST_WORDS_OF_ANY])


def each_of_any(terms: int) -> int:
    """Returns how many hits of each term are ranked if any will do: the newest, so that rare terms have a place beside others."""
    return max(WINDOW // terms, _FEWEST)


@dataclass(frozen=True, slots=True)
class SearchHit:
    """An event that was found.

    Attributes:
        app_name: Its app.
        user_id: Its user.
        session_id: Its session.
        event_id: Its id.
        seq: Its number in the log of the session.
        author: Its author.
        time: Its timestamp, in seconds since the epoch.
        snippet: Some 160 characters of its text around what was found, white space made one blank.
        rank: How well it fits, above 0; more is better. It says something beside the ranks of the same query only.
    """

    app_name: str
    user_id: str
    session_id: str
    event_id: str
    seq: int
    author: str
    time: float
    snippet: str
    rank: float


@dataclass(frozen=True, slots=True)
class SearchPage:
    """A page of hits.

    Attributes:
        hits: The hits, the best first, of equal ones the newest first.
        next: The cursor of what follows, for ``after`` of another call; None if nothing does. It is a text to be passed on
            as it is.
    """

    hits: list[SearchHit]
    next: str | None


class Candidate(NamedTuple):
    """An event that fits, with the text by which it is ranked."""

    row_id: int
    key: SessionKey
    event_id: str
    seq: int
    author: str
    time: float
    text: str


class SearchPlace(NamedTuple):
    """A place in the ranking of hits: behind a hit, among those that are not newer than a certain one.

    Attributes:
        newest: The row id of the newest one.
        rank: Of the hit.
        row_id: Of the hit.
    """

    newest: int
    rank: float
    row_id: int


class Found(NamedTuple):
    """A hit as a store gives it.

    Attributes:
        hit: The hit.
        row: The event, if events were asked for.
    """

    hit: SearchHit
    row: EventRow | None = None


class FoundPage(NamedTuple):
    """Hits as a store gives them, and where to go on; None: there are no more."""

    found: list[Found]
    next: SearchPlace | None


def find_page(
    window: Callable[[int | None], Sequence[Candidate]],
    terms: Sequence[Term],
    match: Match,
    limit: int,
    after: SearchPlace | None,
) -> tuple[list[tuple[int, SearchHit]], SearchPlace | None]:
    """Ranks what a store finds, window by window, until a page is full.

    Args:
        window: Gives what fits, the newest first, none newer than a row id if one is given: :data:`WINDOW` of it if there
            are so many and all terms must be there; if any will do, all that is to be ranked.
        terms: What is looked for.
        match: Whether all of it must be there.
        limit: How many hits are wanted.
        after: Behind which place.

    Returns:
        The hits, each behind its row id, and where to go on; None: there are no more.
    """
    page: list[tuple[int, SearchHit]] = []
    newest = None if after is None else after.newest
    while True:
        candidates = window(newest)
        if not candidates:
            return page, None
        newest = candidates[0].row_id if newest is None else newest
        ranked = _ranked(candidates, terms, match)
        if after is not None:
            ranked = [one for one in ranked if (-one[0], -one[1].row_id) > (-after.rank, -after.row_id)]
            after = None
        for rank, candidate in ranked:
            if len(page) == limit:
                return page, SearchPlace(newest, page[-1][1].rank, page[-1][0])
            page.append((candidate.row_id, _hit(candidate, rank, terms)))
        if match == "any" or len(candidates) < WINDOW:
            return page, None
        newest = candidates[-1].row_id - 1
        if len(page) == limit:
            return page, SearchPlace(newest, math.inf, 0)


def _ranked(candidates: Sequence[Candidate], terms: Sequence[Term], match: Match) -> list[tuple[float, Candidate]]:
    """Ranks by how often each term is in a text, in proportion to its length.

    If any will do, a term that is in few of them counts more. Nothing else enters: what is stored beside does not show.
    """
    patterns = [re.compile(term.expression) for term in terms[: _RANKED_BY if match == "all" else None]]
    counted = [[len(pattern.findall(text)) for pattern in patterns] for text in (fold(c.text) for c in candidates)]
    weights = [1.0] * len(patterns)
    if match == "any":
        holders = Counter(n for counts in counted for n, count in enumerate(counts) if count)
        weights = [
            math.log(1 + (len(candidates) - holders[n] + 0.5) / (holders[n] + 0.5)) for n in range(len(patterns))
        ]
    ranked = []
    for candidate, counts in zip(candidates, counted, strict=True):
        damping = 0.3 + 0.9 * len(candidate.text) / 500
        rank = sum(weight * 2.2 * n / (n + damping) for weight, n in zip(weights, counts, strict=True) if n)
        # What the index takes for equal may differ here: it fits all the same.
        ranked.append((round(max(rank, 0.01), 2), candidate))
    ranked.sort(key=lambda one: (-one[0], -one[1].row_id))
    return ranked


def _hit(candidate: Candidate, rank: float, terms: Sequence[Term]) -> SearchHit:
    return SearchHit(
        *candidate.key, candidate.event_id, candidate.seq, candidate.author, candidate.time,
        _snippet(candidate.text, terms), rank,
    )  # fmt: skip


def _snippet(text: str, terms: Sequence[Term]) -> str:
    folded = fold(text)
    first = next(filter(None, (re.search(term.expression, folded) for term in terms[:_RANKED_BY])), None)
    at = 0 if first is None else _position(text, folded, first.start())
    start = max(at - _BEFORE, 0)
    if start:
        # From the begin of a word, if one begins there.
        blank = text.find(" ", start, at)
        start = start if blank < 0 else blank + 1
    end = start + _SNIPPET
    if end < len(text):
        blank = text.rfind(" ", at + 1, end)
        end = end if blank < 0 else blank
    shown = " ".join(text[start:end].split())
    return f"{'…' if start else ''}{shown}{'…' if end < len(text) else ''}"


def _position(text: str, folded: str, at: int) -> int:
    """Returns where in a text something is that is at a place of what :func:`fold` has made of it."""
    if len(folded) == len(text):
        return at
    passed = 0
    for place, character in enumerate(text):
        passed += len(fold(character))
        if passed > at:
            return place
    return len(text)
