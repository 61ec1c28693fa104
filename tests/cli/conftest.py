"""Databases for the commands to look into."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import pytest
from google.adk.events import Event, EventActions
from google.genai import types

from sessiondb import DatabaseSessionService

if TYPE_CHECKING:
    from tests.postgres.server import Server

Look: TypeAlias = Callable[[Path], dict[str, str]]

APP, USER, SESSION = "my_app", "user_123", "sess_abc"

HOSTILE = "red\x1b[31m bell\x07 c1\x9b2J\nsecond line\r\x1b]0;title\x07 \u202edesrever"
"""Text that a terminal would obey."""


async def fill(path: Path | str) -> None:
    """Two apps, three sessions, one conversation with calls, and state of every scope."""
    async with DatabaseSessionService(path) as service:
        session = await service.create_session(APP, USER, SESSION, {"app:version": 1, "user:theme": "dark"})
        moments = iter(range(1_700_000_000, 1_800_000_000, 7))

        async def say(author: str, *parts: types.Part, **delta: object) -> None:
            event = Event(
                invocation_id="inv",
                author=author,
                timestamp=next(moments) + 0.1,
                content=types.Content(role="model", parts=list(parts)),
                actions=EventActions(state_delta=delta),
            )
            await service.append_event(session, event)

        await say("user", types.Part(text="Weather in Paris?"), progress=1)
        await say("agent", types.Part.from_function_call(name="weather", args={"city": "Paris"}), progress=2)
        await say("agent", types.Part.from_function_response(name="weather", response={"sky": "blue"}), progress=None)
        await say("agent", types.Part(text=HOSTILE), **{"user:theme": "light", "app:version": 2})
        await service.create_session(APP, "other", SESSION)
        await service.create_session("zoo", USER, "lonely")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("made") / "adk.sqlite3"
    asyncio.run(fill(path))
    return path


@pytest.fixture
def database(made: Path, tmp_path: Path) -> Path:
    """A file of its own, filled as :func:`fill` says, and alone in its folder."""
    folder = tmp_path / "database"
    folder.mkdir()
    path = folder / "adk.sqlite3"
    path.write_bytes(made.read_bytes())
    return path


@pytest.fixture(scope="session")
def made_on_server(postgres_server: Server) -> str:
    url = postgres_server.create_database("made")
    asyncio.run(fill(url))
    return url


@pytest.fixture(params=["file", "server"])
def filled(request: pytest.FixtureRequest) -> str:
    """A path, or the URL of a server: a database to read, filled as :func:`fill` says."""
    return str(request.getfixturevalue("database" if request.param == "file" else "made_on_server"))


@pytest.fixture(params=["file", "server"])
def own(request: pytest.FixtureRequest) -> str:
    """As ``filled``, for a test that writes to it."""
    if request.param == "file":
        return str(request.getfixturevalue("database"))
    url: str = request.getfixturevalue("postgres_database")
    asyncio.run(fill(url))
    return url


@pytest.fixture
def fingerprint() -> Look:
    """The files in a folder, and what they hold."""

    def look(folder: Path) -> dict[str, str]:
        return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.iterdir())}

    return look
