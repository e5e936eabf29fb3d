"""Helm, where it is installed: the program, or its library for Python (extra `kubernetes`).

As a program it writes the manifests for those who use no Helm: `scripts/manifests` runs it.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy/helm/masklet"
EXAMPLES = ROOT / "deploy/helm/values"
MANIFESTS = ROOT / "deploy/kubernetes"
NAMESPACE = "vision"
_HAS_PROGRAM = shutil.which("helm") is not None
IS_INSTALLED = _HAS_PROGRAM or importlib.util.find_spec("helm_python") is not None
REASON = "Helm is not installed (extra kubernetes): the chart is not rendered, only what it has rendered is checked"


class RefusedError(Exception):
    """The chart, or its schema, refuses the values; the text says why."""


def render(values: Mapping[str, Any]) -> list[Any]:
    """The objects that the chart makes of values, as `helm template masklet CHART` does.

    Raises:
        RefusedError: The chart does not take the values.
    """
    import yaml

    texts = _by_program(values) if _HAS_PROGRAM else _by_library(values)
    return [one for text in texts for one in yaml.safe_load_all(text) if one]


def lint(values: Mapping[str, Any]) -> list[str]:
    """What `helm lint --strict` has to say of the chart with values; empty: nothing."""
    if _HAS_PROGRAM:
        with _file(values) as file:
            told = subprocess.run(
                ["helm", "lint", "--strict", str(CHART), "--values", file.name],
                capture_output=True, text=True, check=False, timeout=60,
            )  # fmt: skip
        return [] if told.returncode == 0 else [told.stdout + told.stderr]
    import helm_python

    report = helm_python.lint(CHART, dict(values), strict=True)
    return [*report["errors"], *(one["error"] for one in report["messages"])]


def manifest(values: Mapping[str, Any], comment: str) -> str:
    """The rendered objects as one file, which is the same for the program and the library.

    Args:
        values: Those of the chart.
        comment: The file's first line.
    """
    import yaml

    class Dumper(yaml.SafeDumper):  # type: ignore[misc]  # PyYAML has no types
        """Writes texts of several lines as such."""

    Dumper.add_representer(str, _text)
    objects = sorted(render(values), key=lambda one: (one["kind"], one["metadata"]["name"]))
    for one in objects:
        for name in ("app.kubernetes.io/managed-by", "helm.sh/chart"):
            del one["metadata"]["labels"][name]
    text = yaml.dump_all(objects, Dumper=Dumper, sort_keys=False, width=120, explicit_start=True)
    return f"# {comment}\n{text}"


def _text(dumper: Any, text: str) -> Any:
    style = "|" if "\n" in text else '"' if text.isdigit() or text in ("true", "false") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _file(values: Mapping[str, Any]) -> Any:
    file = tempfile.NamedTemporaryFile("w", suffix=".json")  # noqa: SIM115 - the caller closes it
    json.dump(values, file)
    file.flush()
    return file


def _by_program(values: Mapping[str, Any]) -> list[str]:
    with _file(values) as file:
        told = subprocess.run(
            ["helm", "template", "masklet", str(CHART), "--namespace", NAMESPACE, "--values", file.name],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
    if told.returncode:
        raise RefusedError(told.stderr)
    return [told.stdout]


def _by_library(values: Mapping[str, Any]) -> list[str]:
    import helm_python

    with helm_python.Chart.load(CHART) as chart:
        try:
            rendered = chart.render(dict(values), name="masklet", namespace=NAMESPACE)
        except helm_python.HelmError as error:
            raise RefusedError(str(error)) from error
    return [text for path, text in rendered.items() if path.endswith(".yaml")]


def write(folder: Path) -> None:
    """Write the manifests of all examples into a folder."""
    import yaml

    folder.mkdir(parents=True, exist_ok=True)
    for example in sorted(EXAMPLES.glob("*.yaml")):
        comment = f"Made of deploy/helm/values/{example.name} by scripts/manifests: change that, or the chart."
        (folder / example.name).write_text(manifest(yaml.safe_load(example.read_text()), comment))


if __name__ == "__main__":
    if not IS_INSTALLED:
        sys.exit("Helm is not installed; pip install helm-python-sdk, or install the program helm")
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else MANIFESTS)
