"""Brings a file of an earlier schema version up to date, in place: all of it in one transaction, after a copy was made.

Rules for a step:

- It takes the tables from one version to the next, by statements on the connection it is given. The transaction is not
  its own: it neither begins nor ends one, and so must not use ``executescript``.
- Foreign keys are not enforced meanwhile, so that tables can be rebuilt; they are checked in the end.
- A process of the earlier release may have the file open. What it would write wrongly from now on must fail, so a new
  column is ``NOT NULL`` and has no default, or a column that it writes gets another name.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Mapping
from itertools import chain, count
from pathlib import Path
from typing import TypeAlias

from sessiondb.errors import SessionDBError, UnsupportedDatabaseError, UpgradeError
from sessiondb.logger import logger
from sessiondb.stores.sqlite.backup import back_up_beside_writer
from sessiondb.stores.sqlite.errors import SYNC_FAILED
from sessiondb.stores.sqlite.header import look

Step: TypeAlias = Callable[[sqlite3.Connection], None]
"""Takes the tables from one version to the next."""


def upgrade(connection: sqlite3.Connection, path: Path, version: int, steps: Mapping[int, Step]) -> None:
    """Brings a file to ``version``, unless it is there already: another process may have been first.

    Writers wait meanwhile, for as long as their own ``busy_timeout``; readers see the file as it was.

    Args:
        connection: The writer's connection, in no transaction.
        path: The file, in WAL mode.
        version: The version it is to have.
        steps: For each earlier version, the step to the next one.
    """
    # Within a transaction this setting cannot be changed.
    connection.execute("PRAGMA foreign_keys=OFF")
    try:
        # From here on nobody else writes: what is copied is what is changed.
        connection.execute("BEGIN IMMEDIATE")
        found = look(connection).version
        if found < version:
            _climb(connection, path, range(found, version), steps)
    finally:
        # Nothing was changed, or all that was is committed.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        connection.execute("PRAGMA foreign_keys=ON")


def _climb(connection: sqlite3.Connection, path: Path, versions: range, steps: Mapping[int, Step]) -> None:
    known = [steps.get(version) for version in versions]
    if None in known:
        raise UnsupportedDatabaseError(
            f"{str(path)!r} has schema version {versions.start}, from which no way leads to {versions.stop}. It was not"
            " changed"
        )
    started = time.monotonic()
    logger.info("schema_upgrade_begun", path=str(path), from_version=versions.start, to_version=versions.stop)
    copy = _copy(path, versions)
    try:
        for step in filter(None, known):
            step(connection)
        if connection.execute("PRAGMA foreign_key_check").fetchone() is not None:
            raise _failed(path, versions, "a row refers to another one that does not exist")
        connection.execute(f"PRAGMA user_version={versions.stop}")
        connection.execute("COMMIT")
    except BaseException as error:  # whatever ended it, an interrupt too: the copy must not stay, and it is raised on
        if getattr(error, "sqlite_errorcode", 0) in SYNC_FAILED:
            # Whether it is committed shows when the file is opened again.
            raise
        # The file stays as it was, and a copy for each attempt would fill the disk.
        copy.unlink()
        if isinstance(error, sqlite3.Error):
            raise _failed(path, versions, str(error)) from error
        raise
    logger.info(
        "schema_upgraded",
        path=str(path),
        from_version=versions.start,
        to_version=versions.stop,
        backup=str(copy),
        seconds=time.monotonic() - started,
    )


def _copy(path: Path, versions: range) -> Path:
    """Copies the file to a free name beside it: a copy that is there may be all that is left of something else."""
    name = f"{path.name}.schema-{versions.start}.backup"
    names = chain([name], (f"{name}-{number}" for number in count(2)))
    copy = next(copy for copy in map(path.with_name, names) if not os.path.lexists(copy))
    try:
        back_up_beside_writer(path, copy)
    except SessionDBError as error:
        raise UpgradeError(
            f"{str(path)!r} has schema version {versions.start}, and was not brought to {versions.stop}: before that, it"
            f" is copied to {str(copy)!r}, which has failed: {error}"
        ) from error
    return copy


def _failed(path: Path, versions: range, why: str) -> UpgradeError:
    return UpgradeError(
        f"{str(path)!r} could not be brought from schema version {versions.start} to {versions.stop}, and was not"
        f" changed: {why}"
    )
