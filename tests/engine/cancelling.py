"""Calls that can be cancelled, by each means of cancelling."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from tests.loops import UVLOOP


class Running:
    """A call in a task of its own that can be cancelled."""

    def __init__(self, call: Callable[[], Awaitable[Any]]) -> None:
        self.finished = anyio.Event()
        self.cancelled = False
        self.error: Exception | None = None
        self._call = call

    async def run(self) -> None:
        """The task."""
        try:
            await self.cancellable()
        except Exception as error:  # noqa: BLE001  # it is the result
            self.error = error
        finally:
            self.finished.set()

    async def cancellable(self) -> None:
        raise NotImplementedError

    def cancel(self) -> None:
        raise NotImplementedError

    async def make(self) -> None:
        await self._call()


class InScope(Running):
    """Cancelled by anyio's scope, which cancels anew at every await (asyncio and trio)."""

    def __init__(self, call: Callable[[], Awaitable[Any]]) -> None:
        super().__init__(call)
        self._scope = anyio.CancelScope()

    async def cancellable(self) -> None:
        with self._scope:
            await self.make()
        self.cancelled = self._scope.cancelled_caught

    def cancel(self) -> None:
        self._scope.cancel()


class AsTask(Running):
    """Cancelled once, as asyncio does it."""

    async def cancellable(self) -> None:
        self._task = asyncio.ensure_future(self.make())
        try:
            await asyncio.wait([self._task])
        finally:
            self.cancelled = self._task.cancelled()
        if not self.cancelled:
            self._task.result()

    def cancel(self) -> None:
        self._task.cancel()


class InTimeout(Running):
    """Cancelled by ``asyncio.timeout``."""

    async def cancellable(self) -> None:
        try:
            async with asyncio.timeout(None) as self._timeout:
                await self.make()
        except TimeoutError:
            self.cancelled = self._timeout.expired()

    def cancel(self) -> None:
        if self._timeout.when() is None and not self.finished.is_set():
            self._timeout.reschedule(0)


MEANS = [
    pytest.param(("asyncio", InScope), id="asyncio-scope"),
    pytest.param(("asyncio", AsTask), id="asyncio-task"),
    pytest.param(("asyncio", InTimeout), id="asyncio-timeout"),
    pytest.param(("trio", InScope), id="trio-scope"),
    pytest.param((*UVLOOP.values, InScope), id="uvloop-scope", marks=UVLOOP.marks),
    pytest.param((*UVLOOP.values, AsTask), id="uvloop-task", marks=UVLOOP.marks),
]
"""Each with the event loop, as pytest's plugin of anyio takes it."""
