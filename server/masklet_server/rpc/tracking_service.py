"""The methods of masklet's service. They raise MaskletErrors, which the interceptor turns into statuses."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt

from masklet.errors import DataLoss, MaskletError, ResourceExhausted
from masklet.v1 import image_pb2, server_info_pb2, tracking_pb2, tracking_pb2_grpc
from masklet_server.budgets.shares import Budgets
from masklet_server.limit_names import OTHER_LIMITS
from masklet_server.masks.pool import MaskPool
from masklet_server.metrics import QUEUE_BOUNDS_SECONDS, Metrics
from masklet_server.models.registry import Registry
from masklet_server.rpc import to_wire
from masklet_server.rpc.admission import current_refusal
from masklet_server.rpc.auth import current_client, current_identity
from masklet_server.rpc.from_wire import RequestParser
from masklet_server.rpc.segment_image import SegmentImageHandler, ServingEngines
from masklet_server.rpc.server import SessionKeeper
from masklet_server.rpc.status import as_masklet_error
from masklet_server.rpc.usage import count_results, note_parked
from masklet_server.session import events, replies
from masklet_server.session.context import SessionResources
from masklet_server.session.idle import IdleWatch
from masklet_server.session.ports import SourceFactory
from masklet_server.session.restoring.store import SnapshotStore
from masklet_server.session.resuming.attachment import Attachment
from masklet_server.session.resuming.parking import ResumableSessions
from masklet_server.session.resuming.resumable_session import Owner
from masklet_server.session.session import Session, configuration
from masklet_server.settings import Settings
from masklet_server.video import formats
from masklet_server.video.picture import Picture
from masklet_server.video.sandbox.picture_pool import decode_picture
from masklet_server.video.sources.factory import SandboxedSourceFactory

# A bug report needs the versions of these packages.
_PACKAGES = ("torch", "sam2", "av", "grpcio")


class TrackingService(tracking_pb2_grpc.TrackingServiceServicer, SessionKeeper):
    """masklet.v1.TrackingService.

    Args:
        engines: They track and segment; the caller starts and closes them.
        settings: The server's limits.
        metrics: Counts frames, decoding errors, and what clients share.
        sources: Makes sources of frames; None: sources that decode in sandboxed processes.
        store: Where snapshots of sessions go; None: sessions end with the server.
    """

    def __init__(
        self,
        engines: ServingEngines,
        settings: Settings,
        metrics: Metrics,
        *,
        sources: SourceFactory | None = None,
        store: SnapshotStore | None = None,
    ) -> None:
        default = engines.models[engines.default_model]
        self._budget_limits = settings.budget_limits(default.device_bytes)
        self._budgets = budgets = Budgets(self._budget_limits, metrics.refused)
        metrics.has_devices(len(engines.models[engines.default_model].device.split(",")))
        metrics.watch_budgets(budgets.disk, budgets.decoders.budget, budgets.corrections, budgets.banks)
        self._sources = sources
        self._engines = engines
        self._settings = settings
        self._metrics = metrics
        self._pool = MaskPool(decode_png=self._decode_png)
        self._resumables = ResumableSessions(settings.parking_limits, metrics, self._conclude, store)
        self._registry = Registry.load()
        self._parser = RequestParser(settings.session_limits, settings.video_limits)
        self._segmenter = SegmentImageHandler(
            engines,
            self._pool,
            self._parser,
            max_prompts=settings.max_objects,
            decode_picture=self._decode_picture,
        )

    def announce_stop(self, seconds: float) -> None:
        """The server admits no more calls, and ends those that run in so many seconds: tell clients that can resume."""
        self._resumables.announce_stop(seconds)

    def replaceable(self, client: str) -> int:
        """Number of the client's sessions that another call may take from the call that has them."""
        return self._resumables.attached(client)

    async def end_sessions(self) -> None:
        """End all sessions that have outlived their calls, and wait until everything that they had is freed."""
        await self._resumables.close()

    def close(self) -> None:
        """End the threads for masks and for decoders' memory; call it when no request runs any longer."""
        self._pool.close()
        self._budgets.close()

    def _resources_of(self, client: str) -> SessionResources:
        settings, share = self._settings, self._budgets.of(client)
        sources = self._sources or SandboxedSourceFactory(
            settings.video_limits, settings.fetch_rules, share, settings.latest_decoding
        )
        return SessionResources(self._engines.place(), sources, self._pool.of(client), settings.session_limits, share)

    async def _decode_picture(self, picture: Picture, client: str) -> npt.NDArray[np.uint8]:
        return await decode_picture(picture, self._settings.video_limits, self._budgets.of(client))

    async def _decode_png(self, data: bytes, client: str) -> npt.NDArray[np.uint8]:
        return await self._decode_picture(Picture("encoded", data), client)

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
                count_results(frames=1, masks=len(message.frame_result.objects))

        async with contextlib.aclosing(self._events(request_iterator)) as incoming:
            # A stream counts as a session from its start, so it must not stay without one for ever.
            idle = IdleWatch(self._settings.idle_timeout_seconds)
            first = await idle.wait_for_client(anext(incoming, None), "the first message, config")
            attachment = await self._attachment(first)
            await _send_headers(context)
            if attachment is not None:
                try:
                    await attachment.run(incoming, send)
                finally:
                    remaining = context.time_remaining()
                    if self._resumables.leave(attachment, ran_out=remaining is not None and remaining <= 0):
                        note_parked()
                return
            session = Session(configuration(first), self._resources_of(current_client.get()), send)
            try:
                await session.run(incoming)
            except DataLoss as error:
                self._metrics.decode_error(type(error).__name__)
                raise

    async def _attachment(self, first: events.Event | None) -> Attachment | None:
        """Joins the call to a resumable session, if the first message asks for one that this server can give."""
        client, refusal = current_client.get(), current_refusal.get()
        if refusal is not None and not isinstance(first, events.Resume):
            self._metrics.refused(refusal.violations[0].field)
            raise refusal
        owner = Owner(client, current_identity.get())
        if isinstance(first, events.Resume):
            return await self._resumables.resume_or_restore(first, owner, lambda: self._resources_of(client), refusal)
        if isinstance(first, events.Configure) and first.resumable and self._resumables.is_enabled:
            return self._resumables.begin(first, self._resources_of(client), owner)
        return None

    def _conclude(self, error: Exception) -> MaskletError:
        """What the client gets of an error that has ended a resumable session."""
        if isinstance(error, DataLoss):
            self._metrics.decode_error(type(error).__name__)
        return as_masklet_error(error)

    async def _events(self, requests: AsyncIterator[tracking_pb2.TrackRequest]) -> AsyncGenerator[events.Event, None]:
        async for request in requests:
            yield self._parser.event(request)

    async def SegmentImage(  # noqa: N802
        self, request: image_pb2.SegmentImageRequest, context: Any
    ) -> image_pb2.SegmentImageResponse:
        """Segment one picture; see the contract."""
        try:
            response = await self._segmenter.segment(request, current_client.get())
            await _send_headers(context)
            count_results(masks=sum(len(result.candidates) for result in response.results))
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
        device = self._engines.models[self._engines.default_model]
        return server_info_pb2.GetServerInfoResponse(
            server_version=version("masklet"),
            device=device.device,
            device_name=device.device_name,
            versions={package: version(package) for package in _PACKAGES},
            models=self._models(),
            limits=self._limits(),
            containers=formats.CONTAINERS,
            codecs=formats.CODECS,
            instance_id=self._resumables.instance_id,
            load=self._load(),
        )

    def _load(self) -> server_info_pb2.Load:
        work = self._metrics.work
        return server_info_pb2.Load(
            sessions=self._metrics.session_count + self._resumables.waiting,
            bank_bytes=work.bank_bytes(),
            busy_seconds=work.busy_seconds,
            up_seconds=(time.monotonic() - work.started_at) * work.devices,
            queue_seconds=work.queue_seconds,
            jobs=work.jobs,
            queue_counts=work.queue_counts,
            queue_bounds_seconds=QUEUE_BOUNDS_SECONDS,
        )

    def _models(self) -> list[server_info_pb2.ModelInfo]:
        """The default model, the other loaded models, and those of the registry."""
        loaded = self._engines.models
        names = dict.fromkeys([self._engines.default_model, *loaded, *self._registry.names])
        return [self._model_info(name) for name in names]

    def _model_info(self, name: str) -> server_info_pb2.ModelInfo:
        info = server_info_pb2.ModelInfo(name=name, default=name == self._engines.default_model)
        spec = self._registry.find(name)
        if spec is not None:
            info.description, info.image_size = spec.description, spec.image_size
        if name in self._engines.models:
            model = self._engines.models[name]
            info.loaded, info.dtype, info.runtime = True, model.dtype, model.runtime
            info.tuning = model.tuning
            info.image_size, info.parameter_count = model.image_size, model.parameter_count
        return info

    def _limits(self) -> server_info_pb2.Limits:
        settings, limits = self._settings, self._budget_limits
        decoders, banks = limits.decoder_memory, limits.bank_memory
        others = {name: getattr(settings, name) for name in OTHER_LIMITS}
        others["max_correction_memory_bytes"] = limits.correction_memory.total
        others["max_decoder_memory_bytes"] = decoders.total
        others["max_decoder_memory_bytes_per_client"] = decoders.per_client
        others["max_bank_memory_bytes"] = banks.total
        others["max_bank_memory_bytes_per_client"] = banks.per_client
        return server_info_pb2.Limits(
            max_sessions=settings.max_sessions,
            max_sessions_per_client=settings.max_sessions_per_client,
            max_objects=settings.max_objects,
            max_message_bytes=settings.max_message_bytes,
            max_upload_bytes=settings.max_upload_bytes,
            max_frame_pixels=settings.max_frame_pixels,
            max_frames=settings.max_frames,
            max_duration_seconds=settings.max_duration_seconds,
            others=others,
        )


async def _send_headers(context: Any) -> None:
    """Send the initial metadata by itself, which gRPC otherwise does with the first response.

    If a first response is not written to its end, because the session goes to another call or the client does not read,
    grpc.aio would send it again with the status. gRPC's core refuses that, and the client would never be told.
    """
    await context.send_initial_metadata(())
