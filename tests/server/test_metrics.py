from __future__ import annotations

import socket
import threading
import urllib.request
from collections.abc import Iterator

import pytest

from masklet.errors import Unavailable
from masklet_server.metrics import QUEUE_BOUNDS_SECONDS, Metrics, MetricsServer


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def server(metrics: Metrics) -> Iterator[MetricsServer]:
    one = metrics.serve("127.0.0.1:0")
    yield one
    one.close()


def page(server: MetricsServer) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=10) as answer:
        text: bytes = answer.read()
    return text.decode()


def test_everything_is_published(metrics: Metrics, server: MetricsServer) -> None:
    held = [123]
    metrics.watch_bank_bytes(lambda: held[0])
    metrics.session_started()
    metrics.session_started()
    metrics.session_ended("DATA_LOSS")
    metrics.rpc_ended("masklet.v1.TrackingService/Track", "OK", 2.0)
    metrics.refused("max_sessions")
    metrics.uploaded(1000)
    metrics.frames_sent(3)
    metrics.decode_error("DataLoss")
    metrics.on_step(3, 0.02)
    metrics.on_encode(2, 0.3)
    metrics.on_queue(0.004)
    metrics.has_devices(2)
    lines = page(server).splitlines()
    for expected in (
        "masklet_sessions 1.0",
        'masklet_sessions_ended_total{code="DATA_LOSS"} 1.0',
        'masklet_rpcs_total{code="OK",method="masklet.v1.TrackingService/Track"} 1.0',
        'masklet_rpc_seconds_sum{method="masklet.v1.TrackingService/Track"} 2.0',
        'masklet_refusals_total{limit="max_sessions"} 1.0',
        "masklet_upload_bytes_total 1000.0",
        "masklet_frames_total 3.0",
        'masklet_decode_errors_total{kind="DataLoss"} 1.0',
        'masklet_step_seconds_bucket{batch_size="4",le="0.025"} 1.0',
        "masklet_encoded_pictures_total 2.0",
        "masklet_encode_seconds_count 1.0",
        'masklet_queue_seconds_bucket{le="0.005"} 1.0',
        "masklet_device_busy_seconds_total 0.32",
        "masklet_devices 2.0",
        "masklet_bank_bytes 123.0",
    ):
        assert expected in lines
    held[0] = 7
    assert "masklet_bank_bytes 7.0" in page(server).splitlines()


@pytest.mark.parametrize(("size", "label"), [(1, "1"), (2, "2"), (3, "4"), (32, "32"), (33, "64"), (1000, "64")])
def test_batch_sizes_fall_into_few_series(metrics: Metrics, size: int, label: str) -> None:
    metrics.on_step(size, 0.1)
    assert metrics.registry.get_sample_value("masklet_step_seconds_count", {"batch_size": label}) == 1


def test_two_servers_in_one_process_share_nothing(metrics: Metrics) -> None:
    metrics.frames_sent()
    assert Metrics().registry.get_sample_value("masklet_frames_total") == 0


def test_a_taken_port_is_refused_clearly(server: MetricsServer) -> None:
    with pytest.raises(Unavailable, match=r"metrics cannot be served at .*in use.*metrics_address"):
        Metrics().serve(f"127.0.0.1:{server.port}")


def test_a_closed_server_frees_its_port(metrics: Metrics) -> None:
    first = metrics.serve("127.0.0.1:0")
    first.close()
    metrics.serve(f"127.0.0.1:{first.port}").close()


@pytest.mark.slow
def test_connections_that_say_nothing_take_no_threads_and_hold_nobody_for_long(server: MetricsServer) -> None:
    before = threading.active_count()
    silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(2)]
    try:
        assert "masklet_sessions 0.0" in page(server)
        assert threading.active_count() <= before + 1
    finally:
        for one in silent:
            one.close()


@pytest.mark.slow
def test_a_request_that_trickles_in_is_hung_up_on(server: MetricsServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as slow:
        with pytest.raises(OSError, match=r"reset|Broken pipe|timed out") as caught:  # noqa: PT012 - it needs some bytes
            for _ in range(200):
                slow.sendall(b"G")
                slow.settimeout(0.05)
                try:
                    if slow.recv(1) == b"":
                        raise ConnectionResetError("reset")
                except TimeoutError:
                    slow.settimeout(10)
        assert "timed out" not in str(caught.value)
    assert "masklet_sessions 0.0" in page(server)


def test_what_get_server_info_tells_of_waiting_is_what_prometheus_is_told(metrics: Metrics) -> None:
    for seconds in (0.0, 0.001, 0.0011, 0.3, 11.0):
        metrics.on_queue(seconds)
    value = metrics.registry.get_sample_value
    published = [value("masklet_queue_seconds_bucket", {"le": str(bound)}) for bound in QUEUE_BOUNDS_SECONDS]
    assert metrics.work.queue_counts == published == [2, 3, 3, 3, 3, 3, 3, 3, 4, 4, 4, 4, 4]
    assert metrics.work.jobs == value("masklet_queue_seconds_count") == 5
