"""What the index of texts costs, and what a search takes: ``python -m bench.searching``.

Events of 230 characters are appended by 64 tasks, by turns with an index and without one; then a file is filled, and
searched. ``--server URL`` does the same on a PostgreSQL server, in fresh schemas.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import statistics
import tempfile
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from google.adk.events import Event
from google.genai import types
from rich import print as show

from bench import data
from sessiondb import DatabaseSessionService, stores
from sessiondb.adk.events import encode_event, timestamp_text
from sessiondb.adk.state import encode_delta
from sessiondb.errors import SearchIndexError
from sessiondb.location import resolve_location
from sessiondb.model.records import NewEvent, NewSession, SessionKey

_CLIENTS = 64
_USERS = 5_000
_PER_SESSION = 200
_ROUNDS = 40
_LONGEST = 3.0
_VOCABULARY = 50_000
_SCRIPTS = {"words": "abcdefghijklmnopqrstuvwxyz", "chinese": "".join(map(chr, range(0x4E00, 0x4E00 + 3_000)))}


class Texts:
    """Texts of 230 characters, in which words are as frequent as in a language: the n-th one in proportion to 1/n."""

    def __init__(self, script: str) -> None:
        self._random = random.Random(1)
        letters = _SCRIPTS[script]
        lengths = (2, 9) if script == "words" else (1, 3)
        self.vocabulary = [
            "".join(self._random.choices(letters, k=self._random.randint(*lengths))) for _ in range(_VOCABULARY)
        ]
        self._weights = list(itertools.accumulate(1 / (n + 3) for n in range(_VOCABULARY)))
        self._words = 60 if script == "words" else 230
        self._between = " " if script == "words" else ""

    def text(self) -> str:
        """Returns the next text."""
        return self._between.join(self._random.choices(self.vocabulary, cum_weights=self._weights, k=self._words))[:230]

    def event(self) -> Event:
        """Returns an event with the next text."""
        content = types.Content(role="user", parts=[types.Part(text=self.text())])
        return Event(author="user", invocation_id="turn", content=content)


async def _append(place: Path | str, events: int, texts: Texts, **options: Any) -> tuple[float, float]:
    """Returns seconds and bytes."""
    made = [texts.event() for _ in range(events)]
    async with DatabaseSessionService(place, **options) as service:

        async def client(number: int) -> None:
            session = await service.create_session(data.APP, f"user{number}", "s")
            for event in made[number::_CLIENTS]:
                await service.append_event(session, event)

        started = time.perf_counter()
        await asyncio.gather(*map(client, range(_CLIENTS)))
        seconds = time.perf_counter() - started
        service.vacuum()
        return seconds, service.get_stats()["db_size_mb"]


async def measure_appends(place: Any, events: int, rounds: int, script: str) -> None:
    """Appends by turns."""
    texts = Texts(script)
    times: dict[str | None, list[float]] = {None: [], "text": []}
    sizes = dict.fromkeys(times, 0.0)
    await _append(place("warm"), 1_000, texts)
    for turn in range(rounds):
        # Neither is always the first of two, nor the second.
        for index in list(times)[:: 1 if turn % 2 else -1]:
            seconds, sizes[index] = await _append(place(f"appends-{script}-{turn}-{index}"), events, texts, index=index)
            times[index].append(seconds)
    rates = {index: events / statistics.median(seconds) for index, seconds in times.items()}
    best = {index: events / min(seconds) for index, seconds in times.items()}
    show(
        f"{script}: {_CLIENTS} tasks append {rates[None]:,.0f} events a second, with an index {rates['text']:,.0f}:"
        f" {rates['text'] / rates[None]:.2f} (the best turns: {best['text'] / best[None]:.2f}); the file is"
        f" {sizes['text'] / sizes[None]:.2f} times as large"
    )


def fill(place: Path | str, events: int, texts: Texts) -> None:
    """Fills a database without an index: sessions of 200 events, one behind the other."""
    with stores.open_import(place) as into:
        for number in range(events // _PER_SESSION):
            key = SessionKey(data.APP, f"user{number % _USERS}", f"s{number}")
            moment = timestamp_text(float(number))
            into.put(NewSession(key, moment, moment, float(number), "{}"), _events(texts, number))


def _events(texts: Texts, session: int) -> Iterator[NewEvent]:
    template = encode_event(texts.event(), encode_delta({})).record
    for n in range(_PER_SESSION):
        content = json.dumps({"parts": [{"text": texts.text()}], "role": "user"}, ensure_ascii=False)
        yield NewEvent(template._replace(event_id=f"{session}-{n}", content=content), advances=True)


async def measure_searches(place: Path | str, texts: Texts) -> None:
    """Searches for words of several frequencies."""
    word = texts.vocabulary
    queries: dict[str, tuple[str, dict[str, Any]]] = {
        "a rare word": (word[40_000], {}),
        "two words": (f"{word[2_000]} {word[1_500]}", {}),
        "a word of 1 in 400 texts": (word[1_000], {}),
        "a common word": (word[0], {}),
        "two common words": (f"{word[0]} {word[1]}", {}),
        "a phrase of common words": (f'"{word[0]} {word[1]}"', {}),
        "any of three words": (f"{word[0]} {word[1_000]} {word[40_000]}", {"match": "any"}),
        "a prefix": (f"{word[1_000][:4]}*", {}),
        "a common word, of one user": (word[0], {"app_name": data.APP, "user_id": "user7"}),
        "a common word, of one session": (word[0], {"app_name": data.APP, "user_id": "user7", "session_id": "s7"}),
        "a rare word, of one app": (word[40_000], {"app_name": data.APP}),
    }
    async with DatabaseSessionService(place) as service:
        for name, (query, options) in queries.items():
            times: list[float] = []
            while len(times) < _ROUNDS and sum(times) < _LONGEST:
                started = time.perf_counter()
                await service.search(query, **options)
                times.append(time.perf_counter() - started)
            page = await service.search(query, **options)
            hits = f"{len(page.hits)}{'+' if page.next else ''}"
            show(f"{name}: {statistics.median(times) * 1_000:.2f} ms, at most {max(times) * 1_000:.1f} ms, {hits} hits")


async def measure_build(place: Path | str, texts: Texts) -> None:
    """Makes the index beside appends of one task, one every 10 ms; shows how long those took."""
    location = resolve_location(place)
    assert location is not None
    async with DatabaseSessionService(place) as service:
        session = await service.create_session(data.APP, "beside", f"s{time.time()}")
        waits = []
        started = time.perf_counter()
        build = asyncio.create_task(asyncio.to_thread(stores.build_index, location))
        while not build.done():
            begun = time.perf_counter()
            await service.append_event(session, texts.event())
            waits.append(time.perf_counter() - begun)
            await asyncio.sleep(0.01)
        await build
        seconds = time.perf_counter() - started
        waits.sort()
        show(
            f"the index was made in {seconds:.1f} s; {len(waits)} appends beside took {statistics.median(waits) * 1_000:.1f} ms,"
            f" of 100 one {waits[-len(waits) // 100] * 1_000:.1f} ms, at most {waits[-1] * 1_000:.1f} ms"
        )


async def _has_index(place: Path | str) -> bool:
    async with DatabaseSessionService(place) as service:
        try:
            await service.search("anything")
        except SearchIndexError:
            return False
    return True


async def run(arguments: argparse.Namespace, folder: Path, kept: Collection[Path] = ()) -> None:
    """Measures what the arguments say."""

    def place(name: str) -> Path | str:
        if arguments.server is None:
            return folder / f"{name}.sqlite3"
        return f"{arguments.server}{'&' if '?' in arguments.server else '?'}schema={name.replace('-', '_').lower()}_{time.time_ns()}"

    if arguments.appends:
        await measure_appends(place, arguments.appends, arguments.rounds, arguments.script)
    if arguments.events:
        filled = place("filled")
        texts = Texts(arguments.script)
        if arguments.server is not None or filled not in kept:
            fill(filled, arguments.events, texts)
        if not await _has_index(filled):
            await measure_build(filled, texts)
        await measure_searches(filled, texts)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--appends", type=int, default=60_000, help="events that are appended, in each turn; 0: none")
    parser.add_argument("--rounds", type=int, default=5, help="turns with an index, and without")
    parser.add_argument(
        "--events", type=int, default=1_000_000, help="events of the database that is searched; 0: none"
    )
    parser.add_argument("--script", choices=[*_SCRIPTS], default="words", help="what the texts are written in")
    parser.add_argument("--server", help="the URL of a PostgreSQL server, instead of files")
    parser.add_argument("--folder", type=Path, help="where to keep the file that is searched, for another run")
    given = parser.parse_args()
    if given.folder is not None:
        asyncio.run(run(given, given.folder, list(given.folder.iterdir())))
    else:
        with tempfile.TemporaryDirectory(prefix="sessiondb-bench-") as temporary:
            asyncio.run(run(given, Path(temporary)))
