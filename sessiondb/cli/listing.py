"""``sessiondb list``: which sessions there are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from .database import among, count_from, file_argument, selection_options
from .output import json_lines_option, or_say_so, print_json_line, print_rows

if TYPE_CHECKING:
    from sessiondb.location import Database
    from sessiondb.model.records import SessionSummary

_EPILOG = """\b
Examples:
  sessiondb list
  sessiondb list --app my_app --limit 20
  sessiondb list path/to/sessions.sqlite3 --json | jq .session_id
"""


@click.command("list", epilog=_EPILOG)
@file_argument
@selection_options
@click.option("--limit", type=count_from(1), metavar="N", help="At most N sessions.")
@json_lines_option
def command(*, file: Database, app_name: str | None, user_id: str | None, limit: int | None, as_json: bool) -> None:
    """List the sessions in FILE, the one updated last first.

    The file is only read. Without FILE: $SESSIONDB_PATH, else .adk/adk.sqlite3, as the service itself.
    """
    from sessiondb import stores
    from sessiondb.model.queries import ListSessions
    from sessiondb.model.records import Selection

    query = ListSessions(Selection(app_name, user_id), "newest", limit=limit, with_state=False)
    with stores.open_reader(file) as reader, reader.snapshot():
        found = or_say_so(reader.ask(query), f"session{among(app_name, user_id)}")
        print_sessions(found, as_json=as_json)


def print_sessions(sessions: Iterable[SessionSummary], *, as_json: bool) -> None:
    """Prints sessions, one a line, as they come."""
    if as_json:
        for session in sessions:
            print_json_line(
                {
                    **session.key._asdict(),
                    "created_at": session.created_at,
                    "updated_at": session.updated_at,
                    "update_time": session.head.update_time,
                    "events": session.head.last_seq,
                }
            )
        return
    cells = ((session.updated_at, *session.key, str(session.head.last_seq)) for session in sessions)
    print_rows(("UPDATED", "APP", "USER", "SESSION", "EVENTS"), cells)
