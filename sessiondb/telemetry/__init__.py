"""What OpenTelemetry hears of sessiondb: spans around the calls of a service, and metrics.

Only OpenTelemetry's API is used, and it is not imported before the host, or ADK's ``Runner``, has done so. It does nothing
until the host configures the providers of an SDK, before a service is opened or after. Until then no call of a service
enters OpenTelemetry, but for a look whether there are providers, a hundred times a second at most.

No attribute holds content, state or the id of a user. Metrics name no app, session or file either, so that their number
does not grow with those.
"""

from __future__ import annotations

from sessiondb.telemetry.operations import (
    operation,
    record_batch,
    record_prune,
    service_opened,
    store_closed,
    store_opened,
)

__all__ = ["operation", "record_batch", "record_prune", "service_opened", "store_closed", "store_opened"]
