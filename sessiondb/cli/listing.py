"""``sessiondb list``: which sessions there are."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from .database import among, count_from, file_argument, selection_options
from .output import json_lines_option, note, or_say_so, print_json_line, print_rows

if TYPE_CHECKING:
    from sessiondb.location import Database
    from sessiondb.model.queries import SessionPlace
    from sessiondb.model.records import SessionSummary

_EPILOG = """\b
Examples:
  sessiondb list
  sessiondb list --app my_app --limit 20
  sessiondb list --updated-after 2026-01-31 --state status=open
  sessiondb list path/to/sessions.sqlite3 --json | jq .session_id
"""


def _to_moment(_context: click.Context, _parameter: click.Parameter, value: str | None) -> float | None:
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
        # Like what is printed: a time without a zone is in UTC.
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError) as error:
        raise click.BadParameter(f"{value!r} is no time: write 2026-01-31 or 2026-01-31T12:00:00Z") from error


def _to_place(_context: click.Context, _parameter: click.Parameter, value: str | None) -> SessionPlace | None:
    from sessiondb.errors import InvalidInputError
    from sessiondb.model.cursors import decode_session_place

    try:
        return decode_session_place(value)
    except InvalidInputError as error:
        raise click.BadParameter("that is no cursor: take one that `list` has given") from error


def _to_state(
    _context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]
) -> tuple[tuple[str, str], ...]:
    found = []
    for given in values:
        key, equals, value = given.partition("=")
        if not equals:
            raise click.BadParameter(f"{given!r} is not KEY=VALUE")
        try:
            # Written as the service writes it.
            text = json.dumps(json.loads(value), ensure_ascii=False, separators=(",", ":"))
        except ValueError:
            text = json.dumps(value, ensure_ascii=False)
        found.append((key, text))
    return tuple(found)


@click.command("list", epilog=_EPILOG)
@file_argument
@selection_options
@click.option("--limit", type=count_from(1), metavar="N", help="At most N sessions.")
@click.option("--after", callback=_to_place, metavar="CURSOR", help="Go on behind the session that has this cursor.")
@click.option("--oldest-first", is_flag=True, help="Begin with the session updated longest ago.")
@click.option("--updated-after", callback=_to_moment, metavar="TIME", help="Only those updated at or after TIME.")
@click.option("--updated-before", callback=_to_moment, metavar="TIME", help="Only those updated before TIME.")
@click.option(
    "--state",
    callback=_to_state,
    multiple=True,
    metavar="KEY=VALUE",
    help="Only those whose own state has this VALUE, JSON or a text, under KEY. Can be repeated.",
)
@json_lines_option
def command(
    *,
    file: Database,
    app_name: str | None,
    user_id: str | None,
    limit: int | None,
    after: SessionPlace | None,
    oldest_first: bool,
    updated_after: float | None,
    updated_before: float | None,
    state: tuple[tuple[str, str], ...],
    as_json: bool,
) -> None:
    """List the sessions in FILE, the one updated last first.

    A page at a time: with --limit N, and then with --after and the "cursor" of the last line that --json has
    given. The file is only read. Without FILE: $SESSIONDB_PATH, else .adk/adk.sqlite3, as the service itself.
    """
    from sessiondb import stores
    from sessiondb.model.queries import ListSessions
    from sessiondb.model.records import Selection

    query = ListSessions(
        Selection(app_name, user_id),
        "oldest" if oldest_first else "newest",
        updated_since=updated_after,
        updated_before=updated_before,
        limit=None if limit is None else limit + 1,
        with_state=False,
        after=after,
        state=state,
    )
    with stores.open_reader(file) as reader, reader.snapshot():
        found = _up_to(limit, or_say_so(reader.ask(query), f"session{among(app_name, user_id)}"))
        print_sessions(found, as_json=as_json, with_cursor=True)


def _up_to(limit: int | None, sessions: Iterable[SessionSummary]) -> Iterator[SessionSummary]:
    """Passes sessions on, at most ``limit``, and says how to go on if there are more."""
    last = None
    for n, session in enumerate(sessions):
        if n == limit and last is not None:
            note(f"there are more: --after {_cursor_of(last)}")
            return
        yield session
        last = session


def _cursor_of(session: SessionSummary) -> str:
    from sessiondb.model.cursors import encode_place
    from sessiondb.model.queries import SessionPlace

    return encode_place(SessionPlace(session.head.update_time, session.key))


def print_sessions(sessions: Iterable[SessionSummary], *, as_json: bool, with_cursor: bool = False) -> None:
    """Prints sessions, one a line, as they come; with a cursor for what follows, if that is wanted, in JSON."""
    if as_json:
        for session in sessions:
            print_json_line(
                {
                    **session.key._asdict(),
                    "created_at": session.created_at,
                    "updated_at": session.updated_at,
                    "update_time": session.head.update_time,
                    "events": session.events,
                    **({"cursor": _cursor_of(session)} if with_cursor else {}),
                }
            )
        return
    cells = ((session.updated_at, *session.key, str(session.events)) for session in sessions)
    print_rows(("UPDATED", "APP", "USER", "SESSION", "EVENTS"), cells)
