"""Processes to do harm to: forked from one that has imported the package, so that each costs milliseconds.

A :class:`Zygote` is a process of its own, started with the preload shim where there is one. It forks a child for each
target, a function ``target(report, **arguments)`` named ``module:function``. The child reports JSON values, one a line,
through a pipe; a value has been handed over when ``report`` returns, so a killed child cannot take it back. When the
target returns, the child ends as any Python program does: threads are joined, ``atexit`` runs.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

_CHECKOUT = Path(__file__).parents[2]
_START = "import sys; sys.path[:] = {path!r}; from tests.faults.zygote import serve; serve({descriptor}, {imports!r})"


class Report(Protocol):
    """Hands a value to whoever started the child."""

    def __call__(self, value: Any, /) -> None: ...


class Child:
    """A process that a zygote has forked."""

    def __init__(self, zygote: Zygote, pid: int, pipe: int) -> None:
        self.pid = pid
        self._zygote = zygote
        self._reports = os.fdopen(pipe, "rb")
        self._exit = os.pidfd_open(pid)
        self._status: int | None = None

    def reports(self) -> Iterator[Any]:
        """Yields what the child reports until it has ended.

        Raises:
            AssertionError: If the target has raised.
        """
        for line in self._reports:
            # A killed child may have got half a line through.
            if line.endswith(b"\n"):
                value = json.loads(line)
                if isinstance(value, dict) and "traceback" in value:
                    self.wait()
                    raise AssertionError(f"the child failed:\n{value['traceback']}")
                yield value

    def kill(self) -> None:
        """Ends the child as a crash would, now."""
        if self._status is None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._exit, signal.SIGKILL)

    def wait(self, timeout: float = 60.0) -> int:
        """Waits for the end of the child; returns its exit status, negative the signal that ended it. Idempotent.

        Raises:
            TimeoutError: If it does not end; it is killed then.
        """
        if self._status is not None:
            return self._status
        ready, _, _ = select.select([self._exit], [], [], timeout)
        if not ready:
            self.kill()
        self._status = self._zygote.reap(self.pid)
        self._reports.close()
        os.close(self._exit)
        if not ready:
            raise TimeoutError(f"the child was still running after {timeout:g} s")
        return self._status

    def result(self, timeout: float = 60.0) -> Any:
        """Waits for the child to end well; returns the last value it reported."""
        last = None
        for value in self.reports():
            last = value
        status = self.wait(timeout)
        assert status == 0, f"the child ended with status {status}"
        return last


class Zygote:
    """Starts children; ends them all when it is closed."""

    def __init__(self, shim: Path | None, *, imports: str = "tests.faults.programs") -> None:
        """Starts it.

        Args:
            shim: The preload library, if there is one.
            imports: The module that is imported for all children, before any is forked; it must start no thread.
        """
        self._lock = threading.Lock()
        self.has_shim = shim is not None
        ours, theirs = socket.socketpair()
        self._socket = ours
        environment = dict(os.environ)
        if shim is not None:
            environment["LD_PRELOAD"] = str(shim)
        # The same search path as here: what is tested is what pytest was started for.
        path = [entry or str(Path.cwd()) for entry in sys.path]
        if str(_CHECKOUT) not in path:
            path.append(str(_CHECKOUT))
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _START.format(path=path, descriptor=theirs.fileno(), imports=imports)],
                pass_fds=[theirs.fileno()],
                env=environment,
            )

    def start(self, target: str, **arguments: Any) -> Child:
        """Forks a child that runs ``target`` with JSON-able arguments."""
        reader, writer = os.pipe()
        with self._lock:
            socket.send_fds(self._socket, [json.dumps(["start", target, arguments]).encode()], [writer])
            os.close(writer)
            pid = int(self._receive())
        return Child(self, pid, reader)

    def run(self, target: str, timeout: float = 60.0, **arguments: Any) -> Any:
        """Runs a target to its end; returns the last value it reported."""
        return self.start(target, **arguments).result(timeout)

    def reap(self, pid: int) -> int:
        """Returns the exit status of a child that has ended or is about to."""
        with self._lock:
            self._socket.send(json.dumps(["reap", pid]).encode())
            return int(self._receive())

    def _receive(self) -> bytes:
        answer = self._socket.recv(65536)
        assert answer, "the zygote has ended"
        return answer

    def close(self) -> None:
        """Ends the zygote and whatever it has started."""
        self._socket.close()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def serve(descriptor: int, imports: str) -> None:
    """Runs a zygote; returns in each child that has come to its end, and when the owner has gone."""
    # Imported once, here, for all children. No thread is started by it, so that forking is safe.
    importlib.import_module(imports)
    # Looking through all of it for garbage is most of what the end of a child would take.
    gc.freeze()
    channel = socket.socket(fileno=descriptor)
    children: set[int] = set()
    while True:
        message, descriptors, _, _ = socket.recv_fds(channel, 1 << 20, 1)
        if not message:
            for pid in children:
                os.kill(pid, signal.SIGKILL)
            return
        request = json.loads(message)
        if request[0] == "reap":
            _, status = os.waitpid(request[1], 0)
            children.discard(request[1])
            channel.send(str(os.waitstatus_to_exitcode(status)).encode())
            continue
        pid = os.fork()
        if pid == 0:
            channel.close()
            _run(request[1], request[2], descriptors[0])
            return
        children.add(pid)
        os.close(descriptors[0])
        channel.send(str(pid).encode())


def _run(target: str, arguments: dict[str, Any], pipe: int) -> None:
    def report(value: Any) -> None:
        os.write(pipe, json.dumps(value).encode() + b"\n")

    module, _, name = target.partition(":")
    try:
        getattr(importlib.import_module(module), name)(report, **arguments)
    except SystemExit:
        raise
    except BaseException:
        report({"traceback": traceback.format_exc()})
        raise
