"""``sessiondb show``: one conversation, from its first event to its last."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .database import file_and, selection_options
from .output import json_lines_option, safe_line
from .timeline import full_option, print_event

if TYPE_CHECKING:
    from sessiondb.location import Database

_EPILOG = """\b
Examples:
  sessiondb show sess_abc
  sessiondb show path/to/sessions.sqlite3 sess_abc --app my_app --user user_123
  sessiondb show sess_abc --json | jq .event.content
"""

_NAMED = 3
"""How many of the sessions of one id are named."""


@click.command("show", epilog=_EPILOG)
@file_and("SESSION")
@selection_options
@full_option
@json_lines_option
def command(
    *, given: tuple[Database, str], app_name: str | None, user_id: str | None, full: bool, as_json: bool
) -> None:
    """Show the conversation SESSION in FILE: who said what, calls and responses, changes of state.

    Users and apps may have sessions of the same id; --app and --user tell them apart. The file is only
    read. Without FILE: $SESSIONDB_PATH, else .adk/adk.sqlite3, as the service itself.
    """
    from sessiondb import stores
    from sessiondb.model.queries import ListEvents, ListSessions
    from sessiondb.model.records import Selection

    file, session_id = given
    query = ListSessions(Selection(app_name, user_id, session_id), "key", limit=_NAMED + 1, with_state=False)
    with stores.open_reader(file) as reader, reader.snapshot():
        found = list(reader.ask(query))
        if not found:
            raise click.ClickException(f"there is no session {session_id!r} in {file}")
        if len(found) > 1:
            named = ", ".join(f"--app {key.app_name!r} --user {key.user_id!r}" for key, *_ in found[:_NAMED])
            raise click.UsageError(
                f"several sessions have the id {session_id!r}; say which one is meant:"
                f" {named}{', ...' if len(found) > _NAMED else ''}"
            )
        (session,) = found
        if not as_json:
            click.echo(
                safe_line(
                    f"session {session.key.session_id}  user {session.key.user_id}  app {session.key.app_name}"
                    f"  created {session.created_at}  updated {session.updated_at}"
                )
            )
        for event in reader.ask(ListEvents(Selection(*session.key))):
            print_event(event, as_json=as_json, full=full, with_session=False)
