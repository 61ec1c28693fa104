"""Values of every kind in every place: read once, shown as they are stored, or refused with their place and type.

The values of events and state as hypothesis draws them are the matter of ``test_events.py``; here are the kinds that
Python's standard library and pydantic offer.
"""

from __future__ import annotations

import asyncio
import collections
import csv
import dataclasses
import enum
import io
import itertools
import json
import logging
import math
import os
import re
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from ipaddress import IPv4Address
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple
from uuid import UUID

import numpy as np
import pytest
from google.adk.events import Event
from google.adk.sessions import Session
from google.genai import types
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, field_serializer

from sessiondb import DatabaseSessionService, errors
from sessiondb.options import Durability
from tests.strategies import any_text, exactly, json_values

APP, USER, SESSION = "my_app", "user_123", "sess_abc"

# --- Iterators --------------------------------------------------------------------------------------------------------


class Report(BaseModel):
    rows: Any


@dataclasses.dataclass
class Rows:
    rows: Any


class Countdown:
    """An iterator of a class of its own."""

    def __init__(self) -> None:
        self.left = 3

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        if not self.left:
            raise StopIteration
        self.left -= 1
        return self.left


ITERATORS: dict[str, tuple[Callable[[], Any], list[Any]]] = {
    "a generator": (lambda: (n for n in range(3)), [0, 1, 2]),
    "map": (lambda: map(str, [1, 2]), ["1", "2"]),
    "filter": (lambda: filter(None, [0, 1]), [1]),
    "zip": (lambda: zip([1, 2], "ab", strict=True), [[1, "a"], [2, "b"]]),
    "reversed": (lambda: reversed([1, 2]), [2, 1]),
    "iter": (lambda: iter([1, 2]), [1, 2]),
    "iter of a dict": (lambda: iter({"a": 1}), ["a"]),
    "chain": (lambda: itertools.chain([1], [2]), [1, 2]),
    "enumerate": (lambda: enumerate("a"), [[0, "a"]]),
    "csv.reader": (lambda: csv.reader(io.StringIO("a,b\nc,d\n")), [["a", "b"], ["c", "d"]]),
    "an open file": (lambda: io.StringIO("a\nb\n"), ["a\n", "b\n"]),
    "a class of its own": (Countdown, [2, 1, 0]),
    "iterators in an iterator": (lambda: (iter([n]) for n in range(2)), [[0], [1]]),
    "sets in an iterator": (lambda: iter([{2, 1}]), [[1, 2]]),
}
NESTINGS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "alone": (lambda value: value, lambda stored: stored),
    "in a dict": (lambda value: {"rows": value, "n": 1}, lambda stored: {"rows": stored, "n": 1}),
    "in a list": (lambda value: [[value]], lambda stored: [[stored]]),
    "in a tuple": (lambda value: {"pair": (1, value)}, lambda stored: {"pair": [1, stored]}),
    "in a deque": (lambda value: collections.deque([value]), lambda stored: [stored]),
    "beside a set": (lambda value: [{1, 2}, value], lambda stored: [[1, 2], stored]),
    "beside a date": (lambda value: [date(2026, 1, 2), value], lambda stored: ["2026-01-02", stored]),
    "in a model": (lambda value: Report(rows=value), lambda stored: {"rows": stored}),
    "in a dataclass": (Rows, lambda stored: {"rows": stored}),
}


def event_with(place: str, value: Any, **fields: Any) -> Event:
    """An event that holds a value in one of its places."""
    event = Event(author="agent", timestamp=1.0, **fields)
    match place:
        case "args":
            call = types.FunctionCall(name="tool", args={"a": value})
            event.content = types.Content(parts=[types.Part(text="first"), types.Part(function_call=call)])
        case "response":
            answer = types.FunctionResponse(name="tool", response={"a": value})
            event.content = types.Content(parts=[types.Part(text="first"), types.Part(function_response=answer)])
        case "custom_metadata":
            event.custom_metadata = {"a": value}
        case "output":
            event.output = {"a": value}
        case "agent_state":
            event.actions.agent_state = {"a": value}
        case "state":
            event.actions.state_delta = {"a": value}
        case _:
            raise NotImplementedError(place)
    return event


def value_in(place: str, event: Event) -> Any:
    """What an event holds in that place."""
    match place:
        case "args" | "response":
            assert event.content is not None
            assert event.content.parts is not None
            part = event.content.parts[1]
            held: Any = part.function_call.args if part.function_call else part.function_response
            return held["a"] if isinstance(held, dict) else held.response["a"]
        case "agent_state":
            return (event.actions.agent_state or {})["a"]
        case "state":
            return event.actions.state_delta["a"]
        case _:
            return getattr(event, place)["a"]


PLACES = ("args", "response", "custom_metadata", "output", "agent_state", "state")
# Where a message says that they are.
PATHS = {
    "args": "content.parts[1].function_call.args['a']",
    "response": "content.parts[1].function_response.response['a']",
    "custom_metadata": "custom_metadata['a']",
    "output": "output['a']",
    "agent_state": "actions.agent_state['a']",
    "state": "state['a']",
}


async def reopened(location: Path | str, session: Session, durability: Durability = "full") -> Session:
    """A session as another service reads it."""
    async with DatabaseSessionService(location, durability=durability, log_cache="off") as other:
        found = await other.get_session(session.app_name, session.user_id, session.id)
    assert found is not None
    return found


@pytest.mark.anyio
@pytest.mark.parametrize("nesting", NESTINGS)
@pytest.mark.parametrize("kind", ITERATORS)
async def test_iterator_is_read_once_and_stored_as_list(
    location: Path | str, service: DatabaseSessionService, kind: str, nesting: str
) -> None:
    make, items = ITERATORS[kind]
    nest, nested = NESTINGS[nesting]
    expected = nested(items)
    session = await service.create_session(APP, USER, SESSION)
    for place in PLACES:
        event = event_with(place, nest(make()))
        await service.append_event(session, event)
        assert exactly(value_in(place, event)) == exactly(expected)
        assert session.events[-1] is event
        read = (await reopened(location, session)).events[-1]
        assert exactly(value_in(place, read)) == exactly(expected)
        # Delivered again, by whoever holds it or has read it: known.
        await service.append_event(session, event.model_copy(deep=True))
        await service.append_event(session, read)
    assert service.get_event_count(APP, USER, SESSION) == len(PLACES)

    assert exactly(session.state["a"]) == exactly(expected)
    created = await service.create_session(APP, USER, "created", {"own": nest(make()), "user:u": nest(make())})
    assert exactly(created.state) == exactly({"own": expected, "user:u": expected})
    await service.update_keys(APP, USER, "created", {"own": nest(make()), "more": nest(make())})
    updated = await reopened(location, created)
    assert exactly(updated.state) == exactly({"own": expected, "user:u": expected, "more": expected})
    assert exactly(updated.events[0].actions.state_delta) == exactly({"own": expected, "more": expected})


@pytest.mark.anyio
@pytest.mark.parametrize("nesting", NESTINGS)
async def test_iterator_of_refused_append_is_a_list_in_the_next_one(
    service: DatabaseSessionService, nesting: str
) -> None:
    nest, nested = NESTINGS[nesting]
    stale = await service.create_session(APP, USER, SESSION)
    fresh = await service.get_session(APP, USER, SESSION)
    assert fresh is not None
    await service.append_event(fresh, Event(author="agent"))
    for place in PLACES:
        event = event_with(place, nest(iter([1, 2])))
        with pytest.raises(errors.StaleSessionError):
            await service.append_event(stale, event)
        await service.append_event(fresh, event)
        assert exactly(value_in(place, event)) == exactly(nested([1, 2]))
        # Refused for something else that it holds.
        event = event_with(place, nest(iter([3])), id="")
        event.error_code = object()  # type: ignore[assignment]  # that is the point
        with pytest.raises(errors.InvalidInputError, match="error_code is of type object"):
            await service.append_event(fresh, event)
        event.error_code = None
        await service.append_event(fresh, event)
        assert exactly(value_in(place, event)) == exactly(nested([3]))
    state: dict[str, Any] = {"a": nest(iter([4]))}
    with pytest.raises(errors.AlreadyExistsError):
        await service.create_session(APP, USER, SESSION, state)
    created = await service.create_session(APP, USER, "other", state)
    assert exactly(created.state) == exactly({"a": nested([4])})


@pytest.mark.anyio
@pytest.mark.parametrize("place", PLACES)
async def test_iterator_that_fails_or_never_ends_is_refused(
    service: DatabaseSessionService, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sessiondb.adk.values._MOST_ITEMS", 1_000)

    def failing() -> Iterator[int]:
        yield 1
        raise LookupError("hunter2")

    session = await service.create_session(APP, USER, SESSION)
    writes = service.get_stats()["writes"]
    for value, says in (
        (failing(), "is of type generator and cannot be read to its end (LookupError)"),
        (itertools.count(), "is of type itertools.count and has more than 1000 items"),
    ):
        with pytest.raises(errors.InvalidInputError) as refusal:
            await service.append_event(session, event_with(place, value))
        assert str(refusal.value) == f"{PATHS[place]} {says}"
    assert (session.events, service.get_stats()["writes"]) == ([], writes)


# --- Lone surrogates --------------------------------------------------------------------------------------------------

FILE_NAME = os.fsdecode(b"caf\xe9.txt")
HALF = json.loads('"\\ud83d"')


SURROGATES: dict[str, tuple[Any, Any, str, int]] = {
    # The value, what is stored, the first place in it as a log names it, and in how many places there is one.
    "text": (FILE_NAME, "caf\ufffd.txt", "", 1),
    "nested": ([{"x": ["a", HALF + "b" + HALF]}, HALF], [{"x": ["a", "\ufffdb\ufffd"]}, "\ufffd"], "[0][*][1]", 2),
    "a key": ({HALF: 1}, {"\ufffd": 1}, "[*]", 1),
    "a path": ((PurePosixPath(FILE_NAME), "ok"), ["caf\ufffd.txt", "ok"], "[0]", 1),
    "a set": ({"a": {HALF}}, {"a": ["\ufffd"]}, "[*][0]", 1),
    "an iterator": ({"a": iter([HALF])}, {"a": ["\ufffd"]}, "[*][0]", 1),
    "a model": (Report(rows=HALF), {"rows": "\ufffd"}, ".rows", 1),
}


@pytest.mark.each_store
@pytest.mark.anyio
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("case", SURROGATES)
async def test_lone_surrogate_is_replaced_and_place_is_logged(
    location: Path | str, service: DatabaseSessionService, caplog: pytest.LogCaptureFixture, place: str, case: str
) -> None:
    value, stored, path, places = SURROGATES[case]
    session = await service.create_session(APP, USER, SESSION)
    # The iterator is read by the first place only.
    event = event_with(place, {"a": iter([HALF])} if case == "an iterator" else value)
    with caplog.at_level(logging.WARNING, "sessiondb"):
        await service.append_event(session, event)
    (record,) = (record for record in caplog.records if record.name == "sessiondb")
    assert (record.message, vars(record)["places"]) == ("lone_surrogate_replaced", places)
    assert vars(record)["place"] == (PATHS[place] if place == "state" else PATHS[place].replace("'a'", "*")) + path
    assert exactly(value_in(place, event)) == exactly(stored)
    read = await reopened(location, session)
    assert read == session
    assert exactly(value_in(place, read.events[0])) == exactly(stored)
    await service.append_event(session, event.model_copy(deep=True))
    assert service.get_event_count(APP, USER, SESSION) == 1


@pytest.mark.each_store
@pytest.mark.anyio
async def test_lone_surrogate_in_declared_text_is_replaced(
    location: Path | str, service: DatabaseSessionService
) -> None:
    answer = types.FunctionResponse(name="tool", response={FILE_NAME: 1})
    parts = [types.Part.model_construct(text=HALF), types.Part(function_response=answer)]
    event = Event(author="agent", content=types.Content(parts=parts))
    event.error_message = f"no such file: {FILE_NAME}"
    event.branch = HALF
    event.long_running_tool_ids = {HALF}
    event.actions.artifact_delta = {FILE_NAME: 1}
    session = await service.create_session(APP, USER, SESSION, {"own": HALF})
    await service.append_event(session, event)
    await service.update_keys(APP, USER, SESSION, {"more": HALF})
    read = await reopened(location, session)
    assert read.state == {"own": "\ufffd", "more": "\ufffd"}
    assert read.events[0] == event == session.events[0]
    assert event.content is not None
    stored = types.FunctionResponse(name="tool", response={"caf\ufffd.txt": 1})
    assert event.content.parts == [types.Part(text="\ufffd"), types.Part(function_response=stored)]
    assert (event.error_message, event.branch) == ("no such file: caf\ufffd.txt", "\ufffd")
    assert event.long_running_tool_ids == {"\ufffd"}
    assert event.actions.artifact_delta == {"caf\ufffd.txt": 1}


@pytest.mark.each_store
@pytest.mark.anyio
async def test_ids_of_long_running_tools_in_another_order_or_as_a_list(
    location: Path | str, service: DatabaseSessionService
) -> None:
    first, second = next(
        (one, other)
        for one, other in itertools.combinations(map(str, range(100)), 2)
        if list(set([one, other])) != list(set([other, one]))  # noqa: C405  # a literal has an order of its own
    )
    session = await service.create_session(APP, USER, SESSION)
    for ids in (set([first, second]), set([second, first]), [second, first], iter([first, second])):  # noqa: C405  # as above
        event = Event(id="e", author="agent", timestamp=1.0)
        event.long_running_tool_ids = ids  # type: ignore[assignment]  # as an application may
        await service.append_event(session, event)
    assert len(session.events) == 1
    for kind in (list, tuple):
        event = Event(author="agent")
        event.long_running_tool_ids = kind()  # type: ignore[assignment]  # as an application may
        await service.append_event(session, event)
        assert event.long_running_tool_ids == set()
    assert await reopened(location, session) == session


# --- Every kind, everywhere -------------------------------------------------------------------------------------------


class Colour(enum.Enum):
    RED = "red"


class Pair(NamedTuple):
    left: Any
    right: Any


class Refused:
    """Stands for a refusal."""

    def __repr__(self) -> str:
        return "REFUSED"


REFUSED = Refused()


@dataclasses.dataclass
class Case:
    """A value, which is made anew at each call, as iterators end; and what is stored of it."""

    make: Callable[[], Any]
    in_state: Any
    in_event: Any
    in_model: Any = None
    """In an event, inside a model of the application's: it says what becomes of bytes."""


def same(value: Any, stored: Any) -> Case:
    return Case(lambda: value, stored, stored, stored)


def as_text_in_state(value: Any) -> Case:
    """What pydantic cannot serialise: a text in state."""
    return Case(lambda: value, str(value), REFUSED, REFUSED)


class Cyclic(list[Any]):
    """A list that holds itself."""

    def __init__(self) -> None:
        super().__init__()
        self.append(self)


LEAVES: list[Case] = [
    same(None, None),
    same(Colour.RED, "red"),
    same(types.FinishReason.STOP, "STOP"),
    same(Decimal("1.10"), "1.10"),
    same(date(2026, 1, 2), "2026-01-02"),
    same(datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00Z"),
    same(time(1, 2), "01:02:00"),
    same(timedelta(seconds=90), "PT1M30S"),
    same(UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    same(PurePosixPath("/a/b"), "/a/b"),
    same(Path(FILE_NAME), "caf\ufffd.txt"),
    same(IPv4Address("1.2.3.4"), "1.2.3.4"),
    same(re.compile("a+"), "a+"),
    same(complex(1, 2), "1+2j"),
    same(math.nan, None),
    same(-math.inf, None),
    same(HALF, "\ufffd"),
    same(2**70, 2**70),
    same(np.float64(0.5), 0.5),
    same(np.str_("a"), "a"),
    same(collections.OrderedDict(a=1), {"a": 1}),
    same(collections.Counter("aab"), {"a": 2, "b": 1}),
    same(collections.defaultdict(list, a=[1]), {"a": [1]}),
    same({1: "a", 2.5: "b", None: "c"}, {"1": "a", "2.5": "b", "None": "c"}),
    same(frozenset({3, 1, 2}), [1, 2, 3]),
    same({"b", "a", HALF}, ["a", "b", "\ufffd"]),
    Case(lambda: b"abc", "abc", "YWJj", "abc"),
    Case(lambda: b"\xff\xfe", "__4=", "__4=", "__4="),
    Case(lambda: bytearray(b"abc"), "abc", "YWJj", "abc"),
    Case(lambda: MappingProxyType({"a": (1,)}), {"a": [1]}, REFUSED, REFUSED),
    Case(lambda: collections.UserDict(a=1), {"a": 1}, REFUSED, REFUSED),
    Case(
        lambda: types.Part(text="a"),
        types.Part(text="a").model_dump(mode="json", by_alias=True),
        {"text": "a"},
        {"text": "a"},
    ),
    Case(Cyclic, ["..."], REFUSED, REFUSED),
    Case(lambda: {"a": Cyclic()}, {"a": ["..."]}, REFUSED, REFUSED),
    Case(lambda: {frozenset([1]): 1}, REFUSED, REFUSED, REFUSED),
    Case(lambda: 10**5_000, REFUSED, REFUSED, REFUSED),
    *map(as_text_in_state, [range(3), memoryview(b"a"), ValueError("a"), len, object(), object, lambda: 1, {}.keys()]),
    *map(as_text_in_state, [np.int64(3), np.bool_(True), np.arange(3)]),
]


def composed(inner: list[Case], make: Callable[[list[Any]], Any], stored: Callable[[list[Any]], Any] = list) -> Case:
    """A case of a value that holds others."""

    def of(form: str) -> Any:
        forms = [getattr(case, form) for case in inner]
        return REFUSED if any(one is REFUSED for one in forms) else stored(forms)

    return Case(lambda: make([case.make() for case in inner]), of("in_state"), of("in_event"), of("in_model"))


def _in_a_model(inner: Case) -> Case:
    case = composed([inner], lambda made: Report(rows=made[0]), lambda forms: {"rows": forms[0]})
    # In an event, fields of models that are None are left out.
    stored = {} if case.in_model == {"rows": None} else case.in_model
    return dataclasses.replace(case, in_event=stored, in_model=stored)


def _containers(inner: st.SearchStrategy[Case]) -> st.SearchStrategy[Case]:
    several = st.lists(inner, max_size=3)
    two = st.tuples(inner, inner).map(list)
    return (
        several.map(lambda cases: composed(cases, list))
        | several.map(lambda cases: composed(cases, tuple))
        | several.map(lambda cases: composed(cases, collections.deque))
        | several.map(lambda cases: composed(cases, iter))
        | several.map(lambda cases: composed(cases, lambda made: (one for one in made)))
        | several.map(
            lambda cases: composed(
                cases,
                lambda made: {str(n): one for n, one in enumerate(made)},
                lambda forms: {str(n): one for n, one in enumerate(forms)},
            )
        )
        | two.map(lambda cases: composed(cases, lambda made: Pair(*made)))
        | inner.map(lambda case: composed([case], lambda made: Rows(*made), lambda forms: {"rows": forms[0]}))
        | inner.map(_in_a_model)
    )


CASES = st.recursive(
    st.sampled_from(LEAVES)
    | json_values.map(lambda value: same(value, value))
    | any_text.map(lambda text: same(text, text)),
    _containers,
    max_leaves=5,
)


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgres", marks=pytest.mark.once)])
def opened(
    request: pytest.FixtureRequest,
) -> Iterator[tuple[asyncio.Runner, Path | str, DatabaseSessionService]]:
    with tempfile.TemporaryDirectory() as folder, asyncio.Runner() as loop:
        location: Path | str = Path(folder) / "x.sqlite3"
        if request.param == "postgres":
            location = request.getfixturevalue("postgres_server").create_database("values")
        service = DatabaseSessionService(location, durability="normal", none_in_delta="store")
        yield loop, location, service
        loop.run(service.close())


_sessions = itertools.count()


@given(case=CASES, place=st.sampled_from(PLACES))
def test_value_of_any_kind_is_stored_as_documented_or_refused(
    opened: tuple[asyncio.Runner, Path | str, DatabaseSessionService], case: Case, place: str
) -> None:
    loop, location, service = opened
    expected = case.in_state if place == "state" else case.in_event

    async def refused(call: Awaitable[object]) -> bool:
        writes = service.get_stats()["writes"]
        try:
            await call
        except errors.InvalidInputError as error:
            assert "['a']" in str(error) or "read again" in str(error)  # noqa: PT017  # whether it is raised depends
            assert service.get_stats()["writes"] == writes
            return True
        return False

    async def run() -> None:
        session = await service.create_session(APP, USER, f"s {next(_sessions)}")
        event = event_with(place, case.make(), id="e", invocation_id="i")
        # ADK has a serialiser of its own for an agent's state.
        of_adk = place == "agent_state"
        if await refused(service.append_event(session, event)):
            assert of_adk or expected is REFUSED
            assert session.events == []
        else:
            assert of_adk or exactly(value_in(place, event)) == exactly(expected)
            read = await reopened(location, session, "normal")
            assert read == session
            assert exactly(value_in(place, read.events[0])) == exactly(value_in(place, event))
            assert exactly(read.state) == exactly(session.state)
            # The same event, made once more; and as it was read.
            for again in (event_with(place, case.make(), id="e", invocation_id="i"), read.events[0], event):
                await service.append_event(session, again)
            assert service.get_event_count(APP, USER, session.id) == 1
        other = f"s {next(_sessions)}"
        if await refused(service.create_session(APP, USER, other, {"a": case.make()})):
            assert case.in_state is REFUSED
        else:
            found = await service.get_session(APP, USER, other)
            assert found is not None
            assert exactly(found.state) == exactly({"a": case.in_state})
            await service.update_keys(APP, USER, other, {"b": case.make()})
            found = await reopened(location, found, "normal")
            assert exactly(found.state) == exactly({"a": case.in_state, "b": case.in_state})

    loop.run(run())


@given(
    case=CASES,
    place=st.sampled_from(["error_message", "text", "turn_complete", "long_running_tool_ids", "name", "usage"]),
)
def test_value_of_any_kind_in_declared_field_is_readable_or_refused(
    opened: tuple[asyncio.Runner, Path | str, DatabaseSessionService], case: Case, place: str
) -> None:
    loop, location, service = opened
    value = case.make()
    event = Event(author="agent")
    if place == "text":
        event.content = types.Content(parts=[types.Part.model_construct(text=value)])
    elif place == "name":
        call = types.FunctionCall.model_construct(name=value, args=value)
        event.content = types.Content(parts=[types.Part.model_construct(function_call=call)])
    elif place == "usage":
        event.usage_metadata = types.GenerateContentResponseUsageMetadata.model_construct(total_token_count=value)
    else:
        setattr(event, place, value)

    async def run() -> None:
        session = await service.create_session(APP, USER, f"s {next(_sessions)}")
        writes = service.get_stats()["writes"]
        try:
            await service.append_event(session, event)
        except errors.InvalidInputError:
            assert service.get_stats()["writes"] == writes
            assert session.events == []
            return
        read = await reopened(location, session, "normal")
        assert read == session
        await service.append_event(session, read.events[0])
        await service.append_event(session, event)
        assert service.get_event_count(APP, USER, session.id) == 1

    loop.run(run())


# --- What a refusal says ----------------------------------------------------------------------------------------------

UNSTORABLE: dict[str, tuple[Callable[[], Any], str, tuple[str, ...]]] = {
    # What it is, how the message goes on, and where it is refused.
    "a function": (lambda: {"rows": [0, 1, 2, len]}, "['rows'][3] is of type builtin_function_or_method, which has no JSON form", PLACES[:4]),
    "an object": (lambda: [({"x": object()},)], "[0][0]['x'] is of type object, which has no JSON form", PLACES[:4]),
    "an object in a model": (lambda: Report(rows=[object()]), ".rows[0] is of type object, which has no JSON form", PLACES[:4]),
    "an object in an iterator": (lambda: iter([1, object()]), "[1] is of type object, which has no JSON form", PLACES[:4]),
    "a class of numpy": (lambda: np.int64(1), " is of type numpy.int64, which has no JSON form", PLACES[:4]),
    "a key": (lambda: {frozenset(["hunter2"]): 1}, "[frozenset] has a key of type frozenset, which has no JSON form", (*PLACES[:4], "state")),
    "a cycle": (lambda: {"x": Cyclic()}, "['x'][0] is of type tests.adk.test_values.Cyclic and holds itself", PLACES[:5]),
    "digits": (lambda: [10**5_000], "[0] is of type int and has more than 4300 digits, which cannot be read again", ("state",)),
}  # fmt: skip


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("case", "place"), [(case, place) for case, (_, _, places) in UNSTORABLE.items() for place in places]
)
async def test_refusal_names_path_and_type_of_value(service: DatabaseSessionService, case: str, place: str) -> None:
    make, says, _ = UNSTORABLE[case]
    session = await service.create_session(APP, USER, SESSION)
    with pytest.raises(errors.InvalidInputError) as refusal:
        await service.append_event(session, event_with(place, make()))
    assert str(refusal.value) == PATHS[place] + says
    assert refusal.value.__cause__ is None


@pytest.mark.anyio
async def test_refusal_shortens_long_keys_and_escapes_odd_ones(service: DatabaseSessionService) -> None:
    session = await service.create_session(APP, USER, SESSION)
    value = {"k" * 500: {"line\nbreak": {(1, "hunter2"): {HALF: object()}}}}
    event = Event(author="agent")
    event.custom_metadata = value
    with pytest.raises(errors.InvalidInputError) as refusal:
        await service.append_event(session, event)
    path = f"custom_metadata['{'k' * 60}'...]['line\\nbreak'][tuple]['\\ufffd']"
    assert str(refusal.value) == f"{path} is of type object, which has no JSON form"


class Told(BaseModel):
    """A model that notes when it is serialised."""

    a: Any
    _calls: ClassVar[list[str]] = []

    @field_serializer("a")
    def serialize_a(self, value: Any) -> Any:
        self._calls.append("a")
        return value


@pytest.mark.anyio
@pytest.mark.parametrize("place", PLACES)
async def test_serialiser_of_callers_model_is_called_once(service: DatabaseSessionService, place: str) -> None:
    session = await service.create_session(APP, USER, SESSION)
    event = event_with(place, [Told(a=iter([1])), {1, 2}, date(2026, 1, 2), HALF])
    # A field that does not hold what it declares.
    event.error_code = types.FinishReason.STOP
    Told._calls.clear()
    await service.append_event(session, event)
    assert value_in(place, event) == [{"a": [1]}, [1, 2], "2026-01-02", "\ufffd"]
    assert Told._calls == ["a"]


# --- None -------------------------------------------------------------------------------------------------------------
