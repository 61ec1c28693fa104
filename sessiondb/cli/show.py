"""``sessiondb show``: one conversation, from its first event to its last."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from .database import count_from, file_and, only_session, selection_options
from .output import json_lines_option, safe_line
from .timeline import full_option, print_event

if TYPE_CHECKING:
    from sessiondb.engine.store import Reader
    from sessiondb.location import Database
    from sessiondb.model.records import LoggedEvent, SessionKey

_EPILOG = """\b
Examples:
  sessiondb show sess_abc
  sessiondb show path/to/sessions.sqlite3 sess_abc --app my_app --user user_123
  sessiondb show sess_abc --newest-first --limit 20 --author user
  sessiondb show sess_abc --json | jq .event.content
"""

_AT_ONCE = 500
"""Events that are read at a time."""


@click.command("show", epilog=_EPILOG)
@file_and("SESSION")
@selection_options
@click.option("--limit", type=count_from(1), metavar="N", help="At most N events.")
@click.option("--newest-first", is_flag=True, help="Begin with the last event.")
@click.option("--author", "authors", multiple=True, metavar="NAME", help="Only events of NAME. Can be repeated.")
@full_option
@json_lines_option
def command(
    *,
    given: tuple[Database, str],
    app_name: str | None,
    user_id: str | None,
    limit: int | None,
    newest_first: bool,
    authors: tuple[str, ...],
    full: bool,
    as_json: bool,
) -> None:
    """Show the conversation SESSION in FILE: who said what, calls and responses, changes of state.

    Users and apps may have sessions of the same id; --app and --user tell them apart. The file is only
    read. Without FILE: $SESSIONDB_PATH, else .adk/adk.sqlite3, as the service itself.
    """
    from sessiondb import stores

    file, session_id = given
    with stores.open_reader(file) as reader, reader.snapshot():
        session = only_session(reader, file, app_name, user_id, session_id)
        if not as_json:
            click.echo(
                safe_line(
                    f"session {session.key.session_id}  user {session.key.user_id}  app {session.key.app_name}"
                    f"  created {session.created_at}  updated {session.updated_at}"
                )
            )
        for event in _events(reader, session.key, limit, newest_first=newest_first, authors=authors or None):
            print_event(event, as_json=as_json, full=full, with_session=False)


def _events(
    reader: Reader, key: SessionKey, limit: int | None, *, newest_first: bool, authors: tuple[str, ...] | None
) -> Iterator[LoggedEvent]:
    from sessiondb.model.queries import GetLogPage, LogPlace
    from sessiondb.model.records import Cursor, LoggedEvent

    after = None
    while limit is None or limit > 0:
        count = _AT_ONCE if limit is None else min(limit, _AT_ONCE)
        page = reader.ask(GetLogPage(key, count, after, newest_first=newest_first, authors=authors))
        rows = [] if page is None else page.rows
        for row in rows:
            yield LoggedEvent(Cursor(""), key, row)
        if page is None or len(rows) < count:
            return
        after = LogPlace(page.incarnation, rows[-1].seq, rows[-1].row_id)
        limit = None if limit is None else limit - count
