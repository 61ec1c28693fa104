"""The server's errors, and what they are called in sessiondb: the only translation there is."""

from __future__ import annotations

import re

import psycopg

from sessiondb.errors import (
    CorruptRowError,
    DatabaseBusyError,
    DatabaseCorruptError,
    LoginRefusedError,
    ServerUnreachableError,
    StorageError,
    UnsupportedDatabaseError,
    WriteFailedError,
)

# SQLSTATE, see https://www.postgresql.org/docs/current/errcodes-appendix.html.
_TRY_AGAIN = ("40001", "40P01")
_BUSY = ("55P03", "57014")
_READ_ONLY = "25006"
_CORRUPT = ("XX001", "XX002")
_TOO_LARGE = "54"
_DATA = ("22", "23", _TOO_LARGE)
_NO_ACCESS = ("42501", "28000", "28P01")
_MISSING = ("3F000", "42P01", "42883", "42703", "42704")

# Of what the server says before a connection is there, libpq keeps the words alone: those of PostgreSQL and of pgbouncer.
_REFUSED = re.compile(
    r"authentication failed|no pg_hba\.conf entry|pg_hba\.conf rejects|valid client certificate"
    r'|(role|database) ".*" does not exist|not permitted to log in|permission denied for database|no such (user|database)'
)


def is_login_refused(error: psycopg.Error) -> bool:
    """Whether the server was reached, and lets nobody in who comes like this.

    Only messages in English are known; in another language it is a connection that could not be made.
    """
    # Errors of attempts to connect bring what was left of the connection.
    if error.sqlstate is not None or error.pgconn is None:
        return False
    return error.pgconn.needs_password or _REFUSED.search(str(error)) is not None


def is_connection_lost(error: psycopg.Error) -> bool:
    """Whether an error says that the connection is of no use any more, and another one may be.

    So does a server that became a standby: the primary is elsewhere.
    """
    state = error.sqlstate
    if state is None:
        return isinstance(error, psycopg.OperationalError)
    return state[:2] == "08" or state[:3] in ("57P", "25P") or state == _READ_ONLY


def is_worth_another_try(error: psycopg.Error) -> bool:
    """Whether the server took everything back for a reason that may be gone by now."""
    return error.sqlstate in _TRY_AGAIN


def is_worth_waiting(error: psycopg.Error) -> bool:
    """Whether the server gave up, by itself or since somebody said so, while it may have waited for another transaction."""
    return error.sqlstate in (*_TRY_AGAIN, *_BUSY)


def is_of_one_command(error: psycopg.Error) -> bool:
    """Whether the server refuses something that one command of a batch has brought."""
    return (error.sqlstate or "")[:2] in _DATA


def hide_values(error: psycopg.Error) -> None:
    """Leaves the first line of what the server says, which is all that is shown: the lines after it quote what is stored.

    Whoever logs an error with its causes would have it in his log.
    """
    if error.diag.message_primary:
        error.args = (error.diag.message_primary,)


def translate(  # noqa: PLR0911  # a table in the form of code
    error: psycopg.Error, name: str, *, reading: bool = False
) -> StorageError:
    """Returns the sessiondb error for an error of the server, whose messages hold no values."""
    hide_values(error)
    state = error.sqlstate or ""
    message = error.diag.message_primary or str(error).strip() or type(error).__name__
    # libpq says something of each host it has tried, in lines.
    where = f"{name}: {' '.join(message.split())}" + (f" (SQLSTATE {state})" if state else "")
    if is_login_refused(error):
        return LoginRefusedError(f"the server refused the login: {where}")
    if is_connection_lost(error):
        hint = " (a pooler is there: give transaction_pooling=True)" if "startup parameter" in message else ""
        return ServerUnreachableError(f"the server cannot be reached{hint}: {where}")
    if state in _BUSY:
        return DatabaseBusyError(
            "another session held a lock on the server for too long, or an administrator cancelled the statement;"
            f" `SELECT * FROM pg_stat_activity` shows who: {where}"
        )
    if state in _CORRUPT:
        return DatabaseCorruptError(f"the server reports damaged data: {where}")
    if state in _NO_ACCESS:
        return StorageError(f"the role may not do this; docs/postgresql.md lists the grants it needs: {where}")
    if state in _MISSING:
        return UnsupportedDatabaseError(f"a table or function of sessiondb is missing or was altered: {where}")
    if state == "22021":
        return CorruptRowError(f"a text is not UTF-8: {where}")
    if reading:
        return StorageError(f"the server refused the query: {where}")
    if state.startswith(_TOO_LARGE):
        return WriteFailedError(
            "nothing was written: the ids of a session, and a key of its state, may take about 2,600 bytes together on"
            f" PostgreSQL: {where}"
        )
    return WriteFailedError(f"the server refused the write: {where}")
