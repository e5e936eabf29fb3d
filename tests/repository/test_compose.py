"""compose.yaml and what Prometheus and Grafana read agree with the server; they can't be run here."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from masklet_server.metrics import Metrics
from masklet_server.settings import ENV_PREFIX, Settings

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed (extra yaml, or with Ray)")

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "deploy/compose"
SERVICES = yaml.safe_load((ROOT / "compose.yaml").read_text())
DASHBOARD = json.loads((COMPOSE / "grafana/dashboards/masklet.json").read_text())
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


def exported() -> dict[str, set[str]]:
    """The labels of every sample that the server can export, by its name."""
    found: dict[str, set[str]] = {}
    for family in Metrics().registry.collect():
        labels = set(labels_of(family.name))
        match family.type:
            case "counter":
                found[f"{family.name}_total"] = labels
            case "histogram":
                found |= {f"{family.name}_count": labels, f"{family.name}_sum": labels}
                found[f"{family.name}_bucket"] = labels | {"le"}
            case _:
                found[family.name] = labels
    return found


def labels_of(name: str) -> tuple[str, ...]:
    """Labels by which a metric is divided, as the program declares them."""
    source = (ROOT / "server/masklet_server/metrics.py").read_text()
    plain = name.removeprefix("masklet_")
    declared = re.search(rf'make\.\w+\(\s*"{plain}",\s*"[^"]*"((?:,\s*[\w"]+)*),?\s*\)', source)
    assert declared is not None, name
    return tuple(re.findall(r'"(\w+)"', declared[1]))


@pytest.mark.parametrize("query", QUERIES)
def test_every_metric_of_the_dashboard_is_exported_with_its_labels(query: str) -> None:
    known = exported()
    names = set(re.findall(r"masklet_\w+", query))
    assert names
    assert names <= set(known)
    labels = {label for name in names for label in known[name]}
    for group in re.findall(r"by \(([^)]*)\)", query):
        assert {part.strip() for part in group.split(",")} <= labels
    assert set(re.findall(r'(\w+)!?="', query)) <= labels
    assert query.count("(") == query.count(")")


def test_the_legend_names_labels_that_the_query_leaves() -> None:
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            used = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            grouped = {
                part.strip() for group in re.findall(r"by \(([^)]*)\)", target["expr"]) for part in group.split(",")
            }
            assert used <= grouped | ({"budget"} if "by (" not in target["expr"] else set()), panel["title"]


def test_the_dashboard_shows_every_metric() -> None:
    """A new metric needs a place, or it helps nobody."""
    text = " ".join(QUERIES)
    missing = [name for name in (family.name for family in Metrics().registry.collect()) if name not in text]
    assert missing == []


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_variables_are_settings() -> None:
    variables = SERVICES["services"]["masklet"]["environment"]
    assert {name.removeprefix(ENV_PREFIX).lower() for name in variables} <= set(Settings.model_fields)


@pytest.mark.parametrize("service", SERVICES["services"])
def test_files_exist_volumes_are_declared_and_ports_are_this_machines(service: str) -> None:
    one = SERVICES["services"][service]
    for volume in one["volumes"]:
        source = volume.split(":")[0]
        assert (ROOT / source).exists() if source.startswith("./") else source in SERVICES["volumes"]
    assert all(port.startswith("127.0.0.1:") for port in one["ports"])
    image = one["image"]
    assert "build" in one or re.fullmatch(r"[\w/]+:v?\d+\.\d+\.\d+", image), f"{image} has no version"
    assert set(one.get("depends_on", ())) <= set(SERVICES["services"])


def test_prometheus_asks_the_server_where_it_answers() -> None:
    (job,) = yaml.safe_load((COMPOSE / "prometheus.yml").read_text())["scrape_configs"]
    ((target,),) = [config["targets"] for config in job["static_configs"]]
    name, port = target.split(":")
    assert name in SERVICES["services"]
    assert SERVICES["services"][name]["environment"]["MASKLET_METRICS_ADDRESS"] == f"0.0.0.0:{port}"


def test_grafana_finds_prometheus_and_the_dashboard() -> None:
    provisioning = COMPOSE / "grafana/provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources/prometheus.yaml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    assert "prometheus" in SERVICES["services"]
    used = {panel["datasource"]["uid"] for panel in DASHBOARD["panels"]}
    used |= {target["datasource"]["uid"] for panel in DASHBOARD["panels"] for target in panel["targets"]}
    assert used == {source["uid"]}
    (provider,) = yaml.safe_load((provisioning / "dashboards/masklet.yaml").read_text())["providers"]
    grafana = SERVICES["services"]["grafana"]
    mounted = {volume.split(":")[1]: volume.split(":")[0] for volume in grafana["volumes"]}
    assert (ROOT / mounted[provider["options"]["path"]] / "masklet.json").is_file()
    assert grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == (
        f"{provider['options']['path']}/masklet.json"
    )


def test_the_gpu_file_changes_only_the_server() -> None:
    extra: Any = yaml.safe_load((COMPOSE / "gpu.yaml").read_text())["services"]
    assert set(extra) == {"masklet"}
    (device,) = extra["masklet"]["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}
