"""Work that leaves something in every metric, with a marker in all that must never be exported."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.adk.events import Event, EventActions
from google.genai import types

from sessiondb import DatabaseSessionService, Retention
from sessiondb.errors import InvalidInputError, SearchIndexError, SessionNotFoundError, StaleSessionError

APP = "my_app"
SECRET = "xyzzy-42"  # noqa: S105  # what a test looks for
USER = f"user-{SECRET}"


def event(text: str = "hello") -> Event:
    """An event with the marker in its content and its state."""
    content = types.Content(role="user", parts=[types.Part(text=f"{text} {SECRET}")])
    state = {f"key {SECRET}": SECRET, f"user:{SECRET}": [SECRET], "temp:t": SECRET}
    return Event(author="user", content=content, actions=EventActions(state_delta=state))


async def every_call(service: DatabaseSessionService, folder: Path) -> None:
    """Makes every call of a service, and some that fail."""
    session = await service.create_session(APP, USER, "s", {f"app:{SECRET}": SECRET, "k": SECRET})
    overtaken = await service.get_session(APP, USER, "s")
    assert overtaken is not None
    await service.append_event(session, event("one"))
    await service.append_event(session, event("two"))
    with pytest.raises(StaleSessionError):
        await service.append_event(overtaken, event("stale"))
    with pytest.raises(InvalidInputError):
        await service.append_event(
            session, Event(author="user", actions=EventActions(state_delta={f"{SECRET}\ud800": SECRET}))
        )
    with pytest.raises(SessionNotFoundError):
        await service.update_keys(APP, USER, "missing", {SECRET: SECRET})
    await service.update_keys(APP, USER, "s", {SECRET: SECRET})
    await service.append_events(session, [event("three"), event("four")])
    await service.get_events(APP, USER, "s")
    await service.history(APP, USER, "s")
    await service.get_session_at(APP, USER, "s", seq=1)
    await service.fork_session(APP, USER, "s", new_session_id="fork")
    await service.list_forks(APP)
    await service.redact_events(APP, USER, "s", [session.events[0].id], SECRET)
    await service.truncate_session(APP, USER, "s", after_event_id=session.events[1].id)
    await service.get_session(APP, USER, "s")
    await service.get_user_state(APP, USER)
    await service.list_sessions(app_name=APP, user_id=USER)
    await service.usage(app_name=APP, user_id=USER, session_id="s", by="day")
    with pytest.raises(SearchIndexError):
        await service.search(SECRET, app_name=APP, user_id=USER, session_id="s")
    service.get_event_count(APP, USER, "s")
    service.get_stats()
    service.vacuum()
    await service.backup(folder / "backup.sqlite3")
    await service.prune(Retention(max_events=2))
    await service.flush()
    await service.delete_session(APP, USER, session_id="s")
    await service.erase_user(APP, USER)


OPERATIONS = {
    ("create_session", "sqlite"): 1,
    ("get_session", "sqlite"): 3,
    ("append_event", "sqlite"): 2,
    ("append_event", "sqlite", "StaleSessionError"): 1,
    ("append_event", "sqlite", "InvalidInputError"): 1,
    ("update_keys", "sqlite", "SessionNotFoundError"): 1,
    ("update_keys", "sqlite"): 1,
    ("get_user_state", "sqlite"): 1,
    ("list_sessions", "sqlite"): 1,
    ("usage", "sqlite"): 1,
    ("search", "sqlite", "SearchIndexError"): 1,
    ("append_events", "sqlite"): 1,
    ("get_events", "sqlite"): 1,
    ("history", "sqlite"): 1,
    ("get_session_at", "sqlite"): 1,
    ("fork_session", "sqlite"): 1,
    ("list_forks", "sqlite"): 1,
    ("redact_events", "sqlite"): 1,
    ("truncate_session", "sqlite"): 1,
    ("get_event_count", "sqlite"): 1,
    ("get_stats", "sqlite"): 1,
    ("vacuum", "sqlite"): 1,
    ("backup", "sqlite"): 1,
    ("erase_user", "sqlite"): 1,
    ("prune", "sqlite"): 1,
    ("flush", "sqlite"): 1,
    ("delete_session", "sqlite"): 1,
}
"""What :func:`every_call` does, by operation, system, and error if there is one."""

WRITES = 14
"""How many writes of that are committed, in a transaction each: a refused append and a flush among them."""
