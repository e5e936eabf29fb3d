"""What a gateway tells Prometheus: the signal for scaling."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

import masklet
from masklet.v1 import server_info_pb2
from masklet_cluster.gateway.worker_metrics import WorkerMetrics
from masklet_cluster.placement.placement import WorkerReport
from masklet_cluster.placement.static import StaticPlacement
from masklet_cluster.placement.worker import Connection
from masklet_server.embedded import EmbeddedServer
from masklet_server.metrics import QUEUE_BOUNDS_SECONDS
from tests.support.e2e import lossless, prompt
from tests.support.gateway import GatewayThread
from tests.support.streams import free_port


class Told(StaticPlacement):
    """A placement whose workers are as a test says."""

    def __init__(self, *reports: WorkerReport) -> None:
        super().__init__(["127.0.0.1:1"], Connection(1024))
        self.reports = reports

    def workers(self) -> Sequence[WorkerReport]:
        return self.reports


def samples(text: str) -> dict[tuple[str, str, str], float]:
    """Values by name, label "worker" or "state", and "le"."""
    return {
        (one.name, one.labels.get("worker", one.labels.get("state", "")), one.labels.get("le", "")): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }


def published(placement: Told) -> dict[tuple[str, str, str], float]:
    registry = CollectorRegistry()
    registry.register(WorkerMetrics(placement))
    return samples(generate_latest(registry).decode())


def report(name: str, **load: object) -> WorkerReport:
    info = server_info_pb2.GetServerInfoResponse(server_version="1", load=server_info_pb2.Load(**load))  # type: ignore[arg-type]
    return WorkerReport(name, "serving", 2, info)


def test_each_worker_is_published() -> None:
    load = {"busy_seconds": 3.5, "up_seconds": 7.0, "sessions": 4, "bank_bytes": 9, "queue_seconds": 1.25, "jobs": 5}
    told = published(Told(report("a", **load, queue_bounds_seconds=[0.1, 1.0], queue_counts=[2, 4])))
    prefix = "masklet_gateway_worker_"
    assert told[f"{prefix}busy_seconds_total", "a", ""] == 3.5
    assert told[f"{prefix}up_seconds_total", "a", ""] == 7.0
    assert told[f"{prefix}sessions", "a", ""] == 4
    assert told[f"{prefix}bank_bytes", "a", ""] == 9
    buckets = {le: value for (name, _, le), value in told.items() if name == f"{prefix}queue_seconds_bucket"}
    assert buckets == {"0.1": 2, "1.0": 4, "+Inf": 5}
    assert told[f"{prefix}queue_seconds_sum", "a", ""] == 1.25
    assert told[f"{prefix}queue_seconds_count", "a", ""] == 5
    assert told["masklet_gateway_streams", "a", ""] == 2


def test_a_lost_worker_has_no_counters() -> None:
    """At 0 they would look like a new start, and its whole past like work when it is back."""
    told = published(Told(report("a", busy_seconds=3.0), WorkerReport("b", "lost")))
    assert told["masklet_gateway_workers", "lost", ""] == told["masklet_gateway_workers", "serving", ""] == 1
    loads = {(name, worker) for name, worker, _ in told if name.startswith("masklet_gateway_worker_")}
    assert {worker for _, worker in loads} == {"a"}
    assert len(loads) == 7


def test_a_worker_of_an_older_version_does_not_end_the_scrape() -> None:
    told = published(Told(report("a", jobs=5), report("b", jobs=5, queue_bounds_seconds=[0.1, 1.0], queue_counts=[2])))
    count = "masklet_gateway_worker_queue_seconds_bucket"
    assert {key[1:]: value for key, value in told.items() if key[0] == count} == {
        ("a", "+Inf"): 5,
        ("b", "0.1"): 2,
        ("b", "+Inf"): 5,
    }


def test_work_is_seen_at_the_gateway() -> None:
    metrics_address = f"127.0.0.1:{free_port()}"

    def scrape() -> dict[tuple[str, str, str], float]:
        with urllib.request.urlopen(f"http://{metrics_address}/metrics", timeout=10) as answer:
            return samples(answer.read().decode())

    with (
        EmbeddedServer(device="cpu", dtype="float32", trust_gateway=True) as server,
        GatewayThread([server], metrics_address=metrics_address) as gateway,
        masklet.Client(gateway.address) as client,
    ):
        frames = len(list(client.track(lossless(), prompt("point"))))
        deadline = time.monotonic() + 20  # the gateway asks its workers every other second
        while not (told := scrape()).get(("masklet_gateway_worker_queue_seconds_count", server, "")):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        buckets = [told["masklet_gateway_worker_queue_seconds_bucket", server, str(b)] for b in QUEUE_BOUNDS_SECONDS]
        everything = told["masklet_gateway_worker_queue_seconds_bucket", server, "+Inf"]
        assert buckets == sorted(buckets)
        assert 0 < everything == told["masklet_gateway_worker_queue_seconds_count", server, ""]
        assert everything >= buckets[-1]
        busy = told["masklet_gateway_worker_busy_seconds_total", server, ""]
        assert 0 < busy < told["masklet_gateway_worker_up_seconds_total", server, ""]
        assert told["masklet_gateway_workers", "serving", ""] == 1
        assert frames > 1
