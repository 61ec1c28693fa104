"""``sessiondb vacuum``: maintenance of a database."""

from __future__ import annotations

from pathlib import Path

import click

from .database import file_argument
from .output import json_option, print_json, print_pairs

_EPILOG = """\b
Examples:
  sessiondb vacuum
  sessiondb vacuum path/to/sessions.sqlite3
"""


@click.command("vacuum", epilog=_EPILOG)
@file_argument
@json_option
def command(file: Path, as_json: bool) -> None:
    """Reclaim unused space in FILE, refresh the query planner's statistics, check integrity.

    A damaged file is reported and left as it is (exit code 1). Without FILE: $SESSIONDB_PATH,
    else .adk/adk.sqlite3, as the service itself.
    """
    import asyncio

    sizes = asyncio.run(_vacuum(file))
    if as_json:
        print_json(sizes)
    else:
        print_pairs(sizes)


async def _vacuum(file: Path) -> dict[str, float]:
    import asyncio

    from sessiondb import DatabaseSessionService

    async with DatabaseSessionService(file) as service:
        before = service.get_stats()["db_size_mb"]
        await asyncio.to_thread(service.vacuum)
        return {"db_size_mb_before": before, "db_size_mb_after": service.get_stats()["db_size_mb"]}
