"""``sessiondb prune``: delete what nobody has used for a while."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .database import file_argument, selection_options
from .listing import print_sessions
from .output import json_lines_option, note

if TYPE_CHECKING:
    from sessiondb.location import Database
    from sessiondb.model.records import Selection, SessionSummary

_EPILOG = """\b
Examples:
  sessiondb prune --older-than 90d --dry-run
  sessiondb prune path/to/sessions.sqlite3 --older-than 12h --app my_app
  sessiondb prune --older-than 4w --json | wc -l
"""

AT_ONCE = 200
"""Sessions deleted by one transaction: few enough that a running server hardly notices."""

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def _to_seconds(_context: click.Context, _parameter: click.Parameter, value: str) -> int:
    found = re.fullmatch(r"(\d{1,6})([smhdw])", value)
    if found is None:
        raise click.BadParameter(f"{value!r} is not a duration: write 30d, or another number with s, m, h, d or w")
    return int(found[1]) * _SECONDS[found[2]]


@click.command("prune", epilog=_EPILOG)
@file_argument
@click.option(
    "--older-than",
    "age",
    callback=_to_seconds,
    required=True,
    metavar="AGE",
    help="Delete sessions that were not updated for so long: 90m, 12h, 30d, 8w.",
)
@selection_options
@click.option("--dry-run", is_flag=True, help="Only show what would be deleted.")
@json_lines_option
def command(
    *, file: Database, age: int, app_name: str | None, user_id: str | None, dry_run: bool, as_json: bool
) -> None:
    """Delete the sessions in FILE that have not been updated for some time, and print them.

    Their events and own state go with them; the state of users and apps stays. A running server goes on
    meanwhile. Without FILE: $SESSIONDB_PATH, else .adk/adk.sqlite3, as the service itself.
    """
    from sessiondb import stores
    from sessiondb.model.queries import ListSessions
    from sessiondb.model.records import Selection

    selection = Selection(app_name, user_id)
    before = time.time() - age
    if dry_run:
        query = ListSessions(selection, updated_before=before, with_state=False)
        with stores.open_reader(file) as reader, reader.snapshot():
            print_sessions(reader.ask(query), as_json=as_json)
        return
    print_sessions(_pruned(file, selection, before), as_json=as_json)
    if isinstance(file, Path):
        note("`sessiondb vacuum` gives the space back to the file system.")


def _pruned(file: Database, selection: Selection, before: float) -> Iterator[SessionSummary]:
    """Deletes sessions, some at a time, so that other writers get between; yields those that are gone."""
    from sessiondb import stores
    from sessiondb.errors import StorageError
    from sessiondb.model.commands import PruneSessions

    with stores.open_writer(file) as writer:
        while True:
            (outcome,) = writer.commit([PruneSessions(selection, before, AT_ONCE)])
            if isinstance(outcome, StorageError):
                raise outcome
            writer.maintain(idle=False)
            yield from outcome.pruned
            if len(outcome.pruned) < AT_ONCE:
                return
