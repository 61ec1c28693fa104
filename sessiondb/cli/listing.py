"""``sessiondb list``: which sessions there are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .database import file_argument, selection_options
from .output import json_lines_option, print_json_line, print_rows

if TYPE_CHECKING:
    from sessiondb.stores.sqlite.browsing import SessionRow

_EPILOG = """\b
Examples:
  sessiondb list
  sessiondb list --app my_app --limit 20
  sessiondb list path/to/sessions.sqlite3 --json | jq .session_id
"""


@click.command("list", epilog=_EPILOG)
@file_argument
@selection_options
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most N sessions.")
@json_lines_option
def command(*, file: Path, app_name: str | None, user_id: str | None, limit: int | None, as_json: bool) -> None:
    """List the sessions in FILE, the one updated last first.

    The file is only read. Without FILE: $SESSIONDB_PATH, else .adk/adk.sqlite3, as the service itself.
    """
    from sessiondb.stores.sqlite.browsing import Browser, Selection

    with Browser(file) as browser, browser.snapshot():
        print_sessions(browser.sessions(Selection(app_name, user_id), limit=limit), as_json=as_json)


def print_sessions(sessions: Iterable[SessionRow], *, as_json: bool) -> None:
    """Prints sessions, one a line, as they come."""
    if as_json:
        for row in sessions:
            key, *rest = row
            print_json_line(key._asdict() | dict(zip(row._fields[1:], rest, strict=True)))
        return
    print_rows(("UPDATED", "APP", "USER", "SESSION", "EVENTS"), _cells(sessions))


def _cells(sessions: Iterable[SessionRow]) -> Iterator[tuple[str, ...]]:
    for row in sessions:
        yield row.updated_at, *row.key, str(row.events)
