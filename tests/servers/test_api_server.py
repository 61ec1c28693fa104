"""`adk api_server` under load, ended while requests are under way."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from google.adk.events import Event

from sessiondb import DatabaseSessionService
from tests.docs.markdown import ROOT
from tests.servers.servers import APP, Server, make_home, serve

pytestmark = pytest.mark.anyio

CLIENTS = 32
TURNS_BEFORE_THE_SIGNAL = 2


@dataclass
class Client:
    """Somebody who talks to the server until it is gone."""

    number: int
    sent: list[str] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    """The complete events received, in order."""
    turns: int = 0
    """Those that were answered to their end."""

    @property
    def user(self) -> str:
        return f"user_{self.number}"

    async def start(self, http: httpx.AsyncClient) -> None:
        response = await http.post(f"/apps/{APP}/users/{self.user}/sessions/talk", json={"moves": 0})
        response.raise_for_status()

    async def say(self, http: httpx.AsyncClient, text: str) -> None:
        """Sends a message, and takes what comes back, streamed.

        Raises:
            httpx.TransportError: If the server is gone.
        """
        request = {
            "app_name": APP,
            "user_id": self.user,
            "session_id": "talk",
            "new_message": {"role": "user", "parts": [{"text": text}]},
            "streaming": True,
        }
        self.sent.append(text)
        async with http.stream("POST", "/run_sse", json=request) as response:
            response.raise_for_status()
            async for event in _events(response):
                if not event.partial:
                    self.events.append(event)
        self.turns += 1


async def _events(response: httpx.Response) -> AsyncIterator[Event]:
    async for line in response.aiter_lines():
        if line:
            data = json.loads(line.removeprefix("data: "))
            assert "error" not in data, data
            yield Event.model_validate(data)


async def _talk(clients: list[Client], server: Server) -> None:
    """Lets all talk at once; the server is told to end when each is on its third turn."""
    under_way = asyncio.Barrier(CLIENTS + 1)
    limits = httpx.Limits(max_connections=CLIENTS)
    async with httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=60, limits=limits) as http:

        async def talk(client: Client) -> None:
            await client.start(http)
            for turn in range(TURNS_BEFORE_THE_SIGNAL):
                await client.say(http, f"I live in City{turn}")
            await under_way.wait()
            try:
                for turn in range(TURNS_BEFORE_THE_SIGNAL, 10_000):
                    await client.say(http, f"I live in City{turn}")
            except httpx.TransportError:
                return
            raise AssertionError("the server goes on")

        async with asyncio.TaskGroup() as group:
            for client in clients:
                group.create_task(talk(client))
            await under_way.wait()
            server.send(signal.SIGTERM)


async def test_adk_api_server_sigterm_loses_no_received_event(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    clients = [Client(number) for number in range(CLIENTS)]
    with serve(home, home.command("api_server", home.agents)) as server:
        await _talk(clients, server)
        status = server.wait()
    # The default action: no hook of Python's has run, and none is needed.
    assert status == -signal.SIGTERM, server.log
    assert "Traceback" not in server.log
    # The page says how ADK logs the path. Some versions of 3.12 on, Python keeps the slashes.
    logged = f"Using session service URI: sessiondb:/{home.database}\n"
    assert (
        logged.replace(str(home.database), "/srv/data/sessions.sqlite3") in (ROOT / "docs" / "adk-web.md").read_text()
    )
    assert logged in server.log or sys.version_info >= (3, 12)

    async with DatabaseSessionService(home.database) as service:
        assert len(await service.list_sessions(app_name=APP)) == CLIENTS
        for client in clients:
            session = await service.get_session(app_name=APP, user_id=client.user, session_id="talk")
            assert session is not None
            assert client.turns >= TURNS_BEFORE_THE_SIGNAL
            stored = [event for event in session.events if event.author != "user"]
            # A run that the end cut off may have stored more than its client has seen; never less.
            assert stored[: len(client.events)] == client.events
            assert len(stored) <= 3 * len(client.sent)
            messages = [event.content.parts[0].text for event in session.events if event.author == "user"]  # type: ignore[union-attr,index]
            assert messages == client.sent[: len(messages)]
            assert len({event.id for event in session.events}) == len(session.events)
            moves = [event.actions.state_delta for event in stored if event.actions.state_delta]
            assert session.state == {"moves": len(moves), "user:city": f"City{len(moves) - 1}"}
