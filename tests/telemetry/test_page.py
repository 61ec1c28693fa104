"""The tables of the page on telemetry are what is exported."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
from opentelemetry.sdk.metrics.export import Gauge, Histogram, Metric, Sum

from sessiondb import DatabaseSessionService
from tests.docs.markdown import ROOT, tables_of
from tests.telemetry.exporting import Exported, attributes_of
from tests.telemetry.workload import every_call

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]

_PAGE = ROOT / "docs" / "telemetry.md"


def _kind_of(metric: Metric) -> str:
    match metric.data:
        case Histogram():
            return "histogram"
        case Gauge():
            return "gauge"
        case Sum(is_monotonic=True):
            return "counter"
        case _:
            return "up-down counter"


async def test_metrics_on_page_are_those_exported(
    exported: Exported, service: DatabaseSessionService, tmp_path: Path
) -> None:
    await every_call(service, tmp_path)
    found = [
        [
            name,
            _kind_of(metric),
            metric.unit,
            ", ".join(sorted({key for point in metric.data.data_points for key in point.attributes or {}})),
            metric.description,
        ]
        for name, metric in exported.metrics().items()
    ]
    (rows,) = tables_of(_PAGE, "metric")
    assert sorted(rows) == sorted(found)


async def test_span_attributes_on_page_are_those_set(
    exported: Exported, service: DatabaseSessionService, tmp_path: Path
) -> None:
    await every_call(service, tmp_path)
    (rows,) = tables_of(_PAGE, "attribute")
    assert {name for name, _ in rows} == {name for span in exported.spans() for name in attributes_of(span)}


async def test_every_public_call_is_an_operation_metric(
    exported: Exported, service: DatabaseSessionService, tmp_path: Path
) -> None:
    await every_call(service, tmp_path)
    methods = inspect.getmembers(DatabaseSessionService, inspect.isfunction)
    public = {name for name, _ in methods if not name.startswith("_")}
    # A turn is waited for when it is entered, which the log tells of; the iterators ask for pages, each of which is a call.
    not_calls = {"close", "health", "turn", "iter_sessions", "iter_events"}
    assert {name for name, *_ in exported.operations()} == public - not_calls
