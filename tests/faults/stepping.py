"""Stops another process at a chosen instruction, by ``ptrace``."""

from __future__ import annotations

import ctypes
import os
import signal
from types import TracebackType
from typing import Self

_CONT, _SINGLESTEP, _DETACH, _SEIZE = 7, 9, 17, 0x4206
_ALL_THREADS = 0x40000000
"""``__WALL`` of ``waitpid``."""


class Stepper:
    """The main thread of a process, which can be let go on for a number of instructions.

    Everything must be called from one thread, the one that made it.
    """

    def __init__(self, pid: int) -> None:
        """Takes hold of it; it goes on running.

        Raises:
            OSError: If that is not allowed.
        """
        self._pid = pid
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
        self._libc.ptrace.restype = ctypes.c_long
        self._request(_SEIZE)

    def wait_until_stopped(self) -> None:
        """Waits until it has stopped itself."""
        self._wait(signal.SIGSTOP)

    def step(self, instructions: int) -> None:
        """Lets a stopped thread run so many instructions."""
        for _ in range(instructions):
            self._request(_SINGLESTEP)
            self._wait(signal.SIGTRAP)

    def go_on(self) -> None:
        """Lets a stopped thread run."""
        self._request(_CONT)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.kill(self._pid, signal.SIGKILL)
        # Its own parent hears of the end after whoever traces it.
        os.waitpid(self._pid, _ALL_THREADS)

    def _wait(self, expected: signal.Signals) -> None:
        _, status = os.waitpid(self._pid, _ALL_THREADS)
        assert os.WIFSTOPPED(status), status
        assert os.WSTOPSIG(status) == expected, signal.Signals(os.WSTOPSIG(status))

    def _request(self, request: int) -> None:
        if self._libc.ptrace(request, self._pid, None, None) < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
