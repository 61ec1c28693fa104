"""History, the past of a session, and forks: what the logs tell, on each store."""

from __future__ import annotations

import asyncio
import json
from itertools import count
from pathlib import Path
from typing import Any, Literal

import pytest
from google.adk.events import Event, EventActions
from google.adk.events.event_actions import EventCompaction
from google.adk.sessions import Session
from google.adk.sessions.base_session_service import GetSessionConfig
from google.genai import types
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sessiondb import DatabaseSessionService
from sessiondb.errors import (
    AlreadyExistsError,
    EventNotFoundError,
    InvalidInputError,
    SessionNotFoundError,
    StaleSessionError,
    UnknownBeginningError,
)
from tests.contract.places import APP, SESSION, USER, event
from tests.databases import query

pytestmark = [pytest.mark.anyio, pytest.mark.each_store]

FORK = "the fork"
HOSTILE = ["' OR 1=1 --", "%", 'a"b', "x" * 4096, "日本🤖", "{}", "$1 %(x)s :seq"]


async def get(service: DatabaseSessionService, name: str = SESSION, *, user: str = USER, app: str = APP) -> Session:
    session = await service.get_session(app, user, name)
    assert session is not None
    return session


async def at(service: DatabaseSessionService, seq: int, name: str = SESSION, *, user: str = USER) -> Session:
    session = await service.get_session_at(APP, user, name, seq=seq)
    assert session is not None
    return session


async def told(service: DatabaseSessionService, *args: Any, **kwargs: Any) -> list[tuple[Any, ...]]:
    """Session, number, key, old value, new value, whether it was there, whether it was deleted."""
    changes = await service.history(APP, *args, **kwargs)
    return [(c.session_id, c.seq, c.key, c.old, c.new, c.existed, c.deleted) for c in changes]


# --- The past equals what was read then ------------------------------------------------------------------------------

VALUES = st.one_of(st.none(), st.integers(), st.text(max_size=3), st.lists(st.floats(allow_nan=False), max_size=2))
DELTAS = st.dictionaries(st.sampled_from(["a", "b", "a.b", 'q"', "user:a", "app:a", "temp:t"]), VALUES, max_size=3)
STEPS = st.lists(st.tuples(st.sampled_from(["one", "two"]), st.sampled_from("eou"), DELTAS), max_size=7)
_apps = count()


def _compaction() -> Event:
    compaction = EventCompaction(
        start_timestamp=1.0, end_timestamp=2.0, compacted_content=types.Content(parts=[types.Part(text="short")])
    )
    return Event(author="user", invocation_id="c", actions=EventActions(compaction=compaction))


async def _step(service: DatabaseSessionService, app: str, name: str, kind: str, delta: dict[str, Any]) -> None:
    session = await service.get_session(app, USER, name)
    if session is None:
        await service.create_session(app, USER, name, delta)
    elif kind == "e":
        actions = EventActions(state_delta=delta)
        content = types.Content(role="model", parts=[types.Part(text="said")])
        await service.append_event(session, Event(author="agent", timestamp=5.0, actions=actions, content=content))
    elif kind == "o":
        await service.update_keys(app, USER, name, delta)
    else:
        await service.append_event(session, _compaction())


@settings(
    max_examples=settings().max_examples * 2 // 5,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=STEPS, none_in_delta=st.sampled_from(["delete", "store"]))
def test_session_at_each_moment_is_what_was_read_then(
    location: Path | str, steps: list[tuple[str, str, dict[str, Any]]], none_in_delta: Literal["delete", "store"]
) -> None:
    async def live() -> None:
        app = f"app {next(_apps)}"
        async with DatabaseSessionService(location, none_in_delta=none_in_delta) as service:
            seen: dict[tuple[str, int], Session] = {}
            for name, kind, delta in steps:
                await _step(service, app, name, kind, delta)
                session = await get(service, name, app=app)
                seen[name, len(session.events)] = session
            for (name, seq), session in seen.items():
                past = await service.get_session_at(app, USER, name, seq=seq)
                assert past is not None
                assert past.model_dump() == session.model_dump()
                if seq:
                    by_id = await service.get_session_at(app, USER, name, event_id=session.events[-1].id)
                    assert by_id is not None
                    assert by_id.model_dump() == session.model_dump()
                    fork = await service.fork_session(app, USER, name, at_event_id=session.events[-1].id)
                    assert fork.events == session.events
                    assert _own(fork) == _own(session)
            # What history tells of each session adds up to its state.
            for name in {name for name, _ in seen}:
                state: dict[str, Any] = {}
                for change in await service.history(app, USER, name):
                    if ":" not in change.key:
                        assert change.existed == (change.key in state)
                        assert change.old == state.get(change.key)
                        state.pop(change.key, None)
                        if not change.deleted:
                            state[change.key] = change.new
                assert state == _own(await get(service, name, app=app))

    asyncio.run(live())


def _own(session: Session) -> dict[str, Any]:
    return {key: value for key, value in session.state.items() if not key.startswith(("user:", "app:"))}


# --- History ---------------------------------------------------------------------------------------------------------


async def test_history_holds_the_beginning_and_every_change(service: DatabaseSessionService) -> None:
    session = await service.create_session(
        APP, USER, SESSION, {"own": 1, "user:theme": "dark", "temp:t": 1, "none": None}
    )
    await service.append_event(session, event(2_000.0, event_id="e1", own=2, more=[1], temp__t=2))
    await service.append_event(session, event(1_000.0, event_id="e2", own=None, user__theme="light"))
    assert await told(service, USER) == [
        (SESSION, 0, "own", None, 1, False, False),
        (SESSION, 0, "user:theme", None, "dark", False, False),
        (SESSION, 0, "none", None, None, False, False),
        (SESSION, 1, "own", 1, 2, True, False),
        (SESSION, 1, "more", None, [1], False, False),
        (SESSION, 2, "own", 2, None, True, True),
        (SESSION, 2, "user:theme", "dark", "light", True, False),
    ]
    first, *_, last = await service.history(APP, USER, SESSION, "own")
    assert (first.author, first.invocation_id, first.event_id) == ("", "", "")
    assert (last.author, last.invocation_id, last.event_id, last.time) == ("agent", "inv_1", "e2", 1_000.0)
    assert await service.history(APP, USER, SESSION, "never") == []


async def test_history_of_shared_key_knows_what_other_sessions_set(service: DatabaseSessionService) -> None:
    first = await service.create_session(APP, USER, "first", {"user:n": 1, "app:n": 1})
    await service.create_session(APP, USER, "second", {"user:n": 2})
    await service.create_session(APP, "other", "third", {"user:n": 7, "app:n": 2})
    await service.append_event(first, event(user__n=3, app__n=3))
    assert await told(service, USER, "first") == [
        ("first", 0, "user:n", None, 1, False, False),
        ("first", 0, "app:n", None, 1, False, False),
        ("first", 1, "user:n", 2, 3, True, False),
        ("first", 1, "app:n", 2, 3, True, False),
    ]
    assert [c[3:5] for c in await told(service, key="app:n")] == [(None, 1), (1, 2), (2, 3)]
    assert [c[3:5] for c in await told(service, "other", key="user:n")] == [(None, 7)]


async def test_history_of_unknown_beginning_says_so(service: DatabaseSessionService, location: Path | str) -> None:
    session = await service.create_session(APP, USER, SESSION, {"own": 1})
    query(location, "UPDATE adk_sessions SET initial_state = NULL")
    await service.append_event(session, event(own=2, event_id="e1"))
    await service.append_event(session, event(own=3, event_id="e2"))
    assert await told(service, USER, SESSION) == [
        (SESSION, 1, "own", None, 2, None, False),
        (SESSION, 2, "own", 2, 3, True, False),
    ]
    # What later events have not changed is known all the same.
    assert (await at(service, 1)).state == {"own": 2}
    with pytest.raises(UnknownBeginningError, match="not known what session 'sess_abc'"):
        await service.get_session_at(APP, USER, SESSION, seq=0)
    assert (await service.fork_session(APP, USER, SESSION, at_event_id="e1")).state == {"own": 2}


async def test_history_survives_export_and_fork_points_too(service: DatabaseSessionService, tmp_path: Path) -> None:
    from sessiondb.stores import open_import, open_reader
    from sessiondb.transfer import export_lines, import_lines

    source = service._shared.store.name  # on a server the URL without a password, which tests have none of
    session = await service.create_session(APP, USER, SESSION, {"own": 1, "user:n": None})
    await service.append_event(session, event(own=2))
    await service.fork_session(APP, USER, SESSION, new_session_id=FORK)
    told_before = await told(service, USER)
    with open_reader(source) as reader, open_import(tmp_path / "copy.sqlite3") as into:
        import_lines(export_lines(reader), into)
    async with DatabaseSessionService(tmp_path / "copy.sqlite3") as copy:
        assert sorted(map(json.dumps, await told(copy, USER))) == sorted(map(json.dumps, told_before))
        assert [fork.origin for fork in await copy.list_forks(APP)] == [(USER, SESSION, 1)]


# --- Moments ---------------------------------------------------------------------------------------------------------


async def test_moment_by_time_is_after_last_event_dated_by_then(service: DatabaseSessionService) -> None:
    session = await service.create_session(APP, USER, SESSION, {"n": 0})
    created = session.last_update_time
    for number, moment in enumerate((created + 10, created + 30, created + 20), 1):
        await service.append_event(session, event(moment, n=number))

    async def n_at(moment: float) -> object:
        found = await service.get_session_at(APP, USER, SESSION, time=moment)
        return None if found is None else (found.state["n"], len(found.events))

    assert await n_at(created - 1) is None
    assert await n_at(created) == (0, 0)
    assert await n_at(created + 10) == (1, 1)
    assert await n_at(created + 25) == (3, 3)
    assert await n_at(created + 99) == (3, 3)


async def test_moment_that_is_not_there(service: DatabaseSessionService) -> None:
    session = await service.create_session(APP, USER, SESSION)
    await service.append_event(session, event(event_id="e1"))
    assert await service.get_session_at(APP, USER, "missing", seq=0) is None
    with pytest.raises(EventNotFoundError, match="no event of number 2"):
        await service.get_session_at(APP, USER, SESSION, seq=2)
    with pytest.raises(EventNotFoundError, match="no event with the id 'e2'"):
        await service.get_session_at(APP, USER, SESSION, event_id="e2")
    with pytest.raises(EventNotFoundError):
        await service.fork_session(APP, USER, SESSION, at_event_id="e2")
    with pytest.raises(SessionNotFoundError):
        await service.fork_session(APP, USER, "missing")
    wrong: list[dict[str, Any]] = [{}, {"seq": 1, "event_id": "e1"}, {"seq": -1}, {"seq": True}, {"time": "now"}]
    wrong += [{"time": float("nan")}, {"event_id": "a\0b"}]
    for arguments in wrong:
        with pytest.raises(InvalidInputError):
            await service.get_session_at(APP, USER, SESSION, **arguments)


@pytest.mark.parametrize("on_stale", ["reject", "append"])
async def test_past_session_takes_no_event(location: Path | str, on_stale: Literal["reject", "append"]) -> None:
    async with DatabaseSessionService(location, on_stale=on_stale) as service:
        session = await service.create_session(APP, USER, SESSION)
        await service.append_event(session, event(event_id="e1", own=1))
        present = await at(service, 1)
        for past in (present, present.model_copy(deep=True)):
            for added in (event(own=2), event(author="user", own=2), _compaction()):
                with pytest.raises(StaleSessionError, match="shows a moment of the past"):
                    await service.append_event(past, added)
            assert past.state == {"own": 1}
        assert len((await get(service)).events) == 1
        # It has kept nobody else from going on.
        await service.append_event(session, event(own=3))


async def test_shared_keys_of_deleted_sessions_are_what_they_are_now(service: DatabaseSessionService) -> None:
    await service.create_session(APP, USER, SESSION, {"user:n": 1})
    await service.create_session(APP, USER, "deleted", {"user:n": 2})
    await service.delete_session(APP, USER, "deleted")
    assert (await at(service, 0)).state == {"user:n": 2}


# --- Forks -----------------------------------------------------------------------------------------------------------


async def test_fork_is_a_session_of_its_own(service: DatabaseSessionService) -> None:
    session = await service.create_session(APP, USER, SESSION, {"own": 0, "user:n": 1})
    for number in (1, 2, 3):
        await service.append_event(session, event(event_id=f"e{number}", own=number, user__n=number))
    fork = await service.fork_session(APP, USER, SESSION, at_event_id="e2", new_session_id=f" {FORK} ")
    assert (fork.id, [each.id for each in fork.events]) == (FORK, ["e1", "e2"])
    assert fork.state == {"own": 2, "user:n": 3}
    assert fork.model_dump() == (await get(service, FORK)).model_dump()
    await service.append_event(fork, event(event_id="e3", own="forked"))
    await service.append_event(session, event(event_id="e4", own=4))
    # An event that it has taken over is there already.
    assert await service.append_event(await get(service, FORK), fork.events[0]) is fork.events[0]
    assert [each.id for each in (await get(service, FORK)).events] == ["e1", "e2", "e3"]
    assert ((await get(service, FORK)).state["own"], (await get(service)).state["own"]) == ("forked", 4)
    await service.delete_session(APP, USER, SESSION)
    assert (await at(service, 1, FORK)).state["own"] == 1
    assert [c[1:5] for c in await told(service, USER, FORK, "own")] == [
        (0, "own", None, 0),
        (1, "own", 0, 1),
        (2, "own", 1, 2),
        (3, "own", 2, "forked"),
    ]
    assert [(fork.key.session_id, fork.origin) for fork in await service.list_forks(APP)] == [
        (FORK, (USER, SESSION, 2))
    ]


async def test_fork_for_another_user_takes_no_user_state_along(service: DatabaseSessionService) -> None:
    session = await service.create_session(APP, USER, SESSION, {"user:n": 1, "own": 1})
    await service.append_event(session, event(event_id="e1", user__n=2))
    await service.create_session(APP, "other", "theirs", {"user:n": "theirs"})
    fork = await service.fork_session(APP, USER, SESSION, new_user_id="other")
    assert fork.user_id == "other"
    assert fork.state == {"own": 1, "user:n": "theirs"}
    assert [c[2:5] for c in await told(service, "other")] == [("user:n", None, "theirs"), ("own", None, 1)]
    await service.append_event(fork, event(user__n="new"))
    assert (await at(service, 1, fork.id, user="other")).state == {"own": 1, "user:n": "theirs"}
    assert await service.get_user_state(APP, USER) == {"n": 2}


async def test_fork_of_a_fork_and_of_the_beginning(service: DatabaseSessionService) -> None:
    session = await service.create_session(APP, USER, SESSION, {"own": 1})
    first = await service.fork_session(APP, USER, SESSION, new_session_id="first")
    assert (first.events, first.state) == ([], {"own": 1})
    await service.append_event(session, event(own=2))
    await service.append_event(first, event(own="a"))
    await service.fork_session(APP, USER, "first", new_session_id="second")
    assert (await at(service, 0, "second")).state == {"own": 1}
    assert (await at(service, 1, "second")).state == {"own": "a"}
    listed = await service.list_forks(APP, USER, SESSION)
    assert [fork.key.session_id for fork in listed] == ["first"]
    assert [fork.origin.seq for fork in await service.list_forks(APP)] == [0, 1]


async def test_fork_to_an_id_that_exists_changes_nothing(service: DatabaseSessionService) -> None:
    await service.create_session(APP, USER, SESSION, {"own": 1})
    await service.create_session(APP, USER, FORK, {"own": 2})
    with pytest.raises(AlreadyExistsError):
        await service.fork_session(APP, USER, SESSION, new_session_id=FORK)
    assert (await get(service, FORK)).state == {"own": 2}
    assert await service.list_forks(APP) == []


async def test_fork_of_session_that_is_replaced_meanwhile_takes_the_new_one(
    service: DatabaseSessionService, monkeypatch: pytest.MonkeyPatch
) -> None:
    await service.create_session(APP, USER, SESSION, {"own": "old"})
    write = service._shared.write  # what happens between its read and its write cannot be arranged otherwise
    replaced = False

    async def replacing(command: Any, *rest: Any) -> Any:
        nonlocal replaced
        if not replaced:
            replaced = True
            await service.delete_session(APP, USER, SESSION)
            await service.create_session(APP, USER, SESSION, {"own": "new"})
        return await write(command, *rest)

    monkeypatch.setattr(service._shared, "write", replacing)
    fork = await service.fork_session(APP, USER, SESSION)
    assert fork.state == {"own": "new"}


async def test_cancelled_fork_is_whole_or_not_there(service: DatabaseSessionService) -> None:
    session = await service.create_session(APP, USER, SESSION, {"own": 1})
    for number in range(20):
        await service.append_event(session, event(own=number))
    for steps in range(12):
        name = f"fork {steps}"
        task = asyncio.ensure_future(service.fork_session(APP, USER, SESSION, new_session_id=name))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        fork = await service.get_session(APP, USER, name)
        assert fork is None or (len(fork.events), fork.state) == (20, {"own": 19})
    assert len((await get(service)).events) == 20


# --- Others ----------------------------------------------------------------------------------------------------------


async def test_hostile_ids_name_what_they_name(service: DatabaseSessionService) -> None:
    for text in HOSTILE:
        session = await service.create_session(text, text, text, {text: 1})
        added = Event(id=text, author="agent", actions=EventActions(state_delta={text: 2}))
        await service.append_event(session, added)
        past = await service.get_session_at(text, text, text, event_id=text)
        assert past is not None
        assert past.state == {text: 2}
        assert [(c.key, c.old, c.new) for c in await service.history(text, text, text, text)] == [
            (text, None, 1),
            (text, 1, 2),
        ]
        fork = await service.fork_session(text, text, text, at_event_id=text, new_session_id=f"{text[:9]}f")
        assert fork.state == {text: 2}
        assert len(await service.list_forks(text, text, text)) == 1


async def test_ids_of_others_reach_nothing(service: DatabaseSessionService) -> None:
    session = await service.create_session(APP, USER, SESSION, {"own": 1, "user:n": 1, "app:n": 1})
    await service.append_event(session, event(event_id="e1", own=2))
    fork = await service.fork_session(APP, USER, SESSION)
    before = (await told(service), await service.list_forks(APP))
    for app, user in ((APP, "other"), ("other", USER), (APP, ""), (APP, USER.upper())):
        assert await service.get_session_at(app, user, SESSION, event_id="e1") is None
        assert await service.history(app, user, SESSION) == []
        assert await service.history(app, user) == []
        assert await service.list_forks(app, user) == []
        with pytest.raises(SessionNotFoundError):
            await service.fork_session(app, user, SESSION, new_user_id=USER)
    assert (await told(service), await service.list_forks(APP)) == before
    assert [each.id for each in (await service.list_sessions(APP)).sessions] == [SESSION, fork.id]


# --- What a fork costs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("log_cache", ["copy", "shallow", "share", "off"])
@pytest.mark.parametrize("was_read", [True, False])
async def test_fork_has_the_events_in_whatever_form_they_are_kept(
    location: Path | str, log_cache: Literal["copy", "shallow", "share", "off"], was_read: bool
) -> None:
    async with DatabaseSessionService(location) as service:
        session = await service.create_session(APP, USER, SESSION, {"own": -1})
        await service.append_events(session, [event(event_id=f"e{n}", own=n) for n in range(300)])
    async with DatabaseSessionService(location, log_cache=log_cache) as service:
        if was_read:
            await get(service)
            before = await get(service)
            assert len(before.events) == 300
        for last, name in ((299, "whole"), (99, "part")):
            fork = await service.fork_session(APP, USER, SESSION, at_event_id=f"e{last}", new_session_id=name)
            assert fork.state == {"own": last}
            assert [each.id for each in fork.events] == [f"e{n}" for n in range(last + 1)]
            await service.append_event(fork, event(event_id="own", own="new"))
            for read in (await get(service, name), await get(service, name)):
                assert read.model_dump() == fork.model_dump()
        assert len((await get(service)).events) == 300


async def test_fork_of_a_cached_log_reads_no_event(
    service: DatabaseSessionService, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await service.create_session(APP, USER, SESSION)
    await service.append_events(session, [event(event_id=f"e{n}", more=[n]) for n in range(40)])
    source = await get(service)
    asked: list[str] = []
    read = service._shared.read

    async def asking(query: Any, *rest: Any) -> Any:
        asked.append(type(query).__name__)
        return await read(query, *rest)

    monkeypatch.setattr(service._shared, "read", asking)
    fork = await service.fork_session(APP, USER, SESSION, at_event_id="e9")
    empty = await service.create_session(APP, USER)
    await service.fork_session(APP, USER, empty.id)
    assert asked == ["GetPast", "GetPast"]
    # Nobody's changes are seen by others.
    fork.events[0].actions.state_delta["more"].append("mine")
    assert source.events[0].actions.state_delta == {"more": [0]}
    assert (await get(service, fork.id)).events[0].actions.state_delta == {"more": [0]}
    assert (await get(service)).events[0].actions.state_delta == {"more": [0]}


async def test_fork_of_a_log_that_was_edited_has_what_is_stored(
    service: DatabaseSessionService, location: Path | str
) -> None:
    """What is cached of the source is not what it holds by now."""
    session = await service.create_session(APP, USER, SESSION)
    await service.append_events(session, [event(event_id=f"e{n}") for n in range(3)])
    assert len((await get(service)).events) == 3
    query(location, "UPDATE adk_events SET author = ? WHERE event_id = ?", "editor", "e1")
    fork = await service.fork_session(APP, USER, SESSION)
    assert [each.author for each in fork.events] == ["agent", "editor", "agent"]
    # An older part of the log is cached.
    newest = GetSessionConfig(num_recent_events=2)
    async with DatabaseSessionService(location) as second:
        assert len((await second.get_session(APP, USER, SESSION, newest)).events) == 2  # type: ignore[union-attr]  # it is there
        whole = await second.fork_session(APP, USER, SESSION)
        assert [each.id for each in whole.events] == ["e0", "e1", "e2"]
        await service.append_event(await get(service), event(event_id="e3"))
        whole = await second.fork_session(APP, USER, SESSION)
        assert [each.id for each in whole.events] == ["e0", "e1", "e2", "e3"]
