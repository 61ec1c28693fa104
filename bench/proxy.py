"""A proxy that makes a server a far one: what either side says arrives a moment later."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_MAIN = "import sys; from bench.proxy import main; main(*sys.argv[1:])"


class _Side(asyncio.Protocol):
    """One end of a connection: what it receives goes to the other end, late, and in order."""

    def __init__(self, delay: float) -> None:
        self._delay = delay
        self.transport: asyncio.Transport | None = None
        self.other: _Side | None = None
        self._early: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        # Timers of one length fire in the order in which they were set.
        asyncio.get_running_loop().call_later(self._delay, self._pass_on, data)

    def _pass_on(self, data: bytes) -> None:
        if self.other is None or self.other.transport is None:
            self._early.append(data)
        else:
            self.other.transport.write(data)

    def join(self, other: _Side) -> None:
        """Passes on to another end, first what came before it was there."""
        self.other = other
        early, self._early = self._early, []
        for data in early:
            self._pass_on(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()


class _Client(_Side):
    """The end that connected: the other one is opened for it."""

    def __init__(self, delay: float, port: int) -> None:
        super().__init__(delay)
        self._port = port
        self._opening: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._opening = asyncio.create_task(self._open())

    async def _open(self) -> None:
        server = _Side(self._delay)
        await asyncio.get_running_loop().create_connection(lambda: server, "127.0.0.1", self._port)
        server.join(self)
        self.join(server)


@contextmanager
def delaying_proxy(port: int, delay: float) -> Iterator[int]:
    """Runs a proxy to a local port in a process of its own; yields the port on which it listens."""
    command = [sys.executable, "-c", _MAIN, str(port), str(delay)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.kill()


def main(port: str, delay: str) -> None:
    """The whole of such a process: it says on which port it listens, and ends when nobody listens to it any more."""
    with suppress(KeyboardInterrupt):
        asyncio.run(_serve(int(port), float(delay)))


async def _serve(port: int, delay: float) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Client(delay, port), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    # Its standard input ends with the process that has started it.
    await loop.run_in_executor(None, sys.stdin.read)
