"""``sessiondb check``: whether a database is sound."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from .database import count_from, file_argument
from .output import json_option, note, print_json, safe_line

if TYPE_CHECKING:
    from sessiondb.location import Database
    from sessiondb.model.soundness import CheckReport

_EPILOG = """\b
Examples:
  sessiondb check
  sessiondb check path/to/sessions.sqlite3
  sessiondb check --json | jq .findings

\b
Exit codes:
  0  no problem was found
  1  problems were found, or the file cannot be read
  2  the command was called wrongly
"""


@click.command("check", epilog=_EPILOG)
@file_argument
@click.option("--limit", type=count_from(1), default=20, show_default=True, help="How many problems of a kind to list.")
@json_option
@click.pass_context
def command(context: click.Context, file: Database, limit: int, as_json: bool) -> None:
    """Check FILE: its pages and indexes, and what must hold between sessions, events and state.

    Nothing is changed, and services may use FILE meanwhile. Without FILE: $SESSIONDB_PATH, else .adk/adk.sqlite3, as
    the service itself.
    """
    from sessiondb import stores
    from sessiondb.adk.events import decode_event

    report = stores.check(file, decode_event, limit=limit)
    if as_json:
        print_json({**asdict(report), "is_sound": report.is_sound})
    else:
        _print(report)
    context.exit(0 if report.is_sound else 1)


def _print(report: CheckReport) -> None:
    looked_at = f"{report.sessions:,} sessions, {report.events:,} events, {report.state_keys:,} keys of state"
    click.echo(f"{'sound' if report.is_sound else 'NOT SOUND'}: {looked_at}")
    if report.is_sound:
        note("Sound: SQLite's own check and those of sessiondb have found nothing that is not as it was written.")
    for finding in (*report.findings, report.notes):
        if finding.count:
            click.echo(f"{finding.check} ({finding.count:,})")
        for problem in finding.problems:
            click.echo(f"  {safe_line(problem)}")
        if finding.count > len(finding.problems):
            click.echo(f"  and {finding.count - len(finding.problems):,} more")
