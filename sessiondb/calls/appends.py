"""Appending more than one event at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

import anyio.lowlevel
from google.adk.events import Event
from google.adk.sessions import Session

from sessiondb import telemetry
from sessiondb.adk.events import EncodedEvent, is_aside
from sessiondb.adk.limits import check_key
from sessiondb.adk.sessions import handle_of
from sessiondb.adk.state import EncodedDelta, checked_state, encode_delta
from sessiondb.calls.base import Calls
from sessiondb.calls.live import apply_event, check_appended, check_event, check_present, check_session, note_revision
from sessiondb.engine.queue import WriteTicket
from sessiondb.model.commands import AppendEvent, AppendEvents, UpdateKeys
from sessiondb.model.event_identity import is_same_event
from sessiondb.model.records import EventRecord, Outcome, StateDelta, Status

_ENCODED_AT_ONCE = 100
"""Events that are encoded until others on the event loop have their turn: a millisecond or a few."""


class _Encoded(NamedTuple):
    event: Event
    delta: EncodedDelta
    encoded: EncodedEvent
    record: EventRecord
    """What is stored of it."""
    changes: StateDelta


class Appends(Calls):
    """Calls that append."""

    @telemetry.operation
    async def append_events(self, session: Session, events: Iterable[Event]) -> list[Event]:
        """Appends several events to a conversation, as one command: all of them are stored, or none.

        What :meth:`~sessiondb.DatabaseSessionService.append_event` does with one event is done with each, in their order: state
        deltas, ``temp:`` keys, events that are in the log already or twice in ``events``, partial events. ``session`` is
        compared with the log once, for all of them. A thousand events take a small part of the time of a thousand appends.

        A cancelled call leaves nothing open: either nothing was written and ``session`` is as before, or all events are on
        disk and in ``session``.

        Args:
            session: The session, as :meth:`~sessiondb.DatabaseSessionService.get_session` returned it.
            events: The events, read once.

        Returns:
            The same events, in a list.

        Raises:
            SessionNotFoundError: If the session does not exist.
            StaleSessionError: If another handle has appended since ``session`` was read: read it again.
            InvalidInputError: If one of the events cannot be stored. None was.
        """
        check_session(session)
        given = list(events)
        for event in given:
            check_event(event)
        key = check_key(session.app_name, session.user_id, session.id)
        check_present(session)
        new = await self._encode_all(given)
        if not new:
            return given

        engine = self._engine
        in_flight = engine.handles.take(session, handle_of)
        handle = None if self._options.on_stale == "append" else in_flight.handle
        # A Session without a marker is known by its last event, which one of these is going to be.
        has_marker = handle_of(session).incarnation is not None
        parts: list[AppendEvent | UpdateKeys] = []
        for event, delta, encoded, record, changes in new:
            if has_marker and is_aside(event, encoded.record, delta):
                parts.append(UpdateKeys(key, record, changes))
            else:
                parts.append(AppendEvent(key, record, changes, handle))
        advances = any(type(part) is AppendEvent for part in parts)
        command = AppendEvents(key, tuple(parts), handle if advances else None)

        def update_session(ticket: WriteTicket) -> None:
            outcome: Outcome | None = ticket.outcome
            if outcome is None or outcome.status is not Status.DONE:
                return
            for n, (event, delta, encoded, *_) in enumerate(new):
                if n not in outcome.duplicates:
                    apply_event(session, event, encoded, delta)
            if any(type(part) is AppendEvent for part in command.without(outcome.duplicates).parts):
                note_revision(session, handle, outcome)

        try:
            outcome: Outcome = await engine.write(command, update_session, in_flight)
        finally:
            engine.handles.give_back(session)
        check_appended(session, outcome.status)
        return given

    async def _encode_all(self, events: list[Event]) -> list[_Encoded]:
        """Encodes the events that are to be stored: partial ones are not, nor one that equals one before it."""
        new: list[_Encoded] = []
        by_id: defaultdict[str, list[EventRecord]] = defaultdict(list)
        for n, event in enumerate(events, 1):
            if n % _ENCODED_AT_ONCE == 0:
                await anyio.lowlevel.checkpoint()
            if event.partial:
                continue
            delta = encode_delta(checked_state(event.actions.state_delta), keep_none=self._keeps_none)
            encoded, record, changes = self._encode(event, delta)
            same_id = by_id[record.event_id]
            if not any(is_same_event(one, record) for one in same_id):
                same_id.append(record)
                new.append(_Encoded(event, delta, encoded, record, changes))
        return new
