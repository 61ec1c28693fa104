"""Compares two places session by session and event by event; and what a migration reports."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import zip_longest
from operator import attrgetter
from typing import Any, TypeVar

from google.adk.events import Event

from sessiondb.adk import scopes
from sessiondb.adk.events import encode_event
from sessiondb.errors import CorruptRowError, InvalidInputError
from sessiondb.model.records import named
from sessiondb.transfer.jsonl import Advance, encode_state
from sessiondb.transfer.sources import Source, SourceSession, UnreadableError

ItemT = TypeVar("ItemT")

NO_STATE = "the state is not a JSON object"


@dataclass(slots=True)
class MigrationReport:
    """What a migration did.

    Attributes:
        sessions: Sessions that were copied.
        events: Their events.
        present: Sessions that the target had already; they are compared like the others.
        verified: Sessions that are equal in source and target.
        notes: What is there in another form, as a target of this kind keeps it.
        failures: What is not there, or differs.
    """

    sessions: int = 0
    events: int = 0
    present: int = 0
    verified: int = 0
    notes: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def compare(source: Source, target: Source, report: MigrationReport, advance: Advance) -> None:
    """Compares what the source holds with what the target holds; whatever else the target holds is not looked at."""
    for (app_name, user_id, state), owned in matched(source.scope_states(), target.scope_states(), owner_key):
        here = (owned and owned[2]) or {}
        try:
            stored = _as_stored(scope_of(user_id), state or {})
        except InvalidInputError:
            continue  # reported when it was to be copied
        if different := sum(name not in here or here[name] != value for name, value in stored.items()):
            report.failures.append(
                f"{different} keys of {owner_name(app_name, user_id)} have another value in the target, which stays"
            )
    for session, found in matched(source.sessions(), target.sessions(), attrgetter("key")):
        if found is None:
            if not any(failure.startswith(named(session.key)) for failure in report.failures):
                report.failures.append(f"{named(session.key)} is missing in the target")
        elif differences := list(_differences(session, found, source, target, report)):
            report.failures.append(f"{named(session.key)} differs: {'; '.join(differences)}")
        else:
            report.verified += 1
        advance(1)


def matched(
    source: Iterator[ItemT], target: Iterator[ItemT], key: Callable[[ItemT], tuple[Any, ...]]
) -> Iterator[tuple[ItemT, ItemT | None]]:
    """Finds for each item of the source the one of the target, or None; both are in the order of ``key``, so neither is kept."""
    found = next(target, None)
    for item in source:
        while found is not None and key(found) < key(item):
            found = next(target, None)
        yield item, found if found is not None and key(found) == key(item) else None


def owner_key(state: tuple[str, str | None, object]) -> tuple[bool, str, str]:
    """Returns what the states of apps and users are in the order of."""
    app_name, user_id, _ = state
    return user_id is not None, app_name, user_id or ""


def owner_name(app_name: str, user_id: str | None) -> str:
    """Names whose state is meant: an app's, or a user's."""
    return f"app {app_name!r}" if user_id is None else f"user {user_id!r} of app {app_name!r}"


def scope_of(user_id: str | None) -> scopes.Scope:
    """Returns the scope of an owner."""
    return scopes.Scope.APP if user_id is None else scopes.Scope.USER


def _differences(
    session: SourceSession, found: SourceSession, source: Source, target: Source, report: MigrationReport
) -> Iterator[str]:
    if session.update_time != found.update_time:
        yield "the time of the last update"
    is_coerced = False
    if session.state is None or found.state is None:
        yield NO_STATE
    elif session.state != found.state:
        is_coerced = _as_stored(scopes.Scope.SESSION, session.state) == found.state
        if not is_coerced:
            yield "the state"
    try:
        difference, coerced = _compare_logs(source.events(session.key), target.events(session.key))
    except (UnreadableError, CorruptRowError, InvalidInputError) as error:
        yield str(error)
        return
    if difference:
        yield difference
    if is_coerced or coerced:
        report.notes.append(f"{named(session.key)} holds values that JSON has not; they are stored as ADK stores them")


def _compare_logs(source: Iterator[Event], target: Iterator[Event]) -> tuple[str | None, int]:
    """Returns how two logs differ, None if they do not, and how many events are equal once their values are JSON."""
    in_source = in_target = unequal = coerced = 0
    for expected, event in zip_longest(source, target):
        in_source += expected is not None
        in_target += event is not None
        if expected is None or event is None or event == expected:
            continue
        if encode_event(event).record == encode_event(expected).record:
            coerced += 1
        else:
            unequal += 1
    if in_source != in_target:
        return f"{in_source} events in the source, {in_target} in the target", coerced
    return (f"{unequal} of {in_source} events" if unequal else None), coerced


def _as_stored(scope: scopes.Scope, state: dict[str, Any]) -> dict[str, Any]:
    return {name: json.loads(text) for name, text in json.loads(encode_state(scope, state)).items()}
