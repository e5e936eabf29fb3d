"""compose.yaml and what Prometheus and Grafana read agree with the server; they can't be run here."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from masklet_server.settings import ENV_PREFIX, Settings

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed (extra yaml, or with Ray)")

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "deploy/compose"
SERVICES = yaml.safe_load((ROOT / "compose.yaml").read_text())
DASHBOARDS = [json.loads(path.read_text()) for path in sorted((ROOT / "deploy/helm/masklet/dashboards").iterdir())]


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
    configured = yaml.safe_load((COMPOSE / "prometheus.yml").read_text())
    (job,) = configured["scrape_configs"]
    ((target,),) = [config["targets"] for config in job["static_configs"]]
    name, port = target.split(":")
    assert name in SERVICES["services"]
    assert SERVICES["services"][name]["environment"]["MASKLET_METRICS_ADDRESS"] == f"0.0.0.0:{port}"
    mounted = {volume.split(":")[1] for volume in SERVICES["services"]["prometheus"]["volumes"]}
    assert set(configured["rule_files"]) <= mounted


def test_grafana_finds_prometheus_and_the_dashboard() -> None:
    provisioning = COMPOSE / "grafana/provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources/prometheus.yaml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    assert "prometheus" in SERVICES["services"]
    panels = [panel for dashboard in DASHBOARDS for panel in dashboard["panels"]]
    used = {panel["datasource"]["uid"] for panel in panels}
    used |= {target["datasource"]["uid"] for panel in panels for target in panel["targets"]}
    assert used == {source["uid"]}
    (provider,) = yaml.safe_load((provisioning / "dashboards/masklet.yaml").read_text())["providers"]
    grafana = SERVICES["services"]["grafana"]
    mounted = {volume.split(":")[1]: volume.split(":")[0] for volume in grafana["volumes"]}
    assert (ROOT / mounted[provider["options"]["path"]] / "server.json").is_file()
    assert grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == (
        f"{provider['options']['path']}/server.json"
    )


def test_the_gpu_file_changes_only_the_server() -> None:
    extra: Any = yaml.safe_load((COMPOSE / "gpu.yaml").read_text())["services"]
    assert set(extra) == {"masklet"}
    (device,) = extra["masklet"]["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}


def test_the_server_writes_only_to_volumes_and_has_the_image_of_its_device() -> None:
    one = SERVICES["services"]["masklet"]
    assert one["read_only"] is True
    assert one["cap_drop"] == ["ALL"]
    assert {volume.split(":")[1] for volume in one["volumes"]} == {"/var/cache/masklet", "/tmp"}
    assert one["build"]["args"] == {"VARIANT": "cpu", "TORCH_INDEX": "${TORCH_INDEX-}"}
    on_gpus = yaml.safe_load((COMPOSE / "gpu.yaml").read_text())["services"]["masklet"]
    assert on_gpus["build"]["args"] == {"VARIANT": "cuda"}
