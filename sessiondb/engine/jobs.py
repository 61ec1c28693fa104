"""Work that has a store open beside its writer and readers for long: each on a thread and a connection of its own.

A reader of the pool is not used: it would be missing for as long as the work takes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias, TypeVar

from sessiondb.engine.waiting import Ticket, run_on_thread, wait_in_task, waiter_for_task
from sessiondb.errors import ServiceClosedError, StorageError

ResultT = TypeVar("ResultT")

Job: TypeAlias = Callable[[Callable[[], bool]], ResultT | None]
"""Is given a function to ask, from time to time, whether to go on; returns None when that has said no."""


class Jobs:
    """The jobs under way on one open store."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._changed = threading.Condition()
        # Jobs that have the store open; nobody may fork, or close the store, before there are none.
        self._running = 0
        self._suspended = False
        self._closed = False

    async def run(self, job: Job[ResultT], name: str, when_cancelled: str) -> ResultT:
        """Runs a job. If the process forks meanwhile, it is told to stop and starts over.

        A cancelled call tells the job to stop, and waits until it has; ``when_cancelled`` is what the error says then.
        """
        waiter = waiter_for_task()
        ticket: Ticket[None, ResultT] = Ticket(None, waiter)
        cancelled = threading.Event()

        def cancel(_ticket: Ticket[Any, Any]) -> bool:
            cancelled.set()
            return False

        def run() -> ResultT:
            result = self.run_here(job, cancelled)
            if result is None:
                raise StorageError(when_cancelled)
            return result

        run_on_thread(run, ticket, f"sessiondb-{name}-{self._label}")
        return await wait_in_task(ticket, waiter, cancel)

    def close(self) -> None:
        """Stops all jobs, with ServiceClosedError, and waits until the store is given up. Idempotent."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._changed.wait_for(self._is_idle)

    def suspend(self) -> None:
        """Has the store given up until :meth:`resume`; what is under way starts over then."""
        with self._changed:
            self._suspended = True
            self._changed.wait_for(self._is_idle)

    def resume(self) -> None:
        """Lets jobs go on."""
        with self._changed:
            self._suspended = False
            self._changed.notify_all()

    def run_here(self, job: Job[ResultT], cancelled: threading.Event) -> ResultT | None:
        """As :meth:`run`, on the calling thread; None if it was cancelled.

        Raises:
            ServiceClosedError: If the store is closed, or is closed meanwhile.
        """

        def goes_on() -> bool:
            return not (cancelled.is_set() or self._closed or self._suspended)

        while True:
            with self._store_in_use():
                result = job(goes_on)
            if result is not None:
                return result
            if cancelled.is_set():
                return None

    def _is_idle(self) -> bool:
        return not self._running

    @contextmanager
    def _store_in_use(self) -> Iterator[None]:
        """Lasts while a job may have the store open."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or not self._suspended)
            if self._closed:
                raise ServiceClosedError("the session service is closed")
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()
