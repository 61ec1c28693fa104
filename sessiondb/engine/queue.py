"""The way to the writer: a bounded queue of commands."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from typing import Any, TypeAlias

from sessiondb.engine.waiting import ThreadWaiter, Ticket
from sessiondb.errors import QueueFullError, StorageError
from sessiondb.model.commands import AppendEvent, WriteCommand

WriteTicket: TypeAlias = Ticket[WriteCommand, Any]

_BATCH_BYTES = 8 * 1024 * 1024
"""A batch takes no further command once its events hold this much JSON: so large events do not pile up in one commit."""

_PLENTY = 32
"""With this many commands queued the writer is woken at once: what a commit costs by itself is shared by enough."""


class WriteQueue:
    """Commands on their way to the writer, in the order in which they were accepted.

    At most ``limit`` commands are queued; tickets beyond that are parked, and move up in order as the writer takes
    others. Looking whether the queue is open and putting a ticket into it are one step under one lock, so no ticket is
    ever left behind by a writer that has gone.

    A sleeping writer is not woken by the first command but when the event loop that queued it has run what else was
    ready. It finds the commands of all those tasks then, and nobody who needs the GIL to add another. Beside a busy
    Python thread, where each hand-over of the GIL takes milliseconds, that decides how much one commit carries.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        # The writer sleeps on the doorbell; it is held shut while there is nothing to do.
        self._doorbell = threading.Lock()
        self._doorbell.acquire()
        self._sleeping = False
        # The loop that has been asked last to ring. It may never do so (its thread may be held up, or the loop be gone),
        # so each loop asks for itself, and rings for all.
        self._asked: Hashable = None
        self._queued: dict[WriteTicket, None] = {}
        self._parked: dict[WriteTicket, None] = {}
        self._refusal: StorageError | None = None

    @property
    def depth(self) -> int:
        """Commands queued or parked at this moment."""
        return len(self._queued) + len(self._parked)

    def put(self, ticket: WriteTicket) -> bool:
        """Queues a ticket, or parks it if the queue is full; says whether it was queued.

        Raises:
            ServiceClosedError, WriterStoppedError: If nothing is taken any more.
        """
        with self._lock:
            if self._refusal is not None:
                raise again(self._refusal)
            if self._parked or len(self._queued) >= self._limit:
                self._parked[ticket] = None
                return False
            self._queued[ticket] = None
            if self._sleeping:
                waiter = ticket.waiter
                if isinstance(waiter, ThreadWaiter) or len(self._queued) >= _PLENTY:
                    self._ring()
                elif self._asked is not waiter.loop:
                    self._asked = waiter.loop
                    waiter.call_soon(self._ring_for_loop)
            return True

    def withdraw(self, ticket: WriteTicket) -> bool:
        """Takes a ticket back that the writer has not begun; says whether that was so."""
        with self._lock:
            if ticket in self._parked:
                del self._parked[ticket]
                return True
            if ticket in self._queued:
                del self._queued[ticket]
                self._move_up()
                return True
            return False

    def unpark(self, ticket: WriteTicket) -> bool:
        """Takes a ticket back that is still parked; says whether it was."""
        with self._lock:
            return self._parked.pop(ticket, self) is None

    def take(self, most: int, timeout: float | None) -> list[WriteTicket] | None:
        """Waits for tickets and takes what is there, at most ``most``.

        Returns:
            The tickets; an empty list after ``timeout`` seconds without any; None once the queue is closed and empty.
        """
        while True:
            with self._lock:
                if self._queued:
                    return self._take(most)
                if self._refusal is not None:
                    return None
                self._sleeping = True
            if not self._doorbell.acquire(timeout=-1 if timeout is None else timeout):
                with self._lock:
                    if self._sleeping:
                        self._sleeping = False
                        return []
                # It rang while the wait was running out.
                self._doorbell.acquire()

    def refuse(self, refusal: StorageError) -> None:
        """Lets nothing more in; what is queued stays and can be taken."""
        with self._lock:
            if self._refusal is None:
                self._refusal = refusal
            if self._sleeping:
                self._ring()

    def drain(self, refusal: StorageError) -> list[WriteTicket]:
        """Lets nothing more in and takes everything, parked tickets too."""
        self.refuse(refusal)
        with self._lock:
            tickets = [*self._queued, *self._parked]
            self._queued.clear()
            self._parked.clear()
            return tickets

    def _ring_for_loop(self) -> None:
        with self._lock:
            self._asked = None
            if self._sleeping:
                self._ring()

    def _ring(self) -> None:
        self._sleeping = False
        self._doorbell.release()

    def _take(self, most: int) -> list[WriteTicket]:
        batch: list[WriteTicket] = []
        size = 0
        for ticket in self._queued:
            batch.append(ticket)
            if type(ticket.work) is AppendEvent:
                size += ticket.work.event.size
            if len(batch) >= most or size >= _BATCH_BYTES:
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


def again(error: StorageError) -> StorageError:
    """Returns an equal error: one exception object raised by many tasks would collect all their tracebacks."""
    return type(error)(*error.args)


def queue_full(limit: int, seconds: float) -> QueueFullError:
    """Returns the error for a command that waited in vain for a place in the queue."""
    return QueueFullError(
        f"the write queue ({limit} commands) stayed full for {seconds:g} s; nothing was written. The disk or another"
        " program's lock holds the writer up, or more is written than the disk can take"
    )
