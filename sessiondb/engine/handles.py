"""The handles of Sessions with appends in flight."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from sessiondb.engine.waiting import CompletionOrder
from sessiondb.forking import renew_after_fork
from sessiondb.model.commands import Handle

SessionT = TypeVar("SessionT")


class Handles:
    """The handles of Sessions with appends in flight, by the Session's identity.

    There is one register for an open store: appends through one Session expect what the one before left behind, whichever
    service each goes through.
    """

    def __init__(self) -> None:
        # Entered again where the garbage collector ends an append in the middle of this.
        self._lock = threading.RLock()
        self._in_flight: dict[int, InFlight] = {}
        renew_after_fork(self)

    def renew_in_child(self) -> None:
        """Forgets the appends in flight: they belong to tasks of the parent."""
        self._lock = threading.RLock()
        self._in_flight = {}

    def take(self, session: SessionT, read: Callable[[SessionT], Handle]) -> InFlight:
        """Returns what all appends through a Session have in common that overlap.

        Args:
            session: The Session.
            read: Makes a handle of what the Session itself says, for the first of such appends.
        """
        with self._lock:
            # An entry's Session is held by the append in flight, so no other can have the same identity.
            entry = self._in_flight.get(id(session))
            if entry is None:
                # Within the lock: whoever gave back the entry before has brought the Session up to date.
                entry = self._in_flight[id(session)] = InFlight(read(session))
            entry.appends += 1
            return entry

    def give_back(self, session: object) -> None:
        """Ends one append."""
        with self._lock:
            entry = self._in_flight[id(session)]
            entry.appends -= 1
            if not entry.appends:
                del self._in_flight[id(session)]


class InFlight(CompletionOrder):
    """Appends in flight through one Session, which is brought in line with each in the order of their completion.

    Attributes:
        handle: The Session's handle.
        appends: How many there are.
    """

    __slots__ = ("appends", "handle")

    def __init__(self, handle: Handle) -> None:
        super().__init__()
        self.handle = handle
        self.appends = 0
