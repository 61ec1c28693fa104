"""Turns: of all that work on one session, one at a time.

There are two lines. Within the process, those who want the turn of a session stand in a queue. Its front alone asks the
store for the session's lock, which keeps the processes apart, and asks again until it has it: so nobody blocks a thread,
whatever the event loop, and there is no thread to end, to cancel or to lose in a fork.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, ExitStack
from contextvars import ContextVar
from time import monotonic
from types import TracebackType
from typing import Self, TypeAlias

import anyio
from typing_extensions import override

from sessiondb.engine.store import Store, TurnLocks
from sessiondb.engine.waiting import Admission, AnyTicket, TaskWaiter, Ticket, complete, wait_in_task, waiter_for_task
from sessiondb.errors import ServiceClosedError, TurnTimeoutError
from sessiondb.logger import logger
from sessiondb.model.records import SessionKey

_FIRST_PAUSE = 0.001
_LONGEST_PAUSE = 0.025
"""How long the front of a line waits before it asks for a lock that another process has, in seconds."""


class Turn(AbstractAsyncContextManager["Turn"]):
    """The turn of a session, see :meth:`DatabaseSessionService.turn`; for one use.

    It begins when ``async with`` is entered, and ends with the block, however that ends, or with the process. Whoever asks
    for the turn of the same session within it, through any service of the file, has it already, and does not wait. Within
    means: in the same task, or with a copy of its context, as tasks have that are started there, and threads of
    ``asyncio.to_thread``. So an agent that is a tool, a run started by a tool, or a rewind goes on. Those who share a turn
    are in no order among themselves, and none has it any longer than the block that began it. A forked child has none of
    its parent's turns.

    Two tasks that each have the turn of one session, and want that of the other, wait for each other until the time of one
    is over.
    """

    # The owner is the service; check_owner raises ServiceClosedError when that is closed.
    def __init__(
        self, turns: Turns, key: SessionKey, wait: float, owner: object, check_owner: Callable[[], object]
    ) -> None:
        self.key = key
        self.wait = wait
        self.owner = owner
        self.check_owner = check_owner
        self.entered = False
        self._turns = turns

    @override
    async def __aenter__(self) -> Self:
        await self.take()
        return self

    @override
    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    async def take(self) -> bool:
        """Waits for the turn, as entering the block does; :meth:`release` must be called in the end.

        Returns:
            Whether it is a turn of its own. False if it is part of one that the caller has already, and ends with that.

        Raises:
            TurnTimeoutError: If it did not come in time.
            ServiceClosedError: If the service is closed, or was closed meanwhile.
            StorageError: If the store refuses.
        """
        mine = [turn for turn in _mine.get() if turn.held]
        if any(turn.key == self.key and turn._turns is self._turns for turn in mine):  # noqa: SLF001  # another of this class
            return False
        await self._turns.take(self)
        _mine.set((*mine, self))
        return True

    @property
    def held(self) -> bool:
        """Whether it has begun and not ended."""
        return self.entered and self._turns.is_front(self)

    def release(self) -> None:
        """Ends the turn, or does nothing if it is part of another or has ended. Callable from any thread."""
        self._turns.release(self)


_mine: ContextVar[tuple[Turn, ...]] = ContextVar("sessiondb_turns", default=())
"""The turns within which this code runs; some may have ended."""

TurnTicket: TypeAlias = Ticket[Turn, None]


class _Line:
    """Those of this process who want the turn of a session.

    Attributes:
        front: Who has it, or is about to.
        waiting: The others, in the order in which they came.
    """

    __slots__ = ("front", "waiting")

    def __init__(self, front: Turn) -> None:
        self.front = front
        self.waiting: dict[TurnTicket, None] = {}


class Turns:
    """The turns of one open store, in this process. Callable from any thread."""

    def __init__(self, store: Store) -> None:
        self._store = store
        # Entered again where the garbage collector ends a turn in the middle of this, or of a fork.
        self._lock = threading.RLock()
        self._lines: dict[SessionKey, _Line] = {}
        self._locks: TurnLocks | None = None

    async def take(self, turn: Turn) -> None:
        """Waits until a turn has come; see :meth:`Turn.take`."""
        began = monotonic()
        turn.entered = False
        waiting = self._join(turn)
        waited = waiting is not None
        try:
            # Closing refuses all who have joined by then; this one may have come later.
            turn.check_owner()
        except ServiceClosedError:
            if waiting is None or not self._withdraw(waiting[0]):
                self.release(turn)
            raise
        if waiting is not None:
            await wait_in_task(*waiting, self._leave, Admission(turn.wait, self._refuse_late))
        pause = _FIRST_PAUSE
        with ExitStack() as undo:
            # Whatever ends the wait, whoever is next goes on.
            undo.callback(self.release, turn)
            refused = False
            while not (answer := self._advance(turn)):
                # Who waits for nothing waits for an answer all the same. A store that gives none raises in the end.
                refused = refused or answer is False
                waited = waited or refused
                left = began + turn.wait - monotonic()
                if left <= 0 and refused:
                    raise self._timed_out(turn)
                await anyio.sleep(min(pause, left) if left > 0 else _FIRST_PAUSE)
                pause = min(2 * pause, _LONGEST_PAUSE) if refused else _FIRST_PAUSE
            undo.pop_all()
        if waited:
            logger.info(
                "turn_waited",
                path=self._store.name,
                app_name=turn.key.app_name,
                session_id=turn.key.session_id,
                seconds=monotonic() - began,
            )

    def try_take(self, turn: Turn) -> bool | None:
        """Goes a step nearer to a turn, for a plain thread that asks again; :meth:`release` must be called in the end.

        Returns:
            Whether it has come. False: somebody else has it; None: not known yet.

        Raises:
            ServiceClosedError: If the store is closed.
            StorageError: If the store refuses.
        """
        with self._lock:
            if self._lines.setdefault(turn.key, _Line(turn)).front is not turn:
                return False
        return self._advance(turn)

    def is_front(self, turn: Turn) -> bool:
        """Whether a turn is the one that its session has in this process."""
        line = self._lines.get(turn.key)
        return line is not None and line.front is turn

    def release(self, turn: Turn) -> None:
        """Ends a turn, if it is the one that its session has."""
        with self._lock:
            following = self._pass_on(turn)
        self._wake(following)

    def refuse(self, owner: object) -> None:
        """Has those who wait through ``owner`` end with ServiceClosedError; whoever has a turn keeps it."""
        refused: list[AnyTicket] = []
        following = []
        with self._lock:
            for line in list(self._lines.values()):
                for ticket in [ticket for ticket in line.waiting if ticket.work.owner is owner]:
                    del line.waiting[ticket]
                    ticket.error = _closed()
                    refused.append(ticket)
                if line.front.owner is owner and not line.front.entered:
                    # It is told when it asks for the lock again.
                    following.append(self._pass_on(line.front))
        complete(refused)
        for front in following:
            self._wake(front)

    def close(self) -> None:
        """Ends all turns. Called when the last owner is closed."""
        with self._lock:
            lines, self._lines = self._lines, {}
            locks, self._locks = self._locks, None
            if locks is not None:
                locks.close()
        refused = [ticket for line in lines.values() for ticket in line.waiting]
        for ticket in refused:
            ticket.error = _closed()
        complete(refused)

    def suspend(self) -> None:
        """Lets nobody take or end a turn while the process forks: a child must know of every file that is open."""
        self._lock.acquire()

    def resume(self) -> None:
        """Goes on after the fork, in the parent."""
        self._lock.release()

    def start_over(self) -> None:
        """Forgets, in a forked child, the turns of the parent."""
        self._lock = threading.RLock()
        self._lines = {}
        locks, self._locks = self._locks, None
        if locks is not None:
            locks.abandon()

    def _join(self, turn: Turn) -> tuple[TurnTicket, TaskWaiter] | None:
        """Takes a place in the line; None if that is its front, else what to wait for and by."""
        with self._lock:
            line = self._lines.get(turn.key)
            if line is None:
                self._lines[turn.key] = _Line(turn)
                return None
            waiter = waiter_for_task()
            ticket: TurnTicket = Ticket(turn, waiter)
            line.waiting[ticket] = None
            return ticket, waiter

    def _advance(self, turn: Turn) -> bool | None:
        """Asks for the lock of the front of a line; says whether the turn has begun, None if that is not known yet."""
        with self._lock:
            if not self.is_front(turn):
                raise _closed()
            if self._locks is None:
                self._locks = self._store.turn_locks()
            answer = self._locks.try_take(turn.key)
            turn.entered = answer is True
            return answer

    def _leave(self, ticket: AnyTicket) -> bool:
        """Gives up a place in the line, the front's too; nobody has to wait for that."""
        if not self._withdraw(ticket):
            self.release(ticket.work)
        return True

    def _withdraw(self, ticket: AnyTicket) -> bool:
        """Takes a ticket out of the line; says whether it was waiting there."""
        with self._lock:
            line = self._lines.get(ticket.work.key)
            return line is not None and line.waiting.pop(ticket, self) is None

    def _refuse_late(self, ticket: AnyTicket) -> TurnTimeoutError | None:
        return self._timed_out(ticket.work) if self._withdraw(ticket) else None

    def _pass_on(self, turn: Turn) -> TurnTicket | None:
        """Makes the next in line the front, and returns its ticket, which is to be woken. Called with the lock held."""
        line = self._lines.get(turn.key)
        if line is None or line.front is not turn:
            return None
        # Given up even if somebody of this process is next: those of other processes have waited too.
        if self._locks is not None:
            self._locks.give_up(turn.key)
        if not line.waiting:
            del self._lines[turn.key]
            return None
        ticket = next(iter(line.waiting))
        del line.waiting[ticket]
        line.front = ticket.work
        return ticket

    def _wake(self, ticket: TurnTicket | None) -> None:
        # A front whose event loop is closed will never ask, and never leave.
        while ticket is not None and complete([ticket]):
            with self._lock:
                ticket = self._pass_on(ticket.work)

    def _timed_out(self, turn: Turn) -> TurnTimeoutError:
        key = turn.key
        logger.warning(
            "turn_timeout",
            path=self._store.name,
            app_name=key.app_name,
            session_id=key.session_id,
            wait=turn.wait,
        )
        return TurnTimeoutError(
            f"the turn of session {key.session_id!r} did not come within {turn.wait:g} s: another run of it goes on. Send"
            " the message again later, or raise `wait`"
        )


def _closed() -> ServiceClosedError:
    return ServiceClosedError("the session service is closed")
