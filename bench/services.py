"""The services that are compared, behind one way to open them, and the raw yardsticks beside them."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from google.adk.errors import StaleSessionError
from google.adk.sessions import BaseSessionService, InMemorySessionService, Session
from google.adk.sessions.sqlite_session_service import SqliteSessionService

from bench import server
from sessiondb import DatabaseSessionService

Opened = AbstractAsyncContextManager[BaseSessionService]


@dataclass(frozen=True)
class Host:
    """How the process is set up that a service is measured in.

    Attributes:
        uvloop: Whether it runs uvloop's event loop instead of asyncio's.
        switch_interval: For how long a thread may keep the GIL that others wait for, in seconds.
        collector: What becomes of Python's garbage collector when a workload is prepared: ``"frozen"`` hides what was
            prepared from it, ``"as it is"`` leaves it alone, ``"rare"`` lets it run a hundredth as often, ``"off"`` not
            at all.
    """

    uvloop: bool = False
    switch_interval: float = 0.005
    collector: Literal["frozen", "as it is", "rare", "off"] = "frozen"

    def loop_factory(self) -> Callable[[], asyncio.AbstractEventLoop] | None:
        """What makes the event loop; None: asyncio itself."""
        if not self.uvloop:
            return None
        import uvloop  # noqa: PLC0415  # not installed everywhere

        factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
        return factory

    def set_collector(self) -> None:
        """Does with the garbage collector what is to be done once a workload is prepared."""
        gc.collect()
        if self.collector == "frozen":
            gc.freeze()
        elif self.collector == "rare":
            gc.set_threshold(70_000, 10, 10)
        elif self.collector == "off":
            gc.disable()


@dataclass(frozen=True)
class Peer:
    """A session service under measurement.

    Attributes:
        title: Its name in tables.
        open: Opens it on a folder of its own, with what an earlier service left there.
        durable: Whether anything is left there.
        on_server: Whether it keeps its data on the server of the run, in a database that is called as the folder.
        errors: What it raises under load although nothing is wrong with the call; counted, never hidden.
        stale_create: Whether a Session that ``create_session`` returns must be read once more before it can be
            appended to.
        host: How its process is set up.
    """

    title: str
    open: Callable[[Path], Opened]
    durable: bool = True
    on_server: bool = False
    errors: tuple[type[Exception], ...] = ()
    stale_create: bool = False
    host: Host = Host()

    async def create(self, service: BaseSessionService, app: str, user: str, session_id: str) -> Session:
        """Creates a session; returns a handle that can be appended to."""
        session = await service.create_session(app_name=app, user_id=user, session_id=session_id)
        if self.stale_create:
            fresh = await service.get_session(app_name=app, user_id=user, session_id=session_id)
            assert fresh is not None
            return fresh
        return session


def sessiondb(**options: Any) -> Callable[[Path], Opened]:
    """Opens this service with some options."""

    @asynccontextmanager
    async def opened(folder: Path) -> AsyncIterator[BaseSessionService]:
        async with DatabaseSessionService(folder / "sessions.sqlite3", **options) as service:
            yield service

    return opened


class _WithoutTelemetry(DatabaseSessionService):
    """The service as it was before its methods were made operations."""


for _name in dir(DatabaseSessionService):
    _method = getattr(DatabaseSessionService, _name)
    # The constructor is wrapped, too, in something else.
    if hasattr(_method, "__wrapped__") and _name != "__init__":
        setattr(_WithoutTelemetry, _name, _method.__wrapped__)


@asynccontextmanager
async def _without_telemetry(folder: Path) -> AsyncIterator[BaseSessionService]:
    async with _WithoutTelemetry(folder / "sessions.sqlite3") as service:
        yield service


@asynccontextmanager
async def _with_an_sdk(folder: Path) -> AsyncIterator[BaseSessionService]:
    # Spans are made and dropped, and measurements added up: what an exporter does is its own.
    from opentelemetry import metrics, trace  # noqa: PLC0415
    from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415

    if not isinstance(trace.get_tracer_provider(), TracerProvider):
        trace.set_tracer_provider(TracerProvider())
        metrics.set_meter_provider(MeterProvider([InMemoryMetricReader()]))
    async with DatabaseSessionService(folder / "sessions.sqlite3") as service:
        yield service


@asynccontextmanager
async def _memory(folder: Path) -> AsyncIterator[BaseSessionService]:
    del folder
    yield InMemorySessionService()


@asynccontextmanager
async def _adk_sqlite(folder: Path) -> AsyncIterator[BaseSessionService]:
    service = SqliteSessionService(str(folder / "sessions.sqlite3"))
    try:
        yield service
    finally:
        await service.close()


@asynccontextmanager
async def _adk_database(folder: Path) -> AsyncIterator[BaseSessionService]:
    # Imported where they are opened: a gate run needs neither SQLAlchemy nor sqlspec.
    from google.adk.sessions import DatabaseSessionService as AdkDatabaseSessionService  # noqa: PLC0415

    async with AdkDatabaseSessionService(f"sqlite+aiosqlite:///{folder / 'sessions.sqlite3'}") as service:
        yield service


@asynccontextmanager
async def _sqlspec(folder: Path) -> AsyncIterator[BaseSessionService]:
    from sqlspec.adapters.sqlite import SqliteConfig  # noqa: PLC0415
    from sqlspec.adapters.sqlite.adk import SqliteADKStore  # noqa: PLC0415
    from sqlspec.extensions.adk import SQLSpecSessionService  # noqa: PLC0415

    # Its own profile for files: WAL, synchronous=NORMAL.
    config = SqliteConfig(connection_config={"database": str(folder / "sessions.sqlite3")})
    store = SqliteADKStore(config)
    store.create_tables()
    try:
        async with SQLSpecSessionService(store) as service:
            yield service
    finally:
        config.close_pool()


def _database_errors() -> tuple[type[Exception], ...]:
    try:
        from sqlalchemy.exc import DBAPIError  # noqa: PLC0415
    except ImportError:
        return (sqlite3.OperationalError, StaleSessionError)
    return (DBAPIError, sqlite3.OperationalError, StaleSessionError)


SESSIONDB = "sessiondb"
UVLOOP = "uvloop"
SERVER = "pg"
MEMORY = "mem"
RAW = "raw"
RAW_SERVER = "pg_raw"
"""The yardsticks are no session services: only appends are measured on them."""


def _on_server(title: str, opening: server.Opening, **more: Any) -> Peer:
    return Peer(f"PostgreSQL: {title}", opening, on_server=True, **more)


PEERS: dict[str, Peer] = {
    SESSIONDB: Peer("sessiondb", sessiondb()),
    UVLOOP: Peer("sessiondb on uvloop", sessiondb(), host=Host(uvloop=True)),
    "share": Peer("sessiondb, log_cache=share", sessiondb(log_cache="share")),
    "shallow": Peer("sessiondb, log_cache=shallow", sessiondb(log_cache="shallow")),
    "plain": Peer("sessiondb, telemetry taken out", _without_telemetry),
    "sdk": Peer("sessiondb, with an OpenTelemetry SDK", _with_an_sdk),
    MEMORY: Peer("ADK in-memory", _memory, durable=False),
    "sql": Peer("ADK SQLite", _adk_sqlite, errors=(sqlite3.OperationalError, StaleSessionError)),
    "db": Peer("ADK database (aiosqlite)", _adk_database, errors=_database_errors()),
    "spec": Peer("sqlspec's ADK extension", _sqlspec, stale_create=True),
    SERVER: _on_server("sessiondb", server.sessiondb()),
    "pg_shallow": _on_server("sessiondb, log_cache=shallow", server.sessiondb(log_cache="shallow")),
    "pg_uncached": _on_server("sessiondb, log_cache=off", server.sessiondb(log_cache="off")),
    "pg_divided": _on_server("sessiondb, 8 partitions", server.sessiondb(partitions=8)),
    "pg_far": _on_server("sessiondb, 2 ms away", server.sessiondb(far=True)),
    "pg_db": _on_server("ADK database (asyncpg)", server.adk_database(), errors=server.errors()),
    "pg_db_far": _on_server("ADK database (asyncpg), 2 ms away", server.adk_database(far=True), errors=server.errors()),
    "pg_spec": _on_server("sqlspec's ADK extension (asyncpg)", server.sqlspec, stale_create=True),
}

HAS_UVLOOP = importlib.util.find_spec("uvloop") is not None
"""Where it is not installed, what is measured on it is left out."""

TITLES = {name: peer.title for name, peer in PEERS.items()} | {
    RAW: "raw SQLite, one thread",
    RAW_SERVER: "raw PostgreSQL, one thread",
}
