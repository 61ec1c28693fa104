"""``sessiondb migrate``: from ADK's own session services, and back."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from .database import to_database, to_existing_database
from .output import json_option, print_json, print_pairs, progress, safe_line

_EPILOG = """\b
Examples:
  sessiondb migrate adk.db path/to/sessions.sqlite3
  sessiondb migrate sqlite+aiosqlite:///adk.db path/to/sessions.sqlite3 --json
  sessiondb migrate path/to/sessions.sqlite3 adk.db --to adk-sqlite
"""


def _to_source(context: click.Context, parameter: click.Parameter, value: str) -> Path:
    return to_existing_database(context, parameter, value.replace("sqlite+aiosqlite:", "sqlite:", 1))


@click.command("migrate", epilog=_EPILOG)
@click.argument("source", metavar="SOURCE", callback=_to_source)
@click.argument("target", metavar="DEST", callback=to_database)
@click.option(
    "--to",
    "kind",
    type=click.Choice(["sessiondb", "adk-sqlite"]),
    default="sessiondb",
    show_default=True,
    help="What DEST is to be: adk-sqlite is a file of ADK's SqliteSessionService.",
)
@json_option
def command(*, source: Path, target: Path, kind: str, as_json: bool) -> None:
    """Carry all sessions from SOURCE to DEST, compare both, and report what could not be carried.

    SOURCE is an SQLite file of ADK's SqliteSessionService or DatabaseSessionService, or with
    --to adk-sqlite one of sessiondb. It is only read. DEST is created if it is missing; sessions that it
    has are compared and stay, so that a migration is resumed by starting it again. The exit code is 1 if
    something was not carried or differs.
    """
    import logging

    from sessiondb.transfer.adk_import import migrate_adk_file, migrate_to_adk_sqlite

    # What ADK has to say about old schemas is in the report.
    logging.getLogger("google_adk").addHandler(logging.NullHandler())
    migrate = migrate_adk_file if kind == "sessiondb" else migrate_to_adk_sqlite
    with progress("sessions carried and compared") as advance:
        report = migrate(source, target, advance=advance)
    counts = asdict(report)
    if as_json:
        print_json(counts)
    else:
        notes, failures = counts.pop("notes"), counts.pop("failures")
        print_pairs(counts)
        for kind_of_line, texts in (("note", notes), ("failure", failures)):
            for text in texts:
                click.echo(safe_line(f"{kind_of_line}: {text}"))
    if report.failures:
        raise click.ClickException(f"{len(report.failures)} things were not carried, or differ; the report names them")
