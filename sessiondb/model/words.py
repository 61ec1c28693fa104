"""What a text is cut into to be searched, and what a query asks for.

Words are runs of letters and digits; case and accents make no difference. Scripts that are written without spaces (Chinese,
Japanese, Thai and their like; Korean too, whose words carry their particles) are cut into overlapping pairs: a run of them is
found by any part of it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

MAX_TEXT = 65_536
"""So many characters of an event are searched, the first ones: a larger text is a document, and would hold up a writer."""

MAX_QUERY = 65_536
"""The longest query, in characters."""

# The commonest first: SQLite looks through them in this order. Without what stands between words, as the katakana middle dot.
_RUNS = (
    ("\u4e00", "\u9fff"),  # Chinese characters
    ("\u3041", "\u30fa"),  # hiragana and katakana
    ("\u30fc", "\u318f"),  # the rest of katakana, bopomofo, jamo
    ("\uac00", "\ud7ff"),  # hangul
    ("\u0e01", "\u0e3a"),  # Thai
    ("\u0e40", "\u0e4e"),  # Thai
    ("\u0e80", "\u0eff"),  # Lao
    ("\u1000", "\u1049"),  # Burmese
    ("\u1100", "\u11ff"),  # jamo
    ("\u1780", "\u17d3"),  # Khmer
    ("\u3005", "\u3007"),  # marks of repetition
    ("\u31a0", "\u31bf"),  # bopomofo
    ("\u31f0", "\u31ff"),  # katakana
    ("\u3400", "\u4dbf"),  # Chinese characters
    ("\uf900", "\ufaff"),  # Chinese characters
    ("\uff66", "\uffdc"),  # katakana and jamo of half width
    ("\U00020000", "\U0003ffff"),  # Chinese characters
)
RUN_CLASS = "[" + "".join(f"{first}-{last}" for first, last in _RUNS) + "]"
"""Characters of such scripts: a class of regular expressions, and of GLOB as well."""

_RUN = re.compile(f"{RUN_CLASS}+")
_PARTS = re.compile(r'"([^"]*)"(\*?)|([^\s"]+)')
_WORD = re.compile(r"[^\W_]+")
# A shorter one stands for too much to be looked through.
_SHORTEST_PREFIX = 3


class Term(NamedTuple):
    """A word or a phrase of a query.

    Attributes:
        text: As it was given.
        words: As it is looked for in an index: runs of scripts without spaces are cut into pairs.
        prefix: Whether the last of its words may go on.
        expression: A regular expression that finds it in a text that :func:`fold` has made.
    """

    text: str
    words: str
    prefix: bool
    expression: str

    @property
    def begins_with_run(self) -> bool:
        """Whether something of a script without spaces may stand before it in the same run."""
        return _RUN.match(self.text.lstrip()) is not None

    @property
    def ends_with_run(self) -> bool:
        """Whether something of a script without spaces may stand behind it in the same run."""
        return _RUN.match(self.text[-1:]) is not None


def fold(text: str) -> str:
    """Returns a text without what makes no difference: case and accents."""
    if text.isascii():
        return text.lower()
    bare = "".join(mark for mark in unicodedata.normalize("NFD", text) if not "\u0300" <= mark <= "\u036f")
    return unicodedata.normalize("NFC", bare).lower()


def parse(query: str) -> tuple[Term, ...]:
    """Returns the terms of a query, each once: words, and phrases in quotes. Whatever it holds, nothing in it is an operator.

    A word or phrase that ends with ``*`` stands for all that begin with it, if it has three letters.
    """
    return tuple({(term.words, term.prefix): term for term in _terms(query)}.values())


def _terms(query: str) -> Iterator[Term]:
    for phrase, phrase_star, word in _PARTS.findall(query):
        part = "".join(character if character.isprintable() else " " for character in word or phrase)
        found = _WORD.findall(fold(part))
        if not found:
            continue
        star = bool(phrase_star) or word.endswith("*")
        part = part.rstrip("* ")
        ends_with_run = _RUN.match(part[-1:]) is not None
        prefix = star and not ends_with_run and len(found[-1]) >= _SHORTEST_PREFIX
        words, is_single = _cut(part)
        before = "" if _RUN.match(found[0]) else r"(?<![^\W_])"
        after = "" if ends_with_run or prefix else r"(?![^\W_])"
        yield Term(part, words, prefix or is_single, before + r"[\W_]+".join(map(re.escape, found)) + after)


def _cut(part: str) -> tuple[str, bool]:
    """Cuts a part of a query as texts are cut; also says whether it ends with a single character, which begins a pair.

    In a text the last character of a run stands for itself as well, so that each character begins a piece. A run at the end
    of what is looked for may go on in the text.
    """
    pieces: list[str] = []
    end = 0
    part = part.rstrip()
    is_single = False
    for run in _RUN.finditer(part):
        characters = run[0]
        pieces += (part[end : run.start()], *(a + b for a, b in pairwise(characters)))
        end = run.end()
        if end < len(part):
            pieces.append(characters[-1])
        elif len(characters) == 1:
            pieces.append(characters)
            is_single = True
    pieces.append(part[end:])
    return " ".join(filter(None, pieces)), is_single
