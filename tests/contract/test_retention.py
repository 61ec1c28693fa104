"""What is kept of sessions and logs, on each store."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.adk.events import Event, EventActions
from google.adk.sessions import Session

from sessiondb import DatabaseSessionService, Retention
from sessiondb.errors import EventNotFoundError
from tests.contract.places import APP, SESSION, USER, event
from tests.databases import query

LATER = 4_000_000_000.0
"""When events are: after all sessions were created."""

pytestmark = [pytest.mark.anyio, pytest.mark.each_store]


async def get(service: DatabaseSessionService, name: str = SESSION, *, user: str = USER) -> Session:
    session = await service.get_session(APP, user, name)
    assert session is not None
    return session


async def filled(service: DatabaseSessionService, events: int, name: str = SESSION, *, user: str = USER) -> Session:
    """A session whose events are each an invocation of its own, and set `n` to their number."""
    session = await service.create_session(APP, user, name, {"n": 0, "kept": "k", "gone": 1})
    for number in range(1, events + 1):
        delta = {"n": number, **({"gone": None} if number == 1 else {})}
        await service.append_event(
            session,
            Event(
                id=f"e{number}",
                invocation_id=f"inv {number}",
                author="agent",
                timestamp=LATER + number,
                actions=EventActions(state_delta=delta),
            ),
        )
    return session


async def test_log_is_cut_and_all_that_is_left_works(service: DatabaseSessionService, location: Path | str) -> None:
    session = await filled(service, 10)
    other = await get(service)
    report = await service.prune(Retention(max_events=3))
    assert (report.trimmed, report.events, report.sessions, report.in_use, report.uncut) == (1, 7, 0, 0, 0)
    assert not report.dry_run

    left = await get(service)
    assert [each.id for each in left.events] == ["e8", "e9", "e10"]
    assert left.state == {"n": 10, "kept": "k"}
    assert service.get_event_count(APP, USER, SESSION) == 3
    # A Session that was open goes on, and another one of before is as stale as ever.
    await service.append_event(session, event(LATER + 11, event_id="e11", n=11))
    assert [each.id for each in (await get(service)).events] == ["e8", "e9", "e10", "e11"]
    assert len(other.events) == 10
    # The past: what is left, and the moment of the cut.
    for seq, n in ((7, 7), (8, 8), (11, 11)):
        past = await service.get_session_at(APP, USER, SESSION, seq=seq)
        assert past is not None
        assert past.state == {"n": n, "kept": "k"}
        assert len(past.events) == seq - 7
    for moment in ({"seq": 6}, {"seq": 0}, {"event_id": "e7"}, {"time": LATER + 6.5}):
        with pytest.raises(EventNotFoundError, match="were pruned"):
            await service.get_session_at(APP, USER, SESSION, **moment)  # one of the three
    fork = await service.fork_session(APP, USER, SESSION, at_event_id="e9")
    assert (fork.state, [each.id for each in fork.events]) == ({"n": 9, "kept": "k"}, ["e8", "e9"])
    assert query(location, "SELECT seq FROM adk_events WHERE session_id = ? ORDER BY seq", fork.id) == [(8,), (9,)]
