"""The client for ordinary, blocking programs."""

from __future__ import annotations

from collections.abc import Iterable

import numpy.typing as npt
from grpc_health.v1 import health_pb2

from masklet import _server_info
from masklet._annotation import Annotation
from masklet._base_client import BaseClient
from masklet._live import Live
from masklet._live_protocol import Delivery
from masklet._options import CallOptions, MemoryPolicy
from masklet._pictures import ImageSource
from masklet._segmentation import ImageId, Segmentation, segment_request, segmentation_from_wire
from masklet._server_info import ServerInfo
from masklet._tracking import OnError, OnPrompt, Tracking
from masklet._video import VideoSource, open_upload
from masklet.prompts import Prompt
from masklet.v1 import server_info_pb2


class Client(BaseClient):
    """A connection to a masklet server; may be shared between threads.

    It connects on first use and again after a failure. Use it as a context manager, or call `close`.

    Args:
        address: "HOST:PORT", "HOST" (port 50051) or "unix:PATH".
        token: Bearer token, where the server asks for one.
        root_certificates: PEM bytes, or a path, of the authorities to trust instead of the system's.
        client_certificate: PEM bytes, or a path, for servers that ask clients for a certificate (mutual TLS).
        client_key: PEM bytes, or a path, of the certificate's private key.
        timeout: Seconds that `segment`, `info` and `health` may take; None for no limit.
        secure: Speak TLS. By default true where certificates are given or the server is on another machine.

    Raises:
        InvalidArgument: The address or the token is malformed, or the arguments contradict one another.
        OSError: A certificate's file cannot be read.
    """

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """End every running call and the connection; may be called twice."""
        self._connection.close()

    def track(
        self,
        video: VideoSource,
        prompts: Prompt | Iterable[Prompt],
        *,
        model: str = "",
        deterministic: bool = False,
        memory_policy: MemoryPolicy = "sam2",
        window: int = 0,
        correction_window: int = 0,
        timeout: float | None = None,
        timings: bool = False,
        on_prompt: OnPrompt | None = None,
        on_error: OnError | None = None,
    ) -> Tracking:
        """Follow objects through a video; iterate over the answer to get a `FrameResult` for every frame, in order.

        The video is uploaded while results arrive. The call ends, and the server is freed, when the loop ends, when
        nothing refers to the answer any more (as after a `break`), and at the end of its `with` block:

            with client.track("clip.mp4", Prompt(point_coords=[[360, 480]])) as tracking:
                for frame in tracking:
                    print(frame.frame_index, frame.objects[1].area)

        Args:
            video: A path, bytes or a binary file of an MP4, MKV, ... ; a folder of pictures; or an iterable of
                ``uint8[H, W, 3]`` (RGB) or ``uint8[H, W]`` (gray) arrays, drawn from on a thread of its own.
            prompts: What to follow. None at all is allowed; see `Tracking.add_prompt`.
            model: A name from `info`; empty for the server's default.
            deterministic: Never share a batch with other sessions, so that two runs give the same bits.
            memory_policy: What an object's memory keeps. "sam2": SAM 2's own, the prompted frames and the last six.
                "distractor_aware": frames that tell the object from look-alikes are kept longer. "motion_aware": masks
                that fit the object's motion are preferred, and only good frames are remembered.
            window: Frames that the server may be ahead of this loop; 0 for as many as it allows.
            correction_window: Of the last frames tracked, how many are kept ready to be corrected (of a file all can
                be, but earlier ones take longer); 0 for as many as the server allows. Naming it says that the loop
                will: the server then waits for it before it ends, so that the last frames can be corrected, too.
            timeout: Seconds for the whole video; None for no limit.
            timings: Each result says where its frame's time went, in `FrameResult.timings`.
            on_prompt: Called on this thread with what the model makes of each prompt, before its frame comes.
            on_error: Called on this thread with faults that do no harm to the stream, such as a correction that comes
                too late. Without it they are raised from the loop, which ends the call.

        Raises:
            MaskletError: From here if an argument is wrong, from the loop if the server reports a fault.
            OSError: The video cannot be read.
        """
        options = CallOptions(
            model=model,
            deterministic=deterministic,
            memory_policy=memory_policy,
            window=window,
            correction_window=correction_window,
            timeout=timeout,
            timings=timings,
        )
        return self._connection.track(open_upload(video), prompts, options, on_prompt=on_prompt, on_error=on_error)

    def live(
        self,
        prompts: Prompt | Iterable[Prompt] = (),
        *,
        delivery: Delivery = "latest",
        max_latency: float = 0.0,
        model: str = "",
        deterministic: bool = False,
        memory_policy: MemoryPolicy = "sam2",
        window: int = 0,
        correction_window: int = 0,
        timeout: float | None = None,
        timings: bool = False,
        on_prompt: OnPrompt | None = None,
        on_error: OnError | None = None,
    ) -> Live:
        """Follow objects through video that is not there yet: a camera's frames, or packets of a stream.

            with client.live(Prompt(point_coords=[[360, 480]])) as live:
                threading.Thread(target=film, args=(live,)).start()  # calls live.send(...) and at last live.end()
                for frame in live:
                    print(frame.frame_index, frame.latency_seconds, frame.skipped_frame_indices)

        Results must be taken while video is sent: a server does not run ahead of them without end.

        Args:
            prompts: What to follow, from frames still to be sent; see `Live.prompt` for later ones.
            delivery: "latest": frames that come faster than they can be tracked are skipped, and named in the next
                result. "lossless": every frame is tracked, and `Live.send` waits.
            max_latency: Seconds that a frame may wait to be tracked before a newer one takes its place; 0 for the
                server's default.
            model: A name from `info`; empty for the server's default.
            deterministic: Never share a batch with other sessions.
            memory_policy: As for `track`.
            window: Frames that the server may be ahead of the loop over results; 0 for as many as it allows.
            correction_window: As for `track`.
            timeout: Seconds for the whole call; None for no limit.
            timings: Each result says where its frame's time went, in `FrameResult.timings`.
            on_prompt: Called, on the thread that takes results, with what the model makes of each prompt.
            on_error: Called, on that thread, with faults that do no harm to the stream, such as a prompt beside the
                picture. Without it they are raised from the loop, which ends the call.

        Raises:
            InvalidArgument: An argument is wrong.
        """
        options = CallOptions(
            model=model,
            deterministic=deterministic,
            memory_policy=memory_policy,
            window=window,
            correction_window=correction_window,
            timeout=timeout,
            timings=timings,
        )
        return self._connection.live(
            prompts,
            options,
            delivery=delivery,
            max_latency=max_latency,
            on_prompt=on_prompt,
            on_error=on_error,
        )

    def annotate(
        self,
        video: VideoSource,
        *,
        model: str = "",
        deterministic: bool = False,
        return_logits: bool = False,
        window: int = 0,
        timeout: float | None = None,
    ) -> Annotation:
        """Work on a video as ``SAM2VideoPredictor`` does: prompt any frame, look, correct, track when it is asked for.

            with client.annotate("clip.mp4") as annotation:
                seen = annotation.prompt(Prompt(point_coords=[[360, 480]]))
                print(seen.object.area, seen.object.predicted_iou)
                for frame in annotation.propagate():
                    print(frame.frame_index, frame.objects[1].area)

        The video is uploaded meanwhile. The session ends, and the server is freed, with the `with` block, with `close`,
        or when nothing refers to the answer any more; and with `DeadlineExceeded` when nothing was asked for long, a
        quarter of an hour unless the server's operator says otherwise.

        Args:
            video: As for `track`; an iterable of arrays has to end.
            model: A name from `info`; empty for the server's default.
            deterministic: Never share a batch with other sessions, so that two runs give the same bits.
            return_logits: Results carry low-resolution logits, too (`ObjectResult.logits`).
            window: Frames that the server may be ahead of a loop over results; 0 for as many as it allows, 1 for none
                but the one that is asked for.
            timeout: Seconds for the whole session; None for no limit.

        Raises:
            MaskletError: From here if an argument is wrong, from requests if the server reports a fault.
            OSError: The video cannot be read.
        """
        options = CallOptions(model=model, deterministic=deterministic, window=window, timeout=timeout)
        return self._connection.annotate(open_upload(video), options, return_logits=return_logits)

    def segment(
        self,
        image: ImageSource | Segmentation | ImageId,
        *,
        point_coords: npt.ArrayLike | None = None,
        point_labels: npt.ArrayLike | None = None,
        box: npt.ArrayLike | None = None,
        mask_input: npt.ArrayLike | None = None,
        mask: npt.ArrayLike | None = None,
        multimask_output: bool = True,
        return_logits: bool | None = None,
        model: str = "",
    ) -> Segmentation:
        """Segment one picture, as ``SAM2ImagePredictor.set_image`` and ``predict`` do.

        Every prompt argument may have one dimension more, B prompts that share the picture: boxes of shape [B, 4] from
        a detector give B objects.

        Args:
            image: A path, a file's bytes, a Pillow image, or an array ``uint8[H, W, 3]`` (RGB) or ``uint8[H, W]``;
                or an earlier answer (or its `image_id`) for the same picture again, which is quick.
            point_coords: ``[N, 2]``, x and y in pixels.
            point_labels: ``[N]``, 1 foreground and 0 background; all foreground if left out.
            box: ``[4]``, x0, y0, x1, y1 in pixels.
            mask_input: ``float[1, h, w]``, logits of an earlier answer for the same picture, to refine it.
            mask: ``bool[H, W]``, instead of points and box.
            multimask_output: Three candidates, best first, rather than one: right for an ambiguous prompt such as one
                click.
            return_logits: Also return low-resolution logits, which may come back as `mask_input`; by default for one
                prompt, not for a batch, where they are megabytes.
            model: A name from `info`; empty for the server's default, or for the earlier answer's.

        Raises:
            InvalidArgument: An argument has a wrong shape, or a value is out of range.
            NotFound: No such model, or the server no longer holds the earlier picture: send the picture itself again.
            MaskletError: Any other fault that the server reports.
            OSError: The picture cannot be read.
        """
        request = segment_request(
            image,
            point_coords=point_coords,
            point_labels=point_labels,
            box=box,
            mask_input=mask_input,
            mask=mask,
            multimask_output=multimask_output,
            return_logits=return_logits,
            model=model,
        )
        return segmentation_from_wire(self._connection.ask(self._connection.stub.SegmentImage, request))

    def info(self) -> ServerInfo:
        """The server's models, device, versions and limits.

        Raises:
            MaskletError: The server cannot be reached, or reports a fault.
        """
        request = server_info_pb2.GetServerInfoRequest()
        return _server_info.from_wire(self._connection.ask(self._connection.stub.GetServerInfo, request))

    def health(self) -> bool:
        """Whether the server takes requests now; false while it loads its models or drains.

        Raises:
            MaskletError: The server cannot be reached.
        """
        answer = self._connection.ask(self._connection.health.Check, health_pb2.HealthCheckRequest())
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
