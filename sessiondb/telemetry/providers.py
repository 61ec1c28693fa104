"""Whether the host has configured providers of an SDK."""

from __future__ import annotations

import sys
from time import monotonic

_API = ("opentelemetry.metrics", "opentelemetry.trace")

_LOOK_SECONDS = 0.01
"""How often it is looked for providers: a look takes microseconds, as much as a small part of an append."""


class Providers:
    """What is known of the host's providers.

    Attributes:
        tracing: Whether spans go anywhere.
        metering: Whether measurements go anywhere.
        look_at: When to look again, by the monotonic clock. Read before each use: ``if monotonic() >= look_at: look()``
    """

    __slots__ = ("look_at", "metering", "tracing")

    def __init__(self) -> None:
        self.tracing = self.metering = False
        self.look_at = 0.0

    def look(self) -> None:
        """Looks for the providers. Called by those who use a service, never by its threads: it may import modules."""
        self.look_at = monotonic() + _LOOK_SECONDS
        # A provider is set through the API. Until somebody has imported that, there is none; and importing it would make
        # a third of what importing sessiondb takes.
        if not any(module in sys.modules for module in _API):
            return
        from opentelemetry import metrics, trace  # noqa: PLC0415  # as said above

        # Observed figures are asked for through instruments: they must be there before the first measurement.
        import sessiondb.telemetry.instruments  # noqa: F401, PLC0415  # as said above

        self.tracing = _is_real(trace.get_tracer_provider())
        self.metering = _is_real(metrics.get_meter_provider())


def _is_real(provider: object) -> bool:
    # The API's own providers, the proxies among them, do nothing.
    return not type(provider).__module__.startswith(("opentelemetry.trace", "opentelemetry.metrics"))


PROVIDERS = Providers()
