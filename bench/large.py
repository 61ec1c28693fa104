"""What each call takes in files of 0.1, 1 and 10 million events: ``python -m bench.large``.

Files are filled at once, conversations of 100 events each, and then measured in turns, so that whatever the machine does
meanwhile hits all of them alike. The largest takes 6 GB, and its backup and vacuum as much again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import matplotlib as mpl
from google.adk.sessions import Session
from google.adk.sessions.base_session_service import GetSessionConfig
from matplotlib.figure import Figure
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from bench.filling import fill, key_of
from bench.services import PEERS, SESSIONDB
from bench.workloads.clients import Client, append_round
from sessiondb import DatabaseSessionService
from sessiondb.adk.events import decode_event
from sessiondb.stores.sqlite.repair.check import check

_PER_SESSION = 100
_SIZES = (100_000, 1_000_000, 10_000_000)
_FIGURES = Path("bench/results/large.json")
_PLOT = Path("docs/images/large.svg")
_STEPS = ("fill", "calls", "check", "backup", "vacuum", "plot")
_NO_EVENTS = GetSessionConfig(num_recent_events=0)
_NEWEST = GetSessionConfig(num_recent_events=20)

_SHOWN = {
    "append_1": "append, one client",
    "append_64": "append, 64 clients",
    "append_64_scattered": "the same, each append to another conversation",
    "get_warm": "get of 100 events, read before, each looked at",
    "get_newest": "get of the newest 20, not read before, each looked at",
    "get_cold": "get of 100 events, not read before, each looked at",
    "get_from_disk": "the same from the disk",
    "list": "list of a user's 100 sessions",
    "get_stats": "get_stats",
    "open": "open, with a first read",
}
"""Figures in the plot, in the order of its legend."""

_WHOLE_FILE = {"check": "check", "backup": "backup", "vacuum": "vacuum"}

Figures = dict[str, float]
"""Times in seconds, sizes in bytes, by what was measured."""


class _File:
    """An open file, and what was measured of it."""

    def __init__(self, path: Path, sessions: int, service: DatabaseSessionService) -> None:
        self.path = path
        self._sessions = sessions
        self._service = service
        self._choice = random.Random(1)
        self._times: dict[str, list[float]] = {}

    def read(self) -> None:
        """Reads the file, so that it is in the kernel's memory as on a server that has run for a while."""
        with self.path.open("rb", buffering=0) as file:
            while file.read(2**24):
                pass

    async def round(self) -> None:
        """Measures each call some times."""
        await self._append("append_1", clients=1, conversations=4, each=25)
        await self._append("append_64", clients=64, conversations=1, each=25)
        # Each to another conversation: the pages that it is written to were not written to before.
        await self._append("append_64_scattered", clients=64, conversations=15, each=1)
        for n in self._some(20):
            await self._timed("get_newest", n, _NEWEST)
        for n in self._some(20):
            await self._timed("get_cold", n)
            await self._timed("get_warm", n)
        for n in self._some(5):
            app, user, _ = key_of(n)
            started = time.perf_counter()
            await self._service.list_sessions(app_name=app, user_id=user)
            self._note("list", time.perf_counter() - started)
        for _ in range(5):
            started = time.perf_counter()
            self._service.get_stats()
            self._note("get_stats", time.perf_counter() - started)

    async def close(self) -> Figures:
        """Measures what takes the file out of memory, opens it some times more, and closes it; returns the medians."""
        for n in self._some(20):
            self._forget()
            await self._timed("get_from_disk", n)
        stats = self._service.get_stats()
        for _ in range(5):
            await self._service.close()
            started = time.perf_counter()
            self._service = DatabaseSessionService(self.path)
            await self._get(self._some(1)[0], _NO_EVENTS)
            self._note("open", time.perf_counter() - started)
        await self._service.close()
        sizes = {"events": stats["events"], "file_bytes": self.path.stat().st_size}
        return {name: statistics.median(times) for name, times in self._times.items()} | sizes

    async def _append(self, name: str, *, clients: int, conversations: int, each: int) -> None:
        handles = [await self._get(n, _NO_EVENTS) for n in self._some(clients * conversations)]
        peer = PEERS[SESSIONDB]
        all_clients = [
            Client(peer, self._service, [handle for handle in handles[n::clients] for _ in range(each)])
            for n in range(clients)
        ]
        sample = await append_round(all_clients, conversations * each)
        self._note(name, sample.figures["p50"])
        self._note(f"{name}_p99", sample.figures["p99"])
        self._note(f"{name}_per_second", sample.figures["per_second"])

    def _some(self, count: int) -> list[int]:
        return self._choice.sample(range(self._sessions), count)

    async def _get(self, number: int, config: GetSessionConfig | None = None) -> Session:
        app, user, session_id = key_of(number)
        session = await self._service.get_session(app_name=app, user_id=user, session_id=session_id, config=config)
        assert session is not None
        return session

    async def _timed(self, name: str, number: int, config: GetSessionConfig | None = None) -> None:
        started = time.perf_counter()
        session = await self._get(number, config)
        # Events are made when somebody looks.
        assert sum(event.author == "agent" for event in session.events) >= (20 if config else _PER_SESSION)
        self._note(name, time.perf_counter() - started)

    def _forget(self) -> None:
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)

    def _note(self, name: str, seconds: float) -> None:
        self._times.setdefault(name, []).append(seconds)


async def measure_calls(folder: Path, sizes: Sequence[int], rounds: int) -> dict[int, Figures]:
    """Measures all calls in all files, the files taking turns."""
    files = {}
    for size in sizes:
        path = _path(folder, size)
        files[size] = _File(path, size // _PER_SESSION, DatabaseSessionService(path))
        files[size].read()
    for n in range(rounds):
        for size in sizes if n % 2 == 0 else reversed(sizes):
            await files[size].round()
    return {size: await file.close() for size, file in files.items()}


def measure_check(path: Path) -> Figures:
    """Checks a file, once."""
    started = time.perf_counter()
    report = check(path, decode_event)
    assert report.is_sound, report.findings
    return {"check": time.perf_counter() - started}


async def measure_backup(path: Path) -> Figures:
    """Makes a backup, once."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        async with DatabaseSessionService(path) as service:
            started = time.perf_counter()
            await service.backup(Path(folder) / "backup.sqlite3")
            return {"backup": time.perf_counter() - started}


async def measure_vacuum(path: Path) -> Figures:
    """Vacuums a file, once."""
    async with DatabaseSessionService(path) as service:
        started = time.perf_counter()
        await asyncio.to_thread(service.vacuum)
        return {"vacuum": time.perf_counter() - started}


def fill_files(folder: Path, sizes: Sequence[int]) -> None:
    """Fills the files that are not there yet, with a progress bar."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns) as progress:
        for size in sizes:
            bar = progress.add_task(f"{size:,} events", total=size)
            if not _path(folder, size).exists():
                scratch = folder / "being-filled.sqlite3"
                asyncio.run(fill(scratch, size // _PER_SESSION, _PER_SESSION, partial(progress.advance, bar)))
                scratch.rename(_path(folder, size))
            progress.update(bar, completed=size)


def plot(figures: Mapping[str, Figures], path: Path) -> None:
    """Draws how long each call takes against the number of events in the file."""
    mpl.rcParams["svg.hashsalt"] = "sessiondb"
    figure = Figure(figsize=(11, 5), layout="constrained")
    axes = figure.subplots()
    sizes = sorted(map(int, figures))
    for name, title in _SHOWN.items():
        axes.plot(sizes, [figures[str(size)][name] * 1000 for size in sizes], marker="o", markersize=3, label=title)
    axes.set_title("ms, median", fontsize="medium")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("events in the file")
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    # A date would make every drawing of the same figures another file.
    figure.savefig(path, metadata={"Date": None})


def table(figures: Mapping[str, Figures]) -> str:
    """Writes the figures as a table in Markdown."""
    sizes = sorted(figures, key=int)
    lines = [
        f"| events in the file | {' | '.join(f'{int(size):,}' for size in sizes)} |",
        "| --- " * (len(sizes) + 1) + "|",
    ]
    for name, title in (_SHOWN | _WHOLE_FILE).items():
        cells = [_text(figures[size][name]) for size in sizes]
        more = [size for size in sizes if f"{name}_p99" in figures[size]]
        for n, size in enumerate(more):
            found = figures[size]
            cells[n] += f", {_text(found[f'{name}_p99'])}, {found[f'{name}_per_second']:,.0f}"
        lines.append(f"| {title}{', median, p99, appends a second' if more else ''} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _text(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{float(f'{seconds * 1000:.2g}'):g} ms"


def _path(folder: Path, size: int) -> Path:
    return folder / f"{size}.sqlite3"


def main() -> None:
    """Does the steps that are asked for; figures are added to those of earlier steps."""
    parser = argparse.ArgumentParser(prog="python -m bench.large", description=__doc__)
    parser.add_argument("--events", type=int, nargs="+", default=_SIZES, metavar="N", help="sizes of the files")
    parser.add_argument("--steps", nargs="+", choices=_STEPS, default=_STEPS, help="some of them only")
    parser.add_argument("--rounds", type=int, default=5, help="of the calls (5)")
    parser.add_argument("--folder", type=Path, help="where the files are, and stay; without it they are temporary")
    parser.add_argument("--figures", type=Path, default=_FIGURES, metavar="FILE", help=f"the figures ({_FIGURES})")
    parser.add_argument("--plot", type=Path, default=_PLOT, metavar="FILE", help=f"the picture ({_PLOT})")
    arguments = parser.parse_args()
    figures: dict[str, Figures] = json.loads(arguments.figures.read_text()) if arguments.figures.exists() else {}

    def note(size: int, found: Figures) -> None:
        figures.setdefault(str(size), {}).update(found)
        arguments.figures.write_text(json.dumps(figures, indent=1) + "\n")
        print(size, found, flush=True)

    with ExitStack() as stack:
        folder = arguments.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        sizes: Sequence[int] = arguments.events
        for step in arguments.steps:
            if step == "fill":
                fill_files(folder, sizes)
            elif step == "calls":
                for size, found in asyncio.run(measure_calls(folder, sizes, arguments.rounds)).items():
                    note(size, found)
            elif step == "plot":
                plot(figures, arguments.plot)
                print(table(figures))
            else:
                for size in sizes:
                    note(size, _WHOLE[step](_path(folder, size)))


_WHOLE: dict[str, Callable[[Path], Figures]] = {
    "check": measure_check,
    "backup": lambda path: asyncio.run(measure_backup(path)),
    "vacuum": lambda path: asyncio.run(measure_vacuum(path)),
}


if __name__ == "__main__":
    main()
