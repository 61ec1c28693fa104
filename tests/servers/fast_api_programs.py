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
