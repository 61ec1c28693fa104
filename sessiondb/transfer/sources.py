"""Where whole sessions come from, and are compared with: read in the same way wherever that is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from itertools import groupby
from typing import Any, NamedTuple, Protocol, TypeAlias

from google.adk.events import Event
from google.adk.sessions import InMemorySessionService
from pydantic import ValidationError
from typing_extensions import override

from sessiondb.adk.events import decode_event, event_as_dict
from sessiondb.adk.fast_decode import event_validator
from sessiondb.engine.store import Reader
from sessiondb.model.queries import ListEvents, ListSessions, ListState
from sessiondb.model.records import Selection, SessionKey
from sessiondb.transfer.adk_files import AdkEvent, AdkFile, Layout
from sessiondb.transfer.jsonl import decode_values


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


class AdkSource(Source):
    """A file of one of ADK's services."""

    def __init__(self, file: AdkFile) -> None:
        self._file = file

    @override
    def snapshot(self) -> AbstractContextManager[None]:
        return self._file.snapshot()

    @override
    def sessions(self) -> Iterator[SourceSession]:
        for key, create_time, update_time, state in self._file.sessions():
            yield SourceSession(key, create_time, update_time, _object(state))

    @override
    def events(self, key: SessionKey) -> Iterator[Event]:
        for row in self._file.events(key):
            try:
                yield self._event(row)
            except (ValidationError, ValueError, TypeError) as error:
                raise UnreadableError(
                    f"event {row.event_id!r} cannot be read as an event ({type(error).__name__})"
                ) from None

    @override
    def scope_states(self) -> Iterator[ScopeState]:
        for app_name, user_id, state in self._file.scope_states():
            yield app_name, user_id, _object(state)

    def _event(self, row: AdkEvent) -> Event:
        if self._file.layout is Layout.SQLITE:
            return event_validator()(row.data or "")
        # As ADK's service puts it together: some columns count for more than the JSON.
        fields = json.loads(row.data or "{}")
        time = fields.get("timestamp", row.time)
        return Event.model_validate(
            {**fields, "id": row.event_id, "invocation_id": row.invocation_id, "timestamp": time}
        )


class DatabaseSource(Source):
    """A database of sessiondb."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    @override
    def snapshot(self) -> AbstractContextManager[None]:
        return self._reader.snapshot()

    @override
    def sessions(self) -> Iterator[SourceSession]:
        for key, created_at, _, head in self._reader.ask(ListSessions(order="key", with_state=False)):
            state = decode_values(self._reader.ask(ListState("SESSION", Selection(*key))))
            yield SourceSession(key, datetime.fromisoformat(created_at).timestamp(), head.update_time, state)

    @override
    def events(self, key: SessionKey) -> Iterator[Event]:
        for event in self._reader.ask(ListEvents(Selection(*key))):
            yield decode_event(event.row, key)

    def adk_events(self, key: SessionKey) -> Iterator[AdkEvent]:
        """The events as ADK's service keeps them; our JSON is ADK's, and holds what ADK itself leaves out of its own."""
        for _, _, row in self._reader.ask(ListEvents(Selection(*key))):
            yield AdkEvent(row.event_id, row.invocation_id, row.time, json.dumps(event_as_dict(row, key)))

    @override
    def scope_states(self) -> Iterator[ScopeState]:
        for scope in ("APP", "USER"):
            for (app_name, user_id), keys in groupby(self._reader.ask(ListState(scope)), lambda row: row[:2]):
                yield app_name, user_id, decode_values(keys)


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


def _object(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (TypeError, ValueError):
        return None
    return value if isinstance(value, dict) else None
