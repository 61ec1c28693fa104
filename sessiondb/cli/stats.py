"""``sessiondb stats``: how much a database holds."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import click

from .database import file_argument
from .output import json_option, print_json, print_pairs

_EPILOG = """\b
Examples:
  sessiondb stats
  sessiondb stats path/to/sessions.sqlite3
  sessiondb stats --json | jq .events
"""

_FILE_FIGURES = ("sessions", "events", "state_keys", "db_size_mb", "wal_bytes")
"""What is true of the file, whoever asks; the other figures are of the asking process."""


@click.command("stats", epilog=_EPILOG)
@file_argument
@json_option
def command(file: Path, as_json: bool) -> None:
    """Show how much FILE holds: sessions, events, state keys; and its size.

    Without FILE: $SESSIONDB_PATH, else .adk/adk.sqlite3, as the service itself.
    """
    stats = asyncio.run(_read_stats(file))
    if as_json:
        print_json(stats)
    else:
        print_pairs(stats)


async def _read_stats(file: Path) -> dict[str, Any]:
    from sessiondb import DatabaseSessionService

    async with DatabaseSessionService(file) as service:
        stats: dict[str, Any] = {**service.get_stats()}
    return {name: stats[name] for name in _FILE_FIGURES}
