"""A server that speaks masklet.v1 over real loopback gRPC and follows a script instead of a model."""

from __future__ import annotations

import contextlib
import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import grpc
import numpy as np
from google.rpc import error_details_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from masklet.v1 import common_pb2, image_pb2, server_info_pb2, tracking_pb2
from masklet.v1.tracking_pb2_grpc import TrackingServiceServicer, add_TrackingServiceServicer_to_server
from tests.support.scripted.fake_script import (
    Script,
    Session,
    status,
    wire_logits,
    wire_mask,
    wire_object,
    wire_timings,
)


class FakeServer(TrackingServiceServicer):
    """Use as a context manager; `address` is where it listens, `sessions` what it saw."""

    def __init__(
        self,
        script: Script | None = None,
        credentials: grpc.ServerCredentials | None = None,
        address: str = "127.0.0.1:0",
    ) -> None:
        self.script = script or Script()
        self.sessions: list[Session] = []
        self.has_begun = threading.Event()  # a session
        self.pictures: list[image_pb2.SegmentImageRequest] = []
        self.metadata: dict[str, Any] = {}
        self._threads = ThreadPoolExecutor(8)
        self._server = grpc.server(
            self._threads,
            options=[("grpc.max_receive_message_length", 32 * 1024**2), ("grpc.so_reuseport", 0)],
        )
        add_TrackingServiceServicer_to_server(self, self._server)
        self.health = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self._server)
        self.health.set("", health_pb2.HealthCheckResponse.SERVING)
        if credentials is None:
            port = self._server.add_insecure_port(address)
        else:
            port = self._server.add_secure_port(address, credentials)
        self.address = f"127.0.0.1:{port}"

    def __enter__(self) -> FakeServer:
        self._server.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._server.stop(None).wait()
        self._threads.shutdown()  # a call that does not end shows here, not when the interpreter waits for it at exit

    def GetServerInfo(self, request: Any, context: Any) -> server_info_pb2.GetServerInfoResponse:  # noqa: N802
        self._maybe_fail(context)
        return server_info_pb2.GetServerInfoResponse(
            server_version="9.9.9",
            device="cpu",
            device_name="Fake CPU",
            versions={"torch": "2.5.1", "sam2": "1.1.0"},
            models=[
                server_info_pb2.ModelInfo(
                    name=self.script.model,
                    description="Small.",
                    loaded=True,
                    default=True,
                    image_size=384,
                    dtype="float32",
                    parameter_count=4_600_000,
                    tuning=self.script.tuning,
                ),
                server_info_pb2.ModelInfo(name="sam2.1-tiny", description="Meta's.", image_size=1024),
            ],
            limits=server_info_pb2.Limits(max_sessions=4, max_objects=64, max_upload_bytes=2 * 1024**3),
            containers=["mov", "matroska"],
            codecs=["h264"],
        )

    def SegmentImage(self, request: image_pb2.SegmentImageRequest, context: Any) -> image_pb2.SegmentImageResponse:  # noqa: N802
        self._maybe_fail(context)
        self.pictures.append(request)
        height, width = self.script.size
        if request.picture.height:
            height, width = request.picture.height, request.picture.width
        count = 3 if request.multimask_output else 1
        results = []
        for prompt in range(len(request.prompts)):
            candidates = [self._candidate(prompt + n, height, width, request.return_logits) for n in range(count)]
            results.append(image_pb2.SegmentResult(candidates=candidates))
        return image_pb2.SegmentImageResponse(
            image_id=f"picture-{len(self.pictures)}", height=height, width=width, results=results, model="nano"
        )

    def _candidate(self, n: int, height: int, width: int, logits: bool) -> image_pb2.MaskCandidate:
        mask = self.script.mask(n, height, width)
        low = np.full((4, 6), n, "<f4")
        return image_pb2.MaskCandidate(
            mask=wire_mask(mask),
            predicted_iou=0.9 - 0.1 * n,
            area=int(mask.sum()),
            logits=common_pb2.Logits(height=4, width=6, data=low.tobytes()) if logits else None,
        )

    def Track(self, request_iterator: Iterator[tracking_pb2.TrackRequest], context: Any) -> Iterator[Any]:  # noqa: N802
        session = Session(metadata=dict(context.invocation_metadata()))
        self.sessions.append(session)
        self.has_begun.set()
        if not context.add_callback(session.ended.set):  # the client was gone before this began
            session.ended.set()
        inbox: queue.Queue[None] = queue.Queue()
        threading.Thread(target=_read, args=(request_iterator, session, inbox), daemon=True).start()
        if _wait(lambda: bool(session.messages), inbox, session) and session.config.propagation:
            yield from self._annotate(session, inbox, context)
        else:
            yield from self._answer(session, inbox, context)

    def _answer(self, session: Session, inbox: queue.Queue[None], context: Any) -> Iterator[tracking_pb2.TrackResponse]:
        script = self.script
        yield tracking_pb2.TrackResponse(
            session=tracking_pb2.SessionInfo(session_id="fake-1", model="nano", window=script.window, max_objects=64)
        )
        index = 0
        while _wait(lambda: self._has_frame(session, session.results_sent), inbox, session):
            if index == 0 and script.describes:
                yield from self._opening(session)
            if index == script.stall_at:
                session.ended.wait(30)
                return
            if index == script.inline_at and script.failure is not None:
                yield tracking_pb2.TrackResponse(error=script.failure)
            if index == script.fail_at or (script.fail_at is None and script.inline_at is None):
                self._maybe_fail(context)
            if script.seconds_per_frame:
                time.sleep(script.seconds_per_frame)
            if not _wait(lambda: session.unacked < script.window, inbox, session):
                return
            session.max_frames_ahead = max(session.max_frames_ahead, len(session.frames) - index)
            result = self._frame(session, index)
            session.frame_sequences.append(result.frame_result.sequence)
            session.max_unacked = max(session.max_unacked, session.unacked)
            yield result
            index += 1
        if not session.ended.is_set() and not script.silent_end:
            yield tracking_pb2.TrackResponse(done=tracking_pb2.Done(frame_count=index))

    def _annotate(
        self, session: Session, inbox: queue.Queue[None], context: Any
    ) -> Iterator[tracking_pb2.TrackResponse]:
        """Answers requests in order; frames whose index is not below `script.frame_count` do not exist."""
        yield tracking_pb2.TrackResponse(
            session=tracking_pb2.SessionInfo(
                session_id="fake-1", model="nano", window=self.script.window, can_prepare=self.script.can_prepare
            )
        )
        self._maybe_fail(context)
        described = False
        for request in _messages(session, inbox):
            kind = request.WhichOneof("request")
            if kind == "end_of_video" or (kind in ("video_chunk", "frame") and not described):
                described = True
                yield self._video_info(session)
            for answer in self._answers(kind or "", request, session, inbox):
                answer.request_id = request.request_id
                yield answer

    def _answers(
        self, kind: str, request: tracking_pb2.TrackRequest, session: Session, inbox: queue.Queue[None]
    ) -> Iterator[tracking_pb2.TrackResponse]:
        height, width = self.script.size
        if kind == "prompt" and request.prompt.frame_index >= self.script.frame_count:
            violation = error_details_pb2.BadRequest.FieldViolation(field="prompt.frame_index", description="is beyond")
            detail = error_details_pb2.BadRequest(field_violations=[violation])
            yield tracking_pb2.TrackResponse(error=status(grpc.StatusCode.INVALID_ARGUMENT, "no such frame", detail))
        elif kind == "prompt":
            mask = self.script.mask(request.prompt.frame_index, height, width)
            found = wire_object(request.prompt.object_id, mask)
            if session.config.return_logits:
                found.logits.CopyFrom(wire_logits())
            yield tracking_pb2.TrackResponse(
                prompt_result=tracking_pb2.PromptResult(
                    sequence=session.next_sequence(), frame_index=request.prompt.frame_index, object=found
                )
            )
        elif kind == "remove_object" and request.remove_object.object_id not in {p.object_id for p in session.prompts}:
            yield tracking_pb2.TrackResponse(error=status(grpc.StatusCode.NOT_FOUND, "no such object"))
        elif kind == "clear_prompts":
            found = wire_object(request.clear_prompts.object_id, np.zeros((height, width), np.bool_))
            yield tracking_pb2.TrackResponse(
                prompt_result=tracking_pb2.PromptResult(
                    sequence=session.next_sequence(), frame_index=request.clear_prompts.frame_index, object=found
                )
            )
        elif kind in ("remove_object", "reset"):
            yield tracking_pb2.TrackResponse(applied=tracking_pb2.Applied())
        elif kind == "propagate":
            yield from self._propagate(request.propagate, session, inbox)

    def _propagate(
        self, asked: tracking_pb2.Propagate, session: Session, inbox: queue.Queue[None]
    ) -> Iterator[tracking_pb2.TrackResponse]:
        if not session.prompts:
            yield tracking_pb2.TrackResponse(error=status(grpc.StatusCode.FAILED_PRECONDITION, "nothing is prompted"))
            yield tracking_pb2.TrackResponse(propagation_done=tracking_pb2.PropagationDone())
            return
        start, stopped, begun = asked.start_frame_index, False, len(session.messages)
        frames = range(start, self.script.frame_count)
        if asked.direction == tracking_pb2.DIRECTION_BACKWARD:
            frames = range(start, -1, -1)
        sent = 0
        for index in frames[: asked.max_frames + 1 if asked.HasField("max_frames") else None]:
            if self.script.seconds_per_frame:
                time.sleep(self.script.seconds_per_frame)
            if not _wait(lambda: _stops(session, begun) or session.unacked < self.script.window, inbox, session):
                return
            if stopped := _stops(session, begun):
                break
            result = self._frame(session, index)
            for found in result.frame_result.objects if session.config.return_logits else ():
                found.logits.CopyFrom(wire_logits())
            session.frame_sequences.append(result.frame_result.sequence)
            session.max_unacked = max(session.max_unacked, session.unacked)
            sent += 1
            yield result
        yield tracking_pb2.TrackResponse(
            propagation_done=tracking_pb2.PropagationDone(start_frame_index=start, frame_count=sent, stopped=stopped)
        )

    def _has_frame(self, session: Session, index: int) -> bool | None:
        """None: the video has ended before it."""
        kinds = session.kinds()
        if "frame" in kinds:
            return len(session.frames) > index or (None if "end_of_video" in kinds else False)
        if "end_of_video" not in kinds:
            return False
        return index < self.script.frame_count or None

    def _opening(self, session: Session) -> Iterator[tracking_pb2.TrackResponse]:
        yield self._video_info(session)
        height, width = self.script.size
        for prompt in session.prompts:
            yield tracking_pb2.TrackResponse(
                prompt_result=tracking_pb2.PromptResult(
                    sequence=session.next_sequence(),
                    frame_index=prompt.frame_index,
                    object=wire_object(prompt.object_id, self.script.mask(0, height, width)),
                )
            )

    def _video_info(self, session: Session) -> tracking_pb2.TrackResponse:
        height, width = self.script.size
        pictures = bool(session.frames)
        count = session.config.frame_count if pictures else self.script.frame_count
        return tracking_pb2.TrackResponse(
            video_info=tracking_pb2.VideoInfo(
                height=height,
                width=width,
                frame_rate=30.0,
                frame_count=count,
                duration_seconds=count / 30,
                container="pictures" if pictures else "mov",
                codec="pictures" if pictures else "h264",
            )
        )

    def _frame(self, session: Session, index: int) -> tracking_pb2.TrackResponse:
        height, width = self.script.size
        followed = sorted({p.object_id for p in session.prompts if p.frame_index <= index})
        objects = [wire_object(i, self.script.mask(index, height, width)) for i in followed]
        for one in objects:
            one.event = self.script.events.get(index, common_pb2.OBJECT_EVENT_UNSPECIFIED)
        return tracking_pb2.TrackResponse(
            frame_result=tracking_pb2.FrameResult(
                sequence=session.next_sequence(),
                frame_index=index,
                pts=index * 512,
                time_base_numerator=1,
                time_base_denominator=15360,
                pts_nanoseconds=round(index / 30 * 1e9),
                objects=objects,
                timings=wire_timings(index) if session.config.timings and self.script.knows_timings else None,
            )
        )

    def _maybe_fail(self, context: Any) -> None:
        self.metadata = dict(context.invocation_metadata())
        if self.script.plain_failure is not None:
            context.abort(*self.script.plain_failure)
        if self.script.failure is not None:
            context.abort_with_status(rpc_status.to_status(self.script.failure))


@contextlib.contextmanager
def starting() -> Iterator[str]:
    """The address of a server that begins to listen in a second."""
    with FakeServer() as server:
        address = server.address
    servers: list[FakeServer] = []

    def start() -> None:
        time.sleep(1.0)
        servers.append(FakeServer(address=address).__enter__())

    thread = threading.Thread(target=start)
    thread.start()
    try:
        yield address
    finally:
        thread.join()
        servers[0].stop()


def _stops(session: Session, begun: int) -> bool:
    """Whether the client has asked to stop since it had sent so many messages."""
    return "stop_propagation" in session.kinds()[begun:]


def _messages(session: Session, inbox: queue.Queue[None]) -> Iterator[tracking_pb2.TrackRequest]:
    """The client's messages as they come, until it sends no more."""
    for done in itertools.count():
        if not _wait(partial(_arrived, session, done), inbox, session):
            return
        yield session.messages[done]


def _arrived(session: Session, done: int) -> bool | None:
    if len(session.messages) > done:
        return True
    return None if session.half_closed.is_set() else False


def _read(requests: Iterator[tracking_pb2.TrackRequest], session: Session, inbox: queue.Queue[None]) -> None:
    try:
        for message in requests:
            session.messages.append(message)
            if message.WhichOneof("request") == "ack":
                session.acked = message.ack.sequence
            inbox.put(None)
        session.half_closed.set()
    except grpc.RpcError:
        pass  # the call has ended; `session.ended` says so
    inbox.put(None)


def _wait(ready: Callable[[], bool | None], inbox: queue.Queue[None], session: Session) -> bool:
    """Wait until `ready` is true; false where it says None or the call has ended."""
    while not session.ended.is_set():
        answer = ready()
        if answer is not False:
            return answer is True
        try:
            inbox.get(timeout=0.05)
        except queue.Empty:
            continue
    return False
