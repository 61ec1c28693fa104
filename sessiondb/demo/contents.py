"""What the database holds after the conversation, read back through the service's public calls."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from google.adk.events import Event

from sessiondb.adk.scopes import Scope, parse
from sessiondb.location import Database

from .agent import APP_NAME, AUDITED_KEY, USER_ID
from .conversation import PID_KEY
from .place import open_service


@dataclass(frozen=True)
class SessionRow:
    """A stored session. Times are UTC, ISO 8601."""

    session_id: str
    user_id: str
    created_at: str
    updated_at: str
    events: int


@dataclass(frozen=True)
class EventRow:
    """An event of the conversation; ``seq`` counts from 1 in append order."""

    seq: int
    time: str
    author: str
    pid: int | None
    """The process that appended it; None for a change from outside a run."""
    what: tuple[str, ...]
    state_delta: dict[str, Any]


@dataclass(frozen=True)
class StateRow:
    """One stored key; ``key`` is without its prefix, as in the table ``adk_state``."""

    scope: Scope
    key: str
    value: Any


@dataclass(frozen=True)
class Change:
    """One change of the audited key."""

    seq: int
    time: str
    author: str
    value: Any


@dataclass(frozen=True)
class Contents:
    """Everything the demonstration shows of one file."""

    sessions: tuple[SessionRow, ...]
    events: tuple[EventRow, ...]
    state: tuple[StateRow, ...]
    audited_key: str
    audit_trail: tuple[Change, ...]
    totals: dict[str, float]
    """Counts over the whole file; the size is in units of 2^20 bytes."""


async def read_contents(database: Database, session_id: str) -> Contents:
    """Open ``database`` anew and read all sessions of the user, and one of them in full."""
    async with open_service(database) as service:
        listed = await service.list_sessions(app_name=APP_NAME, user_id=USER_ID)
        sessions = tuple(
            SessionRow(
                session_id=row["session_id"],
                user_id=row["user_id"],
                created_at=row["created_at"],
                updated_at=row["updated_at"],
                events=service.get_event_count(APP_NAME, USER_ID, row["session_id"]),
            )
            for row in listed
        )
        session = await service.get_session(app_name=APP_NAME, user_id=USER_ID, session_id=session_id)
        if session is None:
            raise LookupError(f"session {session_id!r} is not in {database}")
        stats = service.get_stats()
    events = tuple(_event_row(seq, event) for seq, event in enumerate(session.events, start=1))
    state = (StateRow(*parse(key), value) for key, value in session.state.items())
    return Contents(
        sessions=sessions,
        events=events,
        state=tuple(sorted(state, key=lambda row: (row.scope, row.key))),
        audited_key=AUDITED_KEY,
        audit_trail=tuple(
            Change(row.seq, row.time, row.author, row.state_delta[AUDITED_KEY])
            for row in events
            if AUDITED_KEY in row.state_delta
        ),
        totals={
            "sessions": stats["sessions"],
            "events": stats["events"],
            "state_keys": stats["state_keys"],
            "db_size_mb": stats["db_size_mb"],
        },
    )


def _event_row(seq: int, event: Event) -> EventRow:
    return EventRow(
        seq=seq,
        time=datetime.fromtimestamp(event.timestamp, UTC).isoformat(timespec="milliseconds"),
        author=event.author,
        pid=(event.custom_metadata or {}).get(PID_KEY),
        what=_what(event),
        state_delta=dict(event.actions.state_delta),
    )


def _what(event: Event) -> tuple[str, ...]:
    lines = []
    for part in (event.content.parts if event.content else None) or []:
        if part.text:
            lines.append(part.text)
        elif part.function_call:
            args = ", ".join(f"{k}={v!r}" for k, v in (part.function_call.args or {}).items())
            lines.append(f"call {part.function_call.name}({args})")
        elif part.function_response:
            lines.append(f"{part.function_response.name} returned {part.function_response.response}")
    return tuple(lines)
