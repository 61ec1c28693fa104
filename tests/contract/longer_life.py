"""A random life of a database, by the calls that only sessiondb has, among those that ADK's services have too."""

from __future__ import annotations

import itertools
import math
from collections.abc import AsyncIterator, Iterator
from typing import Any, NamedTuple

from google.adk.events import Event
from google.adk.platform import time as platform_time
from google.adk.sessions import Session
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, multiple, rule

from sessiondb import DatabaseSessionService, Retention, errors
from sessiondb.model.usage import USAGE_BY, UsageBy
from tests.contract.documented import Key, MissingError, StaleError
from tests.contract.life import APPS, EVENTS, PARTIAL, SERVICES, USERS, Life, Pair, compare, exactly_delta, is_marked
from tests.contract.remembering import (
    ExistsError,
    LogPlace,
    NoEventError,
    OtherLogError,
    PartedError,
    place_of,
    text_of,
)
from tests.strategies import names, small_deltas, state_keys, timestamps

REFUSED: dict[type[Exception], type[errors.SessionDBError]] = {
    MissingError: errors.SessionNotFoundError,
    StaleError: errors.StaleSessionError,
    ExistsError: errors.AlreadyExistsError,
    NoEventError: errors.EventNotFoundError,
    OtherLogError: errors.InvalidInputError,
    PartedError: errors.UnsafeCutError,
}
"""What the model raises, and what the service has to raise then."""

AUTHORS = st.none() | st.lists(st.sampled_from(["user", "agent", "one", "nobody"]), max_size=3)
WHICH_EVENT = st.none() | st.integers(0, 6)
LIMITS = st.integers(1, 4)


class ListCursor(NamedTuple):
    """A cursor of a list of sessions, and the place that it stands for."""

    text: str
    place: tuple[Any, ...]


class LogCursor(NamedTuple):
    """A cursor of a log, and the place that it stands for."""

    text: str
    place: LogPlace


class Iteration(NamedTuple):
    """An iterator over a log, and the model's counterpart."""

    service: DatabaseSessionService
    live: AsyncIterator[Event]
    model: Iterator[Event]


class LongerLife(Life):
    """See the module."""

    # Bundles are known by their names: the rules of Life fill this one too.
    handles: Bundle[Pair] = Bundle("handles")
    delivered: Bundle[Event] = Bundle("delivered")
    list_cursors: Bundle[ListCursor] = Bundle("list_cursors")
    log_cursors: Bundle[LogCursor] = Bundle("log_cursors")
    iterations: Bundle[Iteration] = Bundle("iterations")

    def refused(self, refusal: Exception, call: Any) -> None:
        """Makes a call that the service has to refuse."""
        try:
            self.run(call)
        except REFUSED[type(refusal)]:
            return
        raise AssertionError(f"accepted in spite of {refusal!r}") from refusal

    @rule(
        target=delivered,
        at=SERVICES,
        pair=handles,
        drawn=st.lists(st.tuples(EVENTS, small_deltas, PARTIAL), max_size=4),
        known=st.lists(delivered, max_size=2),
        order=st.randoms(use_true_random=False),
    )
    def append_several(self, at: int, pair: Pair, drawn: Any, known: list[Event], order: Any) -> Any:
        events = [event.model_copy(deep=True) for event in known]
        for event, delta, partial in drawn:
            update = {"id": self.context.run(Event.new_id), "partial": partial}
            events.append(event.model_copy(update=update))
            events[-1].actions = event.actions.model_copy(update={"state_delta": delta})
        order.shuffle(events)
        given = [event.model_copy(deep=True) for event in events]
        marked = is_marked(pair.live)
        call = self.services[at].append_events(pair.live, events)
        whole = [event for event in given if not event.partial]
        try:
            if whole:
                self.run(self.model.append_all(pair.model, whole, marked=marked))
        except (StaleError, MissingError) as refusal:
            self.refused(refusal, call)
            compare(pair.live, pair.model.session)
            assert [exactly_delta(event) for event in events] == [exactly_delta(event) for event in given]
            return multiple()
        returned = self.run(call)
        assert all(one is other for one, other in zip(returned, events, strict=True))
        compare(pair.live, pair.model.session)
        return multiple(*whole)

    @rule(
        target=handles,
        at=SERVICES,
        pair=handles,
        which=WHICH_EVENT,
        user=USERS | st.none(),
        session_id=names,
    )
    def fork(self, at: int, pair: Pair, which: int | None, user: str | None, session_id: str) -> Any:
        source = pair.model.key
        key = Key(source.app_name, source.user_id if user is None else user, session_id.strip())
        event_id = self.event_id(source, which)
        if not key.session_id:
            return multiple()
        call = self.services[at].fork_session(
            *source, at_event_id=event_id, new_session_id=session_id, new_user_id=user
        )
        try:
            self.model.seq_of(source, event_id)
            if key in self.model.records:
                raise ExistsError
        except (MissingError, NoEventError, ExistsError) as refusal:
            self.refused(refusal, call)
            return multiple()
        live = self.run(call)
        model = self.run(self.model.fork(source, key, event_id, live.last_update_time))
        compare(live, model.session)
        forked = Pair(live, model)
        return multiple(forked, self.get(1 - at, forked, None))

    def event_id(self, key: Key, which: int | None) -> str | None:
        """The id of one of the first events of a log, if it has so many; None for None."""
        if which is None:
            return None
        log = self.model.log(key) if key in self.model.records else []
        return log[which].id if which < len(log) else f"no event {which}"

    @rule(target=handles, at=SERVICES, pair=handles, which=WHICH_EVENT, force=st.booleans())
    def truncate(self, at: int, pair: Pair, which: int | None, force: bool) -> Any:
        key = pair.model.key
        event_id = self.event_id(key, which)
        call = self.services[at].truncate_session(*key, after_event_id=event_id, force=force)
        try:
            seq = self.model.seq_of_cut(key, event_id, force=force)
        except (MissingError, NoEventError, PartedError) as refusal:
            self.refused(refusal, call)
            return multiple()
        live = self.run(call)
        model = self.model.cut(key, seq, live.last_update_time)
        compare(live, model.session)
        cut = Pair(live, model)
        return multiple(cut, self.get(1 - at, cut, None))

    @rule(
        at=SERVICES,
        pair=handles,
        which=st.lists(WHICH_EVENT, max_size=2),
        replacement=st.sampled_from([None, "[gone]"]),
    )
    def redact(self, at: int, pair: Pair, which: list[int | None], replacement: str | None) -> None:
        key = pair.model.key
        event_ids = [event_id for n in which if (event_id := self.event_id(key, n)) is not None]
        call = self.services[at].redact_events(*key, event_ids, replacement)
        before = self.model.log(key) if key in self.model.records else []
        if key not in self.model.records or not set(event_ids) <= {event.id for event in before}:
            self.refused(NoEventError() if key in self.model.records else MissingError(), call)
            return
        count = self.run(call)
        live = self.run(self.services[at].get_session(*key))
        assert live is not None
        moments = {
            n: (one.custom_metadata or {})["sessiondb:redacted_at"]
            for n, one in enumerate(live.events)
            if one.id in event_ids
        }
        assert count == self.model.redact(key, event_ids, replacement, moments)
        for service in self.services:
            read = self.run(service.get_session(*key))
            model = self.run(self.model.get(key))
            assert read is not None
            assert model is not None
            compare(read, model.session)

    @rule(
        at=SERVICES,
        user=USERS | st.none(),
        limits=st.fixed_dictionaries(
            {},
            optional={
                "idle": st.sampled_from([1.0, 20.0]),
                "age": st.sampled_from([10.0, 30.0]),
                "max_events": st.integers(1, 3),
                "max_sessions_per_user": st.integers(1, 3),
            },
        ),
    )
    def prune(self, at: int, user: str | None, limits: dict[str, Any]) -> None:
        # Without a limit, most likely: most sessions are not to go.
        limits = limits if len(limits) == 1 else {"max_events": 2}
        service = self.services[at]
        dry = self.run(service.prune(Retention(**limits), user_id=user, dry_run=True))
        now = self.context.run(platform_time.get_time)
        done = self.run(service.prune(Retention(**limits), user_id=user))
        expected = self.run(
            self.model.prune(
                user,
                updated_before=now + 1 - limits["idle"] if "idle" in limits else -math.inf,
                created_before=now + 1 - limits["age"] if "age" in limits else -math.inf,
                max_events=limits.get("max_events", math.inf),
                max_sessions=limits.get("max_sessions_per_user", math.inf),
            )
        )
        assert (done.sessions, done.trimmed, done.events, done.uncut) == expected
        assert (done.in_use, done.unreadable) == (0, 0)
        if "idle" not in limits and "age" not in limits:
            assert (dry.sessions, dry.trimmed, dry.events, dry.uncut) == expected

    @rule(
        at=SERVICES,
        words=st.sampled_from([["alpha"], ["beta"], ["beta", "alpha"], ["gone"], ["redacted"], ["alpha", "gamma"]]),
        app=APPS | st.none(),
        user=USERS | st.none(),
        author=st.sampled_from([None, None, "agent"]),
        since=st.none() | timestamps,
        limit=LIMITS,
    )
    def search(
        self,
        *,
        at: int,
        words: list[str],
        app: str | None,
        user: str | None,
        author: str | None,
        since: float | None,
        limit: int,
    ) -> None:
        service = self.services[at]
        filters: dict[str, Any] = {"app_name": app, "user_id": user, "author": author, "since": since}
        if self.index is None:
            try:
                self.run(service.search(" ".join(words), **filters))
            except errors.SearchIndexError:
                return
            raise AssertionError("searched without an index")
        found: list[tuple[Any, ...]] = []
        after = None
        while True:
            page = self.run(service.search(" ".join(words), limit=limit, after=after, **filters))
            assert len(page.hits) <= limit
            found += [(hit.app_name, hit.user_id, hit.session_id, hit.seq) for hit in page.hits]
            after = page.next
            if after is None:
                break
        expected = self.model.found(words, app, user, author=author, since=since)
        assert sorted(found) == sorted(expected)

    @rule(at=SERVICES, app=APPS, user=USERS, purge=st.sampled_from([False, False, False, True]))
    def erase(self, at: int, app: str, user: str, purge: bool) -> None:
        expected = self.run(self.model.erase(app, user))
        for dry_run in (False, True):
            found = self.run(self.services[at].erase_user(app, user, purge=purge, dry_run=dry_run))
            counts = (found.sessions, found.events, found.state_keys, found.forks)
            assert counts == ((0, 0, 0, 0) if dry_run else expected)

    @rule(at=SERVICES, pair=handles, seq=WHICH_EVENT, which=WHICH_EVENT, time=st.none() | timestamps)
    def look_back(self, at: int, pair: Pair, seq: int | None, which: int | None, time: float | None) -> None:
        """Reads a session as it was: by a number, by an id, by a moment."""
        key = pair.model.key
        event_id = self.event_id(key, which)
        for name, value in (("seq", seq), ("event_id", event_id), ("time", time)):
            if value is None:
                continue
            moment: dict[str, Any] = {name: value}
            call = self.services[at].get_session_at(*key, **moment)
            if key not in self.model.records:
                assert self.run(call) is None
                continue
            try:
                number: int | None = self.model.seq_of(key, event_id) if name == "event_id" else seq
                if name == "time" and time is not None:
                    number = self.model.seq_at(key, time)
                expected = None if number is None else self.model.session_at(key, number)
            except NoEventError as refusal:
                self.refused(refusal, call)
                continue
            found = self.run(call)
            assert (found is None) == (expected is None)
            if found is not None and expected is not None:
                compare(found, expected)

    @rule(at=SERVICES, pair=handles, every=st.tuples(st.booleans(), st.booleans()), name=st.none() | state_keys)
    def read_history(self, at: int, pair: Pair, every: tuple[bool, bool], name: str | None) -> None:
        app, user, session_id = pair.model.key
        chosen = (app, None if every[0] else user, None if every[1] else session_id)
        found = self.run(self.services[at].history(*chosen, name))
        told = [
            (
                *(change.app_name, change.user_id, change.session_id, change.seq, change.time),
                *(change.author, change.invocation_id, change.event_id, change.key),
                *(text_of(change.old), text_of(change.new), change.existed, change.deleted),
            )
            for change in found
        ]
        assert self.in_order(told) == self.in_order(self.model.history(*chosen, name))
        forks = self.run(self.services[at].list_forks(*chosen))
        assert [(tuple(fork.key), tuple(fork.origin)) for fork in forks] == self.model.forks(*chosen)

    @staticmethod
    def in_order(changes: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        """History, with what a log begins with in the order of the keys: where it was cut, there is no other."""
        ordered: list[tuple[Any, ...]] = []
        for (*_, seq), group in itertools.groupby(changes, lambda change: change[:4]):
            together = list(group)
            ordered += sorted(together, key=lambda change: str(change[8])) if seq == 0 else together
        return ordered

    @rule(
        target=list_cursors,
        at=SERVICES,
        app=APPS | st.none(),
        user=USERS | st.none(),
        after=st.none() | list_cursors,
        limit=LIMITS,
        newest_first=st.booleans(),
        updated=st.tuples(st.none() | timestamps, st.none() | timestamps),
        pair=handles,
        by_state=st.sampled_from([0, 0, 1]),
        iterate=st.booleans(),
    )
    def page_through_sessions(
        self,
        *,
        at: int,
        app: str | None,
        user: str | None,
        after: ListCursor | None,
        limit: int,
        newest_first: bool,
        updated: tuple[float | None, float | None],
        pair: Pair,
        by_state: int,
        iterate: bool,
    ) -> Any:
        """Reads pages of sessions, from the first or from behind a place that a page ended at some time ago."""
        service = self.services[at]
        own = {
            name: value for name, value in pair.live.state.items() if not name.startswith(("app:", "user:", "temp:"))
        }
        state = dict(itertools.islice(own.items(), by_state))
        filters: dict[str, Any] = {
            "newest_first": newest_first,
            "updated_after": updated[0],
            "updated_before": updated[1],
            "state": state,
        }
        low, high = updated
        expected = self.run(
            self.model.sessions(
                app,
                user,
                newest_first=newest_first,
                after=None if after is None else after.place,
                updated_after=float("-inf") if low is None else low,
                updated_before=float("inf") if high is None else high,
                state=state,
            )
        )
        text = None if after is None else after.text
        if iterate:

            async def gathered() -> list[Session]:
                return [one async for one in service.iter_sessions(app, user, after=text, page_size=limit, **filters)]

            compare_all(self.run(gathered()), expected)
            return multiple()
        cursors = []
        for first in range(0, max(len(expected), 1), limit):
            page = self.run(service.list_sessions(app, user, limit=limit, after=text, **filters))
            on_page = expected[first : first + limit]
            compare_all(page.sessions, on_page)
            assert [(row["app_name"], row["user_id"], row["session_id"]) for row in page] == [
                (one.app_name, one.user_id, one.id) for one in on_page
            ]
            text = page.next
            assert (text is None) == (first + limit >= len(expected))
            if text is not None:
                cursors.append(ListCursor(text, place_of(on_page[-1])))
        return multiple(*cursors[:2])

    @rule(
        target=log_cursors,
        at=SERVICES,
        pair=handles,
        after=st.none() | log_cursors,
        before=st.none() | log_cursors,
        limit=LIMITS,
        newest_first=st.booleans(),
        authors=AUTHORS,
    )
    def page_through_log(
        self,
        *,
        at: int,
        pair: Pair,
        after: LogCursor | None,
        before: LogCursor | None,
        limit: int,
        newest_first: bool,
        authors: list[str] | None,
    ) -> Any:
        """Reads pages of a log, from its begin, its end or a place that a page ended at some time ago."""
        key = pair.model.key
        text = None if after is None else after.text
        more: dict[str, Any] = {"newest_first": newest_first, "authors": authors, "limit": limit}
        more["before"] = None if before is None else before.text
        try:
            expected = self.model.events(
                key,
                after=None if after is None else after.place,
                before=None if before is None else before.place,
                newest_first=newest_first,
                authors=authors,
            )
        except (MissingError, OtherLogError) as refusal:
            self.refused(refusal, self.services[at].get_events(*key, after=text, **more))
            return multiple()
        cursors = []
        for first in range(0, max(len(expected), 1), limit):
            page = self.run(self.services[at].get_events(*key, after=text, **more))
            on_page = expected[first : first + limit]
            assert page.events == [event for _, event in on_page]
            text = page.next
            assert (text is None) == (first + limit >= len(expected))
            if text is not None:
                cursors.append(LogCursor(text, on_page[-1][0]))
        return multiple(*cursors[:2])

    @rule(target=iterations, at=SERVICES, pair=handles, size=LIMITS, newest_first=st.booleans(), authors=AUTHORS)
    def begin_iteration(
        self, at: int, pair: Pair, size: int, newest_first: bool, authors: list[str] | None
    ) -> Iteration:
        """Begins to iterate over a log, which others write to, cut off or delete before it has come to the end."""
        key, service = pair.model.key, self.services[at]
        live = service.iter_events(*key, page_size=size, newest_first=newest_first, authors=authors)

        def model() -> Iterator[Event]:
            place: LogPlace | None = None
            while True:
                left = self.model.events(key, after=place, before=None, newest_first=newest_first, authors=authors)
                yield from (event for _, event in left[:size])
                if len(left) <= size:
                    return
                place, _ = left[size - 1]

        return Iteration(service, live, model())

    @rule(iteration=iterations, steps=st.integers(1, 4))
    def go_on_iterating(self, iteration: Iteration, steps: int) -> None:
        if iteration.service not in self.services:
            return
        for _ in range(steps):
            try:
                expected = next(iteration.model)
            except StopIteration:
                assert self.run(following(iteration.live)) is None
                return
            except (MissingError, OtherLogError) as refusal:
                self.refused(refusal, following(iteration.live))
                return
            assert self.run(following(iteration.live)) == expected

    @rule(
        at=SERVICES,
        app=APPS | st.none(),
        user=USERS | st.none(),
        session_id=names | st.none(),
        by=st.sampled_from(USAGE_BY),
        since=st.none() | timestamps,
        until=st.none() | timestamps,
    )
    def sum_up(
        self,
        *,
        at: int,
        app: str | None,
        user: str | None,
        session_id: str | None,
        by: UsageBy,
        since: float | None,
        until: float | None,
    ) -> None:
        found = self.run(
            self.services[at].usage(app_name=app, user_id=user, session_id=session_id, by=by, since=since, until=until)
        )
        wanted = None if session_id is None else session_id.strip()
        assert found == self.model.usage(app, user, wanted, by=by, since=since, until=until)


def compare_all(found: list[Session], expected: list[Session]) -> None:
    """Compares lists of sessions."""
    assert [session.id for session in found] == [session.id for session in expected]
    for one, other in zip(found, expected, strict=True):
        compare(one, other)


async def following(live: AsyncIterator[Event]) -> Event | None:
    """What an iterator gives next; None at its end."""
    return await anext(live, None)
