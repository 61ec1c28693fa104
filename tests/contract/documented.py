"""The oracle: ADK's in-memory service, plus the differences that sessiondb documents.

Each difference is one short method or one marked line; all else is the in-memory service's own doing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from google.adk.events import Event, EventActions
from google.adk.sessions import InMemorySessionService, Session
from google.adk.sessions.base_session_service import GetSessionConfig

from tests.strategies import as_stored


class Key(NamedTuple):
    """Whose session it is."""

    app_name: str
    user_id: str
    session_id: str


class StaleError(Exception):
    """The handle has been overtaken."""


class MissingError(Exception):
    """There is no such session."""


@dataclass
class Handle:
    """A live Session, and which revision of which incarnation it has seen; None if it came without a marker."""

    key: Key
    session: Session
    seen: tuple[int, int] | None


@dataclass
class _Record:
    """What sessiondb keeps of a session beside what the in-memory service does."""

    incarnation: int
    revision: int = 0
    # The revision after each event, by the event's id: events of one id are told apart by place, the last one counts.
    after: list[tuple[str, int]] = field(default_factory=list)
    created_with: dict[str, Any] = field(default_factory=dict)


class DocumentedService:
    """What a sessiondb service has to answer."""

    def __init__(self, *, keeps_none: bool) -> None:
        self.keeps_none = keeps_none
        self.memory = InMemorySessionService()
        self.records: dict[Key, _Record] = {}
        self._incarnations = 0

    async def create(self, key: Key, state: Mapping[str, Any], time: float) -> Handle:
        """Creates a session at a moment; the caller knows that there is none."""
        delta = self._storable(state)
        await self.memory.create_session(**key._asdict(), state=dict(delta))
        stored = self.memory.sessions[key.app_name][key.user_id][key.session_id]
        stored.last_update_time = time
        self._incarnations += 1
        self.records[key] = _Record(self._incarnations, created_with=delta)
        handle = await self.get(key)
        assert handle is not None
        return handle

    async def get(self, key: Key, config: GetSessionConfig | None = None) -> Handle | None:
        """Reads a session. Difference: the last N first, and of those each event by its own timestamp."""
        session = await self.memory.get_session(**key._asdict())
        if session is None:
            return None
        if config is not None and config.num_recent_events is not None:
            session.events = session.events[-config.num_recent_events :] if config.num_recent_events else []
        if config is not None and config.after_timestamp is not None:
            session.events = [event for event in session.events if event.timestamp >= config.after_timestamp]
        record = self.records[key]
        return Handle(key, session, (record.incarnation, record.revision))

    async def append(self, handle: Handle, event: Event, *, marked: bool) -> bool:
        """Appends to a conversation; says whether the log did not hold the event before.

        Differences: an overtaken handle is refused, values are stored as JSON, None deletes. A change of state from
        outside is taken from any handle that had a marker when the call began, and overtakes none.
        """
        record = self.records.get(handle.key)
        if record is None:
            raise MissingError
        event = event.model_copy(deep=True)
        temp = {key: value for key, value in event.actions.state_delta.items() if key.startswith("temp:")}
        event.actions.state_delta = self._storable(event.actions.state_delta)
        if event in self._log(handle.key):
            return False
        delta = event.actions.state_delta
        from_outside = Event(
            id=event.id,
            timestamp=event.timestamp,
            invocation_id=event.invocation_id,
            author="user",
            actions=EventActions(state_delta=delta),
        )
        if not (marked and delta and event == from_outside):
            if not self._is_current(handle, record):
                raise StaleError
            record.revision += 1
            handle.seen = (record.incarnation, record.revision)
        await self._write(handle.key, handle.session, event)
        handle.session.state.update(temp)
        return True

    async def update_keys(self, key: Key, event: Event) -> None:
        """Takes the event by which sessiondb has recorded an update. The revision stays."""
        session = await self.memory.get_session(**key._asdict())
        assert session is not None
        await self._write(key, session, event.model_copy(deep=True))

    async def delete(self, key: Key) -> None:
        """Deletes a session, if there is one."""
        await self.memory.delete_session(**key._asdict())
        self.records.pop(key, None)

    async def listed(self, app_name: str | None, user_id: str | None) -> list[Session]:
        """Lists sessions. Difference: without an app, those of all apps, which then come last in the order."""
        apps = sorted(self.memory.sessions) if app_name is None else [app_name]
        found: list[Session] = []
        for app in apps:
            found += (await self.memory.list_sessions(app_name=app, user_id=user_id)).sessions
        return sorted(
            found, key=lambda session: (session.last_update_time, session.user_id, session.id, session.app_name)
        )

    async def _write(self, key: Key, session: Session, event: Event) -> None:
        record = self.records[key]
        record.after.append((event.id, record.revision))
        delta = event.actions.state_delta
        await self.memory.append_event(session, event)
        if self.keeps_none:
            return
        self._delete_nones(key, delta, self.memory.sessions[key.app_name][key.user_id][key.session_id])
        for name in [name for name, value in delta.items() if value is None]:
            session.state.pop(name, None)

    def _is_current(self, handle: Handle, record: _Record) -> bool:
        if handle.seen is not None:
            return handle.seen == (record.incarnation, record.revision)
        if not handle.session.events:
            return record.revision == 0
        # Without a marker, the last event it holds says what it has seen.
        return (handle.session.events[-1].id, record.revision) in record.after

    def _log(self, key: Key) -> list[Event]:
        return self.memory.sessions[key.app_name][key.user_id][key.session_id].events

    def _storable(self, delta: Mapping[str, Any]) -> dict[str, Any]:
        return {key: as_stored(value) for key, value in delta.items() if not key.startswith("temp:")}

    def _delete_nones(self, key: Key, delta: Mapping[str, Any], stored: Session) -> None:
        for name in [name for name, value in delta.items() if value is None]:
            if name.startswith("app:"):
                self.memory.app_state[key.app_name].pop(name.removeprefix("app:"), None)
            elif name.startswith("user:"):
                self.memory.user_state[key.app_name][key.user_id].pop(name.removeprefix("user:"), None)
            else:
                stored.state.pop(name, None)
