"""A disk that stands still, readers that do not end, and events that are very large."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sessiondb import DatabaseSessionService
from sessiondb.adk.limits import MAX_EVENT_BYTES
from sessiondb.engine.store import Reader
from sessiondb.engine.waiting import ThreadWaiter, Ticket
from sessiondb.errors import ReaderTimeoutError
from sessiondb.model.queries import ListEvents
from sessiondb.stores.sqlite import wal, writer
from tests.engine.tools import engine_of, measured, sqlite_writer
from tests.faults.figures import Figures
from tests.faults.oracle import assert_sound
from tests.faults.sizes import FULL, sized
from tests.faults.stall_programs import until
from tests.faults.workload import APP, make_event
from tests.faults.zygote import Zygote

PROGRAM = "tests.faults.stall_programs:"
MIB = 1024 * 1024


def test_stalled_disk_shows_in_health_and_recovers(zygote: Zygote, tmp_path: Path, figures: Figures) -> None:
    """Health says that nothing moves, reads go on, a full queue is told, who waits in it may go away, and when the
    disk moves again everybody is answered by the truth.

    Seen failing with a ``busy_seconds`` that is always 0, and with ``withdraw`` that takes nothing back (the cancelled
    append waits for the disk, and is stored).
    """
    path = tmp_path / "db.sqlite3"
    seconds = sized(0.1, 30.0)
    found = zygote.run(PROGRAM + "stand_still", path=str(path), seconds=seconds, timeout=120.0)
    assert found["during"] == [False, True, 5]
    assert found["busy_seconds"] >= seconds
    assert found["read"] == [["begun/0"], 7, ["last"], 7]
    assert found["after"] == [True, True, 0]
    assert found["longest_commit_seconds"] >= seconds
    assert found["failed_batches"] == 0
    assert_sound(path, found["acknowledged"], absent=found["refused"])
    figures("a disk that stands still in a commit", seconds=seconds, refused=len(found["refused"]), lost=0)


@contextmanager
def listening() -> Iterator[list[tuple[int, str]]]:
    """Collects level and event of what the package logs."""
    heard: list[tuple[int, str]] = []

    class Handler(logging.Handler):
        def emit(self, entry: logging.LogRecord) -> None:
            heard.append((entry.levelno, entry.getMessage()))

    handler = Handler()
    logger = logging.getLogger("sessiondb")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield heard
    logger.removeHandler(handler)
    logger.setLevel(level)


class StuckReaders:
    """Takes every reader of a pool, each in the middle of a statement that holds a snapshot."""

    def __init__(self, service: DatabaseSessionService, readers: int) -> None:
        self._end = threading.Event()
        self._begun = threading.Semaphore(0)
        self._waiters = [ThreadWaiter() for _ in range(readers)]
        for waiter in self._waiters:
            engine_of(service).threads.readers.submit(Ticket(self._read, waiter))
        for _ in self._waiters:
            assert self._begun.acquire(timeout=20)

    def _read(self, reader: Reader) -> int:
        events = reader.ask(ListEvents())
        next(events)
        self._begun.release()
        self._end.wait()
        return len(list(events))

    def end(self) -> None:
        """Lets them go on, and waits for them."""
        self._end.set()
        for waiter in self._waiters:
            assert waiter.wait(20)


@pytest.mark.parametrize("who", ["our readers", "another program"])
def test_long_reader_lets_wal_grow_and_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, figures: Figures, who: str
) -> None:
    """Whoever keeps a snapshot open keeps the WAL from starting anew: it grows by what is written, writes go on, and
    the host's log says so, as a warning once it is long. When the reader ends, the space is given back without a write.

    Seen failing with an idle writer that tries one checkpoint only: the WAL keeps its length for ever.
    """
    if not FULL:
        monkeypatch.setattr(wal, "_DUE_BYTES", 64 * 1024)
        monkeypatch.setattr(wal, "_MOST_BYTES", MIB)
        monkeypatch.setattr(wal, "_IDLE_SECONDS", 0.02)
        monkeypatch.setattr(wal, "_RETRY_SECONDS", 0.02)
        monkeypatch.setattr(writer, "_CHECK_SECONDS", 0)
    path = tmp_path / "db.sqlite3"
    wal_path = path.with_name("db.sqlite3-wal")
    readers = 2
    appends, size = sized((12, 200_000), (100, 1_000_000))
    acknowledged: dict[str, list[str]] = defaultdict(list)

    async def main() -> None:
        async with DatabaseSessionService(path, readers=readers, busy_timeout=0.05, log_cache="off") as service:
            session = await service.create_session(app_name=APP, user_id="u", session_id="s")
            for n in range(3):
                await service.append_event(session, make_event(f"s/{n}", n))
            end = stuck(service)
            for n in range(3, 3 + appends):
                await service.append_event(session, make_event(f"s/{n}", n, size=size))
            if who == "our readers":
                with pytest.raises(ReaderTimeoutError):
                    await service.get_session(app_name=APP, user_id="u", session_id="s")
                with pytest.raises(ReaderTimeoutError):
                    await service.list_sessions(app_name=APP)
            await until(lambda: (logging.WARNING, "log_held_back") in heard)
            stats = measured(service)
            assert stats["blocked_checkpoints"] > 0
            assert stats["wal_bytes"] > appends * size
            # The writer has fallen idle, and tried in vain.
            running, keeper = engine_of(service).threads.writer, sqlite_writer(service)._wal
            await until(lambda: not keeper._idle_work and running.busy_seconds == 0)
            end()
            await until(lambda: length(wal_path) < 10_000)
            read = await service.get_session(app_name=APP, user_id="u", session_id="s")
            assert read is not None
            acknowledged["s"] = [event.id for event in session.events]
            assert [event.id for event in read.events] == acknowledged["s"]
            assert len(acknowledged["s"]) == 3 + appends
            figures(
                f"a WAL held back by a reader ({who})",
                grown_mib=int(stats["wal_bytes"]) // MIB,
                blocked_checkpoints=stats["blocked_checkpoints"],
                lost=0,
            )

    def stuck(service: DatabaseSessionService) -> Callable[[], None]:
        if who == "our readers":
            return StuckReaders(service, readers).end
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM adk_events").fetchall()
        return connection.close

    with listening() as heard:
        asyncio.run(main())
    assert_sound(path, acknowledged)


def length(file: Path) -> int:
    return file.stat().st_size


# The JSON around them is above the limit for what has exactly its size.
SIZES = sized([1, 8, 70], [1, 16, 63, 64, 100])
KINDS = sized(["text", "state"], ["text", "bytes", "state", "metadata"])


@pytest.mark.parametrize("kind", KINDS)
def test_large_event_comes_back_equal_or_is_refused(
    any_zygote: Zygote, tmp_path: Path, figures: Figures, kind: str
) -> None:
    """And harms neither what is written together with it, nor the process: memory stays a small multiple of it.

    Seen failing without the look at the size of an event (100 MB are taken), and with a batch that is refused as a whole.
    """
    path = tmp_path / "db.sqlite3"
    sizes = [size * MIB for size in SIZES]
    found = any_zygote.run(PROGRAM + "store_large", path=str(path), kind=kind, sizes=sizes, timeout=300.0)
    assert found["outcomes"] == ["equal" if size < MAX_EVENT_BYTES else "refused" for size in sizes]
    assert set(found["small"]) == {"Event"}
    assert found["failed_batches"] == 0
    # The event itself, its JSON, SQLite's copy of a row, and pages on their way.
    assert found["grown"] < 8 * sum(sizes)
    figures(f"large events ({kind})", largest_mib=max(SIZES), grown_mib=found["grown"] // MIB, together_mib=sum(SIZES))
