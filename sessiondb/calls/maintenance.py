"""Measuring and maintaining a store."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, cast

from sessiondb import telemetry
from sessiondb.adk.limits import check_key
from sessiondb.calls.base import Calls, stripped
from sessiondb.errors import ConfigurationError
from sessiondb.location import resolve_path
from sessiondb.model.commands import Flush
from sessiondb.model.queries import CountEvents, MeasureStore
from sessiondb.model.records import BackupReport
from sessiondb.stats import Health, ServiceStats


class Maintenance(Calls):
    """Calls for those who run a service."""

    @telemetry.operation
    async def flush(self) -> None:
        """Returns once every write that was queued before is on disk."""
        await self._engine.write(Flush())

    @telemetry.operation
    def get_event_count(self, app_name: str, user_id: str, session_id: str) -> int:
        """Counts the events of a session, 0 if there is none. Callable from any thread, which it blocks."""
        return self._engine.read_from_thread(CountEvents(check_key(app_name, user_id, stripped(session_id))))

    @telemetry.operation
    def get_stats(self) -> ServiceStats:
        """Measures the database and the running service. Callable from any thread, which it blocks.

        What is on disk is counted in one snapshot, beside the writer: exactly up to 20,000 of a kind. What is more is
        estimated, so that the call does not take longer for it; ``estimated`` names those counts. The keys are documented
        in :class:`~sessiondb.stats.ServiceStats`.
        """
        engine = self._engine
        size = engine.read_from_thread(MeasureStore())
        cache = self._logs.cache
        stats: dict[str, Any] = {
            "sessions": size.sessions,
            "events": size.events,
            "state_keys": size.state_keys,
            "estimated": size.estimated,
            "db_size_mb": size.file_bytes / 2**20,
            **engine.threads.measure(),
            "cache_hits": 0 if cache is None else cache.stats.hits,
            "cache_misses": 0 if cache is None else cache.stats.misses,
            "cache_bytes": 0 if cache is None else cache.bytes,
        }
        return cast("ServiceStats", stats)

    def health(self, stalled_after: float = 30.0) -> Health:
        """Says whether the writer makes progress, for a liveness probe. Answers at once, from any thread.

        Args:
            stalled_after: How old the batch under way may be, in seconds.
        """
        return self._engine.threads.health(stalled_after)

    @telemetry.operation
    def vacuum(self) -> None:
        """Checks the file, gives free space back and refreshes statistics. Callable from any thread, which it blocks.

        Writes to a file wait meanwhile; reads go on. On a server nobody waits.

        Raises:
            DatabaseCorruptError: If the file is damaged. It was not changed.
        """
        self._engine.vacuum()

    @telemetry.operation
    async def backup(
        self,
        path: str | os.PathLike[str],
        *,
        overwrite: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> BackupReport:
        """Copies the database to another file, while reads and writes go on.

        The copy is of one moment, holds every write that was answered before the call, has been checked, and stands
        alone: no ``-wal`` file belongs to it. It appears at its path complete, or not at all, readable for its owner
        only. While it is made the write-ahead log cannot be emptied. If the process forks meanwhile, the copy starts
        over.

        A cancelled call stops copying and leaves nothing behind, unless the copy was in place already.

        Args:
            path: Where to put the copy, as the constructor takes it. Its folder must exist.
            overwrite: Whether a file that is there may be replaced. A database in use never is.
            progress: Called after each step with the pages copied and the pages in all; on a thread of the backup's
                own, so it must not touch an event loop directly. What it raises ends the backup and is raised here.

        Raises:
            ConfigurationError: If the path cannot be used, is that of a database in use, or exists.
            DatabaseCorruptError: If the copy is damaged, as the file must be then; it was not kept.
            StorageError: If the copy cannot be made.
        """
        target = resolve_path(path, None)
        if target is None:
            raise ConfigurationError("a backup in memory would end with the process; give the path of a file")
        return await self._engine.backup(target, overwrite=overwrite, progress=progress)
