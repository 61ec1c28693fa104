"""Locks of sessions between the hosts that use a server: its advisory locks, held by a connection of their own.

The server frees them when that connection ends, however it ends. Event loops ask for them and must not wait, so a thread does
the asking.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from dataclasses import dataclass
from hashlib import blake2b

import psycopg
from typing_extensions import override

from sessiondb.engine.store import TurnLocks
from sessiondb.errors import ConfigurationError, StorageError
from sessiondb.logger import logger
from sessiondb.model.records import SessionKey
from sessiondb.stores.postgres import schema
from sessiondb.stores.postgres.connection import Link, Server
from sessiondb.stores.postgres.errors import is_connection_lost, translate
from sessiondb.stores.postgres.write_functions import RUNGS

_GRACE_SECONDS = 1.0

_CLOSING_SECONDS = 1.0
"""How long closing waits for the thread. The connection ends with the process at the latest."""


@dataclass(slots=True, eq=False)
class _Place:
    """Where this process is in the line for a session.

    Attributes:
        first: The number of the session's lock; those after it are the ladder to it.
        rung: Which of them is held: 0 is the lock itself; None: none yet.
        asked: Whether a question is on its way.
        answered: Whether there is an answer of which nobody has been told.
        given_up: Whether nobody wants it any more.
        error: What the server refused with.
    """

    first: int
    rung: int | None = None
    asked: bool = False
    answered: bool = False
    given_up: bool = False
    error: StorageError | None = None


class PostgresTurnLocks(TurnLocks):
    """The locks of the sessions of one schema."""

    def __init__(self, server: Server, schema_name: str, label: str, busy_timeout: float) -> None:
        """Starts the thread, which connects when it is first asked for something.

        Raises:
            ConfigurationError: If a pooler stands between.
        """
        if server.pooled:
            raise ConfigurationError(
                "turns need a connection of their own, which a pooler in transaction mode does not give; connect to the"
                " server itself"
            )
        self._server = server
        self._schema = schema_name
        self._busy_timeout = busy_timeout
        self._places: dict[SessionKey, _Place] = {}
        self._changed = threading.Condition()
        self._to_do: deque[_Place] = deque()
        self._closed = False
        self._link: Link | None = None
        self._thread = threading.Thread(target=self._run, name=f"sessiondb-turns-{label}", daemon=True)
        self._thread.start()

    @override
    def try_take(self, key: SessionKey) -> bool | None:
        with self._changed:
            place = self._places.get(key)
            if place is None:
                place = self._places[key] = _Place(self._number_of(key))
            if place.error is not None:
                raise place.error
            if place.rung == 0:
                return True
            if place.asked:
                return None
            answered, place.answered = place.answered, False
            self._do(place)
            return False if answered else None

    @override
    def give_up(self, key: SessionKey) -> None:
        with self._changed:
            place = self._places.pop(key, None)
            if place is not None:
                place.given_up = True
                if not place.asked:
                    self._do(place)

    @override
    def abandon(self) -> None:
        # The parent's thread is not here, and its connection is the parent's: the file is closed, and nothing is said to the
        # server. libpq closes what it has opened in the same process only.
        link, self._link = self._link, None
        if link is not None:
            os.close(link.connection.pgconn.socket)
            _inherited.append(link)

    @override
    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(_CLOSING_SECONDS)

    def _do(self, place: _Place) -> None:
        place.asked = True
        self._to_do.append(place)
        self._changed.notify()

    def _number_of(self, key: SessionKey) -> int:
        # Two sessions of one hash, one pair in 10^17, would take turns with each other.
        digest = blake2b(repr((self._schema, *key)).encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big", signed=True) // RUNGS * RUNGS

    def _run(self) -> None:
        try:
            while (place := self._next()) is not None:
                try:
                    rung = self._advance(place)
                    error = None
                except StorageError as refusal:
                    rung, error = None, refusal
                with self._changed:
                    place.rung, place.error = rung, error
                    place.asked, place.answered = False, True
                    if place.given_up and rung is not None:
                        self._do(place)
        finally:
            if self._link is not None:
                self._link.close()

    def _next(self) -> _Place | None:
        with self._changed:
            while not self._to_do and not self._closed:
                self._changed.wait()
            return None if self._closed else self._to_do.popleft()

    def _advance(self, place: _Place) -> int | None:
        """Asks the server for the next steps of a place, or frees what it has; returns the rung that it has then.

        Raises:
            StorageError: If the server cannot be asked.
        """
        deadline = time.monotonic() + self._busy_timeout
        if self._link is None:
            self._link = Link(self._server.connect_until(deadline))
        link = self._link
        try:
            with link.deadline(deadline + _GRACE_SECONDS):
                if place.given_up:
                    if place.rung is not None:
                        link.connection.execute("SELECT pg_advisory_unlock(%s::bigint)", (place.first + place.rung,))
                    return None
                statement = schema.rendered("SELECT @sessiondb_turn_1(%s::bigint, %s::int)", self._schema)
                row = schema.run(link.connection, statement, (place.first, place.rung)).fetchone()
        except psycopg.Error as error:
            if not is_connection_lost(error):
                raise translate(error, self._server.name) from error
            self._link = None
            link.close()
            self._forget(place)
            return None
        assert row is not None  # noqa: S101  # one row, always
        rung = row[0]
        assert rung is None or isinstance(rung, int)  # noqa: S101  # as the function returns it
        return rung

    def _forget(self, place: _Place) -> None:
        """Takes note that the server has freed everything; who waits asks again."""
        with self._changed:
            held = 0
            for other in self._places.values():
                if other is not place and other.rung == 0:
                    held += 1
                else:
                    other.rung = None
        # Whoever is within a turn goes on: nothing is enforced. Others may begin beside it.
        logger.warning("turns_lost", path=self._server.name, turns=held)


_inherited: list[Link] = []
"""Connections of a parent, which are never closed here."""
