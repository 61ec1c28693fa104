"""Forgetting a user: what is deleted, what stays, and what happens beside it, on each store."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from sessiondb import DatabaseSessionService, ErasureReport
from sessiondb.errors import InvalidInputError, SessionNotFoundError
from tests.contract.places import APP, SESSION, USER, event
from tests.databases import query
from tests.engine.tools import at_rest, engine_of

pytestmark = [pytest.mark.anyio, pytest.mark.each_store]

HOSTILE = ["' OR 1=1 --", "%", "_", 'a"b', "x" * 1000, "日本🤖", "{}", "$1 %(x)s :user_id", ""]


async def fill(service: DatabaseSessionService, app: str, user: str, name: str = SESSION) -> None:
    """A session of two events, a key of its own, one of its user and one of the app."""
    session = await service.create_session(app, user, name, {"own": 1, "user:theme": "dark", "app:tax": 7})
    await service.append_event(session, event(more=[1]))
    await service.append_event(session, event(user__theme="light"))


async def counts(service: DatabaseSessionService) -> tuple[int, int, int]:
    stats = service.get_stats()
    return stats["sessions"], stats["events"], stats["state_keys"]


@pytest.fixture
def some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few rows make several commands."""
    monkeypatch.setattr("sessiondb.calls.erasure.ERASED_AT_ONCE", 3)


async def test_erasure_deletes_all_that_belongs_to_the_user(
    service: DatabaseSessionService, location: Path | str
) -> None:
    await fill(service, APP, USER)
    await fill(service, APP, USER, "another")
    await service.update_keys(APP, USER, SESSION, {"user:added": 1})
    report = await service.erase_user(APP, USER)
    assert report == ErasureReport(sessions=2, events=5, state_keys=6, forks=0, purged=True, hint="")
    assert await counts(service) == (0, 0, 1)
    for table in ("adk_sessions", "adk_events", "adk_state"):
        assert query(location, f"SELECT count(*) FROM {table} WHERE user_id = ?", USER) == [(0,)]
    assert await service.get_user_state(APP, USER) == {}
    assert await service.get_session(APP, USER, SESSION) is None
    # The state of the app is everybody's.
    assert (await service.create_session(APP, USER, SESSION)).state == {"app:tax": 7}


async def test_erasure_leaves_others_alone(service: DatabaseSessionService) -> None:
    others = [(APP, "other"), ("other", USER), (APP, USER.upper()), (APP, ""), (APP, f"{USER} ")]
    for app, user in others:
        await fill(service, app, user)
    before = [await service.get_session(app, user, SESSION) for app, user in others]
    await fill(service, APP, USER)
    assert (await service.erase_user(APP, USER)).sessions == 1
    assert [await service.get_session(app, user, SESSION) for app, user in others] == before
    assert [await service.get_user_state(app, user) for app, user in others] == [{"theme": "light"}] * len(others)


async def test_hostile_ids_erase_what_they_name(service: DatabaseSessionService) -> None:
    for text in HOSTILE:
        await fill(service, text, text, f"{text}s")
    for left, text in enumerate(reversed(HOSTILE), 1):
        assert (await service.erase_user(text, text, purge=False)).sessions == 1
        assert (await counts(service))[0] == len(HOSTILE) - left
    for wrong in ("a\0b", "\ud800", "x" * 4097, None, 1):
        with pytest.raises(InvalidInputError):
            await service.erase_user(wrong, USER)  # type: ignore[arg-type]  # what is refused
        with pytest.raises(InvalidInputError):
            await service.erase_user(APP, wrong)  # type: ignore[arg-type]  # what is refused


@pytest.mark.usefixtures("some_at_a_time")
async def test_large_user_goes_in_parts(service: DatabaseSessionService) -> None:
    """A session that is too large for one part, small ones, and more state of the user than one part takes."""
    large = await service.create_session(APP, USER, "b large", {f"user:{n}": n for n in range(8)})
    await service.append_events(large, [event(n=number) for number in range(11)])
    for name in ("a", "c", "d", "e"):
        await service.create_session(APP, USER, name, {"own": 1})
    for number in range(7):
        await service.fork_session(APP, USER, "b large", new_user_id="other", new_session_id=f"fork {number}")
    await fill(service, APP, "other")
    report = await service.erase_user(APP, USER)
    assert report == ErasureReport(sessions=5, events=11, state_keys=13, forks=7, purged=True, hint="")
    assert [row["user_id"] for row in await service.list_sessions(APP)] == ["other"] * 8


async def test_dry_run_counts_and_changes_nothing(service: DatabaseSessionService) -> None:
    await fill(service, APP, USER)
    await service.fork_session(APP, USER, SESSION, new_user_id="other", new_session_id="fork")
    await service.fork_session(APP, USER, SESSION)
    before = await counts(service)
    planned = await service.erase_user(APP, USER, dry_run=True)
    assert await counts(service) == before
    assert (planned.purged, planned.hint) == (False, "dry_run=True: nothing was deleted")
    done = await service.erase_user(APP, USER)
    assert (done.sessions, done.events, done.state_keys, done.forks) == (2, 4, 5, 1)
    assert (planned.sessions, planned.events, planned.state_keys, planned.forks) == (2, 4, 5, 1)


async def test_erasure_can_be_called_again(service: DatabaseSessionService) -> None:
    nothing = ErasureReport(sessions=0, events=0, state_keys=0, forks=0, purged=True, hint="")
    assert await service.erase_user(APP, USER) == nothing
    await fill(service, APP, USER)
    assert (await service.erase_user(APP, USER)).events == 2
    assert await service.erase_user(APP, USER) == nothing


async def test_forks_of_others_stay_and_forget_where_they_are_from(service: DatabaseSessionService) -> None:
    await fill(service, APP, USER)
    await service.fork_session(APP, USER, SESSION, new_user_id="other", new_session_id="fork")
    await service.fork_session(APP, "other", "fork", new_session_id="fork of the fork")
    before = await service.get_session(APP, "other", "fork")
    report = await service.erase_user(APP, USER)
    assert (report.sessions, report.forks) == (1, 1)
    assert await service.get_session(APP, "other", "fork") == before
    assert [(each.key.session_id, *each.origin) for each in await service.list_forks(APP)] == [
        ("fork", None, None, 2),
        ("fork of the fork", "other", "fork", 2),
    ]
    assert await service.list_forks(APP, USER) == []
    # What it has taken over is still known as that.
    assert [change.new for change in await service.history(APP, "other", "fork", "more")] == [[1]]


async def test_live_sessions_of_the_user_are_of_no_use_any_more(service: DatabaseSessionService) -> None:
    session = await service.create_session(APP, USER, SESSION)
    await service.append_event(session, event(n=1))
    await service.erase_user(APP, USER)
    with pytest.raises(SessionNotFoundError):
        await service.append_event(session, event(n=2))
    await service.create_session(APP, USER, SESSION)
    read = await service.get_session(APP, USER, SESSION)
    assert read is not None
    assert (read.events, read.state) == ([], {})


async def test_cached_logs_go_too_in_all_services_of_the_process(
    service: DatabaseSessionService, location: Path | str
) -> None:
    async with DatabaseSessionService(location) as second:
        for user in (USER, "other"):
            await fill(service, APP, user)
            for reader in (service, second):
                read = await reader.get_session(APP, user, SESSION)
                assert read is not None
        caches = [each._logs.cache for each in (service, second)]
        await service.erase_user(APP, USER)
        assert [sorted(cache._entries) for cache in caches if cache] == [[(APP, "other", SESSION)]] * 2
        assert [cache.bytes > 0 for cache in caches if cache] == [True] * 2


@pytest.mark.usefixtures("some_at_a_time")
async def test_others_write_while_a_user_is_erased(service: DatabaseSessionService) -> None:
    """What the user's own clients do meanwhile is erased too, or refused; what comes afterwards is new."""
    for number in range(20):
        await fill(service, APP, USER, f"s{number}")
    other = await service.create_session(APP, "other", SESSION)
    done = False

    async def others() -> int:
        appended = 0
        while not done:
            await service.append_event(other, event(n=appended))
            appended += 1
        return appended

    async def own() -> None:
        session = await service.create_session(APP, USER, "own")
        for number in range(1000):
            if done:
                return
            try:
                await service.append_event(session, event(n=number, user__n=number))
            except SessionNotFoundError:
                return

    async def erase() -> ErasureReport:
        nonlocal done
        try:
            return await service.erase_user(APP, USER)
        finally:
            done = True

    appended, report, _ = await asyncio.gather(others(), erase(), own())
    assert report.sessions >= 20
    read = await service.get_session(APP, "other", SESSION)
    assert read is not None
    assert [each.actions.state_delta["n"] for each in read.events] == list(range(appended))
    # All that is there now came after the end of it.
    await service.erase_user(APP, USER, purge=False)
    assert [row["user_id"] for row in await service.list_sessions(APP)] == ["other"]
    assert await service.get_user_state(APP, USER) == {}


@pytest.mark.usefixtures("some_at_a_time")
async def test_cancelled_erasure_is_finished_by_the_next_call(service: DatabaseSessionService) -> None:
    await fill(service, APP, "other")
    for steps in range(0, 60, 4):
        for number in range(5):
            await fill(service, APP, USER, f"s{number}")
        task = asyncio.ensure_future(service.erase_user(APP, USER))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        # Sessions go as a whole.
        for row in await service.list_sessions(APP, USER):
            assert service.get_event_count(APP, USER, row["session_id"]) == 2
        assert (await service.erase_user(APP, USER, purge=False)).hint
        assert await counts(service) == (1, 2, 4)


async def test_log_event_names_nobody(service: DatabaseSessionService, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "sessiondb")
    await fill(service, APP, "xyzzy-somebody", "xyzzy-session")
    await service.erase_user(APP, "xyzzy-somebody")
    logged = [record for record in caplog.records if record.msg == "user_erased"]
    (fields,) = ({**vars(record)} for record in logged)
    assert (fields["sessions"], fields["events"], fields["purged"]) == (1, 2, True)
    assert not [record for record in caplog.records if "xyzzy" in repr(vars(record))]


async def test_store_that_refuses_to_purge_says_so(
    service: DatabaseSessionService, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sessiondb.engine.store import SupportsVacuum
    from sessiondb.errors import StorageError

    def refuse(*_: Any, **_options: Any) -> bool:
        raise StorageError("not today")

    await fill(service, APP, USER)
    with at_rest(service) as writer:
        store = engine_of(service).store
        if isinstance(store, SupportsVacuum):
            monkeypatch.setattr(store, "vacuum", refuse)
        else:
            monkeypatch.setattr(writer, "purge", refuse)
    report = await service.erase_user(APP, USER)
    assert (report.sessions, report.purged, report.hint) == (1, False, "not today")
    assert engine_of(service).threads.writer.is_alive()
