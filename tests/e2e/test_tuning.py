"""What a server has measured on its device reaches its clients."""

from __future__ import annotations

from typing import Any
from unittest import mock

import masklet
from masklet_server.embedded import EmbeddedServer
from masklet_server.engine.network.device import make_network
from masklet_server.engine.network.network import Network
from masklet_server.engine.serving import engine


def test_a_client_learns_how_the_server_computes() -> None:
    asked: list[bool] = []

    def measured(*args: Any, tune: bool, **kwargs: Any) -> Network:
        asked.append(tune)
        network = make_network(*args, **kwargs)
        network.tuning = "float16, with CUDA graphs"
        return network

    with (
        mock.patch.object(engine, "make_network", measured),
        EmbeddedServer(device="cpu", dtype="float32", runtime="torch", tune=False) as address,
        masklet.Client(address) as client,
    ):
        nano = next(model for model in client.info().models if model.default)
    assert nano.tuning == "float16, with CUDA graphs"
    assert asked == [False]
