"""The line in which processes wait that write to one file: who is next, and that nothing in it can do harm.

The kernel lists who holds a lock, and who waits for it, in ``/proc/locks``.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import stat
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from sessiondb import DatabaseSessionService
from sessiondb.errors import DatabaseBusyError
from sessiondb.stores.sqlite.line import Line
from tests.engine import processes
from tests.engine.tools import (
    TIMEOUT,
    create,
    event,
    measured,
    other_program,
    sqlite_writer,
    texts,
    until,
    writer_at_rest,
)
from tests.sqlite import line_programs
from tests.sqlite.line_process import stand_in_line

HOUR = 3600.0


def line_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-line")


def in_kernel(path: Path, *, waiting: bool) -> set[int]:
    """The processes that wait for the lock of a line, or hold it.

    The kernel gives its list page by page: while other programs lock and unlock, it may name one twice or leave one out.
    """
    inode = f":{path.stat().st_ino}"
    entries = [entry.split() for entry in Path("/proc/locks").read_text().splitlines()]
    return {
        int(fields[-4])
        for fields in entries
        if "FLOCK" in fields and fields[-3].endswith(inode) and ("->" in fields) == waiting
    }


def await_sync(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline
        os.sched_yield()


class Other:
    """A process that stands in line."""

    def __init__(self, path: Path) -> None:
        self.line = line_of(path)
        self.process = processes.start(stand_in_line, path)
        self.hear("formed")

    def tell(self, order: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{order}\n")
        self.process.stdin.flush()

    def hear(self, answer: str) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == f"{answer}\n"

    def enter(self) -> None:
        """Becomes the first, as nobody is in its way."""
        self.tell("enter 60")
        self.hear("first")

    def leave(self) -> None:
        self.tell("leave")
        self.hear("left")

    def wait(self) -> None:
        """Begins to wait behind whoever is there."""
        self.tell("enter 60")
        await_sync(lambda: self.waits)

    @property
    def waits(self) -> bool:
        return self.process.pid in in_kernel(self.line, waiting=True)

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def others(database_path: Path) -> Iterator[Callable[[], Other]]:
    """Starts processes that stand in the line of ``database_path``."""
    with ExitStack() as stack:

        def start() -> Other:
            other = Other(database_path)
            stack.callback(other.kill)
            return other

        yield start


@pytest.fixture
def lasting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once there is a line it is stood in, however long this machine takes for a test."""
    monkeypatch.setattr("sessiondb.stores.sqlite.line._QUIET_SECONDS", HOUR)


def line_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "sessiondb-line"]


# The order.


def test_first_come_is_first_served(others: Callable[[], Other]) -> None:
    """Seen failing with a lock that is asked for again and again instead of waited for."""
    first, second, third = others(), others(), others()
    first.enter()
    second.wait()
    third.wait()
    # Who comes again stands behind.
    first.leave()
    second.hear("first")
    first.wait()
    assert third.waits
    second.leave()
    third.hear("first")
    assert first.waits
    third.leave()
    first.hear("first")


def test_killed_process_leaves_the_line(others: Callable[[], Other]) -> None:
    first, second, third = others(), others(), others()
    first.enter()
    second.wait()
    third.wait()
    second.kill()
    first.kill()
    third.hear("first")
    assert in_kernel(third.line, waiting=True) == set()


def test_wait_that_was_given_up_keeps_its_place_but_not_the_lock(
    database_path: Path, others: Callable[[], Other]
) -> None:
    """Seen failing with a thread that keeps a lock that nobody waits for any more."""
    first, third = others(), others()
    first.enter()
    second = Line(database_path)
    second.form()
    assert not second.enter(0.01)
    await_sync(lambda: os.getpid() in in_kernel(first.line, waiting=True))
    third.wait()
    # Comes back before it is its turn: it is still before the third.
    with ThreadPoolExecutor(1) as thread:
        first_at_last = thread.submit(second.enter, TIMEOUT)
        await_sync(lambda: second._flock is not None and second._flock._wanted)
        first.leave()
        assert first_at_last.result()
    second.leave()
    third.hear("first")
    assert not second.enter(0.01)
    await_sync(lambda: os.getpid() in in_kernel(first.line, waiting=True))
    # Does not come back. The first asks when that turn is over: the kernel lets who asks in time go before one it has just woken.
    third.leave()
    await_sync(lambda: os.getpid() not in in_kernel(first.line, waiting=True))
    first.enter()
    second.close()
    for line_thread in line_threads():
        line_thread.join(TIMEOUT)
    assert line_threads() == []


def test_line_that_does_not_move_is_not_formed_again(
    database_path: Path, lasting: None, others: Callable[[], Other]
) -> None:
    """Seen failing with a line that is formed at each meeting: each costs a wait in it then."""
    other = others()
    other.enter()
    line = Line(database_path)
    line.form()
    formed = [line.is_formed]
    assert not line.enter(0.01)
    await_sync(lambda: os.getpid() in in_kernel(other.line, waiting=True))
    line.dissolve()
    line.form()
    formed.append(line.is_formed)
    other.leave()
    # Its turn has come, and gone.
    await_sync(lambda: line._flock is not None and not line._flock.is_waited_for)
    line.form()
    formed.append(line.is_formed)
    assert formed == [True, False, True]
    line.close()
    for thread in line_threads():
        thread.join(TIMEOUT)


def test_processes_meet_again_at_a_new_file_if_theirs_was_removed(others: Callable[[], Other]) -> None:
    """Seen failing with a process that keeps the file that it had."""
    first, second = others(), others()
    first.enter()
    second.wait()
    first.line.unlink()
    first.tell("form")
    first.hear("formed")
    second.hear("first")
    second.leave()
    first.enter()
    second.tell("form")
    second.hear("formed")
    second.wait()
    first.leave()
    second.hear("first")


def test_close_while_its_thread_waits_leaves_nothing_behind(database_path: Path, others: Callable[[], Other]) -> None:
    """Seen failing with a thread that keeps the lock, and with one that does not close the file."""
    other = others()
    other.enter()
    before = line_programs.descriptors(str(other.line))
    line = Line(database_path)
    line.form()
    assert not line.enter(0.01)
    await_sync(lambda: os.getpid() in in_kernel(other.line, waiting=True))
    line.close()
    (thread,) = line_threads()
    other.leave()
    thread.join(TIMEOUT)
    assert not thread.is_alive()
    assert line_programs.descriptors(str(other.line)) == before == []
    other.enter()


def test_close_while_first_lets_the_next_one_go_on(database_path: Path, others: Callable[[], Other]) -> None:
    other = others()
    line = Line(database_path)
    line.form()
    assert line.enter(0)
    other.wait()
    line.close()
    other.hear("first")
    assert line_programs.descriptors(str(other.line)) == []
    assert line_threads() == []


# Where there can be none.


def _somebody_elses(path: Path, kind: str) -> None:
    match kind:
        case "symbolic link":
            path.symlink_to("elsewhere")
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "file with something in it":
            path.write_text("mine")
        case "second name of a file":
            path.with_name("first").touch()
            path.hardlink_to(path.with_name("first"))


@pytest.mark.anyio
@pytest.mark.parametrize(
    "kind", ["symbolic link", "pipe", "folder", "file with something in it", "second name of a file"]
)
async def test_something_else_in_its_place_is_left_alone(
    database_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Seen failing with a file that is opened whatever it is."""
    caplog.set_level("DEBUG", "sessiondb")
    path = line_of(database_path)
    _somebody_elses(path, kind)
    before = path.lstat()
    async with DatabaseSessionService(database_path) as service:
        session = await create(service)
        for _ in range(2):
            await _append_when_lock_is_free(service, session, database_path)
        assert line_programs.descriptors(str(path)) == []
        assert await texts(service, "s") == ["hello"] * 2
    assert os.path.samestat(path.lstat(), before)
    assert path.lstat().st_size == before.st_size
    assert not (database_path.with_name("elsewhere")).exists()
    assert {record.__dict__["path"] for record in caplog.records if record.msg == "no_line"} == {str(path)}


async def _append_when_lock_is_free(service: DatabaseSessionService, session: Any, path: Path) -> None:
    """Appends while another program has the lock, which it gives up when the append waits."""
    waits = measured(service)["lock_waits"]
    with other_program(path, "BEGIN IMMEDIATE") as other:
        async with anyio.create_task_group() as group:
            group.start_soon(service.append_event, session, event())
            await until(lambda: measured(service)["lock_waits"] > waits)
            other.execute("ROLLBACK")


@pytest.mark.anyio
async def test_database_with_the_name_of_a_line_keeps_its_locks(database_path: Path) -> None:
    """Whoever closes any descriptor of a file gives up all POSIX locks that its process has on it.

    Seen failing with a file that is opened first and looked at then.
    """
    namesake = line_of(database_path)
    async with DatabaseSessionService(database_path) as service, DatabaseSessionService(namesake):
        session = await create(service)
        await _append_when_lock_is_free(service, session, database_path)
        found = await anyio.to_thread.run_sync(processes.run_forked, line_programs.say_process_with, namesake)
        assert int(found) == os.getpid()


@pytest.mark.anyio
@pytest.mark.parametrize("fails", ["all calls", "calls that wait", "the release"])
async def test_file_system_without_flock_fails_no_write(
    database_path: Path, lasting: None, monkeypatch: pytest.MonkeyPatch, others: Callable[[], Other], fails: str
) -> None:
    """Seen failing with an error of the release that reaches the batch, which was committed."""
    real = fcntl.flock

    def flock(descriptor: int, operation: int) -> None:
        if (
            fails == "all calls"
            or (fails == "calls that wait" and operation == fcntl.LOCK_EX)
            or (fails == "the release" and operation == fcntl.LOCK_UN)
        ):
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
        real(descriptor, operation)

    async with DatabaseSessionService(database_path) as service:
        session = await create(service)
        await _append_when_lock_is_free(service, session, database_path)
        with monkeypatch.context() as patch:
            patch.setattr(fcntl, "flock", flock)
            if fails == "calls that wait":
                other = others()
                other.enter()
            await service.append_event(session, event())
            await service.append_event(session, event())
        assert service.get_stats()["failed_batches"] == 0
        await until(lambda: line_programs.descriptors(str(line_of(database_path))) == [])
        assert len(await texts(service, "s")) == 3
    await until(lambda: line_threads() == [])


@pytest.mark.anyio
async def test_no_thread_to_wait_on_fails_no_write(
    database_path: Path, lasting: None, monkeypatch: pytest.MonkeyPatch, others: Callable[[], Other]
) -> None:
    """As at the end of the interpreter, when no thread can be started any more."""

    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async with DatabaseSessionService(database_path) as service:
        session = await create(service)
        await _append_when_lock_is_free(service, session, database_path)
        other = others()
        other.enter()
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", start)
            await service.append_event(session, event())
        assert service.get_stats()["failed_batches"] == 0
        assert line_programs.descriptors(str(other.line)) == []


# The service in it.


@pytest.mark.anyio
async def test_lone_process_makes_no_line(database_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen failing with a line that is formed when the writer is opened."""
    monkeypatch.setattr("sessiondb.stores.sqlite.wal._IDLE_SECONDS", 0.001)
    async with DatabaseSessionService(database_path) as service, DatabaseSessionService(database_path) as second:
        async with anyio.create_task_group() as group:
            for number in range(8):
                group.start_soon(create, service, f"a{number}")
                group.start_soon(create, second, f"b{number}")
        service.vacuum()
        await until(lambda: measured(service)["checkpoints"] > 2)
        assert measured(service)["lock_waits"] == 0
    assert not line_of(database_path).exists()
    assert line_threads() == []


@pytest.mark.anyio
async def test_process_that_meets_another_makes_a_private_file(
    database_path: Path, service: DatabaseSessionService
) -> None:
    """Seen failing with the mode left to the umask."""
    session = await create(service)
    mask = os.umask(0)
    try:
        await _append_when_lock_is_free(service, session, database_path)
    finally:
        os.umask(mask)
    status = line_of(database_path).stat()
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert status.st_size == 0


async def _waits_in_line(path: Path) -> None:
    await until(lambda: os.getpid() in in_kernel(line_of(path), waiting=True))


@pytest.mark.anyio
@pytest.mark.parametrize("work", ["append", "vacuum", "checkpoint"])
async def test_what_writes_stands_in_line(
    database_path: Path, lasting: None, monkeypatch: pytest.MonkeyPatch, others: Callable[[], Other], work: str
) -> None:
    """Seen failing with each of the three outside the line."""
    monkeypatch.setattr("sessiondb.stores.sqlite.writer._HELD_LOCK_SECONDS", HOUR)
    monkeypatch.setattr("sessiondb.stores.sqlite.wal._IDLE_SECONDS", HOUR)
    async with DatabaseSessionService(database_path, busy_timeout=TIMEOUT) as service:
        session = await create(service)
        await _append_when_lock_is_free(service, session, database_path)

        def checkpoint() -> None:
            with writer_at_rest(service):
                sqlite_writer(service).maintain(idle=True)

        async def write() -> None:
            if work == "append":
                await service.append_event(session, event())
            else:
                await anyio.to_thread.run_sync(service.vacuum if work == "vacuum" else checkpoint)

        other = others()
        other.enter()
        before = measured(service)
        async with anyio.create_task_group() as group:
            group.start_soon(write)
            await _waits_in_line(database_path)
            after = measured(service)
            assert after["checkpoints"] == before["checkpoints"]
            assert after["writes"] == before["writes"]
            assert after["lock_waits"] == before["lock_waits"] + 1
            other.leave()
        # It has left the line.
        other.enter()


@pytest.mark.anyio
async def test_process_that_meets_others_stands_in_their_line(
    database_path: Path,
    lasting: None,
    others: Callable[[], Other],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Seen failing with a process that waits for SQLite's lock alone: others hand that on without it. And with one that
    leaves the line after a while, although the lock is held.
    """
    monkeypatch.setattr("sessiondb.stores.sqlite.writer._HELD_LOCK_SECONDS", 0.01)
    monkeypatch.setattr("sessiondb.stores.sqlite.writer._HELD_LOCK_INTERVAL", 0.01)
    async with DatabaseSessionService(database_path, busy_timeout=TIMEOUT) as service:
        session = await create(service)
        other = others()
        other.enter()
        with other_program(database_path, "BEGIN IMMEDIATE") as connection:
            async with anyio.create_task_group() as group:
                group.start_soon(service.append_event, session, event())
                await _waits_in_line(database_path)
                await until(lambda: [record.msg for record in caplog.records].count("lock_held") >= 2)
                assert sqlite_writer(service)._line.is_formed
                other.leave()
                connection.execute("ROLLBACK")
        assert await texts(service, "s") == ["hello"]
        assert measured(service)["lock_waits"] == 1


@pytest.mark.anyio
@pytest.mark.parametrize("inside", ["", "its transaction"])
async def test_process_that_is_stopped_while_first(
    database_path: Path, lasting: None, monkeypatch: pytest.MonkeyPatch, inside: str
) -> None:
    """Who has stopped with SQLite's lock keeps others waiting for ``busy_timeout``, in line and for the lock together;
    who has stopped without it keeps them for a moment, and once. When it goes on, nothing is lost.

    Seen failing with a wait in line that does not look at SQLite's lock.
    """
    monkeypatch.setattr("sessiondb.stores.sqlite.writer._HELD_LOCK_SECONDS", 0.01)
    timeout = 0.1 if inside else HOUR
    async with DatabaseSessionService(database_path, busy_timeout=timeout) as service:
        session = await create(service)
        child = processes.start(line_programs.stop_in_line, database_path, inside)
        try:
            await anyio.to_thread.run_sync(partial(os.waitid, os.P_PID, child.pid, os.WSTOPPED))
            await until(lambda: in_kernel(line_of(database_path), waiting=False) == {child.pid})
            if inside:
                for _ in range(3):
                    with pytest.raises(DatabaseBusyError):
                        await service.append_event(session, event("refused"))
                assert measured(service)["lock_waits"] == 3
            else:
                with other_program(database_path, "BEGIN IMMEDIATE") as other:
                    async with anyio.create_task_group() as group:
                        group.start_soon(service.append_event, session, event("met another"))
                        await until(lambda: line_programs.descriptors(str(line_of(database_path))) != [])
                        other.execute("ROLLBACK")
                for _ in range(3):
                    await service.append_event(session, event("went on"))
                assert measured(service)["lock_waits"] == 1
        finally:
            child.send_signal(signal.SIGCONT)
        assert await anyio.to_thread.run_sync(processes.finish, child) == "while others waited\n"
        await until(lambda: not in_kernel(line_of(database_path), waiting=True))
        await service.append_event(session, event("after"))
        assert await texts(service, "s") == [*([] if inside else ["met another", *["went on"] * 3]), "after"]
        assert await texts(service, "stopped") == ["while others waited"]


def test_fork_while_a_thread_waits_in_line(database_path: Path, others: Callable[[], Other]) -> None:
    """The child has no descriptor of its parent's line, which would keep the lock when the parent has died.

    Seen failing with a child that does not close it.
    """
    other = others()
    forked = processes.start(line_programs.fork_in_line, database_path)
    assert forked.stdin is not None
    assert forked.stdout is not None
    assert forked.stdout.readline() == "refused\n"
    # It has met another.
    other.enter()
    forked.stdin.write("\n")
    forked.stdin.flush()
    assert forked.stdout.readline() == "refused\n"
    # Its thread waits, and no batch.
    await_sync(lambda: in_kernel(other.line, waiting=True) == {forked.pid})
    assert processes.finish(forked) == "child\nparent open\n"
