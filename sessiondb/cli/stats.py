"""``sessiondb stats``: how much a database holds."""

from __future__ import annotations

import time
from itertools import count, islice
from typing import TYPE_CHECKING, Any

import click

from .database import count_from, file_argument
from .output import json_option, pairs_text, print_json, print_json_line
from .watching import in_place, interval_option, until_interrupted, wait

if TYPE_CHECKING:
    from sessiondb.location import Database

_EPILOG = """\b
Examples:
  sessiondb stats
  sessiondb stats path/to/sessions.sqlite3 --watch
  sessiondb stats --json | jq .events
"""


@click.command("stats", epilog=_EPILOG)
@file_argument
@click.option("--watch", is_flag=True, help="Go on, until Ctrl-C: in place at a terminal.")
@interval_option
@click.option("--limit", type=count_from(1), metavar="N", help="With --watch: end after N times.")
@json_option
def command(*, file: Database, watch: bool, interval: float, limit: int | None, as_json: bool) -> None:
    """Show how much FILE holds: sessions, events, state keys; and its size.

    A count above 20,000 is an estimate, marked with "about"; --json names those under "estimated". With --watch, also how many events came in a second; with --json, one line each time. The file is only read. Without FILE: $SESSIONDB_PATH, else .adk/adk.sqlite3, as the service itself.
    """
    from sessiondb import stores
    from sessiondb.model.queries import MeasureStore

    seen = (0.0, 0)
    with until_interrupted(), stores.open_reader(file) as reader, in_place() as show:
        for turn in islice(count(), limit if watch else 1):
            if turn:
                wait(interval)
                reader.changed()
            with reader.snapshot():
                size = reader.ask(MeasureStore())
            stats: dict[str, Any] = {
                "sessions": size.sessions,
                "events": size.events,
                "state_keys": size.state_keys,
                "estimated": size.estimated,
                "db_size_mb": size.file_bytes / 2**20,
                "wal_bytes": size.wal_bytes,
            }
            if not as_json:
                now = (time.monotonic(), size.events)
                if turn:
                    stats["events_per_second"] = (now[1] - seen[1]) / (now[0] - seen[0])
                seen = now
                text = pairs_text(stats, estimated=stats.pop("estimated"))
                show(f"{time.strftime('%X')}\n{text}" if watch else text)
            elif watch:
                print_json_line(stats)
            else:
                print_json(stats)
