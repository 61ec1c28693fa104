"""A fake store: sessions and events in dicts under a lock, behind the protocols of :mod:`sessiondb.engine.store`.

There is no SQLite, so what a test shows with it is the engine's own. Each call is noted by its name, and calls the hook
of that name first, which may hold it up or raise.
"""

from __future__ import annotations

import copy
import json
import operator
import threading
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Self, TypeVar

from sessiondb.errors import StorageError
from sessiondb.model import commands, queries
from sessiondb.model.commands import DataCommand, advance_handle
from sessiondb.model.records import (
    EventRow,
    LogPage,
    Outcome,
    SessionHead,
    SessionKey,
    SessionSnapshot,
    SessionSummary,
    Status,
    StoreSize,
)

ResultT = TypeVar("ResultT")

_HARMLESS = (Status.DONE, Status.DUPLICATE)


class MemoryStore:
    """See :class:`sessiondb.engine.store.Store`. Stores of one name pass for the same; each keeps its own sessions."""

    system = "memory"
    reads_inline = True

    def __init__(self, name: str = "memory") -> None:
        self.name = self.label = name
        self.identity: Hashable = name
        self.hooks: dict[str, Callable[[], object]] = {}
        self.calls: list[str] = []
        self.batches: list[list[DataCommand]] = []
        self.refused: dict[str, StorageError] = {}  # what commands for a session of this id come to, each alone
        self.locked: set[SessionKey] = set()  # the sessions whose turn another process has
        self.idle_seconds: float | None = None
        self.lock = threading.RLock()
        self.heads: dict[SessionKey, SessionHead] = {}
        self.rows: defaultdict[SessionKey, list[EventRow]] = defaultdict(list)
        self.state: defaultdict[tuple[str, ...], dict[str, Any]] = defaultdict(dict)

    def note(self, call: str) -> None:
        self.calls.append(call)
        self.hooks.get(call, bool)()

    def writer(self) -> MemoryWriter:
        self.note("open writer")
        return MemoryWriter(self)

    def reader(self, timeout: float) -> MemoryReader:
        self.note("open reader" if timeout else "open inline reader")
        return MemoryReader(self)

    def turn_locks(self) -> MemoryTurnLocks:
        self.note("open turn locks")
        return MemoryTurnLocks(self)

    def file_bytes(self) -> int:
        return 0

    def close(self) -> None:
        self.note("close")

    def states(self, key: SessionKey) -> tuple[str, str, str]:
        session, user, app = (json.dumps(self.state[owner]) for owner in (key, key[:2], key[:1]))
        return session, user, app


class MemoryWriter:
    """See :class:`sessiondb.engine.store.Writer`."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    def commit(self, commands: Sequence[DataCommand]) -> Sequence[Outcome | StorageError]:
        self._store.batches.append(list(commands))
        self._store.note("commit")
        with self._store.lock:
            return [self._execute(command) for command in commands]

    def _execute(self, command: DataCommand) -> Outcome | StorageError:
        store = self._store
        if isinstance(
            command, commands.Flush | commands.PruneSessions | commands.DeleteUnchanged
        ):  # nothing here is old
            return Outcome(Status.DONE)
        key = command.key
        if key.session_id in store.refused:
            return store.refused[key.session_id]
        if isinstance(command, commands.ForkSession | commands.TrimLog):
            raise NotImplementedError("no test forks a session, or prunes one")
        if isinstance(command, commands.DeleteSession):
            for table in (store.heads, store.rows, store.state):
                table.pop(key, None)
            return Outcome(Status.DONE)
        if isinstance(command, commands.AppendEvents):
            return self._append_all(command)
        result = self._create(command) if isinstance(command, commands.CreateSession) else self._append(command)
        if isinstance(result, Outcome):
            return result
        store.heads[key] = result
        for owner, added, removed in zip((key, key[:2], key[:1]), command.delta[:3], command.delta[3:], strict=True):
            store.state[owner] |= {name: json.loads(value) for name, value in json.loads(added or "{}").items()}
            for name in json.loads(removed or "[]"):
                store.state[owner].pop(name, None)
        outcome = Outcome(Status.DONE, result.incarnation, result.revision, *store.states(key))
        advance_handle(command, outcome)
        return outcome

    def _append_all(self, command: commands.AppendEvents) -> Outcome | StorageError:
        store, handle = self._store, command.handle
        before = copy.deepcopy((store.heads, store.rows, store.state))
        seen = None if handle is None else (handle.incarnation, handle.revision)
        results = [self._execute(part) for part in command.parts]
        failures = (one for one in results if not isinstance(one, Outcome) or one.status not in _HARMLESS)
        if failure := next(failures, None):
            store.heads, store.rows, store.state = before
            if handle is not None and seen is not None:
                handle.incarnation, handle.revision = seen
            return failure
        outcomes = [one for one in results if isinstance(one, Outcome)]
        duplicates = tuple(n for n, one in enumerate(outcomes) if one.status is Status.DUPLICATE)
        if len(duplicates) == len(outcomes):
            return Outcome(Status.DUPLICATE)
        return max(one for one in outcomes if one.status is Status.DONE)._replace(duplicates=duplicates)

    def _create(self, command: commands.CreateSession) -> SessionHead | Outcome:
        if command.key in self._store.heads:
            return Outcome(Status.EXISTS)
        return SessionHead(len(self._store.batches), 0, 0, 0, command.time, "", "", "")

    def _append(self, command: commands.AppendEvent | commands.UpdateKeys) -> SessionHead | Outcome:
        head, event = self._store.heads.get(command.key), command.event
        if head is None:
            return Outcome(Status.MISSING)
        rows = self._store.rows[command.key]
        if any(row.event_id == event.event_id for row in rows):
            return Outcome(Status.DUPLICATE, head.incarnation, head.revision)
        if isinstance(command, commands.AppendEvent):
            if command.handle and (command.handle.incarnation, command.handle.revision) != (
                head.incarnation,
                head.revision,
            ):
                return Outcome(Status.STALE)
            head = head._replace(revision=head.revision + 1)
        rows.append(EventRow(len(rows) + 1, len(rows) + 1, head.revision, *event))
        return head._replace(last_seq=len(rows), update_time=event.time)

    def vacuum(self) -> None:
        self._store.note("vacuum")

    def idle_after(self) -> float | None:
        return self._store.idle_seconds

    def maintain(self, *, idle: bool) -> None:
        self._store.note("maintain idle" if idle else "maintain")

    def figures(self) -> dict[str, float]:
        return {}

    def close(self) -> None:
        self._store.note("close writer")

    def resume(self) -> None:
        self._store.note("resume writer")


class MemoryReader:
    """See :class:`sessiondb.engine.store.Reader`."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._known = len(store.batches)

    def ask(self, query: queries.Query[ResultT]) -> ResultT:
        self._store.note("ask")
        with self._store.lock:
            answer: ResultT = self._answer(query)
            return answer

    def _answer(self, query: queries.Query[Any]) -> Any:
        store = self._store
        match query:
            case queries.GetSession(key=key, part=part):
                return SessionSnapshot(self._head(key), self._rows(key, part)) if key in store.heads else None
            case queries.ListSessions():
                return iter(self._sessions(query))
            case queries.GetLogPage(key=key):
                return LogPage(store.heads[key].incarnation, self._page(query)) if key in store.heads else None
            case queries.CountEvents(key=key):
                return len(store.rows[key])
            case queries.GetUserState(app_name=app_name, user_id=user_id):
                return json.dumps(store.state[app_name, user_id])
            case queries.MeasureStore():
                events, keys = (sum(map(len, table.values())) for table in (store.rows, store.state))
                return StoreSize(len(store.heads), events, keys, 0, 0)
        raise NotImplementedError(f"no test asks a {type(query).__name__}")

    def _head(self, key: SessionKey) -> SessionHead:
        return SessionHead(*self._store.heads[key][:-3], *self._store.states(key))

    def _sessions(self, query: queries.ListSessions) -> list[SessionSummary]:
        """Those of all users, in the order of their update; of the selections only those that pages need."""
        places = {key: (head.update_time, key[1], key[2], key[0]) for key, head in self._store.heads.items()}
        order = sorted(places, key=lambda key: places[key], reverse=query.order == "newest")
        if query.after is not None:
            time, (app, user, session) = query.after
            behind = operator.lt if query.order == "newest" else operator.gt
            order = [key for key in order if behind(places[key], (time, user, session, app))]
        return [SessionSummary(key, "", "", self._head(key)) for key in order[: query.limit]]

    def _page(self, query: queries.GetLogPage) -> list[EventRow]:
        rows = self._store.rows[query.key][:: -1 if query.newest_first else 1]
        ends = [None if place is None else place.seq for place in (query.after, query.before)]
        after, before = reversed(ends) if query.newest_first else ends
        rows = [row for row in rows if (after is None or row.seq > after) and (before is None or row.seq < before)]
        return [row for row in rows if query.authors is None or row.author in query.authors][: query.limit]

    def _rows(self, key: SessionKey, part: queries.Slice) -> list[EventRow]:
        rows, incarnation = self._store.rows[key], self._store.heads[key].incarnation
        match part:
            case queries.After(position, limit):
                return rows[position.seq if position[:2] == (incarnation, 0) else 0 :][:limit]
            case queries.Last(limit):
                return rows[-limit:] if limit else []
            case queries.Since(time):
                return [row for row in rows if row.time >= time]

    def snapshot(self) -> AbstractContextManager[Any]:
        return self._store.lock

    def changed(self) -> bool:
        known, self._known = self._known, len(self._store.batches)
        return known != self._known

    def close(self) -> None:
        self._store.note("close reader")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class MemoryTurnLocks:
    """See :class:`sessiondb.engine.store.TurnLocks`. A lock is refused for as long as the store says in ``locked``."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    def try_take(self, key: SessionKey) -> bool:
        self._store.note("try turn lock")
        return key not in self._store.locked

    def give_up(self, key: SessionKey) -> None:
        self._store.note("give up turn lock")

    def abandon(self) -> None:
        self._store.note("abandon turn locks")

    def close(self) -> None:
        self._store.note("close turn locks")
