"""sessiondb: durable sessions for Google ADK agent servers, on SQLite.

>>> from sessiondb import DatabaseSessionService
>>> service = DatabaseSessionService(":memory:")
"""

from sessiondb import errors
from sessiondb.listing import SessionList
from sessiondb.service import DatabaseSessionService
from sessiondb.stats import ServiceStats

__all__ = ["DatabaseSessionService", "ServiceStats", "SessionList", "errors"]
