"""Several processes, and other programs, on one file."""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
import threading
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from google.adk.sessions import Session

from sessiondb import DatabaseSessionService
from sessiondb.errors import DatabaseBusyError, SessionDBError
from sessiondb.stores.sqlite import wal, writer
from tests.faults.figures import Figures
from tests.faults.oracle import assert_sound, find_problems, stored_ids
from tests.faults.process_programs import CHECKPOINT_LOCK, SHARED
from tests.faults.shim import LOCK, OPEN, WRITE, Record, read_log
from tests.faults.sizes import sized
from tests.faults.stepping import Stepper
from tests.faults.workload import APP, make_event, many_clients
from tests.faults.zygote import Child, Zygote

PROGRAM = "tests.faults.process_programs:"


def test_new_file_opened_by_processes_at_once(any_zygote: Zygote, tmp_path: Path, figures: Figures) -> None:
    """Seen failing while the header and the tables of a file were read in several snapshots."""
    rounds, processes = sized(4, 200), 4
    for number in range(rounds):
        path = tmp_path / f"{number}.sqlite3"
        children = [
            any_zygote.start(PROGRAM + "open_new", path=str(path), name=f"s{place}") for place in range(processes)
        ]
        names = [child.result() for child in children]
        assert sorted(stored_ids(path)) == names
    figures("new files opened by 4 processes at once", files=rounds, errors=0)


def prepare(path: Path) -> None:
    async def main() -> None:
        async with DatabaseSessionService(path) as service:
            await service.create_session(app_name=APP, user_id="everybody", session_id=SHARED)

    asyncio.run(main())


def outcome(path: Path, children: Iterable[Child]) -> dict[str, list[str]]:
    """Waits for children that ran ``share``; returns what was acknowledged, after comparing the shared session."""
    acknowledged: dict[str, list[str]] = defaultdict(list)
    shared: dict[str, list[str]] = defaultdict(list)
    reads: list[tuple[int, list[str]]] = []
    for child in children:
        for kind, *said in child.reports():
            match kind:
                case "own":
                    acknowledged[said[0]] += said[1]
                case "shared":
                    shared[said[0]] += said[1]
                case "read":
                    reads.append((said[0], said[1]))
        assert child.wait() == 0
    log = stored_ids(path)[SHARED]
    for task, events in shared.items():
        assert [event for event in log if event.split("/")[1] == task] == events
    for length, last in reads:
        assert log[:length][-1:] == last
    assert len(log) == sum(map(len, shared.values()))
    acknowledged[SHARED] = log
    return acknowledged


def assert_met_in_line(path: Path) -> None:
    """The processes have waited for each other in line: what they did was shown of that, too."""
    assert path.with_name(f"{path.name}-line").stat().st_size == 0


def test_processes_share_a_file_and_lose_nothing(any_zygote: Zygote, tmp_path: Path, figures: Figures) -> None:
    """No error, nothing lost, each task's order kept, reads of one session agree in all processes.

    Seen failing with ``busy_timeout`` 0 (locked), and with reads that leave out what other processes wrote (the cache
    taken for the log).
    """
    path = tmp_path / "db.sqlite3"
    prepare(path)
    processes, tasks, appends = sized((3, 8, 40), (8, 16, 300))
    children = [
        any_zygote.start(PROGRAM + "share", path=str(path), name=f"p{number}", tasks=tasks, appends=appends)
        for number in range(processes)
    ]
    acknowledged = outcome(path, children)
    assert_sound(path, acknowledged)
    assert_met_in_line(path)
    figures(
        "processes sharing a file",
        processes=processes,
        tasks=processes * tasks,
        acknowledged=sum(map(len, acknowledged.values())),
        errors=0,
        lost=0,
    )


def test_processes_mix_append_update_delete_and_read(any_zygote: Zygote, tmp_path: Path, figures: Figures) -> None:
    """Appends, updates, creations, deletions and reads by tasks of several processes: nothing is lost, each session is
    in order, what was deleted is gone, a counter that all increment misses nothing, the caches of all processes agree
    in the end, and nobody is told of anything but of being overtaken.

    Seen failing with ``busy_timeout`` 0 (locked), with a cache that is taken for the log, and with appends that are not
    checked against the revision (the counter).
    """
    path = tmp_path / "db.sqlite3"
    prepare(path)
    processes, tasks, seconds = sized((2, 4, 1.0), (4, 16, 180.0))
    names = [f"p{number}" for number in range(processes)]
    children = [
        any_zygote.start(PROGRAM + "mix", path=str(path), name=name, names=names, tasks=tasks, seconds=seconds)
        for name in names
    ]
    acknowledged: dict[str, list[str]] = defaultdict(list)
    gone: list[str] = []
    digests: set[str] = set()
    counted = overtaken = 0
    # Each is listened to at the same time: they wait for one another, and whose pipe is full says nothing more.
    with ThreadPoolExecutor(processes) as listeners:
        reports = list(listeners.map(lambda child: list(child.reports()), children))
    for child, told in zip(children, reports, strict=True):
        for kind, *said in told:
            match kind:
                case "own":
                    acknowledged[said[0]] += said[1]
                case "gone":
                    gone.append(said[0])
                case "read":
                    digests.add(said[0])
                case "counted":
                    counted += said[0]
                case "told":
                    assert set(said[0]) <= {"StaleSessionError"}
                    overtaken += said[0].get("StaleSessionError", 0)
        assert child.wait() == 0
    assert_sound(path, acknowledged)
    assert_met_in_line(path)
    stored = stored_ids(path)
    assert not set(gone) & set(stored)
    for session, events in acknowledged.items():
        assert [event for event in stored[session] if "/" in event] == events
    assert len(digests) == 1
    shared = asyncio.run(read_shared(path))
    assert shared.state["count"] == counted == sum("/" in event for event in stored[SHARED])
    figures(
        "processes that do everything at once",
        processes=processes,
        tasks=processes * tasks,
        acknowledged=sum(map(len, acknowledged.values())),
        counted_together=counted,
        overtaken=overtaken,
        other_errors=0,
        lost=0,
    )


async def read_shared(path: Path) -> Session:
    async with DatabaseSessionService(path) as service:
        session = await service.get_session(app_name=APP, user_id="everybody", session_id=SHARED)
        assert session is not None
        return session


def test_checkpoints_of_processes_skip_no_wal_frame(any_zygote: Zygote, tmp_path: Path, figures: Figures) -> None:
    """The schedule in which SQLite before 3.51.3 can skip frames (a checkpoint, and a commit that starts the WAL anew,
    while another connection is checkpointing), made as likely as it gets: each process checkpoints after each batch.
    Values are compared, since ``integrity_check`` does not see it.
    """
    path = tmp_path / "db.sqlite3"
    prepare(path)
    processes, tasks, seconds = sized((3, 2, 2.0), (4, 4, 300.0))
    children = [
        any_zygote.start(
            PROGRAM + "share",
            path=str(path),
            name=f"p{number}",
            tasks=tasks,
            appends=None,
            seconds=seconds,
            checkpoint_bytes=1,
        )
        for number in range(processes)
    ]
    acknowledged = outcome(path, children)
    assert_sound(path, acknowledged)
    assert_met_in_line(path)
    figures(
        "checkpoints against resets of the WAL",
        processes=processes,
        seconds=seconds,
        values=sum(map(len, acknowledged.values())),
        mismatches=0,
    )


INSTRUCTIONS = {"": sized(range(240, 320, 20), range(0, 3000, 20)), "passive checkpoints": range(0, 3000, 20)}
"""How far a checkpoint gets, from its lock on, before it is held up: just behind its check of the WAL's header in some.
With the break the first that shows it is the last that is tried.
"""
MENDED = sqlite3.sqlite_version_info >= (3, 51, 3) or sqlite3.sqlite_version_info[:3] in ((3, 50, 7), (3, 44, 6))


@pytest.mark.parametrize("mutant", ["", "passive checkpoints"])
def test_commit_inside_a_checkpoint_loses_no_wal_frame(  # noqa: PLR0915  # one schedule, told in one place
    zygote: Zygote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mutant: str, figures: Figures
) -> None:
    """That schedule, forced: a checkpoint is held up after so many instructions, and meanwhile another process commits,
    which starts the WAL anew. The checkpoint goes on; what is committed next is compared.

    Seen failing with the break "passive checkpoints": an acknowledged event is lost.
    """
    if mutant and MENDED:
        pytest.skip("NOT SHOWN HERE: this SQLite does not have the defect")
    monkeypatch.setattr(wal, "_IDLE_SECONDS", 3600.0)
    path = tmp_path / "db.sqlite3"
    prepare(path)
    orders = tmp_path / "orders"
    os.mkfifo(orders)
    child = zygote.start(PROGRAM + "checkpoint_when_told", path=str(path), orders=str(orders), mutant=mutant)
    said = child.reports()
    assert next(said) == "ready"
    acknowledged: dict[str, list[str]] = {"s": []}
    locked_out = committed = 0
    problems: list[str] = []

    async def append(service: DatabaseSessionService, size: int) -> None:
        session = await service.get_session(app_name=APP, user_id="u", session_id="s")
        assert session is not None
        event = make_event(f"s/{len(acknowledged['s'])}", len(acknowledged["s"]), size=size)
        await service.append_event(session, event)
        acknowledged["s"].append(event.id)

    async def held_up_after(instructions: int, service: DatabaseSessionService) -> None:
        nonlocal locked_out, committed
        await append(service, 60_000)
        # All of the WAL is in the file, and the next commit may start it anew.
        tell("passive")
        assert next(said) == "done"
        tell("stop")
        stepper.wait_until_stopped()
        stepper.step(instructions)
        try:
            await append(service, 10)
            committed += 1
        except DatabaseBusyError:
            locked_out += 1
        stepper.go_on()
        assert next(said) == "done"
        await append(service, 10)
        await append(service, 60_000)
        tell("passive")
        assert next(said) == "done"
        await append(service, 10)

    async def main() -> None:
        async with DatabaseSessionService(path, busy_timeout=0.005) as service:
            await service.create_session(app_name=APP, user_id="u", session_id="s")
            for instructions in INSTRUCTIONS[mutant]:
                try:
                    await held_up_after(instructions, service)
                except SessionDBError as error:
                    problems.append(f"{type(error).__name__} after {instructions} instructions")
                problems.extend(find_problems(path, acknowledged))
                if problems:
                    return

    with Stepper(child.pid) as stepper, orders.open("w") as pipe:

        def tell(order: str) -> None:
            pipe.write(order + "\n")
            pipe.flush()

        asyncio.run(main())
    child.wait()
    if mutant:
        assert problems
    else:
        assert not problems
        assert locked_out > 0
        figures(
            "checkpoints held up at an instruction",
            tried=locked_out + committed,
            commits_locked_out=locked_out,
            mismatches=0,
        )


WRITE_LOCK, DATABASE_LOCK = 120, 0x40000002
"""First bytes of SQLite's locks: of the -shm file, and of the database file."""


def unguarded_checkpoints(records: Iterable[Record]) -> tuple[int, int]:
    """Counts writes to the database file, and those among them that nobody else's commit was locked out of."""
    files: dict[int, str] = {}
    held: dict[str, set[int]] = defaultdict(set)
    writes = unguarded = 0
    for record in records:
        if record.operation == OPEN:
            files[record.descriptor] = record.text
        elif record.operation == LOCK:
            kind, first, length = record.lock
            locks = held[files[record.descriptor][-4:]]
            covered = {lock for lock in (WRITE_LOCK, CHECKPOINT_LOCK, DATABASE_LOCK) if first <= lock < first + length}
            if kind == fcntl.F_WRLCK:
                locks |= covered
            else:
                locks -= covered if length else set(locks)
        elif record.operation == WRITE and files[record.descriptor].endswith(".sqlite3"):
            writes += 1
            unguarded += WRITE_LOCK not in held["-shm"] and DATABASE_LOCK not in held["ite3"]
    return writes, unguarded


@pytest.mark.parametrize("mutant", ["", "passive checkpoints"])
def test_every_checkpoint_holds_the_write_lock(zygote: Zygote, tmp_path: Path, mutant: str, figures: Figures) -> None:
    """The schedule needs a commit in the middle of a checkpoint. Each checkpoint of ours holds the write lock (or, at
    the last close, the whole file) whenever it writes, so that no process can commit meanwhile.

    Seen failing with the break "passive checkpoints".
    """
    path = tmp_path / "db.sqlite3"
    prepare(path)
    logs = [tmp_path / f"log{number}" for number in range(2)]
    children = [
        zygote.start(
            PROGRAM + "share",
            path=str(path),
            name=f"p{number}",
            tasks=2,
            appends=sized(20, 200),
            checkpoint_bytes=1,
            log=str(log),
            mutant=mutant,
        )
        for number, log in enumerate(logs)
    ]
    outcome(path, children)
    counts = [unguarded_checkpoints(read_log(log)) for log in logs]
    assert all(writes > 0 for writes, _ in counts)
    unguarded = sum(unguarded for _, unguarded in counts)
    if mutant:
        assert unguarded > 0
    else:
        assert unguarded == 0
        figures("checkpoint writes, by lock", pages=sum(writes for writes, _ in counts), without_the_write_lock=0)


def test_lock_of_other_process_beyond_busy_timeout(any_zygote: Zygote, tmp_path: Path) -> None:
    """Seen failing with ``DatabaseBusyError`` taken for a failed sync (the writer stopped)."""
    path = tmp_path / "db.sqlite3"

    async def main() -> None:
        async with DatabaseSessionService(path, busy_timeout=0.2) as service:
            session = await service.create_session(app_name=APP, user_id="u", session_id="s")
            await service.append_event(session, make_event("before", 1))
            holder = any_zygote.start(PROGRAM + "hold_lock", path=str(path))
            assert next(holder.reports()) == "locked"
            for number in range(3):
                with pytest.raises(DatabaseBusyError):
                    await service.append_event(session, make_event(f"locked out {number}", 2))
            read = await service.get_session(app_name=APP, user_id="u", session_id="s")
            assert read is not None
            assert [event.id for event in read.events] == ["before"]
            holder.kill()
            assert holder.wait() == -9
            await service.append_event(session, make_event("after", 3))

    asyncio.run(main())
    assert stored_ids(path) == {"s": ["before", "after"]}


def test_posix_locks_survive_other_connection_of_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``sqlite3.connect(path)`` ... ``close()``, as people do, beside the writer, while it checkpoints.

    Seen failing with the file opened and closed by ``os.open``, which gives up the locks of the whole process.
    """
    path = tmp_path / "db.sqlite3"
    monkeypatch.setattr(wal, "_DUE_BYTES", 1)
    monkeypatch.setattr(writer, "_CHECK_SECONDS", 0)
    acknowledged: dict[str, list[str]] = defaultdict(list)
    done = threading.Event()
    counts: list[Any] = []

    def count() -> None:
        while not done.is_set():
            connection = sqlite3.connect(path)
            counts.append(connection.execute("SELECT count(*) FROM adk_events").fetchone())
            connection.close()

    async def main() -> None:
        async with DatabaseSessionService(path) as service:
            thread = threading.Thread(target=count)
            thread.start()
            try:
                await many_clients(
                    service,
                    [f"s{number}" for number in range(8)],
                    sized(40, 1000),
                    lambda session, event: acknowledged[session].extend([event] if event else []),
                )
            finally:
                done.set()
                thread.join()

    asyncio.run(main())
    assert counts
    assert_sound(path, acknowledged)


def test_fork_of_workers_from_busy_server_loses_nothing(any_zygote: Zygote, tmp_path: Path, figures: Figures) -> None:
    """Seen failing with the hooks of ``os.register_at_fork`` taken out."""
    forks = 0
    for round_ in range(sized(2, 25)):
        path = tmp_path / f"{round_}.sqlite3"
        child = any_zygote.start(PROGRAM + "fork_workers", path=str(path), workers=4, appends=10)
        acknowledged: dict[str, list[str]] = defaultdict(list)
        for session, events in child.reports():
            acknowledged[session] += events
        assert child.wait() == 0
        assert len(acknowledged) == 2 + 4 * 4
        assert_sound(path, acknowledged)
        forks += 4
    figures("forked workers", forks=forks, lost=0)


def test_oracle_sees_changed_moved_or_duplicate_rows(tmp_path: Path) -> None:
    """What the tests above compare by: a row changed, moved, removed or doubled is seen."""
    path = tmp_path / "db.sqlite3"
    acknowledged: dict[str, list[str]] = {}

    async def main() -> None:
        async with DatabaseSessionService(path) as service:
            await many_clients(
                service,
                ["a", "b"],
                6,
                lambda session, event: acknowledged.setdefault(session, []).extend([event] if event else []),
            )

    asyncio.run(main())
    assert not find_problems(path, acknowledged)
    pristine = path.read_bytes()
    for damage in (
        "UPDATE adk_events SET content = replace(content, 'a/3', 'a/4') WHERE event_id = 'a/3'",
        "DELETE FROM adk_events WHERE event_id = 'a/3'",
        "DELETE FROM adk_events WHERE event_id = 'a/5'",
        "UPDATE adk_events SET id = id + 100 WHERE event_id = 'a/3'",
        "UPDATE adk_events SET event_id = 'a/2' WHERE event_id = 'a/3'",
        "UPDATE adk_events SET seq = 7 WHERE event_id = 'a/5'",
        "UPDATE adk_state SET state_value = '\"other\"' WHERE state_key = 'last' AND scope = 'SESSION'",
        "DELETE FROM adk_state WHERE scope = 'APP'",
        "DELETE FROM adk_sessions WHERE session_id = 'b'",
        "UPDATE adk_sessions SET last_seq = 7 WHERE session_id = 'b'",
    ):
        path.write_bytes(pristine)
        connection = sqlite3.connect(path)
        connection.execute(damage)
        connection.commit()
        connection.close()
        assert find_problems(path, acknowledged), damage
    path.write_bytes(pristine)
    assert find_problems(path, acknowledged, absent=["a/3"])
