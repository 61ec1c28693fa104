"""`adk api_server` with the plugin: a session that gets many messages at once answers them one after the other.

Seen to fail without the plugin (stale sessions, calls without a response), and with turns that processes do not share.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from sessiondb import DatabaseSessionService
from tests.servers.servers import APP, IN_TURNS, make_home, serve

pytestmark = pytest.mark.anyio

CLIENTS = 8

HOLD = """\

from pathlib import Path
import asyncio


async def hold() -> dict[str, str]:
    \"""Holds the run for ever, the first time.\"""
    if not (reached := Path(__file__).with_name("reached")).exists():
        reached.touch()
        await asyncio.Event().wait()
    return {"hold": "over"}


def respond_held(request):
    part = request.contents[-1].parts[-1]
    return "went on" if part.function_response else call("hold")


root_agent = LlmAgent(name="assistant", model=OfflineModel(respond=respond_held), tools=[hold])
"""


def _request(text: str) -> dict[str, Any]:
    message = {"role": "user", "parts": [{"text": text}]}
    return {"app_name": APP, "user_id": "user", "session_id": "talk", "new_message": message}


async def _say(http: httpx.AsyncClient, text: str) -> list[dict[str, Any]]:
    """Sends a message and takes the whole stream."""
    async with http.stream("POST", "/run_sse", json=_request(text)) as response:
        response.raise_for_status()
        return [json.loads(line.removeprefix("data: ")) async for line in response.aiter_lines() if line]


async def _start(http: httpx.AsyncClient) -> None:
    response = await http.post(f"/apps/{APP}/users/user/sessions/talk", json={"moves": 0})
    response.raise_for_status()


async def test_eight_clients_of_two_servers_on_one_session_are_all_answered(tmp_path: Path) -> None:
    home = make_home(tmp_path, IN_TURNS)
    command = home.command("api_server", home.agents)
    with serve(home, command) as one, serve(home, command) as two:
        async with (
            httpx.AsyncClient(base_url=one.url, trust_env=False, timeout=60) as first,
            httpx.AsyncClient(base_url=two.url, trust_env=False, timeout=60) as second,
        ):
            await _start(first)
            answers = await asyncio.gather(
                *(_say((first, second)[number % 2], f"I live in City{number}") for number in range(CLIENTS))
            )
    assert "StaleSessionError" not in one.log + two.log
    for number, events in enumerate(answers):
        assert not [event for event in events if "error" in event]
        assert events[-1]["content"]["parts"][0]["text"] == f"I will remember that you live in City{number}."

    async with DatabaseSessionService(home.database) as service:
        session = await service.get_session(APP, "user", "talk")
    assert session is not None
    assert session.state["moves"] == CLIENTS
    # Each turn is in one piece: message, call, response, answer.
    runs = [session.events[start : start + 4] for start in range(0, len(session.events), 4)]
    assert len(runs) == CLIENTS
    for run in runs:
        assert [event.author for event in run] == ["user", APP, APP, APP]
        assert len({event.invocation_id for event in run}) == 1
    called = Counter(call.id for event in session.events for call in event.get_function_calls())
    assert called == Counter(answer.id for event in session.events for answer in event.get_function_responses())


@pytest.mark.parametrize("endpoint", ["/run", "/run_sse"])
async def test_client_that_leaves_does_not_keep_the_turn(tmp_path: Path, endpoint: str) -> None:
    home = make_home(tmp_path, HOLD)
    # The other way to have it: by its name, on the command line.
    command = [*home.command("api_server", home.agents), "--extra_plugins", "sessiondb.OneTurnAtATime"]
    reached = home.agents / APP / "reached"
    with serve(home, command) as server:
        async with httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=60) as http:
            await _start(http)
            leaving = asyncio.create_task(http.post(endpoint, json=_request("first")))
            while not await asyncio.to_thread(reached.exists):
                assert not leaving.done()
            leaving.cancel()
            await asyncio.wait([leaving])
            answer = await _say(http, "second")
    assert answer[-1]["content"]["parts"][0]["text"] == "went on", server.log
    # There was a turn.
    assert home.database.with_name(f"{home.database.name}-turns").exists()
