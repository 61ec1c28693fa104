"""The demonstration from beginning to end."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import asdict
from typing import Any

from rich.console import Console

from sessiondb.location import Database

from .contents import read_contents
from .conversation import begin, go_on_in_new_process
from .report import show_contents, show_conversation, show_timings
from .timing import measure


def run(database: Database, console: Console) -> dict[str, Any]:
    """Run the demonstration on ``database``, printing each step when it is done.

    A database that exists already gains two sessions; what it held stays. Returns
    everything that was shown, as values for JSON.

    Raises:
        SessionDBError: The database cannot be opened or written.
    """
    session_id = f"demo-{uuid.uuid4().hex[:8]}"
    first = asyncio.run(begin(database, session_id))
    show_conversation(console, "1. A Runner holds a conversation", first)
    second = go_on_in_new_process(database, session_id)
    show_conversation(console, "2. A new process goes on with it", second)
    contents = asyncio.run(read_contents(database, session_id))
    console.rule(f"3. What {database} holds", align="left")
    show_contents(console, contents)
    console.rule("4. How long each step takes", align="left")
    timings = asyncio.run(measure(database, session_id))
    show_timings(console, timings)
    return {
        "path": str(database),
        "processes": [asdict(part) for part in (first, second)],
        **asdict(contents),
        "timings": [{**asdict(timing), "ratio": timing.ratio} for timing in timings],
    }
