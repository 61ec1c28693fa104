"""Lists of sessions and logs, page by page."""

from __future__ import annotations

import functools
import json
from collections.abc import AsyncIterator, Collection, Mapping
from typing import Any

from google.adk.events import Event
from google.adk.sessions import Session

from sessiondb import telemetry
from sessiondb.adk.limits import check_count, check_key, check_moment, check_text
from sessiondb.adk.listing import EventPage, SessionList, list_of, page_of
from sessiondb.adk.state import checked_state, encode_delta
from sessiondb.calls.base import Calls, stripped
from sessiondb.errors import InvalidInputError, SessionNotFoundError
from sessiondb.model.cursors import decode_log_place, decode_session_place
from sessiondb.model.queries import GetLogPage, ListSessions, LogPlace
from sessiondb.model.records import LogPage, Selection


class Pages(Calls):
    """Calls that list."""

    @telemetry.operation
    async def list_sessions(
        self,
        app_name: str | None = None,
        user_id: str | None = None,
        *,
        limit: int | None = None,
        after: str | None = None,
        newest_first: bool = False,
        updated_after: float | None = None,
        updated_before: float | None = None,
        state: Mapping[str, Any] | None = None,
        with_state: bool = True,
    ) -> SessionList:
        """Lists sessions, the one updated last at the end; all of them, or a page.

        Pages are stable: a session that is not written to between the first page and the last is on exactly one of them,
        whatever is created, written or deleted meanwhile. One that is written to moves to the end of the list, where it may
        be listed again; with ``newest_first`` it moves to the begin, and may be missing on the pages to come.

        Args:
            app_name: Only this app's; None: all apps.
            user_id: Only this user's (``""`` is a user too); None: all users.
            limit: At most so many, from 1; None: all.
            after: Where to go on: what ``next`` of the page before was, for a call with the same other arguments.
            newest_first: Whether the session updated last comes first.
            updated_after: Only sessions whose ``last_update_time`` is at or after this moment, in seconds since 1970.
            updated_before: Only those whose ``last_update_time`` is before this moment.
            state: Only sessions whose own state holds these values under these keys, as they are stored: ``1`` is not
                ``1.0``, and members of an object have their order. Keys have no prefix.
            with_state: Whether the sessions have their state; without, it is ``{}``, and not read.

        Returns:
            ADK's response, which is also a sequence of dicts, and knows the cursor of what follows: see
            :class:`~sessiondb.SessionList`.

        Raises:
            InvalidInputError: If an argument cannot be one; a cursor that this call has not made, among others.
        """
        selection = Selection(
            None if app_name is None else check_text("app_name", app_name),
            None if user_id is None else check_text("user_id", user_id),
        )
        query = ListSessions(
            selection,
            "newest" if newest_first else "oldest",
            updated_before=check_moment("updated_before", updated_before),
            # One more tells whether there is another page.
            limit=None if limit is None else check_count("limit", limit) + 1,
            with_state=with_state,
            updated_since=check_moment("updated_after", updated_after),
            after=decode_session_place(after),
            state=_state_filter(state),
        )
        return await self._engine.read(query, functools.partial(list_of, limit=limit))

    async def iter_sessions(
        self,
        app_name: str | None = None,
        user_id: str | None = None,
        *,
        after: str | None = None,
        newest_first: bool = False,
        updated_after: float | None = None,
        updated_before: float | None = None,
        state: Mapping[str, Any] | None = None,
        with_state: bool = True,
        page_size: int = 100,
    ) -> AsyncIterator[Session]:
        """Iterates over sessions as :meth:`list_sessions` lists them, however many there are.

        Pages of ``page_size`` sessions are read as they are needed; between two of them nothing is held, neither a
        connection nor a transaction, so a loop may take its time, or end early.

        Raises:
            InvalidInputError: As :meth:`list_sessions`; when the first session is asked for.
        """
        check_count("page_size", page_size)
        while True:
            page = await self.list_sessions(
                app_name,
                user_id,
                limit=page_size,
                after=after,
                newest_first=newest_first,
                updated_after=updated_after,
                updated_before=updated_before,
                state=state,
                with_state=with_state,
            )
            for session in page.sessions:
                yield session
            after = page.next
            if after is None:
                return

    @telemetry.operation
    async def get_events(
        self,
        app_name: str,
        user_id: str,
        session_id: str,
        *,
        limit: int = 100,
        after: str | None = None,
        before: str | None = None,
        newest_first: bool = False,
        authors: Collection[str] | None = None,
    ) -> EventPage:
        """Reads a page of a session's log, in the order in which the events were appended.

        A page takes the time of what it holds, wherever in the log it is; what authors others than the wanted ones have
        written is passed over. Events that are appended meanwhile come at the end of the log.

        Args:
            app_name: The app it belongs to.
            user_id: The user it belongs to.
            session_id: Its id, stripped of white space around it.
            limit: At most so many events, from 1.
            after: Where to go on: what ``next`` of the page before was. In whichever order: only what follows it there.
            before: Where to stop: only what comes before this cursor in the order of the page.
            newest_first: Whether the page begins with the event appended last, and goes back.
            authors: Only events of these authors; None: all.

        Returns:
            The page. Its events are the caller's own.

        Raises:
            SessionNotFoundError: If the session does not exist.
            CorruptRowError: If an event of the page cannot be read.
            InvalidInputError: If an argument cannot be one; a cursor of another session, among others, or of one that was
                deleted and created anew.
        """
        key = check_key(app_name, user_id, stripped(session_id))
        query = GetLogPage(
            key,
            check_count("limit", limit) + 1,
            decode_log_place("after", after),
            decode_log_place("before", before),
            newest_first,
            _checked_authors(authors),
        )

        def page(found: LogPage | None) -> EventPage:
            if found is None:
                raise SessionNotFoundError(f"Session {key.session_id} not found.")
            for name, place in (("after", query.after), ("before", query.before)):
                _check_incarnation(name, place, found)
            return page_of(key, found, limit)

        return await self._engine.read(query, page)

    async def iter_events(
        self,
        app_name: str,
        user_id: str,
        session_id: str,
        *,
        after: str | None = None,
        before: str | None = None,
        newest_first: bool = False,
        authors: Collection[str] | None = None,
        page_size: int = 100,
    ) -> AsyncIterator[Event]:
        """Iterates over a session's log as :meth:`get_events` reads it, however long it is.

        Pages of ``page_size`` events are read as they are needed; between two of them nothing is held, neither a connection
        nor a transaction. Events that are appended before the last page is read are iterated over too.

        Raises:
            SessionNotFoundError: If the session does not exist, or not any more.
            CorruptRowError: If an event cannot be read.
            InvalidInputError: As :meth:`get_events`; when the first event is asked for.
        """
        check_count("page_size", page_size)
        while True:
            page = await self.get_events(
                app_name,
                user_id,
                session_id,
                limit=page_size,
                after=after,
                before=before,
                newest_first=newest_first,
                authors=authors,
            )
            for event in page.events:
                yield event
            after = page.next
            if after is None:
                return


def _state_filter(state: Mapping[str, Any] | None) -> tuple[tuple[str, str], ...]:
    """Returns the keys that a session's own state must hold, and their JSON as it is stored."""
    stored = encode_delta(checked_state(state), keep_none=True)
    if stored.temp or stored.stored.user_set is not None or stored.stored.app_set is not None:
        raise InvalidInputError(
            "state must hold keys of the session's own state: what has the prefix app:, user: or temp: is not its own"
        )
    return tuple(json.loads(stored.stored.session_set or "{}").items())


def _checked_authors(authors: Collection[str] | None) -> tuple[str, ...] | None:
    if authors is None:
        return None
    if isinstance(authors, str) or not isinstance(authors, Collection):
        raise InvalidInputError(f"authors must be a collection of names, not {type(authors).__name__}")
    return tuple(check_text("author", author) for author in authors)


def _check_incarnation(name: str, place: LogPlace | None, found: LogPage) -> None:
    if place is not None and place.incarnation != found.incarnation:
        raise InvalidInputError(
            f"{name} is a cursor of another session, or of one of this id that was deleted and created anew"
        )
