"""``sessiondb history``: how a key of state came to its value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from .database import among, file_and, selection_options, session_option
from .output import compact_json, json_lines_option, note, or_say_so, print_json_line, print_rows

if TYPE_CHECKING:
    from sessiondb.adk.past import StateChange
    from sessiondb.location import Database

_EPILOG = """\b
Examples:
  sessiondb history progress --session sess_abc
  sessiondb history user:theme --app my_app --user user_123
  sessiondb history path/to/sessions.sqlite3 app:version --json
"""


@click.command("history", epilog=_EPILOG)
@file_and("KEY")
@selection_options
@session_option
@json_lines_option
def command(
    *, given: tuple[Database, str], app_name: str | None, user_id: str | None, session_id: str | None, as_json: bool
) -> None:
    """Show who set KEY to what, and when: every change in the log of FILE, the oldest first.

    KEY has its prefix: app:name, user:name, or none for a session's own. What a session was created with
    is its change of number 0. The file is only read. Without FILE: $SESSIONDB_PATH, else .adk/adk.sqlite3.
    """
    from sessiondb import stores
    from sessiondb.calls.past import read_history
    from sessiondb.model.records import Selection

    file, state_key = given
    with stores.open_reader(file) as reader, reader.snapshot():
        found = read_history(reader, Selection(app_name, user_id, session_id), state_key)
    what = f"change of {state_key!r}{among(app_name, user_id, session_id)} in the log"
    changes = or_say_so(iter(found), what)
    if as_json:
        for change in changes:
            print_json_line(_fields(change))
    else:
        print_rows(("TIME", "APP", "USER", "SESSION", "SEQ", "AUTHOR", "VALUE"), map(_cells, changes))
    if any(change.existed is None for change in found):
        note("What some of these sessions were created with is not known: an earlier release made them.")


def _fields(change: StateChange) -> dict[str, Any]:
    fields = change._asdict()
    value, deleted = fields.pop("new"), fields.pop("deleted")
    return {**fields, "value": value, "deleted": deleted}


def _cells(change: StateChange) -> tuple[str, ...]:
    place = (change.timestamp, change.app_name, change.user_id, change.session_id, str(change.seq))
    author = change.author if change.seq else "(created)"
    return *place, author, "deleted" if change.deleted else compact_json(change.new)
