"""What a decoding process says or does when it fails, as errors for the client."""

from __future__ import annotations

import signal

from masklet.errors import DataLoss, Internal, InvalidArgument, MaskletError, ResourceExhausted, Unavailable
from masklet_server.video.limits import VideoLimits
from masklet_server.video.messages import DecodingFailed, ErrorKind, MessageError
from masklet_server.video.sandbox.answers import UnexpectedAnswer

_CLASSES: dict[ErrorKind, type[MaskletError]] = {
    "InvalidArgument": InvalidArgument,
    "DataLoss": DataLoss,
    "ResourceExhausted": ResourceExhausted,
    "Internal": Internal,
}


def error_of(message: DecodingFailed) -> MaskletError:
    """The error that the process reported."""
    if message.kind == "InvalidArgument" and message.field:
        return InvalidArgument.of(message.field, message.message)
    return _CLASSES[message.kind](message.message)


def error_of_shortage(error: OSError) -> ResourceExhausted:
    """The error where the machine has no process, descriptor or memory for one more decoding process."""
    return ResourceExhausted(f"the server cannot start a decoding process: {error.strerror}; try again later")


def error_of_answer(error: MessageError) -> MaskletError:
    """The error of a process whose answer was refused."""
    if isinstance(error, UnexpectedAnswer):
        return error_of_nonsense(f"{error.kind} with wrong values or at the wrong time")
    return error_of_nonsense("something that is no message")


def error_of_nonsense(what: str) -> MaskletError:
    """The error of a process that sent what no working process sends.

    Args:
        what: Names the message.
    """
    return DataLoss(f"the decoding process sent {what}; the video may be damaged or malicious")


def error_of_death(returncode: int | None, limits: VideoLimits) -> MaskletError:
    """The error of a process that ended without reporting one.

    Args:
        returncode: Its exit status, or the signal that killed it, negative; None if the fork server ended with it.
        limits: What the process was allowed.
    """
    if returncode is None:
        return Unavailable(
            "the decoding process was ended, because the process that forks decoders has died or did not answer; your "
            "input is not the cause, send it again",
            retry_after_seconds=1.0,
        )
    if returncode >= 0:
        return DataLoss(
            f"the decoding process ended with status {returncode}, and did not say why: the input is damaged "
            "or malicious"
        )
    number = -returncode
    if number == signal.SIGXCPU:
        return ResourceExhausted(
            f"decoding took more processor time than decoder_cpu_seconds = {limits.decoder_cpu_seconds} allows; "
            "send a shorter or smaller video"
        )
    if number == signal.SIGKILL:
        return ResourceExhausted(
            "the decoding process was killed, most likely because the server ran out of memory; try again later",
            retry_after_seconds=1.0,
        )
    if number == signal.SIGSYS:
        return DataLoss(
            "the decoder was ended because it tried what decoding does not need (SIGSYS): the input is damaged or "
            "malicious"
        )
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    return DataLoss(
        f"the decoder crashed on this input ({name}): the input is damaged, or needs more memory than "
        f"decoder_memory_bytes = {limits.decoder_memory_bytes} allows"
    )
