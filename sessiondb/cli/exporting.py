"""``sessiondb export``: sessions as JSON Lines."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

import click

from .database import file_argument, selection_options
from .output import json_lines_option, progress, safe_line

_EPILOG = """\b
Examples:
  sessiondb export path/to/sessions.sqlite3 -o sessions.jsonl
  sessiondb export --session sess_abc | jq 'select(.type == "event").event'
  sessiondb export --app my_app | gzip > my_app.jsonl.gz
"""


@click.command("export", epilog=_EPILOG)
@file_argument
@selection_options
@click.option("--session", "session_ids", multiple=True, metavar="ID", help="Only this session; may be repeated.")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="OUT",
    help="Write to this file, replacing it in the end, instead of to standard output.",
)
@json_lines_option
def command(
    *,
    file: Path,
    app_name: str | None,
    user_id: str | None,
    session_ids: tuple[str, ...],
    output: Path | None,
    as_json: bool,
) -> None:
    """Write the sessions in FILE as JSON Lines, which `sessiondb import` reads: all of one moment.

    With sessions come the state of their app and user. The file is only read. The output is JSON with
    or without --json. Without FILE: $SESSIONDB_PATH, else .adk/adk.sqlite3, as the service itself.
    """
    del as_json
    from sessiondb import stores
    from sessiondb.model.queries import ListSessions
    from sessiondb.model.records import Selection
    from sessiondb.transfer.jsonl import export_lines

    selection = Selection(app_name, user_id)
    with stores.open_reader(file) as reader, _opened(output) as out, progress("exported lines") as advance:
        for session_id in session_ids:
            one = ListSessions(selection._replace(session_id=session_id), limit=1, with_state=False)
            if not list(reader.ask(one)):
                raise click.ClickException(safe_line(f"there is no session {session_id!r} in {file}"))
        for line in export_lines(reader, selection, session_ids):
            out.write(line + "\n")
            advance(1)


@contextmanager
def _opened(output: Path | None) -> Iterator[TextIO]:
    """Gives a private file that takes its place once it is complete, or standard output."""
    if output is None:
        yield sys.stdout
        sys.stdout.flush()
        return
    unfinished = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        descriptor = os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except OSError as error:
        raise click.ClickException(f"cannot write to {output}: {error.strerror}") from error
    try:
        with open(descriptor, "w", encoding="utf-8") as out:  # noqa: PTH123  # a descriptor
            yield out
            out.flush()
            os.fsync(descriptor)
        unfinished.replace(output)
    except OSError as error:
        raise click.ClickException(f"cannot write to {output}: {error.strerror}") from error
    finally:
        with suppress(FileNotFoundError):
            unfinished.unlink()
