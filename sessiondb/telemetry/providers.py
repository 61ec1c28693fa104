"""Whether the host has configured providers of an SDK."""

from __future__ import annotations

from importlib.metadata import version
from time import monotonic

from opentelemetry import metrics, trace

SCOPE = "sessiondb"
"""The name of the instrumentation scope."""

_VERSION = version("sessiondb")

# Both are proxies for as long as there is no provider, and pass on to the host's as soon as there is one.
METER = metrics.get_meter(SCOPE, _VERSION)
TRACER = trace.get_tracer(SCOPE, _VERSION)

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
        self.look()

    def look(self) -> None:
        """Looks for the providers."""
        self.tracing = _is_real(trace.get_tracer_provider())
        self.metering = _is_real(metrics.get_meter_provider())
        self.look_at = monotonic() + _LOOK_SECONDS


def _is_real(provider: object) -> bool:
    # The API's own providers, the proxies among them, do nothing.
    return not type(provider).__module__.startswith(("opentelemetry.trace", "opentelemetry.metrics"))


PROVIDERS = Providers()
