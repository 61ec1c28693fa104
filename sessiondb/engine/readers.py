"""The read path: a few threads, each with a reader of its own, and readers for tiny reads in the callers' threads."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable
from typing import Any, TypeAlias, TypeVar

from sessiondb.engine.store import Reader, Store
from sessiondb.engine.waiting import ThreadWaiter, Ticket, complete, is_closed
from sessiondb.errors import DatabaseBusyError, FileLostError, ReaderTimeoutError, ServiceClosedError

ResultT = TypeVar("ResultT")
ReadTicket: TypeAlias = Ticket[Callable[[Reader], Any], Any]

_UNDER_WAY_PER_READER = 2
"""Jobs of one event loop: one that is read, and one whose result the loop has not taken yet."""


class ReaderPool:
    """Reads beside the writer.

    Jobs are served in the order in which they came, by up to ``size`` threads that are started when there is more to
    do than those running can take. A job runs to its end on one reader, so nobody holds a reader between two steps of
    his own.

    Results do not pile up in front of an event loop that is slower than the readers: of its jobs, two for each reader are
    under way at most, and the next one is queued when a result was taken. Jobs of other loops and of threads pass by.

    The lock is not reentrant, and the garbage collector may end a task in the middle of what is done with it: see
    :meth:`abandon`. Nothing else comes in between: no callback runs with the lock held, and nothing that is freed then asks
    for it. A signal handler must not read.
    """

    def __init__(self, store: Store, size: int, busy_timeout: float) -> None:
        self._store = store
        self._size = size
        self._busy_timeout = busy_timeout
        self._mutex = threading.Lock()
        self._lock = threading.Condition(self._mutex)
        self._waiting: dict[ReadTicket, None] = {}
        # Jobs that are not queued yet, because their loop has as many under way as it may have; and those that it has, from
        # their place in the queue until the task has its result.
        self._held: dict[ReadTicket, None] = {}
        self._under_way: dict[Hashable, set[ReadTicket]] = {}
        # By whom a job is being done. Jobs of tasks that are gone, whose places are still to be taken back.
        self._running: dict[ReadTicket, Reader] = {}
        self._abandoned: deque[ReadTicket] = deque()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._closed = False
        self._suspended = False
        # Readers for the callers' own threads, as many as there are callers at once, at most `size`: event loops in several
        # threads read beside each other then.
        self._inline: list[Reader] = []
        self._lent = 0
        self._given_back = threading.Condition(self._mutex)

    @property
    def in_use(self) -> int:
        """Readers at work at this moment."""
        return len(self._threads) - self._idle

    @property
    def waiting(self) -> int:
        """Jobs that no reader has begun yet."""
        return len(self._waiting) + len(self._held)

    def submit(self, ticket: ReadTicket) -> bool:
        """Queues a job; says whether a reader is free to begin it at once. A task calls :meth:`release` in the end."""
        # Freed when the lock is not held: the tasks behind them end then, and ask for it.
        forgotten: list[ReadTicket] = []
        with self._lock:
            if self._closed:
                raise ServiceClosedError("the session service is closed")
            self._take_back_abandoned()
            loop = _loop_of(ticket)
            if loop is not None:
                if loop not in self._under_way:
                    forgotten += self._forget_closed_loops()
                under_way = self._under_way.setdefault(loop, set())
                if len(under_way) >= _UNDER_WAY_PER_READER * self._size:
                    self._held[ticket] = None
                    return False
                under_way.add(ticket)
            return self._enqueue(ticket)

    def release(self, ticket: ReadTicket) -> None:
        """Says that a task has taken the result of its job, or does not want it any more."""
        with self._lock:
            self._take_back_abandoned()
            self._release(ticket)

    def abandon(self, ticket: ReadTicket) -> None:
        """Takes a job back whose task is gone, and need not call :meth:`release`.

        The garbage collector may do that on any thread, in the middle of what that does with the lock: so it is not waited
        for. Whoever takes it next does the rest.
        """
        self._abandoned.append(ticket)
        if self._mutex.acquire(blocking=False):
            try:
                self._take_back_abandoned()
            finally:
                self._mutex.release()

    def withdraw(self, ticket: ReadTicket) -> bool:
        """Takes a job back that no reader has begun; says whether that was so."""
        with self._lock:
            return self._held.pop(ticket, self) is None or self._waiting.pop(ticket, self) is None

    def cancel(self, ticket: ReadTicket) -> bool:
        """Takes a job back, or has it end soon and drops its result; nobody has to wait for it."""
        if not self.withdraw(ticket):
            # With the lock held, so that the reader is not at another job by then.
            with self._lock:
                reader = self._running.get(ticket)
                if reader is not None:
                    reader.hasten()
        return True

    def refuse_waiting(self, ticket: ReadTicket, timeout: float) -> ReaderTimeoutError | None:
        """Takes a job back that no reader has begun, and returns the error for it; None if one has."""
        if not self.withdraw(ticket):
            return None
        return ReaderTimeoutError(
            f"none of the {self._size} readers became free within {timeout:g} s; raise `readers`, or read less at once"
        )

    def try_inline(self, job: Callable[[Reader], ResultT]) -> tuple[ResultT] | None:
        """Runs a job in the calling thread, if that can be done without waiting for anything; None if not.

        For reads known to be shorter than a hop to a thread and back (50 to 80 us).
        """
        with self._lock:
            if self._closed:
                raise ServiceClosedError("the session service is closed")
            if not self._store.reads_inline or self._suspended or self._lent >= self._size:
                return None
            reader = self._inline.pop() if self._inline else None
            self._lent += 1
        try:
            if reader is None:
                reader = self._store.reader(0)
            return (job(reader),)
        except DatabaseBusyError:
            return None
        except FileLostError:
            if reader is not None:
                reader.close()
                reader = None
            raise
        finally:
            with self._lock:
                self._lent -= 1
                if reader is not None:
                    self._inline.append(reader)
                self._given_back.notify_all()

    def close(self, timeout: float | None = None) -> None:
        """Ends the pool: running jobs finish, waiting jobs get ServiceClosedError. Blocks; idempotent.

        Args:
            timeout: How long to wait for each running job, in seconds; None: until it is done.
        """
        with self._lock:
            self._closed = True
            refused = [*self._waiting, *self._held]
            self._waiting.clear()
            self._held.clear()
            threads = list(self._threads)
            self._lock.notify_all()
        for ticket in refused:
            ticket.error = ServiceClosedError("the session service was closed before this read began")
        complete(refused)
        for thread in threads:
            thread.join(timeout)
        self._close_inline()

    def suspend(self) -> None:
        """Waits until no job is running, and gives up the file until :meth:`resume`."""
        with self._lock:
            self._suspended = True
            threads = list(self._threads)
            self._lock.notify_all()
        # Threads end when told to suspend, closing their connections; they are started anew when needed.
        for thread in threads:
            thread.join()
        self._close_inline()

    def resume(self) -> None:
        """Serves again after :meth:`suspend`."""
        with self._lock:
            self._suspended = False
            waiting = list(self._waiting)
            self._waiting.clear()
            for ticket in waiting:
                self._enqueue(ticket)

    def _take_back_abandoned(self) -> None:
        """Takes back, with the lock held, what belongs to tasks that are gone."""
        while self._abandoned:
            ticket = self._abandoned.popleft()
            self._waiting.pop(ticket, None)
            self._release(ticket)

    def _release(self, ticket: ReadTicket) -> None:
        """Gives up, with the lock held, the place that a job has among those of its loop."""
        loop = _loop_of(ticket)
        under_way = self._under_way.get(loop, set())
        if ticket not in under_way:
            self._held.pop(ticket, None)
            return
        under_way.remove(ticket)
        following = next((held for held in self._held if _loop_of(held) == loop), None)
        if following is not None:
            del self._held[following]
            under_way.add(following)
            self._enqueue(following)
        elif not under_way:
            del self._under_way[loop]

    def _enqueue(self, ticket: ReadTicket) -> bool:
        """Queues a job, with the lock held; says whether a reader is free to begin it at once."""
        self._waiting[ticket] = None
        if len(self._waiting) <= self._idle:
            self._lock.notify()
            return True
        if len(self._threads) < self._size and not self._suspended:
            thread = threading.Thread(
                target=self._serve, name=f"sessiondb-reader-{len(self._threads)}-{self._store.label}", daemon=True
            )
            self._threads.append(thread)
            thread.start()
            return True
        return False

    def _forget_closed_loops(self) -> list[ReadTicket]:
        """Takes back, with the lock held, what belongs to tasks that never go on, nor end by themselves."""
        closed = {loop for loop in self._under_way if is_closed(loop)}
        forgotten = [ticket for loop in closed for ticket in self._under_way.pop(loop)]
        held = [ticket for ticket in self._held if _loop_of(ticket) in closed] if closed else []
        for ticket in held:
            del self._held[ticket]
        return forgotten + held

    def _close_inline(self) -> None:
        with self._lock:
            self._given_back.wait_for(lambda: not self._lent)
            while self._inline:
                self._inline.pop().close()

    def _serve(self) -> None:
        reader: Reader | None = None
        try:
            while True:
                ticket = self._next()
                if ticket is None:
                    return
                try:
                    if reader is None:
                        reader = self._store.reader(self._busy_timeout)
                    self._running[ticket] = reader
                    ticket.outcome = ticket.work(reader)
                except BaseException as error:  # noqa: BLE001  # reaches its caller, and the thread lives on
                    ticket.error = error
                    if reader is not None and isinstance(error, FileLostError):
                        # It may have the wrong file open; the next job opens what is there by then.
                        reader.close()
                        reader = None
                with self._lock:
                    self._running.pop(ticket, None)
                complete([ticket])
                # Or its result would live until the next one is there.
                del ticket
        finally:
            if reader is not None:
                reader.close()

    def _next(self) -> ReadTicket | None:
        with self._lock:
            self._take_back_abandoned()
            while not self._waiting or self._suspended:
                if self._closed or self._suspended:
                    self._threads.remove(threading.current_thread())
                    return None
                self._idle += 1
                self._lock.wait()
                self._idle -= 1
            ticket = next(iter(self._waiting))
            del self._waiting[ticket]
            return ticket


def _loop_of(ticket: ReadTicket) -> Hashable | None:
    """Returns the event loop of the task that waits; None for a thread, which takes its result as soon as it is there."""
    return None if isinstance(ticket.waiter, ThreadWaiter) else ticket.waiter.loop
