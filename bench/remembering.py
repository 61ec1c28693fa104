"""Memory services on the same questions, how many they answer and in what time: ``python -m bench.remembering``.

``questions.json`` has 20 facts for each of four languages, written by hand, each with a question that somebody may ask months
later; and sentences put together of parts. The facts are of three kinds: in ten the question shares a telling word with the
fact (``same``), in six a word in another form (``form``), in four it shares none (``other``). Each language is a user, whose
messages are the 20 facts and 960 sentences, ten a session, in an order that a seed decides. A question counts as answered if
the fact is among the ten memories that a service gives.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import product
from pathlib import Path
from typing import Any

from google.adk.events import Event
from google.adk.memory import InMemoryMemoryService
from google.adk.memory._sqlite_memory_service import SqliteMemoryService
from google.adk.memory.base_memory_service import BaseMemoryService
from google.adk.sessions import BaseSessionService, InMemorySessionService
from google.genai import types
from rich.console import Console
from rich.table import Table

from bench import data, server
from sessiondb import DatabaseSessionService, MemoryService

_KINDS = ("same", "form", "other")
_AT_MOST = 10
_A_SESSION = 10
_ROUNDS = 3

Services = tuple[BaseSessionService, BaseMemoryService]


@asynccontextmanager
async def _adk_in_memory(_: Path) -> AsyncIterator[Services]:
    yield InMemorySessionService(), InMemoryMemoryService()


@asynccontextmanager
async def _adk_sqlite(folder: Path) -> AsyncIterator[Services]:
    # It gives 50 memories unless it is told otherwise.
    yield InMemorySessionService(), SqliteMemoryService(folder / "adk.sqlite3", max_results=_AT_MOST)


@asynccontextmanager
async def _sessiondb(folder: Path) -> AsyncIterator[Services]:
    async with DatabaseSessionService(folder / "sessiondb.sqlite3", index="text") as service:
        yield service, MemoryService(service, limit=_AT_MOST)


@asynccontextmanager
async def _sessiondb_on_a_server(folder: Path) -> AsyncIterator[Services]:
    with server.started():
        async with DatabaseSessionService(server.database(folder), index="text") as service:
            yield service, MemoryService(service, limit=_AT_MOST)


_SERVICES = {
    "ADK, in memory": _adk_in_memory,
    "ADK, SQLite": _adk_sqlite,
    "sessiondb, SQLite": _sessiondb,
    "sessiondb, PostgreSQL": _sessiondb_on_a_server,
}


def _messages(language: dict[str, Any]) -> list[str]:
    parts = product(language["who"], language["did"], language["when"])
    # In some languages the time stands within what was done.
    sentences = [language["sentence"].format(who=who, did=did.format(when=when), when=when) for who, did, when in parts]
    facts = [fact for kind in _KINDS for fact, _ in language[kind]]
    messages = sentences + facts
    random.Random(16).shuffle(messages)
    return messages


async def _tell(services: Services, user: str, messages: list[str]) -> list[float]:
    """Has a user say all that in sessions, and each session remembered; returns how long each took to be remembered."""
    sessions, memory = services
    took = []
    for first in range(0, len(messages), _A_SESSION):
        session = await sessions.create_session(app_name=data.APP, user_id=user, session_id=f"s{first}")
        contents = [types.Content(role="user", parts=[types.Part(text=text)]) for text in messages[first:][:_A_SESSION]]
        events = [Event(author="user", invocation_id="i", content=content) for content in contents]
        if isinstance(sessions, DatabaseSessionService):
            await sessions.append_events(session, events)
        else:
            for event in events:
                await sessions.append_event(session, event)
        started = time.perf_counter()
        await memory.add_session_to_memory(session)
        took.append(time.perf_counter() - started)
    return took


async def measure(names: list[str], languages: dict[str, Any]) -> Table:
    """Asks the services all questions."""
    table = Table("service", *languages, *_KINDS, "first", "add a session, ms", "search, ms")
    for name in names:
        answered: defaultdict[str, list[bool]] = defaultdict(list)
        adding: list[float] = []
        searching: list[float] = []
        with tempfile.TemporaryDirectory(prefix="sessiondb-bench-") as folder:
            async with _SERVICES[name](Path(folder)) as services:
                for user, language in languages.items():
                    adding += await _tell(services, user, _messages(language))
                if isinstance(services[0], DatabaseSessionService):
                    # A server plans by its statistics, and takes a minute to make them by itself.
                    await asyncio.to_thread(services[0].vacuum)
                for _, (user, language), kind in product(range(_ROUNDS), languages.items(), _KINDS):
                    for fact, question in language[kind]:
                        started = time.perf_counter()
                        found = await services[1].search_memory(app_name=data.APP, user_id=user, query=question)
                        searching.append(time.perf_counter() - started)
                        texts = [memory.content.parts[0].text for memory in found.memories if memory.content.parts]
                        assert len(texts) <= _AT_MOST
                        for column in (user, kind):
                            answered[column].append(fact in texts)
                        answered["first"].append(fact in texts[:1])
        shares = [f"{statistics.fmean(answered[column]):.0%}" for column in (*languages, *_KINDS, "first")]
        table.add_row(name, *shares, *(f"{statistics.median(took) * 1_000:.2f}" for took in (adding, searching)))
    return table


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.remembering", description=__doc__)
    parser.add_argument("--service", action="append", choices=[*_SERVICES], help="only this one")
    arguments = parser.parse_args()
    questions = json.loads(Path(__file__).with_name("questions.json").read_text(encoding="utf-8"))
    Console(width=160).print(asyncio.run(measure(arguments.service or [*_SERVICES], questions)))
