"""Pruning by a call or in the background: whose turn it is, and what is told of it. What is done is in :mod:`.prune`."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from google.adk.platform import time as platform_time

from sessiondb import telemetry
from sessiondb.adk.limits import check_text
from sessiondb.calls.base import Calls
from sessiondb.calls.prune import Prune
from sessiondb.engine.engine import Engine
from sessiondb.engine.turns import Turn
from sessiondb.errors import ConfigurationError, StorageError, TurnTimeoutError
from sessiondb.logger import logger
from sessiondb.model.records import (
    EVERYTHING,
    PruneReport,
    Selection,
    SessionKey,
)
from sessiondb.options import check_wait
from sessiondb.retention import Retention

_TURN = SessionKey("\0prune", "", "")
"""No session has this key: no id holds a NUL."""

_PAUSE = 0.025
"""How long to wait before asking again whether another host has ended its prune, in seconds."""


class Pruning(Calls):
    """Calls that delete what is not to be kept."""

    @telemetry.operation
    async def prune(
        self,
        retention: Retention,
        *,
        app_name: str | None = None,
        user_id: str | None = None,
        dry_run: bool = False,
        wait: float = 60.0,
    ) -> PruneReport:
        """Deletes what is more than is to be kept: sessions with their events and own state, and the oldest events of logs.

        It is done in small parts, between which others write. A session that is written to meanwhile stays, and waits for
        the next prune. State of users and apps stays, and so does the state of a session whose log is cut: Sessions that are
        open go on, and what is left begins, for :meth:`history` and :meth:`get_session_at`, with the state after the cut.

        A log is cut where what is left makes sense: never within an invocation or the one that is going on, nor between a
        function call and its response, nor within what a rewind took back, and not before the first summary (of ADK's
        compaction) that stands for something that is gone. So more than ``max_events`` may stay.

        Of all hosts and services that use a database, one prunes at a time. A cancelled call, or a process that is killed,
        leaves no session half deleted; what was deleted is gone.

        Args:
            retention: What is kept.
            app_name: Only sessions of this app; None: of all apps.
            user_id: Only sessions of this user; None: of all users.
            dry_run: Whether only to count. Nothing is written, no archive either.
            wait: For how many seconds to wait for another prune to end, at most.

        Returns:
            What was deleted.

        Raises:
            TurnTimeoutError: If another prune went on all the time.
            InvalidInputError: If an id cannot be one.
            ConfigurationError: If ``retention`` or ``wait`` cannot be such, or a pooler stands in front of the server: what
                keeps hosts apart is a lock of a connection.
            StorageError: If the archive cannot be written, or the store refuses; what was deleted by then is gone.
        """
        if not isinstance(retention, Retention):
            raise ConfigurationError(f"retention must be a Retention, not {type(retention).__name__}")
        check_wait(wait)
        selection = Selection(
            None if app_name is None else check_text("app_name", app_name),
            None if user_id is None else check_text("user_id", user_id),
        )
        engine = self._engine
        # Not on the thread that prunes: a clock that was given to ADK is the caller's own.
        now = platform_time.get_time()
        job = functools.partial(prune_store, engine, retention, selection, now=now, wait=wait, dry_run=dry_run)
        return await engine.threads.jobs.run(job, "prune", "the prune was cancelled; what it had deleted is gone")


def prune_store(
    engine: Engine,
    retention: Retention,
    selection: Selection,
    goes_on: Callable[[], bool],
    *,
    now: float,
    wait: float,
    dry_run: bool = False,
) -> PruneReport | None:
    """Prunes on the calling thread, as :meth:`Pruning.prune`; None if ``goes_on`` has said no meanwhile."""
    store = engine.store
    with store.reader(engine.options.busy_timeout) as reader:
        if dry_run:
            return Prune(reader, None, retention, selection, now).run(goes_on)
        with _turn_to_prune(engine, wait, goes_on) as has_turn:
            if not has_turn:
                return None
            report = Prune(reader, engine.write_from_thread, retention, selection, now).run(goes_on)
    if report is not None:
        telemetry.record_prune(report.sessions, report.events)
        logger.info(
            "pruned",
            path=store.name,
            sessions=report.sessions,
            trimmed=report.trimmed,
            events=report.events,
            in_use=report.in_use,
            uncut=report.uncut,
            unreadable=report.unreadable,
            archives=len(report.archives),
            seconds=report.seconds,
        )
    return report


def prune_in_background(engine: Engine, retention: Retention, goes_on: Callable[[], bool]) -> bool | None:
    """Prunes, if no other host is at it; what fails is noted in the host's log. None if ``goes_on`` has said no."""
    try:
        if prune_store(engine, retention, EVERYTHING, goes_on, now=platform_time.get_time(), wait=0) is None:
            return None
    except TurnTimeoutError:
        logger.debug("prune_left_to_others", path=engine.store.name)
    except (StorageError, ConfigurationError) as error:
        if not goes_on():
            return None
        logger.warning("prune_failed", path=engine.store.name, error=type(error).__name__, hint=str(error))
    return True


@contextmanager
def _turn_to_prune(engine: Engine, wait: float, goes_on: Callable[[], bool]) -> Iterator[bool]:
    """Keeps other prunes of the database away. False if ``goes_on`` has said no.

    Raises:
        TurnTimeoutError: If another one went on for ``wait`` seconds.
        StorageError: If the store refuses.
    """
    turn = Turn(engine.turns, _TURN, wait, _TURN, lambda: None)
    deadline = time.monotonic() + wait
    pausing = threading.Event()
    try:
        # None: the answer is on its way.
        while not (answer := engine.turns.try_take(turn)) and goes_on():
            if answer is False and time.monotonic() >= deadline:
                raise TurnTimeoutError(
                    f"another prune of {engine.store.name!r} went on for {wait:g} s; it does what this one was to do. Nothing"
                    " was deleted by this one"
                )
            pausing.wait(_PAUSE if answer is False else _PAUSE / 25)
        yield bool(answer)
    finally:
        turn.release()
