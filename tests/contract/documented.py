"""The oracle: ADK's in-memory service, plus the differences that sessiondb documents.

Each difference is one short method or one marked line; all else is the in-memory service's own doing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from google.adk.events import Event, EventActions
from google.adk.sessions import BaseSessionService, InMemorySessionService, Session
from google.adk.sessions.base_session_service import GetSessionConfig

from tests.strategies import as_stored

Hook: TypeAlias = Callable[[Event], Event | None]
"""What a service is given as ``before_store``."""


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
class Record:
    """What sessiondb keeps of a session beside what the in-memory service does."""

    incarnation: int
    revision: int = 0
    # The revision after each event, by the event's id: events of one id are told apart by place, the last one counts.
    after: list[tuple[str, int]] = field(default_factory=list)
    created_with: dict[str, Any] = field(default_factory=dict)
    """With what its log begins, if it was cut."""
    revision_before: int = 0
    """Of the first event of its log."""


def is_same(stored: Event, given: Event) -> bool:
    """Whether an event is in the log already; of one that is redacted only its place is left to tell."""
    if "sessiondb:redacted_at" in (stored.custom_metadata or {}):
        return all(
            getattr(stored, name) == getattr(given, name) for name in ("id", "invocation_id", "author", "timestamp")
        )
    return stored == given


class Prepared(NamedTuple):
    """An event to be appended."""

    shown: Event
    """As the one who appends it has it then."""
    stored: Event
    """As it is stored."""
    temp: dict[str, Any]
    from_outside: bool
    """Whether it is a change of state from outside."""


class DocumentedService:
    """What a sessiondb service has to answer."""

    def __init__(self, *, keeps_none: bool, hook: Hook | None = None) -> None:
        self.keeps_none = keeps_none
        self.hook = hook
        self.memory = InMemorySessionService()
        self.records: dict[Key, Record] = {}
        self._incarnations = 0

    async def create(self, key: Key, state: Mapping[str, Any], time: float) -> Handle:
        """Creates a session at a moment; the caller knows that there is none."""
        delta = self._storable(state)
        await self.memory.create_session(**key._asdict(), state=dict(delta))
        stored = self.memory.sessions[key.app_name][key.user_id][key.session_id]
        stored.last_update_time = time
        self._incarnations += 1
        self.records[key] = Record(self._incarnations, created_with=delta)
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

    async def append(self, handle: Handle, event: Event, *, marked: bool) -> None:
        """Appends to a conversation.

        Differences: an overtaken handle is refused, values are stored as JSON, None deletes. A change of state from
        outside is taken from any handle that had a marker when the call began, and overtakes none.
        """
        await self.append_all(handle, [event], marked=marked)

    async def append_all(self, handle: Handle, events: Sequence[Event], *, marked: bool) -> None:
        """Appends several events, none of them partial, or none of them."""
        record = self.records.get(handle.key)
        if record is None:
            raise MissingError
        new: list[Prepared] = []
        for prepared in map(self._prepared, events):
            known = [*self.log(handle.key), *(one.stored for one in new)]
            if not any(is_same(one, prepared.stored) for one in known):
                new.append(prepared)
        if not all(marked and one.from_outside for one in new) and not self._is_current(handle, record):
            raise StaleError
        for one in new:
            if not (marked and one.from_outside):
                record.revision += 1
                handle.seen = (record.incarnation, record.revision)
            await self._write(handle.key, handle.session, one)
            handle.session.state.update(one.temp)

    def _prepared(self, event: Event) -> Prepared:
        shown = event.model_copy(deep=True)
        temp = {key: value for key, value in shown.actions.state_delta.items() if key.startswith("temp:")}
        shown.actions.state_delta = delta = self._storable(shown.actions.state_delta)
        place = Event(id=event.id, timestamp=event.timestamp, invocation_id=event.invocation_id, author=event.author)
        stored = shown.model_copy(deep=True)
        if self.hook is not None:
            stored = self.hook(stored) or place
        outside = place.model_copy(update={"author": "user", "actions": EventActions(state_delta=delta)})
        return Prepared(shown, stored, temp, from_outside=bool(delta) and shown == outside)

    async def update_keys(self, key: Key, event: Event) -> None:
        """Takes the event by which sessiondb has recorded an update. The revision stays."""
        session = await self.memory.get_session(**key._asdict())
        assert session is not None
        recorded = event.model_copy(deep=True)
        await self._write(key, session, Prepared(recorded, recorded, {}, from_outside=True))

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

    async def _write(self, key: Key, session: Session, event: Prepared) -> None:
        record = self.records[key]
        record.after.append((event.shown.id, record.revision))
        # The one who appends keeps what was given; others read what was stored.
        await BaseSessionService.append_event(self.memory, session, event.shown)
        session.last_update_time = event.shown.timestamp
        fresh = await self.memory.get_session(**key._asdict())
        assert fresh is not None
        await self.memory.append_event(fresh, event.stored.model_copy(deep=True))
        if self.keeps_none:
            return
        self._delete_nones(
            key, event.stored.actions.state_delta, self.memory.sessions[key.app_name][key.user_id][key.session_id]
        )
        for name in [name for name, value in event.shown.actions.state_delta.items() if value is None]:
            session.state.pop(name, None)

    def _is_current(self, handle: Handle, record: Record) -> bool:
        if handle.seen is not None:
            return handle.seen == (record.incarnation, record.revision)
        if not handle.session.events:
            return record.revision == 0 or not self.log(handle.key)
        # Without a marker, the last event it holds says what it has seen.
        return (handle.session.events[-1].id, record.revision) in record.after

    def log(self, key: Key) -> list[Event]:
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
