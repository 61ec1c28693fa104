"""Power cuts: what was written and not synced may be lost, torn or out of order."""

from __future__ import annotations

import itertools
import json
import random
import sqlite3
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.faults.figures import Figures
from tests.faults.oracle import assert_sound, fold
from tests.faults.power import Disk, cuts
from tests.faults.shim import MARK, Record, read_log
from tests.faults.sizes import sized
from tests.faults.workload import APP
from tests.faults.zygote import Zygote

CLIENTS, APPENDS, OPENINGS = 6, 12, 3
CUTS_PER_RECORDING = sized(750, 1000)
FULL_RECORDINGS = sized(2, 21)
NORMAL_RECORDINGS = sized(1, 5)

_EVENTS = (
    "SELECT user_id, session_id, event_id, seq, revision, invocation_id, author, content, actions, event_time"
    " FROM adk_events ORDER BY id"
)
_SESSIONS = "SELECT user_id, session_id, last_seq, revision FROM adk_sessions ORDER BY incarnation"
_STATE = "SELECT app_name, user_id, session_id, scope, state_key, state_value FROM adk_state"


@dataclass
class Recording:
    """One run of the product: its I/O, and what was true after each of its appends."""

    records: list[Record]
    events: list[tuple[Any, ...]]
    sessions: list[tuple[Any, ...]]
    needed: list[tuple[int, int]]
    """After so many acknowledgements: how many events, and how many sessions, must be there at least."""
    states: list[dict[tuple[Any, ...], str]] = field(default_factory=list)
    """After so many events: the rows of state."""


def record(zygote: Zygote, folder: Path, durability: str = "full", mutant: str = "", cut: bool = False) -> Recording:
    folder.mkdir()
    log = folder.parent / f"{folder.name}.log"
    acknowledged = zygote.run(
        "tests.faults.programs:record_writes",
        folder=str(folder),
        log=str(log),
        durability=durability,
        clients=CLIENTS,
        appends=APPENDS,
        openings=OPENINGS,
        mutant=mutant,
        cut=cut,
    )
    path = folder / "db.sqlite3"
    told: dict[str, list[str]] = {}
    for session, event in acknowledged:
        told.setdefault(session, []).extend([event] if event else [])
    assert_sound(path, told)
    connection = sqlite3.connect(path)
    events = connection.execute(_EVENTS).fetchall()
    sessions = connection.execute(_SESSIONS).fetchall()
    connection.close()
    event_places = {row[2]: number for number, row in enumerate(events, 1)}
    session_places = {row[1]: number for number, row in enumerate(sessions, 1)}
    needed = [(0, 0)]
    for session, event in acknowledged:
        before = needed[-1]
        needed.append((max(before[0], event_places.get(event, 0)), max(before[1], session_places[session])))
    states: list[dict[tuple[Any, ...], str]] = [{}]
    for user, session, *_, actions, _ in events:
        states.append(dict(states[-1]))
        fold(states[-1], APP, user, session, json.loads(actions)["state_delta"])
    return Recording(list(read_log(log)), events, sessions, needed, states)


def judge(recording: Recording, image: dict[str, bytes], folder: Path, marks: int) -> tuple[str, int]:
    """Opens what a cut has left. Returns what is wrong ("" if nothing is), and how many acknowledged events are lost."""
    events_needed, sessions_needed = recording.needed[marks]
    path = folder / "db.sqlite3"
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    for name, data in image.items():
        (folder / Path(name).name).write_bytes(data)
    if not path.exists():
        return ("", events_needed) if not sessions_needed else ("the file is missing", events_needed)
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        # Without shared memory: each image is opened once.
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        if not connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            events, sessions, state = [], [], {}
        else:
            events = connection.execute(_EVENTS).fetchall()
            sessions = connection.execute(_SESSIONS).fetchall()
            state = {tuple(row[:5]): row[5] for row in connection.execute(_STATE)}
            (integrity,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
            if integrity != "ok":
                return f"integrity: {integrity}", 0
    except sqlite3.DatabaseError as error:
        return f"cannot be read: {error}", 0
    finally:
        connection.close()
    if events != recording.events[: len(events)]:
        return "the log is no prefix of what was written", 0
    if state != recording.states[len(events)]:
        return "the state is not what the log says", 0
    counts = Counter(row[1] for row in events)
    if [row[:2] for row in sessions] != [row[:2] for row in recording.sessions[: len(sessions)]] or any(
        last_seq != counts[session] or revision != counts[session] for _, session, last_seq, revision in sessions
    ):
        return "sessions do not agree with the log", 0
    lost = max(0, events_needed - len(events))
    return ("lost" if lost or len(sessions) < sessions_needed else ""), lost


def try_cuts(recording: Recording, folder: Path, rng: random.Random, many: int) -> tuple[Counter[str], int]:
    """Returns how often each thing went wrong ("" counts the cuts after which nothing was), and the most events lost."""
    outcomes: Counter[str] = Counter()
    most = 0
    for image, marks in cuts(recording.records, many, rng):
        problem, lost = judge(recording, image, folder, marks)
        outcomes[problem] += 1
        most = max(most, lost)
    return outcomes, most


def test_power_cut_with_full_durability_loses_nothing(
    zygote: Zygote, memory_path: Path, rng: random.Random, figures: Figures
) -> None:
    """Seen failing with the breaks "answer before commit" and "synchronous=NORMAL", see below."""
    for number in range(FULL_RECORDINGS):
        recording = record(zygote, memory_path / str(number), cut=number % 2 == 0)
        images = memory_path / f"images{number}"
        images.mkdir()
        started = time.perf_counter()
        outcomes, _ = try_cuts(recording, images, rng, CUTS_PER_RECORDING)
        seconds = time.perf_counter() - started
        assert outcomes == {"": CUTS_PER_RECORDING}
        figures('power cuts, "full"', cuts=CUTS_PER_RECORDING, calls=len(recording.records), lost=0)
        figures("power cuts, images", built_per_second=f"{CUTS_PER_RECORDING / seconds:,.0f}")


def test_power_cut_with_normal_durability_loses_suffix_only(
    zygote: Zygote, memory_path: Path, rng: random.Random, figures: Figures
) -> None:
    """Seen failing with the break "synchronous=OFF", see below."""
    lossy = worst = 0
    for number in range(NORMAL_RECORDINGS):
        recording = record(zygote, memory_path / str(number), durability="normal", cut=number % 2 == 0)
        images = memory_path / f"images{number}"
        images.mkdir()
        outcomes, most = try_cuts(recording, images, rng, CUTS_PER_RECORDING)
        assert set(outcomes) <= {"", "lost"}
        lossy += outcomes["lost"]
        worst = max(worst, most)
    cut = NORMAL_RECORDINGS * CUTS_PER_RECORDING
    figures('power cuts, "normal"', cuts=cut, with_a_lost_suffix=lossy, longest_suffix=str(worst), corrupted=0)


@pytest.mark.parametrize(
    ("durability", "mutant", "problem"),
    [
        ("full", "answer before commit", "lost"),
        ("full", "synchronous=NORMAL", "lost"),
        ("normal", "synchronous=OFF", "cannot be read"),
    ],
)
def test_mutant_that_loses_events_at_power_cut_is_noticed(
    zygote: Zygote, memory_path: Path, figures: Figures, *, durability: str, mutant: str, problem: str
) -> None:
    recording = record(zygote, memory_path / "db", durability=durability, mutant=mutant)
    images = memory_path / "images"
    images.mkdir()
    outcomes, _ = try_cuts(recording, images, random.Random(1), 300)
    figures(f"power cuts, break {mutant!r}", cuts=300, caught=300 - outcomes[""])
    wrong = {found.partition(":")[0] for found in outcomes}
    assert problem in wrong


def test_new_directories_are_fsynced_before_first_answer(zygote: Zygote, memory_path: Path) -> None:
    """Seen failing while folders were made without a sync of the folder that they stand in."""
    log = memory_path / "log"
    zygote.run(
        "tests.faults.programs:record_writes",
        folder=str(memory_path),
        log=str(log),
        durability="full",
        clients=1,
        appends=1,
        openings=1,
        place="new/folder/db.sqlite3",
    )
    disk = Disk()
    for entry in itertools.takewhile(lambda record: record.operation != MARK, read_log(log)):
        disk.apply(entry)
    assert not disk.unsynced_folders
