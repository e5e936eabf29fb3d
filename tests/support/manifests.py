"""Reads manifests for Kubernetes: the pods in them, what is said to their programs, and Serve's configuration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "deploy/kubernetes"
NAMES = ("server", "gateway", "ray")
PART = "app.kubernetes.io/component"


def load(name: str) -> list[Any]:
    """The objects of one of the committed manifests."""
    import yaml

    return list(yaml.safe_load_all((FOLDER / f"{name}.yaml").read_text()))


def of_kind(objects: Sequence[Any], kind: str) -> list[Any]:
    """The objects of a kind."""
    return [one for one in objects if one["kind"] == kind]


@dataclass(frozen=True)
class Pod:
    """A template of pods.

    Attributes:
        part: server, gateway or head.
        template: Labels and spec.
    """

    part: str
    template: Any

    @property
    def spec(self) -> Any:
        """The pod's spec."""
        return self.template["spec"]

    @property
    def container(self) -> Any:
        """Its one container."""
        (one,) = self.spec["containers"]
        return one

    @property
    def variables(self) -> dict[str, str]:
        """The container's environment, as far as the manifest itself says it."""
        return {one["name"]: one["value"] for one in self.container["env"]}

    @property
    def ports(self) -> dict[str, int]:
        """The container's ports by name."""
        return {one["name"]: one["containerPort"] for one in self.container["ports"]}

    @property
    def mounts(self) -> dict[str, Any]:
        """What lies at each path of the container: the volume."""
        volumes = {one["name"]: one for one in self.spec["volumes"]}
        return {one["mountPath"]: volumes[one["name"]] for one in self.container["volumeMounts"]}


def pods(objects: Sequence[Any]) -> list[Pod]:
    """All templates of pods."""
    return [Pod(template["metadata"]["labels"][PART], template) for template in _templates(objects)]


def _templates(objects: Sequence[Any]) -> Iterator[Any]:
    for one in objects:
        if one["kind"] in ("Deployment", "StatefulSet"):
            yield one["spec"]["template"]
        elif one["kind"] == "RayService":
            cluster = one["spec"]["rayClusterConfig"]
            yield cluster["headGroupSpec"]["template"]
            yield from (group["template"] for group in cluster["workerGroupSpecs"])


def serve_configuration(objects: Sequence[Any]) -> Mapping[str, Any]:
    """What the RayService says to Ray Serve."""
    import yaml

    (service,) = of_kind(objects, "RayService")
    told: Mapping[str, Any] = yaml.safe_load(service["spec"]["serveConfigV2"])
    return told
