"""A program that outlives the tests: stops their servers when they end, however they end, and removes their folder.

It imports nothing of the project, and waits for the end of its standard input, which nobody writes to.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
from contextlib import suppress
from pathlib import Path


def stop(postmaster: int) -> None:
    """Has a server drop everything; kills it if it does not."""
    with suppress(ProcessLookupError):
        end = os.pidfd_open(postmaster)
        os.kill(postmaster, signal.SIGQUIT)
        # One that was held still sees the other signal only then.
        os.kill(postmaster, signal.SIGCONT)
        if not select.select([end], [], [], 10)[0]:
            os.kill(postmaster, signal.SIGKILL)
            select.select([end], [], [], 10)


def main(folder: Path) -> None:
    sys.stdin.read()
    for note in folder.glob("*/data/postmaster.pid"):
        stop(int(note.read_text().split()[0]))
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
