"""Connections to a server: opening one, and running statements on it with a deadline."""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import capabilities
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import DiagnosticField, ExecStatus, PollingStatus, abc
from psycopg.pq import error_message as pq_message

from sessiondb.errors import ConfigurationError, ServerUnreachableError
from sessiondb.location import ServerLocation
from sessiondb.stores.postgres.errors import is_connection_lost, translate
from sessiondb.stores.postgres.watchdog import WATCHDOG

_CONNECT_TIMEOUT = 10
"""How long an attempt to connect may take, in seconds, unless the URL says otherwise."""

_DEFAULTS: dict[str, Any] = {
    "application_name": "sessiondb",
    "connect_timeout": _CONNECT_TIMEOUT,
    # A connection whose other end is gone without a word is noticed within a minute, also while nothing is sent.
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
    # Of several hosts, the one that can be written to; a lone standby is refused at once.
    "target_session_attrs": "read-write",
}

_NOTHING: Mapping[str, object] = {}

_LEAST_SECONDS = 1.0
"""How long a call may take on a connection that took all the time to open: or no call would ever succeed."""

_CANCEL_SECONDS = 5.0
"""How long it may take to tell the server to end a statement. One that is out of reach finds out by itself."""

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0
"""How long to wait before another attempt to connect, in seconds."""


class Server:
    """Where a database is, and how to log in; it opens connections.

    Attributes:
        name: Where it is, without a password.
        pooled: Whether a pooler in transaction mode stands in front of it: nothing may be left behind on a connection.
    """

    def __init__(self, location: ServerLocation) -> None:
        """Opens nothing.

        Raises:
            ConfigurationError: If the URL is malformed.
        """
        try:
            given = conninfo_to_dict(location.url)
        except psycopg.ProgrammingError:
            # libpq's message quotes what it did not understand, which may be a password.
            raise ConfigurationError(f"libpq does not understand the URL of {location}") from None
        self._parameters = {**_DEFAULTS, **given, "client_encoding": "utf8"}
        try:
            # 0 is for ever, as libpq has it.
            self._connect_timeout = int(self._parameters["connect_timeout"]) or 2**31 - 1
        except ValueError:
            raise ConfigurationError(f"connect_timeout in the URL of {location} is no number of seconds") from None
        self._password = location.password
        self.name = str(location)
        self.pooled = location.pooled

    def connect(self, settings: Mapping[str, object] = _NOTHING, *, within: float | None = None) -> psycopg.Connection:
        """Opens a connection whose statements commit by themselves.

        Args:
            settings: What to set on it; nothing is where a pooler stands between.
            within: How long that may take, in seconds, if not as long as the URL says. A host gets 2 seconds at least.

        Raises:
            psycopg.Error: If it cannot be opened.
            ServerUnreachableError: If the password cannot be had.
        """
        parameters = dict(self._parameters)
        if settings and not self.pooled:
            # Ours last: they win.
            given = parameters.get("options") or ""
            parameters["options"] = " ".join([given, *(_option(*setting) for setting in settings.items())]).strip()
        if self._password is not None:
            parameters["password"] = self._current_password()
        if within is not None:
            # A host that is silent must not take the time in which another one would answer.
            hosts = str(parameters.get("host", "")).count(",") + 1
            parameters["connect_timeout"] = min(self._connect_timeout, max(int(within / hosts), 1))
        connection = psycopg.connect(make_conninfo("", **parameters), autocommit=True)
        connection.prepare_threshold = None
        return connection

    def connect_until(self, deadline: float, settings: Mapping[str, object] = _NOTHING) -> psycopg.Connection:
        """As :meth:`connect`, again and again until it succeeds, or a moment of the monotonic clock has come.

        Raises:
            ServerUnreachableError: If it did not succeed.
            StorageError: If the server refuses for a reason that time does not mend.
        """
        pause = _FIRST_PAUSE
        while True:
            try:
                return self.connect(settings, within=deadline - time.monotonic())
            except psycopg.Error as error:
                left = deadline - time.monotonic()
                if not is_connection_lost(error) or left <= 0:
                    raise translate(error, self.name) from error
            except ServerUnreachableError:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise
            # Nobody can tell when the server will be back.
            time.sleep(min(pause, left))  # noqa: TID251
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _current_password(self) -> str:
        if not callable(self._password):
            return self._password or ""
        # Tokens live for minutes: each connection asks for its own.
        try:
            password = self._password()
        except Exception as error:
            raise ServerUnreachableError(
                f"{self.name}: the function given as `password` raised {type(error).__name__}"
            ) from error
        if not isinstance(password, str):
            raise ServerUnreachableError(
                f"{self.name}: the function given as `password` returned {type(password).__name__}, not a string"
            )
        return password


def _option(name: str, value: object) -> str:
    """Returns a setting as a connection is opened with it."""
    escaped = str(value).replace("\\", "\\\\").replace(" ", "\\ ")
    return f"-c {name}={escaped}"


def lock_timeout(seconds: float) -> int:
    """Returns what the server's ``lock_timeout`` is set to, in milliseconds: 0 would be for ever."""
    return min(int(seconds * 1000) or 1, 2**31 - 1)


class Link:
    """A connection in use by one thread at a time, whose calls end at a deadline."""

    def __init__(self, connection: psycopg.Connection, *, reading: bool = False) -> None:
        """Takes a connection over.

        Args:
            connection: The connection.
            reading: Whether a statement that is cut off is to end on the server, too. It goes on there until it has
                something to say, otherwise. A batch must not be interrupted in the wait for its standby.
        """
        self.connection = connection
        self.hastened = False
        """Whether the last call was given up by whoever wanted its answer."""
        self._reading = reading
        self.warned = False
        """Whether the server has given up waiting for its standby since this was last set to False. A commit that was
        cancelled meanwhile is reported as a success, with a warning."""
        connection.add_notice_handler(self._note)
        self._socket = connection.pgconn.socket

    def _note(self, diagnostic: psycopg.errors.Diagnostic) -> None:
        # The name of a function of the server is in no language; what stands between may have left it out.
        if diagnostic.severity_nonlocalized == "WARNING" and (diagnostic.source_function or "SyncRep")[:7] == "SyncRep":
            self.warned = True

    @contextmanager
    def deadline(self, moment: float) -> Generator[None, None, None]:
        """Cuts off what is done within at a moment of the monotonic clock, but not before it could be over."""
        WATCHDOG.watch(self, max(moment, time.monotonic() + _LEAST_SECONDS))
        try:
            yield
        finally:
            self.hastened = WATCHDOG.release(self)

    def hasten(self, moment: float) -> None:
        """Cuts off what is under way, if anything is, earlier than it was to be. Called on any thread; does not wait."""
        WATCHDOG.hasten(self, moment)

    def cut_off(self) -> None:
        """Has the call under way fail."""
        if self._reading and capabilities.has_cancel_safe():
            # Made while the connection is there; it is sent over a connection of its own.
            request = self.connection.pgconn.cancel_conn()
            threading.Thread(target=_send, args=[request], name="sessiondb-cancel", daemon=True).start()
        try:
            copy = socket.socket(fileno=os.dup(self._socket))
        except OSError:
            # It was closed meanwhile: the call has failed.
            return
        with copy:
            try:
                copy.shutdown(socket.SHUT_RDWR)
            except OSError:
                # The other end was faster.
                return

    def close(self) -> None:
        """Closes the connection. It does not raise."""
        self.connection.close()


def _send(request: abc.PGcancelConn) -> None:
    """Asks the server to end a statement, and waits until it has heard that."""
    deadline = time.monotonic() + _CANCEL_SECONDS
    try:
        request.start()
        while (state := request.poll()) in (PollingStatus.READING, PollingStatus.WRITING):
            poll = select.poll()
            poll.register(request.socket, select.POLLIN if state == PollingStatus.READING else select.POLLOUT)
            if not poll.poll(max(deadline - time.monotonic(), 0) * 1000):
                break
    except psycopg.Error:
        # It notices when it has something to say that nobody listens any more.
        return
    finally:
        request.finish()


def checked(result: abc.PGresult, pgconn: abc.PGconn) -> abc.PGresult:
    """Returns a result, if it is one.

    Raises:
        psycopg.Error: What the server says.
    """
    if result.status in (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK):
        return result
    # What libpq itself has to say has none: the connection is lost.
    if result.status == ExecStatus.FATAL_ERROR and result.error_field(DiagnosticField.SQLSTATE):
        raise psycopg.errors.error_from_result(result, encoding="utf-8")
    raise psycopg.OperationalError(pq_message(pgconn))
