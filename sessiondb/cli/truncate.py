"""``sessiondb truncate``: cut a conversation off."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .database import file_and, only_session, selection_options
from .editing import edit
from .output import json_option, print_json, safe_line

if TYPE_CHECKING:
    from sessiondb.engine.store import Reader
    from sessiondb.location import Database
    from sessiondb.model.commands import TruncateSession

_EPILOG = """\b
Examples:
  sessiondb truncate sess_abc --after 5c3e --dry-run
  sessiondb truncate path/to/sessions.sqlite3 sess_abc --app my_app --user user_123 --after 5c3e
  sessiondb truncate sess_abc --all --json
"""


@click.command("truncate", epilog=_EPILOG)
@file_and("SESSION")
@click.option("--after", "after_event_id", metavar="EVENT", help="The id of the last event that stays.")
@click.option("--all", "everything", is_flag=True, help="Let no event stay.")
@selection_options
@click.option("--force", is_flag=True, help="Cut also between a function call and its response.")
@click.option("--dry-run", is_flag=True, help="Only show what would be cut off.")
@json_option
def command(
    *,
    given: tuple[Database, str],
    after_event_id: str | None,
    everything: bool,
    app_name: str | None,
    user_id: str | None,
    force: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Cut the conversation SESSION in FILE off after one of its events.

    The events after it are gone, and the state of the session is what it was then; the state of users and
    apps stays. A running server goes on; whoever had read the session reads it again. Without FILE:
    $SESSIONDB_PATH, else .adk/adk.sqlite3, as the service itself.
    """
    from sessiondb.calls.edits import plan_truncation

    if everything == (after_event_id is not None):
        raise click.UsageError("give either --after EVENT or --all")
    file, session_id = given

    def plan(reader: Reader) -> TruncateSession:
        key = only_session(reader, file, app_name, user_id, session_id).key
        return plan_truncation(reader, key, after_event_id, force=force)

    done = edit(file, plan, dry_run=dry_run)
    events = done.last_seq - done.seq
    if as_json:
        print_json({**done.key._asdict(), "after_event_id": after_event_id, "last_seq": done.seq, "events": events})
    else:
        verb = "would be" if dry_run else "were"
        where = ": all" if everything else f", after number {done.seq}"
        click.echo(safe_line(f"{events:,} events of session {done.key.session_id} {verb} cut off{where}"))
