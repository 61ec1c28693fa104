"""History, time travel and forks: what the logs tell of how things were."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import replace
from itertools import groupby
from operator import attrgetter, itemgetter
from typing import Any

from google.adk.platform import time as platform_time
from google.adk.platform import uuid as platform_uuid
from google.adk.sessions import Session

from sessiondb import telemetry
from sessiondb.adk import past, scopes
from sessiondb.adk.events import timestamp_text
from sessiondb.adk.limits import check_key, check_text
from sessiondb.adk.past import StateChange
from sessiondb.adk.sessions import build_session, decode_scope
from sessiondb.adk.state import encode_delta
from sessiondb.calls.base import Calls, stripped
from sessiondb.engine.reading import EVERY_EVENT
from sessiondb.engine.store import Reader
from sessiondb.errors import AlreadyExistsError, EventNotFoundError, InvalidInputError, SessionNotFoundError
from sessiondb.model.commands import ForkSession
from sessiondb.model.queries import At, GetPast, ListChanges, ListForks, LogPosition
from sessiondb.model.records import (
    ForkedSession,
    LoggedChange,
    Moment,
    Outcome,
    PastSnapshot,
    Selection,
    SessionKey,
    Status,
    named,
)


class Past(Calls):
    """Calls about what was."""

    @telemetry.operation
    async def history(
        self,
        app_name: str,
        user_id: str | None = None,
        session_id: str | None = None,
        key: str | None = None,
    ) -> list[StateChange]:
        """Lists changes of state, in the order in which they were written.

        What a session was created with is its first changes, with ``seq`` 0; of a session that was made before sessiondb
        recorded that, it is not known, and ``existed`` is None then. Where its oldest events were pruned, the first changes
        are its own state as those left it, at the time of the last of them, and ``existed`` is None. What a fork has taken over is in its history too, but
        for ``user:`` and ``app:`` keys, which no fork has changed. ``old`` is what the logs that are still there tell: of
        ``user:`` and ``app:`` keys those of all sessions that share them, whichever are chosen. A session's log ends with
        the session; what was set outside sessiondb, or came with an import, is in no log.

        Args:
            app_name: Of which app.
            user_id: Only what is recorded in the sessions of this user; None: of all users.
            session_id: Only what is recorded in sessions of this id.
            key: Only this key, with its prefix; None: all.

        Returns:
            The changes, the oldest first; an empty list if there are none.

        Raises:
            InvalidInputError: If an id cannot be one.
            CorruptRowError: If an event cannot be read.
        """
        selection = Selection(
            check_text("app_name", app_name),
            None if user_id is None else check_text("user_id", user_id),
            None if session_id is None else check_text("session_id", stripped(session_id)),
        )
        if key is not None:
            check_text("state key", key)
        return await self._engine.read_together(functools.partial(read_history, selection=selection, key=key))

    @telemetry.operation
    async def get_session_at(
        self,
        app_name: str,
        user_id: str,
        session_id: str,
        *,
        event_id: str | None = None,
        seq: int | None = None,
        time: float | None = None,
    ) -> Session | None:
        """Reads a session as it was right after one of its events: its events up to there, and its state then.

        The session's own keys are exact. ``user:`` and ``app:`` keys are what the logs that are still there tell: a key that
        none of them has changed since has the value of today, another one that of its last change before. What was set by
        sessions that are deleted by now, or outside sessiondb, is not seen there. In what a fork has taken over, ``user:``
        and ``app:`` keys are those of the moment of the fork.

        The Session is for looking at. Nothing can be appended through it, also if the moment is the present, and whatever
        ``on_stale`` says: go on with ``get_session``, or with ``fork_session`` from there.

        Args:
            app_name: The app it belongs to.
            user_id: The user it belongs to.
            session_id: Its id, stripped of white space around it.
            event_id: Right after the event of this id; if several have it, the last of them.
            seq: Right after the event of this number; 0 is right after the creation. Where the oldest events were pruned, the
                number of the last of them is the earliest moment that is known.
            time: Right after the last event, in the order of the log, that is dated at or before this moment, in seconds
                since the epoch; right after the creation if there is no such event.

        Returns:
            The session, or None if there is none, or was none at ``time``.

        Raises:
            InvalidInputError: If not exactly one of ``event_id``, ``seq`` and ``time`` is given, or one cannot be such.
            EventNotFoundError: If the session has no such event, or has none any more since it was pruned.
            UnknownBeginningError: If it is not known what the session was created with, and its state depends on that.
            CorruptRowError: If a row of this session cannot be read.
        """
        session_key = check_key(app_name, user_id, stripped(session_id))
        at = _checked_moment(event_id, seq, time)
        return await self._engine.read_together(functools.partial(_read_session, key=session_key, at=at))

    @telemetry.operation
    async def fork_session(
        self,
        app_name: str,
        user_id: str,
        session_id: str,
        *,
        at_event_id: str | None = None,
        new_session_id: str | None = None,
        new_user_id: str | None = None,
    ) -> Session:
        """Creates a session that begins as another one was right after one of its events.

        It has the events up to there, under their ids and numbers, and the state that the session itself had then. The two
        are independent from there on. State of users and apps is not touched: the new session sees that of its own user, as
        it is now. Where it came from is recorded, see :meth:`list_forks`.

        A cancelled call leaves a whole session or none.

        Args:
            app_name: The app of both.
            user_id: The user that the other session belongs to.
            session_id: The id of the other session, stripped of white space around it.
            at_event_id: The last event to take over; if several have this id, the last of them. None: all events.
            new_session_id: The id of the new session, stripped of white space around it; generated if blank or None.
            new_user_id: The user of the new session; None: the same one.

        Returns:
            The new session.

        Raises:
            SessionNotFoundError: If there is no such session.
            EventNotFoundError: If it has no such event.
            AlreadyExistsError: If the user has a session of the new id.
            UnknownBeginningError: If it is not known what the session was created with, and its state depends on that.
            InvalidInputError: If an id cannot be one.
        """
        source = check_key(app_name, user_id, stripped(session_id))
        new_id = (stripped(new_session_id) if new_session_id else "") or platform_uuid.new_uuid()
        key = check_key(app_name, user_id if new_user_id is None else new_user_id, new_id)
        at = At(None if at_event_id is None else check_text("event id", at_event_id))
        # Not on the thread that reads: a clock that was given to ADK is the caller's own.
        time = past.creation_time(platform_time.get_time())
        while True:
            command = await self._engine.read(
                GetPast(source, at, with_events=False), functools.partial(_fork_of, key, source, at, time)
            )
            outcome: Outcome = await self._engine.write(command)
            if outcome.status is not Status.STALE:
                break
            # It was deleted, or edited outside sessiondb, since it was read.
        if outcome.status is Status.EXISTS:
            raise AlreadyExistsError(f"Session with id {key.session_id} already exists.")
        end = LogPosition(command.incarnation, command.log_epoch, command.seq)
        events = self._logs.forked(source, end, command.events, key, outcome.incarnation)
        if events is not None:
            return build_session(key, outcome, events, command.time)
        plan = self._logs.plan(key, EVERY_EVENT)
        session = await self._engine.read(plan.query, functools.partial(self._session_of, plan, later=True))
        if session is None:
            raise SessionNotFoundError(f"Session {key.session_id} not found.")
        return session

    @telemetry.operation
    async def list_forks(
        self, app_name: str, user_id: str | None = None, session_id: str | None = None
    ) -> list[ForkedSession]:
        """Lists the sessions that were forked from others, in the order in which that was done.

        A fork stays in the list when the session that it came from is deleted.

        Args:
            app_name: Of which app.
            user_id: Only forks of this user's sessions.
            session_id: Only forks of sessions of this id.

        Returns:
            For each its key, when it was created, and its ``origin``: user, session and number of the last event taken over.
        """
        source = Selection(
            check_text("app_name", app_name),
            None if user_id is None else check_text("user_id", user_id),
            None if session_id is None else check_text("session_id", stripped(session_id)),
        )
        forks: list[ForkedSession] = await self._engine.read(ListForks(source), list)
        return forks


def read_history(reader: Reader, selection: Selection, key: str | None) -> list[StateChange]:
    """Reads changes of state, as :meth:`Past.history`; ``selection`` may also leave the app open."""
    chosen = list(reader.ask(ListChanges(selection, state_key=key)))
    copied = _copied(reader, selection.app_name)
    places = {(change.key, change.seq): change for change in chosen}
    for prefix, owner in _SHARED:
        wide = Selection(*selection[:owner])
        if wide != selection and any(
            name.startswith(prefix) for change in chosen for name, _, _ in past.key_changes(change)
        ):
            # Others may have set such a key between two changes that are wanted.
            for change in reader.ask(ListChanges(wide, state_key=key, prefix=prefix)):
                places.setdefault((change.key, change.seq), change)
    wanted = {(change.key, change.seq) for change in chosen}
    return list(past.fold_history(_in_order(places.values()), wanted, copied, key))


def _in_order(changes: Iterable[LoggedChange]) -> list[LoggedChange]:
    """Sorts changes by their moments. Whatever these say, those of one session come in the order of its log.

    A server numbers transactions when they begin, and hosts that wait for each other commit in another order.
    """
    placed: list[tuple[Moment, int, LoggedChange]] = []
    for _, log in groupby(sorted(changes, key=attrgetter("key", "seq")), attrgetter("key")):
        moment: Moment = ()
        for change in log:
            moment = max(moment, change.moment)
            placed.append((moment, change.seq, change))
    placed.sort(key=itemgetter(0, 1))
    return [change for _, _, change in placed]


_SHARED = ((scopes.USER_PREFIX, 2), (scopes.APP_PREFIX, 1))
"""The prefixes of keys that sessions share, and how many fields of a Selection say whose they are."""


def _checked_moment(event_id: str | None, seq: int | None, time: float | None) -> At:
    if (event_id is not None) + (seq is not None) + (time is not None) != 1:
        raise InvalidInputError("give one of event_id, seq and time, to say which moment is meant")
    if event_id is not None:
        check_text("event id", event_id)
    if seq is not None and (type(seq) is not int or not 0 <= seq < 2**63):
        raise InvalidInputError(f"seq must be the number of an event, or 0, not {seq!r}")
    if time is not None:
        if isinstance(time, bool) or not isinstance(time, int | float):
            raise InvalidInputError(f"time must be a number of seconds since the epoch, not {type(time).__name__}")
        timestamp_text(time)
    return At(event_id, seq, time)


def _read_session(reader: Reader, key: SessionKey, at: At) -> Session | None:
    found = reader.ask(GetPast(key, at))
    if found is None or (at.time is not None and not found.seq and past.time_of_text(found.created_at) > at.time):
        return None
    _check_found(found, key, at)
    state = past.own_state(key, found)
    copied = _copied(reader, key.app_name)
    for (prefix, owner), text in zip(_SHARED, (found.head.user_state, found.head.app_state), strict=True):
        present = {prefix + name: value for name, value in decode_scope(key, text).items()}
        changes = ListChanges(Selection(*key[:owner]), prefix=prefix)
        state |= _shared_state(reader, changes, found.moment, present, copied)
    return past.past_session(key, found, state)


def _shared_state(
    reader: Reader, changes: ListChanges, moment: Moment, present: dict[str, Any], copied: dict[SessionKey, int]
) -> dict[str, Any]:
    """Returns state that sessions share, as it was at a moment."""

    def is_original(change: LoggedChange) -> bool:
        return change.seq > copied.get(change.key, -1)

    later = list(filter(is_original, reader.ask(replace(changes, after=moment))))
    # Read no further than is needed, and dropped when this returns.
    earlier = reader.ask(replace(changes, until=moment, newest_first=True)) if later else iter(())
    return past.state_before(present, later, filter(is_original, earlier), changes.prefix or "")[0]


def _copied(reader: Reader, app_name: str | None) -> dict[SessionKey, int]:
    """Returns for each fork the number of the last event that it has taken over."""
    return {fork.key: fork.origin.seq for fork in reader.ask(ListForks(Selection(app_name)))}


def _fork_of(key: SessionKey, source: SessionKey, at: At, time: float, found: PastSnapshot | None) -> ForkSession:
    if found is None:
        raise SessionNotFoundError(f"Session {source.session_id} not found.")
    seq = _check_found(found, source, at)
    state = encode_delta(past.own_state(source, found), keep_none=True).stored.session_set or "{}"
    head = found.head
    return ForkSession(
        *(key, time, timestamp_text(time), source, head.incarnation, head.log_epoch),
        *(seq, found.events, found.revision, state),
    )


def _check_found(found: PastSnapshot, key: SessionKey, at: At) -> int:
    if found.seq is None:
        what = f" of number {at.seq}" if at.seq is not None else f" with the id {at.event_id!r}" if at.event_id else ""
        cut = found.beginning.cut
        if cut is None:
            raise EventNotFoundError(f"{named(key)} has no event{what}")
        when = "" if at.time is None else f" at or before {at.time}"
        raise EventNotFoundError(
            f"{named(key)} has no event{what}{when}: its oldest events, up to number {cut.seq}, were pruned. What is known"
            " of it begins after that one"
        )
    return found.seq
