"""Programs that make ADK's app with options for the session service; each function is the whole of a process."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx
from google.adk.cli.fast_api import get_fast_api_app

from sessiondb import DatabaseSessionService
from sessiondb.cli import services_file
from sessiondb.errors import ConfigurationError
from tests.engine.processes import say
from tests.servers.servers import APP, make_home


def remember_once(folder: str, uri: str) -> None:
    """Has the app of ADK keep a conversation at ``uri``, and remember it; says how it answered."""
    home = make_home(Path(folder))
    services_file.plan(home.agents, uri.partition(":")[0]).write()
    app = get_fast_api_app(agents_dir=str(home.agents), session_service_uri=uri, memory_service_uri=uri, web=False)

    async def talk() -> list[int]:
        message = {"role": "user", "parts": [{"text": "My dog is called Pepper."}]}
        run = {"app_name": APP, "user_id": "u", "session_id": "s", "new_message": message}
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
            answers = [
                await client.post(f"/apps/{APP}/users/u/sessions/s", json={}),
                await client.post("/run", json=run),
                await client.patch(f"/apps/{APP}/users/u/memory", json={"session_id": "s"}),
            ]
        return [answer.status_code for answer in answers]

    say(json.dumps(asyncio.run(talk())))


def serve_once(folder: str, options: str) -> None:
    """Makes an app with ``session_db_kwargs``, has it create a session, and says how the file is kept."""
    home = make_home(Path(folder))
    services_file.plan(home.agents).write()
    try:
        app = get_fast_api_app(
            agents_dir=str(home.agents),
            session_service_uri=f"sessiondb:///{home.database}",
            session_db_kwargs=json.loads(options),
            web=False,
        )
    except ConfigurationError as error:
        say(json.dumps({"refused": str(error), "exists": home.database.exists()}))
        return

    async def create() -> int:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
            answer = await client.post(f"/apps/{APP}/users/u/sessions/s", json={})
            return answer.status_code

    status = asyncio.run(create())
    try:
        DatabaseSessionService(home.database)
    except ConfigurationError as error:
        kept = str(error)
    else:
        kept = "as by default"
    say(json.dumps({"status": status, "kept": kept}))
