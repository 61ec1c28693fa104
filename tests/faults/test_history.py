"""Concurrency: what many clients are told at the same time could have been told one after the other."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from google.adk.events import Event, EventActions
from google.adk.sessions import Session

from sessiondb import DatabaseSessionService
from sessiondb.errors import AlreadyExistsError, SessionNotFoundError, StaleSessionError
from sessiondb.options import OnStale
from tests.faults.figures import Figures
from tests.faults.history import (
    Answer,
    Call,
    Kind,
    Recorder,
    State,
    View,
    find_violations,
    is_linearizable,
    swapped,
    without,
)
from tests.faults.oracle import assert_sound, stored_ids
from tests.faults.sizes import sized
from tests.faults.workload import APP, make_event

LOOPS, CLIENTS_PER_LOOP, CALLS_PER_SESSION = 2, 4, 100


class Client:
    """Makes random calls on one session, with a handle of its own."""

    def __init__(
        self,
        number: int,
        service: DatabaseSessionService,
        session_id: str,
        recorder: Recorder,
        rng: random.Random,
        *,
        on_stale: OnStale,
        deletes: float,
    ) -> None:
        self._deletes = deletes
        self._number = number
        self._service = service
        self._session_id = session_id
        self._recorder = recorder
        self._rng = rng
        self._checked = on_stale == "reject"
        self._handle: Session | None = None
        self._n = 0

    async def run(self, calls: int) -> None:
        for _ in range(calls):
            chance = self._rng.random()
            if chance < self._deletes:
                await self._delete()
            elif chance < self._deletes + 0.08:
                await self._create()
            elif chance < 0.45 or self._handle is None:
                await self._get()
            else:
                await self._append(self._handle)

    async def _create(self) -> None:
        self._n += 1
        born = f"{self._session_id}.born{self._number}.{self._n}"
        made = self._recorder.moment()
        answer: Answer = "ok"
        try:
            self._handle = await self._service.create_session(
                app_name=APP, user_id="u", session_id=self._session_id, state={"born": born}
            )
        except AlreadyExistsError:
            answer = "exists"
        self._record("create", answer, made, event=born)

    async def _delete(self) -> None:
        made = self._recorder.moment()
        await self._service.delete_session(app_name=APP, user_id="u", session_id=self._session_id)
        self._record("delete", "ok", made)

    async def _get(self) -> None:
        made = self._recorder.moment()
        session = await self._service.get_session(app_name=APP, user_id="u", session_id=self._session_id)
        self._record("get", "missing" if session is None else "ok", made, view=view_of(session))
        self._handle = session or self._handle

    async def _append(self, handle: Session) -> None:
        self._n += 1
        view = view_of(handle)
        event = Event(
            id=f"{self._session_id}/{self._number}.{self._n}",
            invocation_id="i",
            author="agent",
            # Clocks go backwards, and say the same twice.
            timestamp=1_700_000_000.0 - self._rng.randrange(3),
            actions=EventActions(state_delta={"last": f"{self._session_id}/{self._number}.{self._n}"}),
        )
        made = self._recorder.moment()
        answer: Answer = "ok"
        try:
            await self._service.append_event(handle, event)
        except SessionNotFoundError:
            answer = "missing"
        except StaleSessionError:
            answer = "stale"
        self._record("append", answer, made, event=event.id, view=view)
        if answer == "stale" and self._rng.random() < 0.8:
            await self._get()

    def _record(self, kind: Kind, answer: Answer, made: int, *, event: str = "", view: State = None) -> None:
        self._recorder.calls.append(
            Call(
                self._number,
                self._session_id,
                kind,
                answer,
                made,
                self._recorder.moment(),
                event,
                view,
                self._checked,
            )
        )


def view_of(session: Session | None) -> State:
    """Returns what a Session holds, after checking that its state goes with its log."""
    if session is None:
        return None
    events = tuple(event.id for event in session.events)
    assert session.state.get("last") == (events[-1] if events else None), "state and log of one read do not agree"
    return View(session.state["born"], events)


def record_history(
    path: Path, rng: random.Random, sessions: int, calls: int, on_stale: OnStale, *, deletes: float = 0.04
) -> list[Call]:
    """Lets clients on several event loops, and two services on one file, call at random; returns what was said."""
    recorder = Recorder()
    services = [DatabaseSessionService(path, on_stale=on_stale, log_cache=cache) for cache in ("copy", "off")]
    seeds = [rng.randrange(2**32) for _ in range(LOOPS)]
    failures: list[BaseException] = []

    def loop(place: int) -> None:
        mine = random.Random(seeds[place])

        async def one(session_id: str) -> None:
            clients = [
                Client(
                    place * CLIENTS_PER_LOOP + number,
                    services[number % 2],
                    session_id,
                    recorder,
                    random.Random(mine.randrange(2**32)),
                    on_stale=on_stale,
                    deletes=deletes,
                )
                for number in range(CLIENTS_PER_LOOP)
            ]
            await asyncio.gather(*(client.run(calls // (LOOPS * CLIENTS_PER_LOOP)) for client in clients))

        async def main() -> None:
            for start in range(0, sessions, 8):
                await asyncio.gather(*(one(f"s{number}") for number in range(start, min(start + 8, sessions))))

        try:
            asyncio.run(main())
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=loop, args=(place,)) for place in range(LOOPS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for service in services:
        asyncio.run(service.close())
    assert not failures
    return recorder.calls


@pytest.mark.parametrize("on_stale", ["reject", "append"])
def test_concurrent_histories_are_linearizable(
    tmp_path: Path, rng: random.Random, figures: Figures, on_stale: OnStale
) -> None:
    """Seen failing with reads that leave out the newest event, see below."""
    sessions = sized(20, 1000)
    calls = record_history(tmp_path / "db.sqlite3", rng, sessions, CALLS_PER_SESSION, on_stale)
    assert len(calls) >= sessions * CALLS_PER_SESSION * 0.9
    violations = find_violations(calls)
    assert not violations, "\n".join(violations[:10])
    answers = Counter(f"{call.kind} {call.answer}" for call in calls)
    figures(
        f"histories, on_stale={on_stale!r}",
        calls=len(calls),
        violations=0,
        **{name.replace(" ", "_"): n for name, n in sorted(answers.items())},
    )


def test_read_that_lags_is_noticed_as_not_linearizable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every tenth read leaves out the newest event, with its state, as a cache that lags behind would."""
    read = DatabaseSessionService.get_session
    count = 0

    async def lagging(self: DatabaseSessionService, **arguments: Any) -> Session | None:
        nonlocal count
        session = await read(self, **arguments)
        count += 1
        if count % 10 == 0 and session is not None and len(session.events) > 1:
            session.events.pop()
            session.state["last"] = session.events[-1].id
        return session

    monkeypatch.setattr(DatabaseSessionService, "get_session", lagging)
    calls = record_history(tmp_path / "db.sqlite3", random.Random(7), 10, CALLS_PER_SESSION, "append")
    assert find_violations(calls)


def test_linearizability_checker_sees_each_violation(tmp_path: Path) -> None:
    """A good history is taken for good; with one thing in it changed, it is not."""
    calls = record_history(tmp_path / "db.sqlite3", random.Random(3), 1, 64, "append", deletes=0.0)
    assert not find_violations(calls)
    reads = [call for call in calls if call.kind == "get" and call.view is not None and len(call.view.events) > 3]
    longest = max(reads, key=lambda call: len(call.view.events) if call.view else 0)
    assert longest.view is not None
    events = longest.view.events
    middle = events[len(events) // 2]
    broken = {
        "an event is dropped from all reads": without(calls, middle),
        "two events have changed places": swapped(calls, middle, events[-1]),
        "one read is short of an event": [
            replace(call, view=View(call.view.born, call.view.events[1:])) if call is longest and call.view else call
            for call in calls
        ],
        "one read is of nothing": [
            replace(call, answer="missing", view=None) if call is longest else call for call in calls
        ],
        "an answer is called stale": [
            replace(call, answer="stale") if call.event == middle else call for call in calls
        ],
    }
    for change, history in broken.items():
        assert find_violations(history), change


def test_linearizability_checker_searches_for_an_order() -> None:
    first = Call(1, "s", "create", "ok", 0, 1, "born")
    slow = Call(1, "s", "append", "ok", 2, 9, "a", checked=False)
    quick = Call(2, "s", "append", "ok", 3, 4, "b", checked=False)
    read = Call(3, "s", "get", "ok", 5, 6, view=View("born", ("b",)))
    late = Call(3, "s", "get", "ok", 10, 11, view=View("born", ("b", "a")))
    assert is_linearizable([first, slow, quick, read, late])
    assert not is_linearizable([first, slow, quick, read, replace(late, view=View("born", ("a", "b")))])
    assert not is_linearizable([first, slow, quick, replace(read, view=View("born", ())), late])


@pytest.mark.parametrize("on_stale", ["reject", "append"])
def test_stale_handles_race_and_lose_no_update(tmp_path: Path, on_stale: OnStale, figures: Figures) -> None:
    """16 handles count in one session at the same time. Refused, each counter update that was acknowledged counts;
    with reading again and retrying, all do; taken as they come, the log holds all of them.

    Seen failing with ``AppendEvent(..., handle=None)`` whatever ``on_stale`` says: 16 acknowledged, counter at 1.
    """
    handles, each = 16, 20

    async def main() -> None:
        async with DatabaseSessionService(tmp_path / "db.sqlite3", on_stale=on_stale) as service:
            await service.create_session(app_name=APP, user_id="u", session_id="s")

            async def load() -> Session:
                session = await service.get_session(app_name=APP, user_id="u", session_id="s")
                assert session is not None
                return session

            async def count(session: Session, name: str) -> bool:
                event = make_event(name, 1)
                event.actions.state_delta = {"count": session.state.get("count", 0) + 1}
                try:
                    await service.append_event(session, event)
                except StaleSessionError:
                    return False
                return True

            acknowledged = refused = 0
            for round_ in range(each):
                loaded = [await load() for _ in range(handles)]
                told = await asyncio.gather(
                    *(count(session, f"once/{round_}/{number}") for number, session in enumerate(loaded))
                )
                acknowledged += sum(told)
                refused += handles - sum(told)
            final = await load()
            assert len(final.events) == acknowledged
            if on_stale == "append":
                assert acknowledged == handles * each
                return
            assert final.state["count"] == acknowledged

            async def persist(number: int) -> None:
                session = await load()
                for turn in range(each):
                    while not await count(session, f"again/{number}/{turn}"):
                        session = await load()

            await asyncio.gather(*(persist(number) for number in range(handles)))
            after = await load()
            assert after.state["count"] == len(after.events) == acknowledged + handles * each
            figures(
                "16 stale handles on one session",
                acknowledged=acknowledged,
                refused_as_stale=refused,
                lost_updates=0,
                acknowledged_with_retries=f"{handles * each} of {handles * each}",
            )

    asyncio.run(main())


def test_concurrent_appends_of_256_tasks_never_fail(tmp_path: Path, figures: Figures) -> None:
    """Seen failing with ``busy_timeout`` 0 and two services with a writer each: "locked"."""
    tasks, each = 256, sized(4, 40)
    acknowledged: dict[str, list[str]] = {}
    seconds: list[float] = []

    async def main() -> None:
        async with DatabaseSessionService(tmp_path / "db.sqlite3") as service:

            async def converse(number: int) -> None:
                session = await service.create_session(app_name=APP, user_id="u", session_id=f"s{number}")
                log = acknowledged.setdefault(session.id, [])
                for n in range(each):
                    started = time.perf_counter()
                    event = await service.append_event(session, make_event(f"{session.id}/{n}", n))
                    seconds.append(time.perf_counter() - started)
                    log.append(event.id)

            async with asyncio.TaskGroup() as group:
                for number in range(tasks):
                    group.create_task(converse(number))

    asyncio.run(main())
    assert_sound(tmp_path / "db.sqlite3", acknowledged)
    seconds.sort()
    figures(
        "256 tasks on one service",
        appends=len(seconds),
        errors=0,
        lost=0,
        p99_ms=f"{seconds[len(seconds) * 99 // 100] * 1000:.1f}",
    )


def test_duplicate_event_delivered_often_is_stored_once(tmp_path: Path) -> None:
    """Through one handle, through fresh handles, at the same time and after a restart.

    Seen failing with the check for an equal event taken out of the general path, which takes a batch row by row.
    """
    path = tmp_path / "db.sqlite3"
    event = make_event("again", 1)

    async def deliver(service: DatabaseSessionService, times: int) -> None:
        async def once(session: Session) -> None:
            await service.append_event(session, event.model_copy(deep=True))

        fresh = [await service.get_session(app_name=APP, user_id="u", session_id="s") for _ in range(10)]
        sessions = [session for session in fresh if session is not None]
        await asyncio.gather(*(once(sessions[number % 10]) for number in range(times)))

    async def main() -> None:
        async with DatabaseSessionService(path) as service:
            session = await service.create_session(app_name=APP, user_id="u", session_id="s")
            await service.append_event(session, event.model_copy(deep=True))
            await deliver(service, 500)
        async with DatabaseSessionService(path) as service:
            await deliver(service, 500)

    asyncio.run(main())
    assert stored_ids(path) == {"s": ["again"]}
    assert_sound(path, {"s": ["again"]})
