"""Sessions as JSON Lines: how an export is written; :mod:`sessiondb.transfer.jsonl` reads it, too."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from sessiondb.adk.events import event_as_dict, timestamp_text
from sessiondb.engine.store import Reader
from sessiondb.errors import CorruptRowError
from sessiondb.model.queries import CountEvents, GetBeginning, ListEvents, ListState
from sessiondb.model.records import NO_CUT, Beginning, Selection, SessionKey, SessionSummary, StateRow, named

FORMAT = "sessiondb"
VERSION = 1


def header_line() -> str:
    """Returns the first line of an export."""
    return json_line(type="header", format=FORMAT, version=VERSION, created_at=now_text())


def end_line(sessions: int) -> str:
    """Returns the last line, which says how many sessions there were."""
    return json_line(type="end", sessions=sessions)


def session_lines(reader: Reader, session: SessionSummary) -> Iterator[str]:
    """Writes a session and its events, within one snapshot of the database.

    Raises:
        CorruptRowError: If a row does not hold JSON.
    """
    state = decode_values(reader.ask(ListState("SESSION", Selection(*session.key))))
    count = reader.ask(CountEvents(session.key))
    yield from lines_of(reader, session, session.head.update_time, state, count)


def lines_of(
    reader: Reader, session: SessionSummary, update_time: float, state: dict[str, Any], events: int
) -> Iterator[str]:
    """Writes a session as it was after the first ``events`` of the events that it has, as :func:`session_lines`.

    Args:
        reader: The database.
        session: The session.
        update_time: When it was updated last then.
        state: Its own state then.
        events: How many events of it are written.
    """
    beginning = reader.ask(GetBeginning(session.key)) or Beginning(None, None)
    yield json_line(
        type="session",
        **session.key._asdict(),
        created_at=session.created_at,
        update_time=update_time,
        state=state,
        events=events,
        **_beginning_members(session.key, beginning),
    )
    _, revision, _ = beginning.cut or NO_CUT
    for _, key, row in reader.ask(ListEvents(Selection(*session.key), limit=events)):
        # An update from outside the conversation has left the revision as it was.
        outside = {"outside": True} if row.revision == revision else {}
        revision = row.revision
        yield json_line(type="event", **outside, event=event_as_dict(row, key))


def _beginning_members(key: SessionKey, beginning: Beginning) -> dict[str, Any]:
    members: dict[str, Any] = {}
    if beginning.initial_state is not None:
        try:
            members["initial_state"] = json.loads(beginning.initial_state)
        except ValueError:
            raise CorruptRowError(
                f"initial_state of {named(key)} is not JSON; it was edited outside sessiondb"
            ) from None
    if beginning.origin is not None:
        members["forked_from"] = beginning.origin._asdict()
    if beginning.cut is not None:
        members["cut"] = beginning.cut._asdict()
    return members


def decode_values(rows: Iterable[StateRow]) -> dict[str, Any]:
    """Decodes rows of state.

    Raises:
        CorruptRowError: If a value is not JSON.
    """
    values = {}
    for row in rows:
        try:
            values[row.name] = json.loads(row.value)
        except (TypeError, ValueError):
            raise CorruptRowError(
                f"the value of state key {row.name!r} of app {row.app_name!r} is not JSON; it was edited outside sessiondb"
            ) from None
    return values


def json_line(**members: Any) -> str:
    """Returns a JSON object on one line."""
    return json.dumps(members, separators=(",", ":"))


def now_text() -> str:
    """Returns this moment as the tables keep one."""
    return timestamp_text(datetime.now(UTC).timestamp())
