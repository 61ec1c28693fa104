"""Holding the engine up at a known point, looking into it, and running calls side by side."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread
from google.adk.events import Event, EventActions
from google.adk.sessions import Session
from google.genai import types

from sessiondb import DatabaseSessionService
from sessiondb.engine.engine import Engine
from sessiondb.engine.queue import WriteQueue
from sessiondb.engine.store import Writer
from sessiondb.errors import StorageError
from sessiondb.model.commands import DataCommand
from sessiondb.model.queries import CountEvents
from sessiondb.model.records import Outcome, SessionKey
from sessiondb.stores.sqlite.writer import SqliteWriter

APP = "app"
USER = "user"
TIMEOUT = 20.0
"""How long a test waits for what must happen, before it fails."""

ResultT = TypeVar("ResultT")


def event(text: str = "hello", state: dict[str, Any] | None = None, **fields: Any) -> Event:
    """An event of the user with a text and a state delta."""
    content = types.Content(role="user", parts=[types.Part(text=text)])
    return Event(author="user", content=content, actions=EventActions(state_delta=state or {}), **fields)


def text_of(stored: Event) -> str | None:
    """The text of an event made by :func:`event`."""
    assert stored.content is not None
    assert stored.content.parts
    return stored.content.parts[0].text


async def get(service: DatabaseSessionService, session_id: str) -> Session:
    """Read a session that exists."""
    session = await service.get_session(APP, USER, session_id)
    assert session is not None
    return session


async def texts(service: DatabaseSessionService, session_id: str) -> list[str | None]:
    """The texts of a session's log."""
    return [text_of(stored) for stored in (await get(service, session_id)).events]


async def create(service: DatabaseSessionService, session_id: str = "s") -> Session:
    """Create a session."""
    return await service.create_session(APP, USER, session_id)


async def until(condition: Callable[[], bool]) -> None:
    """Let other tasks and threads run until ``condition`` holds."""
    with anyio.fail_after(TIMEOUT):
        while not condition():
            await anyio.lowlevel.checkpoint()


async def a_while() -> None:
    """Give other tasks, and callbacks from threads, ample chance to run."""
    for _ in range(20):
        await anyio.lowlevel.checkpoint()


async def happened(it: threading.Event) -> None:
    """Wait, as a task, for a thread's event."""
    assert await anyio.to_thread.run_sync(it.wait, TIMEOUT)


async def outcomes(calls: Iterable[Callable[[], Awaitable[ResultT]]]) -> list[ResultT | Exception]:
    """Make calls side by side and return what each returned or raised."""
    calls = list(calls)
    results: dict[int, ResultT | Exception] = {}

    async def run(number: int, call: Callable[[], Awaitable[ResultT]]) -> None:
        try:
            results[number] = await call()
        except Exception as error:  # noqa: BLE001  # it is the result
            results[number] = error

    async with anyio.create_task_group() as group:
        for number, call in enumerate(calls):
            group.start_soon(run, number, call)
    return [results[number] for number in range(len(calls))]


def engine_of(service: DatabaseSessionService) -> Engine:
    """What an open service shares with the others of its file."""
    return service._shared


def sqlite_writer(service: DatabaseSessionService) -> SqliteWriter:
    """What the writer thread of an open service writes with; look at it only while the writer is at rest."""
    writer = engine_of(service).threads.writer.writer
    assert isinstance(writer, SqliteWriter)
    return writer


def measured(service: DatabaseSessionService) -> dict[str, float]:
    """Figures of the moment; unlike ``get_stats`` this touches no connection."""
    return engine_of(service).threads.measure()


def in_flight(service: DatabaseSessionService) -> dict[Any, Any]:
    """The Session objects that appends are on their way through."""
    return service._shared.handles._in_flight


def is_closing(service: DatabaseSessionService) -> bool:
    """Say whether the last service of the file has been told to close."""
    return engine_of(service)._closed


def refuses(queue: WriteQueue) -> bool:
    """Say whether a queue takes no more writes."""
    return queue._refusal is not None


def waits_for_lock(service: DatabaseSessionService) -> bool:
    """Say whether the writer waits for the lock of another program."""
    return engine_of(service).threads.writer._busy_since is not None


def pending(service: DatabaseSessionService) -> int:
    """Writes that the writer has not begun."""
    return int(measured(service)["pending_writes"])


@contextmanager
def at_rest(service: DatabaseSessionService) -> Iterator[Writer]:
    """What the writer thread writes with, while it is not in use."""
    thread = engine_of(service).threads.writer
    with thread._at_rest:
        yield thread.writer


@contextmanager
def writer_at_rest(service: DatabaseSessionService) -> Iterator[sqlite3.Connection]:
    """The writer's connection to a file, while it is not in use.

    SQLite changes a hook under the lock under which it calls hooks, and ``sqlite3`` waits for that lock without giving
    up the interpreter's own, which a running hook needs: beside a busy writer that can be a deadlock.
    """
    with at_rest(service):
        yield sqlite_writer(service)._connection


class WriterGate:
    """Stops the writer, once.

    On SQLite at a statement that begins with ``statement``: SQLite reports each in the writer's own thread before it runs,
    and reports it again for each row that a trigger works on. ``inside`` stops at that, in the middle of the transaction
    that the statement is. On another store, before its next batch, or ``inside``: between its commit and its answer.
    """

    def __init__(self, service: DatabaseSessionService, statement: str, *, inside: bool) -> None:
        self.reached = threading.Event()
        self._open = threading.Event()
        self._statement = statement
        self._pass = 1 if inside else 0
        with at_rest(service) as writer:
            if isinstance(writer, SqliteWriter):
                writer._connection.set_trace_callback(self._stop)
            else:
                assert not statement
                self._stop_batches(writer, inside=inside)

    def open(self) -> None:
        """Let the writer go on, for good."""
        self._open.set()

    def _stop(self, statement: str) -> None:
        if not statement.startswith(self._statement) or self.reached.is_set():
            return
        if self._pass:
            self._pass -= 1
            return
        self.reached.set()
        self._open.wait(TIMEOUT)

    def _stop_batches(self, writer: Writer, *, inside: bool) -> None:
        commit = writer.commit

        def stopping(commands: Sequence[DataCommand]) -> Sequence[Outcome | StorageError]:
            if not inside:
                self._stop("")
            results = commit(commands)
            if inside:
                self._pass = 0
                self._stop("")
            return results

        writer.commit = stopping  # type: ignore[method-assign]  # what is stopped is this writer's


@contextmanager
def writer_stopped(
    service: DatabaseSessionService, statement: str = "", *, inside: bool = False
) -> Iterator[WriterGate]:
    """The writer stops at its next statement, or at the one given; at the end at the latest it goes on."""
    gate = WriterGate(service, statement, inside=inside)
    try:
        yield gate
    finally:
        gate.open()


@contextmanager
def traced(service: DatabaseSessionService) -> Iterator[list[str]]:
    """Collects the statements that the writer runs."""
    statements: list[str] = []
    with writer_at_rest(service) as connection:
        connection.set_trace_callback(statements.append)
    try:
        yield statements
    finally:
        with writer_at_rest(service) as connection:
            connection.set_trace_callback(None)


@contextmanager
def other_program(path: PathLike[str], *statements: str) -> Iterator[sqlite3.Connection]:
    """A connection of somebody else, which has run ``statements``."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        for statement in statements:
            connection.execute(statement).fetchall()
        yield connection
    finally:
        connection.close()


class HeldReader:
    """A reader of the pool that is held up in the middle of a read."""

    def __init__(self, service: DatabaseSessionService) -> None:
        self.reached = threading.Event()
        self._open = threading.Event()
        self._engine = engine_of(service)

    async def read(self) -> None:
        """The read; it ends when :meth:`release` is called."""

        def hold(_count: int) -> None:
            self.reached.set()
            self._open.wait(TIMEOUT)

        await self._engine.read(CountEvents(SessionKey(APP, USER, "s")), hold)

    def release(self) -> None:
        """Let the reader go on."""
        self._open.set()


def threads_of(service: DatabaseSessionService) -> list[threading.Thread]:
    """The threads that an open service runs at this moment."""
    threads = engine_of(service).threads
    return [threads.writer, *threads.readers._threads]


def alive(threads: Iterable[threading.Thread]) -> list[threading.Thread]:
    """Those that have not ended."""
    return [thread for thread in threads if thread.is_alive()]


def move(source: Path, target: Path) -> None:
    """Rename a file, as another program does."""
    source.rename(target)


def size_of(path: Path) -> int:
    """Bytes of a file."""
    return path.stat().st_size
