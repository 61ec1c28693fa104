"""Files of each schema version, as SQL text, and beside each what a service of that version has read of it.

``python -m tests.sqlite.schema.frozen FOLDER`` makes the two for the present version. A version that has been released is never
made again: whoever changes the tables, raises the version and freezes that one.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

from google.adk.events import Event, EventActions
from google.genai import types

from sessiondb import DatabaseSessionService
from sessiondb.stores.sqlite.schema import PRESENT
from tests.runner import scripts

FOLDER = Path(__file__).parent
APP, USER = "my_app", "user_123"


async def fill(service: DatabaseSessionService) -> None:
    """Runs an agent, so that events are what ADK makes them, and adds what the run does not come to."""
    await scripts.parallel_tool_calls(service)
    odd = {"grün": [1, 2.5, None, {"🤖": True}], "user:theme": "dark", "app:version": {"major": 1}, "gone": 1}
    session = await service.create_session(APP, USER, "sess_abc", odd)
    for number in range(3):
        actions = EventActions(state_delta={"number": number, "user:count": number, "gone": None})
        parts = [
            types.Part(text=f"日本 {number}", thought=True),
            types.Part.from_bytes(data=b"\0\xff", mime_type="a/b"),
        ]
        content = types.Content(role="model", parts=parts)
        event = Event(author="agent", invocation_id=f"inv_{number}", actions=actions, content=content)
        await service.append_event(session, event)
    await service.update_keys(APP, USER, "sess_abc", {"outside": [1], "app:version": None})
    await service.create_session(APP, USER, "empty")
    await service.create_session(APP, "%_'\"", "odd ids")
    await service.create_session(APP, USER, "deleted", {"own": 1})
    await service.delete_session(APP, USER, "deleted")


def dump(path: Path) -> str:
    """Returns a closed file as SQL text."""
    with closing(sqlite3.connect(path)) as connection:
        header = [
            f"PRAGMA {name}={connection.execute(f'PRAGMA {name}').fetchone()[0]};"
            for name in ("application_id", "user_version")
        ]
        return "\n".join([*header, *connection.iterdump(), ""])


def load(version: int, path: Path) -> None:
    """Makes a file of the text."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((FOLDER / f"version_{version}.sql").read_text(encoding="utf-8"))


def recorded(version: int) -> dict[str, Any]:
    """Returns what was read of the file when it was frozen."""
    read: dict[str, Any] = json.loads((FOLDER / f"version_{version}.json").read_text(encoding="utf-8"))
    return read


async def read(path: Path) -> dict[str, Any]:
    """Reads all of a file through a service, as JSON."""
    async with DatabaseSessionService(path) as service:
        found: dict[str, Any] = {"sessions": [], "user_state": {}}
        for row in await service.list_sessions():
            session = await service.get_session(row["app_name"], row["user_id"], row["session_id"])
            assert session is not None
            # What is at its default is left out: a later ADK has fields that this one has not.
            found["sessions"].append(session.model_dump(mode="json", exclude_defaults=True))
            found["user_state"][f"{session.app_name}/{session.user_id}"] = await service.get_user_state(
                session.app_name, session.user_id
            )
        found["sessions"].sort(key=lambda each: (each["app_name"], each["user_id"], each["id"]))
        return found


async def _freeze(folder: Path) -> None:
    target = folder / f"version_{PRESENT.version}.sql"
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "adk.sqlite3"
        async with DatabaseSessionService(path) as service:
            await fill(service)
        with target.open("x", encoding="utf-8") as file:
            file.write(dump(path))
        text = json.dumps(await read(path), ensure_ascii=False, indent=1, sort_keys=True)
        target.with_suffix(".json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    asyncio.run(_freeze(Path(sys.argv[1])))
