"""Services on temporary files, empty or with sessions in them."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from google.adk.sessions import BaseSessionService, Session
from google.adk.sessions.base_session_service import GetSessionConfig

from bench import data
from bench.mutants import MUTANTS
from bench.services import PEERS, Peer

SERVICES = PEERS | MUTANTS
_RAM = Path("/dev/shm")  # noqa: S108  # a private folder is made in it


class SeededServices:
    """Seeded data, kept by this process for the workloads that do not mind what others left there."""

    def __init__(self) -> None:
        self._folders: dict[tuple[str, int, int], Path] = {}
        self._in_memory: dict[tuple[str, int, int], BaseSessionService] = {}

    @asynccontextmanager
    async def open(self, name: str, sessions: int, events: int) -> AsyncIterator[tuple[BaseSessionService, Path]]:
        """A service with ``sessions`` sessions of ``events`` events each, opened anew on its file; and its folder."""
        peer = SERVICES[name]
        key = (name, sessions, events)
        if not peer.durable:
            if key not in self._in_memory:
                async with peer.open(Path()) as service:
                    await seed(peer, service, sessions, events)
                self._in_memory[key] = service
            yield self._in_memory[key], Path()
            return
        if peer.on_server and key not in self._folders:
            folder = _new_folder()
            async with peer.open(folder) as service:
                await seed(peer, service, sessions, events)
            self._folders[key] = folder
        if key not in self._folders:
            # Filled in memory, for time's sake: the file is the same. What is measured happens on the disk.
            with temporary_folder(_RAM if os.access(_RAM, os.W_OK) else None) as scratch:
                async with peer.open(scratch) as service:
                    await seed(peer, service, sessions, events)
                self._folders[key] = shutil.copytree(scratch, _new_folder(), dirs_exist_ok=True)
        async with peer.open(self._folders[key]) as service:
            yield service, self._folders[key]


SEEDED = SeededServices()


def _new_folder(parent: Path | None = None) -> Path:
    return Path(tempfile.mkdtemp(prefix="sessiondb-bench-", dir=parent))


@contextmanager
def temporary_folder(parent: Path | None = None) -> Iterator[Path]:
    """A temporary folder, removed afterwards."""
    path = _new_folder(parent)
    try:
        yield path
    finally:
        shutil.rmtree(path)


def file_bytes(folder: Path) -> int:
    """The size of all files in a folder."""
    return sum(file.stat().st_size for file in folder.iterdir())


@asynccontextmanager
async def open_empty(name: str) -> AsyncIterator[tuple[Peer, BaseSessionService]]:
    """A service on an empty file."""
    peer = SERVICES[name]
    with temporary_folder() as folder:
        async with peer.open(folder) as service:
            yield peer, service


async def seed(peer: Peer, service: BaseSessionService, sessions: int, events: int) -> None:
    """Creates sessions ``s0``, ``s1``, ... of one user and fills them."""

    async def fill(numbers: range) -> None:
        for n in numbers:
            session = await peer.create(service, data.APP, data.USER, f"s{n}")
            for _ in range(events):
                await service.append_event(session, data.event())
                if peer.durable:
                    # What a Session has seen so far is of no use here, and would be the larger part of all memory.
                    session.events.clear()

    # Concurrent conversations fill a service that commits in groups faster; those that lock are filled in turn.
    tasks = 1 if peer.errors else min(64, sessions)
    await asyncio.gather(*(fill(range(first, sessions, tasks)) for first in range(tasks)))


async def read(
    service: BaseSessionService, session_id: str, config: GetSessionConfig | None = None, user: str = data.USER
) -> Session:
    """Gets a session that exists."""
    session = await service.get_session(app_name=data.APP, user_id=user, session_id=session_id, config=config)
    assert session is not None
    return session
