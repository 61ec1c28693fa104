"""The tables as people query them with SQL."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from google.adk.events import Event

from sessiondb import DatabaseSessionService, errors
from tests.sqlite.schema.rows import APP, SESSION, USER, event, get, rows

pytestmark = pytest.mark.anyio

# The columns that the documentation names come first and have these types; sessiondb's own follow.
DOCUMENTED = {
    "adk_sessions": {
        "app_name": "TEXT",
        "user_id": "TEXT",
        "session_id": "TEXT",
        "created_at": "TEXT",
        "updated_at": "TEXT",
    },
    "adk_events": {
        "id": "INTEGER",
        "app_name": "TEXT",
        "user_id": "TEXT",
        "session_id": "TEXT",
        "invocation_id": "TEXT",
        "author": "TEXT",
        "timestamp": "TEXT",
        "content": "TEXT",
        "actions": "TEXT",
    },
    "adk_state": {
        "app_name": "TEXT",
        "user_id": "TEXT",
        "session_id": "TEXT",
        "scope": "TEXT",
        "state_key": "TEXT",
        "state_value": "TEXT",
        "updated_at": "TEXT",
    },
}
PRIMARY_KEYS = {
    "adk_sessions": ["app_name", "user_id", "session_id"],
    "adk_events": ["id"],
    "adk_state": ["app_name", "user_id", "session_id", "scope", "state_key"],
}
FIXED_WIDTH = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


async def test_schema_of_tables_is_as_documented(service: DatabaseSessionService, database_path: Path) -> None:
    for table, columns in DOCUMENTED.items():
        info = rows(database_path, f"PRAGMA table_info({table})")
        assert {name: kind for _, name, kind, *_ in info[: len(columns)]} == columns
        keys = sorted((place, name) for _, name, _, _, _, place in info if place)
        assert [name for _, name in keys] == PRIMARY_KEYS[table]
    references = rows(database_path, "PRAGMA foreign_key_list(adk_events)")
    assert [(row[2], row[3], row[4], row[6]) for row in references] == [
        ("adk_sessions", column, column, "CASCADE") for column in PRIMARY_KEYS["adk_sessions"]
    ]
    assert rows(database_path, "PRAGMA journal_mode") == [("wal",)]
    with closing(sqlite3.connect(database_path)) as connection:
        assert connection.execute("PRAGMA application_id").fetchone() == (0x53455344,)
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)


async def test_state_scope_columns_app_user_session(service: DatabaseSessionService, database_path: Path) -> None:
    session = await service.create_session(APP, USER, SESSION, {"own": 1, "user:theme": "dark", "app:version": [1]})
    await service.append_event(session, event(own=2, more=None, user__count=3, temp__trace="secret"))
    found = rows(
        database_path,
        "SELECT scope, app_name, user_id, session_id, state_key, state_value FROM adk_state ORDER BY scope, state_key",
    )
    assert found == [
        ("APP", APP, None, None, "version", "[1]"),
        ("SESSION", APP, USER, SESSION, "own", "2"),
        ("USER", APP, USER, None, "count", "3"),
        ("USER", APP, USER, None, "theme", '"dark"'),
    ]


async def test_temp_state_never_reaches_a_file(service: DatabaseSessionService, database_path: Path) -> None:
    trace = "only for this invocation"
    session = await service.create_session(APP, USER, SESSION, {"temp:trace": trace, "own": "for everybody"})
    await service.append_event(session, event(temp__trace=trace, own="for everybody"))
    await service.update_keys(APP, USER, SESSION, {"temp:trace": trace})
    files = _bytes_of_files(database_path.parent)
    assert len(files) == 3
    assert b"for everybody" in b"".join(files)
    assert trace.encode() not in b"".join(files)


def _bytes_of_files(folder: Path) -> list[bytes]:
    return [found.read_bytes() for found in folder.iterdir()]


STRANGERS = [
    ("other", USER, SESSION),
    (APP, "other", SESSION),
    (APP, USER, "other"),
    (APP, "%", SESSION),
    (APP, USER, "_" * 8),
]


@pytest.mark.parametrize("key", STRANGERS)
async def test_ids_of_other_users_and_sql_wildcards_find_nothing(
    service: DatabaseSessionService, key: tuple[str, str, str]
) -> None:
    owned = await service.create_session(APP, USER, SESSION, {"own": 1, "user:theme": "dark"})
    await service.append_event(owned, event(own=2))
    assert await service.get_session(*key) is None
    assert service.get_event_count(*key) == 0
    await service.delete_session(*key)
    with pytest.raises(errors.SessionNotFoundError):
        await service.update_keys(*key, {"own": "changed", "user:theme": "changed", "app:x": "changed"})
    app_name, user_id, session_id = key
    impostor = owned.model_copy(update={"app_name": app_name, "user_id": user_id, "id": session_id}, deep=True)
    with pytest.raises(errors.SessionNotFoundError):
        await service.append_event(impostor, event(own="changed", user__theme="changed"))
    assert await get(service) == owned
    created = await service.create_session(*key, {"own": "changed", "user:theme": "changed"})
    assert created.events == []
    assert (await get(service)).state["own"] == 2
    assert (await service.get_user_state(APP, USER))["theme"] == ("dark" if key[:2] != (APP, USER) else "changed")


async def test_duplicate_state_key_breaks_unique_index(service: DatabaseSessionService, database_path: Path) -> None:
    for number in range(3):
        await service.create_session(APP, USER, f"s{number}", {"own": number, "user:u": number, "app:a": number})
        await service.update_keys(APP, USER, "s0", {"own": -number, "user:u": -number, "app:a": -number})
    assert rows(database_path, "SELECT scope, count(*) FROM adk_state GROUP BY scope ORDER BY scope") == [
        ("APP", 1),
        ("SESSION", 3),
        ("USER", 1),
    ]
    duplicates = {
        "USER": (APP, USER, None, "USER", "u"),
        "APP": (APP, None, None, "APP", "a"),
        "SESSION": (APP, USER, "s0", "SESSION", "own"),
    }
    for row in duplicates.values():
        with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
            rows(database_path, "INSERT INTO adk_state VALUES (?, ?, ?, ?, ?, '1', '')", *row)
    with pytest.raises(sqlite3.IntegrityError, match="CHECK"):
        rows(database_path, "INSERT INTO adk_state VALUES (?, ?, ?, 'TEMP', 'k', '1', '')", APP, USER, "s0")


async def test_content_and_actions_are_json_for_sql(service: DatabaseSessionService, database_path: Path) -> None:
    session = await service.create_session(APP, USER, SESSION)
    await service.append_event(session, event(own="grün", gone=None))
    await service.append_event(session, Event(author="agent"))
    found = rows(
        database_path,
        "SELECT content ->> '$.parts[0].text', actions ->> '$.state_delta.own', actions -> '$.state_delta.gone'"
        " FROM adk_events ORDER BY id",
    )
    assert found == [("grün", "grün", "null"), (None, None, None)]
    assert len(rows(database_path, "SELECT 1 FROM adk_events WHERE actions LIKE '%grün%'")) == 1


async def test_timestamps_are_utc_text_that_sorts_by_time(service: DatabaseSessionService, database_path: Path) -> None:
    session = await service.create_session(APP, USER, SESSION)
    moments = [1_700_000_000.5, 0.0, -1.0, 1.0000005, 253_402_300_799.0, -62_135_596_800.0, 1_700_000_000.25, 1e9]
    for moment in moments:
        await service.append_event(session, event(moment, own=moment, user__u=moment))
    texts = rows(
        database_path,
        "SELECT timestamp FROM adk_events UNION ALL SELECT created_at FROM adk_sessions"
        " UNION ALL SELECT updated_at FROM adk_sessions UNION ALL SELECT updated_at FROM adk_state",
    )
    assert [text for (text,) in texts if not FIXED_WIDTH.fullmatch(text)] == []
    sorted_by_text = rows(database_path, "SELECT event_time FROM adk_events ORDER BY timestamp")
    assert [time for (time,) in sorted_by_text] == sorted(moments)
    assert rows(database_path, "SELECT timestamp FROM adk_events WHERE event_time = 0") == [
        ("1970-01-01T00:00:00.000000Z",)
    ]
    assert rows(database_path, "SELECT updated_at, update_time FROM adk_sessions") == [
        ("2001-09-09T01:46:40.000000Z", 1e9)
    ]


async def test_event_seq_has_no_gaps(service: DatabaseSessionService, database_path: Path) -> None:
    session = await service.create_session(APP, USER, SESSION)
    other = await service.create_session(APP, USER, "other")
    for number in range(5):
        await service.append_event(session, event(own=number))
        await service.append_event(other, event())
        await service.append_event(session, session.events[0])
        await service.update_keys(APP, USER, SESSION, {"own": -number})
    found = rows(database_path, "SELECT seq, revision FROM adk_events WHERE session_id = ? ORDER BY id", SESSION)
    assert found == [(seq, (seq + 1) // 2) for seq in range(1, 11)]
    assert rows(database_path, "SELECT last_seq, revision FROM adk_sessions WHERE session_id = ?", SESSION) == [(10, 5)]
