"""What KubeRay deploys, deployed on a Ray of this machine: the configuration is that of the manifest for Kubernetes."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import masklet
from tests.support.e2e import lossless, prompt
from tests.support.manifests import load, serve_configuration
from tests.support.rpc import Authority
from tests.support.streams import free_port

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed (extra cluster)"),
    pytest.mark.timeout(600),
]

TOKEN = "s3cret-1"
BIN = Path(sys.executable).parent


class Ray:
    """A Ray with a dashboard, as a pod of KubeRay has it: it asks for a token.

    Attributes:
        environment: For programs that talk to it.
    """

    def __init__(self, folder: Path) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("MASKLET_", "RAY_"))}
        cache = os.environ.get("MASKLET_CACHE")
        self.environment = {
            **clean,
            **({"MASKLET_CACHE": cache} if cache else {}),
            "OMP_NUM_THREADS": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
        }
        self._dashboard, self._log = free_port(), folder / "ray.log"
        resources = json.dumps({"masklet_worker": 1, "masklet_gateway": 1})
        with self._log.open("w") as file:
            self._process = subprocess.Popen(
                [
                    *(BIN / "ray", "start", "--head", "--block", "--port", str(free_port())),
                    *("--node-ip-address", "127.0.0.1", "--dashboard-host", "127.0.0.1"),
                    *("--dashboard-port", str(self._dashboard), "--dashboard-agent-listen-port", str(free_port())),
                    *("--num-cpus", "2", "--resources", resources, "--object-store-memory", "83886080"),
                    *("--temp-dir", str(folder / "ray")),
                ],
                stdout=file,
                stderr=subprocess.STDOUT,
                env=self.environment,
                start_new_session=True,
            )
        self.until(lambda: self.serve("status").returncode == 0)

    def serve(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run the program `serve`."""
        return subprocess.run(
            [BIN / "serve", words[0], "-a", f"http://127.0.0.1:{self._dashboard}", *words[1:]],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env=self.environment,
        )

    def status(self) -> dict[str, Any]:
        """What Serve says of the application."""
        import yaml

        told: dict[str, Any] = (yaml.safe_load(self.serve("status").stdout) or {}).get("applications", {})
        return dict(told.get("masklet", {"status": "NONE"}))

    def until(self, holds: Callable[[], bool], seconds: float = 300) -> None:
        """Wait until something is so."""
        deadline = time.monotonic() + seconds
        while not holds():
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, self.serve("status").stdout
            time.sleep(0.5)

    def replicas(self, deployment: str) -> list[int]:
        """The processes of a deployment's replicas on this Ray."""
        found = []
        for folder in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                is_replica = f"ServeReplica:masklet:{deployment}".encode() in (folder / "cmdline").read_bytes()
                if is_replica and self.environment["RAY_AUTH_TOKEN"].encode() in (folder / "environ").read_bytes():
                    found.append(int(folder.name))
        return found

    def close(self) -> None:
        """End it with all its processes."""
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(60)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


@pytest.fixture(scope="module")
def ray() -> Iterator[Ray]:
    with tempfile.TemporaryDirectory(prefix="mr-", ignore_cleanup_errors=True) as folder:  # short: sockets lie in it
        one = Ray(Path(folder))
        yield one
        one.close()


def configuration(folder: Path, authority: Authority, address: str) -> dict[str, Any]:
    """The manifest's, with files, ports and sizes of this machine."""
    told = json.loads(json.dumps(serve_configuration(load("ray"))))
    (application,) = told["applications"]
    certificate, key = authority.issue("server")
    tokens = folder / "tokens"
    tokens.write_text(f"robot {TOKEN}\n")
    edge, worker = application["args"]["gateway"], application["args"]["workers"]
    assert set(edge) >= {"address", "tls_certificate", "tls_key", "token_file", "health_address", "metrics_address"}
    edge |= {"address": address, "tls_certificate": str(certificate), "tls_key": str(key), "token_file": str(tokens)}
    edge |= {"health_address": f"127.0.0.1:{free_port()}", "metrics_address": "", "grace_seconds": 2}
    assert worker["address"] == "node:50051"
    worker |= {"address": "node:0", "metrics_address": "", "state_dir": str(folder / "state"), "device": "cpu"}
    worker["dtype"] = "float32"
    for deployment in application["deployments"]:
        deployment.pop("autoscaling_config", None)
        deployment["num_replicas"] = 1
        deployment["ray_actor_options"] |= {"num_cpus": 0, "num_gpus": 0}
    return dict(told)


def test_the_manifests_configuration_serves_and_a_dead_gateway_comes_back(ray: Ray, tmp_path: Path) -> None:
    authority, address = Authority(tmp_path), f"127.0.0.1:{free_port()}"
    file = tmp_path / "serve.json"
    file.write_text(json.dumps(configuration(tmp_path, authority, address)))
    sent = ray.serve("deploy", str(file))
    assert sent.returncode == 0, sent.stdout + sent.stderr
    ray.until(lambda: ray.status()["status"] in ("RUNNING", "DEPLOY_FAILED"))
    assert ray.status()["status"] == "RUNNING", ray.status()

    def track() -> int:
        with masklet.Client(address, token=TOKEN, root_certificates=authority.certificate) as client:
            results = list(client.track(lossless(), prompt("point")))
            assert all(one.mask.any() for result in results for one in result.objects.values())
            (worker,) = client.info().workers
            assert worker.state == "serving"
            return len(results)

    assert track() == 18
    nobody = masklet.Client(address, root_certificates=authority.certificate)
    with nobody, pytest.raises(masklet.Unauthenticated):
        nobody.info()
    (gateway,) = ray.replicas("gateway")
    os.kill(gateway, signal.SIGKILL)
    ray.until(lambda: ray.replicas("gateway") not in ([], [gateway]))

    def serves_again() -> bool:
        with contextlib.suppress(masklet.Unavailable, masklet.DeadlineExceeded):
            return track() == 18
        return False

    ray.until(serves_again)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"worker": {}}, "args.worker: Extra inputs are not permitted"),
        ({"max_streams": 0}, "args.max_streams: Input should be greater than or equal to 1"),
        ({"gateway": {"models": ["nano"]}}, "args.gateway.models: is no setting of a gateway"),
        ({"gateway": {"grace_seconds": -1}}, "grace_seconds"),
        ({"workers": {"max_session": 3}}, "max_session"),
    ],
)
def test_what_is_wrong_in_a_configuration_is_said(arguments: dict[str, Any], message: str) -> None:
    program = "import json, sys; from masklet_cluster.application import build; build(json.load(sys.stdin))"
    ran = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps(arguments),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ran.returncode == 1
    assert message in ran.stderr.splitlines()[-1]
