"""Ends calls that take too long, by cutting off their connections.

libpq has no deadline for an answer, and what a server is told to end by itself it may not: a commit that waits for a standby
goes on waiting. A call that is cut off fails as if the network had failed.
"""

from __future__ import annotations

import threading
import time
from typing import Protocol

from sessiondb.forking import renew_after_fork

_IDLE_SECONDS = 10.0
"""Without anything to watch for so long, the thread ends."""


class Watched(Protocol):
    """A connection on which a call is under way."""

    def cut_off(self) -> None:
        """Has the call fail. Called on another thread; it does not raise."""


class Watchdog:
    """One thread for all connections of the process. Nothing is woken for a call that is over in time."""

    def __init__(self) -> None:
        self._deadlines: dict[Watched, float] = {}
        self._hastened: set[Watched] = set()
        self._thread: threading.Thread | None = None
        self.renew_in_child()
        renew_after_fork(self)

    def renew_in_child(self) -> None:
        """Forgets, in a forked child, the thread of its parent."""
        self._changed = threading.Condition()
        self._wakes_at = 0.0
        self._thread = None
        self._deadlines.clear()
        self._hastened.clear()

    def watch(self, connection: Watched, deadline: float) -> None:
        """Has the call that is about to begin on a connection cut off at a moment of the monotonic clock."""
        with self._changed:
            self._deadlines[connection] = deadline
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="sessiondb-watchdog", daemon=True)
                self._thread.start()
            elif deadline < self._wakes_at:
                self._changed.notify()

    def hasten(self, connection: Watched, deadline: float) -> None:
        """Brings the end of a call forward, if one is under way: nobody waits for it any more."""
        with self._changed:
            if connection in self._deadlines:
                self._hastened.add(connection)
                if deadline < self._deadlines[connection]:
                    self._deadlines[connection] = deadline
                    self._changed.notify()

    def release(self, connection: Watched) -> bool:
        """Says that the call is over; returns whether it was hastened."""
        with self._changed:
            self._deadlines.pop(connection, None)
            if connection not in self._hastened:
                return False
            self._hastened.remove(connection)
            return True

    def _run(self) -> None:
        idle = False
        with self._changed:
            while True:
                now = time.monotonic()
                for connection in [late for late, deadline in self._deadlines.items() if deadline <= now]:
                    # With the lock held, so that it is the call that is late which is met.
                    connection.cut_off()
                    del self._deadlines[connection]
                if idle and not self._deadlines:
                    self._thread = None
                    return
                idle = not self._deadlines
                self._wakes_at = min(self._deadlines.values(), default=now + _IDLE_SECONDS)
                self._changed.wait(self._wakes_at - now)


WATCHDOG = Watchdog()
