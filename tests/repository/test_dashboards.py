"""What Grafana shows and Prometheus records is what servers and gateways export."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from masklet.v1 import server_info_pb2
from masklet_cluster.gateway.worker_metrics import WorkerMetrics
from masklet_cluster.placement.placement import WorkerReport
from masklet_cluster.placement.static import StaticPlacement
from masklet_cluster.placement.worker import Connection
from masklet_server.metrics import Metrics

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed (extra yaml, or with Ray)")

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy/helm/masklet"
NAMES = ("server", "cluster")
DASHBOARDS: dict[str, Any] = {name: json.loads((CHART / f"dashboards/{name}.json").read_text()) for name in NAMES}
QUERIES = [
    (name, target["expr"]) for name in NAMES for panel in DASHBOARDS[name]["panels"] for target in panel["targets"]
]
(GROUP,) = yaml.safe_load((CHART / "rules.yaml").read_text())["groups"]
RULES: dict[str, str] = {rule["record"]: rule["expr"] for rule in GROUP["rules"]}


def exported() -> dict[str, set[str]]:
    """The labels of every sample that a server or a gateway can export, by its name."""
    found: dict[str, set[str]] = {}
    for family in Metrics().registry.collect():
        add(found, family, set(labels_of(family.name)))
    for family in gateways():
        add(found, family, set(family.samples[0].labels) - {"le"})
    return found


def gateways() -> list[Any]:
    """The metrics of a gateway with one worker."""
    load = server_info_pb2.Load(jobs=1, queue_counts=[1], queue_bounds_seconds=[0.1])
    report = WorkerReport("a", "serving", 0, server_info_pb2.GetServerInfoResponse(server_version="1", load=load))

    class One(StaticPlacement):
        def workers(self) -> list[WorkerReport]:
            return [report]

    return list(WorkerMetrics(One(["127.0.0.1:1"], Connection(1024))).collect())


def add(found: dict[str, set[str]], family: Any, labels: set[str]) -> None:
    match family.type:
        case "counter":
            found[f"{family.name}_total"] = labels
        case "histogram":
            found |= {f"{family.name}_count": labels, f"{family.name}_sum": labels}
            found[f"{family.name}_bucket"] = labels | {"le"}
        case _:
            found[family.name] = labels


def labels_of(name: str) -> tuple[str, ...]:
    """Labels by which a metric is divided, as the program declares them."""
    source = (ROOT / "server/masklet_server/metrics.py").read_text()
    plain = name.removeprefix("masklet_")
    declared = re.search(rf'make\.\w+\(\s*"{plain}",\s*"[^"]*"((?:,\s*[\w"]+)*),?\s*\)', source)
    assert declared is not None, name
    return tuple(re.findall(r'"(\w+)"', declared[1]))


def check(query: str, *, of_prometheus: frozenset[str] = frozenset()) -> None:
    """A query uses what is exported, with its labels, and those that Prometheus adds."""
    known = exported()
    names = set(re.findall(r"masklet_\w+", query))
    assert names
    assert names <= set(known)
    labels = {label for name in names for label in known[name]} | of_prometheus
    for group in re.findall(r"by \(([^)]*)\)", query):
        assert {part.strip() for part in group.split(",")} <= labels
    assert set(re.findall(r'(\w+)!?="', query)) <= labels
    assert query.count("(") == query.count(")")


@pytest.mark.parametrize(("name", "query"), QUERIES)
def test_every_metric_of_the_dashboards_is_exported_with_its_labels(name: str, query: str) -> None:
    check(query)


@pytest.mark.parametrize("record", RULES)
def test_what_is_recorded_is_exported(record: str) -> None:
    check(RULES[record], of_prometheus=frozenset({"namespace"}))
    assert re.fullmatch(r"masklet:[a-z_]+(:p95)?", record)


@pytest.mark.parametrize("name", NAMES)
def test_the_legend_names_labels_that_the_query_leaves(name: str) -> None:
    for panel in DASHBOARDS[name]["panels"]:
        for target in panel["targets"]:
            used = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            grouped = {
                part.strip() for group in re.findall(r"by \(([^)]*)\)", target["expr"]) for part in group.split(",")
            }
            assert used <= grouped | ({"budget"} if "by (" not in target["expr"] else set()), panel["title"]


def test_the_dashboards_show_every_metric() -> None:
    """A new metric needs a place, or it helps nobody."""
    families = {"server": [family.name for family in Metrics().registry.collect()]}
    families["cluster"] = [family.name for family in gateways()]
    assert len(families["cluster"]) == 7
    for name, needed in families.items():
        text = " ".join(query for dashboard, query in QUERIES if dashboard == name)
        assert [one for one in needed if one not in text] == []


def test_the_signals_for_scaling_are_on_the_dashboard_of_a_cluster() -> None:
    text = " ".join(query for dashboard, query in QUERIES if dashboard == "cluster")
    assert "histogram_quantile(0.95, sum by (le) (rate(masklet_gateway_worker_queue_seconds_bucket" in text
    busy, wait = DASHBOARDS["cluster"]["panels"][:2]
    lines = [one["fieldConfig"]["defaults"]["thresholds"]["steps"][1]["value"] for one in (busy, wait)]
    scaling = yaml.safe_load((CHART / "values.yaml").read_text())["autoscaling"]
    assert lines == [scaling["busyShare"], scaling["queueSeconds"]], "the lines are where the chart scales"


@pytest.mark.parametrize("name", NAMES)
def test_panels_do_not_overlap(name: str) -> None:
    taken: set[tuple[int, int]] = set()
    panels = DASHBOARDS[name]["panels"]
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_dashboards_are_told_apart() -> None:
    assert len({one["uid"] for one in DASHBOARDS.values()}) == len({one["title"] for one in DASHBOARDS.values()}) == 2
