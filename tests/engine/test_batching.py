"""What is queued is committed together, and each command still has an end of its own.

Seen to fail with ``limit=1`` in ``WriteQueue.take`` (batching), without the retry of each command by itself in
``SqliteWriter._execute`` (isolation), and with outcomes attributed in reverse order.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import anyio
import pytest
from google.adk.events import Event
from google.adk.sessions import Session

from sessiondb import DatabaseSessionService
from sessiondb.errors import (
    AlreadyExistsError,
    SessionNotFoundError,
    StaleSessionError,
    WriteFailedError,
)
from tests.engine.tools import (
    APP,
    USER,
    a_while,
    create,
    event,
    get,
    happened,
    other_program,
    outcomes,
    pending,
    texts,
    traced,
    until,
    writer_stopped,
)

pytestmark = [pytest.mark.anyio, pytest.mark.each_store]


class Queued:
    """Calls that are queued, in the order in which they were made, while the writer stands still."""

    def __init__(self, service: DatabaseSessionService) -> None:
        self.results: dict[str, Any] = {}
        self._service = service
        self._calls: list[tuple[str, Any]] = []

    def add(self, name: str, call: Any, *args: Any) -> None:
        self._calls.append((name, functools.partial(call, *args)))

    async def commit_together(self, keeper: Session) -> None:
        """Have all calls in the queue before the writer takes any of them; ``keeper`` keeps it busy until then."""

        async def make(name: str, call: Any) -> None:
            (self.results[name],) = await outcomes([call])

        before = self._service.get_stats()["batches"]
        with writer_stopped(self._service) as gate:
            async with anyio.create_task_group() as group:
                group.start_soon(self._service.append_event, keeper, event("keeper"))
                await happened(gate.reached)
                for number, (name, call) in enumerate(self._calls):
                    group.start_soon(make, name, call)
                    # One after the other, whatever the loop's scheduling.
                    await until(lambda number=number: pending(self._service) == number + 1)  # type: ignore[misc]
                gate.open()
        assert self._service.get_stats()["batches"] == before + 2


async def test_batch_of_queued_appends_is_one_transaction(database_path: Path, service: DatabaseSessionService) -> None:
    sessions = [await create(service, f"s{n}") for n in range(64)]
    before = service.get_stats()
    with (
        other_program(database_path) as observer,
        other_program(database_path, "BEGIN IMMEDIATE") as other,
        writer_stopped(service, "INSERT") as gate,
    ):
        (seen,) = observer.execute("PRAGMA data_version").fetchone()
        async with anyio.create_task_group() as group:
            group.start_soon(service.append_event, sessions[0], event("first"))
            await happened(gate.reached)
            # From here it is the other program's lock that the writer waits for.
            gate.open()
            for session in sessions[1:]:
                group.start_soon(service.append_event, session, event("then"))
            await until(lambda: service.get_stats()["pending_writes"] == 63)
            await a_while()
            assert observer.execute("PRAGMA data_version").fetchone() == (seen,)
            other.execute("ROLLBACK")
    after = service.get_stats()
    assert after["batches"] - before["batches"] == 2
    assert after["writes"] - before["writes"] == 64
    assert after["largest_batch"] == 63
    assert after["mean_batch"] == after["writes"] / after["batches"]
    assert 0 < after["last_commit_seconds"] <= after["longest_commit_seconds"] <= after["commit_seconds"]
    assert (after["events"], after["pending_writes"]) == (64, 0)


@pytest.mark.sqlite_only
async def test_batch_of_plain_appends_is_one_statement(
    service: DatabaseSessionService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it holds: each statement of its own would have to win back the interpreter's lock."""
    # Now and then the writer looks at the file besides.
    monkeypatch.setattr("sessiondb.stores.sqlite.writer._CHECK_SECONDS", 3600)
    session = await create(service)
    with traced(service) as statements:
        await service.append_event(session, event(state={"a": 1, "user:b": 2, "app:c": 3}))
        await service.append_event(session, event(state={"a": None, "user:b": None, "app:c": None}))
    # SQLite reports a statement again for each trigger that works for it.
    assert [statement[:24] for statement in dict.fromkeys(statements)] == ["INSERT INTO fast_appends"] * 2


async def test_batch_takes_at_most_max_batch(location: Path | str) -> None:
    async with DatabaseSessionService(location, max_batch=4) as service:
        sessions = [await create(service, f"s{n}") for n in range(9)]
        before = service.get_stats()["batches"]
        with writer_stopped(service) as gate:
            async with anyio.create_task_group() as group:
                group.start_soon(service.append_event, sessions[0], event())
                await happened(gate.reached)
                for session in sessions[1:]:
                    group.start_soon(service.append_event, session, event())
                await until(lambda: pending(service) == 8)
                gate.open()
        stats = service.get_stats()
        # One alone, and four and four.
        assert stats["batches"] - before == 3
        assert stats["largest_batch"] == 4


async def test_batch_is_bounded_by_bytes_of_large_events(
    service: DatabaseSessionService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sessiondb.engine.queue._BATCH_BYTES", 8_000)
    sessions = [await create(service, f"s{n}") for n in range(5)]
    before = service.get_stats()["batches"]
    with writer_stopped(service) as gate:
        async with anyio.create_task_group() as group:
            group.start_soon(service.append_event, sessions[0], event())
            await happened(gate.reached)
            for session in sessions[1:]:
                group.start_soon(service.append_event, session, event("x" * 5_000))
            await until(lambda: pending(service) == 4)
            gate.open()
    # The one alone, and pairs of more than 8,000 characters.
    assert service.get_stats()["batches"] - before == 3


async def test_batch_of_64_with_stale_and_duplicate_fails_singly(service: DatabaseSessionService) -> None:
    keeper = await create(service, "keeper")
    good = [await create(service, f"good{n}") for n in range(57)]
    overtaken = await create(service, "overtaken")
    fresh = await get(service, "overtaken")
    await service.append_event(fresh, event("overtaking"))
    missing = await create(service, "missing")
    await service.delete_session(APP, USER, "missing")
    twice = await create(service, "twice")
    delivered = event("delivered", id="delivered", timestamp=1000.0)
    await service.append_event(twice, delivered)
    again = await get(service, "twice")

    queued = Queued(service)
    for n, session in enumerate(good):
        queued.add(f"good{n}", service.append_event, session, event(f"text {n}", {"n": n}))
    queued.add("stale", service.append_event, overtaken, event("too late"))
    queued.add("missing", service.append_event, missing, event("to nowhere"))
    queued.add("duplicate", service.append_event, again, delivered.model_copy(deep=True))
    queued.add("create", service.create_session, APP, USER, "new")
    queued.add("exists", service.create_session, APP, USER, "new")
    queued.add("update", service.update_keys, APP, USER, "good0", {"updated": True})
    queued.add("update missing", service.update_keys, APP, USER, "nobody", {"updated": True})
    await queued.commit_together(keeper)

    results = queued.results
    assert service.get_stats()["largest_batch"] == 64
    assert isinstance(results["stale"], StaleSessionError)
    assert isinstance(results["missing"], SessionNotFoundError)
    assert isinstance(results["exists"], AlreadyExistsError)
    assert isinstance(results["update missing"], SessionNotFoundError)
    assert isinstance(results["duplicate"], Event)
    assert isinstance(results["create"], Session)
    assert results["update"] is None
    for n, session in enumerate(good):
        assert isinstance(results[f"good{n}"], Event)
        assert await texts(service, session.id) == [f"text {n}"] if n else True
        assert session.state["n"] == n
    assert overtaken.events == []
    assert missing.events == []
    assert await texts(service, "overtaken") == ["overtaking"]
    assert await texts(service, "twice") == ["delivered"]
    assert (await get(service, "good0")).state == {"n": 0, "updated": True}


@pytest.mark.parametrize(
    "failure",
    [
        pytest.param("SELECT RAISE(ABORT, 'not this one')", id="abort"),
        pytest.param("SELECT RAISE(ROLLBACK, 'not this one')", id="rollback"),
        pytest.param("INSERT INTO half VALUES (NULL)", id="not null"),
        pytest.param("SELECT abs(-9223372036854775807 - 1)", id="error"),
    ],
)
async def test_batch_survives_append_refused_by_sqlite(
    failure: str, database_path: Path, service: DatabaseSessionService
) -> None:
    keeper = await create(service, "keeper")
    sessions = [await create(service, f"s{n}") for n in range(8)]
    refused = await create(service, "refused")
    with other_program(
        database_path,
        "CREATE TABLE half (x NOT NULL)",
        "CREATE TRIGGER theirs AFTER INSERT ON adk_events WHEN NEW.session_id = 'refused'"
        f" BEGIN INSERT INTO half VALUES (1); {failure}; END",
    ):
        pass
    queued = Queued(service)
    for n, session in enumerate(sessions):
        if n == 4:
            queued.add("refused", service.append_event, refused, event("no"))
        queued.add(session.id, service.append_event, session, event(f"text {n}"))
    await queued.commit_together(keeper)

    error = queued.results.pop("refused")
    assert isinstance(error, WriteFailedError)
    assert refused.events == []
    assert await texts(service, "refused") == []
    assert (await get(service, "refused")).state == {}
    for n, session in enumerate(sessions):
        assert isinstance(queued.results[session.id], Event), queued.results[session.id]
        assert await texts(service, session.id) == [f"text {n}"]
    # By itself it fails as well, and leaves nothing behind.
    with pytest.raises(WriteFailedError):
        await service.append_event(refused, event("no"))
    await service.append_event(keeper, event())
    with other_program(database_path) as other:
        assert other.execute("SELECT * FROM half").fetchall() == []


async def test_batch_of_one_session_survives_refused_neighbour(
    database_path: Path, service: DatabaseSessionService
) -> None:
    """The batch is carried out command by command then: each append must know what the one before it left."""
    keeper = await create(service, "keeper")
    session = await create(service)
    refused = await create(service, "refused")
    with other_program(
        database_path,
        "CREATE TRIGGER theirs AFTER INSERT ON adk_events WHEN NEW.session_id = 'refused'"
        " BEGIN SELECT RAISE(ABORT, 'not this one'); END",
    ):
        pass
    queued = Queued(service)
    queued.add("1", service.append_event, session, event("1"))
    queued.add("refused", service.append_event, refused, event("no"))
    queued.add("2", service.append_event, session, event("2"))
    queued.add("3", service.append_event, session, event("3"))
    await queued.commit_together(keeper)
    assert isinstance(queued.results.pop("refused"), WriteFailedError)
    assert all(isinstance(result, Event) for result in queued.results.values()), queued.results
    assert await texts(service, "s") == ["1", "2", "3"]


async def test_batch_of_one_session_with_other_commands_between(service: DatabaseSessionService) -> None:
    """Commands of other kinds between them split the batch's statements, not the conversation."""
    keeper = await create(service, "keeper")
    session = await create(service)
    queued = Queued(service)
    queued.add("1", service.append_event, session, event("1"))
    queued.add("create", service.create_session, APP, USER, "another")
    queued.add("2", service.append_event, session, event("2"))
    queued.add("delete", service.delete_session, APP, USER, "another")
    queued.add("3", service.append_event, session, event("3"))
    queued.add("flush", service.flush)
    queued.add("4", service.append_event, session, event("4"))
    await queued.commit_together(keeper)
    assert not [result for result in queued.results.values() if isinstance(result, Exception)], queued.results
    assert await texts(service, "s") == ["1", "2", "3", "4"]
    assert [stored.id for stored in session.events] == [stored.id for stored in (await get(service, "s")).events]
    await service.append_event(session, event("5"))


async def test_batch_that_deletes_and_recreates_a_session(
    service: DatabaseSessionService,
) -> None:
    keeper = await create(service, "keeper")
    session = await create(service)
    queued = Queued(service)
    queued.add("1", service.append_event, session, event("1"))
    queued.add("delete", service.delete_session, APP, USER, "s")
    queued.add("2", service.append_event, session, event("2"))
    queued.add("create", service.create_session, APP, USER, "s")
    queued.add("3", service.append_event, session, event("3"))
    await queued.commit_together(keeper)
    assert isinstance(queued.results["1"], Event)
    assert isinstance(queued.results["2"], SessionNotFoundError)
    assert isinstance(queued.results["3"], StaleSessionError)
    assert await texts(service, "s") == []
    await service.append_event(queued.results["create"], event("4"))
    assert await texts(service, "s") == ["4"]
