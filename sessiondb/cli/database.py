"""How the commands are told which database they work on, and what in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import click

if TYPE_CHECKING:
    from sessiondb.engine.store import Reader
    from sessiondb.location import Database
    from sessiondb.model.records import SessionSummary

    FileCallback: TypeAlias = Callable[[click.Context, click.Parameter, str | None], Path]


def to_database(_context: click.Context, _parameter: click.Parameter, value: str | None) -> Database:
    """Finds the database that ``value`` names as the service does; None stands for the default.

    Raises:
        click.BadParameter: If it cannot be the path of a file or the URL of a server.
    """
    from sessiondb.errors import ConfigurationError
    from sessiondb.location import resolve_location

    try:
        found = resolve_location(value)
    except ConfigurationError as error:
        raise click.BadParameter(str(error)) from error
    if found is None:
        raise click.BadParameter("a database in memory ends with its process; name a file")
    if isinstance(found, Path) and found.is_dir():
        raise click.BadParameter(f"{found} is a folder; name a file")
    return found


def to_existing_database(context: click.Context, parameter: click.Parameter, value: str | None) -> Database:
    """As :func:`to_database`, for a file that is to be there. A server is asked when it is read."""
    found = to_database(context, parameter, value)
    if isinstance(found, Path):
        _refuse_missing(found)
    return found


def to_file(instead: str) -> FileCallback:
    """Returns what finds a database as :func:`to_database`, for a command that is not for servers.

    Args:
        instead: What to use with a server, for the message.
    """

    def find(context: click.Context, parameter: click.Parameter, value: str | None) -> Path:
        found = to_database(context, parameter, value)
        if not isinstance(found, Path):
            raise click.BadParameter(f"not with a PostgreSQL server: use {instead}")
        return found

    return find


def to_existing_file(instead: str) -> FileCallback:
    """As :func:`to_file`, for a file that is to be there."""
    to_any = to_file(instead)

    def find(context: click.Context, parameter: click.Parameter, value: str | None) -> Path:
        found = to_any(context, parameter, value)
        _refuse_missing(found)
        return found

    return find


def _refuse_missing(path: Path) -> None:
    if not path.exists():
        # Opening it would create it: an empty database in answer to a mistyped name.
        raise click.BadParameter(f"{path} does not exist")
    if not path.is_file():
        # Opening a pipe would wait for somebody who writes to it.
        raise click.BadParameter(f"{path} is not a regular file")


file_argument = click.argument("file", required=False, callback=to_existing_database)
"""A database that exists: a path or URL, by default the one that the service would open."""


def file_and(word: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Adds the argument ``given``: a database as :data:`file_argument`, and what is looked for in it."""

    def split(context: click.Context, parameter: click.Parameter, words: tuple[str, ...]) -> tuple[Database, str]:
        match words:
            case (only,):
                return to_existing_database(context, parameter, None), only
            case (first, second):
                if not _is_database(context, parameter, first) and _is_database(context, parameter, second):
                    # The order of the first versions.
                    first, second = second, first
                return to_existing_database(context, parameter, first), second
        raise click.UsageError(f"there are {len(words)} arguments; give [FILE] {word}", context)

    return click.argument("given", nargs=-1, required=True, metavar=f"[FILE] {word}", callback=split)


def _is_database(context: click.Context, parameter: click.Parameter, value: str) -> bool:
    try:
        found = to_database(context, parameter, value)
    except click.BadParameter:
        # An id or key may be anything, a URL of another kind or the name of a folder too.
        return False
    return found.is_file() if isinstance(found, Path) else True


def selection_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds ``--app`` and ``--user``."""
    app_option = click.option("--app", "app_name", metavar="NAME", help="Only this app.")
    user_option = click.option("--user", "user_id", metavar="ID", help="Only this user.")
    return app_option(user_option(command))


def among(app_name: str | None, user_id: str | None, session_id: str | None = None) -> str:
    """Says what the selection options have chosen, for a message."""
    chosen = (("app", app_name), ("user", user_id), ("session", session_id))
    return "".join(f" of {kind} {name!r}" for kind, name in chosen if name is not None)


def only_session(
    reader: Reader, file: Database, app_name: str | None, user_id: str | None, session_id: str
) -> SessionSummary:
    """Finds the one session that an id means, together with the selection options.

    Raises:
        click.ClickException: If there is none, or several.
    """
    from sessiondb.model.queries import ListSessions
    from sessiondb.model.records import Selection

    query = ListSessions(Selection(app_name, user_id, session_id), "key", limit=_NAMED + 1, with_state=False)
    found = list(reader.ask(query))
    if not found:
        raise click.ClickException(f"there is no session {session_id!r} in {file}")
    if len(found) > 1:
        named = ", ".join(f"--app {key.app_name!r} --user {key.user_id!r}" for key, *_ in found[:_NAMED])
        raise click.UsageError(
            f"several sessions have the id {session_id!r}; say which one is meant:"
            f" {named}{', ...' if len(found) > _NAMED else ''}"
        )
    return found[0]


_NAMED = 3
"""How many of the sessions of one id are named."""


session_option = click.option("--session", "session_id", metavar="ID", help="Only this session.")


def count_from(least: int) -> click.IntRange:
    """Returns the type of an option that says how many: SQLite's integrity check takes a larger number for a table."""
    return click.IntRange(min=least, max=2**31 - 1)
