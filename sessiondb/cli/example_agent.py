"""The agent that ``sessiondb init --example`` writes."""

from __future__ import annotations

from pathlib import Path

NAME = "assistant"

_INIT = "from . import agent as agent\n"

_AGENT = '''\
from google.adk.agents import LlmAgent
from google.adk.tools import ToolContext


def remember_city(city: str, tool_context: ToolContext) -> dict[str, str]:
    """Remembers where the user lives."""
    tool_context.state["user:city"] = city
    return {"remembered": city}


root_agent = LlmAgent(
    name="assistant",
    model="gemini-2.5-flash",
    instruction="Help the user. They live in: {user:city?}",
    tools=[remember_city],
)
'''


def write(agents_dir: Path) -> Path:
    """Writes the agent into a folder of its own in ``agents_dir``, which is created if it is missing.

    Returns:
        The agent's folder.

    Raises:
        FileExistsError: If something has that name; nothing is written then.
        OSError: If it cannot be written.
    """
    folder = agents_dir / NAME
    agents_dir.mkdir(parents=True, exist_ok=True)
    folder.mkdir()
    for name, text in (("__init__.py", _INIT), ("agent.py", _AGENT)):
        with (folder / name).open("x", encoding="utf-8") as file:
            file.write(text)
    return folder
