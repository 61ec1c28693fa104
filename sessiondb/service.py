"""ADK's session contract: checks and encodes what comes in, asks the engine, and makes Sessions of the answers."""

from __future__ import annotations

import copy
import functools
import os
import warnings
import weakref
from collections.abc import Mapping
from types import TracebackType
from typing import Any, NoReturn, Self

from google.adk.events import Event, EventActions
from google.adk.platform import time as platform_time
from google.adk.platform import uuid as platform_uuid
from google.adk.sessions import BaseSessionService, Session
from google.adk.sessions.base_session_service import GetSessionConfig

from sessiondb import stores, telemetry
from sessiondb.adk.before_store import BeforeStore, stored_instead
from sessiondb.adk.cached import form_of
from sessiondb.adk.events import EncodedEvent, encode_event, is_aside, timestamp_text
from sessiondb.adk.limits import check_key, check_text
from sessiondb.adk.past import creation_time
from sessiondb.adk.sessions import build_session, decode_scope, handle_of
from sessiondb.adk.state import EncodedDelta, checked_state, encode_delta
from sessiondb.calls.appends import Appends
from sessiondb.calls.base import stripped
from sessiondb.calls.edits import Edits
from sessiondb.calls.erasure import Erasure
from sessiondb.calls.live import apply_event, check_appended, check_event, check_present, check_session, note_revision
from sessiondb.calls.maintenance import Maintenance
from sessiondb.calls.pages import Pages
from sessiondb.calls.past import Past
from sessiondb.calls.pruning import Pruning, prune_in_background
from sessiondb.calls.search import Search
from sessiondb.calls.usage import Usage
from sessiondb.engine import sharing
from sessiondb.engine.cache import LogCache
from sessiondb.engine.engine import Engine
from sessiondb.engine.queue import WriteTicket
from sessiondb.engine.reading import EVERY_EVENT, LogHasGrownError, LogReader, ReadPlan, Wanted
from sessiondb.engine.repeating import Repeated
from sessiondb.engine.turns import Turn
from sessiondb.errors import (
    AlreadyExistsError,
    NotPicklableError,
    ServiceClosedError,
    SessionNotFoundError,
)
from sessiondb.location import Password, ServerLocation, followed, resolve_location
from sessiondb.model.commands import AppendEvent, CreateSession, DeleteSession, UpdateKeys
from sessiondb.model.queries import GetUserState
from sessiondb.model.records import (
    EventRecord,
    Outcome,
    SessionKey,
    SessionSnapshot,
    StateDelta,
    Status,
)
from sessiondb.options import (
    CacheMode,
    Durability,
    Index,
    NoneInDelta,
    OnStale,
    ServiceOptions,
    StoreOptions,
    check_wait,
    known_to_registry,
)
from sessiondb.retention import Retention, seconds_of


class DatabaseSessionService(
    Pages, Appends, Past, Search, Edits, Maintenance, Pruning, Erasure, Usage, BaseSessionService
):
    """Keeps every session, event and state key of ADK agents in one SQLite file, or on a PostgreSQL server.

    A drop-in for ADK's ``InMemorySessionService``. A write is answered when it is on disk; writes of concurrent
    conversations are committed together. One service may be used from any number of event loops and threads, and
    several services and processes may share a file. Sessions are live objects of one conversation each: an append
    through a Session that another handle has overtaken is refused (see ``on_stale``).

    ``copy.copy`` and ``copy.deepcopy`` give a service of its own on the same file, also on one in memory, with the same
    options; each is closed by itself. To pickle a service is refused with :class:`~sessiondb.errors.NotPicklableError`.

    Every call but ``close`` raises :class:`~sessiondb.errors.ServiceClosedError` once the service is closed, and some
    other :class:`~sessiondb.errors.SessionDBError` when it cannot be executed.
    """

    @known_to_registry
    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        uri: str | None = None,
        agents_dir: str | None = None,
        durability: Durability = "full",
        readers: int = 4,
        max_queue: int = 10_000,
        max_batch: int = 256,
        busy_timeout: float = 30.0,
        on_stale: OnStale = "reject",
        log_cache: CacheMode = "copy",
        log_cache_bytes: int = 256 * 1024 * 1024,
        follow_symlinks: bool = False,
        none_in_delta: NoneInDelta = "delete",
        before_store: BeforeStore | None = None,
        retention: Retention | None = None,
        index: Index | None = None,
        schema: str | None = None,
        password: Password = None,
        transaction_pooling: bool = False,
    ) -> None:
        """Opens the database. What is missing is created: a file and its folders, private to the user, or tables on a server.

        Args:
            path: The file: a path, a ``sqlite:///relative``, ``sqlite:////absolute`` or ``sessiondb:///...`` URL, or
                ``":memory:"``. ``~`` or ``~user`` at the start of a path is a home folder. Or a server:
                ``postgresql://user@host/database``, as libpq takes it, with several hosts or options; it needs the extra
                ``sessiondb[postgres]``. Without a path: ``$SESSIONDB_PATH``, else ``.adk/adk.sqlite3`` under the
                working directory.
            uri: The same, as ADK's service registry passes it. With it, an argument that is not known is a
                ConfigurationError, as other options are that cannot be used.
            agents_dir: Passed by ADK's service registry; has no effect.
            durability: ``"full"`` answers a write when it is synced to disk; ``"normal"`` accepts that a power cut
                loses the last moments. A crash of the process loses nothing either way.
            readers: How many reads are served at the same time, at most.
            max_queue: How many writes may be queued; further callers wait.
            max_batch: How many writes one transaction takes, at most.
            busy_timeout: How long a call waits for something contended, in seconds: a place in the queue, a reader,
                or the lock that another program holds on the file.
            on_stale: ``"reject"`` refuses an append through a Session that another handle has overtaken;
                ``"append"`` takes it, as the in-memory service does.
            log_cache: ``"copy"`` gives each reader events of its own, made of a cached form of the log. ``"shallow"``
                copies the cached events, but not what nests in them: who edits that edits it for all readers.
                ``"share"`` gives the cached objects themselves, ``"off"`` decodes the log each time.
            log_cache_bytes: About how much memory the cache of logs may take.
            follow_symlinks: Whether ``path`` may be a symbolic link. It is followed once, here: a link that is changed
                later leads this service nowhere else.
            none_in_delta: What None does in a state delta and in ``update_keys``, and what becomes null in JSON, such as
                NaN: ``"delete"`` deletes the key, ``"store"`` keeps None as its value, as ADK's own services do.
            before_store: Called with a copy of each event before it is stored, by ``append_event`` and ``update_keys``,
                once, on the caller's thread. It returns what is stored: that event with less in it, say, or None to store
                only its id, invocation, author and time. State gets what the delta of the returned event says, none if
                that is None. The live Session keeps the original until it is read again. What it raises refuses the
                call, and nothing is written. Of the same event it must make the same each time, or one that is delivered
                again is stored again. The state that a session is created with is no event.
            retention: What is kept; whatever is more is pruned in the background, see :meth:`prune`, from seconds after the
                start on, and again every ``retention.every``. What fails is told in the host's log.
            index: ``"text"`` keeps an index of what was said, for :meth:`search`; it is made where it is missing, in the
                background if there are events already. None makes none. One that is there is kept up to date by every service
                and program that writes, until ``sessiondb index --drop`` removes it. Services of one process need not agree on it.
            schema: For a server: the schema of the tables, created where it is missing; ``"public"`` if not given.
            password: For a server: the password, or what is called for one at each connect, on a thread of its own; it
                appears in no message. None: what the URL says, or libpq finds.
            transaction_pooling: For a server: whether a pooler in transaction mode, such as pgbouncer, stands in front of
                it. Nothing is prepared or set on connections then.

        Raises:
            ConfigurationError: If an option or the path cannot be used.
            StorageError: If the file cannot be opened, is damaged, or is not a database of sessiondb.
        """
        del agents_dir
        store_options = StoreOptions(durability, readers, max_queue, max_batch, busy_timeout, index)
        self._options = ServiceOptions(
            on_stale, log_cache, log_cache_bytes, follow_symlinks, none_in_delta, before_store, retention
        )
        location = resolve_location(
            path, uri, schema=schema, password=password, transaction_pooling=transaction_pooling
        )
        if location is not None and not isinstance(location, ServerLocation) and follow_symlinks:
            location = followed(location)
        self._start(sharing.share(lambda: stores.open_store(location, store_options), store_options))

    def _start(self, engine: Engine) -> None:
        """Begins with a share of an engine, which this service gives back in the end."""
        self._shared = engine
        self._closed = False
        cache = None if self._options.log_cache == "off" else LogCache(self._options.log_cache_bytes)
        self._logs = LogReader(form_of(self._options.log_cache), cache)
        engine.note_logs(self._logs)
        telemetry.service_opened(self, self._shared.store, cache)
        retention = self._options.retention
        self._pruner: Repeated | None = None
        if retention is not None:
            job = functools.partial(prune_in_background, engine, retention)
            self._pruner = engine.repeat(job, seconds_of(retention.every), "prune")
        # A service that is dropped without close() gives up its file all the same.
        self._finalizer = weakref.finalize(self, _abandoned, self._shared, self._pruner, repr(self))
        self._finalizer.atexit = False

    def __copy__(self) -> Self:
        twin = type(self).__new__(type(self))
        vars(twin).update(vars(self))
        twin._start(sharing.share_again(self._engine))  # noqa: SLF001  # of the same class
        return twin

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        engine = self._engine
        twin = memo[id(self)] = type(self).__new__(type(self))
        # What a subclass has added is copied in depth; these are the twin's own in a moment.
        own = (self._shared, self._logs, self._finalizer, self._options, self._pruner)
        memo |= {id(part): part for part in own}
        vars(twin).update(copy.deepcopy(vars(self), memo))
        twin._start(sharing.share_again(engine))  # noqa: SLF001  # of the same class
        return twin

    def __reduce__(self) -> NoReturn:
        raise NotPicklableError(
            f"a {type(self).__name__} cannot be pickled: it is threads, locks and an open file. Pass on its path and options,"
            " and construct a service with them where they arrive; a forked process may use the service that it inherits"
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._shared.store.name!r}{' closed' if self._closed else ''}>"

    @property
    def _engine(self) -> Engine:
        if self._closed:
            raise ServiceClosedError("the session service is closed")
        return self._shared

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    @telemetry.operation
    async def create_session(
        self,
        app_name: str,
        user_id: str,
        session_id: str | None = None,
        state: dict[str, Any] | None = None,
    ) -> Session:
        """Creates a session.

        Args:
            app_name: The app it belongs to.
            user_id: The user it belongs to.
            session_id: Its id, stripped of white space around it; generated if blank or None.
            state: The state it starts with. ``app:`` and ``user:`` keys go to the app and the user, ``temp:`` keys are
                dropped. A key may hold None.

        Returns:
            The session, with the state of its app and user merged in.

        Raises:
            AlreadyExistsError: If the user has a session of this id.
            InvalidInputError: If an id, key or value cannot be stored.
        """
        session_id = (stripped(session_id) if session_id else "") or platform_uuid.new_uuid()
        key = check_key(app_name, user_id, session_id)
        delta = encode_delta(checked_state(state), keep_none=True)
        time = creation_time(platform_time.get_time())
        command = CreateSession(key, time, timestamp_text(time), delta.stored, delta.json)
        outcome: Outcome = await self._engine.write(command)
        if outcome.status is Status.EXISTS:
            raise AlreadyExistsError(f"Session with id {session_id} already exists.")
        self._logs.note_created(key, outcome.incarnation)
        return build_session(key, outcome, [], time)

    @telemetry.operation
    async def get_session(
        self,
        app_name: str,
        user_id: str,
        session_id: str,
        config: GetSessionConfig | None = None,
    ) -> Session | None:
        """Reads a session: its events in the order in which they were appended, and the state of all scopes merged.

        The session, its state and its events are of one moment, and no write that was answered before is missing.

        Args:
            app_name: The app it belongs to.
            user_id: The user it belongs to.
            session_id: Its id, stripped of white space around it.
            config: ``num_recent_events`` keeps the newest events only (0: none); of those, ``after_timestamp`` keeps
                the ones at or after a moment.

        Returns:
            The session, or None if there is none.

        Raises:
            CorruptRowError: If a row of this session cannot be read.
        """
        key = check_key(app_name, user_id, stripped(session_id))
        plan = self._logs.plan(key, _wanted_by(config))
        if plan.tiny:
            try:
                found = self._engine.read_inline(plan.query, functools.partial(self._session_of, plan))
            except LogHasGrownError:
                found = None
            if found is not None:
                return found[0]
            plan = plan.for_a_thread()
        return await self._engine.read(plan.query, functools.partial(self._session_of, plan))

    def _session_of(self, plan: ReadPlan, snapshot: SessionSnapshot | None, *, later: bool = False) -> Session | None:
        events = self._logs.events(plan, snapshot, later=later)
        if snapshot is None:
            return None
        return build_session(plan.query.key, snapshot.head, events, snapshot.head.update_time)

    @telemetry.operation
    async def delete_session(self, app_name: str, user_id: str, session_id: str) -> None:
        """Deletes a session with its events and its own state; does nothing if there is none.

        The state of its app and user stays.
        """
        key = check_key(app_name, user_id, stripped(session_id))
        await self._engine.write(DeleteSession(key))
        self._logs.note_deleted(key)

    def _encode(self, event: Event, delta: EncodedDelta) -> tuple[EncodedEvent, EventRecord, StateDelta]:
        """Encodes an event as its Session has it; and what of it is stored, with the changes of state that this makes."""
        hook = self._options.before_store
        # What is too large to be stored may be what the hook takes out.
        encoded = encode_event(event, delta, of_any_size=hook is not None)
        if hook is None:
            return encoded, encoded.record, delta.stored
        return encoded, *stored_instead(hook, encoded.record, keep_none=self._keeps_none)

    @telemetry.operation
    async def append_event(self, session: Session, event: Event) -> Event:
        """Appends an event to a conversation, and applies its state delta.

        The call returns when the event is on disk and ``session`` holds it; both have the values then that a reader
        gets. Iterators in the event are read once, when the call begins, and lists take their places. None in the delta
        deletes a key (see ``none_in_delta``); ``temp:`` keys go to ``session`` only and are taken out of the event. An
        event that is in the log already, equal in all fields, changes nothing. A partial event is returned as it is.

        Two kinds of event are not of the conversation, and are stored whatever other handles have done, who stay valid:
        a change of state from outside, as ADK's server makes it (of the author ``user``, with nothing but a state
        delta; see :meth:`update_keys`), and the summary of ADK's compaction.

        A cancelled call leaves nothing open: either nothing was written and ``session`` is as before, or the event is
        on disk and in ``session``.

        Raises:
            SessionNotFoundError: If the session does not exist.
            StaleSessionError: If another handle has appended since ``session`` was read: read it again. Or if it is from
                :meth:`get_session_at`.
            InvalidInputError: If the event cannot be stored.
        """
        check_session(session)
        check_event(event)
        if event.partial:
            return event
        key = check_key(session.app_name, session.user_id, session.id)
        check_present(session)
        delta = encode_delta(checked_state(event.actions.state_delta), keep_none=self._keeps_none)
        encoded, record, changes = self._encode(event, delta)

        engine = self._engine
        in_flight = engine.handles.take(session, handle_of)
        handle = None if self._options.on_stale == "append" else in_flight.handle
        command: AppendEvent | UpdateKeys = AppendEvent(key, record, changes, handle)
        # A Session without a marker is known by its last event, which this one is going to be.
        if is_aside(event, encoded.record, delta) and handle_of(session).incarnation is not None:
            command = UpdateKeys(key, record, changes)

        def update_session(ticket: WriteTicket) -> None:
            outcome: Outcome | None = ticket.outcome
            if outcome is None or outcome.status is not Status.DONE:
                return
            apply_event(session, event, encoded, delta)
            if type(command) is AppendEvent:
                note_revision(session, handle, outcome)

        try:
            outcome: Outcome = await engine.write(command, update_session, in_flight)
        finally:
            engine.handles.give_back(session)
        check_appended(session, outcome.status)
        return event

    @telemetry.operation
    async def update_keys(self, app_name: str, user_id: str, session_id: str, delta: Mapping[str, Any]) -> None:
        """Changes state from outside any conversation.

        The change is recorded as an event of the log, merges by key, and leaves open handles valid, so a run in
        progress goes on. None deletes a key (see ``none_in_delta``); ``temp:`` keys are not stored.

        Raises:
            SessionNotFoundError: If the session does not exist.
            InvalidInputError: If a key or value cannot be stored.
        """
        key = check_key(app_name, user_id, stripped(session_id))
        changed = encode_delta(checked_state(delta), keep_none=self._keeps_none)
        event = Event(
            # ADK's own state updates from outside a run carry the user as author: any other name is taken for an
            # agent that has left.
            invocation_id=f"update-{platform_uuid.new_uuid()}",
            author="user",
            actions=EventActions(state_delta=changed.event_delta),
        )
        _, record, changes = self._encode(event, changed)
        outcome: Outcome = await self._engine.write(UpdateKeys(key, record, changes))
        if outcome.status is Status.MISSING:
            raise SessionNotFoundError(f"Session {key.session_id} not found.")

    def turn(self, app_name: str, user_id: str, session_id: str, *, wait: float = 60.0) -> Turn:
        """Makes the runs of a session take turns: what is done within has the session to itself.

        ::

            async with service.turn(app_name, user_id, session_id):
                session = await service.get_session(app_name, user_id, session_id)
                ...

        Of all tasks, threads and processes that use the file, one at a time is within; the others wait, in the order in
        which they came, and processes take turns among each other. Nothing is enforced: an append without a turn is
        taken as always. Read the session within. See :class:`~sessiondb.Turn` for what counts as the same turn.

        Args:
            app_name: The app it belongs to.
            user_id: The user it belongs to.
            session_id: Its id, stripped of white space around it. There need not be such a session.
            wait: For how many seconds to wait, at most; 0 takes the turn now or never.

        Returns:
            The turn, for ``async with``. Entering it raises :class:`~sessiondb.errors.TurnTimeoutError` if it did not come
            in time, :class:`~sessiondb.errors.ServiceClosedError` if the service is closed, also while it waits, and
            :class:`~sessiondb.errors.StorageError` if the file of locks beside the database cannot be used. A
            cancellation gives the place in the line back.

        Raises:
            ConfigurationError: If ``wait`` is not a number of seconds.
            InvalidInputError: If an id cannot be one.
        """
        check_wait(wait)
        key = check_key(app_name, user_id, stripped(session_id))
        return Turn(self._engine.turns, key, wait, self, lambda: self._engine)

    @telemetry.operation
    async def get_user_state(self, app_name: str, user_id: str) -> dict[str, Any]:
        """Returns what is stored for a user of an app, keys without ``user:``; ``{}`` if nothing is."""
        query = GetUserState(check_text("app_name", app_name), check_text("user_id", user_id))
        decode = functools.partial(decode_scope, SessionKey(app_name, user_id, ""))
        found = self._engine.read_inline(query, decode)
        return found[0] if found is not None else await self._engine.read(query, decode)

    async def close(self) -> None:
        """Commits what is queued, ends the threads and closes the file; further calls raise ServiceClosedError.

        Idempotent. A cancelled call finishes closing first. A file that other services of the process share stays
        open for them.
        """
        self._closed = True
        self._shared.turns.refuse(self)
        first = self._finalizer.detach() is not None
        try:
            if self._pruner is not None:
                self._shared.forget(self._pruner)
                await self._pruner.end()
        finally:
            await sharing.give_back(self._shared, first=first)


def _wanted_by(config: GetSessionConfig | None) -> Wanted:
    if config is None:
        return EVERY_EVENT
    return Wanted(config.num_recent_events, config.after_timestamp)


def _abandoned(engine: Engine, pruner: Repeated | None, name: str) -> None:
    if pruner is not None:
        # No more than that: the garbage collector may have come while this thread has the engine's lock.
        pruner.stop()
    # First, since the host may have made an error of the warning.
    sharing.give_back_in_background(engine)
    warnings.warn(
        f"{name} was never closed; use `async with` or `await service.close()`", ResourceWarning, stacklevel=2
    )
