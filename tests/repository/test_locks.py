"""The lists of packages with hashes, from which the image is installed, agree with the project and its constraints."""

from __future__ import annotations

import importlib.metadata
import re
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
IMAGE = {
    "python_version": "3.12",
    "python_full_version": "3.12.12",
    "sys_platform": "linux",
    "platform_system": "Linux",
    "platform_machine": "x86_64",
    "os_name": "posix",
    "implementation_name": "cpython",
    "platform_python_implementation": "CPython",
}
LISTS = ["build.lock", "server-cuda.lock", "server-cpu.lock", "cluster.lock", "sam2.lock"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def entries(name: str) -> dict[str, tuple[str, list[str]]]:
    """Version and hashes of each package in a list."""
    found = {}
    for entry in re.split(r"\n(?=\S)", (ROOT / "requirements" / name).read_text()):
        if match := re.match(r"([a-z0-9-]+)==(\S+)", entry):
            found[match[1]] = (match[2], re.findall(r"--hash=sha256:([0-9a-f]{64})\b", entry))
    return found


def versions(name: str) -> dict[str, str]:
    return {package: version for package, (version, _) in entries(name).items()}


def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().split()
    return {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines)}


@pytest.mark.parametrize("name", LISTS)
def test_every_file_is_known_by_its_hash(name: str) -> None:
    text = (ROOT / "requirements" / name).read_text()
    assert "://" not in text
    found = entries(name)
    assert found
    assert all(hashes for _, hashes in found.values())
    packages = [line for line in text.splitlines() if line and not line.startswith((" ", "#"))]
    assert len(packages) == len(found)


@pytest.mark.parametrize("name", LISTS)
def test_versions_are_those_that_are_tested(name: str) -> None:
    tested = constraints()
    assert {p: v for p, v in versions(name).items() if p in tested} == {
        p: tested[p] for p in versions(name) if p in tested
    }


def required(extras: list[str]) -> list[Requirement]:
    texts = [*PROJECT["dependencies"], *(one for extra in extras for one in PROJECT["optional-dependencies"][extra])]
    return [one for one in map(Requirement, texts) if one.marker is None or one.marker.evaluate(IMAGE)]


# By variant of the image: the extras that it has, and what is installed beside its list.
VARIANTS: dict[str, tuple[list[str], dict[str, str]]] = {
    "cuda": (["runtime", "otel", "object-store"], {}),
    "cpu": (["runtime", "otel", "object-store", "cpu"], {"torch": constraints()["torch"]}),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_the_project_asks_for_is_there(variant: str) -> None:
    extras, beside = VARIANTS[variant]
    locked = versions(f"server-{variant}.lock") | beside
    for requirement in required(extras):
        version = locked.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement.name} is missing; run scripts/lock"
        assert requirement.specifier.contains(version), f"{requirement.name} is too old; run scripts/lock"
    (sam2,) = [one for one in map(Requirement, PROJECT["optional-dependencies"]["server"]) if one.name == "sam2"]
    assert sam2.specifier.contains(versions("sam2.lock")["sam2"])


def test_the_variant_for_cpus_has_nothing_of_cuda() -> None:
    cuda, cpu = versions("server-cuda.lock"), versions("server-cpu.lock")
    assert not [name for name in cpu if name == "torch" or name.startswith(("nvidia", "cuda", "triton"))]
    assert {name: version for name, version in cpu.items() if name in cuda} == {
        name: version for name, version in cuda.items() if name in cpu
    }


@pytest.mark.parametrize("variant", VARIANTS)
def test_ray_is_there_and_changes_nothing_of_the_server(variant: str) -> None:
    server, cluster = versions(f"server-{variant}.lock"), versions("cluster.lock")
    (ray,) = required(["cluster"])[-1:]
    assert ray.specifier.contains(cluster["ray"])
    both = server.keys() & cluster.keys()
    assert {name: cluster[name] for name in both} == {name: server[name] for name in both}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("more", [(), ("cluster.lock",)])
def test_what_packages_ask_for_is_there(variant: str, more: tuple[str, ...]) -> None:
    names = (f"server-{variant}.lock", *more)
    locked = {package: version for name in names for package, version in versions(name).items()}
    locked |= VARIANTS[variant][1]
    for package in locked:
        try:
            texts = importlib.metadata.requires(package) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # not here: CUDA's libraries, OpenTelemetry
        for requirement in map(Requirement, texts):
            if requirement.marker is not None and not requirement.marker.evaluate({**IMAGE, "extra": ""}):
                continue
            version = locked.get(canonicalize_name(requirement.name))
            assert version is not None, f"{package} needs {requirement.name}; run scripts/lock"
            assert requirement.specifier.contains(version, prereleases=True), f"{package} needs {requirement}"


def test_the_image_is_installed_from_them_alone() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    installs = re.findall(r"pip install (.*?)(?:; fi)?$", dockerfile, re.MULTILINE)
    assert installs[-1] == "--no-deps --no-index --no-build-isolation ."
    # The index of torch's builds for CPUs gives no hashes that were seen where masklet is tested.
    torch = f"torch=={constraints()['torch']}+cpu"
    assert installs.pop(1) == f'--no-deps --index-url "${{TORCH_INDEX:?is missing}}" {torch}'
    assert [re.findall(r"requirements/\S+", one) for one in installs[:-1]] == [
        ["requirements/build.lock"],
        ["requirements/server-$VARIANT.lock"],
        ["requirements/cluster.lock"],
        ["requirements/sam2.lock"],
    ]
    assert all("--require-hashes --no-deps" in one for one in installs[:-1])
    build = versions("build.lock")
    for requirement in map(Requirement, ["hatchling>=1.27", "setuptools", "wheel"]):
        assert requirement.specifier.contains(build[requirement.name])
