"""The Markdown files of the project, and what the tests need of them: code blocks, tables, headings, links.

Parsed with markdown-it-py, the parser that MyST (and so the documentation) is built on. Frameworks for examples in
Markdown were looked at: they run Python only, or each block by itself; the pages tell a story, in several languages.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
"""The files whose examples run."""

_PARSER = MarkdownIt().enable("table")


@dataclass(frozen=True)
class Block:
    """A fenced block of code."""

    page: Path
    line: int
    """The line of the opening fence; the code begins on the next one."""
    language: str
    code: str

    @property
    def place(self) -> str:
        """Where it is, as an editor opens it."""
        return f"{self.page}:{self.line}"


def page_id(page: Path) -> str:
    """Names a page in a test's id."""
    return str(page.relative_to(ROOT))


def blocks_of(page: Path) -> list[Block]:
    """Returns the code blocks of a page; directives of MyST are none."""
    return [
        Block(page, token.map[0] + 1, token.info.strip(), token.content)
        for token in _tokens(page)
        if token.type == "fence" and token.map is not None and not token.info.startswith("{")
    ]


def tables_of(page: Path, first_column: str) -> Iterator[list[list[str]]]:
    """Yields the rows of each table whose first column has this title, without the header; code marks are removed."""
    rows: list[list[str]] = []
    for token in _tokens(page):
        if token.type == "table_open":
            rows = []
        elif token.type == "tr_open":
            rows.append([])
        elif token.type == "inline" and rows:
            # A paragraph after the table adds to its last row, which has been yielded by then.
            rows[-1].append(token.content.replace("`", ""))
        elif token.type == "table_close":
            if rows[0][0] == first_column:
                yield rows[1:]
            rows = []


def headings_of(page: Path) -> list[str]:
    """Returns the headings of a page, code marks removed."""
    tokens = _tokens(page)
    return [following.content.replace("`", "") for token, following in pairwise(tokens) if token.type == "heading_open"]


def anchors_of(page: Path) -> set[str]:
    """Returns the anchors that GitHub and MyST give to the headings of a page."""
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings_of(page)}


def links_of(page: Path) -> list[str]:
    """Returns the targets of all links of a page."""
    return [
        str(child.attrs["href"])
        for token in _tokens(page)
        for child in token.children or []
        if child.type == "link_open"
    ]


def _tokens(page: Path) -> list[Token]:
    return _PARSER.parse(page.read_text(encoding="utf-8"))
