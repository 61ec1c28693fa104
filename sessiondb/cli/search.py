"""``sessiondb search``: what was said."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from .database import file_and, selection_options, session_option
from .output import json_lines_option, note, print_json_line, print_rows

if TYPE_CHECKING:
    from sessiondb.location import Database
    from sessiondb.model.search import Match

_EPILOG = """\b
Examples:
  sessiondb search "opening hours"
  sessiondb search path/to/sessions.sqlite3 '"opening hours" sunday' --user user_123
  sessiondb search invoice --since 2026-01-01 --json | jq .session_id
"""

_moment = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"])


@click.command("search", epilog=_EPILOG)
@file_and("QUERY")
@selection_options
@session_option
@click.option("--author", metavar="NAME", help="Only what this author has said.")
@click.option("--since", type=_moment, metavar="TIME", help="Only what is from then on: 2026-01-31, or with T12:00:00.")
@click.option("--until", type=_moment, metavar="TIME", help="Only what is before then. Times are UTC.")
@click.option("--any", "any_word", is_flag=True, help="One of the words is enough; rare ones count more.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, metavar="N", help="At most N.")
@click.option("--after", metavar="CURSOR", help="Go on there: at `next` of the last line that --json has given.")
@json_lines_option
def command(
    *,
    given: tuple[Database, str],
    app_name: str | None,
    user_id: str | None,
    session_id: str | None,
    author: str | None,
    since: datetime | None,
    until: datetime | None,
    any_word: bool,
    limit: int,
    after: str | None,
    as_json: bool,
) -> None:
    """Find what was said in FILE by the words of QUERY, the best hits first.

    All words must be there; words in double quotes, one after the other. It takes an index, which `sessiondb index` makes.
    A page at a time: the last line that --json gives has the cursor of the next page under "next".
    The file is only read. Without FILE: $SESSIONDB_PATH, else .adk/adk.sqlite3, as the service itself.
    """
    from sessiondb import stores
    from sessiondb.model.cursors import decode_search_place, encode_place
    from sessiondb.model.queries import SearchEvents
    from sessiondb.model.records import Selection
    from sessiondb.model.search import terms_of

    file, query = given
    match: Match = "any" if any_word else "all"
    asked = SearchEvents(
        Selection(app_name, user_id, session_id),
        terms_of(query, match),
        match,
        limit,
        author,
        _seconds(since),
        _seconds(until),
        decode_search_place(after),
    )
    with stores.open_reader(file) as reader:
        page = reader.ask(asked)
    hits = [found.hit for found in page.found]
    cursor = None if page.next is None else encode_place(page.next)
    if as_json:
        for n, hit in enumerate(hits, 1):
            print_json_line({**asdict(hit), "next": cursor if n == len(hits) else None})
    elif hits:
        print_rows(
            ("TIME", "APP", "USER", "SESSION", "SEQ", "AUTHOR", "RANK", "TEXT"),
            [
                (
                    *(_shown(hit.time), hit.app_name, hit.user_id, hit.session_id, str(hit.seq)),
                    *(hit.author, f"{hit.rank:.2f}", hit.snippet),
                )
                for hit in hits
            ],
        )
    else:
        note("nothing was found")
    if cursor is not None:
        note(f"there are more: --after {cursor}")


def _seconds(moment: datetime | None) -> float | None:
    return None if moment is None else moment.replace(tzinfo=UTC).timestamp()


def _shown(time: float) -> str:
    try:
        return datetime.fromtimestamp(time, UTC).isoformat(timespec="seconds").removesuffix("+00:00")
    except (OverflowError, ValueError, OSError):
        # Of an event that was edited, or is of another age.
        return str(time)
