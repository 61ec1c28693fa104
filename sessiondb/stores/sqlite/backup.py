"""Copies of an open file: one snapshot each, made beside the writer, checked, and put in place complete."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias
from urllib.parse import quote

from sessiondb.engine.waiting import Ticket, settle, waiter_for_task
from sessiondb.errors import ConfigurationError, DatabaseCorruptError, ServiceClosedError, StorageError
from sessiondb.stores.sqlite.connection import open_reader, translate
from sessiondb.stores.sqlite.new_file import check_target, create_private, private_folder, publish
from sessiondb.stores.sqlite.untouched import ATTEMPTS, changed_each_time, opened_untouched
from sessiondb.stores.sqlite.wal import find_problems

Progress: TypeAlias = Callable[[int, int], None]
"""Is told how many pages are copied, and how many there are in all."""

_STEP_PAGES = 256
"""How many pages are copied between two looks at whether to go on: 1 MiB of an ordinary file."""

_STEP_INSTRUCTIONS = 50_000
"""The same for statements, in instructions of SQLite's virtual machine."""

_PATIENCE = 5.0
"""How long to wait for a lock that is held for moments only, in seconds."""

_COUNTS = """
SELECT (SELECT count(*) FROM adk_sessions), (SELECT count(*) FROM adk_events), (SELECT count(*) FROM adk_state)
"""


@dataclass(frozen=True, slots=True)
class BackupReport:
    """What a backup holds.

    Attributes:
        path: Where it is.
        sessions: Sessions in it.
        events: Events in it.
        state_keys: Rows of state in it, of all scopes.
        file_bytes: Its size.
        seconds: How long it took to make and check it.
    """

    path: Path
    sessions: int
    events: int
    state_keys: int
    file_bytes: int
    seconds: float


class Backups:
    """The backups being made of one open file, each on a thread and a connection of its own.

    A reader of the pool is not used: it would be missing for as long as the copy takes.
    """

    def __init__(self, path: Path, busy_timeout: float) -> None:
        self._path = path
        self._busy_timeout = busy_timeout
        self._changed = threading.Condition()
        # Copies that have the file open; nobody may fork, or close the file, before there are none.
        self._copying = 0
        self._suspended = False
        self._closed = False

    async def make(self, target: Path, *, overwrite: bool, progress: Progress | None) -> BackupReport:
        """Makes a backup; see ``DatabaseSessionService.backup``."""
        if _is_same(target, self._path):
            raise ConfigurationError(f"{str(target)!r} is the database itself")
        check_target(target, overwrite=overwrite)
        waiter = waiter_for_task()
        ticket: Ticket[None, BackupReport] = Ticket(None, waiter)
        stop = threading.Event()

        def run() -> None:
            try:
                ticket.outcome = self._make(target, overwrite, progress, stop)
            except BaseException as error:  # noqa: BLE001  # reaches the caller
                ticket.error = error
            settle([ticket])

        threading.Thread(target=run, name=f"sessiondb-backup-{self._path.name}", daemon=True).start()
        try:
            await waiter.wait()
        except GeneratorExit:
            # The loop is gone and this coroutine with it: the thread clears up by itself.
            stop.set()
            raise
        except waiter.cancelled:
            stop.set()
            await waiter.wait_through_cancellation()
            raise
        return ticket.result()

    def close(self) -> None:
        """Stops what is being copied, with ServiceClosedError, and waits until the file is given up. Idempotent."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._changed.wait_for(self._is_idle)

    def suspend(self) -> None:
        """Has the file given up until :meth:`resume`; what is being copied starts over then."""
        with self._changed:
            self._suspended = True
            self._changed.wait_for(self._is_idle)

    def resume(self) -> None:
        """Lets copies go on."""
        with self._changed:
            self._suspended = False
            self._changed.notify_all()

    def _is_idle(self) -> bool:
        return not self._copying

    @contextmanager
    def _file(self) -> Iterator[None]:
        """Lasts while a copy may have the file open.

        Raises:
            ServiceClosedError: If the file is closed.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closed or not self._suspended)
            if self._closed:
                raise ServiceClosedError("the session service is closed")
            self._copying += 1
        try:
            yield
        finally:
            with self._changed:
                self._copying -= 1
                self._changed.notify_all()

    def _make(self, target: Path, overwrite: bool, progress: Progress | None, stop: threading.Event) -> BackupReport:
        def goes_on() -> bool:
            return not (stop.is_set() or self._closed or self._suspended)

        while True:
            with self._file():
                try:
                    with closing(open_reader(self._path, self._busy_timeout)) as source:
                        return _copy(
                            source, self._path, target, overwrite=overwrite, progress=progress, goes_on=goes_on
                        )
                except _GivenUpError:
                    if stop.is_set():
                        raise StorageError("the backup was cancelled; nothing was left behind") from None


def back_up(path: Path, target: Path, *, overwrite: bool, progress: Progress | None) -> BackupReport:
    """Makes a backup from outside: the file is only read, whether or not services use it.

    Raises:
        ConfigurationError: If ``target`` is a database in use, or exists and may not be replaced.
        StorageError: If the copy cannot be made, or is damaged as the file is.
    """
    if _is_same(target, path):
        raise ConfigurationError(f"{str(target)!r} is the database itself")
    check_target(target, overwrite=overwrite)
    for _ in range(ATTEMPTS):
        with opened_untouched(path) as (source, is_unchanged):
            try:
                return _copy(source, path, target, overwrite=overwrite, progress=progress, is_whole=is_unchanged)
            except _GivenUpError:
                continue
    raise changed_each_time(path)


def back_up_beside_writer(path: Path, target: Path) -> None:
    """Copies what is committed, beside a connection of this process that may hold the write lock.

    Raises:
        ConfigurationError: If something is at ``target``.
        StorageError: If the copy cannot be made, or is damaged as the file is.
    """
    check_target(target, overwrite=False)
    with closing(open_reader(path, _PATIENCE)) as source:
        _copy(source, path, target, overwrite=False, progress=None)


class _GivenUpError(Exception):
    """The copy was given up half-way; never leaves this module."""


def _is_same(target: Path, path: Path) -> bool:
    try:
        return target.samefile(path)
    except OSError:
        return False


def _always() -> bool:
    return True


def _copy(
    source: sqlite3.Connection,
    path: Path,
    target: Path,
    *,
    overwrite: bool,
    progress: Progress | None,
    goes_on: Callable[[], bool] = _always,
    is_whole: Callable[[], bool] = _always,
) -> BackupReport:
    """Copies what a connection sees of ``path``, while ``goes_on``, and keeps the copy if ``is_whole`` in the end.

    Raises:
        _GivenUpError: If one of the two says no.
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
            with closing(_open_copy(file)) as copy:
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
        except sqlite3.Error as error:
            if not goes_on():
                raise _GivenUpError from error
            raise translate(error, target) from error
        if not is_whole():
            raise _GivenUpError
        size = file.stat().st_size
        publish(file, target, overwrite=overwrite)
    sessions, events, state_keys = counts
    return BackupReport(target, sessions, events, state_keys, size, time.monotonic() - started)


def _open_copy(file: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"file:{quote(str(file))}?mode=rw", uri=True, isolation_level=None, check_same_thread=False
    )
    # The file is thrown away when anything goes wrong, and synced when all is well.
    connection.execute("PRAGMA journal_mode=OFF")
    connection.execute("PRAGMA synchronous=OFF")
    connection.execute("PRAGMA cell_size_check=ON")
    connection.execute("PRAGMA trusted_schema=OFF")
    return connection


def _check(copy: sqlite3.Connection, path: Path, counts: tuple[int, int, int]) -> None:
    problems = find_problems(copy)
    found = copy.execute(_COUNTS).fetchone()
    if found != counts:
        problems.append(f"the copy holds {found} sessions, events and rows of state where {counts} were read")
    if problems:
        raise DatabaseCorruptError(
            f"a copy of {str(path)!r} is damaged and was not kept: {'; '.join(problems)}. Check the file itself"
        )
