"""Judges a database by what its hosts were told: nothing acknowledged missing, nothing twice, nothing half."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg

Rows = list[tuple[Any, ...]]


def find_problems(url: str, acknowledged: Mapping[str, Sequence[str]], refused: Sequence[str] = ()) -> list[str]:
    """Reads the tables as anybody would, and says what is wrong with them.

    Args:
        url: The database; sessions are in the schema ``public``.
        acknowledged: For each session that was created, the ids of the events whose append returned, in that order.
        refused: The ids of events of which was said that nothing was written.
    """
    with psycopg.connect(url, connect_timeout=10) as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        sessions = connection.execute(
            "SELECT session_id, app_name, user_id, last_seq, revision, incarnation FROM adk_sessions"
        ).fetchall()
        events = connection.execute(
            "SELECT session_id, seq, event_id, revision, incarnation, content, actions FROM adk_events"
            " ORDER BY session_id, seq"
        ).fetchall()
        state = connection.execute(
            "SELECT app_name, user_id, session_id, scope, state_key, state_value FROM adk_state"
        ).fetchall()
    logs: dict[str, Rows] = defaultdict(list)
    for row in events:
        logs[row[0]].append(row[1:])
    names = {row[0] for row in sessions}
    problems = [f"events of {session}, which is not there" for session in logs.keys() - names]
    for session in sessions:
        problems += _log(session, logs[session[0]])
    for name, expected in acknowledged.items():
        if name not in names:
            problems.append(f"session {name} is missing")
            continue
        stored = [row[1] for row in logs[name]]
        remaining = iter(stored)
        if lost := [event for event in expected if event not in remaining]:
            there = [event for event in lost if event in set(stored)]
            problems.append(f"session {name}: lost {lost[:5]} of {len(expected)}, out of order {there[:5]}")
    stored_in_all = {row[1] for log in logs.values() for row in log}
    problems += [f"{event} was refused, and is there" for event in refused if event in stored_in_all]
    return [*problems, *_states(sessions, logs, state)]


def assert_sound(url: str, acknowledged: Mapping[str, Sequence[str]], refused: Sequence[str] = ()) -> None:
    """Raises AssertionError if :func:`find_problems` finds any."""
    problems = find_problems(url, acknowledged, refused)
    assert not problems, "\n".join(problems[:20])


def _log(session: tuple[Any, ...], rows: Rows) -> list[str]:
    name, _, _, last_seq, revision, incarnation = session
    problems = []
    if [row[0] for row in rows] != list(range(1, last_seq + 1)):
        problems.append(f"session {name}: seq is {[row[0] for row in rows][:50]}, last_seq {last_seq}")
    if [row[2] for row in rows] != list(range(1, revision + 1)):
        problems.append(f"session {name}: revisions are {[row[2] for row in rows][:50]}, the session's is {revision}")
    problems += [f"session {name}: {event} is there {n} times" for event, n in _counted(rows) if n > 1]
    problems += [
        f"session {name}: event {event} of incarnation {born} holds {content}"
        for _, event, _, born, content, _ in rows
        if born != incarnation or f'"{event.rstrip("+")} ' not in (content or "")
    ]
    return problems


def _counted(rows: Rows) -> list[tuple[str, int]]:
    return list(Counter(row[1] for row in rows).items())


def _states(sessions: Rows, logs: Mapping[str, Rows], state: Rows) -> list[str]:
    """Compares state with the logs. Of a row that several sessions write to, the last of one of them has to be there."""
    allowed: dict[tuple[Any, ...], set[str | None]] = defaultdict(set)
    for name, app, user, *_ in sessions:
        last: dict[tuple[Any, ...], str | None] = {}
        for row in logs[name]:
            for key, value in json.loads(row[-1])["state_delta"].items():
                owner: tuple[Any, ...] = (app, user, name, "SESSION", key)
                if key.startswith("user:"):
                    owner = (app, user, None, "USER", key.removeprefix("user:"))
                elif key.startswith("app:"):
                    owner = (app, None, None, "APP", key.removeprefix("app:"))
                last[owner] = None if value is None else json.dumps(value)
        for owner, text in last.items():
            allowed[owner].add(text)
    found = {row[:-1]: row[-1] for row in state}
    return [
        f"state {owner}: {found.get(owner)!r}, by the logs one of {sorted(map(str, allowed[owner]))[:5]}"
        for owner in allowed.keys() | found.keys()
        if found.get(owner) not in allowed[owner]
    ]
