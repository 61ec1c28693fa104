"""A fake store: sessions and events in dicts under a lock, behind the protocols of :mod:`sessiondb.engine.store`.

There is no SQLite, so what a test shows with it is the engine's own. Each call is noted by its name, and calls the hook
of that name first, which may hold it up or raise.
"""

from __future__ import annotations

import json
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
    Outcome,
    SessionHead,
    SessionKey,
    SessionSnapshot,
    SessionSummary,
    Status,
    StoreSize,
)

ResultT = TypeVar("ResultT")


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
        if isinstance(command, commands.Flush | commands.PruneSessions):  # nothing here is old
            return Outcome(Status.DONE)
        key = command.key
        if key.session_id in store.refused:
            return store.refused[key.session_id]
        if isinstance(command, commands.ForkSession):
            raise NotImplementedError("no test forks a session")
        if isinstance(command, commands.DeleteSession):
            for table in (store.heads, store.rows, store.state):
                table.pop(key, None)
            return Outcome(Status.DONE)
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
            case queries.ListSessions():  # those of all users, in the order of their creation
                return iter([SessionSummary(key, "", "", self._head(key)) for key in store.heads])
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
