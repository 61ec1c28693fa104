"""Holding up a backup, and looking at what it leaves."""

from __future__ import annotations

import threading
from pathlib import Path

import anyio
import anyio.lowlevel


class Gate:
    """Stops a backup at its first step, on its own thread, until it is told to go on; follows its progress."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, int]] = []
        self._begun = threading.Event()
        self._may_go_on = threading.Event()

    def __call__(self, copied: int, total: int) -> None:
        self.steps.append((copied, total))
        if len(self.steps) == 1:
            self._begun.set()
            self._may_go_on.wait()

    async def begun(self) -> None:
        """Returns when the backup stands at its first step."""
        await anyio.to_thread.run_sync(self._begun.wait)

    def open(self) -> None:
        """Lets the backup go on."""
        self._may_go_on.set()


def names_in(folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir()]


def read(path: Path) -> bytes:
    return path.read_bytes()


def write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
