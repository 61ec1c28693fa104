"""Handing a result from a worker thread to a task on any event loop, or to a plain thread.

A :class:`Ticket` is one piece of work on its way. Who asks for it picks a waiter (:func:`waiter_for_task` or
:class:`ThreadWaiter`), queues the ticket and waits; the worker that took it fills in ``outcome`` or ``error`` and
passes it to :func:`settle`. Nothing but the ticket itself is bound to an event loop.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Hashable, Iterable
from typing import Any, Generic, TypeAlias, TypeVar

import anyio
import anyio.lowlevel

WorkT = TypeVar("WorkT")
ResultT = TypeVar("ResultT")


class AsyncioWaiter:
    """A task of an asyncio loop."""

    __slots__ = ("_future", "loop", "settled")

    cancelled: type[BaseException] = asyncio.CancelledError
    """What a cancellation raises in the task."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.settled = False
        self._future: asyncio.Future[None] | None = None

    def schedule(self, callback: Callable[..., None], *args: Any) -> None:
        """Runs a callback on the loop, from any thread. Raises RuntimeError if the loop is closed."""
        self.loop.call_soon_threadsafe(callback, *args)

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Runs a callback on the loop once the tasks have run that are ready. Called on the loop."""
        self.loop.call_soon(callback)

    def complete(self) -> None:
        """Lets the task go on. Called on the loop."""
        self.settled = True
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    def wait(self) -> Awaitable[None]:
        """Waits until the ticket is settled; can be called again after a cancellation."""
        # settled is written on this loop only, so between this look and the await nothing can be missed. A
        # cancellation cancels the future, therefore each wait makes its own.
        self._future = self.loop.create_future()
        if self.settled:
            self._future.set_result(None)
        return self._future

    async def wait_through_cancellation(self) -> None:
        """Waits until the ticket is settled, whatever cancellations arrive meanwhile.

        The shield holds off cancel scopes, which would deliver again at once; a bare ``Task.cancel()`` goes through a
        shield and is swallowed here: the caller is on its way to raise the first one.
        """
        with anyio.CancelScope(shield=True):
            while not self.settled:
                try:
                    await self.wait()
                except asyncio.CancelledError:
                    continue


class TrioWaiter:
    """A task of a trio run, reached through anyio."""

    __slots__ = ("_event", "_token", "cancelled", "loop", "settled")

    def __init__(self) -> None:
        self.cancelled = anyio.get_cancelled_exc_class()
        self._token = anyio.lowlevel.current_token()
        self.loop: Hashable = self._token.native_token
        self.settled = False
        self._event = anyio.Event()

    def schedule(self, callback: Callable[..., None], *args: Any) -> None:
        """Runs a callback on the loop, from any thread. Raises RuntimeError if the run is over."""
        self._token.native_token.run_sync_soon(callback, *args)  # type: ignore[attr-defined]  # a trio token

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Runs a callback on the loop once the tasks have run that are ready. Called on the loop."""
        self.schedule(callback)

    def complete(self) -> None:
        """Lets the task go on. Called on the loop."""
        self.settled = True
        self._event.set()

    async def wait(self) -> None:
        """Waits until the ticket is settled; can be called again after a cancellation."""
        await self._event.wait()

    async def wait_through_cancellation(self) -> None:
        """Waits until the ticket is settled, whatever cancellations arrive meanwhile."""
        with anyio.CancelScope(shield=True):
            await self._event.wait()


TaskWaiter: TypeAlias = AsyncioWaiter | TrioWaiter


class ThreadWaiter:
    """A plain thread; it is settled in the worker's own thread."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = threading.Event()

    def complete(self) -> None:
        """Lets the thread go on."""
        self._event.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Blocks until the ticket is settled, at most ``timeout`` seconds; says whether it is."""
        return self._event.wait(timeout)


Waiter: TypeAlias = AsyncioWaiter | TrioWaiter | ThreadWaiter


def waiter_for_task() -> TaskWaiter:
    """Returns a waiter for the running task, whatever its event loop."""
    try:
        return AsyncioWaiter(asyncio.get_running_loop())
    except RuntimeError:
        return TrioWaiter()


class Ticket(Generic[WorkT, ResultT]):
    """One piece of work, who waits for it, and how it ended.

    Attributes:
        work: What is to be done.
        waiter: Who waits.
        on_settled: Called with the ticket when it is settled, before its owner goes on: on the owner's event loop and
            in the order of the worker's answers, whether or not the task still waits.
        outcome: The result, once settled without an error.
        error: Why there is no result, once settled with an error.
        answered: Whether the worker has passed it to :func:`settle`.
    """

    __slots__ = ("answered", "error", "on_settled", "outcome", "waiter", "work")

    def __init__(
        self,
        work: WorkT,
        waiter: Waiter,
        on_settled: Callable[[Ticket[WorkT, ResultT]], None] | None = None,
    ) -> None:
        self.work = work
        self.waiter = waiter
        self.on_settled = on_settled
        self.outcome: ResultT | None = None
        self.error: BaseException | None = None
        self.answered = False

    def result(self) -> ResultT:
        """Returns the outcome of a settled ticket, or raises its error."""
        if self.error is not None:
            raise self.error
        return self.outcome  # type: ignore[return-value]  # settled without an error: the worker has set it


AnyTicket: TypeAlias = Ticket[Any, Any]


def settle(tickets: Iterable[AnyTicket]) -> None:
    """Lets the owners of answered tickets go on; each event loop is woken once. Called by the worker."""
    groups: dict[Hashable, tuple[TaskWaiter, list[AnyTicket]]] = {}
    for ticket in tickets:
        ticket.answered = True
        waiter = ticket.waiter
        if isinstance(waiter, ThreadWaiter):
            _settle_here([ticket])
        elif waiter.loop in groups:
            groups[waiter.loop][1].append(ticket)
        else:
            groups[waiter.loop] = (waiter, [ticket])
    for waiter, group in groups.values():
        try:
            waiter.schedule(_settle_here, group)
        except RuntimeError:
            # The loop is closed: its tasks are gone, and with them everybody who could be told.
            continue


def _settle_here(tickets: list[AnyTicket]) -> None:
    for ticket in tickets:
        try:
            if ticket.on_settled is not None:
                ticket.on_settled(ticket)
        except Exception as error:  # noqa: BLE001  # goes to who waits; the others must be told too
            ticket.error = error
        ticket.waiter.complete()
