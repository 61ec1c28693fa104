"""A cancellation gives the place in the line back, or the turn, by every means of cancelling.

Seen to fail with a front that is not passed on, and with a waiter that stays in the line.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pytest

from sessiondb import DatabaseSessionService
from tests.engine.cancelling import Running
from tests.engine.tools import APP, TIMEOUT, USER, a_while, until
from tests.engine.turns import Holder, held_elsewhere, taken, waiting

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend(means: tuple[Any, type[Running]]) -> Any:
    return means[0]


async def test_cancel_of_waiter_keeps_the_others_in_order(
    service: DatabaseSessionService, means: tuple[Any, type[Running]]
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
    service: DatabaseSessionService, means: tuple[Any, type[Running]]
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
    _ = contextvars.Context().run(group.start_soon, function)


async def test_cancel_of_holder_frees_it(service: DatabaseSessionService, means: tuple[Any, type[Running]]) -> None:
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


async def test_cancel_while_another_process_has_it(
    service: DatabaseSessionService, database_path: Path, means: tuple[Any, type[Running]]
) -> None:
    call = means[1](lambda: service.turn(APP, USER, "s", wait=TIMEOUT).take())
    with held_elsewhere(database_path):
        async with anyio.create_task_group() as group:
            group.start_soon(call.run)
            await until(lambda: taken(service) == 1)
            await a_while()
            call.cancel()
            await call.finished.wait()
        assert call.cancelled
        assert taken(service) == 0
    # Its place on the ladder too.
    with held_elsewhere(database_path):
        pass
