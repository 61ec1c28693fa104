"""Whole databases from ADK's own session services to sessiondb, and back.

A source is only read. A session is carried completely or not at all, so a migration that was interrupted is resumed by
starting it again. In the end source and target are compared, session by session and event by event.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby, pairwise, zip_longest
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar
from urllib.parse import quote

from google.adk.events import Event
from google.adk.sessions import InMemorySessionService
from pydantic import ValidationError
from typing_extensions import override

from sessiondb.adk import scopes
from sessiondb.adk.events import decode_event, encode_event, timestamp_text
from sessiondb.adk.fast_decode import event_validator
from sessiondb.adk.limits import check_key, check_text
from sessiondb.errors import ConfigurationError, CorruptRowError, InvalidInputError, MigrationError
from sessiondb.model.records import EventRow, SessionKey
from sessiondb.stores.sqlite.browsing import Browser, Selection
from sessiondb.stores.sqlite.bulk_import import Loader, NewEvent, NewSession
from sessiondb.transfer.adk_files import AdkEvent, AdkFile, AdkFileWriter, AdkSession, Layout
from sessiondb.transfer.jsonl import decode_values, encode_state, now_text

ItemT = TypeVar("ItemT")

Advance = Callable[[int], object]
"""Told how many sessions were carried, or compared, since it was last told."""


@dataclass(slots=True)
class MigrationReport:
    """What a migration did.

    Attributes:
        sessions: Sessions that were carried.
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


class _SourceSession(NamedTuple):
    key: SessionKey
    create_time: float
    update_time: float
    state: dict[str, Any] | None
    """None if it is not a JSON object."""


_ScopeState: TypeAlias = tuple[str, str | None, dict[str, Any] | None]
"""An app, a user or None, and the state of that user, or of the app; None if that is not a JSON object."""


class _Place(Protocol):
    """Where sessions are: read in the same way wherever that is.

    Sessions come in the order of their keys; states too, those of apps first.
    """

    def snapshot(self) -> AbstractContextManager[None]: ...

    def sessions(self) -> Iterator[_SourceSession]: ...

    def events(self, key: SessionKey) -> Iterator[Event]: ...

    def scope_states(self) -> Iterator[_ScopeState]: ...


def migrate_adk_file(source: Path, target: Path, *, advance: Advance = lambda _: None) -> MigrationReport:
    """Carries what one of ADK's services keeps in an SQLite file to a database of sessiondb.

    Args:
        source: The file of a ``SqliteSessionService``, or of a ``DatabaseSessionService``. Events that the latter
            pickled (schema 0) are read by ADK's own migration, which lets through nothing but ADK's classes.
        target: The database, created if it is missing.
        advance: Told about sessions that were carried or compared.

    Raises:
        MigrationError: If ADK's own migration is needed and fails.
        UnsupportedDatabaseError: If the source is not a file of ADK's services, or the target not one of sessiondb.
        StorageError: If a file cannot be read or written.
    """
    _check_apart(source, target)
    report = MigrationReport()
    with AdkFile(source) as file:
        if file.layout is not Layout.PICKLED:
            _carry(_AdkPlace(file), target, report, advance)
            return report
        events = file.count_events()
    with _unpickled(source, report) as converted, AdkFile(converted) as file:
        if (carried := file.count_events()) != events:
            report.failures.append(f"ADK's own migration could not read {events - carried} of {events} events")
        _carry(_AdkPlace(file), target, report, advance)
    return report


def migrate_memory(
    source: InMemorySessionService, target: Path, *, advance: Advance = lambda _: None
) -> MigrationReport:
    """Carries what an in-memory service holds to a database of sessiondb.

    Blocks. Call it while no agent runs: the service has no snapshots.

    Args:
        source: The service; it is left as it is.
        target: The database, created if it is missing. A service may have it open.
        advance: Told about sessions that were carried or compared.

    Raises:
        StorageError: If the database cannot be written.
    """
    report = MigrationReport()
    _carry(_MemoryPlace(source), target, report, advance)
    return report


def migrate_to_adk_sqlite(source: Path, target: Path, *, advance: Advance = lambda _: None) -> MigrationReport:
    """Carries a database of sessiondb to a file of ADK's ``SqliteSessionService``.

    Args:
        source: The database.
        target: The file, created if it is missing.
        advance: Told about sessions that were carried or compared.

    Raises:
        MigrationError: If ADK's service cannot be imported.
        UnsupportedDatabaseError: If the source is not a database of sessiondb, or the target another kind of file.
        StorageError: If a file cannot be read or written.
    """
    _check_apart(source, target)
    try:
        from google.adk.sessions.sqlite_session_service import CREATE_SCHEMA_SQL  # noqa: PLC0415  # needs aiosqlite
    except ImportError as error:
        raise MigrationError(f"ADK's SqliteSessionService cannot be imported: {error}") from error
    report = MigrationReport()
    with Browser(source) as browser:
        place = _DatabasePlace(browser)
        with place.snapshot():
            with AdkFileWriter(target, CREATE_SCHEMA_SQL) as writer:
                for app_name, user_id, state in place.scope_states():
                    writer.put_scope_state(app_name, user_id, json.dumps(state), _NO_TIME)
                for session in place.sessions():
                    _put_into_adk(writer, session, place, report)
                    advance(1)
            with AdkFile(target) as file:
                _compare(place, _AdkPlace(file), report, advance)
    return report


# ADK reads back no time of a user's or an app's state.
_NO_TIME = 0.0

_NO_STATE = "the state is not a JSON object"


def _check_apart(source: Path, target: Path) -> None:
    if source.exists() and target.exists() and source.samefile(target):
        raise ConfigurationError(f"{str(source)!r} cannot be migrated into itself; name another file")


@contextmanager
def _unpickled(source: Path, report: MigrationReport) -> Iterator[Path]:
    """Has ADK convert a file of schema 0; gives one of schema 1, which is removed in the end."""
    try:
        from google.adk.sessions.migration import (  # noqa: PLC0415  # needs SQLAlchemy
            migrate_from_sqlalchemy_pickle,
            migration_runner,
        )
    except ImportError as error:
        raise MigrationError(
            f"events are pickled in {str(source)!r}; ADK's own migration reads them, and needs SQLAlchemy: {error}"
        ) from error
    with tempfile.TemporaryDirectory(prefix="sessiondb-") as folder:
        converted = Path(folder) / "converted.sqlite3"
        # ADK goes on without what it cannot read, and says so in its log only.
        complaints = _Complaints(migrate_from_sqlalchemy_pickle.logger)
        try:
            migration_runner.upgrade(f"sqlite:///file:{quote(str(source))}?mode=ro&uri=true", f"sqlite:///{converted}")
        except RuntimeError as error:
            raise MigrationError(f"ADK's own migration of {str(source)!r} failed: {error}") from error
        finally:
            complaints.close()
        report.failures += [f"ADK's own migration says: {message}" for message in complaints.messages]
        yield converted


class _Complaints(logging.Handler):
    """Collects the warnings of a logger until it is closed."""

    def __init__(self, logger: logging.Logger) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []
        self._logger = logger
        logger.addHandler(self)

    @override
    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())

    @override
    def close(self) -> None:
        self._logger.removeHandler(self)
        super().close()


def _carry(source: _Place, target: Path, report: MigrationReport, advance: Advance) -> None:
    with source.snapshot():
        with Loader(target) as loader:
            for app_name, user_id, state in source.scope_states():
                _put_scope_state(loader, app_name, user_id, state, report)
            for session in source.sessions():
                _put_session(loader, session, source, report)
                advance(1)
        with Browser(target) as browser:
            place = _DatabasePlace(browser)
            with place.snapshot():
                _compare(source, place, report, advance)


def _put_scope_state(
    loader: Loader, app_name: str, user_id: str | None, state: dict[str, Any] | None, report: MigrationReport
) -> None:
    owner = _owner(app_name, user_id)
    try:
        if state is None:
            raise _UnreadableError(_NO_STATE)
        check_text("app_name", app_name)
        check_text("user_id", user_id or "")
        encoded = encode_state(_scope(user_id), state)
    except (InvalidInputError, _UnreadableError) as error:
        report.failures.append(f"the state of {owner} was not carried: {error}")
        return
    _note_nulls(owner, state, report)
    loader.put_scope_state(app_name, user_id, encoded, now_text())


def _put_session(loader: Loader, session: _SourceSession, source: _Place, report: MigrationReport) -> None:
    events = _Counted(NewEvent(encode_event(event), advances=True) for event in source.events(session.key))
    try:
        if session.state is None:
            raise _UnreadableError(_NO_STATE)
        key = check_key(*session.key)
        if key.session_id != key.session_id.strip():
            raise InvalidInputError("its id has spaces around it, which sessiondb strips")
        new = NewSession(
            key,
            timestamp_text(session.create_time),
            timestamp_text(session.update_time),
            session.update_time,
            encode_state(scopes.Scope.SESSION, session.state),
        )
        if loader.holds(key) or not loader.put(new, events):
            report.present += 1
            return
    except (InvalidInputError, _UnreadableError) as error:
        report.failures.append(f"{_named(session.key)} was not carried: {error}")
        return
    report.sessions += 1
    report.events += events.count
    _note_nulls(_named(key), session.state, report)


def _put_into_adk(
    writer: AdkFileWriter, session: _SourceSession, source: _DatabasePlace, report: MigrationReport
) -> None:
    head = AdkSession(session.key, session.create_time, session.update_time, json.dumps(session.state))
    events = _Counted(source.adk_events(session.key))
    try:
        left_out = writer.put(head, events)
    except CorruptRowError as error:
        report.failures.append(f"{_named(session.key)} was not carried: {error}")
        return
    if left_out is None:
        report.present += 1
        return
    report.sessions += 1
    report.events += events.count - len(left_out)
    if left_out:
        report.failures.append(
            f"{len(left_out)} events of {_named(session.key)} were not carried: ADK keeps one event of an id"
        )
    backward = sum(later.time < earlier.time for earlier, later in pairwise(source.adk_events(session.key)))
    if backward:
        report.notes.append(
            f"{backward} events of {_named(session.key)} are dated before the one they follow: ADK sorts by date"
        )


def _compare(source: _Place, target: _Place, report: MigrationReport, advance: Advance) -> None:
    """Compares what the source holds with what the target holds; whatever else the target holds is not looked at."""
    for (app_name, user_id, state), owned in _matched(source.scope_states(), target.scope_states(), _owner_key):
        here = (owned and owned[2]) or {}
        try:
            stored = _as_stored(_scope(user_id), state or {})
        except InvalidInputError:
            continue  # reported when it was to be carried
        if different := sum(name not in here or here[name] != value for name, value in stored.items()):
            report.failures.append(
                f"{different} keys of {_owner(app_name, user_id)} have another value in the target, which stays"
            )
    for session, found in _matched(source.sessions(), target.sessions(), _session_key):
        if found is None:
            if not any(failure.startswith(_named(session.key)) for failure in report.failures):
                report.failures.append(f"{_named(session.key)} is missing in the target")
        elif differences := list(_differences(session, found, source, target, report)):
            report.failures.append(f"{_named(session.key)} differs: {'; '.join(differences)}")
        else:
            report.verified += 1
        advance(1)


def _matched(
    source: Iterator[ItemT], target: Iterator[ItemT], key: Callable[[ItemT], tuple[Any, ...]]
) -> Iterator[tuple[ItemT, ItemT | None]]:
    """Finds for each item of the source the one of the target; both are in the order of ``key``, so neither is kept."""
    found = next(target, None)
    for item in source:
        while found is not None and key(found) < key(item):
            found = next(target, None)
        yield item, found if found is not None and key(found) == key(item) else None


def _session_key(session: _SourceSession) -> SessionKey:
    return session.key


def _owner_key(state: _ScopeState) -> tuple[bool, str, str]:
    app_name, user_id, _ = state
    return user_id is not None, app_name, user_id or ""


def _owner(app_name: str, user_id: str | None) -> str:
    return f"app {app_name!r}" if user_id is None else f"user {user_id!r} of app {app_name!r}"


def _scope(user_id: str | None) -> scopes.Scope:
    return scopes.Scope.APP if user_id is None else scopes.Scope.USER


def _differences(
    session: _SourceSession, found: _SourceSession, source: _Place, target: _Place, report: MigrationReport
) -> Iterator[str]:
    if session.update_time != found.update_time:
        yield "the time of the last update"
    is_coerced = False
    if session.state is None or found.state is None:
        yield _NO_STATE
    elif _without_nulls(session.state) != _without_nulls(found.state):
        is_coerced = _as_stored(scopes.Scope.SESSION, session.state) == found.state
        if not is_coerced:
            yield "the state"
    try:
        difference, coerced = _compare_logs(source.events(session.key), target.events(session.key))
    except (_UnreadableError, CorruptRowError, InvalidInputError) as error:
        yield str(error)
        return
    if difference:
        yield difference
    if is_coerced or coerced:
        report.notes.append(f"{_named(session.key)} holds values that JSON has not; they are stored as ADK stores them")


def _compare_logs(source: Iterator[Event], target: Iterator[Event]) -> tuple[str | None, int]:
    """Returns how two logs differ, None if they do not, and how many events are equal once their values are JSON."""
    in_source = in_target = unequal = coerced = 0
    for expected, event in zip_longest(source, target):
        in_source += expected is not None
        in_target += event is not None
        if expected is None or event is None or event == expected:
            continue
        if encode_event(event) == encode_event(expected):
            coerced += 1
        else:
            unequal += 1
    if in_source != in_target:
        return f"{in_source} events in the source, {in_target} in the target", coerced
    return (f"{unequal} of {in_source} events" if unequal else None), coerced


def _as_stored(scope: scopes.Scope, state: dict[str, Any]) -> dict[str, Any]:
    return {name: json.loads(text) for name, text in json.loads(encode_state(scope, state)).items()}


def _object(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (TypeError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _without_nulls(state: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in state.items() if value is not None}


def _note_nulls(owner: str, state: dict[str, Any], report: MigrationReport) -> None:
    nulls = len(state) - len(_without_nulls(state))
    if nulls:
        report.notes.append(f"{nulls} keys of {owner} hold None: sessiondb has no such keys, and they read as None")


def _named(key: SessionKey) -> str:
    return f"session {key.session_id!r} of user {key.user_id!r}, app {key.app_name!r}"


class _Counted(Iterator[ItemT]):
    """Counts what passes."""

    def __init__(self, items: Iterator[ItemT]) -> None:
        self.count = 0
        self._items = items

    def __next__(self) -> ItemT:
        item = next(self._items)
        self.count += 1
        return item


class _UnreadableError(Exception):
    """Something of a session is not what it should be; never leaves this module."""


class _AdkPlace:
    """A file of one of ADK's services."""

    def __init__(self, file: AdkFile) -> None:
        self._file = file

    def snapshot(self) -> AbstractContextManager[None]:
        return self._file.snapshot()

    def sessions(self) -> Iterator[_SourceSession]:
        for key, create_time, update_time, state in self._file.sessions():
            yield _SourceSession(key, create_time, update_time, _object(state))

    def events(self, key: SessionKey) -> Iterator[Event]:
        for row in self._file.events(key):
            try:
                yield self._event(row)
            except (ValidationError, ValueError, TypeError) as error:
                raise _UnreadableError(
                    f"event {row.event_id!r} cannot be read as an event ({type(error).__name__})"
                ) from None

    def scope_states(self) -> Iterator[_ScopeState]:
        for app_name, user_id, state in self._file.scope_states():
            yield app_name, user_id, _object(state)

    def _event(self, row: AdkEvent) -> Event:
        if self._file.layout is Layout.SQLITE:
            return event_validator()(row.data or "")
        # As ADK's service puts it together: some columns count for more than the JSON.
        fields = json.loads(row.data or "{}")
        time = fields.get("timestamp", row.time)
        return Event.model_validate(
            {**fields, "id": row.event_id, "invocation_id": row.invocation_id, "timestamp": time}
        )


class _DatabasePlace:
    """A database of sessiondb."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser

    def snapshot(self) -> AbstractContextManager[None]:
        return self._browser.snapshot()

    def sessions(self) -> Iterator[_SourceSession]:
        for key in self._browser.session_keys():
            (row,) = self._browser.sessions(Selection(*key))
            state = decode_values(self._browser.session_state(key))
            created = datetime.fromisoformat(row.created_at).timestamp()
            yield _SourceSession(key, created, row.update_time, state)

    def events(self, key: SessionKey) -> Iterator[Event]:
        for event in self._browser.events(Selection(*key)):
            parts = (event.event_id, event.invocation_id, event.author, event.time)
            yield decode_event(
                EventRow(event.row_id, event.seq, *parts, event.content, event.actions, event.extra), key
            )

    def adk_events(self, key: SessionKey) -> Iterator[AdkEvent]:
        """The events as ADK's service keeps them; our JSON is ADK's, and holds what ADK itself leaves out of its own."""
        for event in self._browser.events(Selection(*key)):
            yield AdkEvent(event.event_id, event.invocation_id, event.time, json.dumps(event.as_dict()))

    def scope_states(self) -> Iterator[_ScopeState]:
        for rows in (self._browser.app_state(), self._browser.user_state()):
            for (app_name, user_id), keys in groupby(rows, lambda row: row[:2]):
                yield app_name, user_id, decode_values(keys)


class _MemoryPlace:
    """ADK's in-memory service."""

    def __init__(self, service: InMemorySessionService) -> None:
        self._service = service

    def snapshot(self) -> AbstractContextManager[None]:
        return nullcontext()

    def sessions(self) -> Iterator[_SourceSession]:
        for app_name, users in sorted(self._service.sessions.items()):
            for user_id, sessions in sorted(users.items()):
                for session_id, session in sorted(sessions.items()):
                    # When it was created is not kept.
                    created = min([session.last_update_time, *(event.timestamp for event in session.events[:1])])
                    key = SessionKey(app_name, user_id, session_id)
                    yield _SourceSession(key, created, session.last_update_time, session.state)

    def events(self, key: SessionKey) -> Iterator[Event]:
        return iter(self._service.sessions[key.app_name][key.user_id][key.session_id].events)

    def scope_states(self) -> Iterator[_ScopeState]:
        for app_name, state in sorted(self._service.app_state.items()):
            yield app_name, None, state
        for app_name, users in sorted(self._service.user_state.items()):
            for user_id, state in sorted(users.items()):
                yield app_name, user_id, state
