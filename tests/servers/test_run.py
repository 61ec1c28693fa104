"""`adk run`: a process that ends after each message."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from sessiondb import DatabaseSessionService
from tests.servers.servers import APP, make_home

pytestmark = pytest.mark.anyio


async def test_adk_run_resumes_conversation_of_other_process(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    async with DatabaseSessionService(home.database) as service:
        await service.create_session(APP, "test_user", "talk", {"user:city": "London"})
    command = [*home.command("run", home.agents / APP), "--session_id", "talk", "Where do I live?"]
    done = await anyio.run_process(command, cwd=tmp_path, env=home.environment, check=False)
    assert done.returncode == 0, done.stderr
    assert b"You live in London." in done.stdout
    async with DatabaseSessionService(home.database) as service:
        session = await service.get_session(APP, "test_user", "talk")
        assert session is not None
        assert [event.author for event in session.events] == ["user", APP]
