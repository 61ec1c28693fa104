"""Providers of OpenTelemetry's SDK for the length of a test, and what they were given.

A process can set its providers once. A test puts its own in their place, and takes them away again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from google.adk.telemetry import tracing
from opentelemetry import trace
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import _internal
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, Metric
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.util._once import Once
from prometheus_client import REGISTRY
from prometheus_client.samples import Sample

from sessiondb.telemetry.instruments import SCOPE, TRACER
from sessiondb.telemetry.operations import PROVIDERS

_TRACERS = (TRACER, tracing.tracer)


class Exported:
    """What the SDK was given since the providers were set."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self._spans = InMemorySpanExporter()
        self.meter_provider = MeterProvider(
            metric_readers=[self._reader, PrometheusMetricReader()], shutdown_on_exit=False
        )
        self.tracer_provider = TracerProvider(shutdown_on_exit=False)
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self._spans))

    def all_spans(self) -> list[ReadableSpan]:
        """The spans that have ended, in that order; ADK's too."""
        return list(self._spans.get_finished_spans())

    def spans(self) -> list[ReadableSpan]:
        """Those of sessiondb."""
        return [span for span in self.all_spans() if _scope_of(span) == SCOPE]

    def metrics(self) -> dict[str, Metric]:
        """The metrics of sessiondb, by their names."""
        data = self._reader.get_metrics_data()
        assert data is not None
        return {
            metric.name: metric
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            if scope.scope.name == SCOPE
            for metric in scope.metrics
        }

    def points(self, name: str) -> dict[tuple[str, ...], Any]:
        """The points of a metric, by the values of their attributes in the order of the attributes' names."""
        return {
            tuple(str(value) for _, value in sorted(dict(point.attributes or {}).items())): point
            for point in self.metrics()[name].data.data_points
        }

    def values(self, name: str) -> dict[tuple[str, ...], float]:
        """The values of a metric that is no histogram."""
        return {attributes: point.value for attributes, point in self.points(name).items()}

    def for_prometheus(self) -> Iterator[Sample]:
        """The samples of sessiondb as Prometheus is given them; how they name their scope varies by release."""
        for family in REGISTRY.collect():
            if family.name.startswith(("sessiondb_", "db_client_")):
                yield from family.samples

    def operations(self) -> dict[tuple[str, ...], int]:
        """How often each operation was called, by its name, the system, and the error if there was one."""
        return {attributes: point.count for attributes, point in self.points("db.client.operation.duration").items()}


def _scope_of(span: ReadableSpan) -> str:
    assert span.instrumentation_scope is not None
    return span.instrumentation_scope.name


@contextmanager
def no_providers() -> Iterator[None]:
    """As in a process that has not configured OpenTelemetry, and may do so now."""
    with pytest.MonkeyPatch.context() as patch:
        _replace(patch, None, None)
        PROVIDERS.look()
        assert not PROVIDERS.tracing
        assert not PROVIDERS.metering
        yield
    PROVIDERS.look()


@contextmanager
def providers() -> Iterator[Exported]:
    """As in a process that configures OpenTelemetry now; sessiondb has to notice that for itself."""
    exported = Exported()
    with pytest.MonkeyPatch.context() as patch:
        _replace(patch, exported.tracer_provider, exported.meter_provider)
        _internal._PROXY_METER_PROVIDER.on_set_meter_provider(exported.meter_provider)
        yield exported
    exported.meter_provider.shutdown()
    exported.tracer_provider.shutdown()
    PROVIDERS.look()


def _replace(
    patch: pytest.MonkeyPatch, tracer_provider: TracerProvider | None, meter_provider: MeterProvider | None
) -> None:
    patch.setattr(trace, "_TRACER_PROVIDER", tracer_provider)
    patch.setattr(_internal, "_METER_PROVIDER", meter_provider)
    patch.setattr(trace, "_TRACER_PROVIDER_SET_ONCE", Once())
    patch.setattr(_internal, "_METER_PROVIDER_SET_ONCE", Once())
    for tracer in _TRACERS:
        # It keeps the first tracer that it finds.
        patch.setattr(tracer, "_real_tracer", None)


def attributes_of(span: ReadableSpan) -> Mapping[str, Any]:
    """The attributes of a span; none is no attribute."""
    return dict(span.attributes or {})
