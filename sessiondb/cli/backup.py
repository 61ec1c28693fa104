"""``sessiondb backup``: a copy of a database that is in use."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import click

from .database import to_existing_file, to_file
from .output import json_option, print_json, print_pairs

_ON_A_SERVER = "its own tools for backups (pg_basebackup, pg_dump), or `sessiondb export`"

_EPILOG = """\b
Examples:
  sessiondb backup sessions.sqlite3 backups/monday.sqlite3
  sessiondb backup sessions.sqlite3 latest.sqlite3 --overwrite
"""


@click.command("backup", epilog=_EPILOG)
@click.argument("file", callback=to_existing_file(_ON_A_SERVER))
@click.argument("target", callback=to_file(_ON_A_SERVER))
@click.option("--overwrite", is_flag=True, help="Replace TARGET if it exists.")
@json_option
def command(file: Path, target: Path, overwrite: bool, as_json: bool) -> None:
    """Copy FILE to TARGET, while services go on using it.

    The copy is of one moment, is checked, and stands alone. TARGET appears when it is complete; if the command fails or
    is interrupted, nothing is left.
    """
    from rich.console import Console
    from rich.progress import Progress

    from sessiondb.stores.sqlite.backup import back_up

    console = Console(stderr=True)
    with ExitStack() as shown:
        progress = None
        # A bar that is disabled still writes an empty line, with rich before 14.3.
        if console.is_terminal:
            bar = shown.enter_context(Progress(console=console, transient=True))
            copying = bar.add_task("copying", total=None)

            def progress(done: int, total: int) -> None:
                bar.update(copying, completed=done, total=total)

        report = back_up(file, target, overwrite=overwrite, progress=progress)
    figures = asdict(report)
    path = figures.pop("path")
    if as_json:
        print_json({"path": str(path), **figures})
    else:
        print_pairs(figures)
