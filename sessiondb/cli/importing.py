"""``sessiondb import``: sessions from JSON Lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .database import to_database
from .output import json_option, print_json, print_pairs, progress

if TYPE_CHECKING:
    from sessiondb.location import Database

_EPILOG = """\b
Examples:
  sessiondb import sessions.jsonl path/to/sessions.sqlite3
  sessiondb import sessions.jsonl path/to/sessions.sqlite3 --skip-existing
  sessiondb import - path/to/sessions.sqlite3 --json < sessions.jsonl
"""


@click.command("import", epilog=_EPILOG)
@click.argument("source", metavar="IN", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.argument("target", metavar="DEST", callback=to_database)
@click.option("--skip-existing", is_flag=True, help="Leave sessions alone that are in DEST; resumes an import.")
@json_option
def command(*, source: str, target: Database, skip_existing: bool, as_json: bool) -> None:
    """Put the sessions that `sessiondb export` wrote to IN ("-": standard input) into DEST.

    DEST is created if it is missing. A session comes with all its events or not at all; one that DEST
    has ends the import, unless such are skipped. State of users and apps that DEST has stays.
    """
    from dataclasses import asdict

    from sessiondb import stores
    from sessiondb.transfer.jsonl import checked_lines, import_lines

    try:
        with click.open_file(source, encoding="utf-8-sig") as lines:
            # Before DEST is created: a file of another kind leaves nothing behind.
            export = checked_lines(lines)
            with stores.open_import(target) as into, progress("imported lines") as advance:
                done = asdict(import_lines(export, into, skip_existing=skip_existing, advance=advance))
    except UnicodeDecodeError as error:
        raise click.ClickException(f"{source} is not UTF-8") from error
    if as_json:
        print_json(done)
    else:
        print_pairs(done)
