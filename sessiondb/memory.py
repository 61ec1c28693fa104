"""ADK's memory on top of the logs: notes what of them is remembered, and searches that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from google.adk.events import Event, EventActions
from google.adk.memory.base_memory_service import BaseMemoryService, SearchMemoryResponse
from google.adk.memory.memory_entry import MemoryEntry
from google.adk.platform import time as platform_time
from google.adk.platform import uuid as platform_uuid
from google.adk.sessions import Session
from typing_extensions import override

from sessiondb.adk.events import decode_event, timestamp_text
from sessiondb.adk.limits import check_count, check_text
from sessiondb.calls.live import check_event, check_session
from sessiondb.errors import (
    AlreadyExistsError,
    ConfigurationError,
    InvalidInputError,
    SessionNotFoundError,
    StaleSessionError,
)
from sessiondb.model.memory import EVENT_MARK, MEMORY_SESSION_ID, SESSION_MARK, words_of
from sessiondb.model.queries import SearchEvents
from sessiondb.model.records import Selection, SessionKey
from sessiondb.model.search import terms_of
from sessiondb.service import DatabaseSessionService

_GIVEN = "memory"
"""Of the custom metadata of an event in the memory's own log: what was given with it, and an event has no field for."""


class MemoryService(BaseMemoryService):
    """Remembers what the users of an app have said: ADK's memory, of what the logs of their sessions hold.

    ::

        service = DatabaseSessionService("sessions.sqlite3", index="text")
        runner = Runner(..., session_service=service, memory_service=MemoryService(service))

    Nothing is copied that a log of the service holds. That a session, or an event of it, is remembered is noted in the state
    of a session with the id ``sessiondb:memory`` of the same app and user, which is created when it is needed. Events of
    sessions that the service does not have, and entries, are events of that session. So what is remembered is deleted,
    exported and erased with the sessions of its user, and nobody else finds it.

    Every call raises :class:`~sessiondb.errors.ServiceClosedError` once the service is closed, and some other
    :class:`~sessiondb.errors.SessionDBError` when it cannot be executed. A cancelled call has remembered all that it was given,
    or nothing of it.
    """

    def __init__(
        self,
        service: DatabaseSessionService | None = None,
        *,
        uri: str | None = None,
        agents_dir: str | None = None,
        limit: int = 10,
    ) -> None:
        """Uses a service, or opens one.

        Args:
            service: Whose sessions are remembered. It is not closed by this object.
            uri: The database, as ADK's service registry passes it, in place of ``service``. A service with a text index is opened
                on it, which :meth:`close` closes.
            agents_dir: Passed by ADK's service registry; has no effect.
            limit: How many memories a search finds, at most.

        Raises:
            ConfigurationError: If neither a service nor a URI is given, or both; or if the URI cannot be used.
            InvalidInputError: If ``limit`` cannot be one.
            StorageError: If the database cannot be opened.
        """
        del agents_dir
        self._limit = check_count("limit", limit)
        if (service is None) == (uri is None):
            raise ConfigurationError("a MemoryService wants either a DatabaseSessionService or the URI of a database")
        if service is not None and not isinstance(service, DatabaseSessionService):
            raise ConfigurationError(
                f"a MemoryService remembers sessions of a DatabaseSessionService, not of a {type(service).__name__}"
            )
        self._is_owner = service is None
        self._service = DatabaseSessionService(uri=uri, index="text") if service is None else service

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the service that this object has opened on a URI; a service that was given to it stays open."""
        if self._is_owner:
            await self._service.close()

    @override
    async def add_session_to_memory(self, session: Session) -> None:
        """Remembers a session as it is: the events of its log up to the last one of ``session``, by their timestamps.

        What is appended later is remembered once the session is added again. Events of a Session that this database does not
        have are copied.

        Raises:
            InvalidInputError: If ``session`` is no Session of ADK, or one that cannot be stored; or if its id is longer than
                4,088 bytes.
        """
        check_session(session)
        place = (session.app_name, session.user_id, session.id)
        if session.events and not await self._logged(*place, {session.events[-1].id}):
            await self._add_events(*place, session.events, None)
            return
        until = max([session.last_update_time, *(event.timestamp for event in session.events)])
        await self._note(session.app_name, session.user_id, {SESSION_MARK + session.id: timestamp_text(until)})

    @override
    async def add_events_to_memory(
        self,
        *,
        app_name: str,
        user_id: str,
        events: Sequence[Event],
        session_id: str | None = None,
        custom_metadata: Mapping[str, object] | None = None,
    ) -> None:
        """Remembers events.

        Of those that the log of the session holds it is noted that they are remembered. Others are copied: their id, author,
        timestamp, invocation and content. A copy that is equal to one that is there changes nothing.

        Args:
            app_name: The app they belong to.
            user_id: The user they belong to.
            events: The events. Those without content are passed over.
            session_id: The session they are from, if they are from one.
            custom_metadata: Given back with copies, as ``custom_metadata`` of the entry.

        Raises:
            InvalidInputError: If an argument cannot be stored. Nothing was.
        """
        await self._add_events(app_name, user_id, session_id, events, custom_metadata)

    @override
    async def add_memory(
        self,
        *,
        app_name: str,
        user_id: str,
        memories: Sequence[MemoryEntry],
        custom_metadata: Mapping[str, object] | None = None,
    ) -> None:
        """Remembers what is in no session.

        An entry that has an id and a timestamp is stored once, however often it is added.

        Args:
            app_name: The app it belongs to.
            user_id: The user it belongs to.
            memories: The entries. They come back as they are; those without id get one.
            custom_metadata: Given back with each of them, beside its own.

        Raises:
            InvalidInputError: If an argument cannot be stored. Nothing was.
        """
        copies = []
        for entry in memories:
            if not isinstance(entry, MemoryEntry):
                raise InvalidInputError(f"a memory must be a MemoryEntry of ADK, not {type(entry).__name__}")
            given = {
                "author": entry.author,
                "timestamp": entry.timestamp,
                "custom_metadata": {**(custom_metadata or {}), **entry.custom_metadata},
            }
            copies.append(
                Event(
                    id=entry.id or platform_uuid.new_uuid(),
                    invocation_id=_GIVEN,
                    author=entry.author or _GIVEN,
                    timestamp=_seconds(entry.timestamp),
                    content=entry.content,
                    custom_metadata={_GIVEN: given},
                )
            )
        await self._remember(app_name, user_id, copies, copies)

    @override
    async def search_memory(self, *, app_name: str, user_id: str, query: str) -> SearchMemoryResponse:
        """Finds what a user has remembered that holds any of the words of a query; what fits best comes first.

        Args:
            app_name: The app.
            user_id: The user.
            query: A question, or words. Nothing in it is taken for an operator. Of a longer one the first 10,000 characters count.

        Returns:
            At most ``limit`` entries. Of what is in a log, ``id`` is the event's id, ``timestamp`` its moment as ISO 8601 in UTC,
            and ``custom_metadata`` has the ``session_id``. An event that a fork has taken over is found once.

        Raises:
            InvalidInputError: If an argument cannot be one.
        """
        if not isinstance(query, str):
            raise InvalidInputError(f"query must be a string, not {type(query).__name__}")
        selection = Selection(check_text("app_name", app_name), check_text("user_id", user_id))
        terms = terms_of(words_of(query), "any")
        asked = SearchEvents(selection, terms, "any", self._limit, with_rows=True, remembered=True)
        found, _ = await self._service._found(asked)  # noqa: SLF001  # as search, with the events
        entries: dict[str, MemoryEntry] = {}
        for hit, row in found:
            assert row is not None  # noqa: S101  # it was asked for
            event = decode_event(row, SessionKey(app_name, user_id, hit.session_id))
            entries.setdefault(event.id, _entry(event, hit.session_id))
        return SearchMemoryResponse(memories=list(entries.values()))

    @override
    async def delete_memory(self, *, app_name: str, user_id: str, memory_id: str | None = None) -> None:
        """Forgets one memory: it is not found any more, also when its session is added again.

        The event stays in its log. ``redact_events`` takes its content away.

        Args:
            app_name: The app.
            user_id: The user.
            memory_id: The ``id`` that :meth:`search_memory` gave. Nothing is done without one.

        Raises:
            InvalidInputError: If an argument cannot be one.
        """
        if memory_id:
            await self._note(app_name, user_id, {EVENT_MARK + memory_id: False})

    async def _add_events(
        self,
        app_name: str,
        user_id: str,
        session_id: str | None,
        events: Sequence[Event],
        custom_metadata: Mapping[str, object] | None,
    ) -> None:
        for event in events:
            check_event(event)
        events = [event for event in events if event.content and event.content.parts]
        logged: set[str] = set()
        if session_id is not None and events:
            logged = await self._logged(app_name, user_id, session_id, {event.id for event in events})
        given: dict[str, Any] = {"custom_metadata": dict(custom_metadata or {})}
        if session_id is not None:
            given["custom_metadata"]["session_id"] = session_id
        copies = [
            Event(
                id=event.id,
                invocation_id=event.invocation_id,
                author=event.author,
                timestamp=event.timestamp,
                content=event.content,
                custom_metadata={_GIVEN: given},
            )
            for event in events
            if event.id not in logged
        ]
        await self._remember(app_name, user_id, events, copies)

    async def _logged(self, app_name: str, user_id: str, session_id: str, ids: set[str]) -> set[str]:
        """Returns which of these events the log of a session holds."""
        # They are the latest ones in all likelihood, so the log is read from its end.
        found: set[str] = set()
        limit, after = 2 * len(ids) + 8, None
        try:
            while True:
                page = await self._service.get_events(
                    app_name, user_id, session_id, limit=limit, newest_first=True, after=after
                )
                found |= ids & {event.id for event in page.events}
                limit, after = min(4 * limit, 1_000), page.next
                if after is None or len(found) == len(ids):
                    return found
        except SessionNotFoundError:
            # It is of another database.
            return set()

    async def _remember(self, app_name: str, user_id: str, events: Sequence[Event], copies: Sequence[Event]) -> None:
        """Notes that events are remembered, and appends those of them that are copies to the memory's log, all at once."""
        if not events:
            return
        marks = {EVENT_MARK + event.id: True for event in events}
        if not copies:
            await self._note(app_name, user_id, marks)
            return
        # As a change of state from outside is recorded.
        note = Event(author="user", invocation_id=_GIVEN, actions=EventActions(state_delta=marks))
        while True:
            session = Session(app_name=app_name, user_id=user_id, id=MEMORY_SESSION_ID)
            try:
                page = await self._service.get_events(app_name, user_id, MEMORY_SESSION_ID, limit=1, newest_first=True)
                # By its last event it is known how much of the log the Session has seen.
                session.events = page.events
            except SessionNotFoundError:
                await self._create(app_name, user_id)
            # Where another one was first meanwhile, somebody gets on each time.
            with suppress(StaleSessionError):
                await self._service.append_events(session, [*copies, note])
                return

    async def _note(self, app_name: str, user_id: str, marks: Mapping[str, str | bool]) -> None:
        try:
            await self._service.update_keys(app_name, user_id, MEMORY_SESSION_ID, marks)
        except SessionNotFoundError:
            await self._create(app_name, user_id)
            await self._service.update_keys(app_name, user_id, MEMORY_SESSION_ID, marks)

    async def _create(self, app_name: str, user_id: str) -> None:
        # Another one may be first.
        with suppress(AlreadyExistsError):
            await self._service.create_session(app_name, user_id, MEMORY_SESSION_ID)


def _entry(event: Event, session_id: str) -> MemoryEntry:
    assert event.content is not None  # noqa: S101  # it was found by its text
    entry = MemoryEntry(
        content=event.content,
        id=event.id,
        author=event.author,
        timestamp=datetime.fromtimestamp(event.timestamp, UTC).isoformat(),
        custom_metadata={"session_id": session_id},
    )
    given = (event.custom_metadata or {}).get(_GIVEN) if session_id == MEMORY_SESSION_ID else None
    return entry if given is None else entry.model_copy(update=given)


def _seconds(timestamp: str | None) -> float:
    """Returns the moment that an entry names; now, if it names none."""
    try:
        return datetime.fromisoformat(timestamp or "").timestamp()
    except (ValueError, OverflowError, OSError):
        return platform_time.get_time()
