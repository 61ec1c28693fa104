"""The demonstration from beginning to end."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from .contents import read_contents
from .conversation import begin, go_on_in_new_process
from .report import show_contents, show_conversation, show_timings
from .timing import measure


def run(path: Path, console: Console) -> dict[str, Any]:
    """Run the demonstration on the database ``path``, printing each step when it is done.

    A database that exists already gains two sessions; what it held stays. Returns
    everything that was shown, as values for JSON.

    Raises:
        SessionDBError: The database cannot be opened or written.
    """
    session_id = f"demo-{uuid.uuid4().hex[:8]}"
    first = asyncio.run(begin(path, session_id))
    show_conversation(console, "1. A Runner holds a conversation", first)
    second = go_on_in_new_process(path, session_id)
    show_conversation(console, "2. A new process goes on with it", second)
    contents = asyncio.run(read_contents(path, session_id))
    console.rule(f"3. What {path} holds", align="left")
    show_contents(console, contents)
    console.rule("4. How long each step takes", align="left")
    timings = asyncio.run(measure(path.parent))
    show_timings(console, timings)
    return {
        "path": str(path),
        "processes": [asdict(part) for part in (first, second)],
        **asdict(contents),
        "timings": [{**asdict(timing), "ratio": timing.ratio} for timing in timings],
    }
