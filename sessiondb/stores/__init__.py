"""The stores, one package each, and the only place that picks one: by what a path or URL names.

A store is reached through the protocols of :mod:`sessiondb.engine.store`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from sessiondb.errors import ConfigurationError
from sessiondb.options import StoreOptions, resolve_path

if TYPE_CHECKING:
    from sessiondb.engine.store import BulkImport, Reader, Store

# Each is imported when it is needed: a command that reads does without what writes.


def open_store(path: Path | None, options: StoreOptions) -> Store:
    """Makes a store for services, creating the file where it is missing.

    Args:
        path: The file; None for a database in memory.
        options: How to keep it.

    Raises:
        ConfigurationError: If the path cannot be used.
        StorageError: If the file cannot be created.
    """
    from sessiondb.stores.sqlite.store import SqliteStore  # noqa: PLC0415  # as said above

    return SqliteStore(path, options)


def open_reader(location: str | os.PathLike[str], timeout: float = 5.0) -> Reader:
    """Opens a database for reading, beside services that use it; nothing of it, and nothing beside it, is changed.

    Args:
        location: The database, which exists: a path or URL, as a service takes it.
        timeout: How long to wait for a lock, in seconds.

    Returns:
        A context manager that closes it. It answers the queries of :mod:`sessiondb.model.queries`, on one thread at a time.

    Raises:
        ConfigurationError: If the location cannot be used.
        UnsupportedDatabaseError: If it is not a database of sessiondb, or of another version.
        StorageError: If it cannot be read.
    """
    from sessiondb.stores.sqlite.reader import OutsideReader  # noqa: PLC0415  # as said above

    return OutsideReader(_file_at(location), timeout)


def open_import(location: str | os.PathLike[str], timeout: float = 30.0) -> BulkImport:
    """Opens a database for putting whole sessions into it, beside services that use it.

    Args:
        location: The database: a path or URL, as a service takes it. It is created if it is missing.
        timeout: How long to wait for a lock, in seconds.

    Returns:
        A context manager that closes it.

    Raises:
        ConfigurationError: If the location cannot be used.
        StorageError: If the file cannot be opened, is damaged, or is not ours.
    """
    from sessiondb.stores.sqlite.bulk_import import SqliteImport  # noqa: PLC0415  # as said above

    return SqliteImport(_file_at(location), timeout)


def _file_at(location: str | os.PathLike[str]) -> Path:
    path = resolve_path(location, None)
    if path is None:
        raise ConfigurationError("a database in memory belongs to the service that opened it; name a file")
    return path
