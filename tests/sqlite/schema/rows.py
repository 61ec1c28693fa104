"""A session to look at with SQL, and what looks."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from google.adk.events import Event, EventActions
from google.adk.sessions import Session
from google.genai import types

from sessiondb import DatabaseSessionService

APP, USER, SESSION = "my_app", "user_123", "sess_abc"


def rows(path: Path, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
    """Runs a statement on a connection of its own, as another program does."""
    with closing(sqlite3.connect(path)) as connection, connection:
        return connection.execute(statement, parameters).fetchall()


def event(time: float = 1_000.0, **delta: object) -> Event:
    return Event(
        invocation_id="inv_1",
        author="agent",
        timestamp=time,
        content=types.Content(role="model", parts=[types.Part(text="grün")]),
        actions=EventActions(state_delta={name.replace("__", ":"): value for name, value in delta.items()}),
    )


async def get(service: DatabaseSessionService) -> Session:
    session = await service.get_session(APP, USER, SESSION)
    assert session is not None
    return session
