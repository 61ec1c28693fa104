"""Search: what is found by which words, on each store, and that the index is as the log is, whoever writes to that."""

from __future__ import annotations

import asyncio
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from google.adk.events import Event
from google.genai import types
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sessiondb import DatabaseSessionService, SearchHit, stores
from sessiondb.errors import InvalidInputError, SearchIndexError
from sessiondb.location import resolve_location
from tests.command import run_sessiondb
from tests.contract.places import APP, SESSION, USER
from tests.databases import query

pytestmark = [pytest.mark.anyio, pytest.mark.each_store]

HOSTILE = ["' OR 1=1 --", "%", 'a"b', "x" * 1000, "日本🤖", "{}", "$1 %(x)s :seq", "a* OR b"]


def said(text: str, *, author: str = "user", time: float | None = None, **fields: Any) -> Event:
    content = types.Content(role="user", parts=[types.Part(text=text)])
    event = Event(author=author, invocation_id="i", content=content, **fields)
    return event if time is None else event.model_copy(update={"timestamp": time})


async def say(
    service: DatabaseSessionService, *texts: str | Event, app: str = APP, user: str = USER, name: str = SESSION
) -> None:
    session = await service.get_session(app, user, name) or await service.create_session(app, user, name)
    events = [text if isinstance(text, Event) else said(text) for text in texts]
    await service.append_events(session, events)


async def found(service: DatabaseSessionService, words: str, **options: Any) -> list[int]:
    """The numbers of the events that are found, in their order."""
    return sorted(hit.seq for hit in (await service.search(words, limit=1000, **options)).hits)


async def until_built(service: DatabaseSessionService) -> None:
    """Waits until the index is complete."""
    while True:
        try:
            await service.search("anything")
        except SearchIndexError:
            await asyncio.sleep(0)
        else:
            return


# --- What is found ----------------------------------------------------------------------------------------------------

TEXTS = (
    "Hello world, the café is open: mail to foo_bar@example.com!",
    "HELLO. The world of cafes",
    "東京都は日本の首都です。",
    "ภาษาไทยที่ดี และ ประเทศไทย",
    "한국어를 배우다 — Привет, МИР",
    "before\0after x86 v1.5",
    "我喜歡tower貓 と ラーメン・スープ",
    "cafe\u0301 हिन्दी " + "z" * 3000,
)


FINDS: tuple[tuple[str, list[int]], ...] = (
    ("hello", [1, 2]),
    ("CAFÉ", [1, 8]),
    ("cafe\u0301 hello", [1]),
    ("cafe*", [1, 2, 8]),
    ("caf*", [1, 2, 8]),
    ("ca*", []),
    ('"hello world"', [1]),
    ('"world hello"', []),
    ('"the world"', [2]),
    ('"hello wor"*', [1]),
    ("foo", [1]),
    ("foo_bar", [1]),
    ("bar-foo", []),
    ("example.com", [1]),
    ("hello -world", [1, 2]),
    ("東京", [3]),
    ("京都", [3]),
    ("東都", []),
    ("日本の首都", [3]),
    ("日本 東京", [3]),
    ("日本東京", []),
    ("す", [3]),
    ("都", [3]),
    ("ไทย", [4]),
    ("ภาษาไทย", [4]),
    ("ไทยภาษา", []),
    ("한국", [5]),
    ("국어", [5]),
    ("привет мир", [5]),
    ("after", [6]),
    ("before after", [6]),
    ('"v1 5"', [6]),
    ("貓", [7]),
    ("喜歡", [7]),
    ("歡tower", [7]),
    ("tower貓", [7]),
    ("スープ", [7]),
    ("हिन्दी", [8]),
    ("", []),
    ('"', []),
    ("***", []),
    ("🤖 — …", []),
    ('hello "', [1, 2]),
    ("hello NOT world", []),
    ("NEAR(hello world)", []),
    ("words:hello", []),
    ("hello\0world", [1]),
    ("hello \ud800", [1, 2]),
)


async def test_words_find_what_holds_them(location: Path | str) -> None:
    async with DatabaseSessionService(location, index="text") as service:
        await say(service, *TEXTS)
        for words, numbers in FINDS:
            assert await found(service, words) == numbers, words


async def test_hit_says_what_it_is_and_shows_what_was_found(location: Path | str) -> None:
    text = "The begin is long. " * 20 + "Here it is, the  Näedle in\nthe hay" + ". The end is long, too" * 20
    async with DatabaseSessionService(location, index="text") as service:
        await say(service, "no", said(text, author="agent", time=1234.5678901, id="e2"), "the needle itself")
        (hit,) = (await service.search("NAEDLE")).hits
        assert hit == SearchHit(APP, USER, SESSION, "e2", 2, "agent", 1234.5678901, hit.snippet, hit.rank)
        assert hit.rank > 0
        assert hit.snippet.startswith("…")
        assert hit.snippet.endswith("…")
        assert "Here it is, the Näedle in the hay" in hit.snippet
        assert len(hit.snippet) < 170
        (short,) = (await service.search("itself")).hits
        assert short.snippet == "the needle itself"


async def test_texts_that_people_see_are_searched_and_nothing_else(location: Path | str) -> None:
    parts = [
        types.Part(text="visible"),
        types.Part(text="pondered", thought=True),
        types.Part(function_call=types.FunctionCall(name="called", args={"argument": "passed"})),
        types.Part(function_response=types.FunctionResponse(name="called", response={"result": "returned"})),
        types.Part(text="again"),
    ]
    event = Event(
        author="agent",
        invocation_id="i",
        content=types.Content(role="model", parts=parts),
        input_transcription=types.Transcription(text="spoken\0word", finished=True),
        output_transcription=types.Transcription(text="answered", finished=True),
        error_message="failed",
    )
    async with DatabaseSessionService(location, index="text") as service:
        await say(service, event, Event(author="agent", invocation_id="nothing"))
        for word in ("visible", "again", "spoken", "word", "answered", "visible again spoken"):
            assert await found(service, word) == [1], word
        for word in ("pondered", "called", "passed", "returned", "failed", "agent", "text", "parts", "nothing"):
            assert await found(service, word) == [], word


async def test_better_hits_come_first_and_newer_ones_of_equal(location: Path | str) -> None:
    async with DatabaseSessionService(location, index="text") as service:
        await say(service, "apple pear", "apple " + "plum " * 200, "apple apple pear", "pear apple", "apple pear")
        assert [hit.seq for hit in (await service.search("apple")).hits] == [3, 5, 4, 1, 2]
        # Of any words, rare ones count more.
        ranked = [hit.seq for hit in (await service.search("apple plum cherry", match="any")).hits]
        assert ranked[0] == 2
        assert sorted(ranked) == [1, 2, 3, 4, 5]
        assert await found(service, "apple plum cherry") == []


async def test_pages_hold_each_hit_once_while_others_are_written(location: Path | str) -> None:
    async with DatabaseSessionService(location, index="text") as service:
        await say(service, *(f"number {n}" + " more" * (n % 7) for n in range(1100)))
        seen: list[int] = []
        after = None
        for n in itertools.count():
            page = await service.search("number", limit=150, after=after)
            seen += [hit.seq for hit in page.hits]
            await say(service, f"number late {n}")
            after = page.next
            if after is None:
                break
            assert len(page.hits) == 150
        assert len(seen) == len(set(seen)) == 1100
        # The 500 newest are ranked with each other.
        assert set(seen[:500]) == set(range(601, 1101))
        assert (await service.search("number late", limit=8)).next is None


async def test_a_page_that_ends_with_the_last_hit_says_so(location: Path | str) -> None:
    async with DatabaseSessionService(location, index="text") as service:
        await say(service, *["number"] * 500)
        page = await service.search("number", limit=500)
        assert len(page.hits) == 500
        rest = await service.search("number", limit=500, after=page.next)
        assert (rest.hits, rest.next) == ([], None)


async def test_selection_author_and_time_choose(location: Path | str) -> None:
    async with DatabaseSessionService(location, index="text") as service:
        await say(service, said("apple", time=100.0), said("apple", author="agent", time=200.0))
        await say(service, "apple", name="other")
        await say(service, "apple", user="other")
        await say(service, "apple", app="other")
        cases: list[tuple[dict[str, Any], int]] = [
            ({}, 5),
            ({"app_name": APP}, 4),
            ({"app_name": APP, "user_id": USER}, 3),
            ({"app_name": APP, "user_id": USER, "session_id": SESSION}, 2),
            ({"app_name": APP, "user_id": USER, "session_id": f" {SESSION} "}, 2),
            ({"user_id": USER}, 4),
            ({"session_id": SESSION}, 4),
            ({"user_id": USER, "session_id": "other"}, 1),
            ({"app_name": APP, "session_id": SESSION}, 3),
            ({"author": "agent"}, 1),
            ({"until": 200.0}, 1),
            ({"since": 200.0, "until": 201}, 1),
            ({"since": 100}, 5),
            ({"app_name": APP, "user_id": USER, "session_id": "none"}, 0),
        ]
        for options, count in cases:
            assert len((await service.search("apple", **options)).hits) == count, options


# --- Whatever is asked for, and whoever asks --------------------------------------------------------------------------


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    words=st.one_of(st.text(), st.text(alphabet='ab"*()^:-+.\0 東京', max_size=12)),
    match=st.sampled_from(["all", "any"]),
)
def test_no_query_is_wrong(location: Path | str, words: str, match: Any) -> None:
    async def ask() -> None:
        async with DatabaseSessionService(location, index="text") as service:
            assert isinstance((await service.search(words, match=match)).hits, list)

    asyncio.run(ask())


async def test_long_queries_are_answered_and_endless_ones_refused(location: Path | str) -> None:
    async with DatabaseSessionService(location, index="text") as service:
        await say(service, "word1 word2", "東京" * 100)
        many = " ".join(f"word{n}" for n in range(1500))
        assert await found(service, many) == []
        # Of any, the longest words count.
        assert await found(service, "word1 word2 " + "x " * 500, match="any") == [1]
        assert await found(service, "東京" * 2500) == []
        assert await found(service, "x" * 10_000 + '"' * 10_000) == []
        with pytest.raises(InvalidInputError, match="65,537 characters"):
            await service.search("x" * 65_537)


async def test_ids_of_others_find_nothing(location: Path | str) -> None:
    async with DatabaseSessionService(location, index="text") as service:
        await say(service, "secret of the owner")
        for hostile in HOSTILE:
            await say(service, f"secret of {hostile}", app=hostile, user=hostile, name=hostile)
        for hostile in HOSTILE:
            hits = (await service.search("secret", app_name=hostile, user_id=hostile, session_id=hostile)).hits
            assert [hit.session_id for hit in hits] == [hostile]
            hits = (await service.search("secret", app_name=hostile, user_id=hostile)).hits
            assert [hit.user_id for hit in hits] == [hostile]
            assert await found(service, "secret", app_name=APP, user_id=hostile) == []
            assert await found(service, "secret", app_name=hostile, user_id=USER) == []
            assert await found(service, "secret", app_name=APP, user_id=USER, session_id=hostile) == []
        # What stands for apps and users in the index is no word of a text.
        for word in (APP.encode().hex(), f"a{APP.encode().hex()}", "s1"):
            assert await found(service, word) == []


async def test_ranks_do_not_tell_of_others(location: Path | str) -> None:
    async with DatabaseSessionService(location, index="text") as service:
        await say(service, "apple pear", "apple plum")
        mine = {"app_name": APP, "user_id": USER}
        before = [await service.search("apple pear", match=match, **mine) for match in ("all", "any")]  # type: ignore[arg-type]
        await say(service, *["pear"] * 100, user="other")
        assert before == [await service.search("apple pear", match=match, **mine) for match in ("all", "any")]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"query": 5}, "query must be a string"),
        ({"query": "a", "match": "some"}, "match must be one of"),
        ({"query": "a", "limit": 0}, "limit"),
        ({"query": "a", "since": "now"}, "since"),
        ({"query": "a", "user_id": "a\0b"}, "user_id"),
        ({"query": "a", "author": 3}, "author"),
        ({"query": "a", "after": "x"}, "after is not a cursor of search"),
    ],
)
async def test_arguments_that_cannot_be_one_are_refused(
    location: Path | str, arguments: dict[str, Any], message: str
) -> None:
    async with DatabaseSessionService(location, index="text") as service:
        with pytest.raises(InvalidInputError, match=message):
            await service.search(**arguments)
        await say(service, *["a"] * 3)
        page = await service.get_events(APP, USER, SESSION, limit=1)
        with pytest.raises(InvalidInputError, match="not a cursor of search"):
            await service.search("a", after=page.next)
        of_search = await service.search("a", limit=1)
        with pytest.raises(InvalidInputError, match="not a cursor of get_events"):
            await service.get_events(APP, USER, SESSION, after=of_search.next)


# --- The index is as the log is ---------------------------------------------------------------------------------------


async def test_whatever_changes_the_log_changes_what_is_found(location: Path | str) -> None:
    async with DatabaseSessionService(location, index="text") as service:
        await say(service, "apple 東京", "pear", "apple plum")
        fork = await service.fork_session(APP, USER, SESSION, new_session_id="fork")
        assert await found(service, "apple", session_id=fork.id) == [1, 3]
        # By hand, or by another program.
        query(
            location,
            "UPDATE adk_events SET content = replace(content, 'apple', 'cherry') WHERE seq = 1 AND session_id = ?",
            "fork",
        )
        assert await found(service, "apple", session_id="fork") == [3]
        assert await found(service, "cherry") == [1]
        assert await found(service, "東京") == [1, 1]
        query(location, "UPDATE adk_events SET content = NULL WHERE seq = 1")
        assert await found(service, "東京") == []
        query(location, "DELETE FROM adk_events WHERE seq = 3 AND session_id = 'fork'")
        assert await found(service, "plum") == [3]
        await service.delete_session(APP, USER, SESSION)
        assert await found(service, "plum") == []
        assert await found(service, "pear") == [2]
        query(location, "DELETE FROM adk_sessions")
        assert await found(service, "pear") == []
        await say(service, "apple")
        assert await found(service, "apple") == [1]


async def test_import_and_another_service_write_to_the_index(location: Path | str, tmp_path: Path) -> None:
    async with DatabaseSessionService(location, index="text") as service:
        await say(service, "apple", "pear")
        assert run_sessiondb("export", location, "-o", tmp_path / "all.jsonl").returncode == 0
        await service.delete_session(APP, USER, SESSION)
        assert run_sessiondb("import", tmp_path / "all.jsonl", location).returncode == 0
        assert await found(service, "apple") == [1]
    async with DatabaseSessionService(location) as service:
        await say(service, "apple")
        assert await found(service, "apple") == [1, 3]


async def test_without_an_index_an_error_says_how_to_make_one(location: Path | str) -> None:
    async with DatabaseSessionService(location) as service:
        await say(service, "apple", "pear 東京")
        with pytest.raises(SearchIndexError, match="index='text'"):
            await service.search("apple")
        with pytest.raises(SearchIndexError):
            await service.search("")
        failed = run_sessiondb("search", location, "apple")
        assert (failed.returncode, failed.stdout) == (1, "")
        assert "sessiondb index" in failed.stderr
        # Made by another process, and written to by this one from then on.
        assert "is complete" in run_sessiondb("index", location).stdout
        assert "was complete already" in run_sessiondb("index", location).stdout
        await say(service, "apple 京都")
        assert await found(service, "apple") == [1, 3]
        assert await found(service, "京") == [2, 3]
        assert "is removed" in run_sessiondb("index", location, "--drop").stdout
        assert "there is no index" in run_sessiondb("index", location, "--drop").stdout
        await say(service, "apple")
        with pytest.raises(SearchIndexError):
            await service.search("apple")
        assert "is complete" in run_sessiondb("index", location).stdout
        assert await found(service, "apple") == [1, 3, 4]


async def test_index_is_made_beside_writers_and_is_complete(location: Path | str) -> None:
    texts = [f"word{n % 10} 東京 number{n}" for n in range(1500)]
    async with DatabaseSessionService(location) as service:
        await say(service, *texts)
        beside = await service.create_session(APP, "beside", "b")
        place = resolve_location(location)
        assert place is not None
        build = asyncio.create_task(asyncio.to_thread(stores.build_index, place))
        written = 0
        while not build.done() or written < 6:
            await service.append_event(beside, said("beside 東京"))
            written += 1
            if written == 5:
                # What is deleted meanwhile is not in it, whether it had been reached or not.
                query(location, "DELETE FROM adk_events WHERE seq IN (3, 1499) AND user_id = ?", USER)
            try:
                hits = (await service.search("東京", limit=1000, app_name=APP, user_id="beside")).hits
            except SearchIndexError:
                continue
            assert len(hits) == written
        assert await build
        remaining = query(location, "SELECT count(*) FROM adk_events WHERE user_id = ?", USER)[0][0]
        assert len(await found(service, "東京", app_name=APP, user_id="beside")) == written
        pages = 0
        after = None
        while True:
            page = await service.search("京", limit=1000, app_name=APP, user_id=USER, after=after)
            pages += len(page.hits)
            after = page.next
            if after is None:
                break
        assert pages == remaining == 1498
        assert not await asyncio.to_thread(stores.build_index, place)


async def test_searches_are_told_of_by_the_command(location: Path | str) -> None:
    async with DatabaseSessionService(location, index="text") as service:
        await say(service, said("the apple", time=100.0), said("an apple apple", author="agent", time=200.0), "pear")
    table = run_sessiondb("search", location, "apple").stdout
    assert [line.split()[-2:] for line in table.splitlines()[1:]] == [["apple", "apple"], ["the", "apple"]]
    assert table.splitlines()[1].startswith("1970-01-01T00:03:20")
    one = run_sessiondb("search", location, "apple", "--limit", "1", "--json")
    assert '"event_id"' in one.stdout
    (line,) = one.stdout.splitlines()
    rest = run_sessiondb("search", location, "apple", "--limit", "1", "--after", json.loads(line)["next"], "--json")
    (line,) = rest.stdout.splitlines()
    assert (json.loads(line)["snippet"], json.loads(line)["next"]) == ("the apple", None)
    assert run_sessiondb("search", location, "apple pear").stdout == ""
    assert len(run_sessiondb("search", location, "apple pear", "--any", "--json").stdout.splitlines()) == 3
    chosen = run_sessiondb(
        "search",
        location,
        "apple",
        "--since",
        "1970-01-01T00:02:00",
        "--until",
        "2000-01-01",
        "--author",
        "agent",
        "--json",
    )
    assert len(chosen.stdout.splitlines()) == 1
    assert run_sessiondb("search", location, "apple", "--user", "nobody", "--json").stdout == ""
