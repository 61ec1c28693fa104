"""How the commands are told which database they work on."""

from __future__ import annotations

from pathlib import Path

import click

from sessiondb.config import resolve_path
from sessiondb.errors import ConfigurationError


def to_path(_context: click.Context, _parameter: click.Parameter, value: str | None) -> Path:
    """Find the file that ``value`` names as the service does; None stands for the default.

    Raises:
        click.BadParameter: If it cannot be the path of a file.
    """
    try:
        path = resolve_path(value, None)
    except ConfigurationError as error:
        raise click.BadParameter(str(error)) from error
    if path is None:
        raise click.BadParameter("a database in memory ends with its process; name a file")
    if path.is_dir():
        raise click.BadParameter(f"{path} is a folder; name a file")
    return path


def _to_existing_path(context: click.Context, parameter: click.Parameter, value: str | None) -> Path:
    path = to_path(context, parameter, value)
    if not path.exists():
        # Opening it would create it: an empty database in answer to a mistyped name.
        raise click.BadParameter(f"{path} does not exist")
    return path


file_argument = click.argument("file", required=False, callback=_to_existing_path)
"""A database that exists: a path or URL, by default the one that the service would open."""
