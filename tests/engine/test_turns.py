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
from tests.engine.tools import APP, TIMEOUT, USER, a_while, create, get, happened, text_of, texts, until
from tests.engine.turns import Holder, heard, held_elsewhere, running, taken, tell, waiting

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


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
        async with anyio.create_task_group() as group:
            group.start_soon(first)
            await first.has_it.wait()

            async def wait() -> None:
                with pytest.raises(errors.ServiceClosedError):
                    await service.turn(APP, USER, "s").take()
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


async def test_closing_ends_a_wait_for_another_process(service: DatabaseSessionService, database_path: Path) -> None:
    closing = DatabaseSessionService(database_path)
    with held_elsewhere(database_path):
        async with anyio.create_task_group() as group:

            async def wait() -> None:
                with pytest.raises(errors.ServiceClosedError):
                    await closing.turn(APP, USER, "s").take()

            group.start_soon(wait)
            await until(lambda: taken(service) == 1)
            await a_while()
            await closing.close()
    assert taken(service) == 0


async def test_closing_of_the_last_service_ends_all_waits(database_path: Path) -> None:
    service = DatabaseSessionService(database_path)
    with held_elsewhere(database_path):
        async with anyio.create_task_group() as group:

            async def wait() -> None:
                with pytest.raises(errors.ServiceClosedError):
                    await service.turn(APP, USER, "s").take()

            for number in range(3):
                group.start_soon(wait)
                await until(lambda: taken(service) == 1 and waiting(service) == number)  # noqa: B023  # awaited here
            await service.close()


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
    with (
        running(turn_programs.work_in_turns, database_path, "p") as one,
        running(turn_programs.work_in_turns, database_path, "q") as two,
    ):
        for process in (one, two):
            assert heard(process) == "ready"
        for process in (one, two):
            tell(process)
        for process in (one, two):
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


async def test_wait_for_another_process_is_bounded(service: DatabaseSessionService, database_path: Path) -> None:
    with held_elsewhere(database_path):
        with pytest.raises(errors.TurnTimeoutError):
            await service.turn(APP, USER, "s", wait=0.05).take()
        assert taken(service) == 0
    async with service.turn(APP, USER, "s", wait=0):
        pass


async def test_killed_process_frees_it(service: DatabaseSessionService, database_path: Path) -> None:
    with running(turn_programs.hold_for_ever, database_path) as process:
        assert await anyio.to_thread.run_sync(heard, process) == "has it"
        async with anyio.create_task_group() as group:
            log: list[str] = []
            holders = [Holder(service, log, name) for name in ("first", "second")]
            for number, holder in enumerate(holders):
                group.start_soon(holder)
                holder.go_on.set()
                await until(lambda: taken(service) == 1 and waiting(service) == number)  # noqa: B023  # awaited here
            assert log == []
            process.send_signal(signal.SIGKILL)
    assert log == ["first in", "first out", "second in", "second out"]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
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
            others = [
                stack.enter_context(running(turn_programs.take_when_told, database_path, name))
                for name in ("first", "second", "third")
            ]
            for process in others:
                tell(process)
                assert await anyio.to_thread.run_sync(heard, process) == "waits"
            group.start_soon(mine)
            await until(lambda: waiting(service) == 1)
            holder.go_on.set()
            await mine.has_it.wait()
            # All three were before it.
            assert await texts(service, "s") == ["first", "second", "third"]
            mine.go_on.set()
        for process in others:
            assert await anyio.to_thread.run_sync(processes.finish, process) == "done\n"


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_forked_child_has_no_turn_and_keeps_none(service: DatabaseSessionService, database_path: Path) -> None:
    with running(turn_programs.fork_within_a_turn, database_path) as process:
        assert await anyio.to_thread.run_sync(heard, process) == "waits"
        process.send_signal(signal.SIGKILL)
        process.wait()
        # The child lives on.
        async with service.turn(APP, USER, "s", wait=TIMEOUT):
            pass


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
            (
                record.getMessage(),
                {name: vars(record)[name] for name in ("session_id", "seconds", "wait") if hasattr(record, name)},
            )
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
