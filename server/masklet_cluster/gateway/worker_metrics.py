"""What a gateway tells Prometheus of its workers."""

from __future__ import annotations

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from masklet.v1 import server_info_pb2
from masklet_cluster.placement.placement import Placement

_PREFIX = "masklet_gateway_worker_"


class WorkerMetrics(Collector):
    """The metrics of all workers. A signal for scaling is the change of their busy by that of their up seconds.

    A worker that is lost has no series: a counter that falls to 0 and comes back would look like work.

    Args:
        placement: Knows the workers.
    """

    def __init__(self, placement: Placement) -> None:
        self._placement = placement

    def collect(self) -> list[Metric]:
        """The metrics as they are now."""
        reports = self._placement.workers()
        states = GaugeMetricFamily("masklet_gateway_workers", "Workers by their state.", labels=["state"])
        for state in ("serving", "draining", "lost"):
            states.add_metric([state], sum(one.state == state for one in reports))
        streams = GaugeMetricFamily("masklet_gateway_streams", "Streams of this gateway.", labels=["worker"])
        for one in reports:
            streams.add_metric([one.name], one.streams)
        return [states, streams, *_loads({one.name: one.info.load for one in reports if one.info.server_version})]


def _loads(loads: dict[str, server_info_pb2.Load]) -> list[Metric]:
    busy = _counter("busy_seconds", "Seconds in which the worker's devices have computed.")
    up = _counter("up_seconds", "Seconds since the worker's start, times its devices.")
    sessions = _gauge("sessions", "Sessions of the worker, of all gateways.")
    banks = _gauge("bank_bytes", "Bytes of the worker's memory banks.")
    queue = HistogramMetricFamily(
        f"{_PREFIX}queue_seconds", "Time from a job's arrival at the worker to its start.", labels=["worker"]
    )
    for name, load in loads.items():
        busy.add_metric([name], load.busy_seconds)
        up.add_metric([name], load.up_seconds)
        sessions.add_metric([name], load.sessions)
        banks.add_metric([name], load.bank_bytes)
        # Where a worker of another version gives no such numbers, there are none: what is missing ends no scrape.
        counted = zip(map(str, load.queue_bounds_seconds), map(float, load.queue_counts), strict=False)
        queue.add_metric([name], [*counted, ("+Inf", float(load.jobs))], load.queue_seconds)
    return [busy, up, sessions, banks, queue]


def _counter(name: str, text: str) -> CounterMetricFamily:
    return CounterMetricFamily(f"{_PREFIX}{name}", text, labels=["worker"])


def _gauge(name: str, text: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{_PREFIX}{name}", text, labels=["worker"])
