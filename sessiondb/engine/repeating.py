"""Work that is done again and again for as long as a store is open, each on a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable

from sessiondb.engine.jobs import Jobs
from sessiondb.engine.waiting import Ticket, run_on_thread, wait_in_task, waiter_for_task
from sessiondb.errors import ServiceClosedError

_FIRST_SECONDS = 5.0
"""How long it takes at most until it is done for the first time: a host that starts has enough to do."""


class Repeated:
    """A job that is repeated. It must hold no reference to who has it done: whoever is dropped has it stopped."""

    def __init__(self, job: Callable[[Callable[[], bool]], bool | None], every: float, name: str) -> None:
        """Begins nothing.

        Args:
            job: As for :class:`~sessiondb.engine.jobs.Jobs`. What it raises ends the repetition.
            every: How long to wait between the end of one and the start of the next, in seconds.
            name: Of the thread.
        """
        self._job = job
        self._every = every
        self._name = name
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, jobs: Jobs) -> None:
        """Begins, in a process that has opened the store: once in each, unless it has been stopped."""
        if self._stopped.is_set():
            return
        # That of a parent may have been in any state when it forked.
        self._stopped = stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(jobs, stopped), name=self._name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Has it end soon, in the middle of a job too. Idempotent."""
        self._stopped.set()

    def join(self, timeout: float | None = None) -> None:
        """Waits until it has ended."""
        thread = self._thread
        if thread is not None:
            thread.join(timeout)

    async def end(self) -> None:
        """Has it end, and waits for that; a cancelled call too."""
        self.stop()
        waiter = waiter_for_task()
        ticket: Ticket[None, None] = Ticket(None, waiter)
        try:
            run_on_thread(self.join, ticket, f"{self._name}-end")
        except RuntimeError:
            # The interpreter is ending, and waits for no thread of this kind.
            return
        await wait_in_task(ticket, waiter, lambda _: False)

    def _run(self, jobs: Jobs, stopped: threading.Event) -> None:
        seconds = min(self._every, _FIRST_SECONDS)
        try:
            while not stopped.wait(seconds):
                if jobs.run_here(self._job, stopped) is None:
                    return
                seconds = self._every
        except ServiceClosedError:
            return
