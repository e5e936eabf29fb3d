"""The server that plays a part in the client's tests: it must end whatever its clients do."""

from __future__ import annotations

import queue
import time

import grpc
import pytest

from masklet.v1 import tracking_pb2
from masklet.v1.tracking_pb2_grpc import TrackingServiceStub
from tests.support.fake_server import FakeServer


@pytest.mark.timeout(60)
def test_calls_that_are_cancelled_at_once_leave_no_thread_behind() -> None:
    server = FakeServer()
    with server, grpc.insecure_channel(server.address) as channel:
        stub = TrackingServiceStub(channel)
        for number in range(300):
            requests: queue.Queue[tracking_pb2.TrackRequest | None] = queue.Queue()
            requests.put(tracking_pb2.TrackRequest(ack=tracking_pb2.Ack()))
            call = stub.Track(iter(requests.get, None))
            time.sleep(number % 30 * 1e-4)  # before the call begins, while it begins, and after
            call.cancel()
            requests.put(None)
    assert all(session.ended.is_set() for session in server.sessions)
