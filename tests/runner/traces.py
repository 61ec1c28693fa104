"""What a conversation left behind, in a form in which two services can be compared."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from typing import Any

from google.adk.events import Event
from google.adk.sessions import BaseSessionService, Session

from tests.runner.scripts import Trace
from tests.scripted import APP, USER

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def dump(event: Event) -> dict[str, Any]:
    """Everything that an event holds."""
    fields: dict[str, Any] = event.model_dump(mode="json")
    return fields


async def read(service: BaseSessionService) -> list[Session]:
    """Return every session of the user, with its log."""
    listing = await service.list_sessions(app_name=APP, user_id=USER)
    sessions = []
    for entry in listing.sessions:
        session = await service.get_session(app_name=APP, user_id=USER, session_id=entry.id)
        assert session is not None
        assert session.state == entry.state
        sessions.append(session)
    return sessions


async def traces(service: BaseSessionService, trace: Trace) -> dict[str, Any]:
    """Return logs, states, yielded events and the model's requests; ids and times replaced by their order."""
    sessions = await read(service)
    # Branches that run side by side may interleave in any way; each one keeps its order, which is that of its times.
    logs = [sorted((dump(event) for event in session.events), key=_branch) for session in sessions]
    for log in logs:
        assert all(a["timestamp"] <= b["timestamp"] for a, b in pairwise(log) if _branch(a) == _branch(b))
    times = {event["timestamp"]: position for log in logs for position, event in enumerate(log)}
    found = {
        "logs": logs,
        "states": [session.state for session in sessions],
        "user state": await service.get_user_state(app_name=APP, user_id=USER),
        "yielded": [dump(event) for event in trace.yielded],
        "requests": [request.model_dump(mode="json", exclude={"config"}) for request in trace.requests],
        "instructions": [str(request.config.system_instruction) for request in trace.requests],
    }
    numbers: dict[str, str] = {}
    text = json.dumps(_without_times(found, times))
    anonymous: dict[str, Any] = json.loads(_UUID.sub(lambda m: numbers.setdefault(m[0], f"id {len(numbers)}"), text))
    return anonymous


def _branch(event: dict[str, Any]) -> tuple[int, str]:
    return 0 if event["author"] == "user" else 1, event.get("branch") or ""


def _without_times(value: Any, times: dict[float, int]) -> Any:
    if isinstance(value, dict):
        return {key: _without_times(item, times) for key, item in value.items() if key != "timestamp"}
    if isinstance(value, list):
        return [_without_times(item, times) for item in value]
    if isinstance(value, float) and value in times:
        return f"time of event {times[value]}"
    return value
