"""A random life of a database, by the calls that ADK's services have: it answers as the documented model does.

Two services work on one file, each with its own cache; handles are kept for as long as the example lasts, so that many
of them are overtaken, deleted or restored from elsewhere when they are used.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import json
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

from google.adk.events import Event
from google.adk.platform import time as platform_time
from google.adk.platform import uuid as platform_uuid
from google.adk.sessions import Session
from google.adk.sessions.base_session_service import GetSessionConfig
from google.genai import types
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from sessiondb import DatabaseSessionService, errors
from sessiondb.options import CacheMode, Index
from tests.contract.documented import Handle, Hook, Key, MissingError, StaleError
from tests.contract.remembering import RememberingService
from tests.databases import Ask, asking
from tests.strategies import any_text, as_stored, exactly, names, small_deltas, timestamps

ResultT = TypeVar("ResultT")

APPS = st.sampled_from(["my_app", "%"])
USERS = st.sampled_from(["user_123", "", "' OR 1=1--"])
CACHES: st.SearchStrategy[CacheMode] = st.sampled_from(["copy", "shallow", "share", "off"])
SERVICES = st.sampled_from([0, 1])
PARTS = any_text.map(lambda text: types.Part(text=text)) | st.sampled_from(
    [
        types.Part(text="alpha beta"),
        types.Part(text="beta gamma"),
        types.Part(function_call=types.FunctionCall(name="a", args={"x": 1})),
        types.Part(function_call=types.FunctionCall(name="b", args={})),
        types.Part(function_response=types.FunctionResponse(name="a", response={"x": 1})),
        types.Part(function_response=types.FunctionResponse(name="b", response={})),
    ]
)
# Small ones: what an event can hold is the round trip's matter, and many small steps find more than a few large ones.
EVENTS = st.builds(
    Event,
    author=st.sampled_from(["user", "agent"]),
    invocation_id=st.sampled_from(["", "i1", "i2"]),
    timestamp=timestamps,
    content=st.none() | PARTS.map(lambda part: types.Content(role="model", parts=[part])),
    usage_metadata=st.sampled_from([None, None, types.GenerateContentResponseUsageMetadata(total_token_count=3)]),
)
KINDS = st.sampled_from(["append", "append", "append", "append again", "update", "create"])
PARTIAL = st.sampled_from([None, None, False, True])
CONFIGS = st.none() | st.builds(
    GetSessionConfig,
    num_recent_events=st.none() | st.integers(0, 5),
    after_timestamp=st.none() | timestamps,
)


def _redact(event: Event) -> Event:
    """Takes what an agent has said, and one key, out of an event."""
    if event.author == "agent":
        if event.content is not None:
            event.content = types.Content(role="model", parts=[types.Part(text="[redacted]")])
        event.actions.state_delta.pop("a", None)
    return event


def _keep_place(event: Event) -> Event | None:
    """Lets of an agent's event only its place be stored."""
    return None if event.author == "agent" else event


HOOKS = [None, None, None, _redact, _keep_place]


class Pair:
    """A live Session of the service, and the model's counterpart."""

    def __init__(self, live: Session, model: Handle) -> None:
        self.live = live
        self.model = model

    def __repr__(self) -> str:
        return f"<handle of {self.live.id!r}, {len(self.live.events)} events>"


class Life(RuleBasedStateMachine):
    """See the module."""

    handles: Bundle[Pair] = Bundle("handles")
    delivered: Bundle[Event] = Bundle("delivered")

    def __init__(self, location: Path | str) -> None:
        super().__init__()
        self.location = location
        self.loop = asyncio.Runner()
        # Moments and ids are counted, so that an example that fails fails again.
        self.context = contextvars.copy_context()
        moments, ids = itertools.count(1_000), itertools.count()
        self.context.run(platform_time.set_time_provider, lambda: float(next(moments)))
        self.context.run(platform_uuid.set_id_provider, lambda: f"generated {next(ids)}")
        self.caches: tuple[CacheMode, CacheMode] = ("copy", "copy")
        self.index: Index | None = None
        self.services: list[DatabaseSessionService] = []
        self.model = RememberingService(keeps_none=False)

    def run(self, call: Coroutine[Any, Any, ResultT]) -> ResultT:
        return self.loop.run(call, context=self.context)

    @initialize(
        target=handles,
        one=CACHES,
        other=CACHES,
        keeps_none=st.booleans(),
        hook=st.sampled_from(HOOKS),
        index=st.sampled_from([None, "text"]),
        state=small_deltas,
    )
    def begin(
        self,
        *,
        one: CacheMode,
        other: CacheMode,
        keeps_none: bool,
        hook: Hook | None,
        index: Index | None,
        state: dict[str, Any],
    ) -> Any:
        self.index = index
        self.model = RememberingService(keeps_none=keeps_none, hook=hook)
        self.open(one, other)
        first = self.create(0, "my_app", "user_123", "s1", state)
        return multiple(first, self.get(1, first, None), self.create(1, "my_app", "user_123", "s2", {}))

    def open(self, one: CacheMode, other: CacheMode) -> None:
        self.caches = (one, other)
        # Syncing to disk is what takes the time, and no power is cut here.
        self.services = [
            DatabaseSessionService(
                self.location,
                log_cache=cache,
                durability="normal",
                none_in_delta="store" if self.model.keeps_none else "delete",
                before_store=self.model.hook,
                index=self.index,
            )
            for cache in self.caches
        ]

    def close(self) -> None:
        for service in self.services:
            self.run(service.close())

    def teardown(self) -> None:
        self.close()
        if self.services:
            self.check_tables()
        self.loop.close()

    @rule(target=handles, at=SERVICES, app=APPS, user=USERS, session_id=names | st.none(), state=small_deltas)
    def create(self, at: int, app: str, user: str, session_id: str | None, state: dict[str, Any]) -> Any:
        call = self.services[at].create_session(app, user, session_id, dict(state))
        wanted = (session_id or "").strip()
        if wanted and Key(app, user, wanted) in self.model.records:
            try:
                self.run(call)
            except errors.AlreadyExistsError:
                return multiple()
            raise AssertionError("a session was created twice")
        live = self.run(call)
        assert live.id == wanted or (not wanted and live.id)
        model = self.run(self.model.create(Key(app, user, live.id), state, live.last_update_time))
        pair = Pair(live, model)
        compare(pair.live, pair.model.session)
        return pair

    @rule(target=handles, at=SERVICES, known=handles, config=CONFIGS)
    def get(self, at: int, known: Pair, config: GetSessionConfig | None) -> Any:
        key = known.model.key
        live = self.run(self.services[at].get_session(*key, config))
        model = self.run(self.model.get(key, config))
        if live is None or model is None:
            assert live is None
            assert model is None
            return multiple()
        compare(live, model.session)
        return Pair(live, model)

    @rule(
        target=delivered,
        pair=handles,
        appends=st.lists(st.tuples(SERVICES, EVENTS, small_deltas, PARTIAL), min_size=1, max_size=3),
    )
    def append(self, pair: Pair, appends: list[tuple[int, Event, dict[str, Any], bool | None]]) -> Any:
        taken = []
        for at, drawn, delta, partial in appends:
            event = drawn.model_copy(update={"id": self.context.run(Event.new_id), "partial": partial})
            event.actions = event.actions.model_copy(update={"state_delta": delta})
            if partial:
                assert self.run(self.services[at].append_event(pair.live, event)) is event
                compare(pair.live, pair.model.session)
            elif (appended := self._append(at, pair, event)) is not None:
                taken.append(appended)
        return multiple(*taken)

    @rule(target=delivered, at=SERVICES, pair=handles, known=delivered)
    def deliver_again(self, at: int, pair: Pair, known: Event) -> Any:
        return self._append(at, pair, known.model_copy(deep=True)) or multiple()

    @rule(target=delivered, at=SERVICES, pair=handles, known=delivered, author=st.sampled_from(["one", "two"]))
    def append_with_a_used_id(self, at: int, pair: Pair, known: Event, author: str) -> Any:
        return self._append(at, pair, known.model_copy(update={"author": author}, deep=True)) or multiple()

    def _append(self, at: int, pair: Pair, event: Event) -> Event | None:
        """Appends in both worlds; the event as it was given, if it was taken."""
        given = event.model_copy(deep=True)
        marked = is_marked(pair.live)
        call = self.services[at].append_event(pair.live, event)
        try:
            self.run(self.model.append(pair.model, given, marked=marked))
        except (StaleError, MissingError) as refusal:
            expected = errors.StaleSessionError if isinstance(refusal, StaleError) else errors.SessionNotFoundError
            try:
                self.run(call)
            except expected:
                compare(pair.live, pair.model.session)
                assert exactly_delta(event) == exactly_delta(given)
                return None
            raise AssertionError(f"accepted in spite of {refusal!r}") from None
        assert self.run(call) is event
        compare(pair.live, pair.model.session)
        return given

    @rule(
        at=SERVICES,
        pairs=st.lists(handles, min_size=1, max_size=3),
        steps=st.lists(st.tuples(KINDS, EVENTS, small_deltas), min_size=2, max_size=7),
    )
    def together(self, at: int, pairs: list[Pair], steps: list[tuple[str, Event, dict[str, Any]]]) -> None:
        """Several writes at once, most of which share a transaction: as if each had been alone, in their order.

        All go through one service: of appends that overlap, each service knows its own only.
        """
        begun: list[tuple[str, Pair, Event, Coroutine[Any, Any, object]]] = []
        service = self.services[at]
        for (kind, drawn, delta), pair in zip(steps, itertools.cycle(pairs), strict=False):
            key = pair.model.key
            event = drawn.model_copy(update={"id": self.context.run(Event.new_id)})
            event.actions = event.actions.model_copy(update={"state_delta": delta})
            if kind == "append again":
                # What the step before appends, or what is in the log.
                before = begun[-1][2] if begun else next(iter(pair.model.session.events), event)
                event = before.model_copy(deep=True)
            if kind.startswith("append"):
                given = event.model_copy(deep=True)
                begun.append((kind, pair, given, service.append_event(pair.live, event)))
            elif kind == "update":
                begun.append((kind, pair, event, service.update_keys(*key, delta)))
            else:
                begun.append((kind, pair, event, service.create_session(*key, dict(delta))))

        async def at_once() -> list[object]:
            return await asyncio.gather(*(call for *_, call in begun), return_exceptions=True)

        marked = {id(pair): is_marked(pair.live) for pair in pairs}
        ends = self.run(at_once())
        # One that is appended again may be what recorded an update once.
        appended = {event.id for kind, _, event, _ in begun if kind.startswith("append")}
        recorded = {key: self._new_updates(key, appended) for key in {pair.model.key for pair in pairs}}
        for (kind, pair, event, _), end in zip(begun, ends, strict=True):
            expected = self._expected_end(kind, pair, event, end, recorded, marked=marked[id(pair)])
            assert type(end) is self.run(expected)
        for pair in pairs:
            compare(pair.live, pair.model.session)
            live = self.run(self.services[0].get_session(*pair.model.key))
            model = self.run(self.model.get(pair.model.key))
            assert (live is None) == (model is None)
            if live is not None and model is not None:
                compare(live, model.session)

    def _new_updates(self, key: Key, appended: set[str]) -> Iterator[Event]:
        """The events by which updates of a session were recorded that the model does not know of yet."""
        live = self.run(self.services[0].get_session(*key))
        model = self.run(self.model.get(key))
        known = appended if model is None else appended | {event.id for event in model.session.events}
        events = [] if live is None else live.events
        return iter([event for event in events if event.invocation_id.startswith("update-") and event.id not in known])

    async def _expected_end(
        self,
        kind: str,
        pair: Pair,
        event: Event,
        end: object,
        recorded: dict[Key, Iterator[Event]],
        *,
        marked: bool,
    ) -> type:
        """Carries out a step in the model, and says what the service must have answered."""
        key = pair.model.key
        exists = key in self.model.records
        if kind.startswith("append"):
            try:
                await self.model.append(pair.model, event, marked=marked)
            except StaleError:
                return errors.StaleSessionError
            except MissingError:
                return errors.SessionNotFoundError
            return Event
        if kind == "update":
            if not exists:
                return errors.SessionNotFoundError
            await self.model.update_keys(key, next(recorded[key]))
            return type(None)
        if exists:
            return errors.AlreadyExistsError
        assert isinstance(end, Session)
        created = await self.model.create(key, event.actions.state_delta, end.last_update_time)
        compare(end, created.session)
        return Session

    @rule(target=handles, pair=handles)
    def restore_without_marker(self, pair: Pair) -> Pair:
        fields = {name: getattr(pair.live, name) for name in Session.model_fields}
        live = Session(**{**fields, "state": dict(pair.live.state), "events": list(pair.live.events)})
        session = pair.model.session.model_copy(
            update={"state": dict(pair.model.session.state), "events": list(pair.model.session.events)}
        )
        return Pair(live, Handle(pair.model.key, session, None))

    @rule(at=SERVICES, pair=handles, delta=small_deltas)
    def update_keys(self, at: int, pair: Pair, delta: dict[str, Any]) -> None:
        key = pair.model.key
        call = self.services[at].update_keys(*key, delta)
        if key not in self.model.records:
            try:
                self.run(call)
            except errors.SessionNotFoundError:
                return
            raise AssertionError("a session that does not exist was updated")
        self.run(call)
        # Its id and moment are the service's choice: the model takes the event over from the log.
        read = self.run(self.services[at].get_session(*key, GetSessionConfig(num_recent_events=1)))
        assert read is not None
        (recorded,) = read.events
        self.run(self.model.update_keys(key, recorded))
        expected = {name: value for name, value in delta.items() if not name.startswith("temp:")}
        assert set(recorded.actions.state_delta) == set(expected)
        assert recorded.author == "user"

    @rule(
        target=handles,
        at=SERVICES,
        pair=handles,
        # Deleted for good too often, most handles would be handles of nothing.
        what=st.sampled_from(["nothing", "delete", "create anew", "create anew"]),
        state=small_deltas,
    )
    def delete(self, at: int, pair: Pair, what: str, state: dict[str, Any]) -> Any:
        if what == "nothing":
            return multiple()
        key = pair.model.key
        self.run(self.services[at].delete_session(*key))
        self.run(self.model.delete(key))
        if what == "delete":
            return multiple()
        # The other service may hold the log of the earlier incarnation.
        renewed = self.create(at, *key, state)
        return multiple(renewed, self.get(1 - at, renewed, None))

    @rule(at=SERVICES, key=st.builds(Key, APPS, USERS, names), every=st.tuples(st.booleans(), st.booleans()))
    def look_around(self, at: int, key: Key, every: tuple[bool, bool]) -> None:
        """Reads without a handle: a session, a list, a user's state, a count."""
        app, user, session_id = key
        service = self.services[at]
        live = self.run(service.get_session(app, user, session_id))
        model = self.run(self.model.get(Key(app, user, session_id.strip())))
        assert (live is None) == (model is None)
        if live is not None and model is not None:
            compare(live, model.session)
        assert service.get_event_count(app, user, session_id) == (0 if model is None else len(model.session.events))
        state = self.run(service.get_user_state(app, user))
        assert exactly(state) == exactly(self.model.memory.user_state.get(app, {}).get(user, {}))
        filters = (None if every[0] else app, None if every[1] else user)
        listed = self.run(service.list_sessions(*filters))
        expected = self.run(self.model.listed(*filters))
        assert len(listed.sessions) == len(listed) == len(expected)
        for one, other, row in zip(listed.sessions, expected, listed, strict=True):
            compare(one, other)
            assert (row["app_name"], row["user_id"], row["session_id"]) == (one.app_name, one.user_id, one.id)

    @rule(vacuum=st.booleans())
    def restart(self, vacuum: bool) -> None:
        if vacuum:
            self.services[0].vacuum()
        self.close()
        self.check_tables()
        self.open(*self.caches)

    @invariant()
    @precondition(lambda self: bool(self.services))
    def totals_agree(self) -> None:
        stats = self.services[0].get_stats()
        assert stats["sessions"] == len(self.model.records)
        assert stats["events"] == sum(len(record.after) for record in self.model.records.values())

    def check_tables(self) -> None:
        with asking(self.location) as ask:
            if isinstance(self.location, Path):
                assert ask("PRAGMA integrity_check") == [("ok",)]
                assert ask("PRAGMA foreign_key_check") == []
            check_rows(ask)
            self._check_replay(ask)

    def _check_replay(self, ask: Ask) -> None:
        """The state in the tables is what the creation and the log make of it."""
        for key, record in self.model.records.items():
            state = dict(record.created_with)
            for actions, extra in ask(
                "SELECT actions, extra FROM adk_events WHERE app_name = ? AND user_id = ? AND session_id = ? ORDER BY seq",
                *key,
            ):
                for name, value in json.loads(actions)["state_delta"].items():
                    assert not name.startswith("temp:")
                    if value is None and name not in json.loads(extra or "{}").get("stored_none", ()):
                        state.pop(name, None)
                    else:
                        state[name] = value
            own = {name: value for name, value in state.items() if not name.startswith(("app:", "user:"))}
            assert exactly(_scope(ask, "SESSION", *key)) == exactly(own)
        for app, users in self.model.memory.user_state.items():
            for user, state in users.items():
                assert exactly(_scope(ask, "USER", app, user, None)) == exactly(state)
        for app, state in self.model.memory.app_state.items():
            assert exactly(_scope(ask, "APP", app, None, None)) == exactly(state)


def is_marked(session: Session) -> bool:
    return session._storage_update_marker is not None


def _scope(ask: Ask, scope: str, *key: str | None) -> dict[str, Any]:
    rows = ask("SELECT app_name, user_id, session_id, state_key, state_value FROM adk_state WHERE scope = ?", scope)
    return {name: json.loads(value) for *owner, name, value in rows if tuple(owner) == key}


def check_rows(ask: Ask) -> None:
    """What holds in every database, whatever is in it."""
    sessions = ask(
        "SELECT app_name, user_id, session_id, incarnation, revision, last_seq, cut_seq, cut_revision FROM adk_sessions"
    )
    for *key, incarnation, revision, last_seq, cut_seq, cut_revision in sessions:
        rows = ask(
            "SELECT seq, revision, incarnation FROM adk_events"
            " WHERE app_name = ? AND user_id = ? AND session_id = ? ORDER BY id",
            *key,
        )
        assert [row[0] for row in rows] == list(range(cut_seq + 1, last_seq + 1))
        revisions = [cut_revision, *(row[1] for row in rows)]
        assert revisions == sorted(revisions)
        # A log of which all was cut off goes on counting.
        assert revision == revisions[-1] if rows else revision >= cut_revision
        assert {row[2] for row in rows} <= {incarnation}
    assert len({row[3] for row in sessions}) == len(sessions)
    orphans = "SELECT count(*) FROM adk_state AS s WHERE scope = 'SESSION' AND NOT EXISTS (SELECT 1 FROM adk_sessions AS t WHERE t.app_name = s.app_name AND t.user_id = s.user_id AND t.session_id = s.session_id)"
    assert ask(orphans) == [(0,)]


def exactly_delta(event: Event) -> list[str]:
    """The keys of a delta; the values may be of any kind."""
    return sorted(event.actions.state_delta)


def compare(live: Session, model: Session) -> None:
    assert (live.id, live.app_name, live.user_id) == (model.id, model.app_name, model.user_id)
    assert live.last_update_time == model.last_update_time
    assert set(live.state) == set(model.state)
    for name, value in model.state.items():
        if name.startswith("temp:"):
            # As it was given, since it never leaves the process; as_stored() only makes it comparable.
            assert type(live.state[name]) is type(value)
            assert exactly(as_stored(live.state[name])) == exactly(as_stored(value))
        else:
            assert exactly(live.state[name]) == exactly(value)
    assert len(live.events) == len(model.events)
    for event, expected in zip(live.events, model.events, strict=True):
        assert event == expected
        assert exactly(event.actions.state_delta) == exactly(expected.actions.state_delta)
