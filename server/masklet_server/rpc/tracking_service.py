"""The methods of masklet's service. They raise MaskletErrors, which the interceptor turns into statuses."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncGenerator, AsyncIterator
from importlib.metadata import version
from typing import Any

from masklet.errors import DataLoss, ResourceExhausted
from masklet.v1 import image_pb2, server_info_pb2, tracking_pb2, tracking_pb2_grpc
from masklet_server.limit_names import OTHER_LIMITS
from masklet_server.masks.pool import MaskPool
from masklet_server.metrics import Metrics
from masklet_server.models.registry import Registry
from masklet_server.rpc import to_wire
from masklet_server.rpc.from_wire import RequestParser
from masklet_server.rpc.segment_image import SegmentImageHandler, SegmentingEngine
from masklet_server.session import events, replies
from masklet_server.session.context import SessionResources
from masklet_server.session.idle import IdleWatch
from masklet_server.session.ports import SourceFactory
from masklet_server.session.session import Session, configuration
from masklet_server.settings import Settings
from masklet_server.video import formats
from masklet_server.video.sandbox.picture_pool import decode_picture
from masklet_server.video.sources.factory import SandboxedSourceFactory

# A bug report needs the versions of these packages.
_PACKAGES = ("torch", "sam2", "av", "grpcio")


class TrackingService(tracking_pb2_grpc.TrackingServiceServicer):
    """masklet.v1.TrackingService.

    Args:
        engine: Tracks and segments; the caller starts and closes it.
        settings: The server's limits.
        metrics: Counts frames and decoding errors.
        sources: Makes sources of frames; None: sources that decode in sandboxed processes.
    """

    def __init__(
        self, engine: SegmentingEngine, settings: Settings, metrics: Metrics, *, sources: SourceFactory | None = None
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._metrics = metrics
        self._pool = MaskPool()
        self._resources = SessionResources(
            engine,
            sources or SandboxedSourceFactory(settings.video_limits, settings.fetch_rules),
            self._pool,
            settings.session_limits,
        )
        self._registry = Registry.load()
        self._parser = RequestParser(settings.session_limits, settings.video_limits)
        self._segmenter = SegmentImageHandler(
            engine,
            self._pool,
            self._parser,
            max_prompts=settings.max_objects,
            decode_picture=functools.partial(decode_picture, limits=settings.video_limits),
        )

    def close(self) -> None:
        """End the threads for masks; call it when no request runs any longer."""
        self._pool.close()

    # A coroutine that writes to the context, not a generator of responses: gRPC does not finish a generator if the call
    # ends while a response is sent, and a session must be closed at once.
    async def Track(  # type: ignore[override]  # noqa: N802
        self, request_iterator: AsyncIterator[tracking_pb2.TrackRequest], context: Any
    ) -> None:
        """Track objects through one video; see the contract."""

        async def send(answer: replies.Response) -> None:
            message = to_wire.response(answer)
            await context.write(message)
            if message.HasField("frame_result"):
                self._metrics.frames_sent()

        async with contextlib.aclosing(self._events(request_iterator)) as incoming:
            # A stream counts as a session from its start, so it must not stay without one for ever.
            idle = IdleWatch(self._settings.idle_timeout_seconds)
            first = await idle.wait_for_client(anext(incoming, None), "the first message, config")
            session = Session(configuration(first), self._resources, send)
            try:
                await session.run(incoming)
            except DataLoss as error:
                self._metrics.decode_error(type(error).__name__)
                raise

    async def _events(self, requests: AsyncIterator[tracking_pb2.TrackRequest]) -> AsyncGenerator[events.Event, None]:
        async for request in requests:
            yield self._parser.event(request)

    async def SegmentImage(  # noqa: N802
        self, request: image_pb2.SegmentImageRequest, context: Any
    ) -> image_pb2.SegmentImageResponse:
        """Segment one picture; see the contract."""
        try:
            response = await self._segmenter.segment(request, stream=f"pictures of {context.peer()}")
        except DataLoss as error:
            self._metrics.decode_error(type(error).__name__)
            raise
        most = self._settings.max_message_bytes
        if response.ByteSize() > most:
            raise ResourceExhausted(
                f"the response has {response.ByteSize()} bytes, more than max_message_bytes = {most}; "
                "send fewer prompts at once, or leave out return_logits"
            )
        return response

    async def GetServerInfo(  # noqa: N802
        self, request: server_info_pb2.GetServerInfoRequest, context: Any
    ) -> server_info_pb2.GetServerInfoResponse:
        """Describe the server, its models and its limits; see the contract."""
        device = self._engine.models[self._engine.default_model]
        return server_info_pb2.GetServerInfoResponse(
            server_version=version("masklet"),
            device=device.device,
            device_name=device.device_name,
            versions={package: version(package) for package in _PACKAGES},
            models=self._models(),
            limits=self._limits(),
            containers=formats.CONTAINERS,
            codecs=formats.CODECS,
        )

    def _models(self) -> list[server_info_pb2.ModelInfo]:
        """The default model, the other loaded models, and those of the registry."""
        loaded = self._engine.models
        names = dict.fromkeys([self._engine.default_model, *loaded, *self._registry.names])
        return [self._model_info(name) for name in names]

    def _model_info(self, name: str) -> server_info_pb2.ModelInfo:
        info = server_info_pb2.ModelInfo(name=name, default=name == self._engine.default_model)
        spec = self._registry.find(name)
        if spec is not None:
            info.description, info.image_size = spec.description, spec.image_size
        if name in self._engine.models:
            model = self._engine.models[name]
            info.loaded, info.dtype, info.runtime = True, model.dtype, model.runtime
            info.image_size, info.parameter_count = model.image_size, model.parameter_count
        return info

    def _limits(self) -> server_info_pb2.Limits:
        settings = self._settings
        return server_info_pb2.Limits(
            max_sessions=settings.max_sessions,
            max_sessions_per_client=settings.max_sessions_per_client,
            max_objects=settings.max_objects,
            max_message_bytes=settings.max_message_bytes,
            max_upload_bytes=settings.max_upload_bytes,
            max_frame_pixels=settings.max_frame_pixels,
            max_frames=settings.max_frames,
            max_duration_seconds=settings.max_duration_seconds,
            others={name: getattr(settings, name) for name in OTHER_LIMITS},
        )
