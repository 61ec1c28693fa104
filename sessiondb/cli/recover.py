"""``sessiondb recover``: what is readable of a damaged database, in a new one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .database import to_existing_file, to_file
from .output import json_option, print_json, safe_line

if TYPE_CHECKING:
    from sessiondb.stores.sqlite.repair.recover import RecoveryReport

_ON_A_SERVER = "a standby or a backup of it; `sessiondb check` says what is damaged"

_EPILOG = """\b
Examples:
  sessiondb recover damaged.sqlite3 recovered.sqlite3
  sessiondb recover damaged.sqlite3 recovered.sqlite3 --json | jq .touched
"""


@click.command("recover", epilog=_EPILOG)
@click.argument("damaged", callback=to_existing_file(_ON_A_SERVER))
@click.argument("new", callback=to_file(_ON_A_SERVER))
@json_option
def command(damaged: Path, new: Path, as_json: bool) -> None:
    """Save what is readable of DAMAGED in NEW, and say what is not.

    Stop every program that uses DAMAGED first. It is not changed; if there are a -wal file or a -shm file beside it,
    leave them there.
    """
    from sessiondb.adk import events as codec
    from sessiondb.adk import scopes
    from sessiondb.stores.sqlite.repair import recover as recovery
    from sessiondb.stores.sqlite.repair import salvage as salvaged

    report = recovery.recover(damaged, new, salvaged.Format(codec.decode_event, scopes.parse))
    if as_json:
        touched = [{**asdict(session), "lost_events": session.lost_events} for session in report.touched]
        print_json({**asdict(report), "source": str(damaged), "path": str(new), "touched": touched})
    else:
        for line in _lines_of(report):
            click.echo(safe_line(line))


def _lines_of(report: RecoveryReport) -> Iterator[str]:
    damaged_pages = sum(last - first + 1 for first, last in report.unreadable_pages)
    yield f"damaged pages: {damaged_pages:,} of {report.pages:,}{_listed(report.unreadable_pages)}"
    for table, tally in report.tables.items():
        yield f"{table}: {tally.saved:,} rows saved, {tally.rejected:,} damaged{_listed(tally.rejected_ids)}"
    if report.replayed_keys:
        yield f"{report.replayed_keys:,} keys of state were rebuilt from the log"
    for session in report.touched:
        lost = f"{session.lost_events:,} events lost{_listed(session.lost)}"
        own_row = "; its own row was lost" if session.recreated else ""
        yield (
            f"session {session.session_id!r} of user {session.user_id!r}, app {session.app_name!r}:"
            f" {session.events:,} events saved, {lost}{own_row}"
        )
    yield from report.notes


def _listed(ranges: Iterable[tuple[int, int]]) -> str:
    text = ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)
    return f" ({text})" if text else ""
