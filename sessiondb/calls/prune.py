"""One prune: what is more than is to be kept is archived, and deleted in small parts beside whoever writes.

Each part is a command of its own, which says what it has seen, and does nothing if that has changed. After each of them every
session is as it should be. So it does not matter where a prune ends: the next one goes on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from sessiondb.adk.cutting import CutPlaces, find_places
from sessiondb.adk.events import timestamp_text
from sessiondb.adk.past import own_states
from sessiondb.adk.state import encode_delta
from sessiondb.calls.archive import Archive
from sessiondb.calls.lines import lines_of, session_lines
from sessiondb.engine.store import Reader
from sessiondb.errors import CorruptRowError
from sessiondb.logger import logger
from sessiondb.model.commands import DeleteUnchanged, TrimLog, WriteCommand
from sessiondb.model.queries import NO_EVENTS, FindSurplus, GetBeginning, GetSession, ListMarks, ListOwnChanges
from sessiondb.model.records import (
    NO_CUT,
    Limits,
    LoggedChange,
    LogMark,
    Outcome,
    PruneReport,
    Selection,
    SessionHead,
    SessionKey,
    SessionSummary,
    Status,
)
from sessiondb.retention import Retention, seconds_of

SESSIONS_AT_ONCE = 1000
"""As many are looked up at once, and are in one archive, at most."""

EVENTS_AT_ONCE = 200
"""As many are deleted by one command, where logs may be cut so: that takes a few milliseconds."""

_MARKS_AT_ONCE = 2000
"""Events of a log that are looked at by one query, at most."""

_STATES_AT_ONCE = 10
"""States after so many parts are in memory at a time."""

_AT_A_STRETCH = 32
_BREATH = 0.0005
"""So many rows of a log are looked at until others have the interpreter for so many seconds."""

ItemT = TypeVar("ItemT")


class _Cut(NamedTuple):
    """What is to go of a log."""

    session: SessionSummary
    parts: tuple[_Part, ...]
    time: float
    """When the last event is that goes."""

    @property
    def events(self) -> int:
        return sum(part.events for part in self.parts)


class _Part(NamedTuple):
    """Events that go at once."""

    seq: int
    """The number of the last of them."""
    events: int


class _Plan(NamedTuple):
    """What is to be done with some sessions."""

    doomed: list[SessionSummary]
    cuts: list[_Cut]
    next: SessionKey | None
    """Behind which session others come; None if there are no others."""


@dataclass(slots=True)
class _Counts:
    """As in :class:`~sessiondb.PruneReport`."""

    sessions: int = 0
    trimmed: int = 0
    events: int = 0
    in_use: int = 0
    uncut: int = 0
    unreadable: int = 0


class Prune:
    """One prune of a database, on one thread."""

    def __init__(
        self,
        reader: Reader,
        write: Callable[[WriteCommand], Any] | None,
        retention: Retention,
        selection: Selection,
        now: float,
    ) -> None:
        """Prepares it.

        Args:
            reader: The database, for this prune alone.
            write: Executes a command, and returns its outcome; None: only to count.
            retention: What is to be kept.
            selection: Among which sessions.
            now: The moment from which durations are counted back, in seconds since the epoch.
        """
        self._reader = reader
        self._write = write
        self._archive = None if retention.archive is None or write is None else Path(retention.archive)
        self._selection = selection
        self._limits = Limits(
            None if retention.idle is None else now - seconds_of(retention.idle),
            None if retention.age is None else timestamp_text(max(now - seconds_of(retention.age), 0.0)),
            retention.max_sessions_per_user,
            retention.max_events,
        )
        self._counts = _Counts()
        self._archives: list[Path] = []

    def run(self, goes_on: Callable[[], bool]) -> PruneReport | None:
        """Prunes; None if ``goes_on`` has said no. What was deleted by then is gone."""
        started = time.monotonic()
        after: SessionKey | None = None
        while True:
            # In no snapshot: what is deleted is what was seen, or nothing. And a reader that is long at one moment keeps the
            # write-ahead log from starting anew, and writers waiting.
            plan = self._plan(after)
            if self._archive is not None and (plan.doomed or plan.cuts):
                plan = self._archived(plan, self._archive, goes_on)
            if self._write is None:
                self._count(plan)
            else:
                for _ in self._carry_out(plan, self._write):
                    if not goes_on():
                        return None
            if not goes_on():
                return None
            after = plan.next
            if after is None:
                break
        counts = self._counts
        return PruneReport(
            *(counts.sessions, counts.trimmed, counts.events, counts.in_use, counts.uncut, counts.unreadable),
            archives=tuple(self._archives),
            seconds=time.monotonic() - started,
            dry_run=self._write is None,
        )

    def _plan(self, after: SessionKey | None) -> _Plan:
        """Finds out what is to be done."""
        found = self._reader.ask(FindSurplus(self._selection, self._limits, after, SESSIONS_AT_ONCE))
        doomed = [session for session, is_doomed in found if is_doomed]
        cuts = [cut for session, is_doomed in found if not is_doomed and (cut := self._cut(session)) is not None]
        return _Plan(doomed, cuts, found[-1].session.key if len(found) == SESSIONS_AT_ONCE else None)

    def _cut(self, session: SessionSummary) -> _Cut | None:
        """Returns what is to go of a log; None if nothing is."""
        found = self._places(session)
        surplus = len(found.seqs) - (self._limits.max_events or 0)
        if surplus <= 0:
            return None
        places = [place for place in found.places if place <= surplus]
        if not places:
            self._counts.uncut += 1
            return None
        return _Cut(session, _parts(found.seqs, places), found.times[places[-1] - 1])

    def _places(self, session: SessionSummary) -> CutPlaces:
        """Finds out where a log may be cut."""
        beginning = self._reader.ask(GetBeginning(session.key))
        _, revision, _ = NO_CUT if beginning is None else beginning.cut or NO_CUT
        return find_places(_gently(self._marks(session.key)), revision)

    def _marks(self, key: SessionKey) -> Iterator[LogMark]:
        """Reads a log page by page."""
        last: LogMark | None = None
        while True:
            page = self._reader.ask(ListMarks(key, last, _MARKS_AT_ONCE))
            yield from page
            if len(page) < _MARKS_AT_ONCE:
                return
            last = page[-1]

    def _archived(self, plan: _Plan, folder: Path, goes_on: Callable[[], bool]) -> _Plan:
        """Writes what is to go to a file, and returns what can go: all that could be read."""
        doomed: list[SessionSummary] = []
        cuts: list[_Cut] = []
        with Archive(folder) as archive:
            for session in plan.doomed:
                if not goes_on():
                    return _Plan([], [], None)
                if self._added(archive, session, session_lines(self._reader, session)):
                    doomed.append(session)
            for cut in plan.cuts:
                if not goes_on():
                    return _Plan([], [], None)
                if self._cut_added(archive, cut):
                    cuts.append(cut)
            path = archive.finish()
        if path is not None:
            self._archives.append(path)
        return _Plan(doomed, cuts, plan.next)

    def _added(self, archive: Archive, session: SessionSummary, lines: Iterable[str]) -> bool:
        try:
            with self._reader.snapshot():
                archive.add(_gently(lines))
        except CorruptRowError as error:
            self._note_unreadable(session, error)
            return False
        return True

    def _cut_added(self, archive: Archive, cut: _Cut) -> bool:
        with self._reader.snapshot():
            try:
                states = self._own_states(cut.session, [cut.parts[-1].seq])
            except CorruptRowError as error:
                self._note_unreadable(cut.session, error)
                return False
            if states is None:
                self._counts.in_use += 1
                return False
            lines = lines_of(self._reader, cut.session, cut.time, states[0] or {}, cut.events)
            return self._added(archive, cut.session, lines)

    def _count(self, plan: _Plan) -> None:
        self._counts.sessions += len(plan.doomed)
        self._counts.trimmed += len(plan.cuts)
        self._counts.events += sum(session.events for session in plan.doomed) + sum(cut.events for cut in plan.cuts)

    def _carry_out(self, plan: _Plan, write: Callable[[WriteCommand], Any]) -> Iterator[None]:
        """Deletes; yields after each part."""
        together: list[SessionSummary] = []
        for doomed in plan.doomed:
            session: SessionSummary | None = doomed
            if doomed.events > EVENTS_AT_ONCE:
                session = yield from self._shorten(doomed, write)
            if session is None:
                continue
            if together and sum(each.events + 1 for each in (*together, session)) > EVENTS_AT_ONCE:
                self._delete(together, write)
                together = []
                yield
            together.append(session)
        if together:
            self._delete(together, write)
            yield
        for cut in plan.cuts:
            if (yield from self._trim(cut.session, cut.parts, write)) is not None:
                self._counts.trimmed += 1

    def _shorten(
        self, session: SessionSummary, write: Callable[[WriteCommand], Any]
    ) -> Generator[None, None, SessionSummary | None]:
        """Deletes most of a log that is too long to be deleted at once, before the session itself is."""
        found = self._places(session)
        if not found.places:
            return session
        parts = _parts(found.seqs, found.places)
        return (yield from self._trim(session, parts, write, last_seq=session.head.last_seq))

    def _trim(
        self,
        session: SessionSummary,
        parts: tuple[_Part, ...],
        write: Callable[[WriteCommand], Any],
        last_seq: int | None = None,
    ) -> Generator[None, None, SessionSummary | None]:
        """Cuts a log, part by part; returns the session as it is then, None if it has been changed."""
        states: list[dict[str, Any] | None] | None = None
        for n, part in enumerate(parts):
            if n % _STATES_AT_ONCE == 0:
                try:
                    with self._reader.snapshot():
                        states = self._own_states(session, [each.seq for each in parts[n : n + _STATES_AT_ONCE]])
                except CorruptRowError as error:
                    self._note_unreadable(session, error)
                    return None
            state = None if states is None else states[n % _STATES_AT_ONCE]
            initial_state = None if state is None else encode_delta(state, keep_none=True).json
            head = session.head
            command = TrimLog(session.key, head.incarnation, head.log_epoch, part.seq, initial_state, last_seq)
            if states is None or write(command).status is not Status.DONE:
                self._counts.in_use += 1
                return None
            session = session._replace(head=head._replace(log_epoch=head.log_epoch + 1), cut_seq=part.seq)
            self._counts.events += part.events
            yield
        return session

    def _own_states(self, session: SessionSummary, seqs: list[int]) -> list[dict[str, Any] | None] | None:
        """Reads the session's own state after some events; None if the session has been changed. Within a snapshot."""
        key = session.key
        found = self._reader.ask(GetSession(key, NO_EVENTS))
        beginning = self._reader.ask(GetBeginning(key))
        if found is None or beginning is None or _log_of(found.head) != _log_of(session.head):
            return None

        def changes() -> Iterator[LoggedChange]:
            return _gently(self._reader.ask(ListOwnChanges(key)))

        return list(own_states(key, found.head.session_state, beginning.initial_state, changes, seqs))

    def _delete(self, sessions: list[SessionSummary], write: Callable[[WriteCommand], Any]) -> None:
        outcome: Outcome = write(DeleteUnchanged(tuple(sessions)))
        self._counts.sessions += len(outcome.pruned)
        self._counts.events += sum(session.events for session in outcome.pruned)
        self._counts.in_use += len(sessions) - len(outcome.pruned)

    def _note_unreadable(self, session: SessionSummary, error: CorruptRowError) -> None:
        self._counts.unreadable += 1
        logger.warning(
            "prune_unreadable", app_name=session.key.app_name, session_id=session.key.session_id, hint=str(error)
        )


def _gently(items: Iterable[ItemT]) -> Iterator[ItemT]:
    """Passes on what takes Python some time each, and lets other threads have the interpreter now and then.

    Without that it would be handed on every 5 ms, and an append needs it several times.
    """
    pause = threading.Event()
    for n, item in enumerate(items, 1):
        yield item
        if n % _AT_A_STRETCH == 0:
            pause.wait(_BREATH)


def _log_of(head: SessionHead) -> tuple[int, int]:
    return head.incarnation, head.log_epoch


def _parts(seqs: list[int], places: list[int]) -> tuple[_Part, ...]:
    """Divides what goes, up to the last of these places, into parts: each as large as may be, or as it must be."""
    parts: list[_Part] = []
    begun = 0
    for place, following in zip(places, [*places[1:], None], strict=True):
        if following is None or following - begun > EVENTS_AT_ONCE:
            parts.append(_Part(seqs[place - 1], place - begun))
            begun = place
    return tuple(parts)
