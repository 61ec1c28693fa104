"""Changing what was: logs that are cut off, and events of which the content is taken away."""

from __future__ import annotations

import functools
from collections.abc import Iterable

from google.adk.platform import time as platform_time
from google.adk.sessions import Session
from google.genai import types

from sessiondb import telemetry
from sessiondb.adk import past
from sessiondb.adk.cuts import check_cut
from sessiondb.adk.events import timestamp_text
from sessiondb.adk.limits import check_key, check_text
from sessiondb.adk.redaction import Replacement, redact
from sessiondb.adk.state import encode_delta
from sessiondb.calls.base import Calls, stripped
from sessiondb.engine.store import Reader
from sessiondb.errors import EventNotFoundError, InvalidInputError, SessionNotFoundError
from sessiondb.logger import logger
from sessiondb.model.commands import RedactEvents, TruncateSession
from sessiondb.model.queries import At, FindEvents, GetBeginning, GetOutline, GetPast
from sessiondb.model.records import Outcome, SessionKey, Status, named


class Edits(Calls):
    """Calls that take something away from a log."""

    @telemetry.operation
    async def truncate_session(
        self, app_name: str, user_id: str, session_id: str, *, after_event_id: str | None, force: bool = False
    ) -> Session:
        """Cuts a session's log off after one of its events, so that the conversation can go on from there in another way.

        The events after it are gone, and numbers are used again. The state of the session itself is what it was right after
        that event; ``user:`` and ``app:`` keys stay as they are now. All Sessions that were read before are stale. What others
        append while this is done is cut off, too. If the event is the last one, nothing changes.

        A cut between a function call and its response is refused. A long-running tool may give several: the first will do. A
        call that has had no response may stay. Where the first events of a log are gone, a cut before the summary that
        stands for them is refused, too.

        A cancelled call has cut the log off, or changed nothing.

        Args:
            app_name: The app it belongs to.
            user_id: The user it belongs to.
            session_id: Its id, stripped of white space around it.
            after_event_id: The last event that stays; if several have this id, the last of them. None: no event stays, and the
                state is what the session was created with.
            force: Cut, whatever that parts.

        Returns:
            The session as it is now.

        Raises:
            SessionNotFoundError: If there is no such session.
            EventNotFoundError: If it has no such event.
            UnsafeCutError: If the cut would part what belongs together. Its attributes say where one would do.
            UnknownBeginningError: If it is not known what the session was created with, and its state depends on that.
            CorruptRowError: If an event that matters cannot be read.
            InvalidInputError: If an id cannot be one.
        """
        key = check_key(app_name, user_id, stripped(session_id))
        if after_event_id is not None:
            check_text("event id", after_event_id)
        # Not on the thread that reads: a clock that was given to ADK is the caller's own.
        time = platform_time.get_time()
        plan = functools.partial(plan_truncation, key=key, after_event_id=after_event_id, time=time, force=force)
        while True:
            command = await self._engine.read_together(plan)
            if command.seq == command.last_seq:
                break
            outcome: Outcome = await self._engine.write(command)
            if outcome.status is Status.DONE:
                logger.info(
                    "session_truncated",
                    app_name=app_name,
                    session_id=key.session_id,
                    events=command.last_seq - command.seq,
                    last_seq=command.seq,
                )
                break
            # It was deleted or edited since it was read, or a function call was answered.
        session = await self.get_session(*key)
        if session is None:
            raise SessionNotFoundError(f"Session {key.session_id} not found.")
        return session

    @telemetry.operation
    async def redact_events(
        self,
        app_name: str,
        user_id: str,
        session_id: str,
        event_ids: Iterable[str],
        replacement: str | types.Content | None = None,
    ) -> int:
        """Takes the content of events away: all of them, or none if one is unknown.

        What stays is where each event stands, its id, author, invocation, branch and time, changes of state and artifacts,
        figures of usage, and which tools were called, without arguments and results. All else is gone: content,
        transcriptions, metadata of any kind, error messages, output, a compaction's summary. ``custom_metadata`` then holds
        ``"sessiondb:redacted_at"``, the moment as UTC ISO 8601.

        Sessions that were read before stay valid, and hold what they hold. An event that is redacted and is delivered again is
        in the log already. Forks that have taken it over are other sessions. Until the database is vacuumed, the bytes may
        still be in its file: see :meth:`vacuum`.

        A cancelled call has redacted all of the events, or none.

        Args:
            app_name: The app it belongs to.
            user_id: The user it belongs to.
            session_id: Its id, stripped of white space around it.
            event_ids: Which events; if several have the same id, all of them.
            replacement: What stands in the place of what was said: a text, or a Content without function calls and responses.
                A text is also the ``result`` of each function response. None: nothing.

        Returns:
            How many events were redacted.

        Raises:
            SessionNotFoundError: If there is no such session.
            EventNotFoundError: If it has no event of one of these ids.
            CorruptRowError: If an event does not hold JSON objects.
            InvalidInputError: If an id cannot be one, or ``replacement`` cannot stand there.
        """
        key = check_key(app_name, user_id, stripped(session_id))
        if isinstance(event_ids, str):
            raise InvalidInputError("event_ids must be a collection of ids, not one")
        ids = tuple(dict.fromkeys(check_text("event id", event_id) for event_id in event_ids))
        time = platform_time.get_time()
        plan = functools.partial(
            plan_redaction, key=key, event_ids=ids, replacement=Replacement(replacement), time=time
        )
        while True:
            command = await self._engine.read_together(plan)
            if not command.events:
                return 0
            outcome: Outcome = await self._engine.write(command)
            if outcome.status is Status.DONE:
                break
            # It was deleted, or edited, since it was read.
        logger.info(
            "events_redacted",
            app_name=app_name,
            session_id=key.session_id,
            events=len(command.events),
            event_ids=ids,
        )
        return len(command.events)


def plan_truncation(
    reader: Reader, key: SessionKey, after_event_id: str | None, *, time: float, force: bool
) -> TruncateSession:
    """Reads what has to be known of a session, and returns what cuts it off; see :meth:`Edits.truncate_session`.

    If ``last_seq`` of the command is its ``seq``, there is nothing to cut off.
    """
    outline = reader.ask(GetOutline(key))
    at = At(after_event_id)
    if after_event_id is None:
        # The beginning, which of a log that was pruned is the last event that is gone.
        beginning = reader.ask(GetBeginning(key))
        at = At(seq=0 if beginning is None or beginning.cut is None else beginning.cut.seq)
    found = reader.ask(GetPast(key, at, with_events=False))
    if found is None:
        raise SessionNotFoundError(f"Session {key.session_id} not found.")
    if found.seq is None:
        raise EventNotFoundError(f"{named(key)} has no event with the id {after_event_id!r}")
    first_seq, last_seq = (outline[0].seq, outline[-1].seq) if outline else (1, 0)
    seq = first_seq - 1 if after_event_id is None else found.seq
    if not force:
        check_cut(key, outline, seq)
    state = encode_delta(past.own_state(key, found), keep_none=True).stored.session_set or "{}"
    time = past.creation_time(time)
    return TruncateSession(
        key, time, timestamp_text(time), found.head.incarnation, found.head.log_epoch, seq, last_seq, state
    )


def plan_redaction(
    reader: Reader, key: SessionKey, event_ids: tuple[str, ...], replacement: Replacement, time: float
) -> RedactEvents:
    """Reads events, and returns what redacts them; see :meth:`Edits.redact_events`."""
    found = reader.ask(FindEvents(key, event_ids))
    if found is None:
        raise SessionNotFoundError(f"Session {key.session_id} not found.")
    unknown = set(event_ids).difference(row.event_id for row in found.rows)
    if unknown:
        first = next(event_id for event_id in event_ids if event_id in unknown)
        raise EventNotFoundError(f"{named(key)} has no event with the id {first!r}; nothing was redacted")
    timestamp = timestamp_text(time)
    events = tuple(redact(row, key, replacement, timestamp) for row in found.rows)
    return RedactEvents(key, found.head.incarnation, found.head.log_epoch, events)
