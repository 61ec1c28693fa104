"""``sessiondb prune``: delete what is not to be kept."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .database import file_argument, selection_options
from .listing import print_sessions
from .output import json_lines_option, note, print_json_line, print_pairs, safe_line

if TYPE_CHECKING:
    from sessiondb.location import Database
    from sessiondb.model.records import PruneReport, Selection, SessionSummary
    from sessiondb.retention import Retention

_EPILOG = """\b
Examples:
  sessiondb prune --older-than 90d --dry-run
  sessiondb prune path/to/sessions.sqlite3 --older-than 12h --app my_app
  sessiondb prune --older-than 4w --json | wc -l
  sessiondb prune --max-events 1000 --max-sessions-per-user 50 --archive pruned
"""

AT_ONCE = 200
"""Sessions deleted by one transaction: few enough that a running server hardly notices."""

_WAIT = 60.0
"""How long to wait for the end of another prune, in seconds."""

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def _to_seconds(_context: click.Context, _parameter: click.Parameter, value: str | None) -> int | None:
    if value is None:
        return None
    found = re.fullmatch(r"(\d{1,6})([smhdw])", value)
    if found is None:
        raise click.BadParameter(f"{value!r} is not a duration: write 30d, or another number with s, m, h, d or w")
    return int(found[1]) * _SECONDS[found[2]]


_count = click.IntRange(min=1, max=2**31 - 1)


@click.command("prune", epilog=_EPILOG)
@file_argument
@click.option(
    "--older-than",
    callback=_to_seconds,
    metavar="AGE",
    help="Delete sessions that were not updated for so long, and print them: 90m, 12h, 30d, 8w.",
)
@click.option("--idle", callback=_to_seconds, metavar="AGE", help="Delete sessions that were not updated for so long.")
@click.option("--age", callback=_to_seconds, metavar="AGE", help="Delete sessions that were created so long ago.")
@click.option("--max-events", type=_count, metavar="N", help="Cut off the oldest events of logs that have more.")
@click.option("--max-sessions-per-user", type=_count, metavar="N", help="Delete each user's oldest sessions beyond N.")
@click.option("--archive", metavar="FOLDER", help="Write what is deleted to a file in this folder first.")
@selection_options
@click.option("--dry-run", is_flag=True, help="Only show what would be deleted.")
@json_lines_option
def command(
    *,
    file: Database,
    older_than: int | None,
    idle: int | None,
    age: int | None,
    max_events: int | None,
    max_sessions_per_user: int | None,
    archive: str | None,
    app_name: str | None,
    user_id: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Delete what is not to be kept in FILE: sessions that are idle, old or too many, and the oldest events of logs.

    Their events and own state go with sessions; the state of users and apps stays. A running server goes on
    meanwhile. --older-than prints the sessions that it deletes, and goes with no other rule; they print counts. Without
    FILE: $SESSIONDB_PATH, else .adk/adk.sqlite3, as the service itself.
    """
    from sessiondb.model.records import Selection

    selection = Selection(app_name, user_id)
    rules = (idle, age, max_events, max_sessions_per_user, archive)
    if older_than is not None:
        if any(rule is not None for rule in rules):
            raise click.UsageError("--older-than goes with no other rule; --idle means the same and does")
        _prune_sessions(file, selection, older_than, dry_run=dry_run, as_json=as_json)
    elif all(rule is None for rule in rules[:-1]):
        raise click.UsageError(
            "say what goes: --older-than 30d, or --idle, --age, --max-events or --max-sessions-per-user"
        )
    else:
        from sessiondb.retention import Retention

        _prune(file, selection, Retention(*rules), dry_run=dry_run, as_json=as_json)
    if isinstance(file, Path) and not dry_run:
        note("`sessiondb vacuum` gives the space back to the file system.")


def _prune(file: Database, selection: Selection, retention: Retention, *, dry_run: bool, as_json: bool) -> None:
    report = _carried_out(file, selection, retention, dry_run=dry_run)
    counts = {**asdict(report), "archives": list(map(str, report.archives))}
    if as_json:
        print_json_line(counts)
    else:
        archives = counts.pop("archives")
        print_pairs(counts)
        for path in archives:
            click.echo(f"archive: {safe_line(path)}")


def _carried_out(file: Database, selection: Selection, retention: Retention, *, dry_run: bool) -> PruneReport:
    from google.adk.platform import time as platform_time

    from sessiondb import stores
    from sessiondb.calls.prune import Prune
    from sessiondb.calls.pruning import prune_store
    from sessiondb.engine.engine import Engine
    from sessiondb.options import StoreOptions

    if dry_run:
        with stores.open_reader(file) as reader:
            report = Prune(reader, None, retention, selection, platform_time.get_time()).run(lambda: True)
        assert report is not None  # noqa: S101  # nobody has stopped it
        return report
    if not isinstance(file, Path):
        # To open a store creates what is missing: here, a schema of a mistyped name.
        stores.open_reader(file).close()
    options = StoreOptions()
    engine = Engine(stores.open_store(file, options), options)
    try:
        now = platform_time.get_time()
        pruned = prune_store(engine, retention, selection, lambda: True, now=now, wait=_WAIT)
        assert pruned is not None  # noqa: S101  # as above
        return pruned
    finally:
        engine.close()


def _prune_sessions(file: Database, selection: Selection, age: int, *, dry_run: bool, as_json: bool) -> None:
    from sessiondb import stores
    from sessiondb.model.queries import ListSessions

    before = time.time() - age
    if dry_run:
        query = ListSessions(selection, updated_before=before, with_state=False)
        with stores.open_reader(file) as reader, reader.snapshot():
            print_sessions(reader.ask(query), as_json=as_json)
        return
    print_sessions(_pruned(file, selection, before), as_json=as_json)


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
