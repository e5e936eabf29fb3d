"""The bounds of one session."""

from __future__ import annotations

from dataclasses import dataclass, replace

from masklet.errors import InvalidArgument


@dataclass(frozen=True)
class SessionLimits:
    """Bounds of one session.

    Attributes:
        max_objects: Number of objects that are tracked at once, and of prompts that wait for their frames.
        window: Number of frame results that may be sent before the client acknowledges the first of them.
        idle_timeout_seconds: The session ends after this time without a message from the client, a decoded frame or a
            result.
        annotation_idle_timeout_seconds: The same for propagation on request, once all of the video is there. It is
            longer, because people think before they ask.
        max_session_seconds: The session ends after this time, whatever happens in it; 0: no limit.
        min_upload_bytes_per_second: Bytes of a file that come slower are no progress; 0: any byte is.
        max_latency_seconds: How long a frame may wait before it is tracked, if the client wants only the latest frames
            and does not say how long.
        correction_window: Number of the last tracked frames that can be corrected; 0: none. It is also the number of
            frames between two snapshots of an object's memory, for a video file.
        correction_bytes: Size of these frames' pixels together with what memory banks keep for corrections. If it is
            too small, fewer frames can be corrected.
        max_mask_bytes: Size of one encoded mask in a prompt. All masks that wait for their frames together may take
            four times as much.
        max_stored_frame_bytes: Size of the temporary file with all frames of a video, for propagation on request.
        max_history_bytes: Size of the temporary file with the objects' histories, for propagation on request, or with
            snapshots of their memories, for a video file.
        max_message_bytes: Size of one gRPC message. All results of a frame must fit into one message.
    """

    max_objects: int = 64
    window: int = 64
    idle_timeout_seconds: float = 60.0
    annotation_idle_timeout_seconds: float = 900.0
    max_session_seconds: float = 0.0
    min_upload_bytes_per_second: int = 1024
    max_latency_seconds: float = 0.02
    correction_window: int = 64
    correction_bytes: int = 256 * 1024**2
    max_mask_bytes: int = 16 * 1024**2
    max_stored_frame_bytes: int = 8 * 1024**3
    max_history_bytes: int = 8 * 1024**3
    max_message_bytes: int = 32 * 1024**2

    def with_logits(self, logits_bytes: int) -> SessionLimits:
        """The limits for results that contain logits: perhaps fewer objects, so that a frame's results fit a message.

        Args:
            logits_bytes: Size of one object's logits on one frame.

        Raises:
            InvalidArgument: Not even one object's logits fit into a message.
        """
        fitting = self.max_message_bytes * 3 // 4 // logits_bytes  # a quarter is left for masks and all else
        if fitting == 0:
            raise InvalidArgument.of(
                "config.return_logits",
                f"is not possible: the logits of one object take {logits_bytes} bytes, too many for a message of "
                f"max_message_bytes = {self.max_message_bytes} bytes; leave it out or choose a smaller model",
            )
        return replace(self, max_objects=min(self.max_objects, fitting))


@dataclass(frozen=True)
class ParkingLimits:
    """Bounds of what waits for clients that are away.

    Attributes:
        park_seconds: How long a session waits; 0: no session can be resumed.
        max_sessions: Number of sessions that wait; beyond it, those that have waited longest end.
        max_sessions_per_client: The same of one client.
        keep_bytes: Size of one session's responses that its client does not have.
    """

    park_seconds: float = 30.0
    max_sessions: int = 32
    max_sessions_per_client: int = 8
    keep_bytes: int = 16 * 1024**2


@dataclass(frozen=True)
class SnapshotLimits:
    """Bounds of snapshots.

    Attributes:
        seconds: How long one is kept of a session that does not go on.
        max_bytes: Size of one; a session that is larger has none.
        max_total_bytes: Size of those of all sessions of a server, the last two of each.
        frames: Number of tracked frames after which one is made.
    """

    seconds: float = 3600.0
    max_bytes: int = 256 * 1024**2
    max_total_bytes: int = 8 * 1024**3
    frames: int = 64
