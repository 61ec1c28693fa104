"""``sessiondb redact``: take away what events hold."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .database import file_and, only_session, selection_options
from .editing import edit
from .output import json_lines_option, note, print_json_line, print_rows

if TYPE_CHECKING:
    from sessiondb.engine.store import Reader
    from sessiondb.location import Database
    from sessiondb.model.commands import RedactEvents

_EPILOG = """\b
Examples:
  sessiondb redact sess_abc --event 5c3e --dry-run
  sessiondb redact path/to/sessions.sqlite3 sess_abc --event 5c3e --event 77d0 --replacement '[removed]'
"""


@click.command("redact", epilog=_EPILOG)
@file_and("SESSION")
@click.option("--event", "event_ids", metavar="ID", multiple=True, required=True, help="Which event. Can be repeated.")
@click.option("--replacement", metavar="TEXT", help="What stands in the place of what was said.")
@selection_options
@click.option("--dry-run", is_flag=True, help="Only show what would be redacted.")
@json_lines_option
def command(
    *,
    given: tuple[Database, str],
    event_ids: tuple[str, ...],
    replacement: str | None,
    app_name: str | None,
    user_id: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Take the content of events of SESSION in FILE away: of all that are named, or of none.

    Their places stay, and so do their ids, authors, times and changes of state. A running server goes on.
    Without FILE: $SESSIONDB_PATH, else .adk/adk.sqlite3, as the service itself.
    """
    from sessiondb.adk.redaction import Replacement
    from sessiondb.calls.edits import plan_redaction

    file, session_id = given
    instead = Replacement(replacement)
    ids = tuple(dict.fromkeys(event_ids))

    def plan(reader: Reader) -> RedactEvents:
        key = only_session(reader, file, app_name, user_id, session_id).key
        return plan_redaction(reader, key, ids, instead)

    done = edit(file, plan, dry_run=dry_run)
    if as_json:
        for event in done.events:
            print_json_line({**done.key._asdict(), "seq": event.seq, "event_id": event.event_id})
    else:
        print_rows(("SEQ", "EVENT"), ((str(event.seq), event.event_id) for event in done.events))
    if isinstance(file, Path) and not dry_run:
        note("`sessiondb vacuum` removes what is left of it in the file.")
