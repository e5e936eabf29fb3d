"""What a session needs of the engine and of video sources, as protocols, so that tests can replace both."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Protocol

from masklet_server.engine.memory.bank import MemoryBank
from masklet_server.engine.memory.history import History
from masklet_server.engine.memory.policies import MemoryPolicy
from masklet_server.engine.memory.tensor_file import TensorFile
from masklet_server.engine.serving.jobs import FrameOutput, TrackingJob
from masklet_server.engine.serving.loaded_model import LoadedModel
from masklet_server.video.frame import Frame, KeyFrame
from masklet_server.video.info import VideoInfo
from masklet_server.video.model_input import ModelInput
from masklet_server.video.packet import Packet
from masklet_server.video.picture import Picture


class TrackingEngine(Protocol):
    """The part of `masklet_server.engine.serving.engine.Engine` that tracks."""

    @property
    def models(self) -> Mapping[str, LoadedModel]:
        """The loaded models, by name."""

    @property
    def default_model(self) -> str:
        """Name of the model for sessions that name none."""

    def new_bank(
        self, model: str, *, correction_window: int = 0, memory_policy: MemoryPolicy = MemoryPolicy.SAM2
    ) -> MemoryBank:
        """Make an empty memory for one object. It is freed with its last reference."""

    def load_bank(self, model: str, data: bytes) -> MemoryBank:
        """Make a memory from a dump. It takes milliseconds: not for the event loop."""

    def new_history(self, model: str, file: TensorFile) -> History:
        """Make an empty memory for one object that is tracked on request."""

    async def run(self, job: TrackingJob) -> FrameOutput:
        """Do one operation on objects of one stream, and wait for its outcome."""

    async def forget(self, stream: str) -> None:
        """Drop the stream's jobs that wait. A job that runs goes on to its end."""


class FrameSource(Protocol):
    """Gives the frames of one video, in order. An asynchronous context manager, which is entered before all else.

    `masklet_server.video.sources.sandboxed.SandboxedSource` is one.
    """

    async def __aenter__(self) -> object:
        """Start decoding."""

    async def __aexit__(self, *exc_info: object) -> None:
        """Kill the decoder and free what it held."""

    async def info(self) -> VideoInfo:
        """Wait for the first frame and describe the video."""

    async def next_frame(self) -> Frame | None:
        """Wait for the next frame; None after the last one."""

    async def end(self) -> None:
        """Say that nothing more will be fed."""

    @property
    def undecoded_at_end(self) -> tuple[int, ...]:
        """After the last frame: times in nanoseconds of the frames behind it that could not be decoded."""


class ClipSource(FrameSource, Protocol):
    """Gives the frames of a video file, whose bytes it is fed."""

    async def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the file."""

    def redecode(self, frame_index: int) -> ClipRedecoder:
        """Make a reader of the same frames from that one on, which must have been taken from this source before."""


class ClipRedecoder(Protocol):
    """Gives frames of a clip that its source has given before; an asynchronous context manager.

    `masklet_server.video.sources.clip_redecoder.ClipRedecoder` is one.
    """

    async def __aenter__(self) -> ClipRedecoder:
        """Start decoding."""

    async def __aexit__(self, *exc_info: object) -> None:
        """Kill the decoder."""

    async def next_frame(self) -> Frame:
        """Wait for the next frame, which the source must have given before.

        Raises:
            DataLoss: The frame is not the same when it is decoded again.
        """


class PictureSource(FrameSource, Protocol):
    """Gives one frame for each picture that it is fed."""

    def has_room_for(self, picture: Picture) -> bool:
        """Whether the picture is decoded soon, or dropped, so that it need not wait on disk."""

    async def wait_for_room(self, picture: Picture) -> None:
        """Wait until the source has room for the picture."""

    def begin_at(self, index: int) -> None:
        """The first picture that will be fed has this index, because the video began elsewhere."""

    async def feed(self, picture: Picture) -> None:
        """Take the next picture. Without room it waits on disk; raises ResourceExhausted if too much waits there."""


class LatestPictureSource(PictureSource, Protocol):
    """Gives frames of the latest pictures only: each time it is asked for a frame, it drops pictures that are old."""

    @property
    def has_waiting(self) -> bool:
        """Whether a picture was fed that is not decoded yet."""


class PacketSource(FrameSource, Protocol):
    """Gives the frames of a codec's packets, which it is fed."""

    @property
    def codec(self) -> tuple[str, bytes]:
        """The stream's codec, empty before the first packet, and its extradata."""

    def begin_at(self, start: KeyFrame) -> None:
        """The first packet that will be fed begins this frame, and is this packet of a stream that began elsewhere."""

    def has_room_for(self, packet: Packet) -> bool:
        """Whether the packet is decoded soon, or dropped, so that it need not wait on disk."""

    async def wait_for_room(self, packet: Packet) -> None:
        """Wait until the source has room for the packet."""

    async def feed(self, packet: Packet) -> None:
        """Take the next packet. Without room it waits on disk; raises ResourceExhausted if too much waits there."""

    async def packets_taken(self) -> int:
        """Wait until decoding has made progress; returns how many packets, since the start, have been decoded."""


class Download(Protocol):
    """A video file that the server fetches itself; see `masklet_server.fetching.download.VideoDownload`."""

    def chunks(self) -> AsyncGenerator[bytes, None]:
        """Give the file's bytes as they arrive."""


class SourceFactory(Protocol):
    """Makes sources, not yet entered, whose frames have the size that a model takes.

    `masklet_server.video.sources.factory.SandboxedSourceFactory` is one.
    """

    def clip(self, model: ModelInput) -> ClipSource:
        """Make a source for a video file that arrives in chunks."""

    def pictures(self, model: ModelInput, *, live: bool) -> PictureSource:
        """Make a source for a series of pictures. Live ones may differ in size and are not limited in number."""

    def latest_pictures(self, model: ModelInput, *, max_latency_seconds: float) -> LatestPictureSource:
        """Make a source for a live series of pictures that drops those which wait longer than that."""

    def packets(self, model: ModelInput, *, latest: bool) -> PacketSource:
        """Make a source for a codec's packets; `latest`: only the latest frames are wanted."""

    def download(self, url: str) -> Download:
        """Make a download of a video file; raises InvalidArgument where the URL is not allowed."""
