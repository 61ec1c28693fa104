"""The library's logger: structlog events on the standard logger ``sessiondb``, silent unless the host listens.

No global configuration is read or changed. Events carry a name and key-values (counts, durations, paths, ids of
sessions), never content or state values.
"""

from __future__ import annotations

import logging

import structlog

_STANDARD = logging.getLogger("sessiondb")
_STANDARD.addHandler(logging.NullHandler())

logger: structlog.stdlib.BoundLogger = structlog.wrap_logger(
    _STANDARD,
    processors=[
        structlog.stdlib.filter_by_level,
        structlog.stdlib.render_to_log_kwargs,
    ],
    wrapper_class=structlog.stdlib.BoundLogger,
    context_class=dict,
    cache_logger_on_first_use=True,
)
