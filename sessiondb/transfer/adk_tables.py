"""The tables of ADK's own session services, wherever they are: what is in them, as a source of sessions."""

from __future__ import annotations

import enum
import json
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar, NamedTuple

from google.adk.events import Event
from pydantic import ValidationError
from typing_extensions import override

from sessiondb.adk.fast_decode import event_validator
from sessiondb.errors import CorruptRowError, UnsupportedDatabaseError
from sessiondb.model.records import SessionKey
from sessiondb.transfer.sources import ScopeState, Source, SourceSession, UnreadableError


class Layout(enum.Enum):
    """Which of ADK's services made the tables; the values are for people."""

    SQLITE = "SqliteSessionService"
    DATABASE = "DatabaseSessionService, schema 1"
    PICKLED = "DatabaseSessionService, schema 0"


class AdkEvent(NamedTuple):
    """An event of a session, as ADK's tables hold it."""

    event_id: str
    invocation_id: str
    time: float
    data: str | None
    """The event as JSON."""


class Statements(NamedTuple):
    """How a kind of database is asked.

    States and events come as JSON text; sessions and owners in the order of their keys, compared byte by byte.
    """

    table_exists: str
    columns_of_events: str
    sessions: str
    events: str
    user_states: str
    app_states: str


_SCHEMA_VERSION = "SELECT value FROM adk_internal_metadata WHERE key = 'schema_version'"
_COUNT_EVENTS = "SELECT count(*) FROM events"


class AdkTables(Source):
    """The tables of one of ADK's services. A database of a kind derives from it.

    Attributes:
        layout: Which service made them.
    """

    statements: ClassVar[Statements]
    layout: Layout

    @abstractmethod
    def rows(self, statement: str, parameters: Sequence[Any] = ()) -> Iterator[Any]:
        """Runs a statement, and yields what it finds as it is found."""

    @override
    def sessions(self) -> Iterator[SourceSession]:
        for *key, created, updated, state in self.rows(self.statements.sessions):
            yield SourceSession(SessionKey(*key), _seconds(created), _seconds(updated), _object(state))

    @override
    def events(self, key: SessionKey) -> Iterator[Event]:
        for event_id, invocation_id, time, data in self.rows(self.statements.events, key):
            row = AdkEvent(event_id, invocation_id, _seconds(time), data)
            try:
                yield self._event(row)
            except (ValidationError, ValueError, TypeError) as error:
                raise UnreadableError(
                    f"event {event_id!r} cannot be read as an event ({type(error).__name__})"
                ) from None

    @override
    def scope_states(self) -> Iterator[ScopeState]:
        for statement in (self.statements.app_states, self.statements.user_states):
            for app_name, user_id, state in self.rows(statement):
                yield app_name, user_id, _object(state)

    def _event(self, row: AdkEvent) -> Event:
        if self.layout is Layout.SQLITE:
            return event_validator()(row.data or "")
        # As ADK's service puts it together: some columns count for more than the JSON.
        fields = json.loads(row.data or "{}")
        time = fields.get("timestamp", row.time)
        return Event.model_validate(
            {**fields, "id": row.event_id, "invocation_id": row.invocation_id, "timestamp": time}
        )

    def count_events(self) -> int:
        """Counts the events of all sessions."""
        return int(self._all(_COUNT_EVENTS)[0][0])

    def find_layout(self, name: str) -> Layout:
        """Finds out which service made the tables.

        Args:
            name: What messages call the database.

        Raises:
            UnsupportedDatabaseError: If none of those that are known did.
        """
        columns = {column for (column,) in self._all(self.statements.columns_of_events)}
        if self._has_table("adk_internal_metadata"):
            versions = self._all(_SCHEMA_VERSION)
            if versions == [("1",)]:
                return Layout.DATABASE
            raise UnsupportedDatabaseError(f"{name} has a schema of ADK that is not known: {versions}")
        if "event_data" in columns:
            return Layout.SQLITE
        if "actions" in columns and self._has_table("app_states"):
            return Layout.PICKLED
        raise UnsupportedDatabaseError(f"{name} is not a session database of ADK")

    def _has_table(self, name: str) -> bool:
        return bool(self._all(self.statements.table_exists, (name,)))

    def _all(self, statement: str, parameters: Sequence[Any] = ()) -> list[Any]:
        return list(self.rows(statement, parameters))


def _seconds(time: object) -> float:
    """Turns a time of either service into seconds since the epoch: a number, or UTC without saying so."""
    if isinstance(time, int | float):
        return float(time)
    try:
        return datetime.fromisoformat(str(time)).replace(tzinfo=UTC).timestamp()
    except ValueError:
        raise CorruptRowError(f"{time!r} stands where a time belongs") from None


def _object(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (TypeError, ValueError):
        return None
    return value if isinstance(value, dict) else None
