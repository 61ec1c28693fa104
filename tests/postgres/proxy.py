"""Between a client and its server: it hands on what they say, message by message, and fails where a test asks it to.

A test says at which message something happens, counted from then on; nothing depends on time. What the client sends is
counted by *requests*: a request ends with a message upon which the client waits (``Sync``, ``Query``, ``Flush``). The answer
to one ends with ``ReadyForQuery``.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from urllib.parse import urlsplit

TIMEOUT = 20.0
"""How long a connection may take to end, or a server to answer, in seconds."""

_LENGTH = struct.Struct("!I")
_VERSION = 3
_ENCRYPTION = {(1234 << 16) + 5679, (1234 << 16) + 5680}
"""What a client may ask before it logs in; the answer is a letter."""


class Cut(Enum):
    """Where a connection is broken, between a request and its answer."""

    BEFORE_REQUEST = auto()
    """The server sees nothing of the request."""
    IN_REQUEST = auto()
    """The server sees all but the last byte."""
    BEFORE_REPLY = auto()
    """The server has answered; the client sees nothing of it."""
    IN_REPLY = auto()
    """The client sees all but the last message's last byte."""
    AFTER_REPLY = auto()
    """The client sees all of it, and then the end."""


@dataclass
class _Late:
    """A request that is kept back; ``happened`` is set when it has been answered."""

    connection: _Connection
    request: bytes
    happened: threading.Event = field(default_factory=threading.Event)


@dataclass
class _Plan:
    """What happens to one of the requests that are still to come."""

    cut: Cut | None
    after: int
    larger_than: int = 0
    happened: threading.Event = field(default_factory=threading.Event)


class Proxy:
    """Listens on a port of the loopback address, and connects each client to one server. See :func:`proxy`."""

    def __init__(self, url: str, delay: float, *, understood: bool) -> None:
        """Starts to listen.

        Args:
            url: Of the server, by a TCP port.
            delay: Seconds that each message takes on its way, in both directions.
            understood: Whether it is a PostgreSQL server. What another one says is handed on as it comes, and not counted.
        """
        parts = urlsplit(url)
        assert parts.hostname
        assert parts.port
        self._server = (parts.hostname, parts.port)
        self._delay = delay
        self.understood = understood
        self._delayed: list[bytes] = []
        self._late: list[_Late] = []
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._plan: _Plan | None = None
        self._refuses = False
        self._flows = threading.Event()
        self._flows.set()
        self._connections: list[_Connection] = []
        self.requests = 0
        """How many requests have come from clients, those of logging in left out."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        credentials, at, _ = parts.netloc.rpartition("@")
        self.url = parts._replace(netloc=f"{credentials}{at}127.0.0.1:{self.port}").geturl()
        """The server's URL, through this proxy."""
        self._thread = threading.Thread(target=self._serve, name="proxy", daemon=True)
        self._thread.start()

    # --- What tests ask for -------------------------------------------------------------------------------------------

    def cut(self, where: Cut, *, after: int = 0, larger_than: int = 0) -> threading.Event:
        """Has one connection broken, of whichever client comes first.

        Args:
            where: Where in the request or in its answer.
            after: How many requests pass unharmed until then.
            larger_than: Requests of so many bytes, or fewer, pass unharmed and are not counted.

        Returns:
            Set when it has happened.
        """
        return self._next(_Plan(where, after, larger_than))

    def hold(self, *, after: int = 0) -> threading.Event:
        """Has everything stand still before a request is handed on; :meth:`release` lets it go.

        Args:
            after: How many requests pass until then.

        Returns:
            Set when it stands still.
        """
        return self._next(_Plan(None, after))

    def freeze(self) -> None:
        """Hands nothing on any more, in neither direction, until :meth:`release`; connections stay open."""
        self._flows.clear()

    def release(self) -> None:
        """Ends what :meth:`hold` and :meth:`freeze` began."""
        self._flows.set()

    def delay(self, words: bytes) -> None:
        """Keeps back the next request that holds some words, until :meth:`deliver`, whatever becomes of its sender."""
        with self._lock:
            self._delayed.append(words)

    def deliver(self) -> None:
        """Hands on the requests that were delayed, in their order, and waits for the answers, which go nowhere."""
        with self._lock:
            late, self._late = self._late, []
            assert not self._delayed, "a request to be delayed has not come"
        for one in late:
            one.connection.deliver(one)
            assert one.happened.wait(TIMEOUT), "the server does not answer"
            one.connection.break_off()

    def cut_all(self, *, refuse: bool = False) -> None:
        """Breaks all connections that there are.

        Args:
            refuse: Break those to come as well, until :meth:`accept`.
        """
        with self._lock:
            self._refuses = refuse
            connections = list(self._connections)
        for connection in connections:
            connection.break_off()

    def accept(self) -> None:
        """Lets clients connect again."""
        with self._lock:
            self._refuses = False

    def close(self) -> None:
        """Breaks all connections, and listens no more."""
        self._closed.set()
        self.release()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(TIMEOUT)
        self.cut_all(refuse=True)
        for connection in list(self._connections):
            connection.join()

    # --- What connections ask for -------------------------------------------------------------------------------------

    def request(self, size: int) -> _Plan | None:
        """Counts a request of so many bytes, and returns what is to happen to it."""
        with self._lock:
            self.requests += 1
            plan = self._plan
            if plan is None or size <= plan.larger_than:
                return None
            if plan.after:
                plan.after -= 1
                return None
            self._plan = None
            return plan

    def keep_back(self, connection: _Connection, request: bytes) -> _Late | None:
        """Keeps a request, if it is one that is to be delayed."""
        with self._lock:
            for words in self._delayed:
                if words in request:
                    self._delayed.remove(words)
                    self._late.append(_Late(connection, request))
                    return self._late[-1]
        return None

    def hold_now(self, plan: _Plan) -> None:
        self._flows.clear()
        plan.happened.set()
        self.pass_on()

    def pass_on(self) -> None:
        """Waits as long as nothing flows."""
        if self._delay:
            self._closed.wait(self._delay)
        self._flows.wait()

    def _next(self, plan: _Plan) -> threading.Event:
        with self._lock:
            assert self._plan is None, "one thing at a time"
            self._plan = plan
        return plan.happened

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                refuses = self._refuses
            if refuses:
                client.close()
                continue
            try:
                server = socket.create_connection(self._server, TIMEOUT)
            except OSError:
                client.close()
                continue
            with self._lock:
                self._connections.append(_Connection(self, client, server))


class _Connection:
    """One client's, and what was opened for it: a thread for each direction."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        for end in (client, server):
            end.settimeout(None)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Written by one thread before it hands on what the other one will see the answer to.
        self._letters = 0
        self._broken: _Plan | None = None
        self._late: _Late | None = None
        self._threads = [
            threading.Thread(target=self._run, args=[way], name="proxy", daemon=True)
            for way in ((self._requests, self._answers) if proxy.understood else (self._there, self._back))
        ]
        for thread in self._threads:
            thread.start()

    def break_off(self) -> None:
        for end in (self._client, self._server):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def join(self) -> None:
        for thread in self._threads:
            thread.join(TIMEOUT)
        self._client.close()
        self._server.close()

    def _run(self, way: object) -> None:
        assert callable(way)
        try:
            way()
        except (OSError, EOFError):
            pass
        finally:
            if self._late is None:
                self.break_off()

    def _there(self) -> None:
        self._pipe(self._client, self._server)

    def _back(self) -> None:
        self._pipe(self._server, self._client)

    def _pipe(self, source: socket.socket, target: socket.socket) -> None:
        while said := source.recv(1 << 16):
            self._proxy.pass_on()
            target.sendall(said)

    def deliver(self, late: _Late) -> None:
        """Hands on a request that was kept back."""
        self._server.sendall(late.request)

    def _requests(self) -> None:
        # The first messages have no type.
        code = 0
        while code >> 16 != _VERSION:
            first = _message(self._client, typed=False)
            (code,) = _LENGTH.unpack_from(first, 4)
            self._letters += code in _ENCRYPTION
            self._server.sendall(first)
        request = b""
        while True:
            message = _message(self._client)
            request += message
            # A password belongs to logging in.
            if message[:1] == b"p":
                self._server.sendall(request)
                request = b""
            elif message[:1] in b"SQHXcf":
                self._hand_on(request)
                request = b""

    def _hand_on(self, request: bytes) -> None:
        self._late = self._proxy.keep_back(self, request)
        if self._late is not None:
            # Whoever asked waits until he has had enough.
            self._client.recv(1)
            raise EOFError
        plan = None if request[:1] == b"X" else self._proxy.request(len(request))
        self._proxy.pass_on()
        match plan:
            case None:
                pass
            case _Plan(cut=None):
                self._proxy.hold_now(plan)
            case _Plan(cut=Cut.BEFORE_REQUEST):
                self._end(plan)
            case _Plan(cut=Cut.IN_REQUEST):
                self._server.sendall(request[:-1])
                self._end(plan)
            case _:
                self._broken = plan
        self._server.sendall(request)

    def _answers(self) -> None:
        received = b""
        while True:
            part = self._server.recv(1 << 20)
            if not part:
                raise EOFError
            received += part
            while self._letters and received:
                self._letters -= 1
                self._client.sendall(received[:1])
                received = received[1:]
            plan = self._broken
            end, answered = _whole_messages(received)
            if self._late is not None:
                if answered:
                    self._late.happened.set()
                    return
            elif plan is None:
                self._proxy.pass_on()
                self._client.sendall(received[:end])
                received = received[end:]
            elif answered:
                self._proxy.pass_on()
                some = 0 if plan.cut is Cut.BEFORE_REPLY else end - (plan.cut is Cut.IN_REPLY)
                self._end(plan, received[:some])

    def _end(self, plan: _Plan, answer: bytes = b"") -> None:
        # Before the client can notice, who may have all of the answer.
        plan.happened.set()
        self._client.sendall(answer)
        self.break_off()
        raise EOFError


def _message(end: socket.socket, *, typed: bool = True) -> bytes:
    head = _exactly(end, 5 if typed else 4)
    return head + _exactly(end, _LENGTH.unpack(head[-4:])[0] - 4)


def _whole_messages(received: bytes) -> tuple[int, bool]:
    """How many bytes are whole messages, and whether the last of them ends an answer, or asks for what is to be copied."""
    end, answered = 0, False
    while len(received) - end >= 5:
        (length,) = _LENGTH.unpack_from(received, end + 1)
        if len(received) - end < 1 + length:
            break
        answered = received[end : end + 1] in (b"Z", b"G")
        end += 1 + length
    return end, answered


def _exactly(end: socket.socket, count: int) -> bytes:
    parts = b""
    while len(parts) < count:
        part = end.recv(min(count - len(parts), 1 << 20))
        if not part:
            raise EOFError
        parts += part
    return parts


@contextmanager
def proxy(url: str, *, delay: float = 0.0, understood: bool = True) -> Iterator[Proxy]:
    """A proxy in front of a server; :class:`Proxy` explains the arguments."""
    one = Proxy(url, delay, understood=understood)
    try:
        yield one
    finally:
        one.close()
