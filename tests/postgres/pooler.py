"""Debian's pgbouncer in front of a server, where it is installed."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.postgres.server import TIMEOUT, Server

_SETTINGS = """
[databases]
* = host=127.0.0.1 port={server.port} user=postgres

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {connections}
logfile = {folder}/log
"""


@contextmanager
def pooler(server: Server, *, connections: int = 2) -> Iterator[int]:
    """Runs pgbouncer in transaction mode, and gives its port.

    Args:
        server: What stands behind it.
        connections: How many connections to the server all clients share.
    """
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip("pgbouncer is not installed (apt-get install pgbouncer)")
    with tempfile.TemporaryDirectory() as name, socket.create_server(("127.0.0.1", 0)) as free:
        folder = Path(name)
        port = free.getsockname()[1]
        free.close()
        settings = folder / "pgbouncer.ini"
        settings.write_text(_SETTINGS.format(server=server, port=port, connections=connections, folder=folder))
        arguments = [program, str(settings)]
        if os.geteuid() == 0:
            # It refuses to run as root.
            account = pwd.getpwnam("nobody")
            os.chown(folder, account.pw_uid, account.pw_gid)
            arguments[1:1] = ["-u", account.pw_name]
        running = subprocess.Popen(
            arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        assert running.stdout is not None
        try:
            for line in running.stdout:
                if b"process up" in line:
                    break
            else:
                raise AssertionError(f"pgbouncer did not start: {running.wait(TIMEOUT)}")
            yield port
        finally:
            running.kill()
            running.wait(TIMEOUT)
            running.stdout.close()
