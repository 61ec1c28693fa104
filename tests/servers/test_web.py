"""`adk web` as a person sees it: a conversation, its events and state, and all of it again after a restart."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.servers.browsing import Visit, browser
from tests.servers.servers import make_home, serve

MESSAGE = "I live in London."
REPLY = "I will remember that you live in London."


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Where pictures of the page are kept: ``$SESSIONDB_PICTURES``, else the test's folder."""
    folder = Path(os.environ.get("SESSIONDB_PICTURES") or tmp_path / "pictures")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def test_adk_web_shows_conversation_after_server_restart(tmp_path: Path, pictures: Path) -> None:
    home = make_home(tmp_path)
    with browser(tmp_path) as context:
        command = home.init()

        with serve(home, command) as server:
            visit = Visit(context, server.url, pictures)
            visit.say(MESSAGE, REPLY)
            visit.sees_events(MESSAGE, 'remember_city("London")', "remember_city", REPLY)
            visit.picture("events")
            visit.sees_state(**{"user:city": '"London"', "moves": "1"})
            visit.picture("state")
            status = server.end(signal.SIGTERM)
        # The default action, without an exit hook: what the page has shown is on disk all the same.
        assert status == -signal.SIGTERM, server.log

        with serve(home, command) as server:
            visit = Visit(context, server.url, pictures)
            visit.open_conversation(MESSAGE)
            visit.sees_events(MESSAGE, 'remember_city("London")', "remember_city", REPLY)
            visit.sees_state(**{"user:city": '"London"', "moves": "1"})
            visit.say("Where do I live?", "You live in London.")
            visit.picture("restarted")
            status = server.end(signal.SIGINT)
    # As Ctrl+C does. The interpreter ends in order, and the service that ADK has not closed closes itself.
    assert status == 1, server.log
    assert "Traceback" not in server.log
    assert not home.database.with_name(f"{home.database.name}-wal").exists()
