"""The manifests for Kubernetes agree with the program, with each other, and with Kubernetes' own schemas."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from masklet_cluster.gateway.options import DEFAULTS, SETTINGS
from masklet_server.settings import ENV_PREFIX, Settings, checked
from tests.support.manifests import NAMES, PART, Pod, load, of_kind, pods, serve_configuration

pytest.importorskip("yaml", reason="PyYAML is not installed (extra yaml, or with Ray)")

OBJECTS = {name: load(name) for name in NAMES}
ALL = [(name, pod) for name in NAMES for pod in pods(OBJECTS[name])]
# Variables that are no settings.
OTHERS = {"MASKLET_SERVERS"}


def params(chosen: Iterable[tuple[str, Pod]]) -> list[Any]:
    return [pytest.param(name, pod, id=f"{name}-{pod.part}") for name, pod in chosen]


def told(pod: Pod) -> dict[str, str]:
    """Settings that a pod's variables give, by name."""
    return {
        name.removeprefix(ENV_PREFIX).lower(): value
        for name, value in pod.variables.items()
        if name.startswith(ENV_PREFIX) and name not in OTHERS
    }


def settings_of_ray(part: str) -> dict[str, Any]:
    (application,) = serve_configuration(OBJECTS["ray"])["applications"]
    given: dict[str, Any] = application["args"]["workers" if part == "server" else part]
    return given


@pytest.mark.parametrize(("name", "pod"), params(one for one in ALL if one[0] != "ray"))
def test_variables_are_settings_that_the_program_takes(name: str, pod: Pod) -> None:
    given = told(pod)
    assert len(given) > 4
    assert set(given) <= (set(SETTINGS) if pod.part == "gateway" else set(Settings.model_fields))
    values: dict[str, Any] = {**given, "models": tuple(given["models"].split(","))} if "models" in given else given
    assert checked(values).address == "0.0.0.0:50051"
    for port, setting in (("grpc", "address"), ("health", "health_address"), ("metrics", "metrics_address")):
        assert given[setting] == f"0.0.0.0:{pod.ports[port]}"
    assert pod.container["readinessProbe"]["grpc"]["port"] == pod.ports["health"]


@pytest.mark.parametrize("part", ["server", "gateway"])
def test_what_serve_is_told_are_settings_that_the_program_takes(part: str) -> None:
    given = settings_of_ray(part)
    (pod,) = [one for one in pods(OBJECTS["ray"]) if one.part == part]
    assert set(given) <= (set(SETTINGS) if part == "gateway" else set(Settings.model_fields))
    defaults = DEFAULTS if part == "gateway" else {"insecure": True}
    assert checked({**defaults, **given}).address.endswith(f":{pod.ports['grpc']}")
    assert given["metrics_address"] == f"0.0.0.0:{pod.ports['masklet-metrics']}"


def test_a_gateway_on_ray_is_ready_when_it_says_so() -> None:
    (pod,) = [one for one in pods(OBJECTS["ray"]) if one.part == "gateway"]
    assert settings_of_ray("gateway")["health_address"] == "0.0.0.0:50052"
    assert pod.container["readinessProbe"]["grpc"]["port"] == 50052


@pytest.mark.parametrize("name", NAMES)
def test_clients_need_tls_and_a_token(name: str) -> None:
    edge = "server" if name == "server" else "gateway"
    (pod,) = [one for one in pods(OBJECTS[name]) if one.part == edge]
    given = settings_of_ray(edge) if name == "ray" else told(pod)
    assert "insecure" not in given
    for setting, key in (("tls_certificate", "tls.crt"), ("tls_key", "tls.key"), ("token_file", "tokens")):
        folder, _, file = given[setting].rpartition("/")
        assert file == key
        assert "secret" in pod.mounts[folder], f"{setting} lies in no Secret"


@pytest.mark.parametrize(("name", "pod"), params(ALL))
def test_pods_have_no_rights(name: str, pod: Pod) -> None:
    context = pod.spec["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] == 10001, "as the Dockerfile says"
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    for one in (*pod.spec["containers"], *pod.spec.get("initContainers", [])):
        assert one["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
    # The autoscaler on Ray's head asks Kubernetes for pods; nobody else does.
    assert pod.part == "head" or pod.spec["automountServiceAccountToken"] is False
    assert pod.spec["enableServiceLinks"] is False, "MASKLET_... variables of Services would look like settings"
    assert "emptyDir" in pod.mounts["/tmp"]
    assert pod.variables["HOME"] == "/tmp"


@pytest.mark.parametrize(("name", "pod"), params(one for one in ALL if one[1].part != "head"))
def test_streams_have_time_to_move(name: str, pod: Pod) -> None:
    given = settings_of_ray(pod.part) if name == "ray" else told(pod)
    (_, wait) = pod.container["lifecycle"]["preStop"]["exec"]["command"]
    grace = float(given["grace_seconds"])
    assert pod.spec["terminationGracePeriodSeconds"] > (max(grace, float(wait)) if name == "ray" else grace + int(wait))


@pytest.mark.parametrize(("name", "pod"), params(ALL))
def test_a_model_that_takes_long_to_load_is_waited_for(name: str, pod: Pod) -> None:
    probes = {key: one for key, one in pod.container.items() if key.endswith("Probe")}
    live = probes.get("startupProbe") or probes["livenessProbe"]
    if name == "server" or (name == "gateway" and pod.part == "server"):
        assert live["periodSeconds"] * live["failureThreshold"] >= 600
    if pod.part == "gateway":
        assert "grpc" not in probes["livenessProbe"], "a gateway without servers is not to be started again"


@pytest.mark.parametrize("name", NAMES)
def test_services_and_budgets_find_their_pods(name: str) -> None:
    labels = [pod.template["metadata"]["labels"] for pod in pods(OBJECTS[name])]

    def found(selector: dict[str, str]) -> set[str]:
        return {one[PART] for one in labels if selector.items() <= one.items()}

    selected = {one["metadata"]["name"]: found(one["spec"]["selector"]) for one in of_kind(OBJECTS[name], "Service")}
    edge = "server" if name == "server" else "gateway"
    measured = {"server"} if name == "server" else {"server", "gateway"}
    expected = {"masklet": {edge}, "masklet-metrics": measured}
    assert selected == expected | ({"masklet-server": {"server"}} if name == "gateway" else {})
    budgets = of_kind(OBJECTS[name], "PodDisruptionBudget")
    assert {frozenset(found(one["spec"]["selector"]["matchLabels"])) for one in budgets} == {
        frozenset({part}) for part in measured
    }
    # Kubernetes can't count the pods of an operator.
    assert all(("minAvailable" if name == "ray" else "maxUnavailable") in one["spec"] for one in budgets)
    (service,) = [one for one in of_kind(OBJECTS[name], "Service") if one["metadata"]["name"] == "masklet"]
    assert service["spec"]["sessionAffinity"] == "ClientIP"


def test_the_gateway_knows_all_servers() -> None:
    (servers,) = of_kind(OBJECTS["gateway"], "StatefulSet")
    (pod,) = [one for one in pods(OBJECTS["gateway"]) if one.part == "gateway"]
    name, within = servers["metadata"]["name"], servers["spec"]["serviceName"]
    addresses = [f"{name}-{number}.{within}:50051" for number in range(servers["spec"]["replicas"])]
    assert len(addresses) > 1
    assert pod.variables["MASKLET_SERVERS"].split(",") == addresses
    headless = next(one for one in of_kind(OBJECTS["gateway"], "Service") if one["metadata"]["name"] == within)
    assert headless["spec"]["clusterIP"] == "None"
    assert headless["spec"]["publishNotReadyAddresses"] is True


def test_only_gateways_reach_servers() -> None:
    (pod,) = [one for one in pods(OBJECTS["gateway"]) if one.part == "server"]
    assert told(pod)["trust_gateway"] == told(pod)["insecure"] == "true"
    (policy,) = of_kind(OBJECTS["gateway"], "NetworkPolicy")
    assert policy["spec"]["podSelector"]["matchExpressions"] == [{"key": PART, "operator": "In", "values": ["server"]}]
    calls, others = policy["spec"]["ingress"]
    (caller,) = calls["from"]
    assert caller["podSelector"]["matchLabels"][PART] == "gateway"
    assert [port["port"] for port in calls["ports"]] == [50051]
    assert {port["port"] for port in others["ports"]} == {50052, 9090}


def test_on_ray_only_the_release_reaches_servers_and_clients_reach_gateways() -> None:
    inner, edge = of_kind(OBJECTS["ray"], "NetworkPolicy")
    release, operator, probes = inner["spec"]["ingress"]
    instance = {"app.kubernetes.io/name": "masklet", "app.kubernetes.io/instance": "masklet"}
    assert release == {"from": [{"podSelector": {"matchLabels": instance}}]}
    assert operator["from"][0]["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": "kuberay-operator"}
    assert 50051 not in {port["port"] for rule in (operator, probes) for port in rule["ports"]}
    assert edge["spec"]["podSelector"]["matchLabels"] == {**instance, PART: "gateway"}
    assert edge["spec"]["ingress"] == [{"ports": [{"port": 50051}]}]


def test_rays_pods_have_what_its_replicas_need() -> None:
    (service,) = of_kind(OBJECTS["ray"], "RayService")
    cluster = service["spec"]["rayClusterConfig"]
    assert cluster["authOptions"] == {"mode": "token"}
    groups = {group["groupName"]: group for group in cluster["workerGroupSpecs"]}
    (application,) = serve_configuration(OBJECTS["ray"])["applications"]
    for deployment, group in zip(application["deployments"], (groups["server"], groups["gateway"]), strict=True):
        needs = deployment["ray_actor_options"]
        # Between quotes of its own, because KubeRay makes a command of it.
        offered = json.loads(json.loads(group["rayStartParams"]["resources"]))
        assert needs["resources"] == offered, "one in each pod"
        scaling = deployment.get("autoscaling_config", {})
        fewest = scaling.get("min_replicas", deployment.get("num_replicas"))
        most = scaling.get("max_replicas", deployment.get("num_replicas"))
        assert (fewest, most) == (group["minReplicas"], group["maxReplicas"])
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        assert needs.get("num_gpus", 0) == limits.get("nvidia.com/gpu", 0)
        assert needs["num_cpus"] <= int(group["rayStartParams"].get("num-cpus", 0))
    assert cluster["enableInTreeAutoscaling"] is True


def test_the_versions_of_ray_agree() -> None:
    (service,) = of_kind(OBJECTS["ray"], "RayService")
    pinned = (Path(__file__).parents[2] / "requirements/cluster.lock").read_text()
    assert f"\nray=={service['spec']['rayClusterConfig']['rayVersion']} " in pinned


_TAKE = """
import json, sys
from ray.serve.schema import ServeDeploySchema
from masklet_cluster.application import GATEWAY, build
from masklet_cluster.worker.deployment import DEPLOYMENT
(application,) = ServeDeploySchema.model_validate(json.load(sys.stdin)).applications
assert application.import_path == f"{build.__module__}:{build.__name__}"
assert [one.name for one in application.deployments] == [DEPLOYMENT, GATEWAY]
print(build(application.args)._bound_deployment.name)
"""


@pytest.mark.slow
def test_ray_takes_the_configuration() -> None:
    if importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed (extra cluster)")
    # In a process of its own: Ray's modules warn of things that are theirs.
    ran = subprocess.run(
        [sys.executable, "-c", _TAKE],
        input=json.dumps(serve_configuration(OBJECTS["ray"])),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (ran.returncode, ran.stdout) == (0, "gateway\n"), ran.stderr


@pytest.mark.parametrize("name", NAMES)
def test_kubernetes_takes_the_objects(name: str) -> None:
    validate = pytest.importorskip(
        "kubernetes_validate",
        reason="kubernetes-validate is not installed (extra kubernetes): Kubernetes' own schemas are not compared",
    ).validate
    plain = [one for one in OBJECTS[name] if one["kind"] != "RayService"]
    templates = [
        {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": pod.part}, "template": pod.template}
        for pod in pods(OBJECTS[name])
    ]
    for version in ("1.27", "1.33"):
        for one in (*plain, *templates):
            validate(one, version, strict=True)
    wrong = json.loads(json.dumps(templates[0]))
    wrong["template"]["spec"]["containers"][0]["readinessProb"] = {}
    with pytest.raises(Exception, match="readinessProb"):
        validate(wrong, "1.33", strict=True)


def test_kuberay_takes_the_rayservice() -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed (with Ray)")
    schema = json.loads((Path(__file__).parent / "rayservice.schema.json").read_text())
    (service,) = of_kind(OBJECTS["ray"], "RayService")
    jsonschema.validate(service, schema)
