"""Where the log of a session may be cut, so that what is left of it makes sense to ADK."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Any, NamedTuple

from pydantic_core import from_json

from sessiondb.model.records import LogMark


class CutPlaces(NamedTuple):
    """A log, and where it may be cut."""

    places: list[int]
    """How many of the oldest events may go, in ascending order; never 0, and never all."""
    seqs: list[int]
    """The numbers of the events."""
    times: list[float]
    """When they were."""


def find_places(log: Iterable[LogMark], revision: int = 0) -> CutPlaces:
    """Finds out how many of the oldest events may go.

    What is left never holds

    - a part of an invocation only,
    - a part of the last invocation of the conversation, which may go on: nothing of it goes,
    - a function response whose call is gone; nor does it begin with one whose call was never there,
    - a rewind and a part of what that has taken back, which would be there again,
    - events before the first summary that stands for something that is gone: it begins with that summary.

    The log may be long, and is never in memory as a whole.

    Args:
        log: The events, the oldest first.
        revision: The session's revision before the first of them.
    """
    seqs: list[int] = []
    times: list[float] = []
    summaries: list[tuple[int, float, float]] = []
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    calls: dict[object, int] = {}
    # Where the invocation begins that may go on.
    going_on: int | None = None
    closed = _Closed()
    for place, mark in enumerate(log):
        seqs.append(mark.seq)
        times.append(mark.time)
        name = mark.invocation_id
        begun = first.setdefault(name, place) if name else place
        if begun != place:
            closed.add(last[name] + 1, place)
        last[name] = place
        # Changes from outside, and summaries, are no part of the conversation and leave its revision as it is.
        if mark.revision != revision:
            revision, going_on = mark.revision, begun
        if mark.actions is not None:
            actions = _object(mark.actions)
            rewound = first.get(str(actions.get("rewind_before_invocation_id")))
            if rewound is not None:
                closed.add(rewound + 1, place - 1)
            summaries += _summary(place, actions)
        for is_call, function_id in _functions(mark.content):
            if is_call:
                calls[function_id] = place
            else:
                closed.add(calls.get(function_id, place - 1) + 1, place)
    if going_on is not None:
        closed.add(going_on + 1, len(seqs))
    allowed = [not depth for depth in closed.depths(len(seqs))]
    _close_summarised(summaries, times, allowed)
    return CutPlaces([place for place in range(1, len(seqs)) if allowed[place]], seqs, times)


def _functions(content: str | None) -> Iterator[tuple[bool, object]]:
    """Yields of each function call (True) and response (False) what the two have in common: an id."""
    if content is None:
        return
    found = []
    for part in _list(_object(content).get("parts")):
        for kind in ("function_call", "function_response"):
            function = _object(part).get(kind)
            if isinstance(function, dict):
                # A model may give no id: then the name has to do.
                found.append((kind == "function_call", function.get("id") or ("", str(function.get("name")))))
    # What is answered came before.
    yield from sorted(found, key=lambda one: one[0])


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


def _summary(place: int, actions: dict[str, Any]) -> Iterator[tuple[int, float, float]]:
    """Yields the place of a summary, and from when to when the events are for which it stands."""
    compaction = _object(actions.get("compaction"))
    start, end = compaction.get("start_timestamp"), compaction.get("end_timestamp")
    if isinstance(start, int | float) and isinstance(end, int | float):
        yield place, float(start), float(end)


class _Closed:
    """Stretches of places at which a log may not be cut."""

    def __init__(self) -> None:
        # How many stretches begin at a place, less how many have ended there.
        self._steps: list[int] = []

    def add(self, first: int, last: int) -> None:
        """Closes all places from one to another."""
        if first <= last:
            if len(self._steps) < last + 2:
                self._steps += [0] * (last + 2 - len(self._steps))
            self._steps[first] += 1
            self._steps[last + 1] -= 1

    def depths(self, length: int) -> list[int]:
        """Returns in how many stretches each of so many places is."""
        steps = self._steps + [0] * (length - len(self._steps))
        return list(accumulate(steps[:length]))


def _close_summarised(summaries: list[tuple[int, float, float]], times: list[float], allowed: list[bool]) -> None:
    """Closes places before a summary that stands for events that would be gone, but for those right before such a one."""
    if not summaries:
        return
    are_summaries = {place for place, _, _ in summaries}
    latest = list(accumulate(times, max))
    earliest = list(accumulate(reversed(times), min))[::-1]
    closed = _Closed()
    begins = set()
    for place, start, end in summaries:
        # Times ascend, or nearly so: the first event since the start is mostly the first for which it stands.
        for first in range(bisect_left(latest, start), place):
            if first not in are_summaries and start <= times[first] <= end:
                closed.add(first + 1, place - 1)
                begins.add(place)
                break
            if earliest[first] > end:
                break
    for place, depth in enumerate(closed.depths(len(times))):
        if depth and place not in begins:
            allowed[place] = False
