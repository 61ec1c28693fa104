"""Where the log of a session may be cut, so that what is left of it makes sense to ADK."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

from pydantic_core import from_json

from sessiondb.model.records import LogMark


def places_to_cut(log: Sequence[LogMark], revision: int = 0) -> list[int]:
    """Returns how many of the oldest events may be cut off, in ascending order, without 0; of each log the end stays.

    What is left never holds

    - a part of an invocation only,
    - a part of the last invocation of the conversation, which may go on: nothing of it is cut off,
    - a function response whose call is gone; nor does it begin with one whose call was never there,
    - a rewind and a part of what that has taken back, which would be there again,
    - events before the first summary that stands for something that is gone: it begins with that summary.

    Args:
        log: The events, the oldest first.
        revision: The session's revision before the first of them.
    """
    events = [_Event.of(mark) for mark in log]
    closed = _Closed(len(events))
    _close_summarised(events, closed)
    _close_invocations(events, closed, revision)
    _close_calls(events, closed)
    return closed.others()


class _Event(NamedTuple):
    mark: LogMark
    calls: list[object]
    responses: list[object]
    summary: tuple[float, float] | None
    """From when to when the events are for which it stands."""
    rewinds: str
    """The invocation from which on everything is taken back."""

    @classmethod
    def of(cls, mark: LogMark) -> _Event:
        calls: list[object] = []
        responses: list[object] = []
        for part in _list(_object(mark.content).get("parts")):
            for kind, found in (("function_call", calls), ("function_response", responses)):
                function = _object(part).get(kind)
                if isinstance(function, dict):
                    # A model may give none: then the name has to do.
                    found.append(function.get("id") or ("", str(function.get("name"))))
        actions = _object(mark.actions)
        rewinds = actions.get("rewind_before_invocation_id")
        return cls(mark, calls, responses, _range(actions), rewinds if isinstance(rewinds, str) else "")


def _object(value: object) -> dict[str, Any]:
    """Returns what JSON, or a part of it, says. What is no object was edited outside sessiondb, and says nothing."""
    if isinstance(value, str):
        try:
            value = from_json(value)
        except ValueError:
            return {}
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _range(actions: dict[str, Any]) -> tuple[float, float] | None:
    compaction = _object(actions.get("compaction"))
    start, end = compaction.get("start_timestamp"), compaction.get("end_timestamp")
    if isinstance(start, int | float) and isinstance(end, int | float):
        return float(start), float(end)
    return None


class _Closed:
    """At which numbers of events a log may not be cut."""

    def __init__(self, length: int) -> None:
        self._length = length
        # How many stretches of closed places begin at a place, less how many have ended there.
        self._steps = [0] * (length + 2)

    def add(self, first: int, last: int) -> None:
        """Closes all places from one to another."""
        if first <= last:
            self._steps[first] += 1
            self._steps[last + 1] -= 1

    def reopen(self, places: Iterable[int]) -> None:
        """Opens places, whatever has closed them until now."""
        depths = list(accumulate(self._steps))
        for place in places:
            self._steps[place] -= depths[place]
            self._steps[place + 1] += depths[place]

    def others(self) -> list[int]:
        """Returns the places that are open, but for both ends."""
        depths = list(accumulate(self._steps))
        return [place for place in range(1, self._length) if not depths[place]]


def _close_summarised(events: list[_Event], closed: _Closed) -> None:
    """Closes places before a summary that stands for events that would be gone, but for those right before such a one."""
    begins = []
    for place, first in _summaries(events):
        closed.add(first + 1, place - 1)
        begins.append(place)
    closed.reopen(begins)


def _summaries(events: list[_Event]) -> Iterator[tuple[int, int]]:
    """Yields of each summary its place, and that of the first event for which it stands, if there is one before it."""
    times = [event.mark.time for event in events]
    latest = list(accumulate(times, max))
    earliest = list(accumulate(reversed(times), min))[::-1]
    for place, event in enumerate(events):
        if event.summary is None:
            continue
        start, end = event.summary
        # Times ascend, or nearly so: the first event since the start is mostly the one.
        for first in range(bisect_left(latest, start), place):
            if events[first].summary is None and start <= times[first] <= end:
                yield place, first
                break
            if earliest[first] > end:
                break


def _close_invocations(events: list[_Event], closed: _Closed, revision: int) -> None:
    ends: dict[str, tuple[int, int]] = {}
    going_on = len(events) - 1
    for place, event in enumerate(events):
        invocation_id = event.mark.invocation_id
        first = ends[invocation_id][0] if invocation_id in ends else place
        if event.rewinds in ends:
            closed.add(ends[event.rewinds][0] + 1, place - 1)
        if invocation_id:
            ends[invocation_id] = (first, place)
        # Changes from outside, and summaries, are no part of the conversation and leave its revision as it is.
        if event.mark.revision != revision:
            revision, going_on = event.mark.revision, first
    for first, last in ends.values():
        closed.add(first + 1, last)
    closed.add(going_on + 1, len(events))


def _close_calls(events: list[_Event], closed: _Closed) -> None:
    calls: dict[object, int] = {}
    for place, event in enumerate(events):
        for response in event.responses:
            called = calls.get(response)
            if called is None:
                closed.add(place, place)
            else:
                closed.add(called + 1, place)
        for call in event.calls:
            calls[call] = place
