"""ADK's ``Session``: made of stored records, and the revision marker that it carries."""

from __future__ import annotations

from typing import Any

from google.adk.events import Event
from google.adk.sessions import Session
from pydantic_core import from_json

from sessiondb.adk import scopes
from sessiondb.adk.pydantic_internals import model_access
from sessiondb.errors import CorruptRowError
from sessiondb.model.commands import Handle
from sessiondb.model.records import Outcome, SessionHead, SessionKey

_MARKER_KIND = "sessiondb"


def build_session(key: SessionKey, stored: SessionHead | Outcome, events: list[Event], update_time: float) -> Session:
    """Makes a Session of the revision and the state that a store returned; keys of user and app get their prefix.

    The list of events may become the Session's.

    Raises:
        CorruptRowError: If a value of the state is not JSON.
    """
    state = decode_scope(key, stored.session_state)
    if stored.app_state != "{}":
        for name, value in decode_scope(key, stored.app_state).items():
            state[scopes.APP_PREFIX + name] = value
    if stored.user_state != "{}":
        for name, value in decode_scope(key, stored.user_state).items():
            state[scopes.USER_PREFIX + name] = value
    marker = revision_marker(stored.incarnation, stored.revision)
    return model_access.new_session(key, state, events, update_time, marker)


def decode_scope(key: SessionKey, text: str) -> dict[str, Any]:
    """Decodes the state of one scope; the key names the session that an error speaks of.

    Raises:
        CorruptRowError: If the text is not JSON.
    """
    try:
        state: dict[str, Any] = from_json(text)
    except ValueError:
        raise CorruptRowError(
            f"a state_value of adk_state that session {key.session_id!r}, user {key.user_id!r}, app"
            f" {key.app_name!r} reads is not JSON; it was edited outside sessiondb"
        ) from None
    return state


def revision_marker(incarnation: int | None, revision: int) -> str:
    """Returns the marker of a Session at a revision of an incarnation."""
    return f"{_MARKER_KIND}:{incarnation}:{revision}"


def handle_of(session: Session) -> Handle:
    """Returns a handle with the revision in a Session's marker; without a marker, with the id of its last event."""
    marker = model_access.get_marker(session)
    if marker is not None:
        # A Session of another service carries a marker of another kind.
        kind, _, numbers = marker.partition(":")
        if kind == _MARKER_KIND:
            incarnation, _, revision = numbers.partition(":")
            return Handle(int(incarnation), int(revision), "")
    return Handle(None, 0, session.events[-1].id if session.events else "")
