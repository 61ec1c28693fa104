"""A backup is of one moment, complete and sound, whatever is written meanwhile; or it is not there."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from sessiondb import DatabaseSessionService
from sessiondb.adk.events import decode_event
from sessiondb.errors import DatabaseBusyError, DatabaseCorruptError, ServiceClosedError, WriteFailedError
from sessiondb.stores.sqlite import backup, header, schema
from sessiondb.stores.sqlite.readonly import ATTEMPTS
from sessiondb.stores.sqlite.repair.check import check
from tests.command import run_sessiondb
from tests.engine.tools import engine_of
from tests.sqlite.repair.conftest import Original
from tests.sqlite.repair.copying import Gate, names_in, write
from tests.sqlite.repair.files import APP, PAGE, TABLES, event_of, overwrite, rows_of, user_of

pytestmark = pytest.mark.anyio


def times(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}


async def test_backup_is_one_complete_sound_file(
    service: DatabaseSessionService, original: Original, target: Path
) -> None:
    report = await service.backup(target)
    assert (report.path, report.sessions, report.events) == (target, 180, 1080)
    assert report.state_keys == len(original.rows["adk_state"])
    assert names_in(target.parent) == [target.name]
    status = os.stat(target)  # noqa: PTH116  # Path.stat is taken for slow in a coroutine
    assert status.st_mode & 0o777 == 0o600
    assert report.file_bytes == status.st_size
    assert rows_of(target) == original.rows
    with closing(sqlite3.connect(f"file:{target}?mode=ro", uri=True)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        assert connection.execute("PRAGMA application_id").fetchone() == (header.APPLICATION_ID,)
        assert connection.execute("PRAGMA user_version").fetchone() == (schema.SCHEMA_VERSION,)
    assert check(target, decode_event).is_sound
    assert names_in(target.parent) == [target.name]


async def test_backup_under_load_is_prefix_of_acknowledged(service: DatabaseSessionService, target: Path) -> None:
    acknowledged: dict[str, list[str]] = {f"loaded_{number}": [] for number in range(8)}
    rounds = [anyio.Event() for _ in range(3)]
    enough = False

    async def append(number: int) -> None:
        name = f"loaded_{number}"
        session = await service.create_session(APP, user_of(number), name)
        turn = 0
        while not enough:
            event = event_of(1000 + number, turn)
            await service.append_event(session, event)
            acknowledged[name].append(event.id)
            turn += 1
            for passed, reached in enumerate(rounds):
                if min(map(len, acknowledged.values())) >= 10 * (passed + 1):
                    reached.set()

    gate = Gate()
    async with anyio.create_task_group() as group:
        for number in range(8):
            group.start_soon(append, number)
        await rounds[0].wait()
        before = {name: len(ids) for name, ids in acknowledged.items()}

        async def copy() -> None:
            await service.backup(target, progress=gate)

        async with anyio.create_task_group() as copying:
            copying.start_soon(copy)
            await gate.begun()
            # The copy holds its snapshot, and writes are acknowledged all the same.
            await rounds[1].wait()
            at_first_step = {name: len(ids) for name, ids in acknowledged.items()}
            gate.open()
        await rounds[2].wait()
        enough = True

    # Commits in between have not made it start over.
    total = gate.steps[0][1]
    assert gate.steps == [
        (min(step * backup._STEP_PAGES, total), total) for step in range(1, -(-total // backup._STEP_PAGES) + 1)
    ]
    assert check(target, decode_event).is_sound
    copied: dict[str, list[str]] = {name: [] for name in acknowledged}
    for row in rows_of(target)["adk_events"].values():
        if row[3] in copied:
            copied[row[3]].append(row[12])
    for name, ids in copied.items():
        assert ids == acknowledged[name][: len(ids)]
        assert before[name] <= len(ids)
    assert sum(map(len, copied.values())) < sum(at_first_step.values())


async def test_restore_of_backup_as_documented(service: DatabaseSessionService, path: Path, target: Path) -> None:
    saved = await service.get_session(APP, user_of(30), "s30")
    assert saved is not None
    await service.backup(target)
    again = await service.get_session(APP, user_of(30), "s30")
    assert again is not None
    await service.append_event(again, event_of(30, 77))
    # 1. Stop. 2. Move the file away, and remove what belongs to it. 3. Put the backup in its place. 4. Start.
    await service.close()
    set_aside(path)
    shutil.copyfile(target, path)
    async with DatabaseSessionService(path) as restored:
        found = await restored.get_session(APP, user_of(30), "s30")
        assert found == saved
        for turn in range(300):
            await restored.append_event(found, event_of(5000, turn))
        assert restored.get_event_count(APP, user_of(30), "s30") == len(saved.events) + 300
    assert check(path, decode_event).is_sound


def set_aside(path: Path) -> None:
    path.rename(path.with_name("old.sqlite3"))
    for suffix in ("-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)


async def test_backup_of_memory_database(target: Path) -> None:
    async with DatabaseSessionService(":memory:") as service:
        session = await service.create_session(APP, "u", "s")
        await service.append_event(session, event_of(1, 1))
        report = await service.backup(target)
    assert (report.sessions, report.events) == (1, 1)
    async with DatabaseSessionService(target) as restored:
        assert await restored.get_session(APP, "u", "s") == session


async def test_cancelled_backup_leaves_no_file(service: DatabaseSessionService, target: Path) -> None:
    gate = Gate()
    task = asyncio.ensure_future(service.backup(target, progress=gate))
    await gate.begun()
    assert len(names_in(target.parent)) == 1
    task.cancel()
    for _ in range(5):
        # The loop delivers the cancellation in a few rounds.
        await anyio.lowlevel.checkpoint()
    gate.open()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert names_in(target.parent) == []
    assert len(gate.steps) == 1
    await service.backup(target)


async def test_exception_of_progress_callback_ends_backup(service: DatabaseSessionService, target: Path) -> None:
    def fail(_copied: int, _total: int) -> None:
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        await service.backup(target, progress=fail)
    assert names_in(target.parent) == []


async def test_close_stops_a_backup_under_way(
    service: DatabaseSessionService, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()
    task = asyncio.ensure_future(service.backup(target, progress=gate))
    await gate.begun()
    _open_when_asked_to_let_go(service, gate, monkeypatch)
    await service.close()
    with pytest.raises(ServiceClosedError):
        await task
    assert names_in(target.parent) == []
    with pytest.raises(ServiceClosedError):
        await service.backup(target)


def _open_when_asked_to_let_go(service: DatabaseSessionService, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a backup go on once somebody waits for it to give up the file."""
    jobs = engine_of(service).threads.jobs

    def is_idle() -> bool:
        gate.open()
        return not jobs._running

    monkeypatch.setattr(jobs, "_is_idle", is_idle)


async def test_backup_starts_over_after_a_fork(
    service: DatabaseSessionService, original: Original, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()
    task = asyncio.ensure_future(service.backup(target, progress=gate))
    await gate.begun()
    _open_when_asked_to_let_go(service, gate, monkeypatch)
    engine = engine_of(service)
    # What a fork does, before and after, in the parent.
    await anyio.to_thread.run_sync(engine.threads.suspend)
    assert names_in(target.parent) == []
    await anyio.to_thread.run_sync(engine.threads.resume)
    await task
    assert gate.steps[0] == gate.steps[1]
    assert rows_of(target) == original.rows


async def test_backup_of_corrupt_file_is_not_kept(original: Original, path: Path, target: Path) -> None:
    pages = sorted(original.layout.of_table("adk_events"))[10:20]
    write(path, overwrite(original.data, pages, bytes(PAGE)))
    async with DatabaseSessionService(path) as service:
        with pytest.raises((DatabaseCorruptError, WriteFailedError)):
            await service.backup(target)
    assert names_in(target.parent) == []


async def test_two_backups_run_at_the_same_time(
    service: DatabaseSessionService, original: Original, target: Path
) -> None:
    gates = [Gate(), Gate()]
    targets = [target.with_name(f"{number}.sqlite3") for number in range(2)]
    tasks = [
        asyncio.ensure_future(service.backup(one, progress=gate)) for one, gate in zip(targets, gates, strict=True)
    ]
    for gate in gates:
        await gate.begun()
    for gate in gates:
        gate.open()
    await asyncio.gather(*tasks)
    assert [rows_of(one) for one in targets] == [original.rows, original.rows]


async def test_backup_from_outside_leaves_no_trace(
    service: DatabaseSessionService, original: Original, path: Path, target: Path
) -> None:
    session = await service.create_session(APP, user_of(0), "new")
    await service.append_event(session, event_of(0, 0))
    before = times(path.parent)
    assert backup.back_up(path, target, overwrite=False, progress=None).events == 1081
    assert times(path.parent) == before

    await service.close()
    before = times(path.parent)
    assert list(before) == [path.name]
    backup.back_up(path, target, overwrite=True, progress=None)
    assert times(path.parent) == before
    assert rows_of(target) == rows_of(path)


@pytest.mark.parametrize("changes", [1, ATTEMPTS])
async def test_backup_from_outside_retries_when_file_changes(
    original: Original, path: Path, target: Path, changes: int
) -> None:
    def change(copied: int, total: int) -> None:
        nonlocal changes
        if copied == total and changes:
            changes -= 1
            os.utime(path)

    if changes < ATTEMPTS:
        backup.back_up(path, target, overwrite=False, progress=change)
        assert rows_of(target) == original.rows
    else:
        with pytest.raises(DatabaseBusyError, match="changed by another program"):
            backup.back_up(path, target, overwrite=False, progress=change)
        assert names_in(target.parent) == []
    assert changes == 0


def test_backup_command_reports_and_refuses_overwrite(original: Original, path: Path, target: Path) -> None:
    done = run_sessiondb("backup", path, target, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert [report[name] for name in ("path", "sessions", "events", "state_keys")] == [
        str(target),
        *(len(original.rows[table]) for table in TABLES),
    ]
    assert rows_of(target) == original.rows

    done = run_sessiondb("backup", path, target)
    assert (done.returncode, done.stdout) == (1, "")
    assert "exists" in done.stderr
    assert len(done.stderr.splitlines()) == 1

    done = run_sessiondb("backup", path, target, "--overwrite")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split()[:2] == ["sessions", "180"]
    assert names_in(target.parent) == [target.name]
    assert names_in(path.parent) == [path.name]
    done = run_sessiondb("backup", path, path, "--overwrite")
    assert (done.returncode, done.stdout) == (1, "")
    assert "the database itself" in done.stderr
    assert run_sessiondb("backup", path).returncode == 2


def test_ctrl_c_while_sqlite_works_is_not_taken_for_a_refusal(
    path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen failing with "SQLite refused the write", when Python handles the signal within SQLite's progress handler."""
    monkeypatch.setattr(backup, "_STEP_INSTRUCTIONS", 10)
    looks = 0

    def meets_ctrl_c() -> bool:
        nonlocal looks
        looks += 1
        if looks == 1:
            raise KeyboardInterrupt
        return True

    with closing(sqlite3.connect(path)) as source, pytest.raises(KeyboardInterrupt):
        backup.copy_database(source, path, target, overwrite=False, goes_on=meets_ctrl_c)
    assert looks == 2
    assert list(target.parent.iterdir()) == []
