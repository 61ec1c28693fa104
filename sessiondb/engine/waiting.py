"""Handing a result from a worker thread to a task on any event loop, or to a plain thread.

A :class:`Ticket` is one piece of work on its way. Who asks for it picks a waiter (:func:`waiter_for_task` or
:class:`ThreadWaiter`), queues the ticket and waits (:func:`wait_in_task` or :func:`wait_in_thread`); the worker that took
it fills in ``outcome`` or ``error`` and passes it to :func:`complete`. Nothing but the ticket itself is bound to an event
loop.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Iterable
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

import anyio
import anyio.lowlevel

WorkT = TypeVar("WorkT")
ResultT = TypeVar("ResultT")


class AsyncioWaiter:
    """A task of an asyncio loop."""

    __slots__ = ("_future", "completed", "loop")

    cancelled: type[BaseException] = asyncio.CancelledError
    """What a cancellation raises in the task."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.completed = False
        self._future: asyncio.Future[None] | None = None

    def schedule(self, callback: Callable[..., None], *args: Any) -> None:
        """Runs a callback on the loop, from any thread. Raises RuntimeError if the loop is closed."""
        self.loop.call_soon_threadsafe(callback, *args)

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Runs a callback on the loop once the tasks have run that are ready. Called on the loop."""
        self.loop.call_soon(callback)

    def complete(self) -> None:
        """Lets the task go on. Called on the loop."""
        self.completed = True
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    def wait(self) -> Awaitable[None]:
        """Waits until the ticket is completed; can be called again after a cancellation."""
        # completed is written on this loop only, so between this look and the await nothing can be missed. A
        # cancellation cancels the future, therefore each wait makes its own.
        self._future = self.loop.create_future()
        if self.completed:
            self._future.set_result(None)
        return self._future

    async def wait_through_cancellation(self) -> None:
        """Waits until the ticket is completed, whatever cancellations arrive meanwhile.

        The shield holds off cancel scopes, which would deliver again at once; a bare ``Task.cancel()`` goes through a
        shield and is swallowed here: the caller is on its way to raise the first one.
        """
        with anyio.CancelScope(shield=True):
            while not self.completed:
                try:
                    await self.wait()
                except asyncio.CancelledError:
                    continue


class TrioWaiter:
    """A task of a trio run, reached through anyio."""

    __slots__ = ("_event", "_token", "cancelled", "completed", "loop")

    def __init__(self) -> None:
        self.cancelled = anyio.get_cancelled_exc_class()
        self._token = anyio.lowlevel.current_token()
        self.loop: Hashable = self._token.native_token
        self.completed = False
        self._event = anyio.Event()

    def schedule(self, callback: Callable[..., None], *args: Any) -> None:
        """Runs a callback on the loop, from any thread. Raises RuntimeError if the run is over."""
        self._token.native_token.run_sync_soon(callback, *args)  # type: ignore[attr-defined]  # a trio token

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Runs a callback on the loop once the tasks have run that are ready. Called on the loop."""
        self.schedule(callback)

    def complete(self) -> None:
        """Lets the task go on. Called on the loop."""
        self.completed = True
        self._event.set()

    async def wait(self) -> None:
        """Waits until the ticket is completed; can be called again after a cancellation."""
        await self._event.wait()

    async def wait_through_cancellation(self) -> None:
        """Waits until the ticket is completed, whatever cancellations arrive meanwhile."""
        with anyio.CancelScope(shield=True):
            await self._event.wait()


TaskWaiter: TypeAlias = AsyncioWaiter | TrioWaiter


class ThreadWaiter:
    """A plain thread; it is woken in the worker's own thread."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = threading.Event()

    def complete(self) -> None:
        """Lets the thread go on."""
        self._event.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Blocks until the ticket is completed, at most ``timeout`` seconds; says whether it is."""
        return self._event.wait(timeout)


Waiter: TypeAlias = AsyncioWaiter | TrioWaiter | ThreadWaiter


def waiter_for_task() -> TaskWaiter:
    """Returns a waiter for the running task, whatever its event loop."""
    try:
        return AsyncioWaiter(asyncio.get_running_loop())
    except RuntimeError:
        return TrioWaiter()


def is_closed(loop: Hashable) -> bool:
    """Whether the tasks of a loop are left where they are for good. A run of trio does not end before its tasks."""
    return isinstance(loop, asyncio.AbstractEventLoop) and loop.is_closed()


class Ticket(Generic[WorkT, ResultT]):
    """One piece of work, who waits for it, and how it ended.

    Attributes:
        work: What is to be done.
        waiter: Who waits.
        on_complete: Called with the ticket when it is completed, before its owner goes on: on the owner's event loop and
            in the order in which the worker completes tickets, whether or not the task still waits. With an ``order`` on
            any of the loops.
        outcome: The result, once completed without an error.
        error: Why there is no result, once completed with an error.
        completed: Whether the worker has passed it to :func:`complete`.
        order: Set if ``on_complete`` must not run before those of certain tickets that were completed earlier, whichever
            event loop their owners are on.
    """

    __slots__ = ("completed", "error", "on_complete", "order", "outcome", "waiter", "work")

    def __init__(
        self,
        work: WorkT,
        waiter: Waiter,
        on_complete: Callable[[Ticket[WorkT, ResultT]], None] | None = None,
        order: CompletionOrder | None = None,
    ) -> None:
        self.work = work
        self.waiter = waiter
        self.on_complete = on_complete
        self.order = order
        self.outcome: ResultT | None = None
        self.error: BaseException | None = None
        self.completed = False

    def result(self) -> ResultT:
        """Returns the outcome of a completed ticket, or raises its error."""
        if self.error is not None:
            raise self.error
        return self.outcome  # type: ignore[return-value]  # completed without an error: the worker has set it

    def run_on_complete(self) -> None:
        """Calls ``on_complete``; what that raises is the ticket's error."""
        try:
            if self.on_complete is not None:
                self.on_complete(self)
        except Exception as error:  # noqa: BLE001  # goes to who waits; the others must be told too
            self.error = error


AnyTicket: TypeAlias = Ticket[Any, Any]


class CompletionOrder:
    """Runs what tickets have to do when they are completed in the order in which the worker completed them.

    Event loops hear of their tickets at different times. The first to hear does it for those before its own, too.
    """

    __slots__ = ("_lock", "_waiting")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[AnyTicket] = deque()

    def add(self, ticket: AnyTicket) -> None:
        """Puts a ticket at the end. Called by the worker."""
        self._waiting.append(ticket)

    def run(self) -> None:
        """Does it for all that were completed by now; when it returns, nobody else is still at one of them."""
        with self._lock:
            while self._waiting:
                self._waiting.popleft().run_on_complete()


def complete(tickets: Iterable[AnyTicket]) -> list[AnyTicket]:
    """Lets the owners of tickets go on; each event loop is woken once. Called by the worker.

    Returns:
        The tickets whose event loop is closed: their tasks are gone, and with them everybody who could be told.
    """
    groups: dict[Hashable, tuple[TaskWaiter, list[AnyTicket]]] = {}
    for ticket in tickets:
        ticket.completed = True
        if ticket.order is not None:
            ticket.order.add(ticket)
        waiter = ticket.waiter
        if isinstance(waiter, ThreadWaiter):
            _complete_here([ticket])
        elif waiter.loop in groups:
            groups[waiter.loop][1].append(ticket)
        else:
            groups[waiter.loop] = (waiter, [ticket])
    lost: list[AnyTicket] = []
    for waiter, group in groups.values():
        try:
            waiter.schedule(_complete_here, group)
        except RuntimeError:
            lost += group
    return lost


def _complete_here(tickets: list[AnyTicket]) -> None:
    for ticket in tickets:
        if ticket.order is None:
            ticket.run_on_complete()
        else:
            ticket.order.run()
        ticket.waiter.complete()


class Admission(NamedTuple):
    """A bound on the time that a ticket may wait until it is admitted: gets a place in the queue, or a reader.

    Attributes:
        timeout: In seconds.
        refuse: Called when that is over. It takes the ticket back and returns the error; None: it is admitted by now.
    """

    timeout: float
    refuse: Callable[[AnyTicket], BaseException | None]


async def wait_in_task(
    ticket: Ticket[Any, ResultT],
    waiter: TaskWaiter,
    cancel: Callable[[AnyTicket], bool],
    admission: Admission | None = None,
    abandon: Callable[[AnyTicket], object] | None = None,
) -> ResultT:
    """Waits as a task until a ticket is completed, and returns its result. There is no other place that does this.

    Args:
        ticket: What to wait for.
        waiter: The ticket's; made by the running task.
        cancel: Called when the task is cancelled. It takes the work back, or tells it to end, and says whether the
            cancellation may go on at once; if not, it waits until the ticket is completed, so that nothing is left
            undecided.
        admission: Set for a ticket that is not admitted yet.
        abandon: Called when the task is gone without having been cancelled, ``cancel`` if there is none: perhaps by the
            garbage collector, in the middle of anything that this thread does. It must not wait for a lock.
    """
    try:
        if admission is not None:
            with anyio.move_on_after(admission.timeout):
                await waiter.wait()
            if not waiter.completed and (error := admission.refuse(ticket)) is not None:
                raise error
        await waiter.wait()
    except GeneratorExit:
        # The loop is gone and this coroutine with it: nothing can be awaited any more.
        (abandon or cancel)(ticket)
        raise
    except waiter.cancelled:
        if not cancel(ticket):
            await waiter.wait_through_cancellation()
        raise
    return ticket.result()


def wait_in_thread(ticket: Ticket[Any, ResultT], waiter: ThreadWaiter, admission: Admission | None = None) -> ResultT:
    """As :func:`wait_in_task`, for a plain thread, which it blocks."""
    if admission is not None and not waiter.wait(admission.timeout) and (error := admission.refuse(ticket)) is not None:
        raise error
    waiter.wait()
    return ticket.result()


def run_on_thread(job: Callable[[], ResultT], ticket: Ticket[None, ResultT], name: str) -> None:
    """Runs a job on a thread of its own, and completes the ticket with what came of it.

    The loop's own pool of threads may be used up by the host's work.

    Raises:
        RuntimeError: If the interpreter is ending, and starts no thread any more.
    """

    def run() -> None:
        try:
            ticket.outcome = job()
        except BaseException as error:  # noqa: BLE001  # reaches who waits
            ticket.error = error
        complete([ticket])

    threading.Thread(target=run, name=name, daemon=True).start()
