"""The decoding process, forked by `fork_server_main`.

Knows neither torch nor grpc nor NumPy, so that it has little to give away.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import time
import zlib
from collections import deque
from collections.abc import Iterator
from typing import Any, NoReturn

from masklet_server.video.messages import Channel, Message, Refusal
from masklet_server.video.worker.arriving_file import ArrivingFile
from masklet_server.video.worker.clip_decoder import Clip, ShownFrame, decoder_threads
from masklet_server.video.worker.confinement import confine
from masklet_server.video.worker.packet_decoder import PacketDecoder
from masklet_server.video.worker.pixels import check_size, from_bytes, shrink


class Worker:
    """The process's state: its pipes, its shared memory, and which slots are free."""

    def __init__(self, channel: Channel, setup: Message, memory: mmap.mmap) -> None:
        self.channel = channel
        self.limits: dict[str, Any] = setup["limits"]
        self.image_size: int = setup["image_size"]
        self._memory = memory
        self._slots: int = setup["slots"]
        self._slot_bytes: int = setup["slot_bytes"]
        self._free = self._slots
        self._next = 0
        self.spool: ArrivingFile | None = None
        # Packets, and the end, that came while a slot was awaited; the parent bounds them.
        self.backlog: deque[tuple[Message, bytes]] | None = None

    def pump(self) -> None:
        """Wait for one message of the parent and act on it."""
        message = self.channel.receive()
        if message["type"] == "free":
            self._free += 1
        elif self.backlog is not None and message["type"] in ("packet", "codec", "end"):
            self.backlog.append((message, self.channel.receive_bytes(message.get("size", 0))))
        elif self.spool is not None and message["type"] == "arrived":
            self.spool.arrived = message["size"]
        elif self.spool is not None and message["type"] == "end":
            self.spool.complete = True
        else:
            raise ValueError(f"unexpected message {message['type']!r}")

    def put(self, pixels: bytes) -> int:
        """Write into the next slot, waiting until it is free, and return its number."""
        while not self._free:
            self.pump()
        return self._write(pixels)

    def put_now(self, pixels: bytes) -> int:
        """Write into the next slot, which the parent knows to be free."""
        self._free = self._slots
        return self._write(pixels)

    def send_frame(self, frame: ShownFrame, slot: int, seconds: float, *, checksum: int = 0) -> None:
        """Tell of a frame whose pixels are in a slot, how long it took to make, and by what it is known again."""
        self.channel.send(
            "frame",
            slot=slot,
            pts=frame.pts,
            height=frame.height,
            width=frame.width,
            decode_seconds=seconds,
            checksum=checksum,
        )

    def _write(self, pixels: bytes) -> int:
        if len(pixels) > self._slot_bytes:
            raise ValueError(f"{len(pixels)} bytes do not fit a slot of {self._slot_bytes}")
        slot = self._next
        start = slot * self._slot_bytes
        self._memory[start : start + len(pixels)] = pixels
        self._next = (slot + 1) % self._slots
        self._free -= 1
        return slot


class Stopwatch:
    """How long frames take to make, pauses left out."""

    def __init__(self) -> None:
        self._paused = 0.0

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """What happens within does not count."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._paused += time.perf_counter() - start

    def timed(self, frames: Iterator[ShownFrame]) -> Iterator[tuple[ShownFrame, float]]:
        """Each frame, and the seconds that it took to come."""
        while True:
            start = time.perf_counter() - self._paused
            if (frame := next(frames, None)) is None:
                return
            yield frame, time.perf_counter() - self._paused - start


def decode_clip(worker: Worker, spool_fd: int, again: Message | None) -> None:
    """Send every frame of the clip that arrives in the spool, or those from one on of what has arrived."""
    watch = Stopwatch()

    def wait_for_bytes() -> None:
        with watch.paused():
            worker.pump()

    worker.spool = ArrivingFile(spool_fd, wait_for_bytes)
    if again is not None:
        worker.spool.arrived, worker.spool.complete = again["size"], True
    size, threads = worker.image_size, decoder_threads()
    clip = Clip(worker.spool, worker.limits, image_size=size, threads=threads, seeks=again is not None)
    frames = clip.frames() if again is None else _frames_again(clip, again)
    for index, (frame, seconds) in enumerate(watch.timed(frames)):
        if index == 0:
            _send_info(worker, clip, frame)
        worker.send_frame(frame, worker.put(frame.pixels), seconds, checksum=zlib.crc32(frame.pixels))


def _frames_again(clip: Clip, again: Message) -> Iterator[ShownFrame]:
    if again["seek"] is None:
        return clip.frames(skip=again["skip"])
    clip.seek(again["seek"])
    return clip.frames(since=again["since"])


def _send_info(worker: Worker, clip: Clip, first: ShownFrame) -> None:
    base = clip.time_base
    worker.channel.send(
        "info",
        **clip.info(),
        height=first.height,
        width=first.width,
        rotation_degrees=first.rotation_degrees,
        time_base=[base.numerator, base.denominator],
    )


def decode_pictures(worker: Worker, *, live: bool) -> None:
    """Send every picture that comes, at the model's size, all as large as the first one unless they are live."""
    first: tuple[int, int] | None = None
    pixels, most = 0, worker.limits["max_decoded_pixels"]
    while (message := worker.channel.receive())["type"] != "end":
        start = time.perf_counter()
        picture = _receive_picture(worker, message, "frame.data")
        if first is None:
            first = picture.size
            worker.channel.send("info", height=picture.height, width=picture.width, time_base=[1, 1_000_000_000])
        if picture.size != first and not live:
            raise Refusal(
                "InvalidArgument",
                f"frame {message['index']} is {picture.width}x{picture.height} pixels, the first one was "
                f"{first[0]}x{first[1]}; all frames of a stream must have one size, unless config.live is set",
                "frame.data",
            )
        pixels += picture.width * picture.height
        if 0 < most < pixels:
            raise Refusal(
                "ResourceExhausted",
                f"the video's pictures have {pixels} pixels or more in all; max_decoded_pixels is {most}",
            )
        shown = ShownFrame(message["pts"], picture.height, picture.width, shrink(picture, worker.image_size), 0)
        slot = worker.put_now(shown.pixels)
        worker.send_frame(shown, slot, time.perf_counter() - start)
    if first is None:
        raise Refusal("InvalidArgument", "no picture was sent; a video needs at least one", "frame")


def decode_packets(worker: Worker) -> None:
    """Send every frame of the packets that come, at the model's size, and say of each packet when it is done with."""
    worker.backlog = deque()
    decoder: PacketDecoder | None = None
    count = 0
    while True:
        while not worker.backlog:
            worker.pump()
        message, data = worker.backlog.popleft()
        if message["type"] == "codec":
            decoder = PacketDecoder(
                message["name"],
                data,
                worker.limits,
                image_size=worker.image_size,
                is_fragment=message["is_fragment"],
            )
            continue
        if decoder is None:
            break  # the end, without any packet
        frames = decoder.decode(data, message["index"]) if message["type"] == "packet" else decoder.drain()
        for frame, seconds in Stopwatch().timed(frames):
            if count == 0:
                _send_packet_info(worker, decoder, frame)
            worker.send_frame(frame, worker.put(frame.pixels), seconds)
            count += 1
        if message["type"] == "end":
            break
        worker.channel.send("taken", index=message["index"])
    if count == 0:
        raise Refusal("DataLoss", "no packet gave a frame: there was no key frame, or all were damaged")


def _send_packet_info(worker: Worker, decoder: PacketDecoder, first: ShownFrame) -> None:
    worker.channel.send(
        "info",
        container="packets",
        codec=decoder.codec,
        height=first.height,
        width=first.width,
        rotation_degrees=first.rotation_degrees,
        time_base=[1, 1_000_000_000],
    )


def decode_single_pictures(worker: Worker) -> None:
    """Send every picture that comes at full size; one that is refused does not harm the next."""
    while (message := worker.channel.receive())["type"] != "end":
        _answer_single_picture(worker, message)


def _answer_single_picture(worker: Worker, message: Message) -> None:
    try:
        picture = _receive_picture(worker, message, "data")
        slot = worker.put_now(picture.tobytes())
    except Refusal as refusal:
        _send_refusal(worker.channel, refusal)
    except MemoryError:
        _send_refusal(worker.channel, _out_of_memory(worker.limits))
    else:
        worker.channel.send("frame", slot=slot, pts=0, height=picture.height, width=picture.width)


def _receive_picture(worker: Worker, message: Message, field: str) -> Any:
    data = worker.channel.receive_bytes(message["size"])
    max_pixels, max_side = worker.limits["max_frame_pixels"], worker.limits["max_side"]
    if message["format"] != "encoded":
        check_size(message["height"], message["width"], max_pixels=max_pixels, max_side=max_side, what="the picture")
    return from_bytes(
        data,
        message["format"],
        message["height"],
        message["width"],
        max_pixels=max_pixels,
        max_side=max_side,
        field=field,
    )


def _send_refusal(channel: Channel, refusal: Refusal) -> None:
    channel.send("error", kind=refusal.kind, message=refusal.message, field=refusal.field)


def _out_of_memory(limits: dict[str, Any]) -> Refusal:
    return Refusal(
        "ResourceExhausted",
        f"decoding needs more memory than decoder_memory_bytes = {limits['decoder_memory_bytes']} allows",
    )


def serve(channel: Channel, memory_fd: int, spool_fd: int) -> None:
    """Do what the setup message says, in confinement, and report how it ended."""
    setup = channel.receive()
    limits = setup["limits"]
    memory = mmap.mmap(memory_fd, setup["slots"] * setup["slot_bytes"])
    os.close(memory_fd)
    confine(memory_bytes=limits["decoder_memory_bytes"], cpu_seconds=limits["decoder_cpu_seconds"])
    worker = Worker(channel, setup, memory)
    try:
        if setup["mode"] == "clip":
            decode_clip(worker, spool_fd, setup.get("again"))
        elif setup["mode"] in ("pictures", "live pictures"):
            decode_pictures(worker, live=setup["mode"] == "live pictures")
        elif setup["mode"] == "packets":
            decode_packets(worker)
        else:
            decode_single_pictures(worker)
        channel.send("end")
    except (EOFError, BrokenPipeError):
        raise
    except Refusal as refusal:
        _send_refusal(channel, refusal)
    except MemoryError:
        _send_refusal(channel, _out_of_memory(limits))
    except Exception as error:
        _send_refusal(channel, Refusal("Internal", f"{type(error).__name__} in the decoding process: {error}"))
        raise


def run(memory_fd: int, spool_fd: int) -> NoReturn:
    """Take over stdin and stdout as the channel, serve, and leave without waiting for decoder threads."""
    channel = Channel(os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb"))
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1):  # nothing that a library prints gets among the messages
        os.dup2(null, standard)
    status = 0
    try:
        serve(channel, memory_fd, spool_fd)
    except (EOFError, BrokenPipeError):
        pass  # the parent is gone or wants no more
    except Exception:  # noqa: BLE001 - reported to the parent by now
        status = 1
    os._exit(status)
