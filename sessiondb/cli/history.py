"""``sessiondb history``: how a key of state came to its value."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import click

from .database import among, file_and, selection_options, session_option
from .output import compact_json, json_lines_option, note, or_say_so, print_json_line, print_rows

if TYPE_CHECKING:
    from sessiondb.location import Database
    from sessiondb.model.records import LoggedEvent

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
    is not in the log. The file is only read. Without FILE: $SESSIONDB_PATH, else .adk/adk.sqlite3.
    """
    from sessiondb import stores
    from sessiondb.model.queries import ListEvents
    from sessiondb.model.records import Selection

    file, state_key = given
    query = ListEvents(Selection(app_name, user_id, session_id), state_key=state_key)
    with stores.open_reader(file) as reader, reader.snapshot():
        what = f"change of {state_key!r}{among(app_name, user_id, session_id)} in the log"
        changes = or_say_so(_changes(reader.ask(query), state_key), what)
        if as_json:
            for change in changes:
                print_json_line(change)
        else:
            print_rows(("TIME", "APP", "USER", "SESSION", "SEQ", "AUTHOR", "VALUE"), map(_cells, changes))
    note("What a session was created with is not in the log.")


def _changes(events: Iterable[LoggedEvent], state_key: str) -> Iterator[dict[str, Any]]:
    from sessiondb.adk.events import event_as_dict, stored_nones

    for _, key, row in events:
        fields = event_as_dict(row, key)
        value = fields["actions"]["state_delta"][state_key]
        yield {
            **key._asdict(),
            "seq": row.seq,
            "time": row.time,
            "timestamp": row.timestamp,
            "author": row.author,
            "invocation_id": row.invocation_id,
            "event_id": row.event_id,
            "key": state_key,
            "value": value,
            "deleted": value is None and state_key not in stored_nones(fields),
        }


def _cells(change: dict[str, Any]) -> tuple[str, ...]:
    shown = (str(change[name]) for name in ("timestamp", "app_name", "user_id", "session_id", "seq", "author"))
    return *shown, "deleted" if change["deleted"] else compact_json(change["value"])
