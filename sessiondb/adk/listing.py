"""What listing calls answer: sessions, of two types at once, ADK's response and a sequence of dicts; and events."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import overload

from google.adk.events import Event
from google.adk.sessions import Session
from google.adk.sessions.base_session_service import ListSessionsResponse
from pydantic import PrivateAttr

from sessiondb.adk.events import decode_event
from sessiondb.adk.sessions import build_session
from sessiondb.model.cursors import encode_place
from sessiondb.model.queries import LogPlace, SessionPlace
from sessiondb.model.records import LogPage, SessionKey, SessionSummary

SessionRow = dict[str, str]


# The validator is built when a list is first validated or dumped: few programs do that, and each would pay at import.
class SessionList(ListSessionsResponse, Sequence[SessionRow], defer_build=True):
    """Sessions in the order of their last update, the oldest update first unless the newest was asked for.

    It is ADK's ``ListSessionsResponse``: ``sessions`` holds Session objects with merged state and without events. It
    is also a sequence of dicts, one a session, with ``app_name``, ``user_id``, ``session_id``, ``created_at`` and
    ``updated_at``; the last two are UTC ISO 8601 texts of fixed width.
    """

    _rows: list[SessionRow] = PrivateAttr(default_factory=list)
    _next: str | None = PrivateAttr(default=None)

    @property
    def next(self) -> str | None:
        """The cursor of what follows, for ``after`` of another call; None if nothing does, or no limit was given.

        It is a text to be passed on as it is, and stays valid, also for another service or process.
        """
        return self._next

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> SessionRow: ...
    @overload
    def __getitem__(self, index: slice) -> list[SessionRow]: ...
    def __getitem__(self, index: int | slice) -> SessionRow | list[SessionRow]:
        return self._rows[index]

    def __iter__(self) -> Iterator[SessionRow]:  # type: ignore[override]  # a model iterates over its fields
        return iter(self._rows)


@dataclass(frozen=True, slots=True)
class EventPage:
    """A page of a session's log.

    Attributes:
        events: The events, in the order that was asked for.
        next: The cursor of what follows in that order, for ``after`` of another call; None if nothing does by now. It is a
            text to be passed on as it is, and stays valid as long as the session is there.
    """

    events: list[Event]
    next: str | None


def page_of(key: SessionKey, page: LogPage, limit: int) -> EventPage:
    """Makes a page of at most ``limit`` events; a row beyond that tells that more follows.

    Raises:
        CorruptRowError: If a row of the page cannot be read.
    """
    rows = page.rows[:limit]
    events = [decode_event(row, key) for row in rows]
    if len(rows) == len(page.rows):
        return EventPage(events, None)
    return EventPage(events, encode_place(LogPlace(page.incarnation, rows[-1].seq, rows[-1].row_id)))


def list_of(summaries: Iterable[SessionSummary], limit: int | None = None) -> SessionList:
    """Makes a list of sessions of a store's answer, of at most ``limit``; one beyond that tells that more follow.

    Raises:
        CorruptRowError: If a value of some state is not JSON.
    """
    sessions: list[Session] = []
    rows: list[SessionRow] = []
    cursor = None
    for key, created_at, updated_at, head, _ in summaries:
        if len(sessions) == limit:
            last = sessions[-1]
            cursor = encode_place(SessionPlace(last.last_update_time, SessionKey(last.app_name, last.user_id, last.id)))
            break
        sessions.append(build_session(key, head, [], head.update_time))
        # Spelled out: key._asdict() would be a quarter of the time that a listing takes.
        rows.append(
            {
                "app_name": key.app_name,
                "user_id": key.user_id,
                "session_id": key.session_id,
                "created_at": created_at,
                "updated_at": updated_at,
            }
        )
    # The sessions come from the store: to validate thousands of them again would cost more than to read them.
    listing = SessionList.model_construct(sessions=sessions)
    listing._rows = rows  # noqa: SLF001  # of this module
    listing._next = cursor  # noqa: SLF001  # of this module
    return listing
