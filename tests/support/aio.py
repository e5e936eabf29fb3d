"""Writing to streams that the server may end at any moment."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any

import grpc

from masklet_cluster.gateway.relay import write


async def write_all(call: Any, requests: Iterable[Any]) -> None:
    """Write messages as far as the server takes them; its status, which is kept, says why it took no more."""
    with contextlib.suppress(grpc.aio.AioRpcError, grpc.aio.InternalError):
        for request in requests:
            await write(call, request if isinstance(request, bytes) else request.SerializeToString())
