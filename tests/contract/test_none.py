"""None in state: kept at creation; in a delta it deletes, or is kept as ADK's in-memory service keeps it."""

from __future__ import annotations

import math
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from google.adk.sessions import BaseSessionService, InMemorySessionService

from sessiondb import DatabaseSessionService, stores
from sessiondb.adk.events import decode_event
from sessiondb.options import NoneInDelta
from sessiondb.stores.sqlite.repair.check import check
from sessiondb.transfer import export_lines, import_lines
from tests.command import run_sessiondb
from tests.contract.places import APP, SESSION, USER, event

pytestmark = [pytest.mark.anyio, pytest.mark.each_store]

SET: dict[str, Any] = {"own": 1, "user:theme": 1, "app:version": 1}
NONES: dict[str, Any] = dict.fromkeys(SET)


async def states(service: BaseSessionService, session_id: str = SESSION) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a session's state is read as, and that of its user."""
    session = await service.get_session(app_name=APP, user_id=USER, session_id=session_id)
    assert session is not None
    return session.state, await service.get_user_state(app_name=APP, user_id=USER)


async def test_created_session_holds_none_as_in_memory(service: DatabaseSessionService, location: Path | str) -> None:
    memory = InMemorySessionService()
    for place in (memory, service):
        await place.create_session(app_name=APP, user_id=USER, session_id="before", state=SET)
        state = {**NONES, "temp:trace": None}
        created = await place.create_session(app_name=APP, user_id=USER, session_id=SESSION, state=state)
        assert created.state == NONES
    async with DatabaseSessionService(location) as other:
        for session_id in ("before", SESSION):
            assert await states(other, session_id) == await states(memory, session_id)


async def test_created_session_holds_none_for_nan(service: DatabaseSessionService) -> None:
    created = await service.create_session(APP, USER, SESSION, {"own": math.nan, "user:u": -math.inf})
    assert created.state == {"own": None, "user:u": None}
    assert await states(service) == (created.state, {"u": None})


async def test_stored_none_is_as_in_memory(database_path: Path) -> None:
    memory = InMemorySessionService()
    async with DatabaseSessionService(database_path, none_in_delta="store") as service:
        for place in (memory, service):
            session = await place.create_session(app_name=APP, user_id=USER, session_id=SESSION, state=SET)
            await place.append_event(session, event(own=None, user__theme=None, app__version=None, never=None))
            await place.append_event(session, event(never=3, temp__trace=None))
            await place.append_event(session, event(never=None))
            assert session.state == {**NONES, "never": None, "temp:trace": None}
        assert await states(service) == await states(memory) == ({**NONES, "never": None}, {"theme": None})
        await service.update_keys(APP, USER, SESSION, {"own": 2, "user:theme": 2})
        await service.update_keys(APP, USER, SESSION, {"own": None, "user:theme": math.nan, "outside": None})
    async with DatabaseSessionService(database_path) as other:
        assert await states(other) == ({**NONES, "never": None, "outside": None}, {"theme": None})
        listed = (await other.list_sessions(APP)).sessions
        assert listed[0].state == {**NONES, "never": None, "outside": None}
    assert check(database_path, decode_event).is_sound


async def test_services_of_one_file_may_differ_and_delete_what_holds_none(location: Path | str) -> None:
    async with (
        DatabaseSessionService(location, none_in_delta="store") as storing,
        DatabaseSessionService(location) as deleting,
    ):
        session = await storing.create_session(APP, USER, SESSION, SET)
        await storing.append_event(session, event(own=None, user__theme=None))
        assert await states(deleting) == ({**SET, "own": None, "user:theme": None}, {"theme": None})
        await deleting.append_event(session, event(own=None, user__theme=None))
        assert session.state == {"app:version": 1}
        assert await states(storing) == ({"app:version": 1}, {})


@pytest.mark.parametrize("first", ["store", "delete"])
async def test_event_delivered_again_under_the_other_option_is_known(location: Path | str, first: NoneInDelta) -> None:
    then: NoneInDelta = "delete" if first == "store" else "store"
    given = event(own=None)
    given.branch = "b"
    async with DatabaseSessionService(location, none_in_delta=first) as service:
        session = await service.create_session(APP, USER, SESSION, SET)
        await service.append_event(session, given.model_copy(deep=True))
        before = await states(service)
    async with DatabaseSessionService(location, none_in_delta=then) as other:
        await other.append_event(session, given)
        assert other.get_event_count(APP, USER, SESSION) == 1
        assert await states(other) == before


# --- The log ----------------------------------------------------------------------------------------------------------


async def _both(path: Path) -> None:
    """Fills a file by services of both kinds; each key is told apart by what became of it."""
    async with DatabaseSessionService(path) as deleting, DatabaseSessionService(path, none_in_delta="store") as storing:
        session = await deleting.create_session(APP, USER, SESSION, {"created": None})
        await deleting.append_event(session, event(gone=1, kept=1, user__gone=1, user__kept=1))
        await deleting.append_event(session, event(gone=None, user__gone=None))
        await storing.append_event(session, event(kept=None, user__kept=None))
        await storing.update_keys(APP, USER, SESSION, {"outside": None, 'we"ird': None})


FILLED = {"created": None, "kept": None, "user:kept": None, "outside": None, 'we"ird': None}


async def test_history_and_show_tell_none_from_deletion(database_path: Path) -> None:
    await _both(database_path)
    for key in ("kept", "user:kept", "outside", 'we"ird', "gone", "user:gone"):
        done = run_sessiondb("history", database_path, key, "--json")
        last = done.stdout.splitlines()[-1]
        assert f'"value":null,"deleted":{"true" if "gone" in key else "false"}' in last.replace(": ", ":").replace(
            ", ", ","
        )
        shown = run_sessiondb("history", database_path, key).stdout.splitlines()[-1].split()[-1]
        assert shown == ("deleted" if "gone" in key else "null")
    lines = run_sessiondb("show", database_path, SESSION).stdout.splitlines()
    assert {"    state gone deleted", "    state kept = null", "    state outside = null"} <= set(lines)


async def test_export_and_import_keep_what_none_did(database_path: Path, tmp_path: Path) -> None:
    await _both(database_path)
    target = tmp_path / "target.sqlite3"
    with stores.open_reader(database_path) as reader:
        lines = list(export_lines(reader))
    with stores.open_import(target) as into:
        import_lines(lines, into)
    async with DatabaseSessionService(target) as service:
        assert (await states(service))[0] == FILLED
    with stores.open_reader(target) as reader:
        assert list(export_lines(reader))[1:] == lines[1:]


async def test_actions_and_extra_say_what_none_did(database_path: Path) -> None:
    await _both(database_path)
    with closing(sqlite3.connect(database_path)) as connection:
        rows = connection.execute("SELECT actions, extra FROM adk_events ORDER BY id").fetchall()
        held = connection.execute("SELECT state_key, state_value FROM adk_state ORDER BY state_key, scope").fetchall()
    assert rows[1:] == [
        ('{"state_delta":{"gone":null,"user:gone":null}}', None),
        ('{"state_delta":{"kept":null,"user:kept":null}}', '{"stored_none":["kept","user:kept"]}'),
        ('{"state_delta":{"outside":null,"we\\"ird":null}}', '{"stored_none":["outside","we\\"ird"]}'),
    ]
    assert held == [(key, "null") for key in ("created", "kept", "kept", "outside", 'we"ird')]
