"""``sessiondb export``: sessions as JSON Lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .database import file_argument, selection_options
from .output import progress
from .output_file import output_option, overwrite_option, written

if TYPE_CHECKING:
    from sessiondb.location import Database

_EPILOG = """\b
Examples:
  sessiondb export path/to/sessions.sqlite3 -o sessions.jsonl
  sessiondb export --session sess_abc | jq 'select(.type == "event").event'
  sessiondb export --app my_app | gzip > my_app.jsonl.gz
"""


@click.command("export", epilog=_EPILOG)
@file_argument
@selection_options
@click.option("--session", "session_ids", multiple=True, metavar="ID", help="Only this session; may be repeated.")
@output_option
@overwrite_option
@click.option("--json", is_flag=True, expose_value=False, help="Print JSON Lines instead of text.")
def command(
    *,
    file: Database,
    app_name: str | None,
    user_id: str | None,
    session_ids: tuple[str, ...],
    output: str | None,
    overwrite: bool,
) -> None:
    """Write the sessions in FILE as JSON Lines, which `sessiondb import` reads: all of one moment.

    With sessions come the state of their app and user. The file is only read. The output is JSON with
    or without --json. Without FILE: $SESSIONDB_PATH, else .adk/adk.sqlite3, as the service itself.
    """
    from sessiondb import stores
    from sessiondb.model.queries import ListSessions
    from sessiondb.model.records import Selection
    from sessiondb.transfer.jsonl import export_lines

    selection = Selection(app_name, user_id)
    with (
        written(output, overwrite=overwrite, source=file) as out,
        stores.open_reader(file) as reader,
        progress("exported lines") as advance,
    ):
        for session_id in session_ids:
            one = ListSessions(selection._replace(session_id=session_id), limit=1, with_state=False)
            if not list(reader.ask(one)):
                raise click.ClickException(f"there is no session {session_id!r} in {file}")
        for line in export_lines(reader, selection, session_ids):
            out.write(line + "\n")
            advance(1)
