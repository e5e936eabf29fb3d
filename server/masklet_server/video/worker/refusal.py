"""How the decoding process says that its input can't be decoded, or may not be."""

from __future__ import annotations

from masklet_server.video.limits import VideoLimits
from masklet_server.video.messages import MAX_TEXT_CHARACTERS, DecodingFailed, ErrorKind


class Refusal(Exception):  # noqa: N818 - it is a verdict on the input, not a fault of the program
    """Stands for one of masklet.errors, which the decoding process does not import.

    Attributes:
        kind: A class of `masklet.errors`.
        message: Names the cause and, where there is one, the fix.
        field: The field of the request that is wrong, for InvalidArgument.
    """

    def __init__(self, kind: ErrorKind, message: str, field: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.field = field

    def as_message(self) -> DecodingFailed:
        """The message that tells the server."""
        return DecodingFailed(self.kind, self.message[:MAX_TEXT_CHARACTERS], self.field)


def out_of_memory(limits: VideoLimits) -> Refusal:
    """The refusal of input for which the memory limit is too low."""
    return Refusal(
        "ResourceExhausted",
        f"decoding needs more memory than decoder_memory_bytes = {limits.decoder_memory_bytes} allows; "
        "send a smaller video or picture",
    )
