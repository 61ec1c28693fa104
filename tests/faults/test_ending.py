"""Cancellation, shutdown and overload."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from google.adk.sessions import Session

from sessiondb import DatabaseSessionService
from tests.engine.processes import died_in_a_foreign_thread
from tests.faults.ending_programs import WAYS, WITH_A_THREAD_OF_ITS_OWN
from tests.faults.figures import Figures
from tests.faults.oracle import assert_sound, stored_ids
from tests.faults.sizes import sized
from tests.faults.workload import APP, make_event
from tests.faults.zygote import Zygote

PROGRAM = "tests.faults.ending_programs:"


def ours() -> list[str]:
    """Returns the names of the package's threads that are running."""
    for thread in threading.enumerate():
        # It has answered whoever closed, and is at its very end.
        if thread.name == "sessiondb-close":
            thread.join()
    names = [thread.name for thread in threading.enumerate() if thread.name.startswith("sessiondb")]
    # One for all connections to servers, from the first on: it may be there from a test before.
    return [name for name in names if name != "sessiondb-watchdog"]


def test_cancel_storm_leaves_no_append_undecided(tmp_path: Path, rng: random.Random, figures: Figures) -> None:
    """Each cancelled append is stored once and in its live Session, or not at all; a bystander is not harmed.

    Seen failing with a cancellation that goes on without waiting for the answer of a batch under way.
    """
    cancels = sized(400, 2000)
    lanes = 16
    path = tmp_path / "db.sqlite3"
    counts: Counter[str] = Counter()
    slowest = 0.0

    async def lane(service: DatabaseSessionService, name: str) -> Session:
        session = await service.create_session(app_name=APP, user_id="u", session_id=name)
        for n in range(cancels // lanes):
            task = asyncio.create_task(service.append_event(session, make_event(f"{name}/{n}", n)))
            asyncio.get_running_loop().call_later(rng.random() * 0.01 * rng.random(), task.cancel)
            try:
                await task
                counts["answered"] += 1
            except asyncio.CancelledError:
                stored = bool(session.events) and session.events[-1].id == f"{name}/{n}"
                counts["cancelled, stored" if stored else "cancelled, not stored"] += 1
            assert len(session.events) == session.state.get("count", len(session.events))
        return session

    async def bystander(service: DatabaseSessionService, done: asyncio.Event) -> int:
        nonlocal slowest
        session = await service.create_session(app_name=APP, user_id="u", session_id="bystander")
        n = 0
        while not done.is_set():
            started = time.perf_counter()
            await service.append_event(session, make_event(f"bystander/{n}", n))
            slowest = max(slowest, time.perf_counter() - started)
            n += 1
        return n

    async def main() -> None:
        async with DatabaseSessionService(path) as service:
            done = asyncio.Event()
            other = asyncio.create_task(bystander(service, done))
            sessions = await asyncio.gather(*(lane(service, f"lane{number}") for number in range(lanes)))
            done.set()
            appended = await other
            await service.flush()
            stats = service.get_stats()
            assert (stats["pending_writes"], stats["pending_reads"], stats["readers_in_use"]) == (0, 0, 0)
            # A live Session that did not agree with storage would be stale now.
            for session in sessions:
                await service.append_event(session, make_event(f"{session.id}/last", 1))
            live = {session.id: [event.id for event in session.events] for session in sessions}
            live["bystander"] = [f"bystander/{n}" for n in range(appended)]
        assert stored_ids(path) == live
        assert not ours()
        assert_sound(path, live)

    asyncio.run(main())
    figures(
        "cancellations",
        **{name.replace(",", "").replace(" ", "_"): number for name, number in sorted(counts.items())},
        stored_twice=0,
        live_session_differs=0,
        slowest_append_of_a_bystander_ms=f"{slowest * 1000:.0f}",
    )


@pytest.mark.parametrize("way", WAYS)
def test_exit_of_every_kind_keeps_acknowledged_events(
    any_zygote: Zygote, tmp_path: Path, rng: random.Random, figures: Figures, way: str
) -> None:
    """The process ends by itself and without complaint; what was refused is not there.

    Seen failing with a writer thread that is no daemon and no ``atexit`` hook: it never ends.
    """
    for run in range(sized(1, 50)):
        path = tmp_path / f"{run}.sqlite3"
        stderr = tmp_path / f"{run}.stderr"
        child = any_zygote.start(
            PROGRAM + "end", path=str(path), way=way, enough=rng.randrange(1, 400), stderr=str(stderr)
        )
        acknowledged: dict[str, list[str]] = defaultdict(list)
        refused: list[str] = []
        for kind, name, event in child.reports():
            if kind == "refused":
                assert name == "ServiceClosedError"
                refused.append(event)
            else:
                acknowledged[name] += [event] if event else []
        status, complaints = child.wait(), stderr.read_text()
        in_host = way == WITH_A_THREAD_OF_ITS_OWN and died_in_a_foreign_thread(status, complaints)
        assert in_host or (status, complaints) == (0, "")
        assert_sound(path, acknowledged, absent=refused)
        figures(
            "endings under load",
            runs=1,
            acknowledged=sum(map(len, acknowledged.values())),
            refused=len(refused),
            lost=0,
            hung=0,
            aborted_by_a_thread_of_the_host=int(in_host),
        )


def test_open_and_close_leak_no_thread_or_descriptor(tmp_path: Path) -> None:
    """Seen failing with a reader's connection left open."""
    path = tmp_path / "db.sqlite3"

    async def once() -> None:
        async with DatabaseSessionService(path) as service:
            name = str(len(stored))
            stored.append(name)
            session = await service.create_session(app_name=APP, user_id="u", session_id=name)
            await service.append_event(session, make_event(name, 1))
            await asyncio.gather(*(service.get_session(app_name=APP, user_id="u", session_id=name) for _ in range(8)))
            # By a reader's thread, whatever is known already.
            await service.list_sessions(app_name=APP)

    def descriptors() -> list[str]:
        links = []
        for link in Path("/proc/self/fd").iterdir():
            try:
                links.append(str(link.readlink()))
            except FileNotFoundError:
                # The descriptor that lists the folder itself.
                continue
        return sorted(links)

    async def main() -> None:
        await once()
        files = descriptors()
        for _ in range(sized(20, 100)):
            await once()
        assert not ours()
        assert descriptors() == files

    stored: list[str] = []
    asyncio.run(main())


def test_stalled_disk_gives_queue_full_back_pressure(zygote: Zygote, tmp_path: Path, figures: Figures) -> None:
    """Seen failing with a queue without a bound: nobody is told, all wait."""
    path = tmp_path / "db.sqlite3"
    appends = sized(3_000, 10_000)
    found = zygote.run(PROGRAM + "overload", path=str(path), appends=appends)
    assert found["held"]["QueueFullError"] > 0
    assert sum(found["held"].values()) == appends
    assert found["after"] == {"ok": 1600}
    assert found["pending_after"] == 0
    # An append that waits holds its event and little else; nothing is kept of those that were refused.
    assert found["grown_kb"] * 1024 < appends * 40_000
    stored = {event for log in stored_ids(path).values() for event in log}
    assert len(stored) == found["acknowledged"]
    assert not stored & set(found["refused"])
    assert_sound(path, {})
    figures(
        "appends against a disk that stands still",
        appends=appends,
        refused=found["held"]["QueueFullError"],
        acknowledged_later=found["held"]["ok"],
        grown_mb=f"{found['grown_kb'] / 1024:.0f}",
        lost=0,
    )
