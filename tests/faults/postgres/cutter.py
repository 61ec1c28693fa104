"""Between hosts and a server: cuts what they say to each other, or keeps it back."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Literal, Self

Way = Literal["request", "half request", "reply", "half reply", "answered"]
"""Where a connection is cut: a request is not sent on, or half of it; it is sent on, and the reply is not, or half of it; or
the reply is sent on, and then the connection is cut."""

WAYS: tuple[Way, ...] = ("request", "half request", "reply", "half reply", "answered")

_READY = b"Z\x00\x00\x00\x05I"
"""With this a server ends each reply, outside a transaction."""

_LARGE = 256
"""Messages of more bytes are batches; what is smaller belongs to opening a connection, or is a question."""


class Cutter:
    """Listens on a port of the loopback address, and connects whoever comes to a server."""

    def __init__(self, port: int) -> None:
        """Starts to listen.

        Args:
            port: The server's.
        """
        self._server_port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.cuts = 0
        self._orders: list[Way] = []
        self._delayed: list[bytes] = []
        self._late: list[tuple[socket.socket, bytes]] = []
        self._held = False
        self._ended = False
        self._changed = threading.Condition()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._ended = True
            self._orders.clear()
            self._held = False
            self._changed.notify_all()
            for each in self._open:
                _shut(each)
            for each, _ in self._late:
                each.close()
        _shut(self._listener)
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def cut(self, way: Way, timeout: float) -> None:
        """Cuts the connection on which the next batch comes, and waits until that is done."""
        with self._changed:
            self._orders.append(way)
            goal = self.cuts + 1
            assert self._changed.wait_for(lambda: self.cuts >= goal, timeout), "nobody sends anything"

    def order(self, way: Way) -> None:
        """Has the connection cut on which the next batch comes, and does not wait for it."""
        with self._changed:
            self._orders.append(way)

    def hold(self) -> None:
        """Keeps back all that comes from now on, in both directions, and new connections too."""
        with self._changed:
            self._held = True

    def let_go(self) -> None:
        """Sends on what was kept back."""
        with self._changed:
            self._held = False
            self._changed.notify_all()

    def cut_all(self) -> None:
        """Cuts all connections, now. The server finds out when it has something to say."""
        with self._changed:
            for each in self._open:
                _shut(each)

    def delay(self, words: bytes) -> None:
        """Keeps back the next request that holds some words, until :meth:`deliver`, whatever becomes of its sender."""
        with self._changed:
            self._delayed.append(words)

    def deliver(self) -> None:
        """Sends on the requests that were delayed, in their order, and waits for the replies, which go nowhere."""
        with self._changed:
            late, self._late = self._late, []
            assert not self._delayed, "a request to be delayed has not come"
        for server, data in late:
            with server:
                server.sendall(data)
                reply = b""
                while not reply.endswith(_READY):
                    said = server.recv(1 << 20)
                    assert said, "the server has closed the connection"
                    reply += said

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with self._changed:
                if self._ended:
                    client.close()
                    return
            try:
                server = socket.create_connection(("127.0.0.1", self._server_port))
            except OSError:
                client.close()
                continue
            for each in (client, server):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._changed:
                self._open |= {client, server}
            self._start(self._pass_on, client, server)

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        """Serves one connection. What a client says in one piece is a request: it waits for the reply then."""
        order: Way | None = None
        kept: list[socket.socket] = []
        try:
            while True:
                ready, _, _ = select.select([client, server], [], [])
                source = ready[0]
                data = source.recv(1 << 20)
                self._wait_while_held()
                if source is client:
                    if self._is_late(server, data):
                        kept.append(server)
                        # Whoever asked waits until it has had enough.
                        client.recv(1)
                        return
                    if order is None and len(data) > _LARGE:
                        order = self._next_order()
                    server.sendall(data[: _share(order, "request", len(data))])
                    if order in ("request", "half request"):
                        return
                else:
                    client.sendall(data[: _share(order, "reply", len(data))])
                    if order is not None:
                        return
                if not data:
                    return
        except OSError:
            return
        finally:
            with self._changed:
                for each in {client, server}.difference(kept):
                    _shut(each)
                    each.close()
                self._open -= {client, server}
                if order is not None:
                    self.cuts += 1
                    self._changed.notify_all()

    def _next_order(self) -> Way | None:
        with self._changed:
            return self._orders.pop() if self._orders else None

    def _is_late(self, server: socket.socket, data: bytes) -> bool:
        with self._changed:
            for words in self._delayed:
                if words in data:
                    self._delayed.remove(words)
                    self._late.append((server, data))
                    return True
        return False

    def _wait_while_held(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._held)


def through(cutter: Cutter, database: str) -> str:
    """Returns the URL of a database behind a cutter."""
    return f"postgresql://postgres@127.0.0.1:{cutter.port}/{database}"


def _share(order: Way | None, what: str, size: int) -> int:
    """Returns how many bytes of a message go on."""
    if order == what:
        return 0
    return size // 2 if order == f"half {what}" else size


def _shut(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
