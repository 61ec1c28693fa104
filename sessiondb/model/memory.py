"""What is remembered of a user's sessions is noted in the state of a session of the same user; and what a question asks for."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from itertools import pairwise

from sessiondb.model.words import RUN_CLASS

MEMORY_SESSION_ID = "sessiondb:memory"
"""The session that notes it. Its log holds what is remembered and in no other log."""

SESSION_MARK = "session:"
"""Begins the state key that ends with a session's id. Its value is a moment, as the column ``timestamp`` has it: events of that
session up to then are remembered."""

EVENT_MARK = "event:"
"""Begins the state key that ends with an event's id. Its value, true or false, says whether the event is remembered, whatever
its session's mark says."""

MAX_QUESTION = 10_000
"""So many characters of a question are looked at, the first ones."""

_RUN = re.compile(f"({RUN_CLASS}+)")
_WORD = re.compile(r"[^\W_]+")
_SHORTEST_BEGIN = 4
_LONG = 6
_FIRST_HAN, _LAST_HAN = "\u4e00", "\u9fff"


def words_of(question: str) -> str:
    """Returns a question as a query for any of its words, each once.

    A word stands for all that begin with it, so that other forms of it are found; a long one without its last letter. A run of a
    script without spaces holds more than one word, and nobody says where they begin. So all pairs of neighbours are looked for,
    and each Chinese character alone, since many a noun is no longer.
    """
    return " ".join(dict.fromkeys(_pieces(unicodedata.normalize("NFC", question[:MAX_QUESTION]))))


def _pieces(question: str) -> Iterator[str]:
    for n, part in enumerate(_RUN.split(question)):
        if n % 2 == 0:
            yield from map(_begin, _WORD.findall(part))
            continue
        yield from (a + b for a, b in pairwise(part))
        yield from (character for character in part if _FIRST_HAN <= character <= _LAST_HAN or len(part) == 1)


def _begin(word: str) -> str:
    if len(word) < _SHORTEST_BEGIN:
        return word
    return f"{word if len(word) < _LONG else word[:-1]}*"
