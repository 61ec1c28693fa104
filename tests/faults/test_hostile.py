"""Hostile input: ids and keys made to be mistaken, values made to break out, secrets that must stay where they are."""

from __future__ import annotations

import ast
import asyncio
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from google.adk.events import Event, EventActions
from google.adk.sessions import Session
from google.genai import types
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import sessiondb
from sessiondb import DatabaseSessionService
from sessiondb.errors import (
    CorruptRowError,
    InvalidInputError,
    SessionDBError,
    SessionNotFoundError,
    StaleSessionError,
)
from tests.databases import query
from tests.faults.figures import Figures
from tests.faults.sizes import sized
from tests.faults.workload import APP, make_event

HOSTILE = [
    "' OR 1=1--",
    "'; DROP TABLE adk_events; --",
    '"',
    "%",
    "_",
    "a%",
    "a_",
    "a",
    "A",
    "a ",
    "$.x",
    "$",
    "[0]",
    '{"a":1}',
    "null",
    "../..",
    "app:x",
    "app:app:x",
    "user:x",
    "user:",
    "temp:x",
    "é",
    "e\u0301",
    "\ufeff",
    "\u202e",
    "😀",
    "a\nb",
    "?1",
    ":app_name",
    "x" * 4000,
]
UNUSABLE = ["a\0b", "\0", "\ud800", "x" * 100_000]
texts = st.one_of(st.sampled_from(HOSTILE), st.text(max_size=12))
ids = texts.filter(lambda text: bool(text.strip()) and text == text.strip() and "\0" not in text)
keys = st.tuples(ids, ids, ids)
EXAMPLES = sized(12, 600)
fuzzed = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


pytestmark = pytest.mark.each_store

_OBJECTS = """
    SELECT relname, relkind::text FROM pg_class WHERE relnamespace = 'public'::regnamespace
    UNION ALL SELECT proname, prosrc FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    UNION ALL SELECT tgname, pg_get_triggerdef(oid) FROM pg_trigger
"""


def schema(location: Path | str) -> list[tuple[Any, ...]]:
    """Returns what there is beside rows."""
    return sorted(
        query(location, "SELECT name, sql FROM sqlite_schema" if isinstance(location, Path) else _OBJECTS), key=repr
    )


def content(location: Path | str) -> dict[str, list[Any]]:
    """Returns every row of the public tables."""
    tables = ("adk_sessions", "adk_events", "adk_state")
    return {table: sorted(query(location, f"SELECT * FROM {table}"), key=repr) for table in tables}


def empty(location: Path | str) -> None:
    """Leaves no session and no state of another example."""
    if isinstance(location, Path):
        location.unlink(missing_ok=True)
        return
    with suppress(psycopg.errors.UndefinedTable):
        query(location, "TRUNCATE adk_sessions, adk_events, adk_state")


async def fill(service: DatabaseSessionService, key: tuple[str, str, str], mark: str) -> Session:
    app, user, session_id = key
    session = await service.create_session(
        app_name=app,
        user_id=user,
        session_id=session_id,
        state={"own": mark, "user:theirs": f"user {mark}", "app:all": f"app {mark}"},
    )
    await service.append_event(session, make_event(f"event of {mark}", 1))
    return session


@given(first=keys, second=keys)
@example(first=("a", "a", "a"), second=("a", "a", "%"))
@example(first=("a", "a", "a"), second=("a", "%", "a"))
@fuzzed
def test_hostile_id_reaches_no_other_session(
    location: Path | str, first: tuple[str, str, str], second: tuple[str, str, str]
) -> None:
    """Whatever two keys are, as long as they differ in a part: nothing of one is read, changed or deleted through the
    other, and what does not exist looks the same, whoever owns what is near it.

    Seen failing with ``LIKE`` in place of ``=`` in the reading of a session.
    """
    empty(location)

    async def main() -> None:
        async with DatabaseSessionService(location, log_cache="off") as service:
            await fill(service, first, "first")
            before = content(location)
            app, user, session_id = second
            if first != second:
                assert await service.get_session(app_name=app, user_id=user, session_id=session_id) is None
                await service.delete_session(app_name=app, user_id=user, session_id=session_id)
                with pytest.raises(SessionNotFoundError):
                    await service.update_keys(app, user, session_id, {"own": "taken"})
                stranger = Session(app_name=app, user_id=user, id=session_id)
                with pytest.raises(SessionNotFoundError):
                    await service.append_event(stranger, make_event("intruder", 1))
                assert service.get_event_count(app, user, session_id) == 0
                assert content(location) == before
            theirs = await service.get_user_state(app_name=app, user_id=user)
            assert set(theirs) == ({"theirs", "last"} if first[:2] == second[:2] else set())
            listed = (await service.list_sessions(app_name=app, user_id=user)).sessions
            assert len(listed) == (first[:2] == second[:2])
            if first != second:
                neighbour = await fill(service, second, "second")
                assert neighbour.state["own"] == "second"
                await service.delete_session(app_name=app, user_id=user, session_id=session_id)
            mine = await service.get_session(app_name=first[0], user_id=first[1], session_id=first[2])
            assert mine is not None
            assert mine.state["own"] == "first"
            assert [event.id for event in mine.events] == ["event of first"]

    asyncio.run(main())


@given(key=keys, names=st.lists(texts, min_size=1, max_size=6, unique=True), value=texts)
@fuzzed
def test_hostile_values_taken_come_back_equal(
    location: Path | str, key: tuple[str, str, str], names: list[str], value: str
) -> None:
    """Ids, keys and values come back to the letter, or are refused before anything is written; tables stay as they are.

    Seen failing with keys put into a JSON path (``$.key``).
    """
    empty(location)
    app, user, session_id = key

    async def main() -> None:
        async with DatabaseSessionService(location) as service:
            tables = schema(location)
            session = await service.create_session(app_name=app, user_id=user, session_id=session_id)
            before = content(location)
            event = make_event(value or "e", 1)
            event.actions.state_delta = {name: {"value": value, name: [name]} for name in names}
            try:
                await service.append_event(session, event)
            except InvalidInputError:
                assert content(location) == before
            else:
                read = await service.get_session(app_name=app, user_id=user, session_id=session_id)
                assert read is not None
                kept = [name for name in names if not name.startswith("temp:")]
                assert read.state == {name: {"value": value, name: [name]} for name in kept}
                assert [event.id for event in read.events] == [value or "e"]
                assert (read.app_name, read.user_id, read.id) == key
            assert schema(location) == tables

    asyncio.run(main())


def test_invalid_input_is_refused_by_every_call(location: Path | str) -> None:
    async def main() -> None:
        async with DatabaseSessionService(location) as service:
            session = await fill(service, ("a", "u", "s"), "one")
            before = content(location)
            for bad in UNUSABLE:
                for place in range(3):
                    key = [*("a", "u", "s")]
                    key[place] = bad
                    app, user, session_id = key
                    for call in (
                        service.create_session(app_name=app, user_id=user, session_id=session_id),
                        service.get_session(app_name=app, user_id=user, session_id=session_id),
                        service.delete_session(app_name=app, user_id=user, session_id=session_id),
                        service.update_keys(app, user, session_id, {"x": 1}),
                    ):
                        with pytest.raises(InvalidInputError):
                            await call
                with pytest.raises(InvalidInputError):
                    await service.update_keys("a", "u", "s", {bad: 1})
                event = make_event("bad", 1)
                event.actions.state_delta = {bad: 1}
                with pytest.raises(InvalidInputError):
                    await service.append_event(session, event)
            assert content(location) == before
            await service.append_event(session, make_event("good", 2))

    asyncio.run(main())


def test_impossible_command_in_a_batch_fails_alone(location: Path | str) -> None:
    """In a batch of 64 with a stale, a missing, a repeated and a refused one among them.

    Seen failing with a stale append that raises inside the transaction.
    """

    async def main() -> None:
        async with DatabaseSessionService(location) as service:
            sessions = [await fill(service, ("a", "u", f"s{number}"), str(number)) for number in range(60)]
            stale = await service.get_session(app_name="a", user_id="u", session_id="s0")
            assert stale is not None
            await service.append_event(sessions[0], make_event("overtakes", 2))
            gone = Session(app_name="a", user_id="u", id="gone")
            unreadable = make_event("bad", 1)
            unreadable.actions.state_delta = {"deep": json.loads("[" * 500 + "]" * 500)}
            outcomes = await asyncio.gather(
                *(service.append_event(session, make_event(f"good {session.id}", 3)) for session in sessions[:30]),
                service.append_event(stale, make_event("stale", 3)),
                service.append_event(gone, make_event("missing", 3)),
                service.append_event(sessions[40], unreadable),
                service.append_event(sessions[0], make_event("overtakes", 2)),
                *(service.append_event(session, make_event(f"good {session.id}", 3)) for session in sessions[30:]),
                return_exceptions=True,
            )
            errors = [type(outcome) for outcome in outcomes if isinstance(outcome, BaseException)]
            assert errors == [StaleSessionError, SessionNotFoundError, InvalidInputError]
            stored = [row[0] for row in query(location, "SELECT event_id FROM adk_events")]
            assert {f"good s{number}" for number in range(60)} <= set(stored)
            assert not {"stale", "missing", "bad"} & set(stored)

    asyncio.run(main())


PICKLE = "cos\nsystem\n(S'touch {file}'\ntR."


def test_injected_payload_in_any_column_runs_no_code(location: Path | str, tmp_path: Path) -> None:
    """Each text column in turn holds a pickle; whatever a read says about it, no code of it runs, and the session
    beside it is read as ever."""
    bait = tmp_path / "bait"

    async def main() -> None:
        columns = {
            "adk_sessions": ["created_at", "updated_at"],
            "adk_events": ["invocation_id", "author", "timestamp", "content", "actions", "extra"],
            "adk_state": ["state_key", "state_value", "updated_at"],
        }
        for table, names in columns.items():
            for name in names:
                empty(location)
                async with DatabaseSessionService(location) as service:
                    await fill(service, ("a", "u", "bad"), "one")
                    await fill(service, ("b", "v", "good"), "two")
                where = "WHERE app_name = 'a'" + (
                    " AND scope = 'SESSION' AND state_key = 'own'" if table == "adk_state" else ""
                )
                query(location, f"UPDATE {table} SET {name} = ? {where}", PICKLE.format(file=bait))
                async with DatabaseSessionService(location) as service:
                    with suppress(CorruptRowError):
                        await service.get_session(app_name="a", user_id="u", session_id="bad")
                    good = await service.get_session(app_name="b", user_id="v", session_id="good")
                    assert good is not None
                    assert [event.id for event in good.events] == ["event of two"]
                    await service.append_event(good, make_event("more", 2))
                assert not bait.exists()

    asyncio.run(main())


def test_package_has_no_pickle_eval_or_exec() -> None:
    """Nothing is imported or called that turns data into code; ruff checks it too, where it is run."""
    forbidden_modules = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "jsonpickle", "code"}
    forbidden_calls = {"eval", "exec", "compile", "__import__", "system", "popen"}
    files = list(Path(sessiondb.__file__).parent.rglob("*.py"))
    assert len(files) > 20
    found: list[str] = []
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            match node:
                case ast.Import(names=names):
                    imported = {name.name.partition(".")[0] for name in names}
                    found += [f"{file.name}: imports {name}" for name in imported & forbidden_modules]
                case ast.ImportFrom(module=str(module)) if module.partition(".")[0] in forbidden_modules:
                    found.append(f"{file.name}: imports {module}")
                case ast.Call(func=ast.Name(id=name)) if name in forbidden_calls:
                    found.append(f"{file.name}:{node.lineno}: {name}()")
    assert found == []


SECRET = "hunter2-do-not-tell"  # noqa: S105  # the bait


class _Everything(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.said: list[str] = []

    def emit(self, entry: logging.LogRecord) -> None:
        self.said.append(repr(entry.__dict__))


@contextmanager
def listening() -> Iterator[list[str]]:
    """Collects whatever any logger says meanwhile."""
    handler = _Everything()
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield handler.said
    root.removeHandler(handler)
    root.setLevel(level)


def secret_event(event_id: str, value: Any = SECRET) -> Event:
    return Event(
        id=event_id,
        invocation_id="i",
        author="user",
        content=types.Content(role="user", parts=[types.Part(text=SECRET)]),
        actions=EventActions(state_delta={"key": value, "user:key": value}),
    )


@contextmanager
def lost(location: Path | str) -> Iterator[None]:
    """Takes away what events are written to."""
    if isinstance(location, Path):
        location.unlink()
        yield
    else:
        query(location, "ALTER TABLE adk_events RENAME TO lost")
        yield
        query(location, "ALTER TABLE lost RENAME TO adk_events")


def chain(error: BaseException | None) -> Iterator[str]:
    """What an error says, and those that it comes from."""
    while error is not None:
        yield f"{error!r} {error}"
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def test_hostile_secret_is_in_no_log_and_no_error(location: Path | str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The secret is in contents and state values; every way to an error is taken."""
    from sessiondb.stores.sqlite import wal, writer

    monkeypatch.setattr(wal, "_DUE_BYTES", 1)
    monkeypatch.setattr(writer, "_CHECK_SECONDS", 0)
    said: list[str] = []

    async def refused(call: Any) -> None:
        with pytest.raises(SessionDBError) as caught:
            await call
        said.extend(chain(caught.value))

    async def main() -> None:
        async with DatabaseSessionService(location) as service:
            session = await service.create_session(
                app_name=APP, user_id="u", session_id="s", state={"key": SECRET, "temp:x": SECRET}
            )
            await service.append_event(session, secret_event("e1"))
            stale = session.model_copy(deep=True)
            await service.append_event(session, secret_event("e2"))
            await refused(service.append_event(stale, secret_event("e3")))
            await refused(service.create_session(app_name=APP, user_id="u", session_id="s", state={"key": SECRET}))
            await refused(service.update_keys(APP, "u", "gone", {"key": SECRET}))
            loop: list[Any] = [SECRET]
            loop.append(loop)
            await service.append_event(session, secret_event("e4", loop))
            await refused(service.append_event(session, secret_event("\ud800")))
            await service.append_event(session, secret_event("e5", {SECRET + "\ud800": 1, 2: [SECRET + "\ud800"]}))
            await refused(service.append_event(session, secret_event("e5", [SECRET, 10**5_000])))
            deep = json.loads("[" * 500 + f'"{SECRET}"' + "]" * 500)
            await refused(service.append_event(session, secret_event("e6", deep)))
            with lost(location):
                await refused(service.append_event(session, secret_event("e7")))
        async with DatabaseSessionService(location, log_cache="off") as service:
            session = await service.create_session(app_name=APP, user_id="u", session_id="t", state={"key": SECRET})
            await service.append_event(session, secret_event("e2"))
            query(location, "UPDATE adk_events SET actions = ? WHERE event_id = 'e2'", f'{{"oops":"{SECRET}"}}')
            query(location, "UPDATE adk_state SET state_value = ? WHERE scope = 'USER'", f"{{{SECRET}")
            await refused(service.get_session(app_name=APP, user_id="u", session_id="t"))
            await refused(service.get_user_state(app_name=APP, user_id="u"))
            query(location, "UPDATE adk_events SET extra = ? WHERE event_id = 'e2'", f"{{{SECRET}")
            for call in (
                service.get_events(APP, "u", "t"),
                service.list_sessions(),
                service.usage(by="model"),
                service.get_session_at(APP, "u", "t", seq=1),
                service.fork_session(APP, "u", "t", at_event_id="e2"),
            ):
                try:
                    await call
                except SessionDBError as error:
                    said.extend(chain(error))
        await refused(service.append_event(session, secret_event("e8")))

    with listening() as log:
        asyncio.run(main())
    assert said
    assert any("sessiondb" in line for line in log)
    assert [line for line in [*said, *log] if SECRET in line] == []


@pytest.mark.parametrize(
    "url",
    [
        f"mysql://user:{SECRET}@host/db",
        f"sqlite://user:{SECRET}@host/db",
        f"sqlite:///db?password={SECRET}",
        f"postgresql://user:{SECRET}@[host/db",
        f"postgresql://user:{SECRET}@host:no-port/db",
        f"postgresql://user@host/db?pasword={SECRET}",
        f"postgresql:user:{SECRET}@host/db",
        # Nothing listens there.
        f"postgresql://user:{SECRET}@127.0.0.1:1/db",
        f"postgresql://user@127.0.0.1:1/db?password={SECRET}&sslpassword={SECRET}",
    ],
)
def test_password_of_a_url_is_in_no_log_and_no_error(url: str) -> None:
    with listening() as log, pytest.raises(SessionDBError) as caught:
        DatabaseSessionService(url)
    assert [line for line in [*chain(caught.value), *log] if SECRET in line] == []


def bytes_of(location: Path | str) -> bytes:
    """All that is stored: the bytes of files, the rows of tables."""
    if isinstance(location, Path):
        files = [file for file in location.parent.iterdir() if file.name.startswith(location.name)]
        assert {file.name for file in files} >= {location.name, f"{location.name}-wal"}
        return b"".join(file.read_bytes() for file in files if not file.name.endswith("-shm"))
    tables = query(
        location, "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"
    )
    assert len(tables) > 3
    return b"".join(
        row[0].encode() for (table,) in tables for row in query(location, f"SELECT t::text FROM {table} AS t")
    )


def test_temp_state_is_in_no_byte_of_database_or_wal(location: Path | str, figures: Figures) -> None:
    """Looked for in the bytes of the database and its WAL, after creates, appends and updates.

    Seen failing with the event's own ``state_delta`` stored in place of the one without temp keys.
    """
    searched = 0

    async def main() -> None:
        nonlocal searched
        async with DatabaseSessionService(location) as service:
            session = await service.create_session(
                app_name=APP, user_id="u", session_id="s", state={"temp:a": SECRET, "kept": "kept-value"}
            )
            for n in range(20):
                event = make_event(f"e{n}", n)
                event.actions.state_delta["temp:b"] = {"nested": SECRET}
                await service.append_event(session, event)
                assert session.state["temp:b"] == {"nested": SECRET}
            await service.update_keys(APP, "u", "s", {"temp:c": SECRET, "kept": "kept-value"})
            read = await service.get_session(app_name=APP, user_id="u", session_id="s")
            assert read is not None
            assert not [key for key in read.state if key.startswith("temp:")]
            data = bytes_of(location)
            assert b"kept-value" in data
            assert SECRET.encode() not in data
            assert b"temp:" not in data
            searched = len(data)

    asyncio.run(main())
    figures("temp values searched for", bytes=searched, found=0)
