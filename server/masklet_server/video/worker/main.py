"""The decoding process, from the fork to its end. `fork_server_main` forks it.

It has neither torch nor grpc nor NumPy, so that it starts quickly and has little to give away.
"""

from __future__ import annotations

import mmap
import os
from typing import NoReturn

from masklet_media.confinement import Outside, confine
from masklet_server.video.messages import Channel, EndOfFrames, Setup, decode_to_decoder
from masklet_server.video.worker import hardware, tasks
from masklet_server.video.worker.connection import ServerChannel, ServerConnection
from masklet_server.video.worker.refusal import Refusal, out_of_memory

# By how much the engine, and others, go first. A file is decoded ahead of its tracking: many at once would otherwise
# take the processors' time from live streams. Where nobody else wants it, this changes nothing.
_NICENESS, _FILE_NICENESS = 5, 15


def run(memory_fd: int, upload_fd: int) -> NoReturn:
    """Take over stdin and stdout as the channel, serve, and leave without waiting for the threads of decoders."""
    channel = Channel(os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb"), decode_to_decoder)
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1):  # nothing that a library prints gets among the messages
        os.dup2(null, standard)
    status = 0
    try:
        serve(channel, memory_fd, upload_fd)
    except (EOFError, BrokenPipeError):
        pass  # the server is gone or wants no more
    except Exception:  # noqa: BLE001 - the server has been told by now
        status = 1
    os._exit(status)


def serve(channel: ServerChannel, memory_fd: int, upload_fd: int) -> None:
    """Do what the first message says, in confinement, and tell the server how it ended."""
    setup = channel.receive()
    if not isinstance(setup, Setup):
        raise ValueError(f"the first message is a {type(setup).__name__}, it must be a Setup")
    memory = mmap.mmap(memory_fd, setup.slots * setup.slot_bytes)
    os.close(memory_fd)
    # Without a GPU nothing is left to the process, whatever the settings ask for.
    gpu = setup.limits.hwaccel == "cuda" and setup.mode in ("clip", "packets") and hardware.prepare()
    missing = confine(
        memory_bytes=setup.limits.decoder_memory_bytes,
        cpu_seconds=setup.limits.decoder_cpu_seconds,
        nice=_FILE_NICENESS if setup.mode == "clip" and setup.redecode is None else _NICENESS,
        outside=Outside(gpu=gpu),
    )
    try:
        if missing and setup.limits.strict_sandbox:
            # They were there when the server started; the number of namespaces, for example, is limited.
            raise Refusal(
                "ResourceExhausted",
                f"sandbox is strict, and the decoding process lacks {', '.join(missing)}; try again later",
            )
        _decode(setup, ServerConnection(channel, setup, memory), upload_fd)
        channel.send(EndOfFrames())
    except (EOFError, BrokenPipeError):
        raise
    except Refusal as refusal:
        channel.send(refusal.as_message())
    except MemoryError:
        channel.send(out_of_memory(setup.limits).as_message())
    except Exception as error:
        fault = Refusal("Internal", f"{type(error).__name__} in the decoding process: {error}")
        channel.send(fault.as_message())
        raise


def _decode(setup: Setup, server: ServerConnection, upload_fd: int) -> None:
    match setup.mode:
        case "clip":
            tasks.decode_clip(server, upload_fd, setup.redecode)
        case "pictures" | "live pictures":
            tasks.decode_pictures(server, live=setup.mode == "live pictures")
        case "packets":
            tasks.decode_packets(server)
        case "single pictures":
            tasks.decode_single_pictures(server)
