"""The ``sessiondb`` command.

Exit codes: 0 the command did what it was asked, 1 it failed, 2 it was called wrongly.

The modules of this package import what they need inside their commands, so that
``sessiondb --help`` does not wait for ADK.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module

import click
from typing_extensions import override

from .output import safe_line

_EPILOG = """\b
Examples:
  sessiondb demo
  sessiondb list --limit 20
  sessiondb show path/to/sessions.sqlite3 SESSION
  sessiondb tail --follow

\b
Shell completion (bash; zsh and fish likewise):
  eval "$(_SESSIONDB_COMPLETE=bash_source sessiondb)"

\b
Exit codes:
  0  the command did what it was asked
  1  it failed; the reason is one line on standard error
  2  it was called wrongly
"""


class _Group(click.Group):
    """A group whose commands end with one line, not a traceback, on an error of the service."""

    @override
    def invoke(self, ctx: click.Context) -> object:
        try:
            found = super().invoke(ctx)
            sys.stdout.flush()
        except (click.exceptions.Exit, click.Abort):
            raise
        except click.ClickException as error:
            # File names and ids are whatever somebody has made them.
            vars(error).update(message=safe_line(error.message))
            raise
        except BrokenPipeError:
            # Whoever read, `head` for example, has enough.
            _drop_unwritten()
            raise click.exceptions.Exit(1) from None
        except UnicodeEncodeError as error:
            if error.encoding == "utf-8":
                # Only what a shell hands over can be such a text.
                raise click.ClickException(f"{error.object!r} is not UTF-8, and no name in a database is") from None
            raise click.ClickException(
                f"standard output takes {error.encoding} only; set PYTHONIOENCODING=utf-8, or use --json"
            ) from None
        except MemoryError:
            raise click.ClickException("there is not enough memory for it") from None
        except RecursionError:
            raise click.ClickException("something in it is nested too deep to be read") from None
        except Exception as error:
            from sessiondb.errors import SessionDBError

            if isinstance(error, OSError):
                _drop_unwritten()
                raise click.ClickException(safe_line(f"{error.strerror or error}")) from error
            if not isinstance(error, SessionDBError):
                raise
            # An integrity report has many lines; on standard error an error is one.
            raise click.ClickException(safe_line("; ".join(str(error).splitlines()))) from error
        return found


def _drop_unwritten() -> None:
    """Drops what standard output does not take: Python would try again at its end, and fail in words of its own."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@click.group(cls=_Group, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="sessiondb")
def main() -> None:
    """Durable sessions for Google ADK, in one SQLite file or on a PostgreSQL server."""


for _name in (
    "backup",
    "check",
    "demo",
    "exporting",
    "history",
    "importing",
    "index",
    "init",
    "init_postgres",
    "listing",
    "migrate",
    "prune",
    "recover",
    "search",
    "redact",
    "show",
    "stats",
    "tail",
    "truncate",
    "usage",
    "vacuum",
):
    main.add_command(import_module(f".{_name}", __name__).command)
