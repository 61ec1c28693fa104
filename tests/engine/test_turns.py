"""One holder of a session's turn at a time, in the order in which they came, whatever ends a wait or a holder.

Seen to fail without the lock between processes, with a front that is not passed on (timeouts, cancellations, closed loops),
with a wake of the last in line instead of the first, with re-entry that lines up, and with a forked child that keeps its
parent's file open.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from sessiondb import DatabaseSessionService, errors
from tests.engine import processes, turn_programs
from tests.engine.cancelling import AsTask, InScope, InTimeout, Running
from tests.engine.tools import APP, TIMEOUT, USER, a_while, create, engine_of, get, happened, text_of, texts, until

pytestmark = pytest.mark.anyio


@pytest.fixture(
    params=[
        pytest.param(("asyncio", InScope), id="asyncio-scope"),
        pytest.param(("asyncio", AsTask), id="asyncio-task"),
        pytest.param(("asyncio", InTimeout), id="asyncio-timeout"),
        pytest.param(("trio", InScope), id="trio-scope"),
    ]
)
def means(request: pytest.FixtureRequest) -> tuple[str, type[Running]]:
    means: tuple[str, type[Running]] = request.param
    return means


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    if "means" in request.fixturenames:
        backend: str = request.getfixturevalue("means")[0]
        return backend
    name: str = request.param
    return name


def waiting(service: DatabaseSessionService) -> int:
    """How many wait for a turn in this process, its fronts not counted."""
    return sum(len(line.waiting) for line in engine_of(service).turns._lines.values())


def taken(service: DatabaseSessionService) -> int:
    """How many sessions have somebody in this process who has their turn or asks for it."""
    return len(engine_of(service).turns._lines)


class Holder:
    """A task that takes the turn of session ``s`` and keeps it until it is told."""

    def __init__(self, service: DatabaseSessionService, log: list[str], name: str, wait: float = TIMEOUT) -> None:
        self.has_it = anyio.Event()
        self.go_on = anyio.Event()
        self._service, self._log, self._name, self._wait = service, log, name, wait

    async def __call__(self) -> None:
        async with self._service.turn(APP, USER, "s", wait=self._wait):
            self._log.append(f"{self._name} in")
            self.has_it.set()
            await self.go_on.wait()
            self._log.append(f"{self._name} out")


async def test_tasks_have_it_one_at_a_time_in_order(service: DatabaseSessionService) -> None:
    log: list[str] = []
    holders = [Holder(service, log, str(number)) for number in range(5)]
    async with anyio.create_task_group() as group:
        for number, holder in enumerate(holders):
            group.start_soon(holder)
            await until(lambda: taken(service) == 1 and waiting(service) == number)  # noqa: B023  # awaited here
        await a_while()
        for number, holder in enumerate(holders):
            await holder.has_it.wait()
            assert log[-1] == f"{number} in"
            holder.go_on.set()
    assert log == [f"{number} {way}" for number in range(5) for way in ("in", "out")]
    assert taken(service) == 0


async def test_other_session_is_not_waited_for(service: DatabaseSessionService) -> None:
    async with service.turn(APP, USER, "s"), anyio.create_task_group() as group:
        for key in ((APP, USER, "other"), (APP, "other", "s"), ("other", USER, "s")):

            async def take(key: tuple[str, str, str] = key) -> None:
                async with service.turn(*key, wait=0):
                    pass

            group.start_soon(take)


async def test_session_id_is_stripped_as_everywhere(service: DatabaseSessionService) -> None:
    async with anyio.create_task_group() as group:
        holder = Holder(service, [], "first")
        group.start_soon(holder)
        await holder.has_it.wait()
        with pytest.raises(errors.TurnTimeoutError):
            await service.turn(APP, USER, " s ", wait=0).take()
        holder.go_on.set()


async def test_wait_is_bounded_by_an_error_of_both_kinds(service: DatabaseSessionService) -> None:
    log: list[str] = []
    first, last = Holder(service, log, "first"), Holder(service, log, "last")
    async with anyio.create_task_group() as group:
        group.start_soon(first)
        await first.has_it.wait()
        for wait in (0, 0.01):
            with pytest.raises(errors.TurnTimeoutError, match="did not come within") as caught:
                async with service.turn(APP, USER, "s", wait=wait):
                    raise AssertionError("two have it")
            assert isinstance(caught.value, errors.SessionDBError)
            assert isinstance(caught.value, TimeoutError)
        group.start_soon(last)
        first.go_on.set()
        last.go_on.set()
    assert log == ["first in", "first out", "last in", "last out"]


@pytest.mark.parametrize("wait", [-1, float("nan"), float("inf"), "1", True, None])
async def test_wait_is_a_number_of_seconds(service: DatabaseSessionService, wait: Any) -> None:
    with pytest.raises(errors.ConfigurationError, match="wait must be a number of seconds"):
        service.turn(APP, USER, "s", wait=wait)


async def test_failure_within_frees_it(service: DatabaseSessionService) -> None:
    with pytest.raises(LookupError):
        async with service.turn(APP, USER, "s"):
            raise LookupError
    assert taken(service) == 0


async def test_cancel_of_waiter_keeps_the_others_in_order(
    service: DatabaseSessionService, means: tuple[str, type[Running]]
) -> None:
    log: list[str] = []
    first, third = Holder(service, log, "first"), Holder(service, log, "third")
    second = means[1](Holder(service, log, "second"))
    async with anyio.create_task_group() as group:
        group.start_soon(first)
        await first.has_it.wait()
        group.start_soon(second.run)
        await until(lambda: waiting(service) == 1)
        group.start_soon(third)
        await until(lambda: waiting(service) == 2)
        second.cancel()
        await second.finished.wait()
        assert second.cancelled
        assert waiting(service) == 1
        first.go_on.set()
        third.go_on.set()
    assert log == ["first in", "first out", "third in", "third out"]
    assert taken(service) == 0


async def test_cancel_of_waiter_whose_turn_has_just_come(
    service: DatabaseSessionService, means: tuple[str, type[Running]]
) -> None:
    log: list[str] = []
    second, third = means[1](Holder(service, log, "second")), Holder(service, log, "third")
    async with anyio.create_task_group() as group:
        turn = service.turn(APP, USER, "s")
        await turn.take()
        # Without the context of this task, which has the turn.
        await _start_elsewhere(group, second.run)
        await until(lambda: waiting(service) == 1)
        await _start_elsewhere(group, third)
        await until(lambda: waiting(service) == 2)
        turn.release()
        second.cancel()
        third.go_on.set()
    assert second.cancelled
    assert log == ["third in", "third out"]


async def _start_elsewhere(group: anyio.abc.TaskGroup, function: Callable[[], Any]) -> None:
    """Starts a task that has no turn, whoever calls."""
    contextvars.Context().run(group.start_soon, function)


async def test_cancel_of_holder_frees_it(service: DatabaseSessionService, means: tuple[str, type[Running]]) -> None:
    log: list[str] = []
    inner, second = Holder(service, log, "first"), Holder(service, log, "second")
    first = means[1](inner)
    async with anyio.create_task_group() as group:
        group.start_soon(first.run)
        await inner.has_it.wait()
        group.start_soon(second)
        await until(lambda: waiting(service) == 1)
        first.cancel()
        await second.has_it.wait()
        second.go_on.set()
    assert first.cancelled
    assert log == ["first in", "second in", "second out"]


async def test_cancel_while_another_process_has_it(database_path: Path, means: tuple[str, type[Running]]) -> None:
    with _holding_process(database_path) as process:
        async with DatabaseSessionService(database_path) as service:
            call = means[1](lambda: service.turn(APP, USER, "s", wait=TIMEOUT).take())
            async with anyio.create_task_group() as group:
                group.start_soon(call.run)
                await until(lambda: taken(service) == 1)
                await a_while()
                call.cancel()
                await call.finished.wait()
            assert call.cancelled
            assert taken(service) == 0
            await _tell(process)
            async with service.turn(APP, USER, "s", wait=TIMEOUT):
                pass


async def test_same_turn_is_entered_again(service: DatabaseSessionService) -> None:
    async with service.turn(APP, USER, "s"):
        async with service.turn(APP, USER, "s", wait=0), service.turn(APP, USER, "s", wait=0):
            pass
        # It goes on: it ends with the block that began it.
        assert taken(service) == 1

        async def child() -> None:
            async with service.turn(APP, USER, "s", wait=0):
                pass

        async with anyio.create_task_group() as group:
            group.start_soon(child)
        await anyio.to_thread.run_sync(lambda: asyncio.run(child()))
    assert taken(service) == 0


async def test_task_that_outlives_the_turn_lines_up(service: DatabaseSessionService) -> None:
    go_on, tried = anyio.Event(), anyio.Event()

    async def child() -> None:
        await go_on.wait()
        with pytest.raises(errors.TurnTimeoutError):
            await service.turn(APP, USER, "s", wait=0).take()
        tried.set()

    async with anyio.create_task_group() as group:
        async with service.turn(APP, USER, "s"):
            group.start_soon(child)
        holder = Holder(service, [], "other")
        group.start_soon(holder)
        await holder.has_it.wait()
        go_on.set()
        await tried.wait()
        holder.go_on.set()


async def test_turn_of_two_services_of_a_file_is_one(database_path: Path) -> None:
    async with DatabaseSessionService(database_path) as one, DatabaseSessionService(database_path) as two:
        async with one.turn(APP, USER, "s"), two.turn(APP, USER, "s", wait=0):
            pass
        holder = Holder(one, [], "one")
        async with anyio.create_task_group() as group:
            group.start_soon(holder)
            await holder.has_it.wait()
            with pytest.raises(errors.TurnTimeoutError):
                await two.turn(APP, USER, "s", wait=0).take()
            holder.go_on.set()


async def test_closing_ends_the_waits_of_that_service(database_path: Path) -> None:
    log: list[str] = []
    async with DatabaseSessionService(database_path) as other:
        service = DatabaseSessionService(database_path)
        first, last = Holder(other, log, "first"), Holder(other, log, "last")
        refused = Running(lambda: service.turn(APP, USER, "s").take())
        async with anyio.create_task_group() as group:
            group.start_soon(first)
            await first.has_it.wait()

            async def wait() -> None:
                with pytest.raises(errors.ServiceClosedError):
                    await refused.make()
                log.append("refused")

            group.start_soon(wait)
            await until(lambda: waiting(other) == 1)
            group.start_soon(last)
            await until(lambda: waiting(other) == 2)
            await service.close()
            await until(lambda: "refused" in log)
            first.go_on.set()
            last.go_on.set()
    assert log == ["first in", "refused", "first out", "last in", "last out"]
    with pytest.raises(errors.ServiceClosedError):
        service.turn(APP, USER, "s")


async def test_closing_ends_a_wait_for_another_process(database_path: Path) -> None:
    with _holding_process(database_path) as process:
        service = DatabaseSessionService(database_path)
        async with anyio.create_task_group() as group:

            async def wait() -> None:
                with pytest.raises(errors.ServiceClosedError):
                    await service.turn(APP, USER, "s").take()

            group.start_soon(wait)
            await until(lambda: taken(service) == 1)
            await a_while()
            await service.close()
        await _tell(process)


async def test_turn_made_before_closing_is_refused(service: DatabaseSessionService) -> None:
    turn = service.turn(APP, USER, "s")
    await service.close()
    with pytest.raises(errors.ServiceClosedError):
        await turn.take()


def test_waiter_of_a_closed_loop_is_passed_over(database_path: Path) -> None:
    service = DatabaseSessionService(database_path)

    async def take(wait: float) -> None:
        async with service.turn(APP, USER, "s", wait=wait):
            pass

    lost = asyncio.new_event_loop()
    holder = service.turn(APP, USER, "s")
    contextvars.Context().run(asyncio.run, holder.take())
    task = contextvars.Context().run(lost.create_task, take(TIMEOUT))
    while not waiting(service):
        lost.run_until_complete(asyncio.sleep(0))
    lost.close()
    holder.release()
    asyncio.run(take(TIMEOUT))
    # The loop was closed under it: a warning of asyncio's, about the test.
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # asyncio's own
    del task
    gc.collect()
    asyncio.run(service.close())


def test_loops_of_both_kinds_in_threads_and_processes(database_path: Path) -> None:
    """No append within a turn is stale, and no run is cut in two by another."""

    async def prepare() -> None:
        async with DatabaseSessionService(database_path) as service:
            await create(service)

    asyncio.run(prepare())
    started = [processes.start(turn_programs.work_in_turns, database_path, name) for name in "pq"]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in started:
        processes.finish(process)

    async def read() -> list[str]:
        async with DatabaseSessionService(database_path) as service:
            return [str(text_of(stored)) for stored in (await get(service, "s")).events]

    said = asyncio.run(read())
    runs = [said[start : start + 3] for start in range(0, len(said), 3)]
    assert [[text[:-1] for text in run] for run in runs] == [[run[0][:-1]] * 3 for run in runs]
    assert sorted(run[0] for run in runs) == sorted(
        f"{name}{thread}{task}-{number}-0" for name in "pq" for thread in "xy" for task in "ab" for number in range(5)
    )


class _Process:
    """A process that has the turn of session ``s``."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> subprocess.Popen[str]:
        self._process = processes.start(turn_programs.hold_until_told, self._path)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "has it\n", self._process.communicate()
        return self._process

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


def _holding_process(path: Path) -> _Process:
    return _Process(path)


async def _tell(process: subprocess.Popen[str]) -> None:
    """Has a process give its turn back."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    assert await anyio.to_thread.run_sync(process.stdout.readline) == "gave it back\n"


async def test_other_process_waits_until_it_is_given_back(service: DatabaseSessionService, database_path: Path) -> None:
    with _holding_process(database_path) as process:
        with pytest.raises(errors.TurnTimeoutError):
            await service.turn(APP, USER, "s", wait=0.05).take()
        await _tell(process)
        # It lives on, and has the file open.
        async with service.turn(APP, USER, "s", wait=TIMEOUT):
            pass


async def test_killed_process_frees_it(service: DatabaseSessionService, database_path: Path) -> None:
    with _holding_process(database_path) as process:
        async with anyio.create_task_group() as group:
            log: list[str] = []
            holders = [Holder(service, log, name) for name in ("first", "second")]
            for holder in holders:
                group.start_soon(holder)
                holder.go_on.set()
            await until(lambda: waiting(service) == 1)
            assert log == []
            process.send_signal(signal.SIGKILL)
    assert log == ["first in", "first out", "second in", "second out"]


async def test_processes_have_it_in_the_order_in_which_they_came(
    service: DatabaseSessionService, database_path: Path
) -> None:
    """One that always has somebody waiting does not keep the others from it."""
    await create(service)
    log: list[str] = []
    holder, mine = Holder(service, log, "holder"), Holder(service, log, "mine")
    with ExitStack() as stack:
        async with anyio.create_task_group() as group:
            group.start_soon(holder)
            await holder.has_it.wait()
            others = []
            for name in ("first", "second", "third"):
                process = processes.start(turn_programs.take_when_told, database_path, name)
                stack.callback(process.kill)
                assert process.stdin is not None
                assert process.stdout is not None
                process.stdin.write("\n")
                process.stdin.flush()
                assert await anyio.to_thread.run_sync(process.stdout.readline) == "waits\n"
                others.append(process)
            group.start_soon(mine)
            await until(lambda: waiting(service) == 1)
            holder.go_on.set()
            await mine.has_it.wait()
            # All three were before it.
            assert await texts(service, "s") == ["first", "second", "third"]
            mine.go_on.set()
        for process in others:
            assert await anyio.to_thread.run_sync(processes.finish, process) == "done\n"


def test_forked_child_has_no_turn_and_frees_none(database_path: Path) -> None:
    process = processes.start(turn_programs.fork_within_a_turn, database_path)
    assert process.stdout is not None
    assert process.stdin is not None
    said = [process.stdout.readline().split()[0] for _ in range(3)]
    assert sorted(said) == ["child", "parent", "waiting"]
    process.stdin.write("\n")
    process.stdin.flush()
    processes.finish(process)


async def test_loop_in_another_thread_waits(service: DatabaseSessionService) -> None:
    has_it, go_on = threading.Event(), threading.Event()

    async def hold() -> None:
        async with service.turn(APP, USER, "s"):
            has_it.set()
            await happened(go_on)

    thread = threading.Thread(target=asyncio.run, args=(hold(),))
    thread.start()
    await happened(has_it)
    with pytest.raises(errors.TurnTimeoutError):
        await service.turn(APP, USER, "s", wait=0).take()
    go_on.set()
    async with service.turn(APP, USER, "s", wait=TIMEOUT):
        pass
    await anyio.to_thread.run_sync(thread.join)


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], list[tuple[str, dict[str, Any]]]]]:
    with caplog.at_level("INFO", "sessiondb"):
        yield lambda: [
            (record.getMessage(), {name: vars(record)[name] for name in ("session_id", "seconds", "wait") if hasattr(record, name)})
            for record in caplog.records
            if record.getMessage().startswith("turn_")
        ]


async def test_waits_are_logged(
    service: DatabaseSessionService, logged: Callable[[], list[tuple[str, dict[str, Any]]]]
) -> None:
    first, second = Holder(service, [], "first"), Holder(service, [], "second")
    async with anyio.create_task_group() as group:
        group.start_soon(first)
        await first.has_it.wait()
        assert logged() == []
        with pytest.raises(errors.TurnTimeoutError):
            await service.turn(APP, USER, "s", wait=0).take()
        assert logged() == [("turn_timeout", {"session_id": "s", "wait": 0})]
        group.start_soon(second)
        await until(lambda: waiting(service) == 1)
        first.go_on.set()
        await second.has_it.wait()
        second.go_on.set()
    ((name, values),) = logged()[1:]
    assert name == "turn_waited"
    assert values["session_id"] == "s"
    assert values["seconds"] > 0
