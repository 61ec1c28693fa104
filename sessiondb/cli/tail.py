"""``sessiondb tail``: the newest events, and those to come."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING

import click

from .database import among, count_from, file_argument, selection_options, session_option
from .output import json_lines_option, or_say_so
from .timeline import full_option, print_event
from .watching import interval_option, until_interrupted, wait

if TYPE_CHECKING:
    from sessiondb.engine.store import Reader
    from sessiondb.location import Database
    from sessiondb.model.records import Cursor, LoggedEvent, Selection

_EPILOG = """\b
Examples:
  sessiondb tail
  sessiondb tail -n 0 --follow --app my_app
  sessiondb tail -f path/to/sessions.sqlite3 --json | jq .event.author
"""

_BATCH = 200
"""Events that are fetched at once."""


@click.command("tail", epilog=_EPILOG)
@file_argument
@selection_options
@session_option
@click.option(
    "-n",
    "--lines",
    "count",
    type=count_from(0),
    default=10,
    show_default=True,
    metavar="N",
    help="Begin with the newest N events.",
)
@click.option("-f", "--follow", is_flag=True, help="Go on with new events as they come, until Ctrl-C.")
@interval_option
@click.option("--limit", type=count_from(1), metavar="N", help="End after N events.")
@full_option
@json_lines_option
def command(
    *,
    file: Database,
    app_name: str | None,
    user_id: str | None,
    session_id: str | None,
    count: int,
    follow: bool,
    interval: float,
    limit: int | None,
    full: bool,
    as_json: bool,
) -> None:
    """Show the newest events in FILE, of all sessions or some; with --follow, also those to come.

    The file is only read. Without FILE: $SESSIONDB_PATH, else .adk/adk.sqlite3, as the service itself.
    """
    from sessiondb import stores
    from sessiondb.model.queries import GetLogEnd, ListEvents
    from sessiondb.model.records import Selection

    selection = Selection(app_name, user_id, session_id)
    with until_interrupted(), stores.open_reader(file) as reader:
        with reader.snapshot():
            last = list(reader.ask(ListEvents(selection, last=count)))
            end = reader.ask(GetLogEnd())
        if count and not follow:
            last = list(or_say_so(last, f"event{among(app_name, user_id, session_id)}"))
        coming = _coming(reader, selection, end, interval) if follow else ()
        for event in islice(chain(last, coming), limit):
            print_event(event, as_json=as_json, full=full, with_session=True)


def _coming(reader: Reader, selection: Selection, end: Cursor, interval: float) -> Iterator[LoggedEvent]:
    from sessiondb.model.queries import ListEvents

    while True:
        wait(interval)
        if reader.changed():
            # Fetched before they are printed: a slow terminal must not keep a snapshot open.
            while batch := list(reader.ask(ListEvents(selection, after=end, limit=_BATCH))):
                end = batch[-1].cursor
                yield from batch
