"""How commands take something away from a log: what is to be done is read first, and done if it is still so."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from sessiondb.engine.store import Reader
    from sessiondb.location import Database
    from sessiondb.model.commands import RedactEvents, TruncateSession

    CommandT = TypeVar("CommandT", bound=RedactEvents | TruncateSession)


def edit(file: Database, plan: Callable[[Reader], CommandT], *, dry_run: bool) -> CommandT:
    """Does what ``plan`` finds to be done, or only finds that out; returns it.

    Raises:
        SessionDBError: What ``plan`` raises, and what keeps the store from doing it.
    """
    from sessiondb import stores
    from sessiondb.errors import StorageError
    from sessiondb.model.commands import TruncateSession
    from sessiondb.model.records import Status

    while True:
        with stores.open_reader(file) as reader, reader.snapshot():
            command = plan(reader)
        if dry_run or (isinstance(command, TruncateSession) and command.seq == command.last_seq):
            return command
        with stores.open_writer(file) as writer:
            (outcome,) = writer.commit([command])
            if isinstance(outcome, StorageError):
                raise outcome
            writer.maintain(idle=False)
        if outcome.status is Status.DONE:
            return command
