"""The connection that writes: what a batch meets on a server, and how it is found out what became of it.

Batches have numbers, and the ledger on the server holds the last one of each writer, changed by the batch itself. So a batch
whose answer is lost is sent again under its number: a server that has it answers as before, one that has not commits it now,
and what is still under way on an old connection cannot be committed a second time.
"""

from __future__ import annotations

import time
import uuid
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack

import psycopg
from typing_extensions import override

from sessiondb.engine.store import Writer
from sessiondb.errors import (
    OutcomeUnknownError,
    StorageError,
    UnsupportedDatabaseError,
    WriterStoppedError,
    WritesLostError,
)
from sessiondb.logger import Repeated, logger
from sessiondb.model import columns
from sessiondb.model.commands import AppendEvent, AppendEvents, DataCommand, UpdateKeys, advance_handle
from sessiondb.model.event_identity import event_hash, is_same_event
from sessiondb.model.records import EventRecord, Outcome, SessionKey, Status
from sessiondb.options import StoreOptions
from sessiondb.stores.postgres import schema, text_index, writes
from sessiondb.stores.postgres.connection import Link, Server, checked, lock_timeout
from sessiondb.stores.postgres.errors import (
    hide_values,
    is_connection_lost,
    is_of_one_command,
    is_worth_another_try,
    is_worth_waiting,
    translate,
)
from sessiondb.stores.postgres.maintenance import FORGET_OLD, vacuum
from sessiondb.stores.postgres.write_functions import LOST, SAME_ID, UNEXPECTED

_GRACE_SECONDS = 1.0
"""The server gives up its waits for locks at ``busy_timeout``, and says so. What it does not give up is cut off this much
later."""

_WAIT_SECONDS = 0.1
"""A longer wait for locks, or for disk and standby, is counted and worth a line in the host's log, when it is over."""

_EXECUTED = "extract(epoch FROM clock_timestamp() - statement_timestamp())::float8"
"""Asked for behind a function's result: how long the function took, in seconds."""

_HEARTBEAT_SECONDS = 24 * 3600.0
"""How often a writer that has nothing to write says that it is there."""

_ANSWER_SECONDS = 60.0
"""For how long the ledger keeps the answer to the last batch, which may hold state, where no other one comes. Nobody asks for it
once it has arrived."""


_SET_DURABLE = (
    "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
)
_REGISTER = "INSERT INTO @sessiondb_writers (writer, batch) VALUES (%s, 0) ON CONFLICT DO NOTHING"
_UNREGISTER = "DELETE FROM @sessiondb_writers WHERE writer = %s"
_SHOW_UP = "UPDATE @sessiondb_writers SET results = NULL, seen = now() WHERE writer = %s"
_EVENTS_OF_IDS = (
    f"SELECT {', '.join(f'e.{column}' for column in columns.EVENT_RECORD)} FROM @adk_sessions AS s JOIN @adk_events AS e"
    " ON e.app_name = s.app_name AND e.user_id = s.user_id AND e.incarnation = s.incarnation"
    " WHERE s.app_name = %(app_name)s AND s.user_id = %(user_id)s AND s.session_id = %(session_id)s"
    " AND e.event_hash = ANY(%(event_hashes)s)"
)
# The number after the one in doubt: whatever of that is still under way cannot be committed any more.
_SETTLE = (
    "WITH old AS (SELECT batch FROM @sessiondb_writers WHERE writer = %(writer)s FOR UPDATE)"
    " UPDATE @sessiondb_writers AS w SET batch = %(batch)s + 1, results = NULL, seen = now() FROM old"
    # One that is still under way itself, from an earlier attempt, must not take back what came after it.
    " WHERE w.writer = %(writer)s AND old.batch BETWEEN %(batch)s - 1 AND %(batch)s + 1 RETURNING old.batch"
)


class PostgresWriter(Writer):
    """The connection of a process that writes to one schema."""

    def __init__(self, server: Server, options: StoreOptions, schema_name: str) -> None:
        self._server = server
        self._options = options
        self._schema = schema_name
        self._append = f"SELECT {self._sql('@sessiondb_append_1')}($1, $2, $3), {_EXECUTED}".encode()
        self._execute_any = f"SELECT {self._sql('@sessiondb_execute_1')}($1, $2, $3), {_EXECUTED}".encode()
        self._stopped: WriterStoppedError | None = None
        self._refused = Repeated()
        self._figures: defaultdict[str, float] = defaultdict(int)
        self._link: Link | None = None
        self._open()

    def _open(self) -> None:
        """Connects, makes sure that the tables are there, and takes a row of the ledger."""
        with ExitStack() as undo:
            try:
                connection = self._server.connect(self._settings(), within=self._options.busy_timeout)
                link = Link(connection)
                undo.callback(link.close)
                with link.deadline(time.monotonic() + self._options.busy_timeout + _GRACE_SECONDS):
                    schema.prepare(connection, self._schema, self._server.name)
                    if self._options.index is not None:
                        text_index.create_if_empty(connection, self._schema, self._server.name)
                    self._set_up(connection)
                    self._writer = uuid.uuid4()
                    self._register(connection)
                    self._run(connection, FORGET_OLD)
            except psycopg.Error as error:
                raise translate(error, self._server.name) from error
            undo.pop_all()
        self._link = link
        # The number of the last batch that was answered, and whether it is not known what became of the next one.
        self._batch = 0
        self._in_doubt = False
        # Whether the ledger may keep an answer.
        self._has_answer = False

    def _register(self, connection: psycopg.Connection) -> None:
        """Takes a row of the ledger."""
        self._run(connection, _REGISTER, (self._writer,))
        self._registered = True

    @override
    def commit(self, commands: Sequence[DataCommand]) -> Sequence[Outcome | StorageError]:
        deadline = time.monotonic() + self._options.busy_timeout
        try:
            results: Sequence[Outcome | StorageError] = self._execute_together(commands, deadline)
        except psycopg.Error as error:
            if len(commands) == 1 or not is_of_one_command(error):
                raise self._failure(error, len(commands)) from error
            # One command is to blame: the others must not pay for it.
            results = [self._execute_alone(command, deadline) for command in commands]
        self._refused.over()
        return results

    def _execute_together(self, commands: Sequence[DataCommand], deadline: float) -> Sequence[Outcome | StorageError]:
        outcomes = self._execute(commands, deadline)
        if not any(outcome.status == SAME_ID for outcome in outcomes):
            return outcomes
        progress: writes.Progress = {}
        for command, outcome in zip(commands, outcomes, strict=True):
            _take_note(progress, command, outcome)
        results: list[Outcome | StorageError] = [*outcomes]
        for index, (command, outcome) in enumerate(zip(commands, outcomes, strict=True)):
            if outcome.status == SAME_ID and isinstance(command, AppendEvent | UpdateKeys | AppendEvents):
                # By itself, since the others are stored by now. Appends in flight together have no order.
                try:
                    results[index] = self._execute_again(command, progress, deadline)
                except psycopg.Error as error:
                    results[index] = self._failure(error, 1)
                except StorageError as error:
                    results[index] = error
        return results

    def _execute_again(
        self, command: AppendEvent | UpdateKeys | AppendEvents, progress: writes.Progress, deadline: float
    ) -> Outcome:
        """Executes a command of which an event has the id of one that is there."""
        # The JSON of an equal event may differ to the letter, which SQL cannot see past.
        parts = command.parts if isinstance(command, AppendEvents) else (command,)
        duplicates = self._duplicates(command.key, [part.event for part in parts], deadline)
        if len(duplicates) == len(parts):
            return Outcome(Status.DUPLICATE)
        if isinstance(command, AppendEvents):
            command = command.without(duplicates)
        (outcome,) = self._execute([command], deadline, progress)
        _take_note(progress, command, outcome)
        return outcome._replace(duplicates=duplicates)

    def _duplicates(self, key: SessionKey, events: list[EventRecord], deadline: float) -> tuple[int, ...]:
        """Returns which of these events are in the log, equal ones, by their numbers from 0."""
        parameters = {**key._asdict(), "event_hashes": [event_hash(event.event_id) for event in events]}
        link = self._connected(deadline)
        with link.deadline(deadline + _GRACE_SECONDS):
            rows = self._run(link.connection, _EVENTS_OF_IDS, parameters).fetchall()
        stored: defaultdict[str, list[EventRecord]] = defaultdict(list)
        for record in map(EventRecord._make, rows):
            stored[record.event_id].append(record)
        return tuple(
            n for n, event in enumerate(events) if any(is_same_event(one, event) for one in stored[event.event_id])
        )

    @override
    def vacuum(self) -> None:
        vacuum(self._server, self._schema, self._options.busy_timeout, lambda: True)

    @override
    def purge(self, *, last_step: bool) -> bool:
        # What the server keeps beyond that is its own, and nobody here can remove it.
        self.vacuum()
        return True

    @override
    def idle_after(self) -> float | None:
        return _ANSWER_SECONDS if self._has_answer else _HEARTBEAT_SECONDS

    @override
    def maintain(self, *, idle: bool) -> None:
        if not idle:
            return
        try:
            deadline = time.monotonic() + self._options.busy_timeout
            link = self._connected(deadline)
            with link.deadline(deadline + _GRACE_SECONDS):
                self._run(link.connection, _SHOW_UP, (self._writer,))
            self._has_answer = False
        except (StorageError, psycopg.Error):
            # The next batch finds out what is the matter, and tells whoever waits for it.
            self._drop_link()

    @override
    def figures(self) -> dict[str, float]:
        return {**self._figures}

    @override
    def resume(self) -> None:
        self._open()

    @override
    def close(self) -> None:
        link, self._link = self._link, None
        if link is None:
            return
        try:
            if not self._in_doubt and not link.connection.closed:
                with link.deadline(time.monotonic() + _GRACE_SECONDS):
                    self._run(link.connection, _UNREGISTER, (self._writer,))
        except psycopg.Error as error:
            logger.warning("close_failed", path=self._server.name, error=type(error).__name__)
        finally:
            link.close()

    def _execute(
        self, commands: Sequence[DataCommand], deadline: float, progress: writes.Progress | None = None
    ) -> list[Outcome]:
        """Executes commands as one transaction, however often they have to be sent; ``progress`` as in ``all_rows``.

        Raises:
            psycopg.Error: If the server refuses them; nothing was written.
            ServerUnreachableError: If they were never sent.
            OutcomeUnknownError: If they were sent, and it cannot be found out in time what became of them.
            WriterStoppedError: If nothing can be written any more.
        """
        if self._stopped is not None:
            raise WriterStoppedError(*self._stopped.args)
        expected = None if progress is not None else writes.expected_rows(commands)
        sent = False
        # Whether one of the sendings may still be committed: what is said to the next one is not said of all of them.
        open_end = False
        while True:
            link = self._connected(deadline, sent=open_end)
            link.warned = False
            try:
                if self._in_doubt and not sent and not self._settle(link, deadline):
                    if time.monotonic() >= deadline:
                        raise self._unknown(None)
                    continue
                if not self._registered:
                    with link.deadline(deadline + _GRACE_SECONDS):
                        self._register(link.connection)
                sent = True
                outcomes = self._send(link, commands, expected, progress, deadline)
            except psycopg.Error as error:
                open_end = self._may_still_be_committed(error, sent=sent, open_end=open_end)
                if time.monotonic() >= deadline:
                    raise self._unknown(error) if open_end else self._failure(error, len(commands)) from error
                continue
            if link.warned:
                # The commit is on this server, but may not be on its standby. To be answered again takes a commit that
                # waits for that.
                open_end = True
                if time.monotonic() >= deadline:
                    raise self._unknown(None)
                continue
            self._batch += 1
            self._in_doubt = False
            return outcomes

    def _may_still_be_committed(self, error: psycopg.Error, *, sent: bool, open_end: bool) -> bool:
        """Says of a batch that is worth sending again whether one of its sendings may still be committed.

        Raises:
            psycopg.Error: The error, if the server refuses the batch for good; nothing was written.
            OutcomeUnknownError: If it refuses this sending for good, and another one may be stored.
            WriterStoppedError: If nothing can be written any more.
        """
        if error.sqlstate == LOST:
            if self._batch:
                raise self._stop(error) from error
            # A failover to a standby that has not heard of this writer, which had not been told of anything either.
            self._registered = False
        elif is_connection_lost(error):
            self._drop_link()
            return sent
        elif open_end and not is_worth_waiting(error):
            raise self._unknown(error) from error
        elif not open_end and not is_worth_another_try(error):
            raise error
        return open_end

    def _send(
        self,
        link: Link,
        commands: Sequence[DataCommand],
        expected: tuple[str, list[Outcome]] | None,
        progress: writes.Progress | None,
        deadline: float,
    ) -> list[Outcome]:
        """Gives the next batch to the server, and returns what it came to, now or before."""
        if expected is not None:
            rows, outcomes = expected
            try:
                results = self._call(link, self._append, rows, deadline)
            except psycopg.Error as error:
                if error.sqlstate != UNEXPECTED:
                    raise
            else:
                self._has_answer = bool(results)
                return writes.outcomes_of(results) if results else outcomes
        self._has_answer = True
        return writes.outcomes_of(self._call(link, self._execute_any, writes.all_rows(commands, progress), deadline))

    def _call(self, link: Link, statement: bytes, rows: str, deadline: float) -> str:
        pgconn = link.connection.pgconn
        parameters = [str(self._writer).encode(), b"%d" % (self._batch + 1), rows.encode()]
        # libpq's own calls: psycopg's would give up the GIL several times, and beside a busy Python thread each takes
        # milliseconds.
        started = time.monotonic()
        with link.deadline(deadline + _GRACE_SECONDS):
            if self._server.pooled:
                result = pgconn.exec_params(statement, parameters)
            else:
                result = pgconn.exec_prepared(_NAMES[statement is self._append], parameters)
        seconds = time.monotonic() - started
        answer = checked(result, pgconn)
        if seconds >= _WAIT_SECONDS:
            self._note_waits(seconds, float(answer.get_value(0, 1) or b"0"))
        return (answer.get_value(0, 0) or b"").decode()

    def _note_waits(self, seconds: float, executed: float) -> None:
        """Tells apart what a slow call waited for; a call takes milliseconds, but for a batch of very large events.

        Args:
            seconds: How long the call took.
            executed: How much of it the server needed before it began to commit: for locks, if it is long.
        """
        if executed >= _WAIT_SECONDS:
            self._figures["lock_waits"] += 1
            self._figures["lock_wait_seconds"] += executed
            logger.info("lock_wait", path=self._server.name, seconds=executed)
        if seconds - executed >= _WAIT_SECONDS:
            self._figures["commit_waits"] += 1
            self._figures["commit_wait_seconds"] += seconds - executed
            logger.info("commit_wait", path=self._server.name, seconds=seconds - executed)

    def _settle(self, link: Link, deadline: float) -> bool:
        """Finds out what became of a batch whose callers have been told that it is unknown, and ends it.

        Returns:
            False if that is not on the standby yet: after a failover the ledger would be where it was before.
        """
        batch = self._batch + 1
        with link.deadline(deadline + _GRACE_SECONDS):
            row = self._run(link.connection, _SETTLE, {"writer": self._writer, "batch": batch}).fetchone()
        if row is None:
            raise self._stop(None)
        if link.warned:
            return False
        self._batch = batch + 1
        self._in_doubt = False
        self._figures["settled_batches"] += 1
        logger.warning("batch_settled", path=self._server.name, stored=row[0] == batch)
        return True

    def _execute_alone(self, command: DataCommand, deadline: float) -> Outcome | StorageError:
        if self._stopped is not None:
            return WriterStoppedError(*self._stopped.args)
        try:
            (outcome,) = self._execute_together([command], deadline)
        except psycopg.Error as error:
            return self._failure(error, 1)
        except StorageError as error:
            return error
        if isinstance(outcome, StorageError):
            return outcome
        # The next command through the same handle expects what this one has left behind.
        advance_handle(command, outcome)
        return outcome

    def _connected(self, deadline: float, *, sent: bool = False) -> Link:
        """Returns the connection, which is opened anew if it has been lost.

        Raises:
            StorageError: If that does not succeed in time.
        """
        link = self._link
        if link is not None and not link.connection.closed:
            return link
        while True:
            try:
                link = Link(self._server.connect_until(deadline, self._settings()))
            except StorageError as error:
                self._note_failure(error, 0)
                raise self._unknown(error) if sent else error from error
            try:
                with link.deadline(deadline + _GRACE_SECONDS):
                    self._set_up(link.connection)
            except psycopg.Error as error:
                link.close()
                if is_connection_lost(error) and time.monotonic() < deadline:
                    continue
                raise self._unknown(error) if sent else translate(error, self._server.name) from error
            self._figures["reconnects"] += 1
            logger.info("reconnected", path=self._server.name)
            self._link = link
            return link

    def _set_up(self, connection: psycopg.Connection) -> None:
        """Prepares a connection for batches."""
        if self._server.pooled:
            self._check_settings(connection)
        else:
            if self._options.durability == "full":
                connection.execute(_SET_DURABLE)
            for name, statement in ((_NAMES[True], self._append), (_NAMES[False], self._execute_any)):
                checked(connection.pgconn.prepare(name, statement), connection.pgconn)

    def _check_settings(self, connection: psycopg.Connection) -> None:
        # Nothing may be set on a connection that a pooler hands on.
        row = connection.execute(
            "SELECT current_setting('default_transaction_isolation'), current_setting('synchronous_commit')"
        ).fetchone()
        assert row is not None  # noqa: S101  # one row, always
        if row[0] != "read committed" or (row[1] == "off") != (self._options.durability == "normal"):
            raise UnsupportedDatabaseError(
                f"{self._server.name} has default_transaction_isolation = {row[0]!r} and synchronous_commit = {row[1]!r}, and"
                " nothing can be set through a pooler: set 'read committed', and 'on' (or 'off', for durability=\"normal\"),"
                " for the role, with ALTER ROLE"
            )

    def _settings(self) -> dict[str, object]:
        settings: dict[str, object] = {
            "default_transaction_isolation": "read committed",
            "default_transaction_read_only": "off",
            "lock_timeout": lock_timeout(self._options.busy_timeout),
            "statement_timeout": 0,
            "idle_in_transaction_session_timeout": 0,
            "idle_session_timeout": 0,
            "jit": "off",
        }
        if self._options.durability == "normal":
            settings["synchronous_commit"] = "off"
        return settings

    def _drop_link(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.close()

    def _unknown(self, error: BaseException | None) -> OutcomeUnknownError:
        """Returns the error for a batch that was sent, and of which nothing was heard."""
        self._in_doubt = True
        if isinstance(error, psycopg.Error):
            hide_values(error)
        failure = OutcomeUnknownError(
            f"{self._server.name} has not said within busy_timeout whether the write is stored: read the session again, or"
            " append the same event again, which stores it once"
        )
        self._note_failure(failure if error is None else error, 0)
        return failure

    def _stop(self, error: psycopg.Error | None) -> WriterStoppedError:
        self._stopped = WritesLostError(
            f"{self._server.name} has lost writes that were acknowledged: a standby took over that had not received them, or"
            " an older backup was restored. Nothing more is written. Look at what is missing, then open the service anew"
        )
        logger.error(
            "acknowledged_writes_lost",
            path=self._server.name,
            batch=self._batch,
            hint="" if error is None else str(error),
        )
        return self._stopped

    def _failure(self, error: psycopg.Error, commands: int) -> StorageError:
        """Returns the error for the callers, and notes it."""
        failure = translate(error, self._server.name)
        self._figures["failed_batches"] += 1
        self._note_failure(failure, commands)
        return failure

    def _note_failure(self, failure: BaseException, commands: int) -> None:
        if (repeated := self._refused.due()) is not None:
            logger.warning(
                "batch_refused",
                path=self._server.name,
                commands=commands,
                error=type(failure).__name__,
                stopped=self._stopped is not None,
                repeated=repeated,
                hint=str(failure),
            )

    def _run(
        self, connection: psycopg.Connection, statement: str, parameters: object = None
    ) -> psycopg.Cursor[tuple[object, ...]]:
        return schema.run(connection, self._sql(statement), parameters)

    def _sql(self, text: str) -> str:
        return schema.rendered(text, self._schema)


_NAMES = {True: b"sessiondb_append", False: b"sessiondb_execute"}


def _take_note(progress: writes.Progress, command: DataCommand, outcome: Outcome) -> None:
    """Notes what the handle of an append knows after it."""
    handle = command.handle if isinstance(command, AppendEvent | AppendEvents) else None
    if handle is not None and outcome.status is Status.DONE:
        progress[handle] = (outcome.incarnation, outcome.revision)
