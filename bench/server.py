"""The PostgreSQL server of a run, and the services that are compared on it.

A server is started by the first worker that needs one. What SQLite has as a folder is a database here, of the same name.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from google.adk.errors import StaleSessionError
from google.adk.sessions import BaseSessionService

from sessiondb import DatabaseSessionService

versions: list[str] = []
"""What the servers that this process has started say of themselves."""

_SERVER = "SESSIONDB_BENCH_SERVER"
_FAR = "SESSIONDB_BENCH_FAR_SERVER"

DELAY = 0.002
"""What the far server's network adds each way, in seconds."""

SCHEMA = "sessiondb"

Opening = Callable[[Path], AbstractAsyncContextManager[BaseSessionService]]

# As it is installed, but for memory: with 32 MB and a log of 1 GB a checkpoint would fall into every other row.
_SETTINGS = {"shared_buffers": "256MB", "max_wal_size": "8GB", "fsync": "on", "synchronous_commit": "on"}


@contextmanager
def started() -> Iterator[None]:
    """Starts the server, and a proxy that makes it a far one, for this process and those that it starts."""
    # Imported here: whoever measures files needs neither the driver nor the tests.
    from bench.proxy import delaying_proxy  # noqa: PLC0415
    from tests.postgres.server import run, server  # noqa: PLC0415

    with server(settings=_SETTINGS) as running, delaying_proxy(running.port, DELAY) as far_port:
        name, number = run("postgres", "--version").split()[1:3]
        versions.append(f"{name.strip('()')} {number}")
        os.environ[_SERVER] = running.url("").rstrip("/")
        os.environ[_FAR] = os.environ[_SERVER].replace(f":{running.port}", f":{far_port}")
        try:
            yield
        finally:
            del os.environ[_SERVER], os.environ[_FAR]


def database(folder: Path, *, far: bool = False, partitions: int = 0) -> str:
    """Returns the URL of the database of a folder, which is created if it is missing; with divided tables in it."""
    import psycopg  # noqa: PLC0415

    from sessiondb.stores.postgres import schema  # noqa: PLC0415

    url = os.environ[_SERVER]
    with psycopg.connect(f"{url}/postgres", autocommit=True) as connection:
        if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (folder.name,)).fetchone() is None:
            connection.execute(f'CREATE DATABASE "{folder.name}"')
            if partitions:
                with psycopg.connect(f"{url}/{folder.name}", autocommit=True) as inside:
                    inside.execute(f"CREATE SCHEMA {SCHEMA}")
                    schema.run(inside, schema.script(SCHEMA, partitions))
    return f"{os.environ[_FAR] if far else url}/{folder.name}"


def sessiondb(*, far: bool = False, partitions: int = 0, **options: Any) -> Opening:
    """Opens this service with some options."""

    @asynccontextmanager
    async def opened(folder: Path) -> AsyncIterator[BaseSessionService]:
        url = database(folder, far=far, partitions=partitions)
        async with DatabaseSessionService(url, schema=SCHEMA, **options) as service:
            yield service

    return opened


def adk_database(*, far: bool = False) -> Opening:
    """Opens ADK's DatabaseSessionService on asyncpg."""

    @asynccontextmanager
    async def opened(folder: Path) -> AsyncIterator[BaseSessionService]:
        from google.adk.sessions import DatabaseSessionService as AdkDatabaseSessionService  # noqa: PLC0415

        url = database(folder, far=far).replace("postgresql://", "postgresql+asyncpg://", 1)
        async with AdkDatabaseSessionService(url) as service:
            yield service

    return opened


@asynccontextmanager
async def sqlspec(folder: Path) -> AsyncIterator[BaseSessionService]:
    """Opens sqlspec's ADK extension on asyncpg."""
    from sqlspec.adapters.asyncpg import AsyncpgConfig  # noqa: PLC0415
    from sqlspec.adapters.asyncpg.adk import AsyncpgADKStore  # noqa: PLC0415
    from sqlspec.extensions.adk import SQLSpecSessionService  # noqa: PLC0415

    config = AsyncpgConfig(connection_config={"dsn": database(folder)})
    store = AsyncpgADKStore(config)
    await store.create_tables()
    try:
        async with SQLSpecSessionService(store) as service:
            yield service
    finally:
        await config.close_pool()


def errors() -> tuple[type[Exception], ...]:
    """What the peers raise under load although nothing is wrong with the call."""
    try:
        from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415
    except ImportError:
        return (StaleSessionError,)
    return (SQLAlchemyError, StaleSessionError)
