"""The oracle for what ADK's services do not have: it keeps the whole past of each session, in plain lists.

What each call answers is looked up there, or counted, in the simplest way.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from google.adk.events import Event
from google.adk.sessions import Session
from google.genai import types

from sessiondb import UsageRow
from sessiondb.model.usage import UsageBy
from tests.contract.documented import DocumentedService, Handle, Hook, Key, MissingError, Prepared
from tests.contract.test_usage import Walk
from tests.strategies import as_stored

SHARED = (("user:", 2), ("app:", 1))
"""Prefixes of keys that sessions share, and how many fields of a key say who shares them."""


class ExistsError(Exception):
    """There is a session of that key."""


class NoEventError(Exception):
    """The log has no such event."""


class OtherLogError(Exception):
    """A cursor is of another log."""


class Change(NamedTuple):
    """A key that was changed, in the log of a session."""

    key: Key
    seq: int
    time: float
    event: Event | None
    """None for what the session was created with."""
    name: str
    value: Any
    deleted: bool


class PartedError(Exception):
    """A cut would part what belongs together."""


class Written(NamedTuple):
    """A change, its place in the order of all of them, and in which incarnation of its session it is recorded."""

    place: int
    incarnation: int
    change: Change


class Then(NamedTuple):
    """A session right after one of its events, or after its creation."""

    own: dict[str, Any]
    written: int
    """How many changes had been written by then, in all sessions; some may be gone since."""
    cuts: int
    """How often its log had been cut off by then."""


class Origin(NamedTuple):
    """Where a session was forked from. That user may have been forgotten."""

    user_id: str | None
    session_id: str | None
    seq: int


class LogPlace(NamedTuple):
    """What a cursor of a log means: an event, which may be cut off by now. Places are in the order of what was written."""

    incarnation: int
    cuts: int
    """How often the log had been cut off before the event."""
    seq: int


@dataclass
class Past:
    """What was, of one session."""

    created: float
    then: list[Then] = field(default_factory=list)
    """After its creation, or what is gone of its log, and after each of its events."""
    origin: Origin | None = None
    taken_over: int = 0
    """Up to which number its events are those of its origin."""
    cuts: int = 0
    """How often its log was cut off."""
    gone: int = 0
    """How many of its first events were pruned."""
    begun: float = 0.0
    """When its log begins: when it was created, or when the last event was that is gone."""


class RememberingService(DocumentedService):
    """See the module."""

    def __init__(self, *, keeps_none: bool, hook: Hook | None = None) -> None:
        super().__init__(keeps_none=keeps_none, hook=hook)
        self._written: list[Written] = []
        self._places = 0
        self._pasts: dict[Key, Past] = {}

    # --- What is written ---------------------------------------------------------------------------------------------

    async def create(self, key: Key, state: Mapping[str, Any], time: float) -> Handle:
        handle = await super().create(key, state, time)
        self._pasts[key] = Past(time, begun=time)
        for name, value in self.records[key].created_with.items():
            self._note(Change(key, 0, time, None, name, value, deleted=False))
        self._remember(key)
        return handle

    async def delete(self, key: Key) -> None:
        await super().delete(key)
        self._pasts.pop(key, None)

    async def _write(self, key: Key, session: Session, event: Prepared) -> None:
        await super()._write(key, session, event)
        self._note_event(key, self._pasts[key].gone + len(self.log(key)), event.stored)
        self._remember(key)

    async def fork(self, source: Key, key: Key, event_id: str | None, time: float) -> Handle:
        """Creates a session that begins as another one was after the last event of this id; None: as it is."""
        seq = self.seq_of(source, event_id)
        if key in self.records:
            raise ExistsError
        of, past_of = self.records[source], self._pasts[source]
        count = seq - past_of.gone
        events, then = self.log(source)[:count], past_of.then[count]
        await self.memory.create_session(**key._asdict(), state=copy.deepcopy(then.own))
        stored = self.memory.sessions[key.app_name][key.user_id][key.session_id]
        stored.last_update_time = time
        stored.events = copy.deepcopy(events)
        self._incarnations += 1
        revision = of.after[count - 1][1] if count else of.revision_before
        self.records[key] = type(of)(
            self._incarnations, revision, of.after[:count], of.created_with, of.revision_before
        )
        past = self._pasts[key] = Past(
            time,
            origin=Origin(source.user_id, source.session_id, seq),
            taken_over=seq,
            gone=past_of.gone,
            begun=past_of.begun if past_of.gone else time,
        )
        for name, value in of.created_with.items():
            if _is_own(name):
                self._note(Change(key, 0, past.begun, None, name, value, deleted=False))
        for number, event in enumerate(events, past.gone + 1):
            self._note_event(key, number, event, only_own=True)
        past.then = [one._replace(written=self._places, cuts=0) for one in past_of.then[: count + 1]]
        handle = await self.get(key)
        assert handle is not None
        return handle

    def seq_of_cut(self, key: Key, event_id: str | None, *, force: bool) -> int:
        """How many events stay if a log is cut off after the last event of this id; None: no event stays."""
        if key not in self.records:
            raise MissingError
        gone = self._pasts[key].gone
        seq = gone if event_id is None else self.seq_of(key, event_id)
        if not force and _parts(self.log(key), seq - gone):
            raise PartedError
        return seq

    def cut(self, key: Key, seq: int, time: float) -> Handle:
        """Cuts a log off after the event of this number."""
        record, past = self.records[key], self._pasts[key]
        stored = self.memory.sessions[key.app_name][key.user_id][key.session_id]
        count = seq - past.gone
        if count < len(stored.events):
            record.revision += 1
            record.after = record.after[:count]
            past.cuts += 1
            past.taken_over = min(past.taken_over, seq)
            if past.origin is not None:
                past.origin = past.origin._replace(seq=past.taken_over)
            # The last events know the revision of the log, so that who holds no revision is known by the last one.
            last = record.after[-1][1] if record.after else None
            for n in reversed(range(count)):
                if record.after[n][1] != last:
                    break
                record.after[n] = (record.after[n][0], record.revision)
            stored.events = stored.events[:count]
            stored.state = copy.deepcopy(past.then[count].own)
            stored.last_update_time = time
            past.then = past.then[: count + 1]
            self._written = [
                one
                for one in self._written
                if (one.change.key, one.incarnation) != (key, record.incarnation) or one.change.seq <= seq
            ]
        session = stored.model_copy(update={"state": {**stored.state, **self._shared_now(key)}})
        return Handle(key, session.model_copy(deep=True), (record.incarnation, record.revision))

    def redact(self, key: Key, event_ids: Sequence[str], replacement: str | None, moments: Mapping[int, str]) -> int:
        """Takes away what events of these ids hold; says how many there are.

        Args:
            key: Of which log.
            event_ids: Which events.
            replacement: What stands in the place of a text.
            moments: What the service says of when each event was redacted, by its place in the log.
        """
        if key not in self.records:
            raise MissingError
        log = self.log(key)
        if not set(event_ids) <= {event.id for event in log}:
            raise NoEventError
        places = [n for n, event in enumerate(log) if event.id in event_ids]
        for n in places:
            content = log[n].content
            if content is not None:
                parts = [_redacted(part, replacement) for part in content.parts or ()]
                left = [part for part in parts if part is not None]
                content = types.Content(role=content.role, parts=left) if left else None
            metadata: dict[str, Any] = {"sessiondb:redacted_at": moments.get(n)}
            if content is not None and any(part.function_call for part in content.parts or ()):
                # Calls that are not what the model asked for.
                metadata["__adk_internal_restored_event"] = True
            log[n] = log[n].model_copy(update={"content": content, "custom_metadata": metadata})
        return len(places)

    async def prune(
        self,
        user_id: str | None,
        *,
        updated_before: float,
        created_before: float,
        max_events: float,
        max_sessions: float,
    ) -> tuple[int, int, int, int]:
        """Deletes what is more than is to be kept; says how many sessions, logs, events and logs that could not be cut.

        Args:
            user_id: Of this user of any app only; None: of all.
            updated_before: Sessions go that were updated before.
            created_before: Sessions go that were created before.
            max_events: So many events of each other session stay, at least.
            max_sessions: So many sessions of each user of an app stay.
        """
        sessions = trimmed = events = uncut = 0
        keys = [key for key in self.records if user_id in (None, key.user_id)]

        def newer(key: Key) -> tuple[float, float, str]:
            stored = self.memory.sessions[key.app_name][key.user_id][key.session_id]
            return (stored.last_update_time, self._pasts[key].created, key.session_id)

        doomed = [
            key
            for key in keys
            if newer(key)[0] < updated_before
            or self._pasts[key].created < created_before
            or sum(other[:2] == key[:2] and newer(other) > newer(key) for other in keys) >= max_sessions
        ]
        for key in doomed:
            sessions, events = sessions + 1, events + len(self.log(key))
            await self.delete(key)
        for key in [key for key in keys if key not in doomed]:
            surplus = len(self.log(key)) - max_events
            if surplus > 0:
                places = [place for place in range(1, len(self.log(key))) if self._may_begin(key, place)]
                place = max((place for place in places if place <= surplus), default=0)
                self._forget_first(key, place)
                trimmed, events, uncut = trimmed + bool(place), events + place, uncut + (not place)
        return sessions, trimmed, events, uncut

    def _may_begin(self, key: Key, place: int) -> bool:
        """Whether what is left makes sense if that many of the first events go."""
        log, record = self.log(key), self.records[key]
        gone, left = log[:place], log[place:]
        if {event.invocation_id for event in gone if event.invocation_id} & {event.invocation_id for event in left}:
            return False
        revisions = [record.revision_before, *(revision for _, revision in record.after)]
        said = [n for n in range(len(log)) if revisions[n] != revisions[n + 1]]
        if said and said[-1] < place:
            # The invocation that may be going on is a part of what would go.
            return False
        calls: dict[str, int] = {}
        for n, event in enumerate(log):
            for response in event.get_function_responses():
                called = calls.get(response.name or "")
                if place == n if called is None else called < place <= n:
                    return False
            for call in event.get_function_calls():
                calls[call.name or ""] = n
        return True

    def _forget_first(self, key: Key, count: int) -> None:
        """Deletes the first events of a log: it begins after them, with the state that the session had then."""
        if not count:
            return
        record, past = self.records[key], self._pasts[key]
        stored = self.memory.sessions[key.app_name][key.user_id][key.session_id]
        past.begun = stored.events[count - 1].timestamp
        past.gone += count
        past.then = past.then[count:]
        stored.events = stored.events[count:]
        record.revision_before = record.after[count - 1][1]
        record.after = record.after[count:]
        record.created_with = copy.deepcopy(past.then[0].own)
        here = (key, record.incarnation)
        self._written = [
            one for one in self._written if (one.change.key, one.incarnation) != here or one.change.seq > past.gone
        ]
        self._written += [
            Written(
                past.then[0].written, record.incarnation, Change(key, 0, past.begun, None, name, value, deleted=False)
            )
            for name, value in record.created_with.items()
        ]
        self._written.sort(key=lambda one: one.place)

    async def erase(self, app_name: str, user_id: str) -> tuple[int, int, int, int]:
        """Deletes all that is a user's; says how many sessions, events, keys of state and forks of others that were."""
        keys = [key for key in self.records if key[:2] == (app_name, user_id)]
        events = sum(len(self.log(key)) for key in keys)
        names = sum(len(self.memory.sessions[app_name][user_id][key.session_id].state) for key in keys)
        names += len(self.user_state(app_name, user_id))
        for key in keys:
            await self.delete(key)
        self.memory.user_state.get(app_name, {}).pop(user_id, None)
        forks = 0
        for key, past in self._pasts.items():
            if past.origin is not None and (key.app_name, past.origin.user_id) == (app_name, user_id):
                past.origin = Origin(None, None, past.origin.seq)
                forks += 1
        return len(keys), events, names, forks

    def _note(self, change: Change) -> None:
        self._places += 1
        self._written.append(Written(self._places, self.records[change.key].incarnation, change))

    def _note_event(self, key: Key, seq: int, event: Event, *, only_own: bool = False) -> None:
        for name, value in event.actions.state_delta.items():
            if _is_own(name) or not only_own:
                deleted = value is None and not self.keeps_none
                self._note(Change(key, seq, event.timestamp, event, name, value, deleted))

    def _remember(self, key: Key) -> None:
        stored, past = self.memory.sessions[key.app_name][key.user_id][key.session_id], self._pasts[key]
        past.then.append(Then(copy.deepcopy(stored.state), self._places, past.cuts))

    # --- What was ----------------------------------------------------------------------------------------------------

    def seq_of(self, key: Key, event_id: str | None) -> int:
        """The number of the last event of this id; None: of the last one of all."""
        if key not in self.records:
            raise MissingError
        gone = self._pasts[key].gone
        numbers = [n for n, event in enumerate(self.log(key), gone + 1) if event_id in (None, event.id)]
        if not numbers and event_id is not None:
            raise NoEventError
        return numbers[-1] if numbers else gone

    def seq_at(self, key: Key, time: float) -> int | None:
        """The number of the last event that is dated at or before a moment; None if the session was not there."""
        past = self._pasts[key]
        numbers = [n for n, event in enumerate(self.log(key), past.gone + 1) if event.timestamp <= time]
        if numbers:
            return numbers[-1]
        if past.begun <= time:
            return past.gone
        if past.created <= time:
            raise NoEventError
        return None

    def session_at(self, key: Key, seq: int) -> Session:
        """The session right after one of its events, or the last one that is gone; of a whole log 0 is its creation."""
        past = self._pasts[key]
        count = seq - past.gone
        if not 0 <= count <= len(self.log(key)):
            raise NoEventError
        then = past.then[count]
        events = self.log(key)[:count]
        state = {**then.own, **self._shared_then(key, then.written)}
        time = events[-1].timestamp if events else past.begun
        return Session(
            id=key.session_id,
            app_name=key.app_name,
            user_id=key.user_id,
            state=state,
            events=events,
            last_update_time=time,
        )

    def _shared_now(self, key: Key) -> dict[str, Any]:
        state = {f"user:{name}": value for name, value in self.user_state(key.app_name, key.user_id).items()}
        return state | {f"app:{name}": value for name, value in self.memory.app_state.get(key.app_name, {}).items()}

    def _shared_then(self, key: Key, written: int) -> dict[str, Any]:
        """What of users and apps the logs that are still there tell of a moment."""
        state = self._shared_now(key)
        for prefix, width in SHARED:
            later, earlier = (
                [change for change in changes if change.name.startswith(prefix) and change.key[:width] == key[:width]]
                for changes in (self._still_there(since=written), self._still_there(until=written))
            )
            for name in {change.name for change in later}:
                before = [change for change in earlier if change.name == name]
                state.pop(name, None)
                if before and not before[-1].deleted:
                    state[name] = before[-1].value
        return state

    def user_state(self, app_name: str, user_id: str) -> dict[str, Any]:
        """What is stored of a user."""
        state: dict[str, Any] = self.memory.user_state.get(app_name, {}).get(user_id, {})
        return state

    def _still_there(self, since: int = 0, until: float = math.inf) -> Iterator[Change]:
        """What was written and is in a log still."""
        for place, incarnation, change in self._written:
            record = self.records.get(change.key)
            if since < place <= until and record is not None and record.incarnation == incarnation:
                yield change

    def history(self, app: str, user: str | None, session: str | None, name: str | None) -> list[tuple[Any, ...]]:
        """Which keys were changed, in order: key, number, time, name, old and new value, whether it was there, deleted."""
        known: dict[tuple[Any, ...], Any] = {}
        found: list[tuple[Any, ...]] = []
        for key, seq, time, event, changed, value, deleted in self._still_there():
            if key.app_name != app:
                continue
            owner = (*key[: next((width for prefix, width in SHARED if changed.startswith(prefix)), 3)], changed)
            old, new = known.get(owner), None if deleted else value
            if user in (None, key.user_id) and session in (None, key.session_id) and name in (None, changed):
                of_event = ("", "", "") if event is None else (event.author, event.invocation_id, event.id)
                values = (text_of(None if old is None else old[0]), text_of(new))
                # What was there before a log was cut is not known any more.
                known_before = old is not None or event is not None or not self._pasts[key].gone
                existed = old is not None if known_before else None
                found.append((*key, seq, time, *of_event, changed, *values, existed, deleted))
            known[owner] = None if deleted else (value,)
        return found

    def forks(self, app: str, user: str | None, session: str | None) -> list[tuple[tuple[str, ...], tuple[Any, ...]]]:
        """The forks of such sessions that are there, the oldest first."""
        forked = [(self.records[key].incarnation, key, past.origin) for key, past in self._pasts.items() if past.origin]
        return [
            (tuple(key), tuple(origin))
            for _, key, origin in sorted(forked)
            if key.app_name == app and user in (None, origin.user_id) and session in (None, origin.session_id)
        ]

    # --- What is ------------------------------------------------------------------------------------------------------

    async def sessions(
        self,
        app: str | None,
        user: str | None,
        *,
        newest_first: bool,
        after: tuple[Any, ...] | None,
        updated_after: float,
        updated_before: float,
        state: Mapping[str, Any],
    ) -> list[Session]:
        """The sessions that are behind a place, see :func:`place_of`."""
        listed = (await self.listed(app, user))[:: -1 if newest_first else 1]
        wanted = {name: json.dumps(as_stored(value)) for name, value in state.items()}
        found = []
        for session in listed:
            place = place_of(session)
            if after is not None and (place >= after if newest_first else place <= after):
                continue
            own = self.memory.sessions[session.app_name][session.user_id][session.id].state
            holds = all(name in own and json.dumps(own[name]) == text for name, text in wanted.items())
            if holds and updated_after <= session.last_update_time < updated_before:
                found.append(session)
        return found

    def events(
        self,
        key: Key,
        *,
        after: LogPlace | None,
        before: LogPlace | None,
        newest_first: bool,
        authors: Sequence[str] | None,
    ) -> list[tuple[LogPlace, Event]]:
        """The events of a log between two places."""
        record = self.records.get(key)
        if record is None:
            raise MissingError
        if any(place is not None and place.incarnation != record.incarnation for place in (after, before)):
            raise OtherLogError
        past = self._pasts[key]
        numbered = enumerate(zip(self.log(key), past.then[1:], strict=True), past.gone + 1)
        places = [(LogPlace(record.incarnation, then.cuts, seq), event) for seq, (event, then) in numbered]
        low, high = (before, after) if newest_first else (after, before)
        return [
            (place, event)
            for place, event in places[:: -1 if newest_first else 1]
            if (low is None or place > low)
            and (high is None or place < high)
            and (authors is None or event.author in authors)
        ]

    def found(
        self,
        words: Sequence[str],
        app: str | None,
        user: str | None,
        *,
        author: str | None,
        since: float | None,
    ) -> set[tuple[Any, ...]]:
        """The events in which all of these words were said, by session and number."""
        return {
            (*key, seq)
            for key in self.records
            if app in (None, key.app_name) and user in (None, key.user_id)
            for seq, event in enumerate(self.log(key), self._pasts[key].gone + 1)
            if author in (None, event.author) and (since is None or event.timestamp >= since)
            if set(words) <= {word for part in (event.content and event.content.parts) or () for word in _words(part)}
        }

    def usage(
        self,
        app: str | None,
        user: str | None,
        session: str | None,
        *,
        by: UsageBy,
        since: float | None,
        until: float | None,
    ) -> list[UsageRow]:
        """What was used, see :class:`tests.contract.test_usage.Walk`."""
        walk = Walk(by)
        low, high = -math.inf if since is None else since, math.inf if until is None else until
        for key in self.records:
            if all(wanted in (None, part) for wanted, part in zip((app, user, session), key, strict=True)):
                # What was taken over counts where it was said.
                past = self._pasts[key]
                for event in self.log(key)[max(past.taken_over - past.gone, 0) :]:
                    if low <= event.timestamp < high:
                        walk.add(key, event)
        return walk.rows()


def place_of(session: Session) -> tuple[Any, ...]:
    """Where a session stands in a list."""
    return (session.last_update_time, session.user_id, session.id, session.app_name)


def _words(part: types.Part) -> list[str]:
    """The words of a part, if they are some of those that are searched."""
    return (part.text or "").strip("[]").split()


def _parts(log: Sequence[Event], seq: int) -> bool:
    """Whether a cut after that many events parts a function call from its first response."""
    calls: dict[str, int] = {}
    for n, event in enumerate(log):
        for response in event.get_function_responses():
            called = calls.pop(response.name or "", None)
            if called is not None and called < seq <= n:
                return True
        for call in event.get_function_calls():
            calls[call.name or ""] = n
    return False


def _redacted(part: types.Part, replacement: str | None) -> types.Part | None:
    """What is left of a part."""
    if part.function_call is not None:
        return types.Part(function_call=types.FunctionCall(name=part.function_call.name))
    if part.function_response is not None:
        response = {} if replacement is None else {"result": replacement}
        return types.Part(function_response=types.FunctionResponse(name=part.function_response.name, response=response))
    return None if replacement is None else types.Part(text=replacement)


def _is_own(name: str) -> bool:
    return not name.startswith(("user:", "app:"))


def text_of(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
