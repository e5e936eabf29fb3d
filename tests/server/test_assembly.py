from __future__ import annotations

import asyncio
from unittest import mock

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from masklet import AsyncClient
from masklet.errors import Unavailable
from masklet_server.assembly import running_server
from masklet_server.metrics import Metrics
from masklet_server.settings import checked

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_health_tells_of_an_engine_that_has_broken_down() -> None:
    settings = checked({"address": "127.0.0.1:0", "device": "cpu"})
    async with running_server(settings) as running, grpc.aio.insecure_channel(running.address) as channel:
        health = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert (await health.read()).status == SERVING
        async with AsyncClient(running.address) as client:
            with (
                mock.patch.object(Metrics, "on_queue", side_effect=RuntimeError("no job's fault")),
                pytest.raises(Unavailable, match="must be started again"),
            ):
                await client.segment(np.zeros((64, 64, 3), np.uint8), point_coords=[[32, 32]], point_labels=[1])
        assert (await asyncio.wait_for(health.read(), 10)).status == NOT_SERVING
