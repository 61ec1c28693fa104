"""``--memory_service_uri``: ADK's server remembers a session when it is asked to, and another process finds it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sessiondb import DatabaseSessionService, MemoryService
from tests.engine.processes import run_forked
from tests.servers.fast_api_programs import remember_once
from tests.servers.servers import APP

pytestmark = [pytest.mark.anyio, pytest.mark.each_store]


async def test_server_of_adk_remembers_what_its_sessions_hold(location: Path | str, tmp_path: Path) -> None:
    uri = f"sessiondb:///{location}" if isinstance(location, Path) else f"sessiondb+{location}"
    assert json.loads(run_forked(remember_once, tmp_path / "home", uri).splitlines()[-1]) == [200, 200, 200]
    async with DatabaseSessionService(location) as service:
        answer = await MemoryService(service).search_memory(app_name=APP, user_id="u", query="What is my dog called?")
        (memory,) = answer.memories
        assert memory.content.parts
        assert memory.content.parts[0].text == "My dog is called Pepper."
