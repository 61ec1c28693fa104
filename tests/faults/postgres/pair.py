"""A primary and a standby, which takes over again and again."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import LiteralString

from tests.postgres.server import TIMEOUT, Server, run

# Each counts on the other only, whoever is primary.
SYNCHRONOUS = "ANY 1 (other)"


class Pair:
    """Two servers, one of which follows the other; each keeps its port."""

    def __init__(self, primary: Server, standby: Server) -> None:
        self.primary = primary
        self.standby = standby

    @property
    def hosts(self) -> str:
        """The part of a URL that names both, in the order of now."""
        return f"127.0.0.1:{self.primary.port},127.0.0.1:{self.standby.port}"

    def url(self, database: str) -> str:
        return f"postgresql://postgres@{self.hosts}/{database}"

    def follow(self) -> None:
        """Makes the standby anew, as a copy of the primary, and waits until it has everything."""
        if self.standby.is_running:
            self.standby.kill(everything=True)
        if self.standby.data.exists():
            shutil.rmtree(self.standby.data)
        run(
            "pg_basebackup",
            f"--pgdata={self.standby.data}",
            f"--dbname={self.primary.url()}?application_name=other",
            "--write-recovery-conf",
            "--checkpoint=fast",
            "--no-sync",
            "--wal-method=stream",
        )
        self.standby.start()
        self.wait_until_streaming()

    def wait_until_streaming(self) -> None:
        wait_until(
            self.primary,
            "SELECT count(*) = 1 FROM pg_stat_replication WHERE application_name = 'other' AND state = 'streaming'",
        )

    def promote(self) -> None:
        """Has the standby take over, and waits until it can be written to. The old primary is what it was."""
        with self.standby.connect() as connection:
            assert connection.execute("SELECT pg_promote(true, 60)").fetchone() == (True,)
        self.primary, self.standby = self.standby, self.primary


@contextmanager
def pair(*, synchronous: bool = True) -> Iterator[Pair]:
    """A running primary, and its standby."""
    one, other = (Server(fsync=False) for _ in range(2))
    try:
        one.initialize()
        one.start()
        both = Pair(one, other)
        if synchronous:
            # It counts once the standby is a primary.
            other.settings["synchronous_standby_names"] = SYNCHRONOUS
        both.follow()
        if synchronous:
            one.configure(synchronous_standby_names=SYNCHRONOUS)
            wait_until(one, "SELECT count(*) = 1 FROM pg_stat_replication WHERE sync_state = 'quorum'")
        yield both
    finally:
        for each in (one, other):
            each.remove()


def wait_until(server: Server, question: LiteralString) -> None:
    """Waits until a server answers a question with true."""
    deadline = time.monotonic() + TIMEOUT
    with server.connect() as connection:
        while connection.execute(question).fetchone() != (True,):
            assert time.monotonic() < deadline, f"not true: {question}"
            # It tells nobody when that changes.
            threading.Event().wait(0.005)
