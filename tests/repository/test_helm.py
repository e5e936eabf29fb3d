"""The Helm chart: what it makes of values, and what it refuses. What it has made is tested in test_kubernetes.py."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import helm
from tests.support.manifests import PART, of_kind, pods, serve_configuration

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed (extra yaml, or with Ray)")

VALUES: dict[str, Any] = yaml.safe_load((helm.CHART / "values.yaml").read_text())
SCHEMA: dict[str, Any] = json.loads((helm.CHART / "values.schema.json").read_text())
SAFE = {"tls": {"secretName": "tls"}, "tokens": {"secretName": "tokens"}}
needs_helm = pytest.mark.skipif(not helm.IS_INSTALLED, reason=helm.REASON)

MANY: dict[str, dict[str, Any]] = {
    "trusted": {"insecure": True, "serviceAccount": {"name": "own"}, "podDisruptionBudget": {"enabled": False}},
    "client certificates": {"tls": {"secretName": "tls", "clientCa": True}, "service": {"sessionAffinitySeconds": 0}},
    "everything": {
        **SAFE,
        "mode": "gateway",
        "models": ["nano", "sam2.1-tiny@512", "sam2.1-tiny"],
        "modelCache": {"existingClaim": "models"},
        "imagePullSecrets": [{"name": "registry"}],
        "state": {"existingClaim": "sessions"},
        "servers": {
            "replicas": 2,
            "settings": {"max_upload_bytes": 33554432, "sandbox": "strict", "max_latency_seconds": 0.05},
            "env": [{"name": "OMP_NUM_THREADS", "value": "4"}],
            "podAnnotations": {"team": "vision"},
            "runtimeClassName": "nvidia",
            "priorityClassName": "high",
            "nodeSelector": {"gpu": "l4"},
            "tolerations": [{"key": "gpu", "operator": "Exists"}],
            "affinity": {"nodeAffinity": {}},
            "topologySpreadConstraints": [
                {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}
            ],
        },
        "metrics": {
            "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
            "rules": {"enabled": True},
            "dashboards": {"enabled": True},
        },
        "autoscaling": {"enabled": True, "prometheus": "http://prometheus:9090"},
        "seccompProfile": {"type": "Localhost", "localhostProfile": "masklet.json"},
    },
    "ray on processors": {
        "mode": "ray",
        "insecure": True,
        "models": ["nano", "sam2.1-tiny"],
        "ray": {"tokenSecret": "ray"},
        "gateways": {"replicas": 1, "direct": True},
        "networkPolicy": {"enabled": False},
        "servers": {"resources": {"requests": {"cpu": "500m", "memory": "4Gi"}}},
    },
}


def unknown_keys(values: Any, schema: Any, where: str = "") -> Iterator[str]:
    """Values that a schema does not list, at any depth."""
    for name, value in values.items():
        properties = schema.get("properties", {})
        if name not in properties:
            yield f"{where}{name}"
        elif isinstance(value, dict) and "properties" in properties[name]:
            yield from unknown_keys(value, properties[name], f"{where}{name}.")


def missing_keys(schema: Any, values: Any, where: str = "") -> Iterator[str]:
    """What a schema lists and values do not have, at any depth."""
    for name, one in schema.get("properties", {}).items():
        if name not in values:
            yield f"{where}{name}"
        elif one.get("additionalProperties") is False:
            yield from missing_keys(one, values[name], f"{where}{name}.")


def test_the_schema_has_every_value_and_no_other() -> None:
    assert list(unknown_keys(VALUES, SCHEMA)) == []
    assert set(missing_keys(SCHEMA, VALUES)) == {"global", "seccompProfile.localhostProfile"}


@pytest.mark.parametrize("values", [{}, *MANY.values()], ids=["defaults", *MANY])
def test_the_schema_takes_values(values: Any) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed (with Ray)")
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    jsonschema.validate(values or VALUES, SCHEMA)


@needs_helm
def test_the_manifests_are_fresh(tmp_path: Path) -> None:
    helm.write(tmp_path)
    made = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert len(made) == 3
    assert made == {path.name: path.read_text() for path in helm.MANIFESTS.iterdir()}, "run scripts/manifests"


@needs_helm
@pytest.mark.parametrize("values", MANY.values(), ids=MANY)
def test_helm_lint_has_nothing_to_say(values: Any) -> None:
    assert helm.lint(values) == []


@needs_helm
@pytest.mark.parametrize("values", MANY.values(), ids=MANY)
def test_kubernetes_takes_what_is_rendered(values: Any) -> None:
    validate = pytest.importorskip(
        "kubernetes_validate", reason="kubernetes-validate is not installed (extra kubernetes)"
    ).validate
    objects = helm.render(values)
    assert {one["metadata"]["labels"]["app.kubernetes.io/instance"] for one in objects} == {"masklet"}
    for one in objects:
        if "." not in one["apiVersion"].partition("/")[0] or one["apiVersion"].partition("/")[0].endswith("k8s.io"):
            validate(one, "1.33", strict=True)
    for pod in pods(objects):
        validate({"apiVersion": "v1", "kind": "PodTemplate", "template": pod.template}, "1.33", strict=True)


@needs_helm
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "tls.secretName is empty: name a Secret with a certificate, or give insecure: true"),
        ({"tls": {"secretName": "tls"}}, "tokens.secretName is empty: name a Secret with tokens"),
        ({**SAFE, "mode": "gateways"}, "/mode"),
        ({**SAFE, "servers": {"replicas": 0}}, "/servers/replicas"),
        ({**SAFE, "servers": {"replica": 2}}, "replica"),
        ({**SAFE, "servers": {"settings": {"MaxSessions": 1}}}, "MaxSessions"),
        ({**SAFE, "state": {"url": "s3://a/b", "size": "5Gi"}}, "are both given: give one of them"),
        ({**SAFE, "state": {"url": "/var/lib"}}, "/state/url"),
        ({**SAFE, "autoscaling": {"enabled": True}}, "autoscaling.prometheus is empty: give the address"),
        (
            {**SAFE, "mode": "ray", "autoscaling": {"enabled": True, "prometheus": "http://p:1"}},
            "with mode ray give ray.maxServers",
        ),
        ({**SAFE, "mode": "gateway", "gateways": {"direct": True}}, "which networkPolicy forbids"),
    ],
)
def test_values_that_make_no_sense_are_refused(values: Any, message: str) -> None:
    with pytest.raises(helm.RefusedError) as caught:
        helm.render(values)
    assert message in str(caught.value)


@needs_helm
def test_values_reach_the_pods() -> None:
    objects = helm.render(MANY["everything"])
    server = next(pod for pod in pods(objects) if pod.part == "server")
    assert server.variables["MASKLET_MAX_UPLOAD_BYTES"] == "33554432", "not 3.3554432e+07"
    assert server.variables["MASKLET_MAX_LATENCY_SECONDS"] == "0.05"
    assert server.variables["MASKLET_MODELS"] == "nano,sam2.1-tiny@512,sam2.1-tiny"
    assert server.variables["MASKLET_STATE_DIR"] == "/var/lib/masklet"
    assert server.variables["OMP_NUM_THREADS"] == "4"
    assert server.mounts["/var/lib/masklet"]["persistentVolumeClaim"] == {"claimName": "sessions"}
    assert server.mounts["/var/cache/masklet"]["persistentVolumeClaim"] == {"claimName": "models"}
    (download,) = server.spec["initContainers"]
    assert (download["command"], download["args"]) == (["masklet", "models", "download"], ["sam2.1-tiny"])
    assert server.spec["securityContext"]["seccompProfile"]["localhostProfile"] == "masklet.json"
    assert server.spec["runtimeClassName"] == "nvidia"
    gateway = next(pod for pod in pods(objects) if pod.part == "gateway")
    assert len(gateway.variables["MASKLET_SERVERS"].split(",")) == 4, "all that KEDA may start"
    (scaled,) = of_kind(objects, "ScaledObject")
    (servers,) = of_kind(objects, "StatefulSet")
    assert scaled["spec"]["scaleTargetRef"] == {"kind": "StatefulSet", "name": servers["metadata"]["name"]}
    assert "replicas" not in servers["spec"], "else every upgrade would undo what KEDA has done"
    (rule,) = of_kind(objects, "PrometheusRule")
    recorded = {one["record"] for group in rule["spec"]["groups"] for one in group["rules"]}
    for trigger in scaled["spec"]["triggers"]:
        name, _, selector = trigger["metadata"]["query"].partition("{")
        assert name in recorded
        assert selector == f'namespace="{helm.NAMESPACE}"}}'
    (monitor,) = of_kind(objects, "ServiceMonitor")
    found = [
        one
        for one in of_kind(objects, "Service")
        if monitor["spec"]["selector"]["matchLabels"].items() <= one["metadata"]["labels"].items()
    ]
    assert [one["metadata"]["name"] for one in found] == ["masklet-metrics"]
    dashboards = [json.loads(*one["data"].values()) for one in of_kind(objects, "ConfigMap")]
    assert {one["uid"] for one in dashboards} == {"masklet", "masklet-cluster"}


@needs_helm
def test_ray_on_processors_computes_with_one_thread_where_a_pod_has_no_whole_one() -> None:
    objects = helm.render(MANY["ray on processors"])
    (application,) = serve_configuration(objects)["applications"]
    worker, gateway = application["deployments"]
    assert worker["num_replicas"] == gateway["num_replicas"] == 1
    assert worker["ray_actor_options"] == {"num_cpus": 1, "num_gpus": 0, "resources": {"masklet_worker": 1}}
    assert application["args"]["direct"] is True
    assert of_kind(objects, "NetworkPolicy") == []
    (service,) = of_kind(objects, "RayService")
    cluster = service["spec"]["rayClusterConfig"]
    assert cluster["authOptions"] == {"mode": "token", "secretName": "ray"}
    assert cluster["enableInTreeAutoscaling"] is False
    (server,) = [pod for pod in pods(objects) if pod.part == "server"]
    assert server.template["metadata"]["labels"][PART] == "server"
    assert [one["name"] for one in server.spec["initContainers"]] == ["models"]
