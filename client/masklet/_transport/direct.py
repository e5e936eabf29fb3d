"""Streams that go to a gateway's workers themselves, so that their bytes need not pass through the gateway."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import grpc

from masklet._transport.endpoint import Endpoint, is_local
from masklet.v1 import cluster_pb2
from masklet.v1.cluster_pb2_grpc import ClusterServiceStub
from masklet.v1.tracking_pb2_grpc import TrackingServiceStub

_LOCATE_SECONDS = 2.0
# What a server that is no gateway, and a gateway that tells no addresses, answer.
_NEVER = (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.NOT_FOUND)


@dataclass(frozen=True)
class Place:
    """A worker's place for one stream.

    Attributes:
        stub: masklet's service at the worker.
        held: The call that keeps the place; cancelled when the stream has ended.
    """

    stub: TrackingServiceStub
    held: Any

    def leave(self) -> None:
        """Give the place back to the gateway."""
        self.held.cancel()

    def when_lost(self, act: Callable[[], object]) -> None:
        """Have a function called when the gateway says that the worker is lost: it may be frozen, and say nothing.

        A gateway that is lost itself does no harm to the stream.
        """

        def ended() -> None:
            if self.held.code() is grpc.StatusCode.UNAVAILABLE and self.held.trailing_metadata():
                act()

        if not self.held.add_callback(ended):
            ended()


class DirectWorkers:
    """The workers behind a gateway, by their addresses.

    Args:
        endpoint: The gateway. Workers are called in the same way: with its token and TLS.
        gateway: The channel to it.
    """

    def __init__(self, endpoint: Endpoint, gateway: grpc.Channel) -> None:
        self._endpoint = endpoint
        self._locator = ClusterServiceStub(gateway)
        self._channels: dict[str, grpc.Channel] = {}
        self._changing = threading.Lock()
        self._is_possible = True

    def place(self, model: str, resume_token: str) -> Place | None:
        """A place at a worker; None where the gateway's own Track must do.

        Args:
            model: The model's name; empty for the default model.
            resume_token: Of the session that is resumed; empty: none is.
        """
        if not self._is_possible:
            return None
        request = cluster_pb2.LocateRequest(model=model, resume_token=resume_token)
        held = self._locator.Locate(request, metadata=self._endpoint.metadata)
        # The call stays open, so it has no deadline of its own.
        timer = threading.Timer(_LOCATE_SECONDS, held.cancel)
        timer.daemon = True
        timer.start()
        try:
            channel = self._channel(next(held).address)
            grpc.channel_ready_future(channel).result(_LOCATE_SECONDS)
        except grpc.RpcError as error:
            self._is_possible = error.code() not in _NEVER
            return None
        except (StopIteration, grpc.FutureTimeoutError):
            held.cancel()
            return None
        finally:
            timer.cancel()
        return Place(TrackingServiceStub(channel), held)

    def close(self) -> None:
        """Close the connections to workers."""
        with self._changing:
            for channel in self._channels.values():
                channel.close()
            self._channels.clear()

    def _channel(self, address: str) -> grpc.Channel:
        with self._changing:
            if address not in self._channels:
                there = replace(self._endpoint, target=address, local=is_local(address))
                self._channels[address] = there.channel()
            return self._channels[address]
