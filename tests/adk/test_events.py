"""Values on their way through JSON: what comes back equal, what is coerced, what is refused before it is written."""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import itertools
import tempfile
from collections.abc import Coroutine, Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any, TypeVar
from uuid import UUID

import pytest
from google.adk.events import Event, EventActions
from google.adk.sessions import Session
from google.genai import types
from hypothesis import example, given
from hypothesis import strategies as st

from sessiondb import DatabaseSessionService, errors
from sessiondb.adk import scopes
from tests.strategies import (
    any_text,
    as_stored,
    deltas,
    exact_events,
    exactly,
    json_values,
    ordered_values,
    state_values,
    timestamps,
)

ResultT = TypeVar("ResultT")

APP, USER = "my_app", "user_123"


class Running:
    """A service, driven from code that is not asynchronous."""

    def __init__(self, service: DatabaseSessionService, loop: asyncio.Runner) -> None:
        self.service = service
        self._loop = loop
        self._names = itertools.count()

    def run(self, call: Coroutine[Any, Any, ResultT]) -> ResultT:
        return self._loop.run(call)

    def create(self, state: dict[str, Any] | None = None) -> Session:
        """A session of a user of its own."""
        return self.run(self.service.create_session(APP, f"user {next(self._names)}", "s", state))

    def append(self, session: Session, event: Event) -> None:
        self.run(self.service.append_event(session, event))

    def get(self, session: Session) -> Session:
        found = self.run(self.service.get_session(session.app_name, session.user_id, session.id))
        assert found is not None
        return found

    def read_anew(self, session: Session) -> Session:
        """Reads past every cache."""

        async def read() -> Session | None:
            async with DatabaseSessionService(
                repr(self.service).split("'")[1], log_cache="off", durability="normal"
            ) as other:
                return await other.get_session(session.app_name, session.user_id, session.id)

        found = self.run(read())
        assert found is not None
        return found


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with tempfile.TemporaryDirectory() as folder, asyncio.Runner() as loop:
        service = DatabaseSessionService(Path(folder) / "x.sqlite3", durability="normal")
        yield Running(service, loop)
        loop.run(service.close())


# --- Whatever hypothesis thinks of ------------------------------------------------------------------------------------


@given(delta=deltas)
def test_state_delta_is_stored_by_scope_without_temp(running: Running, delta: dict[str, Any]) -> None:
    session = running.create()
    event = Event(author="agent", actions=EventActions(state_delta=delta))
    given_delta = event.actions.state_delta
    before = dict(given_delta)
    running.append(session, event)
    stored = {key: as_stored(value) for key, value in delta.items() if not key.startswith("temp:")}
    kept = {key: value for key, value in stored.items() if value is not None}
    temp = {key: value for key, value in delta.items() if key.startswith("temp:")}
    read = running.read_anew(session)
    try:
        assert exactly(read.state) == exactly(kept)
        assert {key: session.state[key] for key in temp} == temp
        assert exactly({key: value for key, value in session.state.items() if key not in temp}) == exactly(kept)
        assert exactly(read.events[0].actions.state_delta) == exactly(stored)
        assert exactly(event.actions.state_delta) == exactly(stored)
        # The caller's own mapping is as it was: the event has another one.
        assert given_delta == before
    finally:
        # State of the app is everybody's.
        gone = {key: None for key in delta if key.startswith("app:")}
        running.run(running.service.update_keys(APP, session.user_id, "s", gone))


@given(value=state_values)
@example(value=float("nan"))
@example(value={"a": [float("inf"), b"\xff", {"b": b"ok", "c": {1, 2}}]})
def test_state_value_nan_or_bytes_is_coerced_the_same_everywhere(running: Running, value: Any) -> None:
    expected = as_stored(value)
    created = running.create({"own": value})
    updated = running.create({"own": "before"})
    running.run(running.service.update_keys(APP, updated.user_id, "s", {"own": value}))
    for session in (created, running.get(created)):
        assert exactly(session.state) == exactly({"own": expected})
    assert exactly(running.get(updated).state) == exactly({} if expected is None else {"own": expected})


@given(event=exact_events)
def test_event_comes_back_equal_and_duplicate_is_known(running: Running, event: Event) -> None:
    session = running.create()
    copy = event.model_copy(deep=True)
    running.append(session, event)
    read = running.read_anew(session)
    assert read.events == [copy]
    assert read.events[0].model_dump_json() == copy.model_dump_json()
    assert running.get(session) == session == read
    for again in (copy, read.events[0].model_copy(deep=True)):
        running.append(session, again)
    assert len(session.events) == 1


@given(
    anything=st.dictionaries(any_text, json_values | ordered_values | st.lists(ordered_values, max_size=2), max_size=3),
    output=json_values | ordered_values,
    confidence=st.floats() | st.none(),
)
def test_any_event_taken_is_readable_and_duplicate_is_known(
    running: Running, anything: dict[str, Any], output: Any, confidence: float | None
) -> None:
    session = running.create()
    part = types.Part(function_call=types.FunctionCall(name="tool", args=anything))
    event = Event(
        author="agent",
        content=types.Content(parts=[part]),
        custom_metadata=anything,
        output=output,
        avg_logprobs=confidence,
        actions=EventActions(agent_state=anything, set_model_response=output),
    )
    copy = event.model_copy(deep=True)
    try:
        running.append(session, event)
    except errors.InvalidInputError:
        assert session.events == running.get(session).events == []
        return
    read = running.read_anew(session)
    for again in (copy, read.events[0].model_copy(deep=True)):
        running.append(session, again)
    assert len(running.get(session).events) == 1


@given(moments=st.lists(timestamps, min_size=2, max_size=6))
def test_timestamp_texts_sort_as_the_moments_do(running: Running, moments: list[float]) -> None:
    session = running.create()
    for moment in moments:
        running.append(session, Event(author="agent", timestamp=moment))
    listed = running.run(running.service.list_sessions(APP, session.user_id))
    assert listed[0]["updated_at"] == _text(moments[-1])
    texts = list(map(_text, moments))
    for (left, left_text), (right, right_text) in itertools.combinations(zip(moments, texts, strict=True), 2):
        # Moments less than a microsecond apart may share a text.
        assert (left_text <= right_text) if left <= right else (left_text >= right_text)
    assert [event.timestamp for event in running.read_anew(session).events] == moments


def _text(moment: float) -> str:
    # By whole seconds and microseconds, since datetime.fromtimestamp() is what is under test.
    microseconds = round(moment * 1_000_000) if abs(moment) < 1e6 else None
    if microseconds is None:
        return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ").rjust(27, "0")
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@given(key=st.text())
def test_state_key_prefix_gives_one_scope(key: str) -> None:
    scope, name = scopes.parse(key)
    prefixes = {
        scopes.Scope.APP: "app:",
        scopes.Scope.USER: "user:",
        scopes.Scope.SESSION: "",
        scopes.Scope.TEMP: "",
    }
    assert prefixes[scope] + name == key
    assert (scope is scopes.Scope.TEMP) == key.startswith("temp:")
    assert (scope is scopes.Scope.SESSION) == (not key.startswith(("app:", "user:", "temp:")))


@given(key=st.text(max_size=5), value=json_values)
def test_state_key_of_any_text_or_refused_nul_surrogate(running: Running, key: str, value: Any) -> None:
    try:
        session = running.create({f"user:{key}": value})
    except errors.InvalidInputError:
        assert "\0" in key or any(0xD800 <= ord(character) < 0xE000 for character in key)
        return
    assert exactly(running.get(session).state) == exactly({f"user:{key}": value})


# --- Kinds of values --------------------------------------------------------------------------------------------------


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


@dataclasses.dataclass
class Point:
    x: int
    y: tuple[int, ...]


class Text(str):
    """Text of a class of its own."""

    __slots__ = ()


class Contrary(list[int]):
    """A list that cannot be compared."""

    __hash__ = None

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no comparison")


KINDS: dict[str, tuple[Any, Any]] = {
    "a date": (date(2026, 1, 2), "2026-01-02"),
    "a moment with a zone": (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00Z"),
    "a duration": (timedelta(seconds=90), "PT1M30S"),
    "a decimal": (Decimal("1.10"), "1.10"),
    "an id": (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    "a path": (PurePosixPath("/a/b"), "/a/b"),
    "an enumeration": (Colour.RED, "red"),
    "an enumeration of numbers": (Level.HIGH, 3),
    "a dataclass": (Point(1, (2,)), {"x": 1, "y": [2]}),
    "text of a class of its own": (Text("a"), "a"),
    "a list that cannot be compared": (Contrary([1]), [1]),
    "a set of mixed kinds": ({1, "a", None}, ["a", 1, None]),
    "a frozen set of tuples": (frozenset({(2, 1), (1, 2)}), [[1, 2], [2, 1]]),
    "a byte array": (bytearray(b"abc"), "abc"),
    "bytes beside other bytes": ({"a": b"abc", "b": b"\xff"}, {"a": "abc", "b": "_w=="}),
    "bytes beside a callable": ({"a": b"abc", "f": len}, {"a": "abc", "f": repr(len)}),
    "a mapping that is no dict": (MappingProxyType({"a": (1,)}), {"a": [1]}),
    "keys that are no text": ({1: "a", 2.5: "c"}, {"1": "a", "2.5": "c"}),
    "a key of None": ({None: 1}, {"None": 1}),
    "an integer of 600 bits": (2**600, 2**600),
    "whole numbers at the edge": (
        [2**63 - 1, 2**63, -(2**63), -(2**63) - 1],
        [2**63 - 1, 2**63, -(2**63), -(2**63) - 1],
    ),
    "an object": (object, repr(object)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_state_value_of_each_python_type_as_json(running: Running, kind: str) -> None:
    value, expected = KINDS[kind]
    session = running.create({"own": value})
    assert exactly(session.state) == exactly({"own": expected})
    running.append(session, Event(author="agent", actions=EventActions(state_delta={"more": value})))
    assert exactly(running.read_anew(session).state) == exactly({"own": expected, "more": expected})


def test_duplicate_event_with_set_in_other_order_is_known(running: Running) -> None:
    """Equal sets are gone through in different orders: in another process, and in this one where hashes collide.

    Seen failing with sets written in the order in which they are gone through.
    """
    # Which hashes collide differs from process to process, and not each collision changes the order.
    first, second = next(
        (one, other)
        for one, other in itertools.combinations(map(str, range(100)), 2)
        if list(set([one, other])) != list(set([other, one]))  # noqa: C405  # a literal has an order of its own
    )
    orders = [set([first, second]), set([second, first])]  # noqa: C405  # a literal has an order of its own
    assert orders[0] == orders[1]
    assert list(orders[0]) != list(orders[1])

    def event(names: set[str]) -> Event:
        anything = {"names": names, "nested": [{"frozen": frozenset(names)}]}
        call = types.FunctionCall(name="tool", args=anything)
        answer = types.FunctionResponse(name="tool", response=anything)
        return Event(
            id="e",
            author="agent",
            timestamp=1.0,
            content=types.Content(parts=[types.Part(function_call=call), types.Part(function_response=answer)]),
            output=anything,
            custom_metadata=anything,
            long_running_tool_ids=names,
            actions=EventActions(agent_state=anything),
        )

    session = running.create()
    for names in (*orders, *orders):
        running.append(session, event(names))
    (read,) = running.read_anew(session).events
    running.append(session, read)
    assert len(running.get(session).events) == 1
    assert read.output == {"names": sorted(names), "nested": [{"frozen": sorted(names)}]}
    assert read.long_running_tool_ids == names


def test_live_session_keeps_identity_of_equal_state_value(running: Running) -> None:
    equal, coerced = {"list": [1, "a"]}, {"tuple": (1,)}
    session = running.create()
    running.append(session, Event(author="agent", actions=EventActions(state_delta={"a": equal, "b": coerced})))
    assert session.state["a"] is session.events[0].actions.state_delta["a"]
    assert session.state == {"a": {"list": [1, "a"]}, "b": {"tuple": [1]}}
    assert coerced == {"tuple": (1,)}


@pytest.mark.parametrize(
    "value",
    [10**5_000, {"a": [10**5_000]}],
    ids=["a huge integer", "one inside"],
)
def test_huge_integer_is_invalid_input(running: Running, value: Any) -> None:
    session = running.create()
    with pytest.raises(errors.InvalidInputError, match="'own'"):
        running.create({"own": value})
    with pytest.raises(errors.InvalidInputError, match="'own'"):
        running.run(running.service.update_keys(APP, session.user_id, "s", {"own": value}))
    with pytest.raises(errors.InvalidInputError, match="'own'"):
        running.append(session, Event(author="agent", actions=EventActions(state_delta={"own": value})))
    for name in ("custom_metadata", "output"):
        with pytest.raises(errors.InvalidInputError):
            running.append(session, Event.model_validate({"author": "agent", name: {"a": value}}))
    assert running.read_anew(session).events == session.events == []


# --- Depth and size ---------------------------------------------------------------------------------------------------


def _nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


DEPTHS = [50, 150, *range(185, 206), 1_000, 5_000]
# What each way of putting a nested value in has to take at least.
TAKEN_AT_LEAST = 180


@pytest.mark.parametrize("depth", DEPTHS)
def test_deeply_nested_value_is_readable_or_refused(running: Running, depth: int) -> None:
    value = _nested(depth)
    session = running.create()
    taken = 0
    for state in ({"own": value}, {"user:u": value}):
        try:
            created = running.create(state)
        except errors.InvalidInputError:
            assert depth > TAKEN_AT_LEAST
            continue
        assert running.read_anew(created) == created
        assert running.run(running.service.list_sessions(APP, created.user_id)).sessions == [created]
        running.run(running.service.get_user_state(APP, created.user_id))
    events = [
        Event(author="agent", actions=EventActions(state_delta={"own": value})),
        Event(author="agent", actions=EventActions(agent_state={"own": value})),
        Event(author="agent", output=value),
        Event(author="agent", custom_metadata={"own": value}),
        Event(
            author="agent",
            content=types.Content(parts=[types.Part(function_call=types.FunctionCall(name="f", args={"own": value}))]),
        ),
    ]
    for event in events:
        try:
            running.append(session, event)
        except errors.InvalidInputError:
            assert depth > TAKEN_AT_LEAST
        else:
            taken += 1
    assert len(session.events) == taken
    assert running.read_anew(session) == running.get(session) == session


def test_value_above_size_limit_is_refused_before_queue(running: Running) -> None:
    session = running.create()
    writes = running.service.get_stats()["writes"]
    large = "é" * (32 * 1024 * 1024)
    with pytest.raises(errors.InvalidInputError, match=r"state\['own'\] is 67108866 bytes of JSON; at most 67108864"):
        running.append(session, Event(author="agent", actions=EventActions(state_delta={"own": large})))
    with pytest.raises(errors.InvalidInputError, match="67108866 bytes"):
        running.create({"own": large})
    with pytest.raises(errors.InvalidInputError, match="artifact service"):
        running.append(session, Event(author="agent", content=types.Content(parts=[types.Part(text=large)])))
    assert running.service.get_stats()["writes"] == writes
    assert running.get(session) == session


def test_large_event_comes_back_equal(running: Running) -> None:
    session = running.create()
    part = types.Part.from_bytes(data=bytes(range(256)) * 8_192, mime_type="image/png")
    running.append(
        session, Event(author="agent", content=types.Content(parts=[part, types.Part(text="x" * 1_000_000)]))
    )
    assert running.read_anew(session) == session
