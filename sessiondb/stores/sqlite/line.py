"""A line in which the processes wait that write to one file: first come, first served, woken by the kernel.

SQLite waits for a lock by sleeping longer and longer, so whoever came last gets it, and under load some wait for seconds.
The line is an ``flock`` on a file of its own, taken before SQLite's lock is asked for. It decides nothing but the order:
SQLite's locks alone keep writers apart, so other programs need not know of it, and if its file is removed the processes
only wait as they would without it. A process that dies leaves the line. (One that comes back at once can still be before
one that is just being woken. That is no harm: the next time it is behind.)
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import threading
import time
from contextlib import suppress
from pathlib import Path

from sessiondb.forking import renew_after_fork
from sessiondb.logger import logger

_QUIET_SECONDS = 5.0
"""Who has met nobody for so long writes without standing in line."""


class Line:
    """The place of one process in the line of a file. Used by one thread.

    Nobody stands in line before another process was met: a lone one pays nothing, and makes no file. Where there can be
    no line, as on a file system without ``flock``, everybody goes on without.
    """

    def __init__(self, path: Path) -> None:
        self._path = f"{path}-line"
        self._formed_until = 0.0
        self._flock: _Flock | None = None
        self._is_first = False

    @property
    def is_formed(self) -> bool:
        """Whether another process was met of late."""
        return time.monotonic() < self._formed_until

    def form(self) -> None:
        """Called when another process is met: from now on there is a line, unless it is known not to move."""
        if self._flock is not None and not self._flock.is_of(self._path):
            # Its file was removed: the others meet at the new one.
            self.close()
        try:
            if self._flock is None:
                self._flock = _Flock(_open(self._path))
        except OSError as error:
            self._do_without(error)
            return
        if not self._flock.is_waited_for:
            self._form()

    def enter(self, seconds: float) -> bool:
        """Waits at most so long until this process is the first; says whether it is.

        If not, it keeps its place (but for 0 seconds, in which it gets none).
        """
        if self._flock is None or self._is_first:
            return True
        try:
            if self._flock.take_if_free():
                self._is_first = True
            elif seconds and self._flock.take(seconds):
                self._is_first = True
                self._form()
        except (OSError, RuntimeError) as error:  # no flock here, or no thread, as at the end of the interpreter
            self._do_without(error)
            return True
        return self._is_first

    def leave(self) -> None:
        """Lets the next one go on, if this process was the first."""
        if self._is_first and self._flock is not None:
            self._is_first = False
            try:
                self._flock.release()
            except OSError as error:
                self._do_without(error)

    def dissolve(self) -> None:
        """Called when it does not move: nobody waits in it until it has moved and another process is met again."""
        self._formed_until = 0.0

    def close(self) -> None:
        """Leaves the line, and closes its file. It can be formed again."""
        if self._flock is not None:
            self._flock.close()
        self._flock = None
        self._is_first = False
        self.dissolve()

    def _form(self) -> None:
        self._formed_until = time.monotonic() + _QUIET_SECONDS

    def _do_without(self, error: Exception) -> None:
        logger.debug("no_line", path=self._path, error=str(error))
        self.close()


def _open(path: str) -> int:
    """Opens the file of a line, or makes it.

    Raises:
        OSError: If that is not possible, or something else has its place.
    """
    # Before it is opened: to close a file that is a database as well gives up all locks that this process has on it.
    with suppress(FileNotFoundError):
        status = os.lstat(path)
        if not stat.S_ISREG(status.st_mode) or status.st_size or status.st_nlink > 1:
            raise OSError(errno.EEXIST, "it is not the file of a line", path)
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


class _Flock:
    """An exclusive ``flock``. It is waited for on a thread of its own, as the kernel knows no such wait with an end."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        # What the thread is asked for, and how far it is.
        self._wanted = False
        self._blocked = False
        self._taken = False
        self._failure: OSError | None = None
        self._closed = False

    def is_of(self, path: str) -> bool:
        """Whether the file is still the one at its path."""
        try:
            return os.path.samestat(os.stat(path), os.fstat(self._descriptor))  # noqa: PTH116  # beside fstat
        except OSError:
            return False

    @property
    def is_waited_for(self) -> bool:
        """Whether a wait that was given up still has its place."""
        return self._blocked

    def take_if_free(self) -> bool:
        """Takes it, if nobody has it."""
        with self._changed:
            if self._blocked:
                return False
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

    def take(self, seconds: float) -> bool:
        """Waits for it, at most so long. A wait that came to no end keeps its place for the next call.

        Raises:
            OSError: If it cannot be taken.
            RuntimeError: If no thread can be started.
        """
        with self._changed:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="sessiondb-line", daemon=True)
                thread.start()
                self._thread = thread
            self._wanted = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._taken or self._failure, seconds)
            taken, self._taken, self._wanted = self._taken, False, False
            if self._failure is not None:
                raise self._failure
            return taken

    def release(self) -> None:
        """Gives it up."""
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        """Gives it up, if it is taken, and closes the file: at once, or when the thread comes out of its wait."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            if self._blocked:
                renew_after_fork(self)
            else:
                self._release_for_good()

    def renew_in_child(self) -> None:
        """Closes the file in a forked child: the thread that would do it is in the parent."""
        if self._blocked:
            os.close(self._descriptor)

    def _release_for_good(self) -> None:
        # A process that was forked meanwhile has the same lock, which would outlive a descriptor that is only closed.
        with suppress(OSError):
            self.release()
        os.close(self._descriptor)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or (self._wanted and not self._taken))
                if self._closed:
                    return
                self._blocked = True
            failure: OSError | None = None
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            except OSError as error:
                failure = error
            self._note_taken(failure)

    def _note_taken(self, failure: OSError | None) -> None:
        with self._changed:
            self._blocked = False
            if self._closed:
                self._release_for_good()
            elif failure is not None:
                self._failure = failure
                self._changed.notify_all()
            elif self._wanted:
                self._taken = True
                self._changed.notify_all()
            else:
                # Nobody waits any more, and whoever has the lock must be at work.
                self.release()
