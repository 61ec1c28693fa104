"""Every call of a service that is about sessions, and of a memory on it, in one table: what is shown of one is shown of all.

A new call is one more row. :mod:`tests.contract.test_every_call` asks each about other tenants, hostile ids, ids that cannot be
any and a closed service; :mod:`tests.engine.test_cancelled_calls` cancels each.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Literal, NamedTuple

from google.adk.events import Event, EventActions
from google.adk.memory.memory_entry import MemoryEntry
from google.adk.platform import time as platform_time
from google.adk.platform import uuid as platform_uuid
from google.adk.sessions import Session
from google.genai import types
from pydantic import BaseModel

from sessiondb import DatabaseSessionService, EventPage, MemoryService, Retention, SessionList

Owner = Literal["user", "app"]


class Tenant(NamedTuple):
    """Whose sessions they are, and what their ids are made of."""

    app: str
    user: str
    session: str
    text: str = "e"

    @property
    def key(self) -> tuple[str, str, str]:
        """The ids of the first session."""
        return self.app, self.user, self.session

    @property
    def other_session(self) -> str:
        """The id of the second session."""
        return f"{self.session} 2"

    def event_id(self, number: int) -> str:
        """The id of an event of the first session, from 1."""
        return f"{self.text}{number}"

    def event(self, number: int, *, shares: bool = False) -> Event:
        """An event of the first session, from 1."""
        text = f"{self.text} said {number}"
        delta: dict[str, Any] = {self.text: number, f"user:{self.text}": number}
        if shares:
            delta[f"app:{self.text}"] = number
        return Event(
            id=self.event_id(number),
            author=self.text,
            invocation_id=self.text,
            timestamp=2_000.0 + number,
            content=types.Content(role="model", parts=[types.Part(text=text)]),
            actions=EventActions(state_delta=delta),
        )


EVENTS = 4
"""How many events the first session has."""


async def settle(service: DatabaseSessionService, tenant: Tenant, *, shares: bool = False) -> None:
    """Creates a tenant's sessions: one with events, which is remembered, an empty one, and a fork.

    Args:
        service: Where.
        tenant: Whose.
        shares: Whether state of the app is written, too.
    """
    stand_still()
    session = await service.create_session(*tenant.key, {tenant.text: 0})
    await service.append_events(session, [tenant.event(n, shares=shares) for n in range(1, EVENTS + 1)])
    await service.create_session(tenant.app, tenant.user, tenant.other_session)
    await service.fork_session(*tenant.key, at_event_id=tenant.event_id(2), new_session_id=f"{tenant.other_session} f")
    await MemoryService(service).add_session_to_memory(session)


class Row(NamedTuple):
    """A call of a tenant.

    Attributes:
        name: The method's, of the service or of a memory on it.
        make: Makes it; what it comes to is compared as :func:`plain`.
        owner: Which id keeps tenants apart: for ``app``, users of an app see what all of them have.
        writes: Whether it writes.
        in_steps: Whether it may do so step by step: a call that is cancelled has done some of it.
    """

    name: str
    make: Callable[[DatabaseSessionService, Tenant], Awaitable[object]]
    owner: Owner = "user"
    writes: bool = False
    in_steps: bool = False


async def _gathered(iterator: AsyncIterator[object]) -> list[object]:
    return [one async for one in iterator]


async def _held(service: DatabaseSessionService, tenant: Tenant) -> Session:
    """A Session to append to: as it was read, or made by hand."""
    app, user, session = tenant.key
    return await service.get_session(*tenant.key) or Session(id=session, app_name=app, user_id=user)


async def _append(service: DatabaseSessionService, tenant: Tenant) -> object:
    return await service.append_event(await _held(service, tenant), tenant.event(10))


async def _append_events(service: DatabaseSessionService, tenant: Tenant) -> object:
    return await service.append_events(await _held(service, tenant), [tenant.event(n) for n in (10, 2, 11)])


async def _count(service: DatabaseSessionService, tenant: Tenant) -> object:
    return service.get_event_count(*tenant.key)


def _fork(service: DatabaseSessionService, tenant: Tenant) -> Awaitable[object]:
    return service.fork_session(
        *tenant.key, at_event_id=tenant.event_id(3), new_session_id=f"{tenant.other_session} new"
    )


async def _prune(service: DatabaseSessionService, tenant: Tenant) -> object:
    report = await service.prune(Retention(max_sessions_per_user=1), app_name=tenant.app, user_id=tenant.user)
    return dataclasses.replace(report, seconds=0.0)


async def _search(service: DatabaseSessionService, tenant: Tenant, **only: str) -> object:
    page = await service.search("said", app_name=tenant.app, limit=3, **only)  # type: ignore[arg-type]  # ids
    # A snippet is cut to its length, and not every id is as long as the others.
    return [dataclasses.replace(hit, snippet="") for hit in page.hits], page.next is not None


async def _remember(service: DatabaseSessionService, tenant: Tenant) -> None:
    await MemoryService(service).add_session_to_memory(await _held(service, tenant))


def _remember_events(service: DatabaseSessionService, tenant: Tenant) -> Awaitable[object]:
    """One that the log holds, and one that it does not."""
    events = [tenant.event(3), tenant.event(10)]
    return MemoryService(service).add_events_to_memory(
        app_name=tenant.app, user_id=tenant.user, events=events, session_id=tenant.session
    )


def _add_memory(service: DatabaseSessionService, tenant: Tenant) -> Awaitable[object]:
    content = types.Content(role="user", parts=[types.Part(text=f"{tenant.text} said it elsewhere")])
    entry = MemoryEntry(id=tenant.event_id(11), author=tenant.text, timestamp="2024-05-06T07:08:09Z", content=content)
    return MemoryService(service).add_memory(app_name=tenant.app, user_id=tenant.user, memories=[entry])


def _forget(service: DatabaseSessionService, tenant: Tenant) -> Awaitable[object]:
    return MemoryService(service).delete_memory(app_name=tenant.app, user_id=tenant.user, memory_id=tenant.event_id(1))


def _recall(service: DatabaseSessionService, tenant: Tenant) -> Awaitable[object]:
    return MemoryService(service).search_memory(app_name=tenant.app, user_id=tenant.user, query="Who said it?")


ROWS = [
    Row(
        "create_session",
        lambda s, t: s.create_session(t.app, t.user, f"{t.other_session} new", {t.text: 1}),
        writes=True,
    ),
    Row("create_session", lambda s, t: s.create_session(*t.key), writes=True),
    Row("get_session", lambda s, t: s.get_session(*t.key)),
    Row("get_user_state", lambda s, t: s.get_user_state(t.app, t.user)),
    Row("get_event_count", _count),
    Row("append_event", _append, writes=True),
    Row("append_events", _append_events, writes=True),
    Row("update_keys", lambda s, t: s.update_keys(*t.key, {t.text: "new", f"user:{t.text}": "new"}), writes=True),
    Row("delete_session", lambda s, t: s.delete_session(*t.key), writes=True),
    Row("list_sessions", lambda s, t: s.list_sessions(t.app, t.user)),
    Row("list_sessions", lambda s, t: s.list_sessions(t.app), owner="app"),
    Row("list_sessions", lambda s, t: s.list_sessions(t.app, t.user, limit=2, newest_first=True)),
    Row("list_sessions", lambda s, t: s.list_sessions(t.app, t.user, limit=1, state={t.text: 2})),
    Row("iter_sessions", lambda s, t: _gathered(s.iter_sessions(t.app, t.user, page_size=2))),
    Row("get_events", lambda s, t: s.get_events(*t.key, limit=3)),
    Row("get_events", lambda s, t: s.get_events(*t.key, newest_first=True, authors=[t.text])),
    Row("iter_events", lambda s, t: _gathered(s.iter_events(*t.key, page_size=3))),
    Row("history", lambda s, t: s.history(*t.key)),
    Row("history", lambda s, t: s.history(t.app, t.user, key=f"user:{t.text}")),
    Row("history", lambda s, t: s.history(t.app), owner="app"),
    Row("get_session_at", lambda s, t: s.get_session_at(*t.key, event_id=t.event_id(2))),
    Row("get_session_at", lambda s, t: s.get_session_at(*t.key, seq=1)),
    Row("get_session_at", lambda s, t: s.get_session_at(*t.key, time=2_003.5)),
    Row("fork_session", _fork, writes=True),
    Row("list_forks", lambda s, t: s.list_forks(*t.key)),
    Row("list_forks", lambda s, t: s.list_forks(t.app), owner="app"),
    Row("usage", lambda s, t: s.usage(app_name=t.app, user_id=t.user, session_id=t.session)),
    Row("usage", lambda s, t: s.usage(app_name=t.app, user_id=t.user, by="invocation")),
    Row("usage", lambda s, t: s.usage(app_name=t.app, by="author"), owner="app"),
    Row("search", _search, owner="app"),
    Row("search", lambda s, t: _search(s, t, user_id=t.user)),
    Row("search", lambda s, t: _search(s, t, user_id=t.user, session_id=t.session, author=t.text)),
    Row("truncate_session", lambda s, t: s.truncate_session(*t.key, after_event_id=t.event_id(2)), writes=True),
    Row("redact_events", lambda s, t: s.redact_events(*t.key, [t.event_id(2), t.event_id(1)], "gone"), writes=True),
    Row("erase_user", lambda s, t: s.erase_user(t.app, t.user, purge=False), writes=True, in_steps=True),
    Row("prune", _prune, writes=True, in_steps=True),
    Row("add_session_to_memory", _remember, writes=True),
    Row("add_events_to_memory", _remember_events, writes=True),
    Row("add_memory", _add_memory, writes=True),
    Row("delete_memory", _forget, writes=True),
    Row("search_memory", _recall),
]

READS = [row for row in ROWS if not row.writes]
GROUPS = [READS, *([row] for row in ROWS if row.writes)]
"""Rows that may go one after the other on the same sessions."""

NOT_OF_SESSIONS = {"backup", "close", "flush", "get_stats", "health", "turn", "vacuum"}
"""Calls that name no session, or, of ``turn``, read and write nothing."""


def stand_still() -> None:
    """Has ADK's clock stand still, and its ids be the same ones each time, in this context."""
    numbers = iter(range(1_000_000))
    platform_time.set_time_provider(lambda: 1_000.0)
    platform_uuid.set_id_provider(lambda: f"generated {next(numbers)}")


async def outcome(row: Row, service: DatabaseSessionService, tenant: Tenant) -> object:
    """Makes a call while the clock stands still; says what it came to, an error by its type."""
    stand_still()
    try:
        return plain(await row.make(service, tenant))
    except Exception as error:  # noqa: BLE001  # which one it is, is the outcome
        return type(error).__name__


def plain(value: Any) -> Any:
    """Makes plain values of an answer; of a cursor only whether there is one."""
    match value:
        case SessionList():
            return [*map(plain, value), *map(plain, value.sessions), value.next is not None]
        case EventPage():
            return [plain(value.events), value.next is not None]
        case BaseModel():
            return plain(value.model_dump())
        case Mapping():
            return {plain(name): plain(one) for name, one in value.items()}
        case list() | tuple() | set():
            return [plain(one) for one in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain({one.name: getattr(value, one.name) for one in dataclasses.fields(value)})
    return value


def renamed(value: Any, names: Mapping[str, str]) -> Any:
    """Puts other texts in place of some, wherever they are in plain values; leaves out ranks, which lengths are part of."""
    match value:
        case str():
            for old, new in names.items():
                value = value.replace(old, new)
            return value
        case dict():
            return {renamed(name, names): renamed(one, names) for name, one in value.items() if name != "rank"}
        case list():
            return [renamed(one, names) for one in value]
    return value


async def everything_of(service: DatabaseSessionService, tenant: Tenant) -> object:
    """All that can be read of a tenant."""
    sessions = await service.list_sessions(tenant.app, tenant.user)
    logs = [await service.get_session(tenant.app, tenant.user, row["session_id"]) for row in sessions]
    forks = await service.list_forks(tenant.app, tenant.user)
    return plain([sessions, logs, forks, await service.history(tenant.app, tenant.user)])
