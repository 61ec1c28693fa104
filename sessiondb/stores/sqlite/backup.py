"""Copies of an open file: one snapshot each, made beside the writer, checked, and put in place complete."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

from sessiondb.engine.store import Progress
from sessiondb.errors import ConfigurationError, DatabaseCorruptError
from sessiondb.model.records import BackupReport
from sessiondb.stores.sqlite.connection import open_reader, open_scratch
from sessiondb.stores.sqlite.errors import primary_code, translate
from sessiondb.stores.sqlite.new_file import check_target, create_private, private_folder, publish
from sessiondb.stores.sqlite.readonly import BUSY_TIMEOUT, ReadOnlyFile, read_whole
from sessiondb.stores.sqlite.wal import find_problems

_STEP_PAGES = 256
"""How many pages are copied between two looks at whether to go on: 1 MiB of an ordinary file."""

_STEP_INSTRUCTIONS = 50_000
"""The same for statements, in instructions of SQLite's virtual machine."""

_COUNTS = """
SELECT (SELECT count(*) FROM adk_sessions), (SELECT count(*) FROM adk_events), (SELECT count(*) FROM adk_state)
"""


def check_backup_target(target: Path, path: Path, *, overwrite: bool) -> None:
    """Looks whether a copy of ``path`` may be put at ``target``: never over itself, or over a database in use."""
    with suppress(OSError):
        if target.samefile(path):
            raise ConfigurationError(f"{str(target)!r} is the database itself")
    check_target(target, overwrite=overwrite)


def back_up(path: Path, target: Path, *, overwrite: bool, progress: Progress | None) -> BackupReport:
    """Makes a backup from outside: the file is only read, whether or not services use it."""
    check_backup_target(target, path, overwrite=overwrite)

    def copy(file: ReadOnlyFile) -> BackupReport | None:
        return copy_database(
            file.connection, path, target, overwrite=overwrite, progress=progress, is_whole=file.is_unchanged
        )

    return read_whole(path, copy)


def back_up_beside_writer(path: Path, target: Path) -> None:
    """Copies what is committed, beside a connection of this process that may hold the write lock."""
    check_target(target, overwrite=False)
    with closing(open_reader(path, BUSY_TIMEOUT)) as source:
        copy_database(source, path, target, overwrite=False)


class _GivenUpError(Exception):
    """The copy was given up between two steps; never leaves this module."""


def copy_database(
    source: sqlite3.Connection,
    path: Path,
    target: Path,
    *,
    overwrite: bool,
    progress: Progress | None = None,
    goes_on: Callable[[], bool] = lambda: True,
    is_whole: Callable[[], bool] = lambda: True,
) -> BackupReport | None:
    """Copies what a connection sees of ``path``, while ``goes_on``, and keeps the copy if ``is_whole`` in the end.

    Returns None if one of the two said no, and nothing was left behind.
    """
    started = time.monotonic()

    def after_step(_status: int, remaining: int, total: int) -> None:
        if not goes_on():
            raise _GivenUpError
        if progress is not None:
            progress(total - remaining, total)

    with private_folder(target) as folder:
        file = folder / "copy.sqlite3"
        create_private(file)
        try:
            with closing(open_scratch(file)) as copy:
                for connection in (source, copy):
                    connection.set_progress_handler(lambda: not goes_on(), _STEP_INSTRUCTIONS)
                # One read transaction from the counts to the last page: within it the writer's commits are not seen,
                # and without it each of them would make SQLite copy from the first page again.
                source.execute("BEGIN")
                counts: tuple[int, int, int] = source.execute(_COUNTS).fetchone()
                source.backup(copy, pages=_STEP_PAGES, progress=after_step)
                source.execute("COMMIT")
                # A file that stands alone, and can be read where nothing can be written beside it.
                copy.execute("PRAGMA journal_mode=DELETE")
                _check(copy, path, counts)
        except _GivenUpError:
            return None
        except sqlite3.Error as error:
            if not goes_on():
                return None
            if primary_code(error) == sqlite3.SQLITE_INTERRUPT:
                # Nobody else interrupts: Python has met a Ctrl-C in the progress handler, where sqlite3 drops it.
                raise KeyboardInterrupt from None
            # A damaged page is the source's; the copy is new.
            blamed = path if primary_code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) else target
            raise translate(error, blamed, reading=blamed is path) from error
        if not is_whole():
            return None
        size = file.stat().st_size
        publish(file, target, overwrite=overwrite)
    sessions, events, state_keys = counts
    return BackupReport(target, sessions, events, state_keys, size, time.monotonic() - started)


def _check(copy: sqlite3.Connection, path: Path, counts: tuple[int, int, int]) -> None:
    problems = find_problems(copy)
    found = copy.execute(_COUNTS).fetchone()
    if found != counts:
        problems.append(f"the copy holds {found} sessions, events and rows of state where {counts} were read")
    if problems:
        raise DatabaseCorruptError(
            f"a copy of {str(path)!r} is damaged and was not kept: {'; '.join(problems)}. Check the file itself"
        )
