"""The manifests for Kubernetes agree with the program: flags, ports, names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer

from masklet_cluster.cli import gateway
from masklet_server.cli import serve

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed (extra yaml, or with Ray)")

MANIFEST = Path(__file__).parents[2] / "deploy/kubernetes/masklet.yaml"
LABELS = {"app": "masklet"}


def objects(kind: str) -> list[Any]:
    return [one for one in yaml.safe_load_all(MANIFEST.read_text()) if one["kind"] == kind]


def container(kind: str) -> Any:
    (one,) = objects(kind)
    assert one["spec"]["selector"]["matchLabels"] == one["spec"]["template"]["metadata"]["labels"]
    (inside,) = one["spec"]["template"]["spec"]["containers"]
    return inside


def flags(command: Any) -> set[str]:
    app = typer.Typer()
    app.command()(command)
    return {flag for parameter in typer.main.get_command(app).params for flag in parameter.opts}


def values(arguments: list[str]) -> dict[str, str]:
    """The values of the flags that have one."""
    return {flag: value for flag, value in zip(arguments, [*arguments[1:], ""], strict=True) if flag[:2] == "--"}


@pytest.mark.parametrize(("kind", "command"), [("StatefulSet", serve), ("Deployment", gateway)])
def test_the_flags_are_flags(kind: str, command: Any) -> None:
    inside = container(kind)
    given = [word for word in inside["args"] if word.startswith("--")]
    assert len(given) > 4
    assert set(given) <= flags(command)
    ports = {port["name"]: port["containerPort"] for port in inside["ports"]}
    told = values(inside["args"])
    for name, flag in (("grpc", "--address"), ("health", "--health-address"), ("metrics", "--metrics-address")):
        assert told[flag].endswith(f":{ports[name]}")
    assert inside["readinessProbe"]["grpc"]["port"] == ports["health"]


def test_the_gateway_knows_all_servers() -> None:
    (servers,) = objects("StatefulSet")
    name, within = servers["metadata"]["name"], servers["spec"]["serviceName"]
    addresses = [f"{name}-{number}.{within}:50051" for number in range(servers["spec"]["replicas"])]
    assert values(container("Deployment")["args"])["--servers"].split(",") == addresses
    headless = next(one for one in objects("Service") if one["metadata"]["name"] == within)
    assert headless["spec"]["clusterIP"] == "None"


def test_only_gateways_reach_servers() -> None:
    (policy,) = objects("NetworkPolicy")
    assert policy["spec"]["podSelector"]["matchLabels"] == {**LABELS, "part": "server"}
    calls, others = policy["spec"]["ingress"]
    assert calls["from"] == [{"podSelector": {"matchLabels": {**LABELS, "part": "gateway"}}}]
    assert [port["port"] for port in calls["ports"]] == [50051]
    assert 50051 not in [port["port"] for port in others["ports"]]


def test_streams_have_time_to_move() -> None:
    (servers,) = objects("StatefulSet")
    grace = float(values(container("StatefulSet")["args"])["--grace"])
    assert servers["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > grace
