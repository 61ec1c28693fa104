"""Judges a file by what its clients were told: nothing acknowledged missing, nothing twice, nothing half."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sessiondb import DatabaseSessionService

_SCOPES = (("app:", "APP"), ("user:", "USER"))


def find_problems(path: Path, acknowledged: Mapping[str, Sequence[str]], *, absent: Sequence[str] = ()) -> list[str]:
    """Opens a file as anybody would, and says what is wrong with it.

    Args:
        path: The file; what its processes left behind beside it is recovered by SQLite.
        acknowledged: For each session that was created, the ids of the events whose append returned, in that order.
        absent: Ids of events whose append was refused.
    """
    connection = sqlite3.connect(f"file:{path}?mode=rw", uri=True)
    try:
        if not connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            # Opening the file was as far as its process came.
            return [f"session {session} is missing" for session in acknowledged]
        return [
            *_structure(connection),
            *_logs(connection, acknowledged, absent),
            *_states(connection),
        ]
    finally:
        connection.close()


def assert_sound(path: Path, acknowledged: Mapping[str, Sequence[str]], *, absent: Sequence[str] = ()) -> None:
    """Raises AssertionError if :func:`find_problems` finds any."""
    problems = find_problems(path, acknowledged, absent=absent)
    assert not problems, "\n".join(problems[:20])


async def assert_service_agrees(path: Path, app_name: str) -> None:
    """Raises AssertionError if the service reads other logs from a file than what is stored in it."""
    stored = stored_ids(path)
    async with DatabaseSessionService(path) as service:
        listed = (await service.list_sessions(app_name=app_name)).sessions
        assert {session.id for session in listed} == set(stored)
        for head in listed:
            session = await service.get_session(app_name=app_name, user_id=head.user_id, session_id=head.id)
            assert session is not None
            assert [event.id for event in session.events] == stored[head.id]
            assert session.state == head.state


def stored_ids(path: Path) -> dict[str, list[str]]:
    """Returns the ids of the events of each session, in log order."""
    connection = sqlite3.connect(f"file:{path}?mode=rw", uri=True)
    try:
        found: dict[str, list[str]] = {row[0]: [] for row in connection.execute("SELECT session_id FROM adk_sessions")}
        for session, event in connection.execute("SELECT session_id, event_id FROM adk_events ORDER BY id"):
            found[session].append(event)
        return found
    finally:
        connection.close()


def _structure(connection: sqlite3.Connection) -> list[str]:
    problems = [f"integrity: {row[0]}" for row in connection.execute("PRAGMA integrity_check") if row[0] != "ok"]
    problems += [f"foreign key: {row}" for row in connection.execute("PRAGMA foreign_key_check")]
    return problems


def _logs(
    connection: sqlite3.Connection, acknowledged: Mapping[str, Sequence[str]], absent: Sequence[str]
) -> list[str]:
    problems: list[str] = []
    logs: dict[str, list[str]] = {}
    for session, last_seq, revision in connection.execute("SELECT session_id, last_seq, revision FROM adk_sessions"):
        rows = connection.execute(
            "SELECT seq, event_id, revision, content FROM adk_events WHERE session_id = ? ORDER BY id", (session,)
        ).fetchall()
        logs[session] = [row[1] for row in rows]
        if [row[0] for row in rows] != list(range(1, last_seq + 1)):
            problems.append(f"session {session}: seq is {[row[0] for row in rows][:50]}, last_seq {last_seq}")
        # integrity_check says nothing about values. (What update_keys records has no content.)
        problems += [
            f"session {session}: event {event} holds {content}"
            for _, event, _, content in rows
            if f'"{event} ' not in (content or "") and ("/" in event or content is not None)
        ]
        if rows and rows[-1][2] != revision:
            problems.append(f"session {session}: revision {revision}, its last event {rows[-1][2]}")
        if len(set(logs[session])) != len(logs[session]):
            problems.append(f"session {session}: an event is there twice")
    refused = set(absent)
    for session, events in acknowledged.items():
        if session not in logs:
            problems.append(f"session {session} is missing")
            continue
        remaining = iter(logs[session])
        lost = [event for event in events if event not in remaining]
        if lost:
            there = [event for event in lost if event in set(logs[session])]
            problems.append(f"session {session}: lost {lost[:5]} of {len(events)}, out of order {there[:5]}")
    for session, log in logs.items():
        problems += [f"session {session}: {event} was refused, and is there" for event in log if event in refused]
    return problems


def _states(connection: sqlite3.Connection) -> list[str]:
    expected: dict[tuple[Any, ...], str] = {}
    for app, user, session, actions in connection.execute(
        "SELECT app_name, user_id, session_id, actions FROM adk_events ORDER BY id"
    ):
        fold(expected, app, user, session, json.loads(actions)["state_delta"])
    found = {
        tuple(row[:5]): row[5]
        for row in connection.execute(
            "SELECT app_name, user_id, session_id, scope, state_key, state_value FROM adk_state"
        )
    }
    different = defaultdict(list)
    for key in expected.keys() | found.keys():
        if expected.get(key) != found.get(key):
            different[key].append(f"state {key}: {found.get(key)!r}, by the log {expected.get(key)!r}")
    return [line for lines in different.values() for line in lines]


def fold(state: dict[tuple[Any, ...], str], app: str, user: str, session: str, delta: Mapping[str, Any]) -> None:
    """Applies a state delta of a log to rows of ``adk_state``, primary key to value."""
    for key, value in delta.items():
        owner: tuple[Any, ...] = (app, user, session, "SESSION", key)
        for prefix, scope in _SCOPES:
            if key.startswith(prefix):
                owner = (app, user if scope == "USER" else None, None, scope, key.removeprefix(prefix))
        if value is None:
            state.pop(owner, None)
        else:
            state[owner] = json.dumps(value)
