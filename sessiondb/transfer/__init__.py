"""Whole sessions on their way between databases, files and ADK's own session services."""

from __future__ import annotations

from sessiondb.transfer.adk_import import migrate_adk_file, migrate_adk_server, migrate_memory, migrate_to_adk_sqlite
from sessiondb.transfer.compare import MigrationReport
from sessiondb.transfer.copying import migrate_sessiondb
from sessiondb.transfer.jsonl import Imported, export_lines, import_lines

__all__ = [
    "Imported",
    "MigrationReport",
    "export_lines",
    "import_lines",
    "migrate_adk_file",
    "migrate_adk_server",
    "migrate_memory",
    "migrate_sessiondb",
    "migrate_to_adk_sqlite",
]
