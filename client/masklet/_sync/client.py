"""The client for ordinary, blocking programs."""

from __future__ import annotations

from collections.abc import Iterable

from grpc_health.v1 import health_pb2
from typing_extensions import Unpack

from masklet._media.pictures import PictureLike
from masklet._media.uploads import VideoSource, open_upload
from masklet._protocol.options import AnnotateOptions, LiveOptions, SegmentOptions, TrackOptions
from masklet._protocol.segmentation import ImageId, Segmentation, segmentation_from_wire
from masklet._protocol.server_info import ServerInfo, server_info_from_wire
from masklet._sync.annotation import Annotation, start_annotation
from masklet._sync.live import Live, start_live
from masklet._sync.tracking import Tracking, start_tracking
from masklet._transport.base_client import BaseClient
from masklet.prompts import Prompt
from masklet.v1 import server_info_pb2


class Client(BaseClient):
    """A connection to a masklet server; threads may share it.

    It connects on first use and again after a failure. Use it as a context manager, or call `close`.

    Args:
        address: "HOST:PORT", "HOST" (port 50051) or "unix:PATH". Default: "127.0.0.1:50051".
        token: Bearer token, where the server asks for one.
        root_certificates: Certificates (PEM bytes, or a path) of the authorities to trust instead of the system's.
        client_certificate: PEM bytes, or a path, for servers that ask clients for a certificate (mutual TLS).
        client_key: PEM bytes, or a path, of the certificate's private key.
        timeout: Seconds that `segment`, `info` and `health` may take; None: no limit. Default: 60.
        secure: Whether to use TLS; None: yes where certificates are given or the server is on another machine.
        connect_timeout: Seconds to wait for a server that nobody can connect to yet, because it is starting; 0: do not
            wait. Default: 10.
        direct: The server is a gateway (`masklet gateway --direct`): ask it for a worker, and send streams there
            directly. Where that is not possible, they go through the gateway. Default: False.

    Raises:
        InvalidArgument: The address or the token is malformed, or the arguments contradict one another.
        OSError: A certificate's file cannot be read.
    """

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """End every running call and the connection. May be called twice."""
        self._channel.close()

    def track(
        self,
        video: VideoSource,
        prompts: Prompt | Iterable[Prompt] = (),
        *more: Prompt | Iterable[Prompt],
        **options: Unpack[TrackOptions],
    ) -> Tracking:
        """Track objects through a video; iterate over the answer to get a `FrameResult` for every frame, in order.

        The video is uploaded while results arrive. The call ends, and the server is freed, when the loop ends, when
        nothing refers to the answer any more (as after a `break`), and at the end of its `with` block:

            with client.track("clip.mp4", Prompt(point_coords=[[360, 480]])) as tracking:
                for frame in tracking:
                    print(frame.frame_index, frame.objects[1].area)

        Args:
            video: A path, bytes or a binary file of an MP4, MKV, ... ; a folder of pictures; an iterable of
                ``uint8[H, W, 3]`` (RGB) or ``uint8[H, W]`` (gray) arrays, which is read on a thread of its own; or a
                `SourceUrl`.
            prompts: What to track: a prompt or a list of prompts. There may be none; see `Tracking.prompt`.
            *more: More prompts.
            **options: See `TrackOptions`.

        Returns:
            The running call.

        Raises:
            MaskletError: An argument is wrong (raised by the call itself), or the server reports an error (raised in
                the loop).
            OSError: The video cannot be read.
        """
        return start_tracking(self._channel, open_upload(video), (prompts, *more), options)

    def live(
        self, prompts: Prompt | Iterable[Prompt] = (), *more: Prompt | Iterable[Prompt], **options: Unpack[LiveOptions]
    ) -> Live:
        """Track objects through video that is still being taken: a camera's frames, or packets of a stream.

            with client.live(Prompt(point_coords=[[360, 480]])) as live:
                threading.Thread(target=film, args=(live,)).start()  # calls live.send(...), and live.end() at the end
                for frame in live:
                    print(frame.frame_index, frame.latency_seconds, frame.skipped_frame_indices)

        Take results while you send video: a server runs only a limited number of frames ahead of them.

        Args:
            prompts: What to track, on frames that are still to be sent; see `Live.prompt` for later ones.
            *more: More prompts.
            **options: See `LiveOptions`.

        Returns:
            The running call.

        Raises:
            InvalidArgument: An argument is wrong.
        """
        return start_live(self._channel, (prompts, *more), options)

    def annotate(self, video: VideoSource, **options: Unpack[AnnotateOptions]) -> Annotation:
        """Work on a video as with ``SAM2VideoPredictor``: prompt any frame, look, correct, and track when you want to.

            with client.annotate("clip.mp4") as annotation:
                seen = annotation.prompt(Prompt(point_coords=[[360, 480]]))
                print(seen.object.area, seen.object.predicted_iou)
                for frame in annotation.propagate():
                    print(frame.frame_index, frame.objects[1].area)

        The video is uploaded meanwhile. The session ends, and the server is freed, with the `with` block, with `close`,
        or when nothing refers to the answer any more. It ends with `DeadlineExceeded` when nothing was asked for a long
        time: 15 minutes, unless the server's operator has set another time.

        Args:
            video: As for `track`; an iterable of arrays must end.
            **options: See `AnnotateOptions`. With `window=1` the server tracks no frame of a propagation before the
                loop asks for it.

        Returns:
            The running session.

        Raises:
            MaskletError: An argument is wrong (raised by the call itself), or the server reports an error (raised by
                the requests).
            OSError: The video cannot be read.
        """
        return start_annotation(self._channel, open_upload(video), options)

    def segment(self, image: PictureLike | Segmentation | ImageId, **options: Unpack[SegmentOptions]) -> Segmentation:
        """Segment one picture, as ``SAM2ImagePredictor.set_image`` and ``predict`` do.

            found = client.segment("photo.jpg", point_coords=[[360, 480]])
            masks, scores, logits = found

        Args:
            image: A path, a file's bytes, a Pillow image, or an array ``uint8[H, W, 3]`` (RGB) or ``uint8[H, W]``
                (gray); or an earlier answer (or its `image_id`) for the same picture again, which is quick.
            **options: Prompts and options; see `SegmentOptions`.

        Returns:
            The masks with their scores.

        Raises:
            InvalidArgument: An argument has a wrong shape, or a value is out of range.
            NotFound: There is no such model, or the server does not hold the earlier picture any more; send the picture
                itself again.
            MaskletError: The server reports another error.
            OSError: The picture cannot be read.
        """
        request = self._segment_request(image, options)
        return segmentation_from_wire(self._channel.ask(self._channel.stub.SegmentImage, request))

    def info(self) -> ServerInfo:
        """Ask what the server is and allows.

        Returns:
            Its models, device, versions and limits.

        Raises:
            MaskletError: The server cannot be reached, or reports an error.
        """
        request = server_info_pb2.GetServerInfoRequest()
        return server_info_from_wire(self._channel.ask(self._channel.stub.GetServerInfo, request))

    def health(self) -> bool:
        """Ask whether the server takes requests now.

        Returns:
            False while the server loads its models or is shutting down.

        Raises:
            MaskletError: The server cannot be reached.
        """
        answer = self._channel.ask(self._channel.health.Check, health_pb2.HealthCheckRequest())
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
