"""Where logs may be cut, against what each rule says of each place."""

from __future__ import annotations

from itertools import pairwise

from google.adk.events import Event, EventActions
from google.adk.events.event_actions import EventCompaction
from google.genai import types
from hypothesis import given
from hypothesis import strategies as st

from sessiondb.adk.cutting import find_places
from sessiondb.adk.events import encode_event, is_aside
from sessiondb.adk.state import encode_delta
from sessiondb.model.records import LogMark


def places_to_cut(log: list[LogMark]) -> list[int]:
    found = find_places(log)
    assert (found.seqs, found.times) == ([mark.seq for mark in log], [mark.time for mark in log])
    return found.places


def marks(events: list[Event]) -> list[LogMark]:
    log, revision = [], 0
    for seq, event in enumerate(events, 1):
        record = encode_event(event).record
        revision += not is_aside(event, record, encode_delta(event.actions.state_delta))
        log.append(LogMark(seq, seq, revision, record.invocation_id, record.time, record.content, record.actions))
    return log


def said(invocation: str, time: float, *parts: types.Part, rewinds: str | None = None) -> Event:
    content = types.Content(role="model", parts=list(parts)) if parts else None
    actions = EventActions(rewind_before_invocation_id=rewinds)
    return Event(author="agent", invocation_id=invocation, timestamp=time, content=content, actions=actions)


def call(name: str) -> types.Part:
    return types.Part(function_call=types.FunctionCall(id=name, name="tool", args={"function_response": 1}))


def response(name: str | None, tool: str = "tool") -> types.Part:
    return types.Part(function_response=types.FunctionResponse(id=name, name=tool, response={"function_call": 1}))


def summary(time: float, start: float, end: float, invocation: str = "") -> Event:
    compaction = EventCompaction(
        start_timestamp=start, end_timestamp=end, compacted_content=types.Content(parts=[types.Part(text="short")])
    )
    actions = EventActions(compaction=compaction)
    return Event(author="user", invocation_id=invocation, timestamp=time, actions=actions)


def outside(time: float) -> Event:
    actions = EventActions(state_delta={"k": 1})
    return Event(author="user", invocation_id=f"update-{time}", timestamp=time, actions=actions)


def test_invocations_stay_whole_and_the_last_one_stays() -> None:
    events = [said("a", 1), said("a", 2), said("b", 3), said("", 4), said("", 5), said("c", 6), said("d", 7)]
    assert places_to_cut(marks(events)) == [2, 3, 4, 5, 6]
    assert places_to_cut(marks([*events, said("b", 8)])) == [2]
    # What came from outside since is no part of the conversation, and whoever is in it may go on.
    assert places_to_cut(marks([*events[:3], outside(8), outside(9)])) == [2]
    assert places_to_cut([]) == places_to_cut(marks(events[:1])) == []


def test_responses_stay_with_their_calls() -> None:
    log = [said("a", 1, call("1")), said("b", 2), said("c", 3, response("1")), said("d", 4), said("e", 5)]
    assert places_to_cut(marks(log)) == [3, 4]
    # The last call of an id is the one that is answered, and a log does not begin with an answer to nothing.
    log = [said("a", 1, call("1")), said("b", 2, call("1")), said("c", 3, response("1")), said("d", 4)]
    assert places_to_cut(marks(log)) == [1, 3]
    log = [said("a", 1), said("b", 2, response("1")), said("c", 3), said("d", 4, call("1"))]
    assert places_to_cut(marks(log)) == [2, 3]
    # Without ids by their names.
    nameless = types.Part(function_call=types.FunctionCall(name="tool"))
    log = [said("a", 1, nameless), said("b", 2), said("c", 3, response(None)), said("d", 4)]
    assert places_to_cut(marks(log)) == [3]


def test_what_is_left_begins_with_the_summary_of_what_is_gone() -> None:
    log = [said(name, time) for time, name in enumerate("abcdef", 1)]
    assert places_to_cut(marks([*log[:4], summary(5, 1, 3), *log[4:]])) == [4, 5, 6]
    assert places_to_cut(marks([*log[:4], summary(5, 2, 4), *log[4:]])) == [1, 4, 5, 6]
    # Summaries that overlap, as ADK makes them: each of them may be the first.
    chain = [*log[:2], summary(2.5, 1, 2), *log[2:4], summary(4.5, 2, 4), *log[4:]]
    assert places_to_cut(marks(chain)) == [2, 5, 6, 7]
    # One that stands for what has been cut off before does not matter.
    assert places_to_cut(marks([*log[3:5], summary(5.5, 1, 3), log[5]])) == [1, 2, 3]


def test_what_was_taken_back_does_not_come_back() -> None:
    log = [said("a", 1), said("b", 2), said("c", 3), said("w", 4, rewinds="b"), said("d", 5), said("e", 6)]
    assert places_to_cut(marks(log)) == [1, 3, 4, 5]


@st.composite
def logs(draw: st.DrawFn) -> list[Event]:
    events: list[Event] = []
    for time in range(1, draw(st.integers(0, 9)) + 1):
        invocation, name = draw(st.sampled_from("abcd")), draw(st.sampled_from("12"))
        events.append(
            draw(
                st.sampled_from(
                    [
                        said(invocation, time),
                        said("", time),
                        said(invocation, time, call(name), call("both")),
                        said(invocation, time, response(name)),
                        said(f"w{time}", time, rewinds=invocation),
                        outside(time),
                        summary(time, draw(st.integers(1, 9)), draw(st.integers(1, 9)), f"s{time}"),
                    ]
                )
            )
        )
    return events


def is_allowed(events: list[Event], place: int) -> bool:
    """What the rules say, one by one."""
    gone, left = events[:place], events[place:]
    if {each.invocation_id for each in gone} & {each.invocation_id for each in left} - {""}:
        return False
    for n, each in enumerate(left):
        for answer in each.get_function_responses():
            before = [c.id for one in left[:n] for c in one.get_function_calls()]
            if answer.id not in before and (
                n == 0 or any(answer.id == c.id for e in gone for c in e.get_function_calls())
            ):
                return False
        back = each.actions.rewind_before_invocation_id
        if back and n > 0 and any(one.invocation_id == back for one in gone):
            return False
    conversation = [each for each in events if each.actions.compaction is None and not each.actions.state_delta]
    if conversation and conversation[-1] in gone:
        return False

    def stands_for(one: Event, others: list[Event]) -> bool:
        found = one.actions.compaction
        return found is not None and any(
            other.actions.compaction is None and found.start_timestamp <= other.timestamp <= found.end_timestamp
            for other in others
        )

    standing = [n for n, each in enumerate(left) if stands_for(each, gone)]
    return not standing or standing[0] == 0


@given(logs())
def test_places_are_those_that_the_rules_leave(events: list[Event]) -> None:
    places = places_to_cut(marks(events))
    assert places == [place for place in range(1, len(events)) if is_allowed(events, place)]
    assert all(first < second for first, second in pairwise(places))
