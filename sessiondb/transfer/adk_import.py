"""Whole databases from ADK's own session services to sessiondb, and back.

A source is only read. A session is copied completely or not at all, so a migration that was interrupted is resumed by
starting it again. In the end source and target are compared, session by session and event by event.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from logging.handlers import BufferingHandler
from pathlib import Path
from typing import Any
from urllib.parse import quote

from google.adk.sessions import InMemorySessionService

from sessiondb import stores
from sessiondb.adk import scopes
from sessiondb.adk.events import encode_event, event_as_dict, timestamp_text
from sessiondb.adk.limits import check_key, check_text
from sessiondb.adk.state import encode_delta
from sessiondb.calls.lines import now_text
from sessiondb.engine.store import BulkImport, Reader
from sessiondb.errors import ConfigurationError, CorruptRowError, InvalidInputError, MigrationError
from sessiondb.location import DEFAULT_SCHEMA, Database, ServerLocation
from sessiondb.model.queries import ListEvents
from sessiondb.model.records import STORED_NONE, NewEvent, NewSession, Selection, SessionKey, named
from sessiondb.transfer.adk_files import AdkFile, AdkFileWriter
from sessiondb.transfer.adk_tables import AdkEvent, AdkTables, Layout
from sessiondb.transfer.compare import NO_STATE, MigrationReport, compare, owner_name, scope_of
from sessiondb.transfer.copying import check_apart
from sessiondb.transfer.jsonl import Advance, encode_state
from sessiondb.transfer.sources import DatabaseSource, MemorySource, Source, SourceSession, UnreadableError


def migrate_adk_file(source: Path, target: Database, *, advance: Advance = lambda _: None) -> MigrationReport:
    """Copies what one of ADK's services keeps in an SQLite file to a database of sessiondb.

    Args:
        source: The file of a ``SqliteSessionService``, or of a ``DatabaseSessionService``. Events that the latter
            pickled (schema 0) are read by ADK's own migration, which lets through nothing but ADK's classes.
        target: The database, created if it is missing.
        advance: Told about sessions that were copied or compared.

    Raises:
        MigrationError: If ADK's own migration is needed and fails.
        UnsupportedDatabaseError: If the source is not a file of ADK's services, or the target not one of sessiondb.
        StorageError: If a file cannot be read or written.
    """
    check_apart(source, target)
    with AdkFile(source) as file:
        return _migrate(
            file, repr(str(source)), f"sqlite:///file:{quote(str(source))}?mode=ro&uri=true", target, advance
        )


def migrate_adk_server(
    source: str | ServerLocation, target: str | os.PathLike[str] | Database, *, advance: Advance = lambda _: None
) -> MigrationReport:
    """Copies what ADK's ``DatabaseSessionService`` keeps on a PostgreSQL server to a database of sessiondb.

    Args:
        source: The URL of the server, with ``?schema=`` if ADK's tables are not in ``public``. They are read as :func:`migrate_adk_file` reads a file. Events come in the order in which
            ADK reads them: by their times, then by their ids.
        target: The database, created if it is missing: a file, or a schema, which may be on the same server.
        advance: Told about sessions that were copied or compared.

    Raises:
        MigrationError: If ADK's own migration is needed and fails.
        UnsupportedDatabaseError: If the source has not ADK's tables, or the target other ones than those of sessiondb.
        StorageError: If one of them cannot be read or written.
    """
    found = stores.resolve_database(source)
    if not isinstance(found, ServerLocation):
        raise ConfigurationError("the source is a file; migrate_adk_file reads it")
    from sessiondb.transfer.adk_server import AdkServer  # noqa: PLC0415  # needs the driver

    url = found.url
    if found.schema != DEFAULT_SCHEMA:
        url += f"{'&' if '?' in url else '?'}options={quote(f'-csearch_path={found.schema}')}"
    with AdkServer(found) as tables:
        return _migrate(tables, str(found), url, stores.resolve_database(target), advance)


def _migrate(tables: AdkTables, name: str, url: str, target: Database, advance: Advance) -> MigrationReport:
    """Copies what is in ADK's tables; ``url`` is where ADK's own migration finds them."""
    report = MigrationReport()
    if tables.layout is not Layout.PICKLED:
        _copy(tables, target, report, advance)
        return report
    events = tables.count_events()
    with _unpickled(name, url, report) as converted, AdkFile(converted) as file:
        if (read := file.count_events()) != events:
            report.failures.append(f"ADK's own migration could not read {events - read} of {events} events")
        _copy(file, target, report, advance)
    return report


def migrate_memory(
    source: InMemorySessionService, target: str | os.PathLike[str], *, advance: Advance = lambda _: None
) -> MigrationReport:
    """Copies what an in-memory service holds to a database of sessiondb.

    Blocks. Call it while no agent runs: the service has no snapshots.

    Args:
        source: The service; it is left as it is.
        target: The database, a path or URL; created if it is missing. A service may have it open.
        advance: Told about sessions that were copied or compared.

    Raises:
        StorageError: If the database cannot be written.
    """
    report = MigrationReport()
    _copy(MemorySource(source), target, report, advance)
    return report


def migrate_to_adk_sqlite(source: Database, target: Path, *, advance: Advance = lambda _: None) -> MigrationReport:
    """Copies a database of sessiondb to a file of ADK's ``SqliteSessionService``.

    Args:
        source: The database.
        target: The file, created if it is missing.
        advance: Told about sessions that were copied or compared.

    Raises:
        MigrationError: If ADK's service cannot be imported.
        UnsupportedDatabaseError: If the source is not a database of sessiondb, or the target another kind of file.
        StorageError: If a file cannot be read or written.
    """
    check_apart(source, target)
    try:
        from google.adk.sessions.sqlite_session_service import CREATE_SCHEMA_SQL  # noqa: PLC0415  # needs aiosqlite
    except ImportError as error:
        raise MigrationError(f"ADK's SqliteSessionService cannot be imported: {error}") from error
    report = MigrationReport()
    with stores.open_reader(source) as reader:
        place = DatabaseSource(reader)
        with place.snapshot():
            with AdkFileWriter(target, CREATE_SCHEMA_SQL) as writer:
                for app_name, user_id, state in place.scope_states():
                    writer.put_scope_state(app_name, user_id, json.dumps(state))
                for session in place.sessions():
                    _put_into_adk(writer, session, reader, report)
                    advance(1)
            with AdkFile(target) as file:
                compare(place, file, report, advance)
    return report


@contextmanager
def _unpickled(name: str, url: str, report: MigrationReport) -> Iterator[Path]:
    """Has ADK convert tables of schema 0; gives a file of schema 1, which is removed in the end."""
    try:
        from google.adk.sessions.migration import (  # noqa: PLC0415  # needs SQLAlchemy
            migrate_from_sqlalchemy_pickle,
            migration_runner,
        )
    except ImportError as error:
        raise MigrationError(
            f"events are pickled in {name}; ADK's own migration reads them, and needs SQLAlchemy: {error}"
        ) from error
    with tempfile.TemporaryDirectory(prefix="sessiondb-") as folder:
        converted = Path(folder) / "converted.sqlite3"
        # ADK goes on without what it cannot read, and says so in its log only.
        captured = BufferingHandler(sys.maxsize)
        captured.setLevel(logging.WARNING)
        migrate_from_sqlalchemy_pickle.logger.addHandler(captured)
        try:
            migration_runner.upgrade(url, f"sqlite:///{converted}")
        except RuntimeError as error:
            raise MigrationError(f"ADK's own migration of {name} failed: {error}") from error
        finally:
            migrate_from_sqlalchemy_pickle.logger.removeHandler(captured)
        report.failures += [f"ADK's own migration says: {record.getMessage()}" for record in captured.buffer]
        yield converted


def _copy(source: Source, target: str | os.PathLike[str] | Database, report: MigrationReport, advance: Advance) -> None:
    with source.snapshot():
        with stores.open_import(target) as into:
            for app_name, user_id, state in source.scope_states():
                _put_scope_state(into, app_name, user_id, state, report)
            for session in source.sessions():
                _put_session(into, session, source, report)
                advance(1)
        with stores.open_reader(target) as reader:
            place = DatabaseSource(reader)
            with place.snapshot():
                compare(source, place, report, advance)


def _put_scope_state(
    into: BulkImport, app_name: str, user_id: str | None, state: dict[str, Any] | None, report: MigrationReport
) -> None:
    owner = owner_name(app_name, user_id)
    try:
        if state is None:
            raise UnreadableError(NO_STATE)
        check_text("app_name", app_name)
        check_text("user_id", user_id or "")
        encoded = encode_state(scope_of(user_id), state)
    except (InvalidInputError, UnreadableError) as error:
        report.failures.append(f"the state of {owner} was not carried: {error}")
        return
    into.put_scope_state(app_name, user_id, encoded, now_text())


def _put_session(into: BulkImport, session: SourceSession, source: Source, report: MigrationReport) -> None:
    copied = 0

    def events() -> Iterator[NewEvent]:
        nonlocal copied
        for event in source.events(session.key):
            copied += 1
            # None is a value in ADK's services.
            delta = encode_delta(event.actions.state_delta, keep_none=True)
            yield NewEvent(encode_event(event, delta).record, advances=True)

    try:
        if session.state is None:
            raise UnreadableError(NO_STATE)
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
        if into.holds(key) or not into.put(new, events()):
            report.present += 1
            return
    except (InvalidInputError, UnreadableError) as error:
        report.failures.append(f"{named(session.key)} was not carried: {error}")
        return
    report.sessions += 1
    report.events += copied


def _put_into_adk(writer: AdkFileWriter, session: SourceSession, reader: Reader, report: MigrationReport) -> None:
    try:
        copied = writer.put(session, _adk_events(reader, session.key))
    except CorruptRowError as error:
        report.failures.append(f"{named(session.key)} was not carried: {error}")
        return
    if copied is None:
        report.present += 1
        return
    report.sessions += 1
    events, left_out = copied
    report.events += events
    if left_out:
        report.failures.append(
            f"{left_out} events of {named(session.key)} were not carried: ADK keeps one event of an id"
        )
    backward = sum(later.time < earlier.time for earlier, later in pairwise(_adk_events(reader, session.key)))
    if backward:
        report.notes.append(
            f"{backward} events of {named(session.key)} are dated before the one they follow: ADK sorts by date"
        )


def _adk_events(reader: Reader, key: SessionKey) -> Iterator[AdkEvent]:
    """The events as ADK's service keeps them; our JSON is ADK's, and holds what ADK itself leaves out of its own."""
    for _, _, row in reader.ask(ListEvents(Selection(*key))):
        fields = event_as_dict(row, key)
        fields.pop(STORED_NONE, None)
        yield AdkEvent(row.event_id, row.invocation_id, row.time, json.dumps(fields))
