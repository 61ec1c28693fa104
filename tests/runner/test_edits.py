"""Runs of ADK's Runner that go on in logs that were redacted or cut off."""

from __future__ import annotations

from typing import Any

import pytest
from google.adk.apps import App
from google.adk.plugins import ToolCallIntegrityPlugin
from google.adk.runners import Runner
from google.adk.sessions import Session

from sessiondb import DatabaseSessionService
from tests.scripted import APP, USER, ScriptedModel, call, reply_text, say, scripted_agent

pytestmark = pytest.mark.anyio

SECRET = "the secret"  # noqa: S105  # a text to look for


def look_up(name: str) -> dict[str, Any]:
    """A tool."""
    return {"found": name}


async def read(service: DatabaseSessionService) -> Session:
    session = await service.get_session(app_name=APP, user_id=USER, session_id="s")
    assert session is not None
    return session


@pytest.mark.parametrize("replacement", [None, "[removed]"])
async def test_run_goes_on_after_redaction(service: DatabaseSessionService, replacement: str | None) -> None:
    """Also where ADK makes sure that nobody has changed a call since the model made it."""
    await service.create_session(app_name=APP, user_id=USER, session_id="s")
    model = ScriptedModel([[call("look_up", name=SECRET)], SECRET, [call("look_up", name="another")], "done"])
    app = App(name=APP, root_agent=scripted_agent(model, tools=[look_up]), plugins=[ToolCallIntegrityPlugin(b"key")])
    async with Runner(app=app, session_service=service) as runner:
        await say(runner, SECRET, session_id="s")
        events = [event.id for event in (await read(service)).events]
        await service.redact_events(APP, USER, "s", events, replacement)
        assert reply_text(await say(runner, "go on", session_id="s")) == "done"
    asked = model.requests[-1].model_dump_json()
    assert SECRET not in asked
    assert "go on" in asked
    assert (replacement is None) or replacement in asked
    # The call and its response are there, without what was in them.
    assert asked.count("look_up") >= 4


async def test_message_is_edited_and_sent_again(service: DatabaseSessionService) -> None:
    await service.create_session(app_name=APP, user_id=USER, session_id="s")
    model = ScriptedModel(["hello", [call("look_up", name="tea")], "here is tea", [call("look_up", name="rum")], "rum"])
    async with Runner(app_name=APP, agent=scripted_agent(model, tools=[look_up]), session_service=service) as runner:
        await say(runner, "hi", session_id="s")
        kept = (await read(service)).events
        await say(runner, "tea, please", session_id="s")
        await service.truncate_session(APP, USER, "s", after_event_id=kept[-1].id)
        assert reply_text(await say(runner, "rum, please", session_id="s")) == "rum"
    session = await read(service)
    assert session.events[: len(kept)] == kept
    assert len(session.events) == len(kept) + 4
    asked = model.requests[-1].model_dump_json()
    assert "rum, please" in asked
    assert "tea" not in asked
