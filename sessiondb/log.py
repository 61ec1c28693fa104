"""The library's logger: structlog events on the standard logger ``sessiondb``, silent unless the host listens.

No global configuration is read or changed. Events carry a name and key-values (counts, durations, paths, ids of
sessions), never content or state values.
"""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from structlog.stdlib import BoundLogger

_STANDARD = logging.getLogger("sessiondb")
_STANDARD.addHandler(logging.NullHandler())


@functools.cache
def logger() -> BoundLogger:
    """Returns the logger. structlog is imported by the first call: most runs have nothing to say."""
    import structlog  # noqa: PLC0415  # as said above

    bound: BoundLogger = structlog.wrap_logger(
        _STANDARD,
        processors=[structlog.stdlib.filter_by_level, structlog.stdlib.render_to_log_kwargs],
        wrapper_class=structlog.stdlib.BoundLogger,
        context_class=dict,
    )
    return bound
