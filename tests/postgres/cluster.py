"""A primary and its standby, and what a failover manager does with them."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import LiteralString
from urllib.parse import urlsplit

from tests.postgres.server import TIMEOUT, Server, run


class Cluster:
    """Two servers, one of which takes writes. See :func:`cluster`."""

    def __init__(self, *, synchronous: bool, fsync: bool) -> None:
        """Takes folders and ports.

        Args:
            synchronous: Whether a commit waits until the standby has it. If not, a promotion loses what the standby has
                not received yet.
            fsync: Whether what is committed survives a loss of power. Off is faster.
        """
        self._synchronous = synchronous
        settings = {
            "fsync": "on" if fsync else "off",
            "wal_log_hints": "on",
            "wal_keep_size": "1GB",
            "wal_receiver_status_interval": "1",
            "wal_retrieve_retry_interval": "10ms",
        }
        self.primary = Server(fsync=True, settings=settings)
        """The server that takes writes."""
        self.standby = Server(fsync=True, settings=settings)
        """The other one; after a promotion it is the old primary, which is down until :meth:`rejoin`."""

    def url(self, database: str = "postgres") -> str:
        """Returns a URL that names both servers, and leads to the one that takes writes."""
        servers = sorted([self.primary, self.standby], key=lambda server: server.port)
        hosts = ",".join(f"127.0.0.1:{server.port}" for server in servers)
        parts = urlsplit(self.primary.url(database))
        return parts._replace(netloc=f"postgres@{hosts}", query="target_session_attrs=read-write").geturl()

    def start(self) -> None:
        """Makes both servers' data, and starts them."""
        self.primary.initialize()
        self.primary.start()
        self._copy_to_standby()
        self._follow()

    def promote(self) -> Server:
        """Makes the standby the primary, and returns it. The old one is neither asked nor told: end it before, or fence it.

        Commits do not wait for a standby until :meth:`rejoin`.
        """
        self.primary, self.standby = self.standby, self.primary
        with self.primary.connect() as connection:
            assert connection.execute("SELECT pg_promote(true, 60)").fetchone() == (True,)
        return self.primary

    def rejoin(self, *, rewind: bool = True) -> None:
        """Has the old primary, which is down, follow the new one.

        Args:
            rewind: Keep its data, all but what the new primary does not have. Otherwise it begins with a copy.
        """
        if rewind:
            # Where the new primary's history begins has to be on its disk.
            with self.primary.connect() as connection:
                connection.execute("CHECKPOINT")
            source = f"host=127.0.0.1 port={self.primary.port} user=postgres dbname=postgres"
            run("pg_rewind", f"--target-pgdata={self.standby.data}", f"--source-server={source}", "--no-sync")
        else:
            shutil.rmtree(self.standby.data)
            self._copy_to_standby()
        self._follow()

    def remove(self) -> None:
        """Stops both, and removes their data."""
        self.standby.remove()
        self.primary.remove()

    def wait_until_equal(self) -> None:
        """Waits until the standby has replayed all that the primary has written."""
        with self.primary.connect() as connection:
            row = connection.execute("SELECT pg_current_wal_lsn()").fetchone()
        assert row is not None
        _wait(self.standby, "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", row[0])

    def _copy_to_standby(self) -> None:
        run(
            "pg_basebackup",
            f"--pgdata={self.standby.data}",
            f"--dbname=host=127.0.0.1 port={self.primary.port} user=postgres",
            "--checkpoint=fast",
            "--no-sync",
        )

    def _follow(self) -> None:
        """Starts the standby on data that are a copy of the primary's, and waits for it."""
        self.standby.settings |= {
            "primary_conninfo": f"host=127.0.0.1 port={self.primary.port} user=postgres application_name=standby",
            "recovery_target_timeline": "latest",
        }
        self.standby.settings.pop("synchronous_standby_names", None)
        self.standby.write("standby.signal", "")
        self.standby.start()
        if self._synchronous:
            self.primary.configure(synchronous_standby_names="standby")
        _wait(
            self.primary,
            "SELECT count(*) > 0 FROM pg_stat_replication WHERE state = 'streaming' AND sync_state = %s",
            "sync" if self._synchronous else "async",
        )


def _wait(server: Server, query: LiteralString, value: str) -> None:
    """Waits until a server answers True."""
    deadline = time.monotonic() + TIMEOUT
    with server.connect() as connection:
        while connection.execute(query, [value]).fetchone() != (True,):
            assert time.monotonic() < deadline, f"{server} does not come to {query}"
            connection.execute("SELECT pg_sleep(0.005)")


@contextmanager
def cluster(*, synchronous: bool = True, fsync: bool = True) -> Iterator[Cluster]:
    """A primary and its standby, both running; :class:`Cluster` explains the arguments."""
    one = Cluster(synchronous=synchronous, fsync=fsync)
    try:
        one.start()
        yield one
    finally:
        one.remove()
