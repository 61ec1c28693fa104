"""Pages of sessions and of logs: what is on which, whatever is written and deleted meanwhile."""

from __future__ import annotations

import asyncio
import base64
import json
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from google.adk.events import Event
from google.adk.sessions import Session
from hypothesis import given
from hypothesis import strategies as st

from sessiondb import DatabaseSessionService, EventPage, SessionList, errors
from sessiondb.model.cursors import decode_log_place, decode_session_place
from tests.contract.places import APP, SESSION, USER, event

pytestmark = [pytest.mark.anyio, pytest.mark.each_store]

MANY = 2_050
"""More sessions than a store sorts for a page: it goes by the order of their updates."""


async def create(
    service: DatabaseSessionService, name: str, moment: float, *, app: str = APP, user: str = USER, **state: object
) -> None:
    """Creates a session that was updated last at a moment."""
    session = await service.create_session(app, user, name, state)
    await service.append_event(session, event(moment))


async def pages(service: DatabaseSessionService, *args: Any, **kwargs: Any) -> list[SessionList]:
    """All pages of a listing."""
    found = [await service.list_sessions(*args, **kwargs)]
    while found[-1].next is not None:
        found.append(await service.list_sessions(*args, **{**kwargs, "after": found[-1].next}))
    return found


async def logs(service: DatabaseSessionService, **kwargs: Any) -> list[EventPage]:
    """All pages of the log of the one session."""
    found = [await service.get_events(APP, USER, SESSION, **kwargs)]
    while found[-1].next is not None:
        found.append(await service.get_events(APP, USER, SESSION, **{**kwargs, "after": found[-1].next}))
    return found


def ids(listed: SessionList) -> list[str]:
    return [session.id for session in listed.sessions]


async def test_pages_of_sessions_put_together_are_the_whole_list(service: DatabaseSessionService) -> None:
    # Ties, which the user's id and then the session's has to break.
    moments = random.Random(1).choices(range(4), k=23)
    for n, moment in enumerate(moments):
        await create(service, f"s{n:02}", float(moment), app=f"app{n % 2}", user=f"u{n % 3}")
    for selection in ((), ("app0",), ("app1", "u2"), (None, "u1")):
        whole = await service.list_sessions(*selection)
        for size in (1, 2, 5, 22, 23, 24):
            found = await pages(service, *selection, limit=size)
            assert [row for page in found for row in page] == list(whole)
            assert [session for page in found for session in page.sessions] == whole.sessions
            assert [len(page) for page in found[:-1]] == [size] * (len(found) - 1)
            assert len(found[-1]) <= size
            backwards = await pages(service, *selection, limit=size, newest_first=True)
            assert [row for page in backwards for row in page] == list(whole)[::-1]
        assert whole.next is None
        assert list(await service.list_sessions(*selection, newest_first=True)) == list(whole)[::-1]


async def test_last_page_has_no_next_even_if_full(service: DatabaseSessionService) -> None:
    assert (await service.list_sessions(limit=1)).next is None
    for n in range(4):
        await create(service, f"s{n}", n)
    assert [page.next is None for page in await pages(service, limit=2)] == [False, True]


async def test_pages_are_the_same_when_sessions_are_many(service: DatabaseSessionService) -> None:
    names = [f"s{n:04}" for n in range(MANY)]
    async with asyncio.TaskGroup() as tasks:
        for name in names:
            tasks.create_task(service.create_session(APP, USER, name, {"own": name, "user:u": 1, "app:a": 2}))
        tasks.create_task(service.create_session(APP, "other", "another user's"))
        tasks.create_task(service.create_session("other", USER, "another app's"))
    whole = await service.list_sessions(APP, USER)
    for newest_first in (False, True):
        found = await pages(service, APP, USER, limit=500, newest_first=newest_first)
        expected = whole.sessions[:: -1 if newest_first else 1]
        assert [session for page in found for session in page.sessions] == expected
        one_app = await pages(service, APP, limit=1_000, newest_first=newest_first)
        assert sorted(name for page in one_app for name in ids(page)) == sorted([*names, "another user's"])


async def test_state_of_all_scopes_is_on_pages_unless_not_wanted(service: DatabaseSessionService) -> None:
    await create(service, "a", 1, own=1)
    await service.create_session(APP, "other", "b", {"user:theme": "dark", "app:version": 2})
    found = await pages(service, limit=1)
    assert {session.id: session.state for page in found for session in page.sessions} == {
        "a": {"own": 1, "app:version": 2},
        "b": {"user:theme": "dark", "app:version": 2},
    }
    for limit in (None, 1):
        bare = await pages(service, limit=limit, with_state=False)
        assert [session.state for page in bare for session in page.sessions] == [{}, {}]


async def test_sessions_by_time_of_update_from_and_until_a_moment(service: DatabaseSessionService) -> None:
    for moment in (1.0, 2.0, 2.5, 3.0):
        await create(service, f"at {moment}", moment)
    for limit in (None, 10):
        between = await service.list_sessions(updated_after=2, updated_before=3.0, limit=limit)
        assert ids(between) == ["at 2.0", "at 2.5"]
        assert ids(await service.list_sessions(updated_after=3.0, limit=limit)) == ["at 3.0"]
        assert ids(await service.list_sessions(updated_before=1.0, limit=limit)) == []


async def test_sessions_by_values_of_their_own_state(service: DatabaseSessionService) -> None:
    values: list[Any] = ["open", "closed", 1, 1.0, True, None, ["x", {"y": 1}], "1", "grün"]
    for n, value in enumerate(values):
        await create(service, f"s{n}", n, status=value, other="same")
    await create(service, "none", 100, other="same")
    await service.create_session(APP, USER, "of the user", {"user:status": "open", "app:status": "open"})
    for n, value in enumerate(values):
        for limit in (None, 5):
            found = await service.list_sessions(APP, USER, state={"status": value}, limit=limit)
            assert ids(found) == [f"s{n}"]
    assert ids(await service.list_sessions(state={"status": "open", "other": "same"})) == ["s0"]
    assert ids(await service.list_sessions(state={"status": "open", "other": "another"})) == []
    paged = await pages(service, APP, state={"other": "same"}, limit=3, newest_first=True)
    assert [name for page in paged for name in ids(page)] == ["none", *(f"s{n}" for n in range(8, -1, -1))]


async def test_state_filter_with_hostile_keys_and_values_finds_what_holds_them(service: DatabaseSessionService) -> None:
    hostile = ["'; DROP TABLE adk_sessions; --", '"', "%", "\\", "a:b", "{}", "日本", ":limit", "%(limit)s", "?"]
    for n, text in enumerate(hostile):
        await create(service, f"s{n}", n, app=text, user=text, **{f"_{text}": text})
    for n, text in enumerate(hostile):
        found = await service.list_sessions(text, text, state={f"_{text}": text}, limit=1)
        assert (ids(found), found.next) == ([f"s{n}"], None)
    assert len(await service.list_sessions()) == len(hostile)


UNTOUCHED = 20


async def test_session_not_written_to_is_on_exactly_one_page_beside_writers(service: DatabaseSessionService) -> None:
    """Seen failing with an OFFSET in place of the place: sessions were passed over when others before them went."""
    for n in range(UNTOUCHED):
        await create(service, f"still {n:02}", 1_000.0 + 2 * n)
        await create(service, f"moving {n:02}", 1_001.0 + 2 * n)
    turns = iter(range(10_000))

    async def disturb() -> None:
        turn = next(turns)
        name = f"moving {turn % UNTOUCHED:02}"
        session = await service.get_session(APP, USER, name)
        if session is None:
            await create(service, name, 2_000.0 + turn)
        elif turn % 3:
            await service.append_event(session, event(2_000.0 + turn))
        else:
            await service.delete_session(APP, USER, name)

    for newest_first in (False, True):
        for size in (1, 7):
            names: list[str] = []
            after = None
            while True:
                listing = service.list_sessions(APP, USER, limit=size, after=after, newest_first=newest_first)
                page, _ = await asyncio.gather(listing, asyncio.gather(*(disturb() for _ in range(3))))
                names += [name for name in ids(page) if name.startswith("still")]
                after = page.next
                # Those that move go to the end, so that it is never reached.
                if after is None or (len(names) == UNTOUCHED and not newest_first):
                    break
            expected = [f"still {n:02}" for n in range(UNTOUCHED)]
            assert names == (expected[::-1] if newest_first else expected)


async def test_iter_sessions_gives_what_list_sessions_lists(service: DatabaseSessionService) -> None:
    for n in range(11):
        await create(service, f"s{n:02}", n, app=f"app{n % 2}", status="even" if n % 2 == 0 else "odd")
    whole = await service.list_sessions()
    for size in (1, 4, 11, 100):
        assert [session async for session in service.iter_sessions(page_size=size)] == whole.sessions
    some = [
        session.id
        async for session in service.iter_sessions(
            "app0", USER, newest_first=True, updated_after=2, updated_before=9, state={"status": "even"}, page_size=2
        )
    ]
    assert some == ["s08", "s06", "s04", "s02"]
    first = await service.list_sessions(limit=8)
    bare = [session async for session in service.iter_sessions(after=first.next, with_state=False)]
    assert [(session.id, session.state) for session in bare] == [("s08", {}), ("s09", {}), ("s10", {})]


async def test_iterators_hold_no_reader_between_pages(location: Any) -> None:
    async with DatabaseSessionService(location, readers=1, busy_timeout=5.0) as service:
        for n in range(4):
            await create(service, f"s{n}", n)
        iterators: list[AsyncIterator[Any]] = []
        for _ in range(3):
            for iterator in (
                service.iter_sessions(page_size=1),
                service.iter_events(APP, USER, "s0", page_size=1),
            ):
                await anext(iterator)
                iterators.append(iterator)
        session = await service.get_session(APP, USER, "s0")
        assert session is not None
        assert [found.id for found in (await service.list_sessions()).sessions] == ["s0", "s1", "s2", "s3"]
        await service.append_event(session, event(1.0))


@pytest.fixture
async def log(service: DatabaseSessionService) -> list[Event]:
    """The events of the one session, of three authors."""
    session = await service.create_session(APP, USER, SESSION)
    for n in range(23):
        # Time goes back: the log does not go by it.
        await service.append_event(session, event(1_000.0 - n, event_id=f"e{n}", author=f"author{n % 3}", own=n))
    other = await service.create_session(APP, "other", SESSION)
    await service.append_event(other, event())
    return session.events


async def test_pages_of_a_log_put_together_are_the_log(service: DatabaseSessionService, log: list[Event]) -> None:
    for size in (1, 2, 5, 22, 23, 24):
        found = await logs(service, limit=size)
        assert [one for page in found for one in page.events] == log
        assert [len(page.events) for page in found[:-1]] == [size] * (len(found) - 1)
        backwards = await logs(service, limit=size, newest_first=True)
        assert [one for page in backwards for one in page.events] == log[::-1]
    assert (await service.get_events(APP, USER, f" {SESSION} ")).events == log


async def test_events_of_some_authors(service: DatabaseSessionService, log: list[Event]) -> None:
    wanted = [one for one in log if one.author in ("author0", "author2")]
    for size in (1, 4, 16, 100):
        found = await logs(service, limit=size, authors=["author2", "author0", "author2"])
        assert [one for page in found for one in page.events] == wanted
    assert (await service.get_events(APP, USER, SESSION, authors=set())).events == []
    assert (await service.get_events(APP, USER, SESSION, authors=("nobody",))).next is None


async def test_events_between_two_cursors(service: DatabaseSessionService, log: list[Event]) -> None:
    early = (await service.get_events(APP, USER, SESSION, limit=5)).next
    late = (await service.get_events(APP, USER, SESSION, limit=15)).next
    between = await logs(service, after=early, before=late, limit=4)
    assert [one for page in between for one in page.events] == log[5:14]
    backwards = await logs(service, after=late, before=early, limit=4, newest_first=True)
    assert [one for page in backwards for one in page.events] == log[5:14][::-1]
    assert (await service.get_events(APP, USER, SESSION, after=late, before=early)).events == []


async def test_iter_events_gives_the_log_and_what_comes_meanwhile(
    service: DatabaseSessionService, log: list[Event]
) -> None:
    seen = []
    session = await service.get_session(APP, USER, SESSION)
    assert session is not None
    async for one in service.iter_events(APP, USER, SESSION, page_size=10):
        seen.append(one)
        if len(seen) == 15:
            await service.append_event(session, event(event_id="late"))
    assert seen == session.events
    assert len(seen) == len(log) + 1
    some = service.iter_events(APP, USER, SESSION, newest_first=True, authors=["author1"], page_size=2)
    assert [one async for one in some] == [one for one in log[::-1] if one.author == "author1"]


async def test_events_of_a_page_are_the_callers_own(service: DatabaseSessionService, log: list[Event]) -> None:
    page = await service.get_events(APP, USER, SESSION)
    page.events[0].actions.state_delta["own"] = "changed"
    assert (await service.get_events(APP, USER, SESSION)).events == log
    session = await service.get_session(APP, USER, SESSION)
    assert session is not None
    assert session.events == log


async def test_log_page_of_a_missing_session(service: DatabaseSessionService, log: list[Event]) -> None:
    for key in ((APP, USER, "other"), (APP, "stranger", SESSION), ("other", USER, SESSION)):
        with pytest.raises(errors.SessionNotFoundError):
            await service.get_events(*key)
    await service.create_session(APP, USER, "empty")
    assert await service.get_events(APP, USER, "empty") == EventPage([], None)


async def test_iter_events_of_a_session_deleted_meanwhile(service: DatabaseSessionService, log: list[Event]) -> None:
    iterator = service.iter_events(APP, USER, SESSION, page_size=2)
    await anext(iterator)
    await service.delete_session(APP, USER, SESSION)
    assert await anext(iterator) == log[1]
    with pytest.raises(errors.SessionNotFoundError):
        await anext(iterator)


async def test_cursor_of_another_log_is_refused(service: DatabaseSessionService, log: list[Event]) -> None:
    cursor = (await service.get_events(APP, USER, SESSION, limit=5)).next
    listed = (await service.list_sessions(limit=1)).next
    for name in ("after", "before"):
        with pytest.raises(errors.InvalidInputError, match=f"{name} is a cursor of another session"):
            await service.get_events(APP, "other", SESSION, **{name: cursor})  # type: ignore[arg-type]  # see above
        with pytest.raises(errors.InvalidInputError, match=f"{name} is not a cursor of get_events"):
            await service.get_events(APP, USER, SESSION, **{name: listed})  # type: ignore[arg-type]  # see above
    with pytest.raises(errors.InvalidInputError, match="after is not a cursor of list_sessions"):
        await service.list_sessions(after=cursor)
    await service.delete_session(APP, USER, SESSION)
    await service.create_session(APP, USER, SESSION)
    with pytest.raises(errors.InvalidInputError, match="deleted and created anew"):
        await service.get_events(APP, USER, SESSION, after=cursor)


async def test_cursor_of_one_tenant_leads_to_nothing_of_another(
    service: DatabaseSessionService, log: list[Event]
) -> None:
    for n in range(5):
        await create(service, f"mine {n}", n)
        await create(service, f"theirs {n}", n, app="other", user="other")
    theirs = (await service.list_sessions("other", "other", limit=1)).next
    mine = await pages(service, APP, USER, limit=2, after=theirs)
    assert {row["user_id"] for page in mine for row in page} == {USER}
    assert all(session.app_name == APP for page in mine for session in page.sessions)


GARBAGE: list[Any] = [
    "", "x", "AAAA", "=", "é", "\0", "\ud800", "🤖", "W10", "e30", "MQ", "bnVsbA", "[1]", "'; --", "A" * 100_000, "[" * 100_000,
]  # fmt: skip


def forged(*place: object) -> str:
    text = json.dumps(place, ensure_ascii=False, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


FORGED = [
    forged(2, "sessions", 1.0, "a", "b", "c"),
    forged(1, "sessions", 1, "a", "b", "c"),
    forged(1, "sessions", float("nan"), "a", "b", "c"),
    forged(1, "sessions", float("inf"), "a", "b", "c"),
    forged(1, "sessions", 1.0, "a\0", "b", "c"),
    forged(1, "sessions", 1.0, "a", "b", 3),
    forged(1, "sessions", 1.0, "a", "b"),
    forged(1, "events", 1, 1, 2**63),
    forged(1, "events", 1, -1, 1),
    forged(1, "events", 1, 1.0, 1),
    forged(1, "events", True, 1, 1),
    forged(1, "events", 1, 1, 1, 1),
    forged(1, "other", 1),
    forged(1),
    forged(),
]


async def test_cursors_made_up_are_refused(service: DatabaseSessionService, log: list[Event]) -> None:
    real = (await service.list_sessions(limit=1)).next
    assert real is not None
    for cursor in [*GARBAGE, *FORGED, real + "=", real + "A", real[:-1], f" {real}", b"x", 5, ["x"], True]:
        with pytest.raises(errors.InvalidInputError):
            await service.list_sessions(after=cursor)
        for name in ("after", "before"):
            with pytest.raises(errors.InvalidInputError, match=name):
                await service.get_events(APP, USER, SESSION, **{name: cursor})
        with pytest.raises(errors.InvalidInputError):
            await anext(service.iter_events(APP, USER, SESSION, after=cursor))


@given(cursor=st.text() | st.binary().map(lambda some: base64.urlsafe_b64encode(some).decode()))
def test_any_text_is_a_cursor_or_refused(cursor: str) -> None:
    decoders: list[Callable[[str], object]] = [decode_session_place, lambda text: decode_log_place("after", text)]
    for decode in decoders:
        with pytest.raises(errors.InvalidInputError):
            decode(cursor)


async def test_arguments_of_pages_that_cannot_be_used(service: DatabaseSessionService, log: list[Event]) -> None:
    for limit in (0, -1, True, 1.0, "5", 2**70):
        with pytest.raises(errors.InvalidInputError, match="limit must be an integer from 1"):
            await service.list_sessions(limit=limit)  # type: ignore[arg-type]  # wrong on purpose
        with pytest.raises(errors.InvalidInputError, match="limit must be an integer from 1"):
            await service.get_events(APP, USER, SESSION, limit=limit)  # type: ignore[arg-type]  # wrong on purpose
        with pytest.raises(errors.InvalidInputError, match="page_size must be an integer from 1"):
            await anext(service.iter_sessions(page_size=limit))  # type: ignore[arg-type]  # wrong on purpose
    for moment in (float("nan"), float("inf"), "now", True, 10**400):
        for name in ("updated_after", "updated_before"):
            with pytest.raises(errors.InvalidInputError, match=f"{name} must be a number of seconds"):
                await service.list_sessions(**{name: moment})  # type: ignore[arg-type]  # wrong on purpose
    wrong_states: list[Any] = [{"user:x": 1}, {"app:x": 1}, {"temp:x": 1}, ["x"], {"a\0": 1}, {1: 1}]
    for state in wrong_states:
        with pytest.raises(errors.InvalidInputError):
            await service.list_sessions(state=state)
    wrong_authors: list[Any] = ["user", b"user", 5, [5], ["a\0b"]]
    for authors in wrong_authors:
        with pytest.raises(errors.InvalidInputError):
            await service.get_events(APP, USER, SESSION, authors=authors)


async def test_cancelled_page_leaves_the_service_working(service: DatabaseSessionService, log: list[Event]) -> None:
    for _ in range(20):
        for call in (service.list_sessions(limit=1), service.get_events(APP, USER, SESSION, limit=1)):
            task = asyncio.ensure_future(call)
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    assert (await service.get_events(APP, USER, SESSION)).events == log


async def test_pages_of_a_closed_service(service: DatabaseSessionService) -> None:
    await service.close()
    calls: list[Any] = [service.list_sessions(limit=1), service.get_events(APP, USER, SESSION)]
    calls += [anext(service.iter_sessions()), anext(service.iter_events(APP, USER, SESSION))]
    for call in calls:
        with pytest.raises(errors.ServiceClosedError):
            await call


async def test_session_of_a_page_can_be_appended_to(service: DatabaseSessionService) -> None:
    await create(service, "a", 1.0)
    (session,) = (await service.list_sessions(limit=1)).sessions
    assert isinstance(session, Session)
    await service.append_event(session, event(2.0))
    assert [one.timestamp for one in (await service.get_events(APP, USER, "a")).events] == [1.0, 2.0]
