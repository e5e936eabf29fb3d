"""One channel to a server, and the calls on it: what both clients are made of."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TypeVar, cast

import grpc
from grpc_health.v1 import health_pb2_grpc

from masklet import _status
from masklet._annotation import Annotation
from masklet._annotation_protocol import AnnotationProtocol, annotation_config
from masklet._endpoint import Endpoint
from masklet._live import Live
from masklet._live_protocol import LiveProtocol, live_config
from masklet._options import CallOptions
from masklet._protocol import TrackProtocol, prompts_of
from masklet._tracking import OnError, OnPrompt, StartCall, Tracking
from masklet._video import Upload
from masklet.errors import FailedPrecondition, MaskletError
from masklet.prompts import Prompt
from masklet.v1.tracking_pb2_grpc import TrackingServiceStub

_Request = TypeVar("_Request")
_Answer = TypeVar("_Answer")


class Connection:
    """A channel that connects on first use, and again after a failure.

    Attributes:
        stub: masklet's own service.
        health: The standard health service.
    """

    def __init__(self, endpoint: Endpoint, timeout: float | None) -> None:
        self._endpoint = endpoint
        self._timeout = timeout
        self._channel = endpoint.channel()
        self._closed = False
        self.stub = TrackingServiceStub(self._channel)
        self.health = health_pb2_grpc.HealthStub(self._channel)

    def close(self) -> None:
        """End every running call."""
        self._closed = True
        self._channel.close()

    def _check_open(self) -> None:
        if self._closed:
            raise FailedPrecondition("this client is closed; make another one")

    def ask(self, method: grpc.UnaryUnaryMultiCallable[_Request, _Answer], request: _Request) -> _Answer:
        """Call a method and wait for its answer.

        Raises:
            MaskletError: It failed.
        """
        self._check_open()
        try:
            return method(request, timeout=self._timeout, metadata=self._endpoint.metadata)
        except grpc.RpcError as error:
            raise self._fault(error) from error

    async def ask_async(self, method: grpc.UnaryUnaryMultiCallable[_Request, _Answer], request: _Request) -> _Answer:
        """`ask` without blocking the event loop; cancelling the task cancels the call.

        Raises:
            MaskletError: It failed.
        """
        self._check_open()
        loop = asyncio.get_running_loop()
        done = asyncio.Event()

        def wake(_: object) -> None:  # on gRPC's thread, and after the loop has gone if the program was in a hurry
            if not loop.is_closed():
                loop.call_soon_threadsafe(done.set)

        call = method.future(request, timeout=self._timeout, metadata=self._endpoint.metadata)
        call.add_done_callback(wake)
        try:
            await done.wait()
        finally:
            call.cancel()
        try:
            return call.result()
        except grpc.RpcError as error:
            raise self._fault(error) from error

    def track(
        self,
        upload: Upload,
        prompts: Prompt | Iterable[Prompt],
        options: CallOptions,
        *,
        on_prompt: OnPrompt | None,
        on_error: OnError | None,
    ) -> Tracking:
        """Start a track call.

        Raises:
            InvalidArgument: A prompt is wrong.
            FailedPrecondition: The client is closed.
        """
        self._check_open()
        config = options.config(frame_count=upload.frame_count, source_url=upload.source_url)
        return Tracking(
            self._start(options),
            TrackProtocol(config, prompts_of(prompts), pictures=upload.pictures),
            upload.parts,
            target=str(self._endpoint),
            timeout=options.timeout,
            on_prompt=on_prompt,
            on_error=on_error,
        )

    def live(
        self,
        prompts: Prompt | Iterable[Prompt],
        options: CallOptions,
        *,
        delivery: str,
        max_latency: float,
        on_prompt: OnPrompt | None,
        on_error: OnError | None,
    ) -> Live:
        """Start a live call.

        Raises:
            InvalidArgument: The delivery, the latency or a prompt is wrong.
            FailedPrecondition: The client is closed.
        """
        self._check_open()
        config = live_config(options.config(), delivery=delivery, max_latency=max_latency)
        return Live(
            self._start(options),
            LiveProtocol(config, prompts_of(prompts)),
            target=str(self._endpoint),
            timeout=options.timeout,
            on_prompt=on_prompt,
            on_error=on_error,
        )

    def annotate(self, upload: Upload, options: CallOptions, *, return_logits: bool) -> Annotation:
        """Start an annotation.

        Raises:
            FailedPrecondition: The client is closed.
        """
        self._check_open()
        config = options.config(frame_count=upload.frame_count, source_url=upload.source_url)
        return Annotation(
            self._start(options),
            AnnotationProtocol(annotation_config(config, return_logits=return_logits)),
            upload.parts,
            target=str(self._endpoint),
            timeout=options.timeout,
        )

    def _start(self, options: CallOptions) -> StartCall:
        return lambda requests: self.stub.Track(requests, timeout=options.timeout, metadata=self._endpoint.metadata)

    def _fault(self, error: grpc.RpcError) -> MaskletError:
        failed = cast("_status.FailedCall", error)
        return _status.from_call(failed, target=str(self._endpoint), timeout=self._timeout)
