"""What a session needs of the engine and of video, so that either can be stood in for."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Protocol

from masklet_server.engine.memory.bank import MemoryBank
from masklet_server.engine.memory.history import History
from masklet_server.engine.memory.policies import MemoryPolicy
from masklet_server.engine.memory.tensor_file import TensorFile
from masklet_server.engine.serving.jobs import FrameOutput, TrackingJob
from masklet_server.engine.serving.loaded_model import LoadedModel
from masklet_server.video.sources.packets import Packet
from masklet_server.video.sources.pictures import Picture
from masklet_server.video.sources.source import Frame, VideoInfo


class TrackingEngine(Protocol):
    """The part of `masklet_server.engine.serving.scheduler.Engine` that tracks."""

    @property
    def models(self) -> Mapping[str, LoadedModel]:
        """Loaded models by name."""

    @property
    def default_model(self) -> str:
        """The one used where none is named."""

    def new_bank(
        self, model: str, *, correction_window: int = 0, memory_policy: MemoryPolicy = MemoryPolicy.SAM2
    ) -> MemoryBank:
        """An empty memory for one object; freed when its last reference goes."""

    def load_bank(self, model: str, data: bytes) -> MemoryBank:
        """A memory that was dumped; takes milliseconds, so not on the event loop."""

    def new_history(self, model: str, shelf: TensorFile) -> History:
        """An empty memory for one object that is tracked on request."""

    async def run(self, job: TrackingJob) -> FrameOutput:
        """Do one operation on objects of one stream."""

    async def forget(self, stream: str) -> None:
        """Drop the stream's waiting jobs."""


class Source(Protocol):
    """Frames of one video; see `masklet_server.video.sources.source.FrameSource`."""

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


class EarlierInput(Protocol):
    """Frames that a source has given already; see `masklet_server.video.sources.clip_redecoder.ClipAgain`."""

    async def __aenter__(self) -> EarlierInput:
        """Start decoding."""

    async def __aexit__(self, *exc_info: object) -> None:
        """Kill the decoder."""

    async def next_frame(self) -> Frame:
        """Wait for the next frame; it must be one that was given before. DataLoss where it is not the same any more."""


class ClipInput(Source, Protocol):
    """A source that takes a video file's bytes."""

    async def feed(self, chunk: bytes) -> None:
        """Take the next bytes."""

    def again(self, frame_index: int) -> EarlierInput:
        """The frames once more, from one on that was given already."""


class PictureInput(Source, Protocol):
    """A source that takes pictures."""

    async def feed(self, picture: Picture) -> None:
        """Take the next picture; waits while enough of them are decoded ahead."""


class LatestInput(PictureInput, Protocol):
    """A source that takes pictures, and gives frames of those that are the latest when it is asked for one."""

    @property
    def has_waiting(self) -> bool:
        """Whether there is a picture that was not asked for."""


class PacketInput(Source, Protocol):
    """A source that takes packets."""

    async def feed(self, packet: Packet) -> None:
        """Take the next packet; waits while many of them are not decoded."""

    async def packets_taken(self) -> int:
        """Wait until a good deal more was decoded; packets, since the start, that wait no longer."""


class Download(Protocol):
    """A video that the server fetches; see `masklet_server.fetching.fetch.Fetch`."""

    def chunks(self) -> AsyncGenerator[bytes, None]:
        """Its bytes, as they come."""


class Sources(Protocol):
    """Makes sources, not yet entered, of frames resized to a model's size."""

    def clip(self, image_size: int) -> ClipInput:
        """For a file that arrives in chunks."""

    def pictures(self, image_size: int, *, live: bool) -> PictureInput:
        """For a series of pictures; of a live one they may differ in size, and no limit on clips holds."""

    def latest_pictures(self, image_size: int, *, max_latency_seconds: float) -> LatestInput:
        """For a live series of pictures of which those that wait longer are not wanted."""

    def packets(self, image_size: int) -> PacketInput:
        """For a codec's packets."""

    def download(self, url: str) -> Download:
        """For a video file somewhere else; InvalidArgument where that is not allowed."""
