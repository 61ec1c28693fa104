"""sessiondb: durable sessions for Google ADK agent servers, on SQLite.

>>> from sessiondb import DatabaseSessionService
>>> service = DatabaseSessionService(":memory:")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sessiondb import errors
    from sessiondb.adk.listing import EventPage, SessionList
    from sessiondb.adk.past import StateChange
    from sessiondb.engine.turns import Turn
    from sessiondb.memory import MemoryService
    from sessiondb.model.records import BackupReport, ErasureReport, ForkedSession, PruneReport
    from sessiondb.model.search import SearchHit, SearchPage
    from sessiondb.model.usage import UsageRow
    from sessiondb.one_turn import OneTurnAtATime
    from sessiondb.retention import Retention
    from sessiondb.service import DatabaseSessionService
    from sessiondb.stats import Health, ServiceStats

__all__ = [
    "BackupReport",
    "DatabaseSessionService",
    "ErasureReport",
    "EventPage",
    "ForkedSession",
    "Health",
    "MemoryService",
    "OneTurnAtATime",
    "PruneReport",
    "Retention",
    "SearchHit",
    "SearchPage",
    "ServiceStats",
    "SessionList",
    "StateChange",
    "Turn",
    "UsageRow",
    "errors",
]

# ADK is slow to import, and parts of this package (the command line's help) do without it.
_HOMES = {
    "BackupReport": "sessiondb.model.records",
    "DatabaseSessionService": "sessiondb.service",
    "ErasureReport": "sessiondb.model.records",
    "EventPage": "sessiondb.adk.listing",
    "ForkedSession": "sessiondb.model.records",
    "Health": "sessiondb.stats",
    "MemoryService": "sessiondb.memory",
    "OneTurnAtATime": "sessiondb.one_turn",
    "PruneReport": "sessiondb.model.records",
    "Retention": "sessiondb.retention",
    "SearchHit": "sessiondb.model.search",
    "SearchPage": "sessiondb.model.search",
    "ServiceStats": "sessiondb.stats",
    "SessionList": "sessiondb.adk.listing",
    "StateChange": "sessiondb.adk.past",
    "Turn": "sessiondb.engine.turns",
    "UsageRow": "sessiondb.model.usage",
}


def __getattr__(name: str) -> object:
    if name == "errors":
        return importlib.import_module("sessiondb.errors")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
