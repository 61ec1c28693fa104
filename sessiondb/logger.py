"""The library's logger: structlog events on the standard logger ``sessiondb``, silent unless the host listens.

No global configuration is read or changed. Events carry a name and key-values (counts, durations, paths, ids of
sessions), never content or state values.
"""

from __future__ import annotations

import functools
import logging
import math
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from structlog.stdlib import BoundLogger

_STANDARD = logging.getLogger("sessiondb")
_STANDARD.addHandler(logging.NullHandler())


class _Logger:
    """Passes on the events that somebody listens to. structlog is imported for the first of them.

    That takes 40 ms, and more than a second beside a Python thread that computes: too much for a checkpoint of which
    nobody wants to hear.
    """

    def _log(self, level: int, event: str, **values: object) -> None:
        if _STANDARD.isEnabledFor(level):
            _structlog().log(level, event, **values)

    debug = functools.partialmethod(_log, logging.DEBUG)
    info = functools.partialmethod(_log, logging.INFO)
    warning = functools.partialmethod(_log, logging.WARNING)
    error = functools.partialmethod(_log, logging.ERROR)


@functools.cache
def _structlog() -> BoundLogger:
    import structlog  # noqa: PLC0415  # as said above

    bound: BoundLogger = structlog.wrap_logger(
        _STANDARD,
        processors=[structlog.stdlib.filter_by_level, structlog.stdlib.render_to_log_kwargs],
        wrapper_class=structlog.stdlib.BoundLogger,
        context_class=dict,
    )
    return bound


logger = _Logger()


class Repeated:
    """A failure that may come with every call: worth a line at once, then one at intervals for as long as it lasts.

    For one thread at a time.
    """

    INTERVAL = 10.0
    """Seconds between two lines."""

    def __init__(self) -> None:
        self._told_at = -math.inf
        self._untold = 0

    def due(self) -> int | None:
        """Called when it has come. Returns how often it had come since the last line, None if it is not worth a new one."""
        now = monotonic()
        if now - self._told_at < self.INTERVAL:
            self._untold += 1
            return None
        self._told_at = now
        untold, self._untold = self._untold, 0
        return untold

    def over(self) -> None:
        """Called when it has ended: the next time is worth a line at once."""
        self._told_at = -math.inf
        self._untold = 0
