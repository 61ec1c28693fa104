"""Files that commands write: the one place that opens them, so that nothing that is stored is destroyed."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

if TYPE_CHECKING:
    from sessiondb.location import Database

_SQLITE = b"SQLite format 3\0"
_BESIDE_A_DATABASE = ("-wal", "-shm", "-journal")
"""Ends of the names of the files that belong to a database and have no header of their own."""

output_option = click.option(
    "-o",
    "--output",
    metavar="OUT",
    help='Write to this file, which is there when it is complete; "-": to standard output, as without it.',
)
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace OUT if it is a file that exists.")


@contextmanager
def written(output: str | None, *, overwrite: bool, source: Database) -> Iterator[TextIO]:
    """Gives a file to write text to: a private one that takes its place once it is complete, or standard output.

    What is at the path already is left alone: a database, the source or any other, with what belongs to it; a folder; a block
    device; a file, unless it may be replaced. A symbolic link stays one, and a pipe or a character device is written to.

    Args:
        output: The path; None or "-" is standard output.
        overwrite: Whether a file that is there may be replaced.
        source: The database that is read.

    Raises:
        click.BadParameter: If something is there that is not to be written to.
        click.ClickException: If it cannot be written.
    """
    if output is None or output == "-":
        yield sys.stdout
        sys.stdout.flush()
        return
    from sessiondb.errors import ConfigurationError
    from sessiondb.location import expand_home

    try:
        path = Path(os.path.realpath(expand_home(output)))
    except ConfigurationError as error:
        raise _refused(str(error)) from error
    try:
        with (
            path.open("w", encoding="utf-8")
            if _is_pipe(path, overwrite=overwrite, source=source)
            else _aside(path) as out
        ):
            yield out
    except OSError as error:
        raise click.ClickException(f"cannot write to {output}: {error.strerror or error}") from error


def _is_pipe(path: Path, *, overwrite: bool, source: Database) -> bool:
    """Looks at what is at the path; says whether it is written through, as pipes and character devices are."""
    if path.name.endswith(_BESIDE_A_DATABASE) and path.with_name(path.name.rpartition("-")[0]).exists():
        raise _refused(f"{path} belongs to the database beside it")
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return False
    if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
        return True
    if not stat.S_ISREG(mode):
        raise _refused(f"{path} is not a regular file")
    # Asked before the file is opened: closing a database that this process has open would give up its locks.
    if isinstance(source, Path) and path.samefile(source):
        raise _refused(f"{path} is the database itself")
    if any(path.with_name(path.name + end).exists() for end in _BESIDE_A_DATABASE):
        raise _refused(f"{path} is a database in use, or its last user crashed")
    with path.open("rb") as file:
        if file.read(len(_SQLITE)) == _SQLITE:
            raise _refused(f"{path} is a database")
    if not overwrite:
        raise _refused(f"{path} exists; --overwrite replaces it")
    return False


def _refused(why: str) -> click.BadParameter:
    return click.BadParameter(f"{why}; nothing was written", param_hint="--output")


@contextmanager
def _aside(path: Path) -> Iterator[TextIO]:
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        with open(descriptor, "w", encoding="utf-8") as out:  # noqa: PTH123  # a descriptor
            yield out
            out.flush()
            os.fsync(descriptor)
        unfinished.replace(path)
    finally:
        with suppress(FileNotFoundError):
            unfinished.unlink()
