"""A cluster of three servers that Patroni looks after: who leads is decided by it, with etcd, and nobody else."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.postgres.proxy import Proxy, proxy
from tests.postgres.server import free_port

_ACCOUNT = "nobody"
_PROGRAMS = Path("/usr/lib/postgresql/15/bin")
"""Of a version that Debian's Patroni knows."""

_TIMEOUT = 120.0


class Node:
    """A server, the Patroni beside it, and its way to etcd, which can be cut."""

    def __init__(self, folder: Path, name: str, etcd: Proxy) -> None:
        self.name = name
        self.etcd = etcd
        self.port = free_port()
        self._rest = free_port()
        self._data = folder / name / "data"
        self._log = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._config = folder / f"{name}.json"
        self._data.parent.mkdir()
        shutil.chown(self._data.parent, _ACCOUNT)
        address = f"127.0.0.1:{self.port}"
        everybody = [
            "local all all trust",
            "host all all 127.0.0.1/32 trust",
            "host replication all 127.0.0.1/32 trust",
        ]
        login = {"username": "postgres", "password": "unused"}
        config = {
            "scope": "faults",
            "name": name,
            "restapi": {"listen": f"127.0.0.1:{self._rest}", "connect_address": f"127.0.0.1:{self._rest}"},
            # Else it would ask etcd for its address, and go there by itself.
            "etcd3": {"hosts": [f"127.0.0.1:{etcd.port}"], "use_proxies": True},
            "bootstrap": {
                "dcs": {
                    "ttl": 8,
                    "loop_wait": 1,
                    "retry_timeout": 3,
                    "master_start_timeout": 0,
                    "synchronous_mode": True,
                    "postgresql": {"use_pg_rewind": True},
                },
                "initdb": [{"encoding": "UTF8"}, {"auth": "trust"}, "no-sync"],
                "pg_hba": everybody,
            },
            "postgresql": {
                "listen": address,
                "connect_address": address,
                "data_dir": str(self._data),
                "bin_dir": str(_PROGRAMS),
                "pg_hba": everybody,
                "authentication": {"superuser": login, "replication": login},
                "parameters": {
                    "unix_socket_directories": str(self._data.parent),
                    "shared_buffers": "32MB",
                    "fsync": "off",
                    "wal_log_hints": "on",
                },
                "remove_data_directory_on_rewind_failure": True,
                "remove_data_directory_on_diverged_timelines": True,
            },
        }
        self._config.write_text(json.dumps(config), encoding="utf-8")

    def start(self) -> None:
        """Starts the Patroni."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                ["patroni", self._config],  # noqa: S607  # wherever Debian has it
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._data.parent,
                env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "HOME": str(self._data.parent)},
                user=_ACCOUNT,
                extra_groups=[],
                start_new_session=True,
            )

    def kill(self) -> None:
        """Ends Patroni and server, as when the computer goes."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        self.kill_server()

    def kill_server(self) -> None:
        """Ends the server; those of its processes that serve somebody find out by themselves."""
        with suppress(FileNotFoundError, ProcessLookupError):
            os.kill(int((self._data / "postmaster.pid").read_text(encoding="utf-8").split()[0]), signal.SIGKILL)

    @property
    def is_started(self) -> bool:
        return self._process is not None

    def is_as(self, role: str) -> bool:
        """Whether Patroni says that the node has a role: ``leader``, ``replica`` or ``sync``."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._rest}/{role}", timeout=2):
                return True
        except OSError:
            return False


class Cluster:
    """Three nodes."""

    def __init__(self, nodes: list[Node]) -> None:
        self.nodes = nodes

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)
        return f"postgresql://postgres@{hosts}/postgres"

    def leader(self, *, other_than: Node | None = None) -> Node:
        """Waits until one leads, and returns it."""
        found: list[Node] = []

        def is_there() -> bool:
            found[:] = [node for node in self.nodes if node is not other_than and node.is_as("leader")]
            return bool(found)

        _wait(is_there, "no leader")
        return found[0]

    def wait_until_whole(self) -> None:
        """Waits until one leads, both others follow, and one of them has all that is acknowledged."""
        _wait(
            lambda: (
                sum(node.is_as("leader") for node in self.nodes) == 1
                and sum(node.is_as("replica") for node in self.nodes) == len(self.nodes) - 1
                and any(node.is_as("sync") for node in self.nodes)
            ),
            "the cluster is not whole",
        )


def _wait(question: Callable[[], Any], problem: str) -> None:
    deadline = time.monotonic() + _TIMEOUT
    while not question():
        assert time.monotonic() < deadline, problem
        threading.Event().wait(0.1)


@contextmanager
def cluster() -> Iterator[Cluster]:
    """A whole cluster; the test is skipped where there is no Patroni."""
    for program in ("patroni", "etcd", _PROGRAMS / "postgres"):
        if shutil.which(program) is None or os.geteuid() != 0:
            pytest.skip(f"NOT SHOWN HERE: {program} is not installed, or the tests are not run by root")
    with ExitStack() as undo:
        folder = Path(tempfile.mkdtemp(prefix="sessiondb-patroni-"))
        undo.callback(shutil.rmtree, folder, ignore_errors=True)
        folder.chmod(0o755)
        port, peer = free_port(), free_port()
        log = undo.enter_context((folder / "etcd.log").open("wb"))
        etcd = subprocess.Popen(
            [  # noqa: S607  # wherever Debian has it
                "etcd",
                f"--data-dir={folder / 'etcd'}",
                "--unsafe-no-fsync",
                f"--listen-client-urls=http://127.0.0.1:{port}",
                f"--advertise-client-urls=http://127.0.0.1:{port}",
                f"--listen-peer-urls=http://127.0.0.1:{peer}",
            ],
            stdout=log,
            stderr=log,
        )
        undo.callback(etcd.wait)
        undo.callback(etcd.kill)
        ways = [undo.enter_context(proxy(f"http://127.0.0.1:{port}", understood=False)) for _ in range(3)]
        nodes = [Node(folder, f"node{n}", way) for n, way in enumerate(ways)]
        for node in nodes:
            undo.callback(node.kill)
            node.start()
        three = Cluster(nodes)
        three.wait_until_whole()
        yield three


def version() -> str:
    """Returns the version of Patroni."""
    done = subprocess.run(["patroni", "--version"], capture_output=True, text=True, check=True)  # noqa: S607
    return done.stdout.split()[-1]
