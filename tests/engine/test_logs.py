"""Logs are for the host: silent until it listens, events with key-values then, and never what users say.

Seen to fail with the ``NullHandler`` removed (the standard library prints warnings of a library nobody listens to), and
with a ``checkpoint_failed`` that quotes a state value, and with structlog imported for every event.
"""

from __future__ import annotations

import functools
import logging
import sys
from pathlib import Path

import anyio
import pytest

from sessiondb import DatabaseSessionService
from sessiondb.errors import DatabaseBusyError, QueueFullError, StaleSessionError, WriteFailedError
from tests.engine import processes
from tests.engine.processes import say
from tests.engine.tools import (
    APP,
    USER,
    create,
    event,
    get,
    happened,
    other_program,
    outcomes,
    pending,
    until,
    writer_stopped,
)

WORDS = "the user's own words"


async def trouble(path: Path) -> None:
    """A stale append, a refused one, another program's lock, a full queue, a checkpoint."""
    async with DatabaseSessionService(path, busy_timeout=0.05, max_queue=1) as service:
        session = await create(service)
        await service.append_event(await get(service, "s"), event(WORDS, {"k": WORDS, "user:k": WORDS}))
        said = event(WORDS, {"k": WORDS})
        with pytest.raises(StaleSessionError):
            await service.append_event(session, said)
        with other_program(path, "BEGIN IMMEDIATE"), pytest.raises(DatabaseBusyError):
            await service.append_event(await get(service, "s"), said)
        with other_program(
            path,
            "CREATE TRIGGER theirs BEFORE INSERT ON adk_events WHEN NEW.session_id = 'refused'"
            " BEGIN SELECT RAISE(ABORT, 'not this one'); END",
        ):
            pass
        refused = await create(service, "refused")
        with pytest.raises(WriteFailedError):
            await service.append_event(refused, said)
        others = [await create(service, name) for name in "abc"]
        results: list[object] = []

        async def append_too_many() -> None:
            results.extend(await outcomes([functools.partial(service.append_event, each, said) for each in others[1:]]))

        with writer_stopped(service) as gate:
            async with anyio.create_task_group() as group:
                group.start_soon(service.append_event, others[0], event(WORDS))
                await happened(gate.reached)
                group.start_soon(append_too_many)
                await until(lambda: pending(service) == 2)
                await until(lambda: pending(service) == 1)
                gate.open()
        assert [type(result) for result in results].count(QueueFullError) == 1
        service.vacuum()


def make_trouble(path: str) -> None:
    """The same in a process of its own, as a program that configures no logging."""
    anyio.run(trouble, Path(path))


def test_logging_is_silent_by_default(database_path: Path) -> None:
    process = processes.start(make_trouble, database_path)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "", "")


def show_whether_structlog_is_there(path: str) -> None:
    """A conversation, an overtaken handle and a checkpoint: events below a warning, in a program that wants none."""

    async def converse() -> None:
        async with DatabaseSessionService(path) as service:
            session = await create(service)
            await service.append_event(await get(service, "s"), event())
            with pytest.raises(StaleSessionError):
                await service.append_event(session, event())
            service.vacuum()
            assert service.get_stats()["checkpoints"]

    anyio.run(converse)
    say("structlog" in sys.modules)


def test_unwanted_log_events_import_no_structlog(database_path: Path) -> None:
    """Beside a thread that computes, importing it in the writer took 1.4 s of the first checkpoint."""
    assert processes.run(show_whether_structlog_is_there, database_path) == "False\n"


def test_log_records_have_key_values_and_no_content(database_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="sessiondb"):
        anyio.run(trouble, database_path)
    records = [record for record in caplog.records if record.name.startswith("sessiondb")]
    by_event = {record.getMessage(): record for record in records}
    assert {"stale_append_rejected", "batch_refused", "write_queue_full", "checkpoint"} <= set(by_event)
    assert by_event["stale_append_rejected"].__dict__["session_id"] == "s"
    assert by_event["batch_refused"].__dict__["path"] == str(database_path)
    assert by_event["write_queue_full"].__dict__["limit"] == 1
    assert by_event["batch_refused"].levelno == logging.WARNING
    for record in records:
        assert WORDS not in repr(record.__dict__)
        assert record.exc_info is None


def test_log_level_warning_leaves_out_info_and_debug(database_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="sessiondb"):
        anyio.run(trouble, database_path)
    names = {record.getMessage() for record in caplog.records if record.name == "sessiondb"}
    assert "batch_refused" in names
    assert "checkpoint" not in names
    assert "stale_append_rejected" not in names


def test_error_messages_quote_no_content(database_path: Path) -> None:
    async def fail() -> list[str]:
        messages = []
        async with DatabaseSessionService(database_path) as service:
            session = await create(service)
            await service.append_event(await get(service, "s"), event(WORDS))
            for state in ({"k": WORDS}, {"k": [WORDS, 10**5_000]}):
                (result,) = await outcomes(
                    [functools.partial(service.append_event, session, event(WORDS, dict(state)))]
                )
                messages.append(f"{type(result).__name__}: {result}")
            with other_program(database_path, f"UPDATE adk_events SET actions = '{WORDS.replace(chr(39), '')}'"):
                pass
            (found,) = await outcomes([functools.partial(service.get_session, APP, USER, "s")])
            messages.append(f"{type(found).__name__}: {found}")
        return messages

    messages = anyio.run(fail)
    assert [message.split(":")[0] for message in messages] == [
        "StaleSessionError",
        "InvalidInputError",
        "CorruptRowError",
    ]
    assert not [message for message in messages if "own words" in message]
