"""Clients that append to conversations, in such a way that what a file holds afterwards can be judged by itself."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

from google.adk.events import Event, EventActions
from google.adk.sessions import Session
from google.genai import types

from sessiondb import DatabaseSessionService

APP = "faults"


def make_event(event_id: str, n: int, *, size: int = 100, timestamp: float | None = None) -> Event:
    """Returns an event with a state delta of all scopes that sets, replaces and deletes keys, as ``n`` goes on."""
    return Event(
        id=event_id,
        invocation_id=f"inv-{n}",
        author="user",
        timestamp=1_700_000_000.0 + n if timestamp is None else timestamp,
        content=types.Content(role="user", parts=[types.Part(text=f"{event_id} ".ljust(size, "x"))]),
        actions=EventActions(
            state_delta={
                "last": event_id,
                f"slot{n % 5}": None if n % 3 == 0 else event_id,
                "user:last": event_id,
                f"app:slot{n % 7}": None if n % 4 == 0 else event_id,
            }
        ),
    )


async def converse(
    service: DatabaseSessionService,
    session: Session,
    appends: int | None,
    acknowledge: Callable[[str, str], None],
    *,
    first: int = 0,
    size: int = 100,
) -> None:
    """Appends to one session, one event after the other; without a number, for ever.

    Args:
        acknowledge: Called with session id and event id once ``append_event`` has returned.
    """
    numbers = itertools.count(first) if appends is None else range(first, first + appends)
    for n in numbers:
        event = make_event(f"{session.id}/{n}", n, size=size)
        await service.append_event(session, event)
        acknowledge(session.id, event.id)


async def many_clients(
    service: DatabaseSessionService,
    names: list[str],
    appends: int | None,
    acknowledge: Callable[[str, str], None],
    *,
    size: int = 100,
) -> None:
    """Lets one client for each name create a session and converse, all at the same time."""

    async def client(number: int, name: str) -> None:
        session = await service.create_session(app_name=APP, user_id=f"user{number % 3}", session_id=name)
        acknowledge(name, "")
        await converse(service, session, appends, acknowledge, size=size)

    async with asyncio.TaskGroup() as group:
        for number, name in enumerate(names):
            group.create_task(client(number, name))
