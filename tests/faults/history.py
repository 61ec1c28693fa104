"""Histories of overlapping calls, and whether a single, orderly service could have given the same answers.

Each call is recorded with the moment it was made and the moment it was answered. A history is linearizable if all of
its calls can be put into one order such that none comes before another that was answered before it was made, and each
answer is the one that a plain model (:func:`apply`) gives in that order. Sessions are independent of each other, so
each is checked by itself; event ids are unique, so a read tells exactly which appends it has seen.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

Kind = Literal["create", "append", "get", "delete"]
Answer = Literal["ok", "exists", "missing", "stale"]


class View(NamedTuple):
    """What a session holds: which creation it comes from, and the ids of its events."""

    born: str
    events: tuple[str, ...]


State = View | None
"""A session, or that there is none."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call on a session.

    Attributes:
        client: Who made it; a client has one call at a time.
        event: The event appended; for a creation, what its ``born`` is.
        view: For a read, what it returned; for an append, what its handle held.
        checked: Whether an append is refused if its handle has been overtaken.
    """

    client: int
    session: str
    kind: Kind
    answer: Answer
    made: int
    answered: int
    event: str = ""
    view: State = None
    checked: bool = True


@dataclass(slots=True)
class Recorder:
    """A clock for moments, and the calls so far."""

    calls: list[Call] = field(default_factory=list)
    _clock: itertools.count[int] = field(default_factory=itertools.count)

    def moment(self) -> int:
        """Returns a number higher than all before it."""
        return next(self._clock)


def apply(state: State, call: Call) -> tuple[bool, State]:
    """Returns whether the model gives the call's answer in ``state``, and the state after it."""
    fits, after = True, state
    match call.kind, call.answer:
        case "create", "ok":
            fits, after = state is None, View(call.event, ())
        case "create", _:
            fits = state is not None
        case "delete", _:
            after = None
        case _, "missing":
            fits = state is None
        case "get", _:
            fits = state == call.view
        case _, "stale":
            fits = call.checked and state is not None and state != call.view
        case _:
            fits = state is not None and (not call.checked or state == call.view)
            after = None if state is None else View(state.born, (*state.events, call.event))
    return fits, after


def is_linearizable(calls: Sequence[Call]) -> bool:
    """Whether one order explains the calls on one session (the search of Wing and Gong, with Lowe's memory)."""
    ordered = sorted(calls, key=lambda call: call.made)
    total = len(ordered)
    logs = _longest_reads(calls)
    # Position, calls behind it that were taken early, state: explored once each.
    seen: set[tuple[int, frozenset[int], State]] = set()
    stack: list[tuple[int, frozenset[int], State]] = [(0, frozenset(), None)]
    while stack:
        first, early, state = stack.pop()
        while first in early:
            early -= {first}
            first += 1
        if first == total:
            return True
        if (first, early, state) in seen:
            continue
        seen.add((first, early, state))
        # Whatever was made before the first answer among those left may come next.
        horizon = ordered[first].answered
        candidates = []
        for index in range(first, total):
            call = ordered[index]
            if call.made > horizon:
                break
            if index not in early:
                candidates.append(index)
                horizon = min(horizon, call.answered)
        next_steps = []
        for index in candidates:
            call = ordered[index]
            if call.made > horizon:
                continue
            fits, after = apply(state, call)
            if not fits or (after is not None and not _agrees(after, logs.get(after.born, ()))):
                continue
            if after == state and call.kind != "delete":
                # What never changes anything may as well come now: whatever order explains the rest still does.
                next_steps = [(first, early | {index}, state)]
                break
            next_steps.append((first, early | {index}, after))
        stack.extend(reversed(next_steps))
    return False


def _longest_reads(calls: Sequence[Call]) -> dict[str, tuple[str, ...]]:
    logs: dict[str, tuple[str, ...]] = {}
    for call in calls:
        if call.kind == "get" and call.view is not None:
            logs[call.view.born] = max(logs.get(call.view.born, ()), call.view.events, key=len)
    return logs


def _agrees(state: View, log: tuple[str, ...]) -> bool:
    """Whether a state can still become (or has passed) what the longest read of its log has seen."""
    shared = min(len(state.events), len(log))
    return state.events[shared - 1 : shared] == log[shared - 1 : shared] if shared else True


def find_violations(calls: Sequence[Call]) -> list[str]:
    """Says what no orderly service could have answered."""
    violations: list[str] = []
    sessions: dict[str, list[Call]] = defaultdict(list)
    for call in calls:
        sessions[call.session].append(call)
    for session, mine in sessions.items():
        named = [f"session {session}: {problem}" for problem in _plain_violations(mine)]
        violations += named
        if not named and not is_linearizable(mine):
            violations.append(f"session {session}: its {len(mine)} calls have no order that explains the answers")
    return violations


def _plain_violations(calls: Sequence[Call]) -> list[str]:
    """Broken guarantees that can be named: they follow from linearizability, and say more than its absence."""
    violations: list[str] = []
    reads = sorted((call for call in calls if call.kind == "get" and call.view is not None), key=lambda c: c.answered)
    longest: dict[str, tuple[str, ...]] = {}
    appended = {call.event: call for call in calls if call.kind == "append" and call.answer == "ok"}
    for read in reads:
        assert read.view is not None
        events = read.view.events
        known = longest.setdefault(read.view.born, events)
        shorter, longer = sorted((known, events), key=len)
        if longer[: len(shorter)] != shorter:
            violations.append(f"two reads tell different logs: {known[-3:]} and {events[-3:]}")
        longest[read.view.born] = longer
        positions = {event: place for place, event in enumerate(events)}
        if len(positions) != len(events):
            violations.append("a read holds an event twice")
        violations += [
            f"a read holds {event}, which nobody was told of" for event in positions if event not in appended
        ]
        # Acknowledged order is log order.
        latest_made = -1
        for event in reversed(events):
            call = appended.get(event)
            if call is not None:
                if latest_made >= 0 and call.made > latest_made:
                    violations.append(f"{event} was made after a later event of the log was answered")
                latest_made = call.answered if latest_made < 0 else min(latest_made, call.answered)
    for client in {call.client for call in calls}:
        seen: State = None
        for call in sorted((call for call in calls if call.client == client), key=lambda c: c.made):
            if call.kind == "get" and call.view is not None:
                if (
                    seen is not None
                    and seen.born == call.view.born
                    and call.view.events[: len(seen.events)] != seen.events
                ):
                    violations.append(f"client {client} read less than before, or not what it had written")
                seen = call.view
            elif call.kind == "append" and call.answer == "ok" and call.checked and call.view is not None:
                seen = View(call.view.born, (*call.view.events, call.event))
            elif call.kind == "delete":
                seen = None
    return violations


def without(calls: Sequence[Call], event: str) -> list[Call]:
    """Returns the history with an event taken out of all reads, as if it had been lost."""
    return [
        replace(call, view=View(call.view.born, tuple(e for e in call.view.events if e != event)))
        if call.view is not None and call.kind == "get"
        else call
        for call in calls
    ]


def swapped(calls: Sequence[Call], first: str, second: str) -> list[Call]:
    """Returns the history with two events in each other's place in all reads."""
    other = {first: second, second: first}
    return [
        replace(call, view=View(call.view.born, tuple(other.get(e, e) for e in call.view.events)))
        if call.view is not None and call.kind == "get"
        else call
        for call in calls
    ]
