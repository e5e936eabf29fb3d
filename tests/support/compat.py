"""A server with nano at a small size, and sam2's predictors with equal weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

from masklet_server.embedded import EmbeddedServer
from masklet_server.engine.network.network import Network
from masklet_server.engine.serving.engine import Engine, EngineOptions


@contextlib.contextmanager
def serving(network: Network, **settings: Any) -> Iterator[str]:
    """Address of a real server that has this network and calls it nano."""

    def load(_: Any, options: EngineOptions, *, observer: Any) -> Engine:
        return Engine({"nano": network}, picture_cache_bytes=options.picture_cache_bytes, observer=observer)

    with mock.patch.object(Engine, "load", load), EmbeddedServer(device="cpu", dtype="float32", **settings) as address:
        yield address
