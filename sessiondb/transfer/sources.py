"""Where whole sessions come from, and are compared with: read in the same way wherever that is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from typing import Any, NamedTuple, Protocol, TypeAlias

from google.adk.events import Event
from google.adk.sessions import InMemorySessionService
from typing_extensions import override

from sessiondb.adk.events import decode_event
from sessiondb.calls.lines import decode_values
from sessiondb.engine.store import Reader
from sessiondb.model.queries import ListEvents, ListSessions, ListState
from sessiondb.model.records import Selection, SessionKey
from sessiondb.transfer.jsonl import states_by_owner


class SourceSession(NamedTuple):
    """A session, without its events."""

    key: SessionKey
    create_time: float
    update_time: float
    state: dict[str, Any] | None
    """None if it is not a JSON object."""


ScopeState: TypeAlias = tuple[str, str | None, dict[str, Any] | None]
"""An app, a user or None, and the state of that user, or of the app; None if that is not a JSON object."""


class Source(Protocol):
    """A place that holds sessions.

    Sessions come in the order of their keys; states too, those of apps first.
    """

    def snapshot(self) -> AbstractContextManager[None]:
        """Makes all that is read within it be of one moment."""

    def sessions(self) -> Iterator[SourceSession]:
        """Reads all sessions."""

    def events(self, key: SessionKey) -> Iterator[Event]:
        """Reads the events of a session, in the order of its log.

        Raises:
            UnreadableError, CorruptRowError: If one cannot be read.
        """

    def scope_states(self) -> Iterator[ScopeState]:
        """Reads the state of apps and of users."""


class UnreadableError(Exception):
    """Something of a session is not what it should be; never leaves this package."""


class DatabaseSource(Source):
    """A database of sessiondb."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    @override
    def snapshot(self) -> AbstractContextManager[None]:
        return self._reader.snapshot()

    @override
    def sessions(self) -> Iterator[SourceSession]:
        for key, created_at, _, head, _ in self._reader.ask(ListSessions(order="key", with_state=False)):
            state = decode_values(self._reader.ask(ListState("SESSION", Selection(*key))))
            yield SourceSession(key, datetime.fromisoformat(created_at).timestamp(), head.update_time, state)

    @override
    def events(self, key: SessionKey) -> Iterator[Event]:
        for event in self._reader.ask(ListEvents(Selection(*key))):
            yield decode_event(event.row, key)

    @override
    def scope_states(self) -> Iterator[ScopeState]:
        for scope in ("APP", "USER"):
            yield from states_by_owner(self._reader.ask(ListState(scope)))


class MemorySource(Source):
    """ADK's in-memory service."""

    def __init__(self, service: InMemorySessionService) -> None:
        self._service = service

    @override
    def snapshot(self) -> AbstractContextManager[None]:
        return nullcontext()

    @override
    def sessions(self) -> Iterator[SourceSession]:
        for app_name, users in sorted(self._service.sessions.items()):
            for user_id, sessions in sorted(users.items()):
                for session_id, session in sorted(sessions.items()):
                    # When it was created is not kept.
                    created = min([session.last_update_time, *(event.timestamp for event in session.events[:1])])
                    key = SessionKey(app_name, user_id, session_id)
                    yield SourceSession(key, created, session.last_update_time, session.state)

    @override
    def events(self, key: SessionKey) -> Iterator[Event]:
        return iter(self._service.sessions[key.app_name][key.user_id][key.session_id].events)

    @override
    def scope_states(self) -> Iterator[ScopeState]:
        for app_name, state in sorted(self._service.app_state.items()):
            yield app_name, None, state
        for app_name, users in sorted(self._service.user_state.items()):
            for user_id, state in sorted(users.items()):
                yield app_name, user_id, state
