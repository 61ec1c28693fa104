"""What the engine and the commands ask of a store. A store knows nothing of queues, event loops, caches or ADK."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, TypeAlias, TypeVar, runtime_checkable

from sessiondb.errors import StorageError
from sessiondb.model.commands import DataCommand
from sessiondb.model.queries import Query
from sessiondb.model.records import BackupReport, NewEvent, NewSession, Outcome, SessionKey

ResultT = TypeVar("ResultT")


class Store(Protocol):
    """A place that keeps sessions, and opens connections to them. Making one opens none."""

    system: str
    """What kind of database it is, as OpenTelemetry names it."""
    name: str
    """Where it is: for messages, log events and spans. It holds no password."""
    label: str
    """The same in short, for the names of threads and spans."""
    identity: Hashable
    """Equal for two stores of a process that keep the same sessions."""
    reads_inline: bool
    """Whether a tiny read is over sooner than a hop to another thread and back, and so may be made on an event loop."""

    def writer(self) -> Writer:
        """Opens the connection that writes, creating and upgrading the tables.

        Raises:
            StorageError: If that cannot be done.
        """

    def reader(self, timeout: float) -> Reader:
        """Opens a connection that only reads; for one thread at a time.

        Args:
            timeout: How long it waits for a lock, in seconds.

        Raises:
            StorageError: If that cannot be done.
        """

    def turn_locks(self) -> TurnLocks:
        """Makes what turns are kept in order by, between processes. Called when the first turn is taken.

        Raises:
            StorageError: If that cannot be done.
        """

    def file_bytes(self) -> int:
        """Bytes that it takes, as far as that can be told without a connection; else 0."""

    def close(self) -> None:
        """Removes what was only there for this store. Called when no connection is open any more."""


class Writer(Protocol):
    """The one connection of a process that writes to a store. Called on the writer thread only, but for ``figures``."""

    def commit(self, commands: Sequence[DataCommand]) -> Sequence[Outcome | StorageError]:
        """Executes commands in their order, as one transaction, and returns what became of each once it is durable.

        A command that cannot be executed fails alone: its place holds its error. A handle is advanced where a later
        command of the same call depends on it.

        Raises:
            StorageError: If all of it failed, and nothing was written.
            WriterStoppedError: If nothing can be written any more; whether this call wrote anything is unknown.
        """

    def vacuum(self) -> None:
        """Does maintenance that needs a transaction of its own.

        Raises:
            StorageError: If it failed.
        """

    def purge(self, *, last_step: bool) -> bool:
        """Leaves nothing of what was deleted in the store's files, as far as it has a say in them. They must not be damaged.

        Args:
            last_step: Whether to do only what is left to do after a call that has returned False.

        Returns:
            False if somebody who reads kept it from the last step: call it again, with ``last_step``.

        Raises:
            StorageError: If it failed.
        """

    def idle_after(self) -> float | None:
        """For how many seconds without a command the writer thread waits until it calls ``maintain``; None: for ever."""

    def maintain(self, *, idle: bool) -> None:
        """Does what can wait until callers have their answers.

        Args:
            idle: Whether no command has come for as long as ``idle_after`` said; else a batch has just been answered.

        Raises:
            WriterStoppedError: If nothing can be written any more.
        """

    def figures(self) -> dict[str, float]:
        """Returns sums and sizes by their names in :class:`~sessiondb.stats.ServiceStats`. Called by any thread."""

    def close(self) -> None:
        """Closes its connection: in the end, and while the process forks. It does not raise."""

    def resume(self) -> None:
        """Opens it again after a fork.

        Raises:
            StorageError: If that cannot be done.
        """


class Reader(AbstractContextManager["Reader"], Protocol):
    """A connection that only reads. For one thread at a time."""

    def ask(self, query: Query[ResultT]) -> ResultT:
        """Answers a query from one moment. An iterator in an answer reads as it goes, and must be used up or dropped first.

        Raises:
            CorruptRowError: If a text that is read is not UTF-8.
            StorageError: If the store refuses, now or while the answer is iterated over.
        """

    def hasten(self) -> None:
        """Ends what is being asked, if it takes longer: nobody wants the answer any more. Called by any thread; does not wait.

        ``ask``, or the iterator that is read, raises then. What is asked next is answered as ever.
        """

    def snapshot(self) -> AbstractContextManager[None]:
        """Makes all that is asked within it be of one moment.

        Raises:
            DatabaseBusyError: At the end, if a program began to write meanwhile and what was read may be mixed up.
        """

    def changed(self) -> bool:
        """Says whether something may have been written since this was last called, or since the opening.

        Raises:
            StorageError: If the sessions are not there any more.
        """

    def close(self) -> None:
        """Closes the connection. Idempotent."""


class TurnLocks(Protocol):
    """One lock for each session, which one process at a time can have, and which is freed when that process dies.

    No two calls are made at once. They are made on event loops, so none may wait: a store that has to ask over a network
    sends its question in ``try_take``, and has the answer by a later call.
    """

    def try_take(self, key: SessionKey) -> bool | None:
        """Goes a step nearer to the lock of a session, and says whether this process has it; None: not known yet.

        Called again and again until it has, or gives up. Processes should get it in the order in which they first asked.

        Raises:
            StorageError: If the store refuses.
        """

    def give_up(self, key: SessionKey) -> None:
        """Frees the lock of a session, or the place in the line for it. It does not raise."""

    def abandon(self) -> None:
        """Forgets, in a forked child, what its parent has, and leaves it to the parent."""

    def close(self) -> None:
        """Frees everything."""


class BulkImport(AbstractContextManager["BulkImport"], Protocol):
    """A store opened for putting whole sessions into it, beside whoever else uses it."""

    def holds(self, key: SessionKey) -> bool:
        """Whether a session is there."""

    def put(self, session: NewSession, events: Iterator[NewEvent]) -> bool:
        """Puts a session with all its events and its own state into the store, or nothing of it.

        Returns:
            False if a session of this key is there; it stays as it is.

        Raises:
            InvalidInputError: If it holds something that this store cannot keep.
            StorageError: If the store refuses.
        """

    def put_scope_state(self, app_name: str, user_id: str | None, state: str, updated_at: str) -> int:
        """Adds to the state of a user, or of an app if ``user_id`` is None. Keys that are there stay as they are.

        Args:
            app_name: The app.
            user_id: The user, or None.
            state: A JSON object of keys without prefix to values, the values as JSON text.
            updated_at: When, as UTC ISO 8601.

        Returns:
            How many keys have kept another value than the given one.
        """

    def close(self) -> None:
        """Closes the store. Idempotent."""


@runtime_checkable
class SupportsVacuum(Protocol):
    """A store whose maintenance keeps no writer waiting, so that it need not be its writer's."""

    def vacuum(self, goes_on: Callable[[], bool]) -> bool | None:
        """Does what the writer's ``vacuum`` does, on a connection of its own; nothing is left to purge then. Blocks.

        Args:
            goes_on: Asked several times a second whether to go on.

        Returns:
            True; None if ``goes_on`` said no.

        Raises:
            StorageError: If it failed.
        """


Progress: TypeAlias = Callable[[int, int], None]
"""Is told how much is done, and how much there is in all: of a backup, pages."""


@runtime_checkable
class SupportsBackup(Protocol):
    """A store that can copy itself to a file."""

    def backup(
        self,
        target: str | os.PathLike[str],
        *,
        overwrite: bool,
        progress: Progress | None,
        goes_on: Callable[[], bool],
    ) -> BackupReport | None:
        """Makes a copy, on a connection of its own; blocks.

        Args:
            target: Where to put it.
            overwrite: Whether a file that is there may be replaced.
            progress: Called after each step.
            goes_on: Asked after each step whether to go on.

        Returns:
            What the copy holds; None if ``goes_on`` said no, and nothing was left behind.

        Raises:
            ConfigurationError: If ``target`` cannot be used.
            StorageError: If the copy cannot be made, or is damaged as the database is.
        """
