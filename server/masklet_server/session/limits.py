"""What one session may hold."""

from __future__ import annotations

from dataclasses import dataclass, replace

from masklet.errors import InvalidArgument


@dataclass(frozen=True)
class SessionLimits:
    """Bounds of one session.

    Attributes:
        max_objects: Objects followed at once, and prompts waiting for a frame, each.
        window: Frame results sent ahead of the client's acknowledgement.
        idle_timeout_seconds: Time without a message from the client, a decoded frame or a result, after which the
            session ends.
        annotation_idle_timeout_seconds: The same once the video of a session has ended whose client asks for each
            propagation: people think.
        max_latency_seconds: How long a frame may wait to be tracked, where the client wants the latest frames and does
            not say itself.
        correction_window: Of the last frames, how many are kept so that they can still be prompted; 0: none that was
            tracked can be. Of a file so many frames lie between two states of an object's memory that are put away.
        correction_bytes: What these frames' pixels, and what memory banks hold for their sake, may take; where it does
            not suffice, fewer frames can be corrected.
        max_mask_bytes: Size of an encoded mask in a prompt; those that wait for their frames may take four times that.
        max_stored_frame_bytes: Of the temporary file with all frames of a video whose client asks for each propagation.
        max_history_bytes: Of the temporary file with what such a session, or one with a video file, remembers of its
            objects.
        max_message_bytes: Of one gRPC message, which has to hold all results of a frame.
    """

    max_objects: int = 64
    window: int = 64
    idle_timeout_seconds: float = 60.0
    annotation_idle_timeout_seconds: float = 900.0
    max_latency_seconds: float = 0.02
    correction_window: int = 64
    correction_bytes: int = 256 * 1024**2
    max_mask_bytes: int = 16 * 1024**2
    max_stored_frame_bytes: int = 8 * 1024**3
    max_history_bytes: int = 8 * 1024**3
    max_message_bytes: int = 32 * 1024**2

    def with_logits(self, logits_bytes: int) -> SessionLimits:
        """The limits where each object's result carries so many bytes of logits: perhaps fewer objects.

        Raises:
            InvalidArgument: Not even one object's logits fit into a message.
        """
        fitting = self.max_message_bytes * 3 // 4 // logits_bytes  # a quarter is left for masks and all else
        if fitting == 0:
            raise InvalidArgument.of(
                "config.return_logits",
                f"the logits of one object take {logits_bytes} bytes, which max_message_bytes = "
                f"{self.max_message_bytes} has no room for; leave it out",
            )
        return replace(self, max_objects=min(self.max_objects, fitting))
