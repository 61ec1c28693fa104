"""Live Sessions of callers, while something is appended through them."""

from __future__ import annotations

from google.adk.events import Event
from google.adk.sessions import Session

from sessiondb.adk.events import EncodedEvent, show_as_read
from sessiondb.adk.past import PAST_MARKER
from sessiondb.adk.sessions import model_access, revision_marker
from sessiondb.adk.state import EncodedDelta
from sessiondb.errors import InvalidInputError, SessionNotFoundError, StaleSessionError
from sessiondb.logger import logger
from sessiondb.model.commands import Handle
from sessiondb.model.records import Outcome, Status


def check_session(session: object) -> None:
    """Raises InvalidInputError if it is no Session of ADK."""
    if not isinstance(session, Session):
        raise InvalidInputError(f"session must be an ADK Session, not {type(session).__name__}")


def check_event(event: object) -> None:
    """Raises InvalidInputError if it is no Event of ADK."""
    if not isinstance(event, Event):
        raise InvalidInputError(f"event must be an ADK Event, not {type(event).__name__}")


def check_present(session: Session) -> None:
    """Raises StaleSessionError if a Session shows a moment of the past."""
    if model_access.get_marker(session) == PAST_MARKER:
        raise StaleSessionError(
            f"Session {session.id} shows a moment of the past: nothing can be appended through it. Read it with"
            " get_session, or fork it from there"
        )


def apply_event(session: Session, event: Event, encoded: EncodedEvent, delta: EncodedDelta) -> None:
    """Brings a live Session, and the event, in line with what was stored."""
    if encoded.as_read is not None:
        show_as_read(event, encoded.as_read)
    if event.actions.state_delta:
        model_access.set_field(event.actions, "state_delta", delta.event_delta)
        session.state.update(delta.temp)
        for name, value in delta.event_delta.items():
            if value is None and name not in delta.kept_nones:
                session.state.pop(name, None)
            else:
                session.state[name] = value
    model_access.append_event(session, event)
    model_access.set_field(session, "last_update_time", event.timestamp)


def note_revision(session: Session, handle: Handle | None, outcome: Outcome) -> None:
    """Notes in a live Session what it knows of the log after an append through its handle, which has the given outcome."""
    # A handle knows of all that was committed through it, also of answers that are still on their way.
    known = outcome if handle is None or handle.incarnation is None else handle
    model_access.set_marker(session, revision_marker(known.incarnation, known.revision))


def check_appended(session: Session, status: Status) -> None:
    """Raises what an append came to.

    Raises:
        SessionNotFoundError: If the session does not exist.
        StaleSessionError: If another handle has appended.
    """
    if status is Status.MISSING:
        raise SessionNotFoundError(f"Session {session.id} not found.")
    if status is Status.STALE:
        logger.info("stale_append_rejected", app_name=session.app_name, session_id=session.id)
        raise StaleSessionError(
            f"Session {session.id} has been modified in storage since it was loaded: another handle has appended"
            " to it, which is a Session object of another read. Read it again with get_session and append to that."
        )
