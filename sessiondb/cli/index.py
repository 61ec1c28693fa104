"""``sessiondb index``: the index of texts, which searches take."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .database import file_argument
from .output import json_option, print_json, progress

if TYPE_CHECKING:
    from sessiondb.location import Database

_EPILOG = """\b
Examples:
  sessiondb index
  sessiondb index path/to/sessions.sqlite3
  sessiondb index path/to/sessions.sqlite3 --drop
"""


@click.command("index", epilog=_EPILOG)
@file_argument
@click.option("--drop", is_flag=True, help="Remove the index. Nothing but searches needs it.")
@json_option
def command(*, file: Database, drop: bool, as_json: bool) -> None:
    """Make the index of texts in FILE that `sessiondb search` and `service.search` take.

    Services go on meanwhile, and from here on each write keeps it up to date. A run that was ended goes on with the next
    one. Without FILE: $SESSIONDB_PATH, else .adk/adk.sqlite3, as the service itself.
    """
    from sessiondb import stores

    if drop:
        done = stores.drop_index(file)
    else:
        with progress("per mille indexed", 1000) as advance:
            told = 0

            def tell(now: int, of: int) -> None:
                nonlocal told
                share = 1000 * now // max(of, 1)
                advance(share - told)
                told = share

            done = stores.build_index(file, tell)
    if as_json:
        print_json({"path": str(file), "index": None if drop else "text", "changed": done})
    elif drop:
        click.echo(f"{file}: {'the index is removed' if done else 'there is no index'}")
    else:
        click.echo(f"{file}: {'the index is complete' if done else 'the index was complete already'}")
