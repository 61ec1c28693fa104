"""``sessiondb erase-user``: forget somebody."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import click

from .database import file_argument
from .output import json_option, print_json, print_pairs, safe_line

if TYPE_CHECKING:
    from sessiondb.engine.store import Writer
    from sessiondb.location import Database
    from sessiondb.model.records import Erased

_EPILOG = """\b
Examples:
  sessiondb erase-user --app my_app --user user_123 --dry-run
  sessiondb erase-user path/to/sessions.sqlite3 --app my_app --user user_123
  sessiondb erase-user --app my_app --user user_123 --yes --json
"""

_READERS_SECONDS = 30.0
"""How long to wait for somebody who reads, as a service does by default."""

_pause = threading.Event().wait
"""Only lets seconds pass: nobody sets the event."""


@click.command("erase-user", epilog=_EPILOG)
@file_argument
@click.option("--app", "app_name", metavar="NAME", required=True, help="The app.")
@click.option("--user", "user_id", metavar="ID", required=True, help="The user.")
@click.option("--dry-run", is_flag=True, help="Only show how much would be deleted.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--no-purge", is_flag=True, help="Do not rebuild the file: a later `sessiondb vacuum` overwrites what was deleted."
)
@json_option
def command(
    *, file: Database, app_name: str, user_id: str, dry_run: bool, yes: bool, no_purge: bool, as_json: bool
) -> None:
    """Delete all that belongs to a user of an app in FILE: sessions, events, state.

    Then FILE is rebuilt, so that nothing of it is left there. A running server goes on meanwhile, and waits for
    the rebuilding. If something may be left, the exit code is 1. Without FILE: $SESSIONDB_PATH, else
    .adk/adk.sqlite3, as the service itself.
    """
    from sessiondb import stores
    from sessiondb.model.queries import FindDamage, MeasureUser

    if dry_run or not yes:
        with stores.open_reader(file) as reader:
            found = reader.ask(MeasureUser(app_name, user_id))
        if dry_run:
            _print(found, as_json=as_json)
            return
        click.confirm(
            safe_line(
                f"Delete {found.sessions:,} sessions with {found.events:,} events and {found.state_keys:,} keys of state"
                f" of user {user_id!r} of app {app_name!r}?"
            ),
            abort=True,
            err=True,
        )
    with stores.open_writer(file) as writer:
        _print(_erased(writer, app_name, user_id), as_json=as_json)
        if no_purge:
            return
        with stores.open_reader(file) as reader:
            problems = reader.ask(FindDamage())
        if problems:
            raise click.ClickException(
                f"all of it is deleted, but the file is damaged and was not rebuilt: {problems[0]}"
            )
        if not _purged(writer):
            raise click.ClickException(
                "all of it is deleted, but somebody who reads since before keeps it in the write-ahead log: end that"
                " reader, then run this again"
            )


def _erased(writer: Writer, app_name: str, user_id: str) -> Erased:
    """Deletes all of it, some at a time, so that other writers get between; returns how much that was."""
    from sessiondb.errors import StorageError
    from sessiondb.model.commands import ERASED_AT_ONCE, EraseUser
    from sessiondb.model.records import NOTHING_ERASED

    erased = NOTHING_ERASED
    while True:
        (outcome,) = writer.commit([EraseUser(app_name, user_id, ERASED_AT_ONCE)])
        if isinstance(outcome, StorageError):
            raise outcome
        erased = erased.plus(outcome.erased)
        writer.maintain(idle=False)
        if erased.is_all:
            return erased


def _purged(writer: Writer) -> bool:
    purged = writer.purge(last_step=False)
    give_up = time.monotonic() + _READERS_SECONDS
    while not purged and time.monotonic() < give_up:
        _pause(0.05)
        purged = writer.purge(last_step=True)
    return purged


def _print(erased: Erased, *, as_json: bool) -> None:
    counts = {name: count for name, count in erased._asdict().items() if name != "is_all"}
    if as_json:
        print_json(counts)
    else:
        print_pairs(counts)
