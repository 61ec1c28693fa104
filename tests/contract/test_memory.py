"""ADK's memory on the logs: what is added is found, by its user alone; on each store.

Seen to fail with a search that looks at all sessions of a user, with marks that are kept by session alone (a later event is
found), with copies of what the log holds, with the state deltas of copies applied, without another try (of two who add at once one
is refused), and with a search that wants all words.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Literal

import anyio
import pytest
from google.adk.events import Event, EventActions
from google.adk.memory.memory_entry import MemoryEntry
from google.adk.sessions import InMemorySessionService, Session
from google.adk.sessions.base_session_service import GetSessionConfig
from google.genai import types

from sessiondb import DatabaseSessionService, MemoryService
from sessiondb.errors import ConfigurationError, InvalidInputError, SearchIndexError, ServiceClosedError
from tests.contract.places import APP, SESSION, USER
from tests.databases import query
from tests.engine.processes import finish, listen, say, start
from tests.engine.tools import TIMEOUT

pytestmark = [pytest.mark.anyio, pytest.mark.each_store]

MEMORY = "sessiondb:memory"


@pytest.fixture
async def service(location: Path | str) -> AsyncIterator[DatabaseSessionService]:
    async with DatabaseSessionService(location, index="text") as opened:
        yield opened


@pytest.fixture
def memory(service: DatabaseSessionService) -> MemoryService:
    return MemoryService(service)


def content(text: str) -> types.Content:
    return types.Content(role="user", parts=[types.Part(text=text)])


def message(text: str, event_id: str = "") -> Event:
    return Event(id=event_id, author="user", invocation_id="inv", content=content(text))


async def told(
    service: DatabaseSessionService, *texts: str, app: str = APP, user: str = USER, name: str = SESSION
) -> Session:
    """Creates a session in which somebody has said these."""
    session = await service.create_session(app, user, name)
    await service.append_events(session, [message(text) for text in texts])
    return session


async def found(memory: MemoryService, question: str, *, app: str = APP, user: str = USER) -> list[str | None]:
    answer = await memory.search_memory(app_name=app, user_id=user, query=question)
    return [text_of(entry) for entry in answer.memories]


def text_of(entry: MemoryEntry) -> str | None:
    assert entry.content.parts
    return entry.content.parts[0].text


# --- Sessions --------------------------------------------------------------------------------------------------------


async def test_question_finds_what_was_said_in_sessions_that_were_added(
    service: DatabaseSessionService, memory: MemoryService
) -> None:
    first = await told(service, "My dog Pepper ate a candle.", "I like the sea.", name="one")
    await told(service, "The dog of my aunt is old.", name="two")
    assert await found(memory, "dog") == []
    await memory.add_session_to_memory(first)
    assert (await found(memory, "What did I say about my dog?"))[0] == "My dog Pepper ate a candle."
    assert await found(memory, "elephant") == []
    two = await service.get_session(APP, USER, "two")
    assert two is not None
    await memory.add_session_to_memory(two)
    assert sorted(filter(None, await found(memory, "dog"))) == [
        "My dog Pepper ate a candle.",
        "The dog of my aunt is old.",
    ]
    # What fits best comes first.
    assert (await found(memory, "Is Pepper a dog?"))[0] == "My dog Pepper ate a candle."


async def test_session_that_grows_is_remembered_as_it_was_until_it_is_added_again(
    service: DatabaseSessionService, memory: MemoryService
) -> None:
    session = await told(service, "The dog is ill.")
    await memory.add_session_to_memory(session)
    await service.append_event(session, message("The dog is well again."))
    assert await found(memory, "dog") == ["The dog is ill."]
    await memory.add_session_to_memory(session)
    assert len(await found(memory, "dog")) == 2


async def test_entry_says_who_said_it_when_and_where(service: DatabaseSessionService, memory: MemoryService) -> None:
    session = await service.create_session(APP, USER, SESSION)
    parts = [types.Part(text="the dog"), types.Part(text="is ill")]
    event = Event(author="vet", invocation_id="i", timestamp=1_700_000_000.25, content=types.Content(parts=parts))
    await service.append_event(session, event)
    await memory.add_session_to_memory(session)
    answer = await memory.search_memory(app_name=APP, user_id=USER, query="dog")
    assert answer.memories == [
        MemoryEntry(
            id=event.id,
            author="vet",
            timestamp="2023-11-14T22:13:20.250000+00:00",
            content=types.Content(parts=parts),
            custom_metadata={"session_id": SESSION},
        )
    ]


async def test_nothing_is_copied_that_a_log_holds(
    service: DatabaseSessionService, memory: MemoryService, location: Path | str
) -> None:
    session = await told(service, "the dog is ill", "the dog is well")
    for _ in range(3):
        await memory.add_session_to_memory(session)
        await memory.add_events_to_memory(app_name=APP, user_id=USER, events=session.events, session_id=SESSION)
    rows = query(location, "SELECT session_id, content FROM adk_events WHERE content IS NOT NULL")
    assert [name for name, _ in rows] == [SESSION] * 2
    assert len(await found(memory, "dog")) == 2


@pytest.mark.parametrize("recent", [0, 1])
async def test_session_that_was_read_without_its_events_is_remembered_as_a_whole(
    recent: int, service: DatabaseSessionService, memory: MemoryService
) -> None:
    await told(service, "the dog is ill", "the dog is well")
    session = await service.get_session(APP, USER, SESSION, GetSessionConfig(num_recent_events=recent))
    assert session is not None
    await memory.add_session_to_memory(session)
    assert len(await found(memory, "dog")) == 2


async def test_session_of_another_service_is_copied(memory: MemoryService, service: DatabaseSessionService) -> None:
    elsewhere = InMemorySessionService()
    session = await elsewhere.create_session(app_name=APP, user_id=USER, session_id=SESSION)
    actions = EventActions(state_delta={"user:age": 3, "session:other": "9999", "app:x": 1})
    event = message("the dog is ill").model_copy(update={"actions": actions})
    await elsewhere.append_event(session, event)
    # This database has another session of that name, which nobody has added.
    await told(service, "the dog is not mine")
    for _ in range(2):
        await memory.add_session_to_memory(session)
    answer = await memory.search_memory(app_name=APP, user_id=USER, query="dog")
    assert [(text_of(one), one.id, one.custom_metadata) for one in answer.memories] == [
        ("the dog is ill", event.id, {"session_id": SESSION})
    ]
    assert await service.get_user_state(APP, USER) == {}


async def test_deleted_session_is_forgotten_and_its_successor_is_another(
    service: DatabaseSessionService, memory: MemoryService
) -> None:
    await memory.add_session_to_memory(await told(service, "the dog is ill"))
    await service.delete_session(APP, USER, SESSION)
    assert await found(memory, "dog") == []
    await told(service, "the dog is well")
    assert await found(memory, "dog") == []


async def test_what_was_cut_off_or_redacted_is_forgotten(
    service: DatabaseSessionService, memory: MemoryService
) -> None:
    session = await told(service, "dog one", "dog two", "dog three")
    await memory.add_session_to_memory(session)
    await memory.add_memory(app_name=APP, user_id=USER, memories=[MemoryEntry(id="m1", content=content("a dog"))])
    first, second, _ = session.events
    await service.redact_events(APP, USER, SESSION, [first.id])
    await service.redact_events(APP, USER, MEMORY, ["m1"])
    assert sorted(filter(None, await found(memory, "dog"))) == ["dog three", "dog two"]
    session = await service.truncate_session(APP, USER, SESSION, after_event_id=second.id)
    assert await found(memory, "dog") == ["dog two"]
    # What takes the place of the events that were cut off has not been added.
    await service.append_event(session, message("dog four"))
    assert await found(memory, "dog") == ["dog two"]


async def test_user_who_is_erased_is_forgotten(
    service: DatabaseSessionService, memory: MemoryService, location: Path | str
) -> None:
    await memory.add_session_to_memory(await told(service, "my dog"))
    await memory.add_memory(app_name=APP, user_id=USER, memories=[MemoryEntry(content=content("a dog"))])
    other = await told(service, "the dog of another", user="user_124")
    await memory.add_session_to_memory(other)
    await service.erase_user(APP, USER)
    assert await found(memory, "dog") == []
    assert await found(memory, "dog", user="user_124") == ["the dog of another"]
    assert query(location, "SELECT DISTINCT user_id FROM adk_state") == [("user_124",)]


async def test_event_that_a_fork_has_taken_over_is_found_once(
    service: DatabaseSessionService, memory: MemoryService
) -> None:
    await memory.add_session_to_memory(await told(service, "the dog is ill"))
    await memory.add_session_to_memory(await service.fork_session(APP, USER, SESSION, new_session_id="fork"))
    assert await found(memory, "dog") == ["the dog is ill"]


async def test_no_more_than_the_limit_is_found(service: DatabaseSessionService) -> None:
    session = await told(service, *(f"dog number {n}" for n in range(30)))
    memory = MemoryService(service)
    await memory.add_session_to_memory(session)
    assert len(await found(memory, "dog")) == 10
    assert len(await found(MemoryService(service, limit=3), "dog")) == 3


async def test_memories_are_found_among_many_sessions_that_were_not_added(
    service: DatabaseSessionService, memory: MemoryService
) -> None:
    for n in range(50):
        await told(service, "dog dog dog", name=f"s{n}")
    await memory.add_session_to_memory(await told(service, "a text in which the dog comes late", name="added"))
    assert await found(memory, "dog") == ["a text in which the dog comes late"]


# --- Events and entries ----------------------------------------------------------------------------------------------


async def test_of_events_only_those_given_are_remembered(
    service: DatabaseSessionService, memory: MemoryService
) -> None:
    session = await told(service, "dog one", "dog two", "dog three")
    without_content = Event(author="user", invocation_id="i")
    for _ in range(2):
        await memory.add_events_to_memory(
            app_name=APP, user_id=USER, session_id=SESSION, events=[session.events[1], without_content]
        )
    assert await found(memory, "dog") == ["dog two"]
    await memory.add_session_to_memory(session)
    assert len(await found(memory, "dog")) == 3


@pytest.mark.parametrize("session_id", [None, "unknown", SESSION])
async def test_events_of_no_log_are_copied_once(
    session_id: str | None, service: DatabaseSessionService, memory: MemoryService
) -> None:
    session = await told(service, "dog of the log")
    events = [message("dog of no log", event_id="x"), *session.events]
    for _ in range(2):
        await memory.add_events_to_memory(
            app_name=APP, user_id=USER, session_id=session_id, events=events, custom_metadata={"source": "mail"}
        )
    answer = await memory.search_memory(app_name=APP, user_id=USER, query="dog")
    assert sorted(filter(None, map(text_of, answer.memories))) == ["dog of no log", "dog of the log"]
    (copied,) = (entry for entry in answer.memories if entry.id == "x")
    told_where = {} if session_id is None else {"session_id": session_id}
    assert copied.custom_metadata == {"source": "mail", **told_where}


async def test_entry_comes_back_as_it_was_given(memory: MemoryService) -> None:
    for timestamp in ("2024-05-06T07:08:09+02:00", "2024-05-06T07:08:09", "0001-01-01", "last summer", None, ""):
        entry = MemoryEntry(
            id=f"m{timestamp}",
            author="notes",
            timestamp=timestamp,
            content=content("The dog likes cheese"),
            custom_metadata={"a": [1]},
        )
        await memory.add_memory(app_name=APP, user_id=USER, memories=[entry])
        answer = await memory.search_memory(app_name=APP, user_id=USER, query="cheese")
        assert answer.memories == [entry]
        await memory.delete_memory(app_name=APP, user_id=USER, memory_id=entry.id)


async def test_entries_get_what_they_lack(memory: MemoryService) -> None:
    entries = [
        MemoryEntry(content=content("dog one")),
        MemoryEntry(content=content("dog two"), custom_metadata={"b": 2}),
    ]
    await memory.add_memory(app_name=APP, user_id=USER, memories=entries, custom_metadata={"a": 1, "b": 1})
    answer = await memory.search_memory(app_name=APP, user_id=USER, query="dog")
    by_text = {text_of(entry): entry for entry in answer.memories}
    assert by_text["dog one"].custom_metadata == {"a": 1, "b": 1}
    assert by_text["dog two"].custom_metadata == {"a": 1, "b": 2}
    assert all(entry.author is None and entry.timestamp is None for entry in answer.memories)
    assert len({entry.id for entry in answer.memories} - {None, ""}) == 2


async def test_entry_with_id_and_timestamp_is_stored_once(memory: MemoryService, location: Path | str) -> None:
    entry = MemoryEntry(id="m1", timestamp="2024-05-06", content=content("The dog likes cheese"))
    for _ in range(3):
        await memory.add_memory(app_name=APP, user_id=USER, memories=[entry, entry])
    assert query(location, "SELECT count(*) FROM adk_events WHERE content IS NOT NULL") == [(1,)]


async def test_deleted_memory_stays_forgotten_and_its_event_in_the_log(
    service: DatabaseSessionService, memory: MemoryService
) -> None:
    session = await told(service, "dog one", "dog two")
    await memory.add_session_to_memory(session)
    await memory.delete_memory(app_name=APP, user_id=USER)
    await memory.delete_memory(app_name=APP, user_id="another", memory_id=session.events[0].id)
    assert len(await found(memory, "dog")) == 2
    await memory.delete_memory(app_name=APP, user_id=USER, memory_id=session.events[0].id)
    await memory.add_session_to_memory(session)
    assert await found(memory, "dog") == ["dog two"]
    assert await service.get_session(APP, USER, SESSION) == session


# --- Whose it is -----------------------------------------------------------------------------------------------------


async def test_nobody_else_finds_it(service: DatabaseSessionService, memory: MemoryService) -> None:
    others = [(APP, "user_124"), ("my_app2", USER), (USER, APP), (APP, ""), (APP, "%")]
    for app, user in others:
        await told(service, f"secret dog of {app} {user}", app=app, user=user)
    await memory.add_session_to_memory(await told(service, "my dog"))
    await memory.add_memory(app_name=APP, user_id=USER, memories=[MemoryEntry(content=content("my dog, too"))])
    for app, user in others:
        assert await found(memory, "dog my secret", app=app, user=user) == []
    assert sorted(filter(None, await found(memory, "dog secret"))) == ["my dog", "my dog, too"]
    # A user who writes marks into a session of the reserved name has reached his own sessions.
    marks = {f"session:{SESSION}": "9999-12-31T23:59:59.999999Z"}
    await service.create_session(APP, "user_124", MEMORY, marks)
    assert await found(memory, "dog", user="user_124") == [f"secret dog of {APP} user_124"]


async def test_marks_of_somebody_elses_making_do_no_harm(
    service: DatabaseSessionService, memory: MemoryService
) -> None:
    session = await told(service, "my dog")
    await memory.add_memory(app_name=APP, user_id=USER, memories=[MemoryEntry(content=content("a dog"))])
    values: list[object] = [None, 1, "", "x", [], {"a": 1}, True, "'; DROP TABLE adk_events; --"]
    for value in values:
        marks = {f"session:{SESSION}": value, f"event:{session.events[0].id}": value}
        await service.update_keys(APP, USER, MEMORY, marks)
        assert set(await found(memory, "dog")) in ({"a dog"}, {"a dog", "my dog"}), value


async def test_any_id_can_be_that_of_a_session(
    service: DatabaseSessionService, memory: MemoryService, location: Path | str
) -> None:
    names = [MEMORY, "user:s", "app:s", "temp:s", "session:s", 'a"b', "'; --", "%", "日本🤖", "$.a[0]"]
    for n, name in enumerate(names):
        session = await told(service, f"dog{n}", name=name)
        assert await found(memory, f"dog{n}") == [], name
        await memory.add_session_to_memory(session)
        assert await found(memory, f"dog{n}") == [f"dog{n}"], name
    assert query(location, "SELECT DISTINCT scope FROM adk_state") == [("SESSION",)]


QUESTIONS = [
    *["", " \n", "?!", '"', "'", '"dog', "dog*", "NEAR(dog, 1)", "dog AND", "dog NOT ill", "-dog", "text:dog", "((("],
    *["^dog", "dog & !ill", "dog <-> ill", "\\", "%", ":*", "{dog}", "狗", "🐶", "a\0b", "\u0301", "dog " * 2_500],
    *["x" * 10_000, " ".join(map(str, range(20_000)))],
]


async def test_no_question_is_an_error(service: DatabaseSessionService, memory: MemoryService) -> None:
    await memory.add_session_to_memory(await told(service, "my dog is ill"))
    for question in QUESTIONS:
        assert await found(memory, question) == (["my dog is ill"] if "dog" in question else []), question[:50]


async def test_what_is_no_input_is_refused_and_nothing_is_remembered(
    service: DatabaseSessionService, memory: MemoryService
) -> None:
    anything: Any = object()
    session = await told(service, "my dog")
    too_long = await told(service, "my dog", name="x" * 4096)
    tries = [
        memory.add_session_to_memory(anything),
        memory.add_session_to_memory(too_long),
        memory.add_events_to_memory(app_name=APP, user_id=USER, events=[*session.events, anything]),
        memory.add_events_to_memory(app_name=APP, user_id="\0", events=session.events),
        memory.add_events_to_memory(app_name=APP, user_id=USER, events=session.events, custom_metadata={"a": anything}),
        memory.add_memory(app_name=APP, user_id=USER, memories=[MemoryEntry(content=content("my dog")), anything]),
        memory.search_memory(app_name=APP, user_id=anything, query="dog"),
        memory.search_memory(app_name=APP, user_id=USER, query=anything),
        memory.delete_memory(app_name=APP, user_id=USER, memory_id="x" * 4096),
    ]
    for attempt in tries:
        with pytest.raises(InvalidInputError):
            await attempt
    assert await found(memory, "dog") == []
    await memory.add_events_to_memory(app_name=APP, user_id=USER, events=[])
    noted = await service.get_session(APP, USER, MEMORY)
    assert noted is None or not noted.events


async def test_what_the_hook_takes_out_is_in_no_memory(location: Path | str) -> None:
    def redact(event: Event) -> Event:
        for part in (event.content and event.content.parts) or []:
            part.text = part.text and part.text.replace("Pepper", "[name]")
        return event

    async with DatabaseSessionService(location, index="text", before_store=redact) as service:
        memory = MemoryService(service)
        await memory.add_session_to_memory(await told(service, "my dog Pepper"))
        await memory.add_memory(app_name=APP, user_id=USER, memories=[MemoryEntry(content=content("a dog, Pepper"))])
        assert await found(memory, "Pepper") == []
        assert sorted(filter(None, await found(memory, "dog"))) == ["a dog, [name]", "my dog [name]"]


# --- Others, at the same time and later ------------------------------------------------------------------------------


async def test_memory_outlives_its_service(location: Path | str) -> None:
    async with DatabaseSessionService(location, index="text") as service:
        memory = MemoryService(service)
        await memory.add_session_to_memory(await told(service, "my dog"))
        await memory.add_memory(app_name=APP, user_id=USER, memories=[MemoryEntry(content=content("a dog"))])
    async with DatabaseSessionService(location, index="text") as service:
        assert sorted(filter(None, await found(MemoryService(service), "dog"))) == ["a dog", "my dog"]


async def test_many_who_remember_at_once_lose_nothing(service: DatabaseSessionService) -> None:
    sessions = [await told(service, f"dog {n}", name=f"s{n}") for n in range(8)]
    memories = [MemoryService(service, limit=100) for _ in range(4)]
    adding = [memories[n % 4].add_session_to_memory(session) for n, session in enumerate(sessions)]
    adding += [
        memories[n % 4].add_memory(app_name=APP, user_id=USER, memories=[MemoryEntry(content=content(f"cat {n}"))])
        for n in range(8)
    ]
    await asyncio.gather(*adding)
    assert sorted(filter(None, await found(memories[0], "cat dog"))) == [
        *(f"cat {n}" for n in range(8)),
        *(f"dog {n}" for n in range(8)),
    ]


def remember_in_a_process(location: str, name: str) -> None:
    """The whole of a process."""

    async def remember() -> None:
        async with DatabaseSessionService(location, index="text") as service:
            memory = MemoryService(service)
            session = await told(service, f"dog of {name}", name=name)
            say("ready")
            listen()
            for n in range(5):
                entry = MemoryEntry(content=content(f"cat {n} of {name}"))
                await memory.add_memory(app_name=APP, user_id=USER, memories=[entry])
                await memory.add_session_to_memory(session)

    asyncio.run(remember())


async def test_processes_that_remember_at_once_lose_nothing(
    service: DatabaseSessionService, location: Path | str
) -> None:
    processes = [start(remember_in_a_process, location, name) for name in ("a", "b")]
    for process in processes:
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline) == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        await asyncio.to_thread(finish, process)
    memory = MemoryService(service, limit=100)
    assert len(await found(memory, "cat")) == 10
    assert len(await found(memory, "dog")) == 2


def remember_until_killed(location: str) -> None:
    """The whole of a process."""

    async def remember() -> None:
        async with DatabaseSessionService(location, index="text") as service:
            memory = MemoryService(service)
            for n in range(100_000):
                entries = [MemoryEntry(content=content(f"n{n} {name}")) for name in "abc"]
                await memory.add_memory(app_name=APP, user_id=USER, memories=entries)
                say(n)

    asyncio.run(remember())


async def test_killed_process_has_remembered_all_that_was_answered_and_nothing_by_halves(location: Path | str) -> None:
    with start(remember_until_killed, location) as process:
        assert process.stdout is not None
        answered = [await asyncio.to_thread(process.stdout.readline) for _ in range(20)]
        process.kill()
        answered += process.stdout.readlines()
    last = len([line for line in answered if line.endswith("\n")])
    assert last >= 20
    async with DatabaseSessionService(location, index="text") as service:
        memory = MemoryService(service)
        counts = [len(await found(memory, f"n{n}")) for n in range(last + 2)]
    assert counts[:last] == [3] * last
    assert counts[last] in (0, 3)
    assert counts[last + 1] == 0


async def test_cancelled_call_has_remembered_all_or_nothing(service: DatabaseSessionService) -> None:
    memory = MemoryService(service, limit=100)
    for n in range(20):
        entries = [MemoryEntry(content=content(f"cat {n} {name}")) for name in "abc"]
        task = asyncio.create_task(memory.add_memory(app_name=APP, user_id=USER, memories=entries))
        for _ in range(n):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert len(await found(memory, str(n))) in (0, 3)
    # The turn is free.
    await memory.add_memory(app_name=APP, user_id=USER, memories=[MemoryEntry(content=content("a dog"))])
    assert await found(memory, "dog") == ["a dog"]


# --- Opening and closing ---------------------------------------------------------------------------------------------


async def test_service_is_its_owners_to_close(location: Path | str) -> None:
    service = DatabaseSessionService(location, index="text")
    session = await told(service, "my dog")
    async with MemoryService(service) as memory:
        await memory.add_session_to_memory(session)
    assert await found(memory, "dog") == ["my dog"]
    await service.close()
    calls = [
        memory.add_session_to_memory(session),
        memory.add_events_to_memory(app_name=APP, user_id=USER, events=session.events),
        memory.add_memory(app_name=APP, user_id=USER, memories=[MemoryEntry(content=content("x"))]),
        memory.search_memory(app_name=APP, user_id=USER, query="dog"),
        memory.delete_memory(app_name=APP, user_id=USER, memory_id="x"),
    ]
    for call in calls:
        with pytest.raises(ServiceClosedError):
            await call


async def test_memory_of_a_uri_has_a_service_of_its_own(location: Path | str) -> None:
    """As ADK's registry makes it, beside a session service that knows of no memory."""
    uri = f"sessiondb:///{location}" if isinstance(location, Path) else f"sessiondb+{location}"
    async with DatabaseSessionService(uri=uri) as service:
        memory = MemoryService(uri=uri, agents_dir="agents")
        session = await told(service, "my dog")
        await memory.add_session_to_memory(session)
        await service.append_event(session, message("my dog is ill"))
        await memory.add_session_to_memory(session)
        assert len(await found(memory, "dog")) == 2
        await memory.close()
        await memory.close()
        with pytest.raises(ServiceClosedError):
            await found(memory, "dog")
        assert await service.get_session(APP, USER, SESSION) == session


@pytest.mark.parametrize("asked_for", [("text", None), (None, "text")])
async def test_services_of_a_process_need_not_agree_on_the_index(
    asked_for: tuple[Literal["text"] | None, ...], location: Path | str
) -> None:
    first, second = (DatabaseSessionService(location, index=index) for index in asked_for)
    async with first, second:
        await told(first, "my dog", name="a")
        await told(second, "your dog", name="b")
        for service in (first, second):
            assert len((await service.search("dog")).hits) == 2
    with pytest.raises(ConfigurationError, match="open with durability='full':"):
        async with DatabaseSessionService(location, index="text"):
            DatabaseSessionService(location, durability="normal")


async def test_memory_of_a_uri_finds_what_was_there_before_it(database_path: Path) -> None:
    """On a server `sessiondb index` makes the index of what is there."""
    async with DatabaseSessionService(database_path) as service:
        session = await told(service, *(f"dog {n}" for n in range(300)))
        # To remember takes no index.
        await MemoryService(service).add_session_to_memory(session)
    uri = f"sessiondb:///{database_path}"
    # Nobody writes.
    async with DatabaseSessionService(database_path), MemoryService(uri=uri) as memory:
        with anyio.fail_after(TIMEOUT):
            while True:
                try:
                    assert await found(memory, "299") == ["dog 299"]
                    break
                except SearchIndexError:
                    await anyio.lowlevel.checkpoint()


async def test_wrong_arguments_are_told(service: DatabaseSessionService) -> None:
    anything: Any = InMemorySessionService()
    for arguments in ({}, {"service": service, "uri": "sessiondb:///x"}, {"service": anything}):
        with pytest.raises(ConfigurationError):
            MemoryService(**arguments)
    for limit in (0, -1, True, "10", None):
        wrong: Any = limit
        with pytest.raises(InvalidInputError):
            MemoryService(service, limit=wrong)
