"""Files that are made aside and appear at their path complete, or not at all."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sessiondb.errors import ConfigurationError, StorageError
from sessiondb.stores.sqlite.connection import sync_folder

_SIDECARS = ("-wal", "-shm", "-journal")


def check_target(target: Path, *, overwrite: bool) -> None:
    """Looks whether a new database may be put at a path.

    Raises:
        ConfigurationError: If something is there that may not be replaced.
    """
    left = [file.name for file in sidecars_of(target) if os.path.lexists(file)]
    if left:
        # SQLite would apply them to whatever file stands there.
        raise ConfigurationError(
            f"{', '.join(left)} stand beside {str(target)!r}: that database is in use, or its last user crashed. Give"
            " another path"
        )
    try:
        mode = target.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise StorageError(f"cannot look at {str(target)!r}: {error.strerror or error}") from error
    if not overwrite:
        raise ConfigurationError(f"{str(target)!r} exists; give another path, or say that it may be overwritten")
    if not stat.S_ISREG(mode):
        raise ConfigurationError(f"{str(target)!r} is not a regular file, and is not replaced")


def sidecars_of(database: Path) -> list[Path]:
    """Returns the files that SQLite may keep beside a database."""
    return [database.with_name(database.name + suffix) for suffix in _SIDECARS]


@contextmanager
def private_folder(target: Path) -> Iterator[Path]:
    """Gives a folder that only this user can enter, on the file system of ``target``; it is removed in the end.

    Raises:
        StorageError: If it cannot be made.
    """
    try:
        folder = Path(tempfile.mkdtemp(prefix=".sessiondb-", dir=target.parent))
    except OSError as error:
        raise StorageError(f"cannot write to {str(target.parent)!r}: {error.strerror or error}") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def create_private(file: Path) -> None:
    """Creates an empty file that only this user can read.

    Raises:
        StorageError: If it cannot be created.
    """
    try:
        os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except OSError as error:
        raise StorageError(f"cannot create {str(file)!r}: {error.strerror or error}") from error


def publish(file: Path, target: Path, *, overwrite: bool) -> None:
    """Syncs a closed database file, and moves it to its path in one step.

    Raises:
        ConfigurationError: If something has appeared at the path that may not be replaced.
        StorageError: If the file system refuses.
    """
    check_target(target, overwrite=overwrite)
    try:
        descriptor = os.open(file, os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if overwrite:
            file.replace(target)
        else:
            # Unlike a rename, a link never replaces what another program has put there since.
            os.link(file, target)
        sync_folder(target.parent)
    except FileExistsError as error:
        raise ConfigurationError(f"{str(target)!r} has appeared meanwhile, and is not replaced") from error
    except OSError as error:
        hint = "" if overwrite else "; where a file system has no hard links, overwrite=True moves the file instead"
        raise StorageError(f"cannot put the file at {str(target)!r}: {error.strerror or error}{hint}") from error
