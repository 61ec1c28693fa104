"""What conversations have used, as each store sums it up, beside what a walk over the events finds."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from google.adk.events import Event, EventActions
from google.genai import types
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sessiondb import DatabaseSessionService, UsageRow
from sessiondb.errors import InvalidInputError
from sessiondb.model.usage import GROUPS, USAGE_BY, UsageBy
from tests.databases import query

pytestmark = [pytest.mark.anyio, pytest.mark.each_store]

APPS = ("app", "other app")
USERS = ("ann", "", "zoë")
DAY = 86_400.0
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC).timestamp()


def call(name: str | None, **args: object) -> types.Part:
    return types.Part(function_call=types.FunctionCall(name=name, args=args))


def said(text: str, *parts: types.Part) -> types.Content:
    return types.Content(role="model", parts=[types.Part(text=text), *parts])


def tokens(*counts: int | None) -> types.GenerateContentResponseUsageMetadata:
    prompt, candidates, cached, thoughts, total = counts
    return types.GenerateContentResponseUsageMetadata(
        prompt_token_count=prompt,
        candidates_token_count=candidates,
        cached_content_token_count=cached,
        thoughts_token_count=thoughts,
        total_token_count=total,
    )


class Walk:
    """An oracle: sums up events one by one."""

    def __init__(self, by: UsageBy) -> None:
        self._by = by
        self._turns: dict[tuple[Any, ...], set[tuple[str, ...]]] = {}
        self._rows: dict[tuple[Any, ...], dict[str, Any]] = {}

    def add(self, key: tuple[str, str, str], event: Event) -> None:
        of_event = dict(zip(("app_name", "user_id", "session_id"), key, strict=True)) | {
            "author": event.author,
            "model": event.model_version,
            "day": datetime.fromtimestamp(event.timestamp, UTC).date().isoformat(),
            "invocation_id": event.invocation_id,
        }
        group = tuple(of_event[name] for name in GROUPS[self._by])
        row = self._rows.setdefault(
            group, dataclasses.asdict(UsageRow()) | dict(zip(GROUPS[self._by], group, strict=True))
        )
        turns = self._turns.setdefault(group, set())
        if event.invocation_id and (event.content is not None or event.author != "user"):
            turns.add((*key, event.invocation_id))
        row["turns"] = len(turns)
        row["events"] += 1
        for part in (event.content and event.content.parts) or []:
            if part.function_call is not None:
                name = part.function_call.name or ""
                row["tool_calls"][name] = row["tool_calls"].get(name, 0) + 1
        if (used := event.usage_metadata) is not None:
            counts = {
                "prompt_tokens": used.prompt_token_count,
                "candidates_tokens": used.candidates_token_count,
                "cached_tokens": used.cached_content_token_count,
                "thoughts_tokens": used.thoughts_token_count,
                "total_tokens": used.total_token_count,
            }
            for kind, count in counts.items():
                row[kind] += count if count is not None and 0 <= count < 2**31 else 0
        row["errors"] += event.error_code is not None
        row["interruptions"] += event.interrupted is True

    def rows(self) -> list[UsageRow]:
        in_order = sorted(self._rows, key=lambda group: [(part is not None, part or "") for part in group])
        return [UsageRow(**self._rows[group]) for group in in_order]


async def walked(
    service: DatabaseSessionService, by: UsageBy, *, since: float = -math.inf, until: float = math.inf, **only: str
) -> list[UsageRow]:
    walk = Walk(by)
    for listed in await service.list_sessions():
        key = (listed["app_name"], listed["user_id"], listed["session_id"])
        if all(
            only.get(name, part) == part for name, part in zip(("app_name", "user_id", "session_id"), key, strict=True)
        ):
            session = await service.get_session(*key)
            assert session is not None
            for event in session.events:
                if since <= event.timestamp < until:
                    walk.add(key, event)
    return walk.rows()


async def put(service: DatabaseSessionService, key: tuple[str, str, str], events: Iterable[Event]) -> None:
    session = await service.get_session(*key) or await service.create_session(*key)
    for event in events:
        await service.append_event(session, event)


def conversation(number: int) -> list[Event]:
    """A turn with a question, a call, its response, an answer; and what else a log may hold."""
    invocation, time = f"inv-{number}", NOON + number * DAY / 3
    model = f"gemini-{number % 2}"
    return [
        Event(author="user", invocation_id=invocation, timestamp=time, content=said('a "function_call" in {"words"}')),
        Event(
            author="agent",
            invocation_id=invocation,
            timestamp=time + 1,
            model_version=model,
            usage_metadata=tokens(100 + number, 7, None, 3, 110 + number),
            content=said("", call("search", q="a\0b"), call("search"), call('näme\n"quoted"', function_call=1)),
        ),
        Event(
            author="agent",
            invocation_id=invocation,
            timestamp=time + 2,
            content=types.Content(
                role="user", parts=[types.Part(function_response=types.FunctionResponse(name="search", response={}))]
            ),
        ),
        Event(
            author="helper",
            invocation_id=invocation,
            timestamp=time + 3,
            model_version=model,
            usage_metadata=tokens(2**31 - 1, 0, 50, None, 2**31 - 1),
            interrupted=bool(number % 2),
            error_code="MAX_TOKENS",
            content=said("the end", call(None)),
            custom_metadata={"prompt_token_count": 5, "nul": "\0"},
        ),
        Event(
            author="user", invocation_id="from outside", actions=EventActions(state_delta={"k": number}), timestamp=time
        ),
        Event(author="agent", invocation_id="", timestamp=time + 4, interrupted=False),
    ]


async def fill(service: DatabaseSessionService) -> None:
    for number, (app, user, session) in enumerate(itertools.product(APPS, USERS, ("s1", "s2"))):
        await put(service, (app, user, session), conversation(number))
        await service.update_keys(app, user, session, {"status": "open"})


@pytest.mark.parametrize("by", USAGE_BY)
async def test_usage_equals_what_a_walk_over_the_events_finds(service: DatabaseSessionService, by: UsageBy) -> None:
    await fill(service)
    found = await service.usage(by=by)
    assert found == await walked(service, by)
    assert sum(row.events for row in found) == 84


@pytest.mark.parametrize("by", USAGE_BY)
async def test_usage_counts_only_what_is_selected(service: DatabaseSessionService, by: UsageBy) -> None:
    await fill(service)
    only: list[dict[str, Any]] = [
        {"app_name": "app"},
        {"app_name": "other app", "user_id": ""},
        {"user_id": "zoë", "session_id": "s1"},
        {"since": NOON + 1, "until": NOON + DAY},
        {"app_name": "nobody's"},
    ]
    for selected in only:
        assert await service.usage(**selected, by=by) == await walked(service, by, **selected)
    assert await service.usage(session_id="  s1 ", by=by) == await walked(service, by, session_id="s1")


async def test_usage_of_one_session_says_it_all(service: DatabaseSessionService) -> None:
    await put(service, ("app", "ann", "s1"), conversation(1))
    assert await service.usage(session_id="s1") == [
        UsageRow(
            app_name="app",
            user_id="ann",
            session_id="s1",
            turns=1,
            events=6,
            tool_calls={"": 1, 'näme\n"quoted"': 1, "search": 2},
            prompt_tokens=101 + 2**31 - 1,
            candidates_tokens=7,
            cached_tokens=50,
            thoughts_tokens=3,
            total_tokens=111 + 2**31 - 1,
            errors=1,
            interruptions=1,
        )
    ]
    assert [row.model for row in await service.usage(by="model")] == [None, "gemini-1"]


async def test_one_invocation_id_in_two_sessions_is_two_turns(service: DatabaseSessionService) -> None:
    for session in ("s1", "s2"):
        await put(service, ("app", "ann", session), conversation(1))
    assert [row.turns for row in await service.usage(by="app")] == [2]


async def test_token_count_that_no_model_reports_counts_as_nothing(service: DatabaseSessionService) -> None:
    odd = [tokens(2**31, -1, 2**63, 2**200, 1), tokens(2**31 - 1, 0, None, 1, 1)]
    await put(service, ("app", "ann", "s1"), [Event(author="agent", usage_metadata=one) for one in odd])
    (row,) = await service.usage()
    assert (row.prompt_tokens, row.candidates_tokens, row.cached_tokens) == (2**31 - 1, 0, 0)
    assert (row.thoughts_tokens, row.total_tokens) == (1, 2)


async def test_names_with_nul_fail_no_usage(service: DatabaseSessionService, location: Path | str) -> None:
    events = [
        Event(author="agent", model_version="m\0odel", content=said("\0", call("to\0ol"))),
        Event(author="agent", model_version="model", content=said("\\u0000", call("tool"))),
    ]
    await put(service, ("app", "ann", "s1"), events)
    nul = "\0" if isinstance(location, Path) else "\N{REPLACEMENT CHARACTER}"
    assert {row.model: row.tool_calls for row in await service.usage(by="model")} == {
        f"m{nul}odel": {f"to{nul}ol": 1},
        "model": {"tool": 1},
    }


@pytest.mark.sqlite_only
async def test_usage_passes_over_json_edited_outside(service: DatabaseSessionService, location: Path) -> None:
    await put(service, ("app", "ann", "s1"), conversation(0))
    edits = [
        ("extra", '{"usage_metadata":{"prompt_token_count":1'),
        ("content", '{"parts":[{"function_call":'),
        ("content", '{"parts":["function_call",{"function_call":{"name":{"deep":1}}},{"function_call":7}]}'),
        ("content", '{"parts":"function_call"}'),
        ("extra", '{"usage_metadata":{"prompt_token_count":"12"},"model_version":[1]}'),
        ("extra", "[]"),
    ]
    for seq, (column, text) in enumerate(edits, start=1):
        query(location, f"UPDATE adk_events SET {column} = ? WHERE seq = ?", text, seq)
    (row,) = await service.usage()
    assert (row.events, row.prompt_tokens, row.tool_calls) == (6, 100 + 2**31 - 1, {'{"deep":1}': 1, "": 1})
    assert {row.model: row.events for row in await service.usage(by="model")} == {None: 3, "gemini-0": 2, "[1]": 1}


@pytest.mark.parametrize(
    "wrong",
    [
        {"by": "week"},
        {"by": ["day"]},
        {"since": "yesterday"},
        {"since": True},
        {"until": math.nan},
        {"until": 10**400},
        {"app_name": 5},
        {"session_id": "a\0b"},
    ],
    ids=repr,
)
async def test_usage_refuses_what_cannot_be_meant(service: DatabaseSessionService, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        await service.usage(**wrong)


_COUNTS = st.one_of(st.none(), st.integers(0, 2**31 - 1))
_EVENTS = st.builds(
    Event,
    author=st.sampled_from(["user", "agent", "user "]),
    invocation_id=st.sampled_from(["", "a", "b", "A"]),
    timestamp=st.floats(0, 4e9) | st.sampled_from([0.0, DAY, DAY - 1e-6, NOON]),
    model_version=st.none() | st.sampled_from(["", "m", "m ", "M", '"m"', "é"]),
    usage_metadata=st.none() | st.builds(tokens, *[_COUNTS] * 5),
    error_code=st.none() | st.sampled_from(["", "null", "X"]),
    interrupted=st.none() | st.booleans(),
    content=st.none()
    | st.builds(
        types.Content,
        role=st.just("model"),
        parts=st.none()
        | st.lists(
            st.builds(types.Part, text=st.text(st.characters(exclude_categories=["Cs"]), max_size=5))
            | st.builds(call, st.none() | st.sampled_from(["f", "F", "g h", '"'])),
            max_size=3,
        ),
    ),
    actions=st.builds(EventActions, state_delta=st.dictionaries(st.sampled_from(["k"]), st.integers(), max_size=1)),
)


@settings(
    max_examples=min(settings().max_examples, 60),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(events=st.lists(_EVENTS, max_size=12), by=st.sampled_from(USAGE_BY), number=st.uuids())
async def test_usage_of_any_events_equals_a_walk(
    service: DatabaseSessionService, events: list[Event], by: UsageBy, number: object
) -> None:
    await put(service, ("app", "ann", f"{number}"), events)
    await put(service, ("app", "zoë", f"{number}"), events[1:])
    assert await service.usage(by=by) == await walked(service, by)


async def test_what_a_fork_has_taken_over_counts_once(service: DatabaseSessionService) -> None:
    """Also in a fork of a fork, of another user's session, of none of the events; and what forks say themselves counts."""
    session = await service.create_session("app", "ann", "source")
    for number in range(4):
        event = Event(
            id=f"e{number}",
            author="agent",
            invocation_id=f"i{number}",
            timestamp=NOON + number,
            content=said("x", call("tool")),
            usage_metadata=tokens(1, 2, 0, 0, 3),
            model_version="m",
        )
        await service.append_event(session, event)
    for source, user, last, name, new_user in (
        ("source", "ann", "e1", "fork", None),
        ("source", "ann", None, "of another", "zoë"),
        ("fork", "ann", None, "fork of the fork", None),
    ):
        fork = await service.fork_session(
            "app", user, source, at_event_id=last, new_session_id=name, new_user_id=new_user
        )
        event = Event(author="agent", invocation_id="i1", timestamp=NOON, usage_metadata=tokens(0, 0, 0, 0, 100))
        await service.append_event(fork, event)
    await service.fork_session("app", "ann", (await service.create_session("app", "ann")).id)
    (row,) = await service.usage(by="app")
    assert (row.turns, row.events, row.total_tokens, row.tool_calls) == (7, 7, 312, {"tool": 4})
    assert {row.session_id: (row.events, row.total_tokens) for row in await service.usage()} == {
        "source": (4, 12),
        "fork": (1, 100),
        "of another": (1, 100),
        "fork of the fork": (1, 100),
    }
    (row,) = await service.usage(app_name="app", user_id="ann", session_id="fork of the fork", by="model")
    assert (row.model, row.events, row.tool_calls) == (None, 1, {})
    assert await service.usage(session_id="fork", since=NOON + 1) == []
    # What has become of the source makes no difference to its forks.
    await service.erase_user("app", "ann")
    (row,) = await service.usage(by="user")
    assert (row.user_id, row.events, row.total_tokens) == ("zoë", 1, 100)
