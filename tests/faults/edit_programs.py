"""A process that cuts a conversation off and redacts it, for ever: a target for :class:`tests.faults.zygote.Zygote`."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import NamedTuple

from google.adk.events import Event, EventActions
from google.genai import types

from sessiondb import DatabaseSessionService
from tests.faults import shim as faults_shim
from tests.faults.zygote import Report

APP, USER, SESSION = "faults", "user", "edited"

KEPT = ["kept 0", "kept 1", "kept 2"]
"""The ids of the events that no truncation reaches."""


class Moment(NamedTuple):
    """What the session is between two steps."""

    replacement: str
    """What stands in the place of all that the kept events said."""
    added: int
    """How many events there are behind these."""


def moments() -> list[Moment]:
    """The moments that :func:`edit_until_killed` goes through, in their order, for as long as anybody will count."""
    found = []
    for n in range(2_000):
        before = f"{n - 1}" if n else "said"
        found += [Moment(before, 3), Moment(f"{n}", 3), Moment(f"{n}", 0)]
    return found


def _event(name: str, n: int) -> Event:
    content = types.Content(role="user", parts=[types.Part(text="said")])
    return Event(
        id=name, author="user", invocation_id="i", content=content, actions=EventActions(state_delta={"n": n, name: n})
    )


def edit_until_killed(report: Report, *, location: str, kill: tuple[str, int, int] | None) -> None:
    """Appends three events, redacts those before them, cuts the three off, and begins again; each step is reported.

    Args:
        location: The file, or the URL of a server.
        kill: As in :func:`tests.faults.programs.write_until_killed`.
    """
    if kill is not None:
        shim = faults_shim.Shim()
        shim.watch(Path(location).parent)

    async def main() -> None:
        service = DatabaseSessionService(location)
        session = await service.create_session(app_name=APP, user_id=USER, session_id=SESSION)
        await service.append_events(session, [_event(name, n) for n, name in enumerate(KEPT)])
        if kill is not None:
            operations, nth, action = kill
            shim.arm(operations, action, nth=nth)
        report("begun")
        for n in itertools.count():
            await service.append_events(session, [_event(f"{n}/{m}", 10 + m) for m in range(3)])
            report(n)
            await service.redact_events(APP, USER, SESSION, KEPT, f"{n}")
            report(n)
            session = await service.truncate_session(APP, USER, SESSION, after_event_id=KEPT[-1])
            report(n)

    asyncio.run(main())
