"""Processes whose disk fails: targets for :class:`tests.faults.zygote.Zygote`."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import shutil
import subprocess
import tempfile
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from google.adk.sessions import Session

from sessiondb import DatabaseSessionService
from sessiondb.errors import SessionDBError, StorageError, WriterStoppedError
from tests.engine.tools import engine_of
from tests.faults.mutants import MUTANTS, checkpoint_at
from tests.faults.shim import FOR_EVER, Shim
from tests.faults.workload import APP, make_event
from tests.faults.zygote import Report

CLIENTS = 8
FOR_A_TEST_TO_HANG = 100_000.0
"""A ``busy_timeout`` that no test outlives: who only gets an answer by it has not got one."""


class _Clients:
    """Conversations side by side, and what each of their appends came to."""

    def __init__(self, service: DatabaseSessionService, name: str) -> None:
        self.service = service
        self.acknowledged: dict[str, list[str]] = {f"{name}-{client}": [] for client in range(CLIENTS)}
        self.refused: list[str] = []
        self.unknown: list[str] = []
        self.errors: Counter[str] = Counter()
        self._sessions: list[Session] = []
        self._n = 0

    async def begin(self) -> None:
        for name in self.acknowledged:
            self._sessions.append(await self.service.create_session(app_name=APP, user_id="u", session_id=name))

    async def reload(self, service: DatabaseSessionService) -> None:
        """Goes on with another service on the same file."""
        self.service = service
        loaded = [
            await service.get_session(app_name=APP, user_id="u", session_id=session.id) for session in self._sessions
        ]
        self._sessions = [session for session in loaded if session is not None]
        assert len(self._sessions) == CLIENTS

    async def append(self) -> None:
        """Appends one event to each conversation, all at the same time."""
        self._n += 1
        await asyncio.gather(*(self._append(session) for session in self._sessions))

    async def _append(self, session: Session) -> None:
        event = make_event(f"{session.id}/{self._n}", self._n, size=600)
        try:
            await self.service.append_event(session, event)
        except WriterStoppedError as error:
            self.unknown.append(event.id)
            self.errors[type(error).__name__] += 1
        except SessionDBError as error:
            self.refused.append(event.id)
            self.errors[type(error).__name__] += 1
        else:
            self.acknowledged[session.id].append(event.id)

    @property
    def live(self) -> dict[str, list[str]]:
        """What the live Sessions hold."""
        return {session.id: [event.id for event in session.events] for session in self._sessions}

    def summary(self, path: Path, **more: Any) -> dict[str, Any]:
        """Returns what happened, as JSON."""
        return {
            "path": str(path),
            "acknowledged": self.acknowledged,
            "refused": self.refused,
            "unknown": self.unknown,
            "errors": self.errors,
            **more,
        }


def fail_each_call(
    report: Report,
    *,
    folder: str,
    operations: str,
    error: int,
    lasting: bool,
    durability: Any = "full",
    checkpoint_bytes: int = 1,
    mutant: str = "",
) -> None:
    """For each call of a few batches in turn: makes it fail, and reports how that went.

    Args:
        operations: Letters of calls, see :class:`tests.faults.shim.Shim`.
        error: The errno that the call fails with.
        lasting: Whether all calls after it fail as well, until the fault is taken away.
        checkpoint_bytes: How large the WAL grows before it is checkpointed; 1: after each batch.
    """
    MUTANTS[mutant]()
    checkpoint_at(checkpoint_bytes, cut="T" in operations)
    shim = Shim()
    shim.watch(Path(folder))

    async def attempt(nth: int) -> bool:
        path = Path(folder) / f"{nth}.sqlite3"
        service = DatabaseSessionService(path, durability=durability, busy_timeout=FOR_A_TEST_TO_HANG)
        clients = _Clients(service, str(nth))
        await clients.begin()
        await clients.append()
        shim.arm(operations, error, nth=nth, times=FOR_EVER if lasting else 1)
        await clients.append()
        await clients.append()
        injected = shim.injected
        shim.disarm()
        agreed = clients.live == clients.acknowledged
        stopped = False
        try:
            await service.flush()
        except WriterStoppedError:
            stopped = True
        if stopped:
            await service.close()
            service = DatabaseSessionService(path, durability=durability)
            await clients.reload(service)
        errors = clients.errors.total()
        await clients.append()
        went_on = clients.errors.total() == errors
        failed_checkpoints = service.get_stats()["failed_checkpoints"]
        await service.close()
        report(
            clients.summary(
                path,
                live_agrees=agreed,
                stopped=stopped,
                went_on=went_on,
                injected=injected,
                failed_checkpoints=failed_checkpoints,
            )
        )
        return injected > 0

    async def main() -> None:
        nth = 1
        while await attempt(nth):
            nth += 1

    asyncio.run(main())


def fail_sync_under_load(report: Report, *, path: str, mutant: str = "") -> None:
    """Syncs fail while 64 appends wait; reports what each caller, and those after them, were told."""
    MUTANTS[mutant]()
    shim = Shim()
    shim.watch(Path(path).parent)

    async def main() -> None:
        service = DatabaseSessionService(path, max_batch=16, busy_timeout=FOR_A_TEST_TO_HANG)
        sessions = [
            await service.create_session(app_name=APP, user_id="u", session_id=f"s{number}") for number in range(64)
        ]
        before = [await service.append_event(session, make_event(f"{session.id}/1", 1)) for session in sessions]
        shim.arm("S", 5, times=FOR_EVER, name="-wal")
        waiting = await asyncio.gather(
            *(service.append_event(session, make_event(f"{session.id}/2", 2)) for session in sessions),
            return_exceptions=True,
        )
        shim.disarm()
        # The disk answers again; that does not make a lost page come back.
        later = await asyncio.gather(service.append_event(sessions[0], make_event("later", 3)), return_exceptions=True)
        await service.close()
        closed = await asyncio.gather(
            service.append_event(sessions[0], make_event("closed", 4)), return_exceptions=True
        )
        report(
            {
                "acknowledged": {session.id: [event.id] for session, event in zip(sessions, before, strict=True)},
                "waiting": sorted({type(outcome).__name__ for outcome in waiting}),
                "later": [type(outcome).__name__ for outcome in later],
                "closed": [type(outcome).__name__ for outcome in closed],
            }
        )

    asyncio.run(main())


def fail_checkpoints(
    report: Report, *, path: str, operations: str, name: str, durability: Any = "full", error: int = 5
) -> None:
    """Calls that only a checkpoint makes fail for a while; reports errors of appends, counters and log events."""
    checkpoint_at(1, cut="T" in operations)
    shim = Shim()
    shim.watch(Path(path).parent)
    events: list[str] = []

    class Collector(logging.Handler):
        def emit(self, entry: logging.LogRecord) -> None:
            events.append(entry.getMessage())

    logging.getLogger("sessiondb").addHandler(Collector())

    async def main() -> None:
        async with DatabaseSessionService(path, durability=durability, busy_timeout=FOR_A_TEST_TO_HANG) as service:
            clients = _Clients(service, "s")
            await clients.begin()
            shim.arm(operations, error, times=FOR_EVER, name=name)
            for _ in range(5):
                await clients.append()
            # The writer checkpoints after it has answered: its next answer comes after that.
            with suppress(StorageError):
                await service.flush()
            shim.disarm()
            # Once more: a checkpoint of the idle writer may have failed until just now.
            with suppress(StorageError):
                await service.flush()
            failed = service.get_stats()["failed_checkpoints"]
            await clients.append()
            await clients.append()
            stats = service.get_stats()
        report(
            clients.summary(
                Path(path),
                failed=failed,
                failed_in_the_end=stats["failed_checkpoints"],
                checkpoints=stats["checkpoints"],
                logged=sum("checkpoint_failed" in event for event in events),
            )
        )

    asyncio.run(main())


def grow_past_limit(report: Report, *, path: str) -> None:
    """The file may not grow past a limit (``RLIMIT_FSIZE``), which is lifted after a while."""
    import resource

    async def main() -> None:
        async with DatabaseSessionService(path) as service:
            clients = _Clients(service, "s")
            await clients.begin()
            _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (300 * 1024, hard))
            for _ in range(40):
                await clients.append()
            refused = len(clients.refused)
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
            for _ in range(3):
                await clients.append()
        report(clients.summary(Path(path), refused_under_limit=refused, refused_after=len(clients.refused) - refused))

    asyncio.run(main())


def fill(ballast: Path) -> None:
    """Takes all the space that is left on the file system of a path."""
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


def fill_disk(report: Report, *, path: str) -> None:
    """Something else fills the file system, and is removed again."""
    ballast = Path(path).with_name("ballast")

    async def main() -> None:
        async with DatabaseSessionService(path) as service:
            clients = _Clients(service, "s")
            await clients.begin()
            await clients.append()
            fill(ballast)
            for _ in range(20):
                await clients.append()
            refused = len(clients.refused)
            readable = await service.get_session(app_name=APP, user_id="u", session_id="s-0")
            assert readable is not None
            ballast.unlink()
            for _ in range(3):
                await clients.append()
        report(
            clients.summary(
                Path(path),
                refused_while_full=refused,
                refused_after=len(clients.refused) - refused,
                read_while_full=[event.id for event in readable.events],
            )
        )

    asyncio.run(main())


def mount(*arguments: str) -> bool:
    """Runs ``mount``; says whether it did."""
    command = shutil.which("mount")
    return (
        command is not None and not subprocess.run([command, *arguments], capture_output=True, check=False).returncode
    )


_CLONE_NEWNS = 0x00020000
"""Of ``unshare``: mounts of one's own. Python has it from 3.12 on."""


def open_in_memory(report: Report, *, memory: str, folder: str, temporary: str | None, megabytes: int) -> None:
    """Writes to a database in memory, where the memory file system and the folder for temporary files are small.

    Reports None where no file system may be mounted. What is mounted is seen by this process alone, and ends with it.

    Args:
        memory: How large ``/dev/shm`` is.
        folder: Where temporary files go.
        temporary: How large the file system of that is; None if it cannot be written to.
        megabytes: How much is written.
    """
    mounts = [
        ["--make-rprivate", "/"],
        ["-t", "tmpfs", "-o", f"size={memory}", "sessiondb-test", "/dev/shm"],  # noqa: S108  # covered, not used
        ["-t", "tmpfs", "-o", f"size={temporary or '64k,ro'}", "sessiondb-test", folder],
    ]
    if ctypes.CDLL(None).unshare(_CLONE_NEWNS) or not all(mount(*arguments) for arguments in mounts):
        report(None)
        return
    tempfile.tempdir = folder
    lines: list[tuple[str, str]] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append((record.getMessage(), record.levelname))  # type: ignore[method-assign]
    logging.getLogger("sessiondb").addHandler(handler)

    async def main() -> None:
        refused = None
        async with DatabaseSessionService(":memory:") as service:
            path = Path(engine_of(service).store.name)
            session = await service.create_session(app_name=APP, user_id="u", session_id="s")
            try:
                for number in range(megabytes // 4):
                    await service.append_event(session, make_event(f"{number}", number, size=4 * 2**20))
            except StorageError as error:
                refused = type(error).__name__
        left = [file.name for place in {path.parents[1], Path(folder)} for file in place.iterdir()]
        report({"path": str(path), "logged": lines, "refused": refused, "left": left})

    asyncio.run(main())
