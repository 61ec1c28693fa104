"""``sessiondb vacuum``: maintenance of a database."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .database import file_argument
from .output import json_option, print_json, print_pairs

if TYPE_CHECKING:
    from sessiondb.location import Database

_EPILOG = """\b
Examples:
  sessiondb vacuum
  sessiondb vacuum path/to/sessions.sqlite3
"""


@click.command("vacuum", epilog=_EPILOG)
@file_argument
@json_option
def command(file: Database, as_json: bool) -> None:
    """Reclaim unused space in FILE, refresh the query planner's statistics, check integrity.

    A damaged file is reported and left as it is (exit code 1). Without FILE: $SESSIONDB_PATH,
    else .adk/adk.sqlite3, as the service itself.
    """
    from sessiondb import stores

    with stores.open_writer(file) as writer:
        before = _size(file)
        writer.vacuum()
        sizes = {"db_size_mb_before": before, "db_size_mb_after": _size(file)}
    if as_json:
        print_json(sizes)
    else:
        print_pairs(sizes)


def _size(file: Database) -> float:
    from sessiondb import stores
    from sessiondb.model.queries import MeasureStore

    with stores.open_reader(file) as reader:
        return reader.ask(MeasureStore()).file_bytes / 2**20
