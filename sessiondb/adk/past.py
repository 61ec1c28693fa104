"""State over time: what changes in logs come to, key by key."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from itertools import chain
from typing import Any, NamedTuple

from google.adk.sessions import Session
from pydantic_core import from_json

from sessiondb.adk import scopes
from sessiondb.adk.events import decode_events, stored_nones, timestamp_text
from sessiondb.adk.sessions import decode_scope, model_access
from sessiondb.errors import CorruptRowError, UnknownBeginningError
from sessiondb.model.records import LoggedChange, PastSnapshot, SessionKey, named

PAST_MARKER = "sessiondb-past"
"""The revision marker of a Session that shows a moment of the past, whichever that is. Nothing is appended through it."""


class StateChange(NamedTuple):
    """One change of one key of state."""

    app_name: str
    """The app, user and session in whose log it is recorded."""
    user_id: str
    session_id: str
    seq: int
    """The number of the event in its session; 0 for what the session, or what is left of its log, begins with."""
    time: float
    """Seconds since the epoch, as the event carries them."""
    timestamp: str
    """The same moment as UTC in ISO 8601 with microseconds."""
    author: str
    """The author of the event; empty for what the session was created with, as the two that follow."""
    invocation_id: str
    event_id: str
    key: str
    """With its prefix."""
    old: Any
    """The value before; None if the key was not there, or if that is not known."""
    new: Any
    """The value since; None if the key was deleted."""
    existed: bool | None
    """Whether the key was there before; None if that is not known, since it is not known what the session began with."""
    deleted: bool
    """Whether the change deleted it. (A key may hold None.)"""


class KeyChange(NamedTuple):
    """What a logged change does to one key."""

    key: str
    value: Any
    deleted: bool


def key_changes(change: LoggedChange) -> Iterator[KeyChange]:
    """Yields what an event, or the creation of a session, has changed.

    Raises:
        CorruptRowError: If that is not JSON.
    """
    try:
        delta = from_json(change.actions)["state_delta"]
        items = list(delta.items())
        nones = stored_nones({} if change.extra is None else from_json(change.extra))
    except KeyError:
        return
    except (ValueError, TypeError, AttributeError):
        raise CorruptRowError(
            f"event {change.seq} of {named(change.key)} does not hold JSON objects; it was edited outside sessiondb"
        ) from None
    for key, value in items:
        # What a session is created with deletes nothing.
        yield KeyChange(key, value, value is None and change.seq > 0 and key not in nones)


def creation_time(now: float) -> float:
    """Returns a moment in whole microseconds: so the text that a session's row keeps of it is exact."""
    return round(now, 6)


def time_of_text(timestamp: str) -> float:
    """Returns a moment that the tables keep as text, in seconds since the epoch."""
    return datetime.fromisoformat(timestamp).timestamp()


def state_before(
    present: dict[str, Any], later: Iterable[LoggedChange], earlier: Iterable[LoggedChange], prefix: str
) -> tuple[dict[str, Any], set[str]]:
    """Returns the state of a scope at a moment of the past, and the keys of which the logs do not tell it.

    A key that was not changed since has the value it has now. For another one it is looked when it was last changed before.

    Args:
        present: The state of the scope now, keys with prefix.
        later: What has changed since.
        earlier: What had changed before, the last change first.
        prefix: Of the keys that belong to the scope; "" for those of a session.
    """
    unknown = {key for change in later for key, _, _ in key_changes(change) if _is_of(key, prefix)}
    state = {key: value for key, value in present.items() if key not in unknown}
    if unknown:
        for change in earlier:
            for key, value, deleted in key_changes(change):
                if key in unknown:
                    unknown.remove(key)
                    if not deleted:
                        state[key] = value
            if not unknown:
                break
    return state, unknown


def _is_of(key: str, prefix: str) -> bool:
    if prefix:
        return key.startswith(prefix)
    return scopes.parse(key)[0] is scopes.Scope.SESSION


def own_state(key: SessionKey, past: PastSnapshot) -> dict[str, Any]:
    """Returns the session's own state at a moment that its log has.

    Raises:
        UnknownBeginningError: If that is not known.
        CorruptRowError: If what is stored is not JSON.
    """
    seq = past.seq or 0
    present = decode_scope(key, past.head.session_state)
    later = [change for change in past.changes if change.seq > seq]
    earlier = [change for change in reversed(past.changes) if change.seq <= seq]
    initial = past.beginning.initial_state
    if initial is not None:
        earlier.append(creation(key, initial))
    state, unknown = state_before(present, later, earlier, "")
    if unknown and initial is None:
        raise UnknownBeginningError(
            f"it is not known what {named(key)} was created with: an earlier release of sessiondb created it, or it was"
            f" imported without. So its state after event {seq} is not known, which later events have changed"
        )
    return state


def own_states(
    key: SessionKey,
    session_state: str,
    initial_state: str | None,
    changes: Callable[[], Iterable[LoggedChange]],
    seqs: Iterable[int],
) -> Iterator[dict[str, Any] | None]:
    """Yields the session's own state right after each of some events, as :func:`own_state`; None where it is not known.

    A key that was never changed may be missing: it is as it is now.

    Args:
        key: The session.
        session_state: Its own state now.
        initial_state: What it began with; None if that is not known.
        changes: Reads what its events have changed, in log order; the log may be long.
        seqs: The numbers of the events, ascending.

    Raises:
        CorruptRowError: If what is stored is not JSON.
    """
    state: dict[str, Any] = {}
    known_from = 0
    if initial_state is None:
        # Of a key that was changed it is known from its first change on.
        changed = set()
        for change in changes():
            for each in key_changes(change):
                if each.key not in changed and _is_of(each.key, ""):
                    changed.add(each.key)
                    known_from = change.seq
        state = {name: value for name, value in decode_scope(key, session_state).items() if name not in changed}
        done = changes()
    else:
        done = chain([creation(key, initial_state)], changes())
    remaining = iter(done)
    following = next(remaining, None)
    for seq in seqs:
        while following is not None and following.seq <= seq:
            for each in key_changes(following):
                if each.deleted:
                    state.pop(each.key, None)
                elif _is_of(each.key, ""):
                    state[each.key] = each.value
            following = next(remaining, None)
        yield dict(state) if seq >= known_from else None


def creation(key: SessionKey, initial_state: str) -> LoggedChange:
    """Returns what a session began with, as a change."""
    return LoggedChange((), key, 0, "", "", "", None, "", f'{{"state_delta":{initial_state}}}', None)


def past_session(key: SessionKey, past: PastSnapshot, state: dict[str, Any]) -> Session:
    """Makes the Session of a moment. Nothing can be appended through it."""
    events = list(decode_events(past.rows, key))
    cut = past.beginning.cut
    begun = time_of_text(past.created_at) if cut is None else cut.time
    time = past.rows[-1].time if past.rows else begun
    return model_access.new_session(key, state, events, time, PAST_MARKER)


def fold_history(
    changes: Iterable[LoggedChange], chosen: set[tuple[SessionKey, int]], copied: dict[SessionKey, int], key: str | None
) -> Iterator[StateChange]:
    """Yields the changes of a key, or of all.

    Args:
        changes: What has changed state, in the order in which that was written.
        chosen: Of which of these, by session and number, changes are wanted; the others tell what was before.
        copied: For each fork the number of the last event that it has taken over. That has changed no user and no app.
        key: The key, with its prefix; None: all.
    """
    known: dict[tuple[tuple[str, ...], str], tuple[Any, bool | None]] = {}
    begun: set[SessionKey] = set()
    for change in changes:
        is_chosen = (change.key, change.seq) in chosen
        # What was there before a cut is not known.
        follows_cut = change.seq == 0 and change.time is not None
        if change.seq == 0:
            begun.add(change.key)
        for name, value, deleted in key_changes(change):
            scope, _ = scopes.parse(name)
            is_own = scope is scopes.Scope.SESSION
            if (key is not None and name != key) or (not is_own and change.seq <= copied.get(change.key, -1)):
                continue
            owner = change.key[: _OWNER_WIDTH[scope]]
            was_not_there = False if (change.key in begun and not follows_cut) or not is_own else None
            old, existed = known.get((owner, name), (None, was_not_there))
            known[owner, name] = (None if deleted else value, not deleted)
            if is_chosen:
                time = time_of_text(change.timestamp) if change.time is None else change.time
                timestamp = timestamp_text(time) if follows_cut else change.timestamp
                yield StateChange(
                    *(*change.key, change.seq, time, timestamp, change.author, change.invocation_id),
                    *(change.event_id, name, old, None if deleted else value, existed, deleted),
                )


_OWNER_WIDTH = {scopes.Scope.SESSION: 3, scopes.Scope.USER: 2, scopes.Scope.APP: 1, scopes.Scope.TEMP: 3}
