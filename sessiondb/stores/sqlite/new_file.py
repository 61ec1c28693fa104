"""Database files that are created: private, at their path at once, or made aside and put there complete."""

from __future__ import annotations

import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sessiondb.errors import ConfigurationError, StorageError
from sessiondb.logger import logger

_SIDECARS = ("-wal", "-shm", "-journal")

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  # private folders are made in it

_MEMORY_BYTES = 256 * 1024 * 1024
"""The room that a database in memory is opened with: a write-ahead log at its largest, 64 MiB, and three times as much
for what is stored. A container has 64 MiB in all, unless it is given more."""


def memory_folder() -> Path:
    """Makes a private folder for a database in memory: in the system's memory, if there is room.

    Otherwise it is made where temporary files go, if there is more room.

    Raises:
        StorageError: If no folder can be made in either place.
    """
    places, free = [_SHARED_MEMORY], _free_bytes(_SHARED_MEMORY)
    if free < _MEMORY_BYTES:
        with suppress(FileNotFoundError):
            places.append(Path(tempfile.gettempdir()))
    place = max(places, key=_free_bytes)
    try:
        folder = Path(tempfile.mkdtemp(prefix="sessiondb-", dir=place))
    except OSError as error:
        raise StorageError(f"cannot create a folder for a database in memory: {error.strerror or error}") from error
    if place != _SHARED_MEMORY:
        logger.warning("memory_database_on_disk", folder=str(folder), memory_free_bytes=free)
    return folder


def _free_bytes(folder: Path) -> int:
    """Returns how much this user can write into a folder; 0 if nothing."""
    try:
        return shutil.disk_usage(folder).free if os.access(folder, os.W_OK | os.X_OK) else 0
    except OSError:
        return 0


def prepare_file(path: Path) -> None:
    """Makes sure that a private, regular file is at ``path``; missing folders are created, private too.

    An existing file is looked at, never opened: closing any descriptor of a database file gives up all POSIX locks
    that this process holds on it.
    """
    try:
        for folder in reversed([parent for parent in path.parents if not parent.exists()]):
            # mkdir(parents=True) gives only the last folder the mode; each one made here is to be private.
            with suppress(FileExistsError):
                folder.mkdir(mode=0o700)
                _sync(folder.parent, os.O_DIRECTORY)
        with suppress(FileExistsError):
            # SQLite gives -wal and -shm the mode of the database file.
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
            _sync(path.parent, os.O_DIRECTORY)
        mode = path.lstat().st_mode
    except OSError as error:
        raise StorageError(f"cannot create {str(path)!r}: {error.strerror or error}") from error
    if stat.S_ISLNK(mode):
        raise ConfigurationError(
            f"{str(path)!r} is a symbolic link, which could lead writes to a file of somebody else's choice; give the"
            " path of the file itself, or say that links are followed (follow_symlinks=True)"
        )
    if not stat.S_ISREG(mode):
        raise ConfigurationError(f"{str(path)!r} is not a regular file")
    refuse_second_name(path)


def refuse_second_name(path: Path) -> None:
    """Makes sure that a file cannot be reached under another name.

    SQLite keeps the write-ahead log beside the name by which a file is opened. Two that open one file under two names do
    not see each other's log, and lose what the other has acknowledged.
    """
    names = path.stat().st_nlink
    if names > 1:
        raise ConfigurationError(
            f"{str(path)!r} is one of {names} names of one file (hard links), and each name would have a write-ahead log of"
            " its own: what is written under one is lost under the others. Remove the other names, or copy the file"
            " (`cp` makes one that stands alone) and use the copy"
        )
    if _is_mounted(path):
        raise ConfigurationError(
            f"{str(path)!r} is mounted by itself (a bind mount of a single file, as with `docker -v ./file:/app/file`): its"
            " write-ahead log would stay beside this name, and whoever opens the file elsewhere would not see it. Mount"
            " the folder that holds the file"
        )


def _is_mounted(path: Path) -> bool:
    try:
        mounts = Path("/proc/self/mountinfo").read_bytes()
    except OSError:
        # Another system than Linux: bind mounts of single files are a thing of containers there, too.
        return False
    real = os.fsencode(path.resolve())
    return any(_unescaped(mount.split(b" ", 5)[4]) == real for mount in mounts.splitlines())


def _unescaped(field: bytes) -> bytes:
    """Undoes what the kernel does to white space and backslashes in a path."""
    return re.sub(rb"\\([0-7]{3})", lambda code: bytes([int(code[1], 8)]), field)


def _sync(path: Path, flags: int) -> None:
    """Makes a file's content, or a folder's entries, survive a power cut: syncing a file does not sync its name."""
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_target(target: Path, *, overwrite: bool) -> None:
    """Looks whether a new database may be put at a path: whether nothing is there that may not be replaced."""
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
    """Gives a folder that only this user can enter, on the file system of ``target``; it is removed in the end."""
    try:
        folder = Path(tempfile.mkdtemp(prefix=".sessiondb-", dir=target.parent))
    except OSError as error:
        raise StorageError(f"cannot write to {str(target.parent)!r}: {error.strerror or error}") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def create_private(file: Path) -> None:
    """Creates an empty file that only this user can read."""
    try:
        os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except OSError as error:
        raise StorageError(f"cannot create {str(file)!r}: {error.strerror or error}") from error


def publish(file: Path, target: Path, *, overwrite: bool) -> None:
    """Syncs a closed database file, and moves it to its path in one step."""
    check_target(target, overwrite=overwrite)
    try:
        _sync(file, os.O_RDWR)
        if overwrite:
            file.replace(target)
        else:
            # Unlike a rename, a link never replaces what another program has put there since.
            os.link(file, target)
        _sync(target.parent, os.O_DIRECTORY)
    except FileExistsError as error:
        raise ConfigurationError(f"{str(target)!r} has appeared meanwhile, and is not replaced") from error
    except OSError as error:
        hint = "" if overwrite else "; where a file system has no hard links, overwrite=True moves the file instead"
        raise StorageError(f"cannot put the file at {str(target)!r}: {error.strerror or error}{hint}") from error
