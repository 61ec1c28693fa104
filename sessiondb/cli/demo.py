"""``sessiondb demo``: see it work, on this machine, without a network."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from .database import to_database
from .output import json_option, print_json

_EPILOG = """\b
Examples:
  sessiondb demo
  sessiondb demo --path /tmp/demo.sqlite3
  sessiondb demo --json | jq .timings
"""


def _to_path_if_given(context: click.Context, parameter: click.Parameter, value: str | None) -> Path | None:
    return None if value is None else to_database(context, parameter, value)


@click.command("demo", epilog=_EPILOG)
@click.option(
    "--path",
    metavar="FILE",
    callback=_to_path_if_given,
    help="The database to use; created if missing, and kept.",
)
@click.option("--keep", is_flag=True, help="Keep the temporary database.")
@json_option
def command(path: Path | None, keep: bool, as_json: bool) -> None:
    """Hold a conversation, go on with it in a new process, and show what was stored.

    A real ADK Runner talks to a scripted model: no network and no API key. The database is
    a temporary one unless --path names a file.
    """
    from rich.console import Console

    from sessiondb.demo.run import run

    console = Console(quiet=as_json, markup=False, emoji=False, highlight=False)
    with _database(path, keep=keep) as database:
        report = run(database, console)
    kept = database.exists()
    if as_json:
        print_json({**report, "kept": kept})
    elif kept:
        click.echo(f"The database is kept: {database}\nLook again: sessiondb stats {database}")
    else:
        click.echo("The database was temporary and is gone; --keep or --path FILE keeps it.")


@contextmanager
def _database(path: Path | None, *, keep: bool) -> Iterator[Path]:
    if path is not None:
        yield path
        return
    folder = Path(tempfile.mkdtemp(prefix="sessiondb-demo-"))
    try:
        yield folder / "demo.sqlite3"
    finally:
        if not keep:
            shutil.rmtree(folder)
