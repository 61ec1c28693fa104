"""The calls, tables and figures that the product promises, each as a user would write it."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from google.adk.agents import LlmAgent
from google.adk.artifacts import InMemoryArtifactService
from google.adk.events import Event, EventActions
from google.adk.runners import Runner
from google.adk.sessions import BaseSessionService, InMemorySessionService, Session
from google.genai import types
from pydantic import ValidationError

from sessiondb import DatabaseSessionService
from sessiondb.errors import DatabaseCorruptError
from tests.scripted import ScriptedModel, reply_text, say, scripted_agent

pytestmark = pytest.mark.anyio

APP = "my_app"
USER = "user_123"
ID = "sess_abc"


def delta_event(invocation_id: str, **state_delta: Any) -> Event:
    return Event(
        invocation_id=invocation_id,
        author="agent",
        timestamp=time.time(),
        actions=EventActions(state_delta=state_delta),
    )


@pytest.fixture
async def session(service: DatabaseSessionService) -> Session:
    return await service.create_session(app_name=APP, user_id=USER, session_id=ID, state={"theme": "dark"})


async def read(service: DatabaseSessionService, session_id: str = ID) -> Session:
    session = await service.get_session(app_name=APP, user_id=USER, session_id=session_id)
    assert session is not None
    return session


# --- Opening ---------------------------------------------------------------------------------------------------------


async def test_documented_default_path_is_dot_adk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SESSIONDB_PATH", raising=False)
    async with DatabaseSessionService() as service:
        await service.create_session(app_name=APP, user_id=USER)
    assert (tmp_path / ".adk" / "adk.sqlite3").is_file()


@pytest.mark.parametrize("kind", [str, Path])
async def test_documented_path_is_str_or_path_with_folders(kind: type[str | Path], tmp_path: Path) -> None:
    path = tmp_path / "custom" / "location" / "sessions.db"
    async with DatabaseSessionService(path=kind(path)) as service:
        await service.create_session(app_name=APP, user_id=USER)
    assert path.is_file()


def test_documented_service_is_adk_session_service() -> None:
    assert issubclass(DatabaseSessionService, BaseSessionService)
    public = {name for name in dir(InMemorySessionService) if not name.startswith("_")}
    # The rest of the in-memory service's names are its dicts and its deprecated twins of the calls.
    assert {name for name in public if not name.endswith("_sync")} <= set(dir(DatabaseSessionService))


async def test_documented_runner_with_artifact_service(service: DatabaseSessionService) -> None:
    await service.create_session(app_name="data_science_agent", user_id=USER, session_id=ID)
    agent: LlmAgent = scripted_agent(ScriptedModel(["hello"]))
    async with Runner(
        agent=agent,
        app_name="data_science_agent",
        session_service=service,
        artifact_service=InMemoryArtifactService(),
    ) as runner:
        events = await say(runner, "hi", session_id=ID)
    assert reply_text(events) == "hello"
    assert service.get_event_count("data_science_agent", USER, ID) == 2


# --- Events and state ------------------------------------------------------------------------------------------------


async def test_documented_state_delta_is_recorded_in_event(service: DatabaseSessionService, session: Session) -> None:
    event = delta_event("inv_1", **{"theme": "light", "user:login_count": 5})
    assert await service.append_event(session, event) is event
    assert session.state == {"theme": "light", "user:login_count": 5}
    stored = await read(service)
    assert stored.state == session.state
    assert [e.actions.state_delta for e in stored.events] == [{"theme": "light", "user:login_count": 5}]


async def test_documented_state_prefixes_app_user_temp(service: DatabaseSessionService) -> None:
    created = await service.create_session(
        app_name=APP,
        user_id=USER,
        session_id=ID,
        state={
            "dataset_loaded": True,
            "user:preferred_language": "en",
            "app:global_config": {"retries": 3},
            "temp:trace_id": "xyz",
        },
    )
    shared = {"user:preferred_language": "en", "app:global_config": {"retries": 3}}
    assert created.state == {"dataset_loaded": True, **shared}
    of_the_user = await service.create_session(app_name=APP, user_id=USER)
    assert of_the_user.state == shared
    of_another_user = await service.create_session(app_name=APP, user_id="another")
    assert of_another_user.state == {"app:global_config": {"retries": 3}}
    of_another_app = await service.create_session(app_name="another", user_id=USER)
    assert of_another_app.state == {}


async def test_documented_none_deletes_a_state_key(service: DatabaseSessionService, session: Session) -> None:
    await service.append_event(session, delta_event("inv_1", old_key="old", other=1))
    await service.update_keys(
        app_name=APP, user_id=USER, session_id=ID, delta={"old_key": None, "never_set": None, "new_key": "value"}
    )
    assert (await read(service)).state == {"theme": "dark", "other": 1, "new_key": "value"}


async def test_documented_create_session_drops_temp_keys(service: DatabaseSessionService, database_path: Path) -> None:
    await service.create_session(
        app_name="data_science_agent",
        user_id=USER,
        session_id=ID,
        state={"user:preferred_model": "gpt-4", "dataset_path": "/data/train.csv", "temp:request_id": "req_xyz"},
    )
    with closing(sqlite3.connect(database_path)) as connection:
        rows = connection.execute("SELECT scope, state_key, state_value FROM adk_state ORDER BY scope").fetchall()
    assert rows == [("SESSION", "dataset_path", '"/data/train.csv"'), ("USER", "preferred_model", '"gpt-4"')]


async def test_documented_tool_call_is_recorded_with_arguments(
    service: DatabaseSessionService, session: Session
) -> None:
    call = types.FunctionCall(name="train_model", args={"trees": 100})
    await service.append_event(
        session,
        Event(
            invocation_id="tool_call_42",
            author="agent",
            timestamp=time.time(),
            content=types.Content(role="model", parts=[types.Part(function_call=call)]),
            actions=EventActions(
                state_delta={
                    "model_trained": True,
                    "model_path": "/models/classifier.pkl",
                    "user:models_trained": 10,
                }
            ),
        ),
    )
    stored = await read(service)
    assert stored.state == {
        "theme": "dark",
        "model_trained": True,
        "model_path": "/models/classifier.pkl",
        "user:models_trained": 10,
    }
    (event,) = stored.events
    assert event.get_function_calls() == [call]
    assert await service.get_user_state(app_name=APP, user_id=USER) == {"models_trained": 10}


def test_documented_content_is_no_plain_dict() -> None:
    content: Any = {"tool": "train_model", "params": {"trees": 100}}
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        Event(author="agent", content=content)


async def test_documented_update_keys_needs_no_event(service: DatabaseSessionService, session: Session) -> None:
    await service.update_keys(
        app_name=APP,
        user_id=USER,
        session_id=ID,
        delta={"progress": 0.75, "user:last_activity": "2025-01-10T14:30:00", "temp:debug_flag": True},
    )
    stored = await read(service)
    assert stored.state == {"theme": "dark", "progress": 0.75, "user:last_activity": "2025-01-10T14:30:00"}
    (event,) = stored.events
    assert event.actions.state_delta == {"progress": 0.75, "user:last_activity": "2025-01-10T14:30:00"}
    # A conversation in progress is not disturbed.
    await service.append_event(session, delta_event("inv_1"))


async def test_documented_update_keys_by_position(service: DatabaseSessionService, session: Session) -> None:
    await service.append_event(session, delta_event("inv_1", old_key1=1, old_key2=2))
    await service.update_keys(APP, USER, ID, {"old_key1": None, "old_key2": None, "new_key": "value"})
    assert (await read(service)).state == {"theme": "dark", "new_key": "value"}


# --- Listing, counting, deleting -------------------------------------------------------------------------------------


async def test_documented_list_sessions_by_user_app_or_all(service: DatabaseSessionService) -> None:
    for app_name, user_id in ((APP, "a"), (APP, "a"), (APP, "b"), ("another", "a")):
        await service.create_session(app_name=app_name, user_id=user_id)
    of_user = await service.list_sessions(app_name=APP, user_id="a")
    of_app = await service.list_sessions(app_name=APP)
    of_all = await service.list_sessions()
    assert [len(of_user), len(of_app), len(of_all)] == [2, 3, 4]
    row = of_user[0]
    assert (row["app_name"], row["user_id"], row["session_id"]) == (APP, "a", of_user.sessions[0].id)
    assert row["created_at"] == row["updated_at"]


async def test_documented_delete_session_deletes_events_and_state(
    service: DatabaseSessionService, session: Session, database_path: Path
) -> None:
    await service.append_event(session, delta_event("inv_1", **{"x": 1, "user:y": 2}))
    await service.delete_session(app_name=APP, user_id=USER, session_id=ID)
    assert await service.get_session(app_name=APP, user_id=USER, session_id=ID) is None
    with closing(sqlite3.connect(database_path)) as connection:
        counts = [
            connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in ("adk_sessions", "adk_events", "adk_state WHERE scope = 'SESSION'", "adk_state")
        ]
    # The user outlives the session.
    assert counts == [0, 0, 0, 1]


async def test_documented_get_event_count(service: DatabaseSessionService, session: Session) -> None:
    for number in range(3):
        await service.append_event(session, delta_event(f"inv_{number}"))
    assert service.get_event_count(APP, USER, ID) == 3
    assert service.get_event_count(APP, USER, "nobody") == 0


async def test_documented_get_stats_counts(service: DatabaseSessionService, session: Session) -> None:
    await service.append_event(session, delta_event("inv_1", **{"a": 1, "user:b": 2, "app:c": 3}))
    stats = service.get_stats()
    assert (stats["sessions"], stats["events"], stats["state_keys"]) == (1, 1, 4)
    assert 0 < stats["db_size_mb"] < 100


async def test_documented_vacuum_reclaims_space(service: DatabaseSessionService, session: Session) -> None:
    await service.append_event(session, delta_event("inv_1", ballast="x" * 2_000_000))
    service.vacuum()
    before = service.get_stats()["db_size_mb"]
    await service.delete_session(APP, USER, ID)
    service.vacuum()
    assert service.get_stats()["db_size_mb"] < before - 2


def test_documented_vacuum_reports_corrupt_file(database_path: Path) -> None:
    async def fill() -> None:
        async with DatabaseSessionService(database_path) as service:
            session = await service.create_session(app_name=APP, user_id=USER, session_id=ID)
            await asyncio.gather(*(service.append_event(session, delta_event(f"inv_{n}")) for n in range(500)))

    async def vacuum() -> None:
        async with DatabaseSessionService(database_path) as service:
            service.vacuum()

    asyncio.run(fill())
    with closing(sqlite3.connect(database_path)) as connection:
        (root,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'adk_events_log'").fetchone()
        (page_size,) = connection.execute("PRAGMA page_size").fetchone()
    with database_path.open("r+b") as file:
        file.seek((root - 1) * page_size)
        file.write(b"\xff" * page_size)
    damaged = database_path.read_bytes()
    with pytest.raises(DatabaseCorruptError):
        asyncio.run(vacuum())
    assert database_path.read_bytes() == damaged


# --- Over time, and at the same time ---------------------------------------------------------------------------------


async def test_documented_sessions_survive_a_restart(database_path: Path) -> None:
    async with DatabaseSessionService(database_path) as before:
        session = await before.create_session(app_name=APP, user_id=USER, session_id=ID)
        await before.append_event(session, delta_event("inv_1", progress=0.5))
    async with DatabaseSessionService(database_path) as after:
        assert await read(after) == session


async def test_documented_number_of_sessions(service: DatabaseSessionService) -> None:
    created = await asyncio.gather(*(service.create_session(APP, f"user-{n % 10}") for n in range(3_000)))
    assert len({session.id for session in created}) == 3_000
    assert len(await service.list_sessions(APP)) == 3_000
    assert len(await service.list_sessions(APP, "user-7")) == 300
    assert service.get_stats()["sessions"] == 3_000


async def test_documented_number_of_events_in_a_session(service: DatabaseSessionService, session: Session) -> None:
    await asyncio.gather(*(service.append_event(session, delta_event(f"inv_{n}", step=n)) for n in range(10_000)))
    assert service.get_event_count(APP, USER, ID) == 10_000
    stored = await read(service)
    assert stored.state["step"] == 9_999
    assert [event.invocation_id for event in stored.events] == [f"inv_{n}" for n in range(10_000)]


def test_documented_threads_with_own_event_loops(database_path: Path) -> None:
    service = DatabaseSessionService(database_path)
    together = threading.Barrier(4)

    def converse(number: int) -> None:
        async def appends() -> None:
            session = await service.create_session(APP, USER, f"thread-{number}")
            together.wait()
            for step in range(50):
                await service.append_event(session, delta_event(f"inv_{step}", **{f"user:thread_{number}": step}))

        asyncio.run(appends())

    threads = [threading.Thread(target=converse, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    async def end() -> dict[str, Any]:
        assert [service.get_event_count(APP, USER, f"thread-{number}") for number in range(4)] == [50] * 4
        state = await service.get_user_state(APP, USER)
        await service.close()
        return state

    assert asyncio.run(end()) == {f"thread_{number}": 49 for number in range(4)}


async def test_documented_file_size_per_session_and_event(service: DatabaseSessionService) -> None:
    empty = service.get_stats()["db_size_mb"]
    sessions = await asyncio.gather(*(service.create_session(APP, USER, f"session-{n}") for n in range(1_000)))
    service.vacuum()
    with_sessions = service.get_stats()["db_size_mb"]
    await asyncio.gather(
        *(service.append_event(session, delta_event(f"inv_{n}", step=n)) for n in range(5) for session in sessions)
    )
    service.vacuum()
    with_events = service.get_stats()["db_size_mb"]
    assert (with_sessions - empty) * 2**20 / 1_000 < 1_024
    assert (with_events - with_sessions) * 2**20 / 5_000 < 512


# --- The tables ------------------------------------------------------------------------------------------------------


async def test_documented_tables_columns_and_keys(service: DatabaseSessionService, database_path: Path) -> None:
    del service
    with closing(sqlite3.connect(database_path)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        columns = {
            table: {name: kind for _, name, kind, *_ in connection.execute(f"PRAGMA table_info({table})")}
            for table in ("adk_sessions", "adk_events", "adk_state")
        }
        keys = {
            table: [
                name
                for name, _ in connection.execute(
                    "SELECT name, pk FROM pragma_table_info(?) WHERE pk ORDER BY pk", (table,)
                )
            ]
            for table in columns
        }
        references = connection.execute(
            'SELECT "table", "from", "to" FROM pragma_foreign_key_list(?) ORDER BY seq', ("adk_events",)
        ).fetchall()
    text = dict.fromkeys
    identity = ("app_name", "user_id", "session_id")
    assert columns["adk_sessions"].items() >= text([*identity, "created_at", "updated_at"], "TEXT").items()
    assert (
        columns["adk_events"].items()
        >= {
            "id": "INTEGER",
            **text([*identity, "invocation_id", "author", "timestamp", "content", "actions"], "TEXT"),
        }.items()
    )
    assert (
        columns["adk_state"].items()
        >= text([*identity, "scope", "state_key", "state_value", "updated_at"], "TEXT").items()
    )
    assert keys == {
        "adk_sessions": [*identity],
        "adk_events": ["id"],
        "adk_state": [*identity, "scope", "state_key"],
    }
    assert references == [("adk_sessions", column, column) for column in identity]


async def test_documented_state_scope_has_null_columns(service: DatabaseSessionService, database_path: Path) -> None:
    await service.create_session(APP, USER, ID, {"a": 1, "user:b": [2], "app:c": {"d": None}})
    with closing(sqlite3.connect(database_path)) as connection:
        rows = connection.execute(
            "SELECT app_name, user_id, session_id, scope, state_key, state_value FROM adk_state ORDER BY state_key"
        ).fetchall()
    assert rows == [
        (APP, USER, ID, "SESSION", "a", "1"),
        (APP, USER, None, "USER", "b", "[2]"),
        (APP, None, None, "APP", "c", '{"d":null}'),
    ]


async def test_documented_sql_query_while_service_writes(
    service: DatabaseSessionService, session: Session, database_path: Path
) -> None:
    await service.append_event(session, delta_event("inv_1"))
    # A connection of this process, opened and closed beside the service, takes nothing of what comes after it.
    connection = sqlite3.connect(database_path, timeout=30.0)
    connection.row_factory = sqlite3.Row
    events = connection.execute(
        "SELECT invocation_id, author, timestamp, content, actions FROM adk_events"
        " WHERE app_name=? AND user_id=? AND session_id=? ORDER BY timestamp DESC",
        (APP, USER, ID),
    ).fetchall()
    connection.close()
    assert [(event["invocation_id"], event["author"], event["content"]) for event in events] == [
        ("inv_1", "agent", None)
    ]
    await service.append_event(session, delta_event("inv_2"))
    await service.close()
    async with DatabaseSessionService(database_path) as reopened:
        assert [event.invocation_id for event in (await read(reopened)).events] == ["inv_1", "inv_2"]


async def test_documented_audit_trail_of_a_state_key(
    service: DatabaseSessionService, session: Session, database_path: Path
) -> None:
    await service.append_event(session, delta_event("inv_1", model_path="/models/a.pkl"))
    await service.append_event(session, delta_event("inv_2", something_else=1))
    await service.update_keys(APP, USER, ID, {"model_path": "/models/b.pkl"})
    await service.append_event(session, delta_event("inv_3", model_path=None))
    with closing(sqlite3.connect(database_path)) as connection:
        connection.row_factory = sqlite3.Row
        changes = connection.execute(
            "SELECT timestamp, actions FROM adk_events"
            " WHERE app_name=? AND user_id=? AND session_id=? AND actions LIKE ? ORDER BY id",
            (APP, USER, ID, "%model_path%"),
        ).fetchall()
    deltas = [json.loads(change["actions"]).get("state_delta", {}) for change in changes]
    assert [delta.get("model_path") for delta in deltas] == ["/models/a.pkl", "/models/b.pkl", None]
    # Times are text of one width, so that text order is time order.
    assert {len(change["timestamp"]) for change in changes} == {len("2025-01-10T14:30:00.000000Z")}
