"""The file of locks: private, empty, beside the database, there from the first turn on, and harmless if it is removed.

Seen to fail with a removed file that is not noticed, with one ladder for all sessions, and with a lock that is taken past
those who wait.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from sessiondb import DatabaseSessionService, errors
from sessiondb.model.records import SessionKey
from sessiondb.stores.sqlite.turns import SqliteTurnLocks
from tests.engine.tools import APP, USER, engine_of, move

pytestmark = pytest.mark.anyio

KEY = SessionKey("app", "user", "s")


@pytest.fixture
def file(database_path: Path) -> Path:
    return database_path.with_name(f"{database_path.name}-turns")


@pytest.fixture
def locks(database_path: Path) -> Iterator[list[SqliteTurnLocks]]:
    """Four of them, each with the file open by itself, as processes have it."""
    with ExitStack() as stack:
        yield [stack.enter_context(closing(SqliteTurnLocks(database_path))) for _ in range(4)]


async def test_file_appears_with_the_first_turn_private_and_empty(service: DatabaseSessionService, file: Path) -> None:
    await service.create_session(APP, USER, "s")
    assert _found(file) is None
    async with service.turn(APP, USER, "s"):
        assert _found(file) == (0o600, 0)
    await service.close()
    assert _found(file) == (0o600, 0)


def _found(file: Path) -> tuple[int, int] | None:
    """Permissions and size of a file; None if it is not there."""
    if not file.exists():
        return None
    status = file.stat()
    return stat.S_IMODE(status.st_mode), status.st_size


async def test_memory_database_leaves_no_file_behind() -> None:
    service = DatabaseSessionService(":memory:")
    folder = Path(engine_of(service).store.name).parent
    async with service.turn(APP, USER, "s"):
        assert [path.name for path in folder.glob("*-turns")] == ["memory.sqlite3-turns"]
    await service.close()
    assert not folder.exists()


@pytest.fixture
def link(file: Path, tmp_path: Path) -> Path:
    file.symlink_to(tmp_path / "elsewhere")
    return file


async def test_link_at_its_path_is_refused(service: DatabaseSessionService, link: Path) -> None:
    for _ in range(2):
        with pytest.raises(errors.StorageError, match="cannot open the file of locks"):
            await service.turn(APP, USER, "s").take()
    assert _found(link) is None
    move(link, link.with_name("moved away"))
    async with service.turn(APP, USER, "s"):
        assert _found(link) == (0o600, 0)


def test_lock_is_one_process_s_at_a_time(locks: list[SqliteTurnLocks]) -> None:
    one, two, *_ = locks
    assert one.try_take(KEY)
    assert one.try_take(KEY)
    assert not two.try_take(KEY)
    assert two.try_take(SessionKey("app", "user", "other"))
    one.give_up(KEY)
    one.give_up(KEY)
    assert two.try_take(KEY)
    assert not one.try_take(KEY)


def test_lock_goes_to_who_came_first(locks: list[SqliteTurnLocks]) -> None:
    one, two, three, four = locks
    assert one.try_take(KEY)
    assert not two.try_take(KEY)
    assert not three.try_take(KEY)
    one.give_up(KEY)
    # Nobody has it at this moment, but others came before these.
    assert not four.try_take(KEY)
    assert not one.try_take(KEY)
    assert not three.try_take(KEY)
    assert two.try_take(KEY)
    two.give_up(KEY)
    assert not four.try_take(KEY)
    assert three.try_take(KEY)
    three.give_up(KEY)
    assert four.try_take(KEY)
    four.give_up(KEY)
    assert one.try_take(KEY)


def test_who_gives_up_waiting_lets_the_others_pass(locks: list[SqliteTurnLocks]) -> None:
    one, two, three, _ = locks
    assert one.try_take(KEY)
    assert not two.try_take(KEY)
    assert not three.try_take(KEY)
    two.give_up(KEY)
    one.give_up(KEY)
    assert three.try_take(KEY)


def test_more_wait_than_the_ladder_has_rungs(database_path: Path) -> None:
    with ExitStack() as stack:
        crowd = [stack.enter_context(closing(SqliteTurnLocks(database_path))) for _ in range(20)]
        served: list[SqliteTurnLocks] = []
        while len(served) < len(crowd):
            (winner,) = [each for each in crowd if each not in served and each.try_take(KEY)]
            served.append(winner)
            winner.give_up(KEY)


def test_removed_file_is_made_anew(locks: list[SqliteTurnLocks], file: Path) -> None:
    one, two, three, _ = locks
    other = SessionKey("app", "user", "other")
    assert one.try_take(KEY)
    file.unlink()
    # Those who have one of the old file keep it; the next lock is of the new one, for all.
    assert two.try_take(other)
    assert not one.try_take(other)
    assert not three.try_take(other)
    one.give_up(KEY)
    two.give_up(other)
    assert one.try_take(other)
    assert not two.try_take(other)
