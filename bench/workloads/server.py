"""What only a server has: its raw yardstick, and batches as the writer sends them, on tables of any size."""

from __future__ import annotations

import asyncio
import gc
import itertools
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from typing import TYPE_CHECKING

from bench import data
from bench.server import SCHEMA, database
from bench.services import RAW_SERVER
from bench.timing import Sample, append_sample
from bench.workloads.clients import busy_thread
from bench.workloads.registry import Round, workload
from bench.workloads.seeding import temporary_folder
from sessiondb.adk.events import encode_event
from sessiondb.adk.state import encode_delta
from sessiondb.location import ServerLocation, resolve_location
from sessiondb.model.commands import AppendEvent, CreateSession, Handle
from sessiondb.model.records import Outcome, SessionKey, StateDelta
from sessiondb.options import StoreOptions

if TYPE_CHECKING:
    import psycopg

    from sessiondb.stores.postgres.writer import PostgresWriter

_BODY = "x" * 540

# Events of a size of their own, as the clients' are; statistics are what the server makes of them by itself, sooner or later.
_FILL = f"""
INSERT INTO {SCHEMA}.adk_sessions
    SELECT %(app)s, 'user-' || n, 's' || n, '2026-01-01T00:00:00.000000Z', '2026-01-01T00:00:00.000000Z', 0,
           nextval('{SCHEMA}.sessiondb_incarnations'), %(events)s, %(events)s
      FROM generate_series(0, %(sessions)s - 1) AS n;
INSERT INTO {SCHEMA}.adk_state
    SELECT app_name, user_id, CASE key WHEN 'step' THEN session_id END, CASE key WHEN 'step' THEN 'SESSION' ELSE 'USER' END,
           key, '1', updated_at
      FROM {SCHEMA}.adk_sessions, (VALUES ('step'), ('steps')) AS keys (key);
INSERT INTO {SCHEMA}.adk_events (
    app_name, user_id, session_id, invocation_id, author, timestamp, content, actions, seq, revision, event_id, event_time,
    incarnation, event_hash
)
    SELECT app_name, user_id, session_id, 'e-' || n, 'agent', updated_at, repeat('x', 300), %(actions)s, n, n,
           session_id || '-' || n, 0, incarnation, hashtextextended(session_id || '-' || n, 0)
      FROM {SCHEMA}.adk_sessions, generate_series(1, %(events)s) AS n;
ANALYZE;
CHECKPOINT
"""
_WITHOUT_STATISTICS = "; ".join(
    f"ALTER TABLE {SCHEMA}.{table} SET (autovacuum_enabled = off)"
    for table in ("adk_sessions", "adk_events", "adk_state", "sessiondb_writers")
)


@workload
async def append_raw_server(name: str, *, batch: int, commits: int, threaded: bool = False) -> AsyncIterator[Round]:
    """Rows as large as an event, by raw psycopg: ``batch`` of them a commit, one prepared statement.

    With ``threaded``, the event loop has a thread do it, as it must.
    """
    assert name == RAW_SERVER
    statement = "INSERT INTO raw VALUES (%s)" if batch == 1 else "INSERT INTO raw SELECT unnest(%s::text[])"
    parameter = _BODY if batch == 1 else [_BODY] * batch
    with temporary_folder() as folder, _connected(database(folder)) as connection:
        connection.execute("CREATE TABLE raw (body text)")

        async def run() -> Sample:
            gc.collect()
            seconds = []
            for _ in range(commits):
                started = time.perf_counter()
                if threaded:
                    await asyncio.to_thread(connection.execute, statement, (parameter,), prepare=True)
                else:
                    connection.execute(statement, (parameter,), prepare=True)
                seconds.append(time.perf_counter() - started)
            return _commit_sample(seconds, batch)

        yield run


@workload
async def commit_server(
    name: str,
    *,
    batch: int,
    commits: int,
    busy: bool = False,
    sessions: int = 0,
    events: int = 0,
    fresh: int | None = None,
) -> AsyncIterator[Round]:
    """Batches as the writer thread commits them, without a service around it: each append to a session of its own.

    Args:
        name: The service; its partitions count, its options do not.
        batch: Appends of a batch.
        commits: Batches of a round.
        busy: Beside a thread that computes.
        sessions: How many sessions the tables hold already, with ``events`` each; 0: new tables.
        events: See there.
        fresh: New tables, of which the server makes no statistics, after so many events.
    """
    from sessiondb.stores.postgres.connection import Server  # noqa: PLC0415
    from sessiondb.stores.postgres.writer import PostgresWriter  # noqa: PLC0415

    with temporary_folder() as folder:
        url = database(folder, partitions=8 if name == "pg_divided" else 0)
        location = resolve_location(url, schema=SCHEMA)
        assert isinstance(location, ServerLocation)
        with closing(PostgresWriter(Server(location), StoreOptions(), SCHEMA)) as writer:
            if fresh is not None:
                _run(url, _WITHOUT_STATISTICS)
            clients = _Clients(writer, max(batch, 64)) if not sessions else _filled(writer, url, sessions, events)
            for _ in range((fresh or 0) // 64):
                clients.commit(64)

            async def run() -> Sample:
                prepared = [clients.commands(batch) for _ in range(commits)]
                gc.collect()
                seconds = []
                with busy_thread() if busy else nullcontext():
                    for commands in prepared:
                        started = time.perf_counter()
                        outcomes = writer.commit(commands)
                        seconds.append(time.perf_counter() - started)
                        clients.advance(commands, outcomes)
                return _commit_sample(seconds, batch)

            yield run


class _Clients:
    """Sessions, each with the handle of a client that appends to it."""

    def __init__(self, writer: PostgresWriter, count: int) -> None:
        self._writer = writer
        self._handles: dict[SessionKey, Handle] = {}
        for key in (SessionKey(data.APP, f"user-{n}", f"c{n}") for n in range(count)):
            (outcome,) = writer.commit([CreateSession(key, 0.0, "2026-01-01T00:00:00.000000Z", StateDelta(), "{}")])
            assert isinstance(outcome, Outcome)
            self._handles[key] = Handle(outcome.incarnation, 0, "")
        self._turn = itertools.cycle(self._handles)

    @classmethod
    def of(cls, writer: PostgresWriter, handles: dict[SessionKey, Handle]) -> _Clients:
        """Those of sessions that are there."""
        clients = cls(writer, 0)
        clients._handles = handles
        clients._turn = itertools.cycle(handles)
        return clients

    def commands(self, count: int) -> list[AppendEvent]:
        """Makes an append to each of the next ``count`` sessions."""
        commands = []
        for key in itertools.islice(self._turn, count):
            event = data.event()
            delta = encode_delta(event.actions.state_delta)
            commands.append(AppendEvent(key, encode_event(event, delta).record, delta.stored, self._handles[key]))
        return commands

    def advance(self, commands: Sequence[AppendEvent], outcomes: Sequence[object]) -> None:
        """Tells the handles what has become of a batch, as the service does."""
        for command, outcome in zip(commands, outcomes, strict=True):
            assert isinstance(outcome, Outcome)
            self._handles[command.key].advance(outcome)

    def commit(self, count: int) -> None:
        """Commits a batch that is not timed."""
        commands = self.commands(count)
        self.advance(commands, self._writer.commit(commands))


def _filled(writer: PostgresWriter, url: str, sessions: int, events: int) -> _Clients:
    """Fills the tables, and returns clients of sessions from everywhere in them."""
    with _connected(url) as connection:
        actions = data.event().actions.model_dump_json(exclude_none=True)
        numbers = {"app": data.APP, "sessions": sessions, "events": events, "actions": actions}
        for statement in _FILL.split(";\n"):
            connection.execute(statement, numbers if "%(" in statement else None)
        wanted = min(sessions, 256)
        rows = connection.execute(
            f"SELECT app_name, user_id, session_id, incarnation, revision FROM {SCHEMA}.adk_sessions"
            " WHERE session_id = ANY(%s)",
            ([f"s{n * sessions // wanted}" for n in range(wanted)],),
        ).fetchall()
    return _Clients.of(writer, {SessionKey(*row[:3]): Handle(row[3], row[4], "") for row in rows})


def _commit_sample(seconds: Sequence[float], batch: int) -> Sample:
    """A round of commits: by its median, whatever its batches hold."""
    sample = append_sample(seconds, sum(seconds), alone=True)
    sample.figures["per_second"] *= batch
    return sample


def _run(url: str, statement: str) -> None:
    with _connected(url) as connection:
        connection.execute(statement)


@contextmanager
def _connected(url: str) -> Iterator[psycopg.Connection]:
    import psycopg  # noqa: PLC0415

    with psycopg.connect(url, autocommit=True) as connection:
        yield connection
