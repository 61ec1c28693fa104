"""The dashboard and the alert rules ask for what Prometheus is given, and the dashboard shows all of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from sessiondb import DatabaseSessionService
from tests.docs.markdown import ROOT
from tests.telemetry.exporting import Exported
from tests.telemetry.workload import every_call

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]

_GRAFANA = ROOT / "docs" / "grafana"
_BY_PROMETHEUS = {"job", "instance", "le"}
"""Labels that Prometheus adds, and that a histogram has."""


@pytest.fixture
async def samples(exported: Exported, service: DatabaseSessionService, tmp_path: Path) -> Mapping[str, set[str]]:
    """What Prometheus is given of sessiondb: the labels of each time series, by its name."""
    await every_call(service, tmp_path)
    given: dict[str, set[str]] = {}
    for sample in exported.for_prometheus():
        given.setdefault(sample.name, set()).update(sample.labels)
    return given


def _metrics_in(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:sessiondb|db_client)_\w+(?=[{\[) ]|$)", _without_labels(expression)))


def _labels_in(expression: str) -> set[str]:
    labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", expression))
    for group in re.findall(r"\bby \(([^)]*)\)", expression):
        labels.update(name.strip() for name in group.split(","))
    return labels


def _without_labels(expression: str) -> str:
    """Without what stands in braces, and after ``by``: names of labels look like names of metrics."""
    return re.sub(r"\{[^}]*\}|\bby \([^)]*\)", "", expression)


def _check(expressions: Iterable[str], samples: Mapping[str, set[str]]) -> set[str]:
    shown: set[str] = set()
    for expression in expressions:
        metrics = _metrics_in(expression)
        assert metrics, expression
        assert metrics <= samples.keys(), expression
        known = set.intersection(*(samples[metric] for metric in metrics)) | _BY_PROMETHEUS
        assert _labels_in(expression) <= known, expression
        shown |= metrics
    return shown


async def test_grafana_dashboard_shows_every_metric_and_no_other(samples: Mapping[str, set[str]]) -> None:
    dashboard: dict[str, Any] = json.loads((_GRAFANA / "sessiondb.json").read_text(encoding="utf-8"))
    panels = dashboard["panels"]
    shown = _check((target["expr"] for panel in panels for target in panel["targets"]), samples)
    assert {_family_of(name) for name in shown} == {_family_of(name) for name in samples}
    variables = [each["query"]["query"] for each in dashboard["templating"]["list"] if each["type"] == "query"]
    assert _metrics_in(" ".join(variables).replace(",", " ")) <= samples.keys()
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert not _overlapping([panel["gridPos"] for panel in panels])


def _family_of(name: str) -> str:
    return re.sub(r"_(bucket|count|sum|total|created)$", "", name)


def _overlapping(places: list[dict[str, int]]) -> list[tuple[int, int]]:
    taken = [
        (x, y) for at in places for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])
    ]
    return [cell for cell in set(taken) if taken.count(cell) > 1]


async def test_alert_rules_use_only_exported_metrics(samples: Mapping[str, set[str]]) -> None:
    (group,) = yaml.safe_load((_GRAFANA / "sessiondb-alerts.yaml").read_text(encoding="utf-8"))["groups"]
    assert _check((rule["expr"] for rule in group["rules"]), samples)
    assert all({"alert", "expr", "labels", "annotations"} <= rule.keys() for rule in group["rules"])
    page = (ROOT / "docs" / "telemetry.md").read_text(encoding="utf-8")
    shown = re.findall(r"- alert: (\w+)\n +expr: (.+)\n", page)
    assert shown
    assert set(shown) <= {(rule["alert"], rule["expr"]) for rule in group["rules"]}
