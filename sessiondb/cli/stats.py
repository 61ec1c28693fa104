"""``sessiondb stats``: how much a database holds."""

from __future__ import annotations

from itertools import count, islice
from pathlib import Path

import click

from .database import file_argument
from .output import json_option, print_json, print_json_line, print_pairs
from .watching import interval_option, until_interrupted, wait

_EPILOG = """\b
Examples:
  sessiondb stats
  sessiondb stats path/to/sessions.sqlite3 --watch
  sessiondb stats --json | jq .events
"""


@click.command("stats", epilog=_EPILOG)
@file_argument
@click.option("--watch", is_flag=True, help="Go on, until Ctrl-C; with --json, one line each time.")
@interval_option
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="With --watch: end after N times.")
@json_option
def command(*, file: Path, watch: bool, interval: float, limit: int | None, as_json: bool) -> None:
    """Show how much FILE holds: sessions, events, state keys; and its size.

    The file is only read. Without FILE: $SESSIONDB_PATH, else .adk/adk.sqlite3, as the service itself.
    """
    from sessiondb import stores
    from sessiondb.model.queries import MeasureStore

    with until_interrupted(), stores.open_reader(file) as reader:
        for turn in islice(count(), limit if watch else 1):
            if turn:
                wait(interval)
                reader.changed()
            with reader.snapshot():
                size = reader.ask(MeasureStore())
            stats = {
                "sessions": size.sessions,
                "events": size.events,
                "state_keys": size.state_keys,
                "db_size_mb": size.file_bytes / 2**20,
                "wal_bytes": size.wal_bytes,
            }
            if not as_json:
                if turn:
                    click.echo()
                print_pairs(stats)
            elif watch:
                print_json_line(stats)
            else:
                print_json(stats)
