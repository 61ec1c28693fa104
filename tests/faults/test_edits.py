"""Truncations and redactions of a process that is killed: none is half done."""

from __future__ import annotations

import asyncio
import random
import threading
from pathlib import Path

from sessiondb import DatabaseSessionService
from sessiondb.adk.events import decode_event
from sessiondb.stores import check, resolve_database
from tests.faults.edit_programs import APP, KEPT, SESSION, USER, Moment, moments
from tests.faults.figures import Figures
from tests.faults.shim import KILL_AFTER, KILL_BEFORE, KILL_TORN, SYNC, TRUNCATE, WRITE
from tests.faults.sizes import sized
from tests.faults.zygote import Zygote
from tests.postgres.server import Server

KILLS = sized(8, 100)


async def look(location: str) -> Moment:
    """Reads the session, and looks whether all of it is of one moment."""
    async with DatabaseSessionService(location) as service:
        session = await service.get_session(app_name=APP, user_id=USER, session_id=SESSION)
    assert session is not None
    kept, added = session.events[:3], session.events[3:]
    assert [event.id for event in kept] == KEPT
    said = {part.text for event in kept if event.content for part in event.content.parts or ()}
    assert len(said) == 1
    names = {"n": 2 + 10 * bool(added)} | {event.id: n if n < 3 else 7 + n for n, event in enumerate(session.events)}
    assert session.state == names
    report = check(resolve_database(location), decode_event)
    assert report.is_sound, report.findings
    assert not report.notes.count
    return Moment(str(said.pop()), len(added))


def edit_until_killed(zygote: Zygote, location: str, rng: random.Random) -> None:
    kill: tuple[str, int, int] | None = None
    if zygote.has_shim and "://" not in location and rng.random() < 0.7:
        kill = (WRITE + SYNC + TRUNCATE, rng.randrange(1, 60), rng.choice([KILL_BEFORE, KILL_AFTER, KILL_TORN]))
    child = zygote.start("tests.faults.edit_programs:edit_until_killed", location=location, kill=kill)
    steps = -1
    last_report = rng.randrange(2, 20)
    for number, _ in enumerate(child.reports()):
        steps = number
        if kill is None and number == last_report:
            # The moment lies anywhere between two answers.
            threading.Event().wait(rng.random() * 0.005)
            child.kill()
    assert child.wait() == -9
    assert steps >= 0
    found = asyncio.run(look(location))
    # Nothing that was answered is missing. What was under way is done, or not begun.
    expected = [Moment("said", 0), *moments()][steps : steps + 2]
    assert found in expected


def test_kill_leaves_no_edit_half_done(
    any_zygote: Zygote, tmp_path: Path, rng: random.Random, figures: Figures
) -> None:
    for number in range(KILLS):
        edit_until_killed(any_zygote, str(tmp_path / f"{number}.sqlite3"), rng)
    figures("edits killed", kills=KILLS, half=0)


def test_kill_beside_server_leaves_no_edit_half_done(
    any_zygote: Zygote, postgres_server: Server, rng: random.Random, figures: Figures
) -> None:
    for _ in range(KILLS // 2):
        edit_until_killed(any_zygote, postgres_server.fresh_database(), rng)
    figures("edits of a server's host killed", kills=KILLS // 2, half=0)
