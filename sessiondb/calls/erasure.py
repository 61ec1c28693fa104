"""Forgetting a user."""

from __future__ import annotations

import time

import anyio

from sessiondb import telemetry
from sessiondb.adk.limits import check_text
from sessiondb.calls.base import Calls
from sessiondb.logger import logger
from sessiondb.model.commands import ERASED_AT_ONCE, EraseUser
from sessiondb.model.queries import MeasureUser
from sessiondb.model.records import NOTHING_ERASED, Erased, ErasureReport, Outcome

_ONLY_COUNTED = "dry_run=True: nothing was deleted"
_NOT_ASKED = "purge=False: what was deleted is overwritten by the next vacuum()"


class Erasure(Calls):
    """Calls for the right to be forgotten."""

    @telemetry.operation
    async def erase_user(
        self, app_name: str, user_id: str, *, purge: bool = True, dry_run: bool = False
    ) -> ErasureReport:
        """Deletes all that belongs to a user of an app: sessions, their events and state, and the state of the user.

        A fork that another user has of one of the sessions stays, with what it has taken over, and forgets where it is from.
        State of the app stays. So do other apps' sessions of a user of this id.

        What there is when the call begins is deleted, and what comes until it ends: an append to a deleted session is refused
        as :class:`.SessionNotFoundError`, and a session that is created later is a new one. Large users are deleted some
        hundred rows at a time, so that others can write in between. Then the file is rebuilt, so that nothing is left in free
        pages, in the slack of others or in the write-ahead log, also of what was overwritten or deleted earlier. That takes
        as long as :meth:`vacuum`, and others wait meanwhile. The tables of a server are vacuumed, and nobody waits.

        A call that was cancelled, or whose process has died, has deleted some of it: call it again. It does no harm if
        nothing is there.

        Args:
            app_name: The app.
            user_id: The user.
            purge: Whether to rebuild the file. If not, what was deleted stays readable for somebody who looks into the file,
                until :meth:`vacuum` is called, which serves any number of users at once.
            dry_run: Whether to count only, and to change nothing.

        Returns:
            How much was deleted, and in ``purged`` whether nothing of it is left. If somebody is still reading what was there
            before, that is waited for, ``busy_timeout`` at most; then ``hint`` says so.

        Raises:
            InvalidInputError: If an id cannot be one.
        """
        check_text("app_name", app_name)
        check_text("user_id", user_id)
        engine = self._engine
        if dry_run:
            return await engine.read(MeasureUser(app_name, user_id), lambda found: _report(found, _ONLY_COUNTED))
        erased = NOTHING_ERASED
        try:
            while True:
                started = time.monotonic()
                outcome: Outcome = await engine.write(EraseUser(app_name, user_id, ERASED_AT_ONCE))
                erased = erased.plus(outcome.erased)
                if erased.is_all:
                    break
                # Others have as long for themselves.
                await anyio.sleep(time.monotonic() - started)
            hint = await engine.purge() if purge else _NOT_ASKED
        finally:
            engine.forget_user(app_name, user_id)
        report = _report(erased, hint)
        logger.info(
            "user_erased",
            path=engine.store.name,
            sessions=report.sessions,
            events=report.events,
            state_keys=report.state_keys,
            forks=report.forks,
            purged=report.purged,
            hint=report.hint,
        )
        return report


def _report(erased: Erased, hint: str) -> ErasureReport:
    return ErasureReport(*erased[:4], purged=not hint, hint=hint)
