"""The services under comparison, and what a case can say about them."""

from __future__ import annotations

from collections.abc import Awaitable
from pathlib import Path
from typing import Literal, Self, get_args

from google.adk.events import Event, EventActions
from google.adk.sessions import BaseSessionService, InMemorySessionService, Session
from google.adk.sessions.base_session_service import GetSessionConfig
from google.adk.sessions.sqlite_session_service import SqliteSessionService

from sessiondb import DatabaseSessionService

Kind = Literal["memory", "sqlite", "sessiondb", "postgres"]
"""ADK's two, and sessiondb's on a file and on a server."""
KINDS: tuple[Kind, ...] = get_args(Kind)

APP, USER, SESSION = "my_app", "user_123", "sess_abc"


class Place:
    """One service of a kind, and shorthands that keep cases readable.

    Args:
        location: The file or the database that the service keeps its sessions in, where the kind has one.
    """

    def __init__(self, kind: Kind, location: Path | str) -> None:
        self.kind = kind
        self._location = location
        self.service = self._open()

    def _open(self) -> BaseSessionService:
        if self.kind == "memory":
            return InMemorySessionService()
        if self.kind == "sqlite":
            return SqliteSessionService(str(self._location))
        return DatabaseSessionService(self._location)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._close()

    async def _close(self) -> None:
        if isinstance(self.service, DatabaseSessionService | SqliteSessionService):
            await self.service.close()

    async def reopen(self) -> None:
        """Lets everything go but what is stored, as a restart does. A service in memory stores nothing: it stays."""
        if self.kind != "memory":
            await self._close()
            self.service = self._open()

    async def create(
        self, state: dict[str, object] | None = None, *, app: str = APP, user: str = USER, name: str | None = SESSION
    ) -> Session:
        return await self.service.create_session(app_name=app, user_id=user, session_id=name, state=state)

    async def find(
        self,
        *,
        app: str = APP,
        user: str = USER,
        name: str = SESSION,
        recent: int | None = None,
        after: float | None = None,
    ) -> Session | None:
        config = None
        if recent is not None or after is not None:
            config = GetSessionConfig(num_recent_events=recent, after_timestamp=after)
        return await self.service.get_session(app_name=app, user_id=user, session_id=name, config=config)

    async def get(
        self,
        *,
        app: str = APP,
        user: str = USER,
        name: str = SESSION,
        recent: int | None = None,
        after: float | None = None,
    ) -> Session:
        session = await self.find(app=app, user=user, name=name, recent=recent, after=after)
        assert session is not None
        return session

    async def append(self, session: Session, event: Event) -> str:
        """Appends, and says how it ended."""
        return await outcome(self.service.append_event(session, event))

    async def delete(self, *, user: str = USER, name: str = SESSION) -> None:
        await self.service.delete_session(app_name=APP, user_id=user, session_id=name)

    async def user_state(self, *, app: str = APP, user: str = USER) -> dict[str, object]:
        return await self.service.get_user_state(app_name=app, user_id=user)

    async def listed(self, *, app: str = APP, user: str | None = None) -> list[Session]:
        return (await self.service.list_sessions(app_name=app, user_id=user)).sessions


def event(time: float = 1_000.0, *, event_id: str = "", author: str = "agent", **delta: object) -> Event:
    """An event at a moment; keyword arguments are its state delta, ``__`` standing for the colon of a scope."""
    return Event(
        id=event_id,
        invocation_id="inv_1",
        author=author,
        timestamp=time,
        actions=EventActions(state_delta={key.replace("__", ":"): value for key, value in delta.items()}),
    )


async def outcome(call: Awaitable[object]) -> str:
    """Says how a call ended: "ok", or the first class of its error that code written for ADK can know."""
    try:
        await call
    except Exception as error:  # noqa: BLE001  # which error it is, is the observation
        return next(kind.__name__ for kind in type(error).__mro__ if not kind.__module__.startswith("sessiondb"))
    return "ok"


def times(session: Session) -> list[float]:
    """The timestamps of a session's events, in their order."""
    return [event.timestamp for event in session.events]
