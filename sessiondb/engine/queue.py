"""The queue in front of the writer: bounded, in order, and woken by event loops rather than by each command."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Hashable
from typing import Any, TypeAlias

from sessiondb.engine.waiting import ThreadWaiter, Ticket
from sessiondb.errors import QueueFullError, StorageError
from sessiondb.model.commands import AppendEvent, AppendEvents, WriteCommand

WriteTicket: TypeAlias = Ticket[WriteCommand, Any]

_BATCH_BYTES = 8 * 1024 * 1024
"""A batch takes no further command once its events hold this much JSON: so large events do not pile up in one commit."""

WAKE_NOW_AT = 32
"""With this many commands queued the writer is woken at once: what a commit costs by itself is shared by enough."""


class WriteQueue:
    """Commands on their way to the writer, in the order in which they were accepted.

    At most ``limit`` commands are queued; tickets beyond that are parked, and move up in order as the writer takes
    others. Looking whether the queue is open and putting a ticket into it are one step under one lock, so no ticket is
    ever left behind by a writer that has gone.

    A sleeping writer is not woken by the first command but when the event loop that queued it has run what else was
    ready. It finds the commands of all those tasks then, and nobody who needs the GIL to add another. Beside a busy
    Python thread, where each hand-over of the GIL takes milliseconds, that decides how much one commit carries.

    The lock is not reentrant: what the garbage collector ends in the middle of this goes through :meth:`abandon`. A signal
    handler must not write.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        # The writer sleeps by acquiring the doorbell, a lock that is held while there is nothing to do, and is woken by
        # releasing it. A bare lock rather than a Condition: waking is one release, where a Condition makes a lock for each
        # sleep and takes `_lock` again before it returns, one more moment at which the GIL can be lost. `_sleeping` says,
        # under `_lock`, that a release is owed: exactly one follows each sleep.
        self._doorbell = threading.Lock()
        self._doorbell.acquire()
        self._sleeping = False
        # The loop that has promised last to wake the writer. It may never do so (its thread may be held up, or the loop be
        # gone), so each loop that puts a command promises it for itself, and wakes the writer for all.
        self._loop_to_wake_from: Hashable = None
        self._queued: dict[WriteTicket, None] = {}
        self._parked: dict[WriteTicket, None] = {}
        self._refusal: StorageError | None = None
        # Of tasks that are gone; they are still to be taken out.
        self._abandoned: deque[WriteTicket] = deque()

    @property
    def depth(self) -> int:
        """Commands queued or parked at this moment."""
        return len(self._queued) + len(self._parked)

    def put(self, ticket: WriteTicket) -> bool:
        """Queues a ticket, or parks it if the queue is full; says whether it was queued."""
        with self._lock:
            if self._refusal is not None:
                raise copy_of(self._refusal)
            self._take_out_abandoned()
            if self._parked or len(self._queued) >= self._limit:
                self._parked[ticket] = None
                return False
            self._queued[ticket] = None
            if self._sleeping:
                waiter = ticket.waiter
                if isinstance(waiter, ThreadWaiter) or len(self._queued) >= WAKE_NOW_AT:
                    # A thread has no loop that could wake the writer later: it is about to block.
                    self._wake()
                elif self._loop_to_wake_from is not waiter.loop:
                    self._loop_to_wake_from = waiter.loop
                    waiter.call_soon(self._wake_from_loop)
            return True

    def withdraw(self, ticket: WriteTicket) -> bool:
        """Takes a ticket back that the writer has not begun; says whether that was so."""
        with self._lock:
            return self._take_out(ticket)

    def abandon(self, ticket: WriteTicket) -> None:
        """As :meth:`withdraw`, for a task that is gone, and without waiting for the lock.

        The garbage collector may end a task on any thread, in the middle of what that does with the lock. Whoever takes it
        next does the rest.
        """
        self._abandoned.append(ticket)
        if self._lock.acquire(blocking=False):
            try:
                self._take_out_abandoned()
            finally:
                self._lock.release()

    def refuse_parked(self, ticket: WriteTicket, timeout: float) -> QueueFullError | None:
        """Takes a ticket back that is still parked, and returns the error for it; None if it has moved up."""
        with self._lock:
            if self._parked.pop(ticket, self) is not None:
                return None
        return QueueFullError(
            f"the write queue ({self._limit} commands) stayed full for {timeout:g} s; nothing was written. The disk or"
            " another program's lock holds the writer up, or more is written than the disk can take"
        )

    def take(self, limit: int, timeout: float | None) -> list[WriteTicket] | None:
        """Waits for tickets and takes what is there, at most ``limit``.

        Returns an empty list after ``timeout`` seconds without any; None once the queue is closed and empty.
        """
        while True:
            with self._lock:
                self._take_out_abandoned()
                if self._queued:
                    return self._take(limit)
                if self._refusal is not None:
                    return None
                self._sleeping = True
            if not self._doorbell.acquire(timeout=-1 if timeout is None else timeout):
                with self._lock:
                    if self._sleeping:
                        self._sleeping = False
                        return []
                # Woken while the wait was running out: the release that is owed must be taken, or the next sleep would end
                # at once.
                self._doorbell.acquire()

    def refuse(self, refusal: StorageError) -> None:
        """Rejects new commands; what is queued stays and can be taken."""
        with self._lock:
            if self._refusal is None:
                self._refusal = refusal
            if self._sleeping:
                self._wake()

    def drain(self, refusal: StorageError) -> list[WriteTicket]:
        """Rejects new commands and takes everything, parked tickets too."""
        self.refuse(refusal)
        with self._lock:
            tickets = [*self._queued, *self._parked]
            self._queued.clear()
            self._parked.clear()
            return tickets

    def _take_out(self, ticket: WriteTicket) -> bool:
        if self._queued.pop(ticket, self) is None:
            self._move_up()
            return True
        return self._parked.pop(ticket, self) is None

    def _take_out_abandoned(self) -> None:
        while self._abandoned:
            self._take_out(self._abandoned.popleft())

    def _wake_from_loop(self) -> None:
        with self._lock:
            self._loop_to_wake_from = None
            # Somebody else may have been first, and the writer be at work or asleep anew.
            if self._sleeping:
                self._wake()

    def _wake(self) -> None:
        self._sleeping = False
        self._doorbell.release()

    def _take(self, limit: int) -> list[WriteTicket]:
        batch: list[WriteTicket] = []
        size = 0
        for ticket in self._queued:
            batch.append(ticket)
            if isinstance(ticket.work, AppendEvent | AppendEvents):
                size += ticket.work.size
            if len(batch) >= limit or size >= _BATCH_BYTES:
                break
        if len(batch) == len(self._queued):
            self._queued.clear()
        else:
            for ticket in batch:
                del self._queued[ticket]
        self._move_up()
        return batch

    def _move_up(self) -> None:
        while self._parked and len(self._queued) < self._limit:
            ticket = next(iter(self._parked))
            del self._parked[ticket]
            self._queued[ticket] = None


def copy_of(error: StorageError) -> StorageError:
    """Returns an equal error: one exception object raised by many tasks would collect all their tracebacks."""
    return type(error)(*error.args)
