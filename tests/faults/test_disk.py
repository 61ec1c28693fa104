"""Disks: full, failing, read-only, limited; files removed and replaced."""

from __future__ import annotations

import asyncio
import errno
import itertools
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sessiondb import DatabaseSessionService
from sessiondb.errors import StorageError
from tests.faults.disk_programs import fill, mount
from tests.faults.figures import Figures
from tests.faults.oracle import assert_sound, find_problems, stored_ids
from tests.faults.shim import SYNC, TRUNCATE, WRITE
from tests.faults.sizes import sized
from tests.faults.workload import APP, make_event
from tests.faults.zygote import Zygote

PROGRAM = "tests.faults.disk_programs:"


def attempts(zygote: Zygote, folder: Path, **arguments: Any) -> list[dict[str, Any]]:
    """Lets each call fail in turn; the last attempt is one in which there was no call left to fail."""
    folder.mkdir(exist_ok=True)
    child = zygote.start(PROGRAM + "fail_each_call", folder=str(folder), **arguments)
    found = list(child.reports())
    assert child.wait() == 0
    assert found[-1]["injected"] == 0
    return found[:-1]


WRITE_FAULTS = sized(
    [(WRITE, errno.EIO, False), (WRITE, errno.ENOSPC, True), (TRUNCATE, errno.EIO, False)],
    list(itertools.product([WRITE, TRUNCATE], [errno.EIO, errno.ENOSPC, errno.EROFS, errno.EDQUOT], [False, True])),
)
CHECKPOINTS = sized([1], [1, 20_000, 1 << 30])


@pytest.mark.parametrize(
    ("operations", "error", "lasting"),
    WRITE_FAULTS,
    ids=[
        f"{operation}-{errno.errorcode[error]}-{'lasting' if lasting else 'once'}"
        for operation, error, lasting in WRITE_FAULTS
    ],
)
def test_disk_write_error_eio_enospc_is_answered_truly(
    zygote: Zygote, tmp_path: Path, figures: Figures, *, operations: str, error: int, lasting: bool
) -> None:
    """Seen failing with the break "errors are swallowed", see below."""
    for checkpoint_bytes in CHECKPOINTS:
        for attempt in attempts(
            zygote,
            tmp_path / str(checkpoint_bytes),
            operations=operations,
            error=error,
            lasting=lasting,
            checkpoint_bytes=checkpoint_bytes,
        ):
            assert set(attempt["errors"]) <= {"WriteFailedError"}
            assert attempt["live_agrees"]
            assert attempt["went_on"]
            assert_sound(Path(attempt["path"]), attempt["acknowledged"], absent=attempt["refused"])
            figures(
                "failing writes and truncates",
                faults=1,
                refused=len(attempt["refused"]),
                acknowledged=sum(map(len, attempt["acknowledged"].values())),
                lost=0,
                refused_yet_present=0,
            )


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "lasting"])
@pytest.mark.parametrize("durability", ["full", "normal"])
def test_fsync_error_loses_no_acknowledged_event(
    zygote: Zygote, tmp_path: Path, figures: Figures, *, durability: str, lasting: bool
) -> None:
    """Seen failing with the break "failed sync is retried", see below."""
    for checkpoint_bytes in CHECKPOINTS:
        for attempt in attempts(
            zygote,
            tmp_path / str(checkpoint_bytes),
            operations=SYNC,
            error=errno.EIO,
            lasting=lasting,
            durability=durability,
            checkpoint_bytes=checkpoint_bytes,
        ):
            assert set(attempt["errors"]) <= {"WriterStoppedError"}
            assert attempt["went_on"]
            path = Path(attempt["path"])
            assert_sound(path, attempt["acknowledged"])
            stored = {event for log in stored_ids(path).values() for event in log}
            figures(
                "failing syncs",
                faults=1,
                stopped_writers=int(attempt["stopped"]),
                failed_checkpoints=int(attempt["failed_checkpoints"] > 0),
                unanswered=len(attempt["unknown"]),
                unanswered_yet_present=len(stored & set(attempt["unknown"])),
                lost=0,
            )


def test_mutant_that_swallows_disk_errors_is_noticed(zygote: Zygote, tmp_path: Path) -> None:
    found = attempts(
        zygote,
        tmp_path / "db",
        operations=WRITE,
        error=errno.EIO,
        lasting=False,
        checkpoint_bytes=1 << 30,
        mutant="errors are swallowed",
    )
    assert any(find_problems(Path(attempt["path"]), attempt["acknowledged"]) for attempt in found)


def test_fsync_error_under_load_stops_the_writer(zygote: Zygote, tmp_path: Path) -> None:
    """Seen failing with the break "failed sync is retried", see below."""
    path = tmp_path / "db.sqlite3"
    found = zygote.run(PROGRAM + "fail_sync_under_load", path=str(path))
    assert found["waiting"] == ["WriterStoppedError"]
    assert found["later"] == ["WriterStoppedError"]
    assert found["closed"] == ["ServiceClosedError"]
    assert_sound(path, found["acknowledged"])


def test_mutant_that_retries_fsync_is_noticed(zygote: Zygote, tmp_path: Path) -> None:
    path = tmp_path / "db.sqlite3"
    found = zygote.run(PROGRAM + "fail_sync_under_load", path=str(path), mutant="failed sync is retried")
    assert found["later"] != ["WriterStoppedError"]


@pytest.mark.parametrize(
    ("operations", "name"),
    [(WRITE, ".sqlite3"), (SYNC, ".sqlite3")],
    ids=["write", "sync"],
)
def test_checkpoint_io_error_fails_no_append(zygote: Zygote, tmp_path: Path, operations: str, name: str) -> None:
    """Seen failing with ``WalKeeper.checkpoint`` raising what SQLite raises."""
    path = tmp_path / "db.sqlite3"
    found = zygote.run(PROGRAM + "fail_checkpoints", path=str(path), operations=operations, name=name)
    assert found["errors"] == {}
    assert found["failed"] > 0
    assert found["logged"] == found["failed_in_the_end"] == found["failed"]
    assert found["checkpoints"] > 0
    assert_sound(path, found["acknowledged"])


def test_truncate_error_of_wal_fails_neither_append_nor_checkpoint(zygote: Zygote, tmp_path: Path) -> None:
    """SQLite keeps it to itself: the WAL stays as large as it is."""
    path = tmp_path / "db.sqlite3"
    found = zygote.run(PROGRAM + "fail_checkpoints", path=str(path), operations=TRUNCATE, name="-wal")
    assert (found["errors"], found["failed"]) == ({}, 0)
    assert found["checkpoints"] > 5
    assert_sound(path, found["acknowledged"])


def test_wal_fsync_error_with_normal_durability_stops_writer(zygote: Zygote, tmp_path: Path) -> None:
    """With "normal" durability the WAL's first sync is the checkpoint's. If it fails, frames that were answered for may
    be gone from memory: a second sync would succeed without them, and the checkpoint would copy whatever is there.

    Seen failing while a failed sync of a checkpoint was only counted.
    """
    path = tmp_path / "db.sqlite3"
    found = zygote.run(PROGRAM + "fail_checkpoints", path=str(path), operations=SYNC, name="-wal", durability="normal")
    assert set(found["errors"]) == {"WriterStoppedError"}


def test_file_size_limit_refuses_append_and_goes_on(any_zygote: Zygote, tmp_path: Path) -> None:
    """Seen failing with the break "errors are swallowed"."""
    path = tmp_path / "db.sqlite3"
    found = any_zygote.run(PROGRAM + "grow_past_limit", path=str(path))
    assert set(found["errors"]) == {"WriteFailedError"}
    assert found["refused_under_limit"] > 0
    assert found["refused_after"] == 0
    assert_sound(path, found["acknowledged"], absent=found["refused"])


UMOUNT = shutil.which("umount") or "/bin/umount"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 2 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    done = mount and subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=2m,mode=700", "sessiondb-test", str(folder)],
        capture_output=True,
        check=False,
    )
    if not done or done.returncode:
        pytest.skip("NOT SHOWN HERE: mounting a small tmpfs needs root and CAP_SYS_ADMIN")
    yield folder
    subprocess.run([UMOUNT, "--lazy", str(folder)], check=True)


def test_disk_full_refuses_append_until_there_is_space(any_zygote: Zygote, small_disk: Path, figures: Figures) -> None:
    """Seen failing with the break "errors are swallowed"."""
    for round_ in range(sized(2, 20)):
        path = small_disk / f"{round_}.sqlite3"
        found = any_zygote.run(PROGRAM + "fill_disk", path=str(path))
        assert set(found["errors"]) == {"WriteFailedError"}
        assert found["refused_while_full"] > 0
        assert found["refused_after"] == 0
        assert found["read_while_full"] == found["acknowledged"]["s-0"][: len(found["read_while_full"])]
        assert_sound(path, found["acknowledged"], absent=found["refused"])
        path.unlink()
        figures("full file system", times=1, refused=len(found["refused"]), lost=0)


@pytest.mark.parametrize(
    ("memory", "temporary", "expected"),
    [("64m", "1g", "temporary"), ("1g", "1g", "memory"), ("64m", "2m", "memory"), ("64m", None, "memory")],
    ids=["small memory", "large memory", "nothing is large", "no temporary files"],
)
def test_memory_database_is_where_there_is_room(
    any_zygote: Zygote, tmp_path: Path, memory: str, temporary: str | None, expected: str
) -> None:
    """A container has 64 MiB in ``/dev/shm``. Seen failing while a database in memory was put there all the same."""
    found = any_zygote.run(
        PROGRAM + "open_in_memory", memory=memory, folder=str(tmp_path), temporary=temporary, megabytes=80
    )
    if found is None:
        pytest.skip("NOT SHOWN HERE: file systems of a process's own need root and CAP_SYS_ADMIN")
    place = {"temporary": str(tmp_path), "memory": "/dev/shm"}[expected]  # noqa: S108  # where it is looked for
    assert str(Path(found["path"]).parents[1]) == place
    assert (["memory_database_on_disk", "WARNING"] in found["logged"]) == (expected == "temporary")
    # More than a container's memory; where there is no room at all, it is said.
    assert found["refused"] == (None if temporary == "1g" else "WriteFailedError")
    assert found["left"] == []


def test_disk_full_at_open_is_storage_error(small_disk: Path) -> None:
    fill(small_disk / "ballast")
    with pytest.raises(StorageError):
        DatabaseSessionService(small_disk / "db.sqlite3")
    (small_disk / "ballast").unlink()
    with closing_service(small_disk / "db.sqlite3") as service:
        assert service.get_stats()["sessions"] == 0


def test_read_only_file_system_is_storage_error(small_disk: Path) -> None:
    """Seen failing with the file opened in ``prepare_file`` for reading only when it exists."""
    path = small_disk / "db.sqlite3"
    with closing_service(path) as service:
        service.vacuum()
    assert mount("-o", "remount,ro", str(small_disk))
    with pytest.raises(StorageError, match=r"[Rr]ead-?only"):
        DatabaseSessionService(path)
    with pytest.raises(StorageError, match="Read-only"):
        DatabaseSessionService(small_disk / "new.sqlite3")
    assert mount("-o", "remount,rw", str(small_disk))
    with closing_service(path) as service:
        service.vacuum()


@contextmanager
def closing_service(path: Path) -> Iterator[DatabaseSessionService]:
    service = DatabaseSessionService(path)
    yield service
    asyncio.run(service.close())


def unlinked(path: Path) -> None:
    path.unlink()


def replaced(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(b"")
    other.replace(path)


def wal_unlinked(path: Path) -> None:
    path.with_name(path.name + "-wal").unlink()


def folder_moved(path: Path) -> None:
    path.parent.rename(path.parent.with_name("elsewhere"))


@pytest.mark.parametrize("harm", [unlinked, replaced, wal_unlinked, folder_moved])
def test_removed_or_replaced_file_acknowledges_no_append(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    """Somebody removes or replaces the file, or its WAL, while it is open: whoever opens that path later must find
    what is acknowledged from then on, so there are no acknowledgements from that moment on.

    Seen failing while the writer checked the path ten times a second.
    """
    path = tmp_path / "folder" / "db.sqlite3"

    async def main() -> None:
        service = DatabaseSessionService(path)
        session = await service.create_session(app_name=APP, user_id="u", session_id="s")
        await service.append_event(session, make_event("before", 1))
        harm(path)
        with pytest.raises(StorageError, match=r"removed|replaced|moved|gone"):
            await service.append_event(session, make_event("after", 2))
        with pytest.raises(StorageError):
            await service.append_event(session, make_event("later", 3))
        await service.close()
        # The path is good for a new file.
        async with DatabaseSessionService(path) as reopened:
            session = await reopened.create_session(app_name=APP, user_id="u", session_id="new")
            await reopened.append_event(session, make_event("new", 4))
        assert stored_ids(path)["new"] == ["new"]

    asyncio.run(main())
