"""Every error that sessiondb raises on purpose.

One base class, :class:`SessionDBError`, and one class for each promise that can break. Where ADK has a class for a
situation, the class here derives from it too, so that code written for ADK's own session services keeps working.
"""

from __future__ import annotations

from google.adk import errors as adk_errors
from google.adk.errors import already_exists_error, input_validation_error, session_not_found_error


class SessionDBError(Exception):
    """Base class of all errors raised by sessiondb."""


class ConfigurationError(SessionDBError, ValueError):
    """An option, path or URL given at construction cannot be used."""


class NotPicklableError(SessionDBError, TypeError):
    """A service was to be pickled, or to be passed to a process that does not inherit it."""


class InvalidInputError(SessionDBError, input_validation_error.InputValidationError):
    """An id, key, value or event cannot be stored so that it comes back readable; nothing was written."""


class AlreadyExistsError(SessionDBError, already_exists_error.AlreadyExistsError):
    """``create_session`` was given the id of a session that exists."""


class SessionNotFoundError(SessionDBError, session_not_found_error.SessionNotFoundError):
    """The session written to does not exist."""


class EventNotFoundError(SessionDBError, LookupError):
    """A session has no event of the id or number that a call names."""


class UnsafeCutError(SessionDBError, ValueError):
    """A truncation would part what belongs together: a function call from its response, for example. Nothing was changed.

    Attributes:
        event_id: The event that would lose what belongs to it.
        earlier: The last event before the cut after which one would do; None: only one that leaves no event.
        later: The first event behind the cut after which one would do.
    """

    def __init__(self, message: str, event_id: str = "", earlier: str | None = None, later: str = "") -> None:
        super().__init__(message)
        self.event_id = event_id
        self.earlier = earlier
        self.later = later


class UnknownBeginningError(SessionDBError):
    """It is not known what a session was created with, and so not either what its state was at the moment asked for."""


class StaleSessionError(SessionDBError, adk_errors.StaleSessionError):
    """Another handle has appended to the session since this one was read, or it shows the past; nothing was written."""


class TurnTimeoutError(SessionDBError, TimeoutError):
    """The turn of a session did not come within ``wait``: others had it all the time. Nothing was read or written."""


class StorageError(SessionDBError):
    """The store could not do what a call asks. Subclasses say why."""


class ServiceClosedError(StorageError):
    """The service is closed, or was closed before this call was executed."""


class QueueFullError(StorageError, TimeoutError):
    """The write queue stayed full for the whole of ``busy_timeout``; nothing was written."""


class ReaderTimeoutError(StorageError, TimeoutError):
    """No reader became free within ``busy_timeout``."""


class DatabaseBusyError(StorageError, TimeoutError):
    """Another program held a lock, of the file or of rows on a server, for longer than ``busy_timeout``; nothing was written."""


class WriterStoppedError(StorageError):
    """The writer has stopped for good, after a failed sync or an internal error.

    Whether the commands of its last batch are on disk is unknown. Close the service and open it anew: everything
    acknowledged before is there.
    """


class WritesLostError(WriterStoppedError):
    """The server has lost writes that were acknowledged, after a failover to a standby that had not received them."""


class ServerUnreachableError(StorageError, ConnectionError):
    """The database server could not be reached within ``busy_timeout``; nothing was written. Later calls may succeed."""


class OutcomeUnknownError(StorageError, TimeoutError):
    """The database server did not say within ``busy_timeout`` whether a write is stored.

    It is stored completely or not at all. The same event appended again is stored once.
    """


class WriteFailedError(StorageError):
    """SQLite or the server refused the write (full disk, I/O error, read-only file); nothing was written.

    Later calls may succeed.
    """


class FileLostError(StorageError):
    """The database file or its write-ahead log was removed or replaced while it was open.

    Writes are refused until the file is back in its place, or the service is opened anew; whether the call's own write is
    stored is unknown. If only the write-ahead log was removed, what was acknowledged is moved into the database; else it is
    in the file that was taken away.
    """


class DatabaseCorruptError(StorageError):
    """The file, or the server's data, is damaged. It was not changed; restore a backup, or recover what is readable of a file."""


class UnsupportedDatabaseError(StorageError):
    """The file or schema is not a sessiondb database, or a newer version of sessiondb wrote it. It was not changed."""


class UpgradeError(StorageError):
    """The file is of an earlier schema version and could not be brought up to date. It was not changed."""


class SearchIndexError(StorageError):
    """There is no index of texts to search in, or it is not complete yet."""


class CorruptRowError(StorageError):
    """A row cannot be read as the event or state value it should be; the message names the session and the row."""


class TransferFormatError(SessionDBError, ValueError):
    """What is to be imported is not in the format, or ends early; the message names the line."""


class MigrationError(SessionDBError):
    """A migration cannot be begun."""
