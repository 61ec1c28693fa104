"""``sessiondb migrate``: from ADK's own session services, and back; and between files and servers."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .database import to_database, to_existing_database
from .output import json_option, print_json, print_pairs, progress, safe_line

if TYPE_CHECKING:
    from sessiondb.location import Database
    from sessiondb.transfer import MigrationReport
    from sessiondb.transfer.jsonl import Advance

_EPILOG = """\b
Examples:
  sessiondb migrate adk.db path/to/sessions.sqlite3
  sessiondb migrate sqlite+aiosqlite:///adk.db path/to/sessions.sqlite3 --json
  sessiondb migrate postgresql+asyncpg://user@host/adk postgresql://user@host/sessions
  sessiondb migrate path/to/sessions.sqlite3 postgresql://user@host/sessions
  sessiondb migrate path/to/sessions.sqlite3 adk.db --to adk-sqlite
"""


_ADKS_URL = re.compile(r"(sqlite|postgresql)\+(aiosqlite|asyncpg|psycopg|psycopg2):")


def _to_source(context: click.Context, parameter: click.Parameter, value: str) -> tuple[Database, bool]:
    """Finds the source, and whether the URL says that it is ADK's: SQLAlchemy's name a driver."""
    adks = _ADKS_URL.match(value)
    if adks is not None:
        value = f"{adks[1]}:{value[adks.end() :]}"
        if adks[2] == "asyncpg":
            value = re.sub(r"(?<=[?&])ssl=", "sslmode=", value)
    return to_existing_database(context, parameter, value), adks is not None


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
def command(*, source: tuple[Database, bool], target: Database, kind: str, as_json: bool) -> None:
    """Carry all sessions from SOURCE to DEST, compare both, and report what could not be carried.

    SOURCE is a database of sessiondb, or one of ADK's: a file of SqliteSessionService or DatabaseSessionService, or the URL
    of a PostgreSQL server that DatabaseSessionService uses. A URL that names a driver (postgresql+asyncpg:) is ADK's. With
    --to adk-sqlite it is one of sessiondb. It is only read. DEST is created if it is missing; sessions that it has are compared and stay, so that a migration is resumed by
    starting it again. The exit code is 1 if something was not carried or differs.
    """
    import logging

    # What ADK has to say about old schemas is in the report.
    logging.getLogger("google_adk").addHandler(logging.NullHandler())
    with progress("sessions carried and compared") as advance:
        report = _migrate(*source, target, kind, advance)
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


def _migrate(source: Database, is_adks: bool, target: Database, kind: str, advance: Advance) -> MigrationReport:
    from sessiondb import stores, transfer

    if kind == "adk-sqlite":
        if not isinstance(target, Path):
            raise click.BadParameter("a file of SqliteSessionService is no server; name a file", param_hint="DEST")
        return transfer.migrate_to_adk_sqlite(source, target, advance=advance)
    if not is_adks and stores.holds_sessions(source):
        return transfer.migrate_sessiondb(source, target, advance=advance)
    if isinstance(source, Path):
        return transfer.migrate_adk_file(source, target, advance=advance)
    return transfer.migrate_adk_server(source, target, advance=advance)
