"""Whole databases of sessiondb from one store to another: rows as they are, so that nothing is read and written anew."""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Iterator
from contextlib import closing
from itertools import groupby, zip_longest
from operator import attrgetter
from pathlib import Path

from sessiondb import stores
from sessiondb.calls.lines import now_text
from sessiondb.engine.store import BulkImport, Reader
from sessiondb.errors import ConfigurationError, CorruptRowError, InvalidInputError
from sessiondb.location import Database
from sessiondb.model.queries import GetBeginning, ListEvents, ListSessions, ListState
from sessiondb.model.records import (
    NO_CUT,
    EventRecord,
    NewEvent,
    NewSession,
    Selection,
    SessionKey,
    SessionSummary,
    named,
)
from sessiondb.transfer.compare import MigrationReport, matched, owner_key, owner_name
from sessiondb.transfer.jsonl import Advance

_ALL_SESSIONS = ListSessions(order="key", with_state=False)


def migrate_sessiondb(
    source: str | os.PathLike[str] | Database,
    target: str | os.PathLike[str] | Database,
    *,
    advance: Advance = lambda _: None,
) -> MigrationReport:
    """Copies a database of sessiondb to another one: from a file to a server, back, or between two of a kind.

    Args:
        source: The database, a path or URL; it is only read.
        target: The other one, created if it is missing. Services may have both open.
        advance: Told about sessions that were copied or compared.

    Raises:
        ConfigurationError: If both are one.
        UnsupportedDatabaseError: If one of them is not a database of sessiondb.
        StorageError: If one cannot be read or written.
    """
    source, target = stores.resolve_database(source), stores.resolve_database(target)
    check_apart(source, target)
    report = MigrationReport()
    with stores.open_reader(source) as reader, reader.snapshot():
        with stores.open_import(target) as into:
            for app_name, user_id, state in _scope_states(reader):
                into.put_scope_state(app_name, user_id, json.dumps(state), now_text())
            for session in reader.ask(_ALL_SESSIONS):
                _put(into, session, reader, report)
                advance(1)
        with stores.open_reader(target) as written, written.snapshot():
            _compare(reader, written, report, advance)
    return report


def check_apart(source: Database, target: Database) -> None:
    """Refuses to migrate a database into itself.

    Raises:
        ConfigurationError: If both are one.
    """
    if isinstance(source, Path) and isinstance(target, Path):
        is_one = source.exists() and target.exists() and source.samefile(target)
    else:
        is_one = source == target
    if is_one:
        raise ConfigurationError(f"{str(source)!r} cannot be migrated into itself; name another database")


def _put(into: BulkImport, session: SessionSummary, reader: Reader, report: MigrationReport) -> None:
    new = NewSession(
        session.key,
        session.created_at,
        session.updated_at,
        session.head.update_time,
        json.dumps(_own_state(reader, session.key)),
        *(reader.ask(GetBeginning(session.key)) or ()),
    )
    try:
        with closing(_log(reader, session.key)) as events:
            if into.holds(session.key) or not into.put(new, events):
                report.present += 1
                return
    except (CorruptRowError, InvalidInputError) as error:
        report.failures.append(f"{named(session.key)} was not carried: {error}")
        return
    report.sessions += 1
    report.events += session.events


def _compare(source: Reader, target: Reader, report: MigrationReport, advance: Advance) -> None:
    for (app_name, user_id, state), owned in matched(_scope_states(source), _scope_states(target), owner_key):
        here = owned[2] if owned else {}
        if different := sum(here.get(name) != value for name, value in state.items()):
            report.failures.append(
                f"{different} keys of {owner_name(app_name, user_id)} have another value in the target, which stays"
            )
    for session, found in matched(source.ask(_ALL_SESSIONS), target.ask(_ALL_SESSIONS), attrgetter("key")):
        if found is None:
            if not any(failure.startswith(named(session.key)) for failure in report.failures):
                report.failures.append(f"{named(session.key)} is missing in the target")
        elif differences := list(_differences(session, found, source, target)):
            report.failures.append(f"{named(session.key)} differs: {'; '.join(differences)}")
        else:
            report.verified += 1
        advance(1)


def _differences(session: SessionSummary, found: SessionSummary, source: Reader, target: Reader) -> Iterator[str]:
    if session.created_at != found.created_at:
        yield "the time of its creation"
    if session.head.update_time != found.head.update_time:
        yield "the time of the last update"
    key = session.key
    if _own_state(source, key) != _own_state(target, key):
        yield "the state"
    if source.ask(GetBeginning(key)) != target.ask(GetBeginning(key)):
        yield "what it began with"
    try:
        with closing(_log(source, key)) as here, closing(_log(target, key)) as there:
            unequal = sum(expected != event for expected, event in zip_longest(here, there))
    except CorruptRowError as error:
        yield str(error)
        return
    if unequal:
        yield f"{unequal} events"


def _log(reader: Reader, key: SessionKey) -> Generator[NewEvent, None, None]:
    beginning = reader.ask(GetBeginning(key))
    _, revision, _ = NO_CUT if beginning is None else beginning.cut or NO_CUT
    for _, _, row in reader.ask(ListEvents(Selection(*key))):
        # An update from outside the conversation has left the revision as it was.
        yield NewEvent(EventRecord._make(row[3:]), advances=row.revision != revision)
        revision = row.revision


def _own_state(reader: Reader, key: SessionKey) -> dict[str, str]:
    return {row.name: row.value for row in reader.ask(ListState("SESSION", Selection(*key)))}


def _scope_states(reader: Reader) -> Iterator[tuple[str, str | None, dict[str, str]]]:
    for scope in ("APP", "USER"):
        for (app_name, user_id), rows in groupby(reader.ask(ListState(scope)), lambda row: row[:2]):
            yield app_name, user_id, {row.name: row.value for row in rows}
