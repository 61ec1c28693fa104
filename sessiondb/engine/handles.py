"""The revisions that live Sessions carry, and the handles of those with appends in flight."""

from __future__ import annotations

import threading
import weakref

from google.adk.sessions import Session

from sessiondb.adk.sessions import handle_of
from sessiondb.forking import renew_after_fork
from sessiondb.model.commands import Handle


class Handles:
    """The handles of Sessions with appends in flight, by the Session's identity."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._in_flight: dict[int, _InFlight] = {}
        renew_after_fork(self)

    def renew_in_child(self) -> None:
        """Forgets the appends in flight: they belong to tasks of the parent."""
        self._lock = threading.Lock()
        self._in_flight = {}

    def take(self, session: Session) -> Handle:
        """Returns the handle of a Session, the same one for all appends that overlap."""
        with self._lock:
            # An entry's Session is held by the append in flight, so no other can have the same identity.
            entry = self._in_flight.get(id(session))
            if entry is None:
                entry = self._in_flight[id(session)] = _InFlight(handle_of(session))
            entry.appends += 1
            return entry.handle

    def give_back(self, session: Session) -> None:
        """Ends one use of a handle."""
        with self._lock:
            entry = self._in_flight[id(session)]
            entry.appends -= 1
            if not entry.appends:
                del self._in_flight[id(session)]


class _InFlight:
    __slots__ = ("appends", "handle")

    def __init__(self, handle: Handle) -> None:
        self.handle = handle
        self.appends = 0


_by_store: weakref.WeakKeyDictionary[object, Handles] = weakref.WeakKeyDictionary()


def handles_of(store: object) -> Handles:
    """Returns the handles of a store: the same ones for all services that share it.

    Appends through one Session expect what the one before left behind, whichever service each goes through.
    """
    # One step of the dictionary underneath: no lock, which a forked child could inherit locked.
    return _by_store.setdefault(store, Handles())
