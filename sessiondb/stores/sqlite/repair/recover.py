"""Brings what is readable of a damaged file into a new one, and makes it consistent there.

The damaged file is read page by page (:mod:`sessiondb.stores.sqlite.repair.pages`) and never opened by SQLite. Rows that are what rows
of the three tables can be are collected in a database aside (:mod:`sessiondb.stores.sqlite.repair.salvage`); from there the new file
is filled (:mod:`sessiondb.stores.sqlite.repair.rebuild`).
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sessiondb.errors import DatabaseBusyError, DatabaseCorruptError, StorageError
from sessiondb.stores.sqlite import schema
from sessiondb.stores.sqlite.connection import open_writer
from sessiondb.stores.sqlite.errors import translate
from sessiondb.stores.sqlite.file_identity import is_open_here
from sessiondb.stores.sqlite.new_file import check_target, create_private, private_folder, publish
from sessiondb.stores.sqlite.repair.check import check
from sessiondb.stores.sqlite.repair.pages import PageFile
from sessiondb.stores.sqlite.repair.rebuild import TouchedSession, rebuild
from sessiondb.stores.sqlite.repair.salvage import Format, Found, Range, Tally, open_staging, ranges_of

_SHM_ALIVE = 128
"""The byte of the -shm file that SQLite keeps locked for as long as a process has the database open."""


@dataclass(frozen=True, slots=True)
class RecoveryReport:
    """What a recovery has saved.

    Attributes:
        source: The damaged file.
        path: The new file.
        pages: Pages of the damaged file.
        unreadable_pages: Those of them that were damaged as a whole or in part, as far as that shows.
        tables: Names of tables to what became of their rows.
        replayed_keys: Keys of state that come from the log, because no row of them was found.
        touched: Sessions that are not as they were.
        notes: What else is to be known.
    """

    source: Path
    path: Path
    pages: int
    unreadable_pages: tuple[Range, ...]
    tables: dict[str, Tally]
    replayed_keys: int
    touched: tuple[TouchedSession, ...]
    notes: tuple[str, ...]


def recover(source: Path, target: Path, log_format: Format) -> RecoveryReport:
    """Brings what is readable of ``source`` into a new file.

    No program may have ``source`` open; it is not changed. Its WAL is taken into account where there is one.

    Args:
        source: The damaged file.
        target: Where to put the new file; nothing may be there.
        log_format: How to read events and the keys of their state deltas.

    Raises:
        ConfigurationError: If ``target`` cannot be used.
        DatabaseBusyError: If a process has ``source`` open.
        DatabaseCorruptError: If no row of sessiondb's tables can be read.
        StorageError: If a file cannot be read or written.
    """
    check_target(target, overwrite=False)
    with private_folder(target) as folder, _not_in_use(source):
        file = folder / "recovered.sqlite3"
        create_private(file)
        try:
            with PageFile(source) as pages, closing(open_staging(folder / "found.sqlite3")) as staging:
                found = Found(staging, log_format)
                found.collect(pages.rows())
                unreadable = pages.unreadable_pages()
                notes = _notes_on(pages, found.passed_over)
                page_count = pages.page_count
                is_ours = pages.header_is_readable and not unreadable
            if not found.any and not is_ours:
                raise DatabaseCorruptError(f"no row of a database of sessiondb can be read in {str(source)!r}")
            damaged = bool(unreadable or found.rejected_ids or notes)
            with closing(open_writer(file, "normal", 1)) as connection:
                schema.prepare(connection, file)
                connection.execute("ATTACH ? AS found", (str(folder / "found.sqlite3"),))
                rebuilt = rebuild(connection, found, replay=damaged)
                connection.execute("DETACH found")
                connection.execute("PRAGMA journal_mode=DELETE")
        except sqlite3.Error as error:
            raise translate(error, target) from error
        except OSError as error:
            raise StorageError(f"cannot read {str(source)!r}: {error.strerror or error}") from error
        report = check(file, log_format.decode)
        if not report.is_sound:
            problems = "; ".join(problem for finding in report.findings for problem in finding.problems)
            raise StorageError(f"what was recovered of {str(source)!r} does not fit together: {problems}")
        publish(file, target, overwrite=False)
    return RecoveryReport(
        source,
        target,
        page_count,
        ranges_of(unreadable),
        {name: found.tally(name, saved) for name, saved in rebuilt.saved.items()},
        rebuilt.replayed,
        rebuilt.touched,
        tuple(notes),
    )


@contextmanager
def _not_in_use(source: Path) -> Iterator[None]:
    """Keeps other processes from opening a database, where they have ever done so.

    Raises:
        DatabaseBusyError: If one has it open, this one included.
    """
    if is_open_here(source):
        raise DatabaseBusyError(f"a process has {str(source)!r} open, namely this one; close it first")
    try:
        descriptor = os.open(source.with_name(source.name + "-shm"), os.O_RDWR)
    except OSError:
        # Who has a database of ours open has this file, and who could write to it could open it.
        yield
        return
    try:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _SHM_ALIVE)
        except OSError as error:
            raise DatabaseBusyError(f"a process has {str(source)!r} open; stop it first") from error
        yield
    finally:
        os.close(descriptor)


def _notes_on(pages: PageFile, passed_over: int) -> list[str]:
    notes = []
    if not pages.header_is_readable:
        notes.append(
            "the header of the file is damaged; a page size of 4096 bytes was assumed, or that of the log taken"
        )
    if pages.deleted_may_return:
        notes.append("which pages are free cannot be told; sessions and events that were deleted may have come back")
    if pages.skipped_frames:
        notes.append(f"{pages.skipped_frames} pages of the write-ahead log are damaged; earlier versions were taken")
    if passed_over:
        notes.append(f"{passed_over} rows were passed over: of another table, or damaged so that it cannot be told")
    return notes
