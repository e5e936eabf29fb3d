"""A fast, deterministic engine and video sources without decoder, for tests of what lies above them."""

from __future__ import annotations

import asyncio
import pickle
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import cast

import numpy as np
import numpy.typing as npt

from masklet.errors import DataLoss, FailedPrecondition, NotFound
from masklet.prompts import Prompt
from masklet_server.engine.memory.bank import MemoryBank
from masklet_server.engine.memory.history import History
from masklet_server.engine.memory.policies import MemoryPolicy
from masklet_server.engine.memory.tensor_file import TensorFile
from masklet_server.engine.serving.jobs import (
    ApplyPrompt,
    ClearPrompts,
    ConsolidatePrompts,
    FrameJob,
    FrameOutput,
    ObjectOutput,
    Track,
    TrackBackward,
    TrackingJob,
)
from masklet_server.engine.serving.loaded_model import LoadedModel
from masklet_server.engine.serving.picture_jobs import Candidate, PictureJob, PictureOutput
from masklet_server.masks.runs import Runs
from masklet_server.video.frame import Frame
from masklet_server.video.info import VideoInfo
from masklet_server.video.packet import Packet
from masklet_server.video.picture import Picture
from masklet_server.video.sources.latest_queue import LatestQueue

HEIGHT, WIDTH, IMAGE_SIZE, LOGITS_SIZE = 48, 64, 16, 8
# A byte of a fake clip that cannot be decoded; every other byte is one frame.
BROKEN = 0xFF


# What a fake bank holds of each frame that can be corrected.
FAKE_CORRECTION_BYTES = 100


class FakeBank:
    """Remembers its frames and prompts, forgets what a real bank forgets, and checks the order of what is done to it.

    Attributes:
        number: Which of the engine's banks it is, from 0.
        correction_window: As of a real bank.
        keeps_prompts: As of a real bank.
        prompts: All prompts that were applied.
        frames: The frames on which it was tracked, in order; after a rewind, only those up to that frame.
        corrected: The frames among them that were corrected, and not tracked again since.
        correctable: The frames among them that can still be corrected.
    """

    def __init__(self, number: int, correction_window: int = 0) -> None:
        self.number = number
        self.correction_window = correction_window
        self.keeps_prompts = False
        self.prompts: list[Prompt] = []
        self.frames: list[int] = []
        self.corrected: set[int] = set()
        self.correctable: set[int] = set()
        self._pending: set[int] = set()

    def was_tracked(self, frame_index: int) -> bool:
        return bool(self.frames) and self.frames[0] <= frame_index <= self.frames[-1]

    def prompt(self, frame_index: int, prompts: Sequence[Prompt]) -> None:
        self.prompts += prompts
        if not self.was_tracked(frame_index):
            self._pending.add(frame_index)
            return
        assert frame_index in self.correctable, "the frame can no longer be corrected"
        self.corrected.add(frame_index)

    def advance(self, frame_index: int) -> None:
        assert not self.frames or self.frames[-1] == frame_index - 1, "a frame was skipped"
        self._pending.clear()
        self.frames.append(frame_index)
        self.corrected.discard(frame_index)
        self.correctable.add(frame_index)
        self.keep(self.correction_window)

    def rewind(self, frame_index: int) -> None:
        if frame_index in self._pending and (not self.frames or frame_index < self.frames[0]):
            self.frames = [frame_index]
            self.correctable.add(frame_index)
        else:
            assert frame_index in self.correctable, "the bank can't be rewound so far"
            self.frames = [index for index in self.frames if index <= frame_index]
        self.correctable &= set(self.frames)

    def keep(self, correction_window: int) -> None:
        self.correction_window = correction_window
        self.correctable = {i for i in self.correctable if i > self.frames[-1] - correction_window}

    @property
    def last_frame(self) -> int | None:
        return self.frames[-1] if self.frames else None

    def learn_prompts(self, later: FakeBank) -> None:
        assert self.keeps_prompts
        assert later.keeps_prompts
        self.prompts = list(later.prompts)

    def copy(self) -> FakeBank:
        return FakeEngine.loaded(self.dump())

    def dump(self) -> bytes:
        return pickle.dumps(self)

    @property
    def correction_nbytes(self) -> int:
        return FAKE_CORRECTION_BYTES * len(self.correctable)

    def mask(self, frame_index: int, height: int, width: int) -> npt.NDArray[np.bool_]:
        """Shows how many corrections it knows of, up to the frame."""
        corrections = sum(index <= frame_index for index in self.corrected)
        return fake_mask(self.number, frame_index, height, width, corrections=corrections)


class FakeHistory(FakeBank):
    """May be prompted and tracked anywhere."""

    @property
    def conditioning_frames(self) -> set[int]:
        return {prompt.frame_index for prompt in self.prompts}


def fake_mask(
    number: int, frame_index: int, height: int = HEIGHT, width: int = WIDTH, *, corrections: int = 0
) -> npt.NDArray[np.bool_]:
    """The mask of the bank of that number on that frame: a square that moves, and grows by corrections."""
    mask = np.zeros((height, width), np.bool_)
    x, y = (frame_index + 3 * number) % (width - 8), (2 * frame_index + number) % (height - 8)
    mask[y : y + 8, x : x + 8 + corrections] = True
    return mask


def is_tracking(job: FrameJob) -> bool:
    """Whether the job tracks its frame; else it says something of one object, or takes it back."""
    return isinstance(job, (Track, TrackBackward))


def prompts_in(job: FrameJob) -> list[Prompt]:
    """All prompts that the job applies, in order."""
    return [prompt for _, prompts in _said(job) for prompt in prompts]


def upcoming(job: FrameJob) -> list[int]:
    """Of each of the pictures that may be encoded along with the job's own, the value of its pixels."""
    return [int(picture[0, 0, 0]) for picture in job.upcoming] if isinstance(job, (Track, TrackBackward)) else []


def _said(job: FrameJob) -> Sequence[tuple[object, Sequence[Prompt]]]:
    """Each object's memory and the prompts that are applied to it."""
    if isinstance(job, Track):
        return [(task.memory, task.prompts) for task in job.tasks]
    prompts = [job.prompt] if isinstance(job, ApplyPrompt) else []
    return [(memory, prompts) for memory in job.memories]


class FakeEngine:
    """Stands in for the engine.

    Attributes:
        jobs: Every job on a frame that it was given, in order.
        consolidations: Every other job that it was given.
        banks: Every bank it made, in order.
        policies: What each of them keeps.
        looks: Says what the object of a bank has on a frame: object score, predicted IoU and mask; None: as usual.
        forgotten: Streams that were forgotten.
        open_gate: Jobs wait until it is set.
        refuse: Says for each job which error it ends in, if any.
        running: Jobs under way.
        max_running: The most there ever were at once.
    """

    def __init__(self) -> None:
        model = LoadedModel("fake", IMAGE_SIZE, LOGITS_SIZE, "float32", "cpu", "a fake", 7)
        self.models = {"fake": model, "other": replace(model, name="other")}
        self.default_model = "fake"
        self.jobs: list[FrameJob] = []
        self.consolidations: list[ConsolidatePrompts] = []
        self.pictures: list[PictureJob] = []
        self.banks: list[FakeBank] = []
        self.policies: list[MemoryPolicy] = []
        self.forgotten: list[str] = []
        self.open_gate = asyncio.Event()
        self.open_gate.set()
        self.looks: Callable[[FrameJob, int], ObjectOutput] | None = None
        self.refuse: Callable[[FrameJob], Exception | None] = lambda _: None
        self.running = self.max_running = 0

    def new_bank(
        self, model: str, *, correction_window: int = 0, memory_policy: MemoryPolicy = MemoryPolicy.SAM2
    ) -> MemoryBank:
        assert model in self.models
        self.policies.append(memory_policy)
        self.banks.append(FakeBank(len(self.banks), correction_window))
        return cast("MemoryBank", self.banks[-1])

    def load_bank(self, model: str, data: bytes) -> MemoryBank:
        assert model in self.models
        return cast("MemoryBank", self.loaded(data))

    @staticmethod
    def loaded(data: bytes) -> FakeBank:
        bank = pickle.loads(data)
        assert isinstance(bank, FakeBank)
        return bank

    def new_history(self, model: str, file: TensorFile) -> History:
        assert model in self.models
        self.banks.append(FakeHistory(len(self.banks)))
        return cast("History", self.banks[-1])

    async def run(self, job: TrackingJob) -> FrameOutput:
        match job:
            case FrameJob():
                self.jobs.append(job)
            case ConsolidatePrompts():
                self.consolidations.append(job)
        self.running += 1
        self.max_running = max(self.max_running, self.running)
        try:
            await asyncio.sleep(0)
            await self.open_gate.wait()
            return self._do(job)
        finally:
            self.running -= 1

    def _do(self, job: TrackingJob) -> FrameOutput:
        assert job.memories, "a job needs an object"
        if not isinstance(job, FrameJob):
            return FrameOutput([], [])
        error = self.refuse(job)
        if error is not None:
            raise error
        found = [self._find(job, cast("FakeBank", memory), prompts) for memory, prompts in _said(job)]
        return FrameOutput(
            [output for output, _ in found] if is_tracking(job) else [], [list(shown) for _, shown in found]
        )

    def _find(
        self, job: FrameJob, bank: FakeBank, prompts: Sequence[Prompt]
    ) -> tuple[ObjectOutput, Sequence[ObjectOutput]]:
        if isinstance(bank, FakeHistory):
            return self._find_on_request(job, bank, prompts)
        assert not isinstance(job, (TrackBackward, ClearPrompts)), "only a history can do this"
        index = job.frame.index
        if not bank.prompts and not prompts:
            raise FailedPrecondition("the object has no prompt yet")
        if prompts:
            bank.prompt(index, prompts)
        if is_tracking(job):
            bank.advance(index)
        output = ObjectOutput(Runs.of(bank.mask(index, job.frame.height, job.frame.width)), 0.75, 5.0)
        if self.looks is not None:
            output = self.looks(job, bank.number)
        if job.stream.return_logits:
            output = replace(output, logits=np.full((LOGITS_SIZE, LOGITS_SIZE), bank.number, np.float32))
        return output, [output for _ in prompts]

    def _find_on_request(
        self, job: FrameJob, history: FakeHistory, prompts: Sequence[Prompt]
    ) -> tuple[ObjectOutput, Sequence[ObjectOutput]]:
        """As the real one does, except that a mask tells the direction: it is upside down where time ran backwards."""
        index = job.frame.index
        mask = fake_mask(history.number, index, job.frame.height, job.frame.width)
        output = ObjectOutput(Runs.of(mask[::-1] if isinstance(job, TrackBackward) else mask), 0.75, 5.0)
        if isinstance(job, ClearPrompts):
            history.prompts = [prompt for prompt in history.prompts if prompt.frame_index != index]
            nothing = ObjectOutput(Runs.of(np.zeros_like(mask)), 0.0, -1024.0)
            return output, [output if index in history.frames else nothing]
        history.prompts += prompts
        if is_tracking(job):
            assert history.prompts, "nothing to track"
            history.frames.append(index)
        return output, [output for _ in prompts]

    async def forget(self, stream: str) -> None:
        self.forgotten.append(stream)

    async def segment(self, job: PictureJob) -> PictureOutput:
        self.pictures.append(job)
        if not isinstance(job.picture, str):
            image_id = f"picture-{job.picture.shape[0]}x{job.picture.shape[1]}"
        else:
            image_id = job.picture
        if image_id == "picture-gone":
            raise NotFound("gone")
        height, width = map(int, image_id.removeprefix("picture-").split("x"))
        count = 3 if job.multimask_output else 1
        candidates = [
            Candidate(
                Runs.of(fake_mask(n, 0, height, width)),
                0.9 - 0.1 * n,
                np.full((LOGITS_SIZE, LOGITS_SIZE), n, np.float32),
            )
            for n in range(count)
        ]
        return PictureOutput(image_id, height, width, [candidates for _ in job.prompts])


class FakeSource:
    """A source that gives one frame for each byte of a chunk, or for each picture, that it is fed.

    Attributes:
        entered: It was entered, so that a real one's process would run.
        closed: It was left.
        taken: Number of frames that were taken from it.
        fed: Number of frames that it was given.
    """

    def __init__(self, image_size: int, *, frames_ahead: int = 0, start: asyncio.Event | None = None) -> None:
        self.image_size = image_size
        self.entered = self.closed = False
        self.taken = 0
        self._start = start
        self.fed = 0
        self._frames: asyncio.Queue[Frame | None] = asyncio.Queue(frames_ahead)
        self._first: Frame | None = None
        self._info: VideoInfo | None = None

    async def __aenter__(self) -> FakeSource:
        if self._start is not None:
            await self._start.wait()
        self.entered = True
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.closed = True

    async def put(self, value: int, pts_seconds: float | None = None) -> None:
        pixels = np.full((self.image_size, self.image_size, 3), value, np.uint8)
        pts = self.fed * 40 if pts_seconds is None else round(1000 * pts_seconds)
        await self.put_frame(Frame(self.fed, pts, Fraction(1, 1000), pixels, HEIGHT, WIDTH, time.monotonic()))

    async def put_frame(self, frame: Frame) -> None:
        """Give the source a frame of any kind."""
        self.fed += 1
        await self._frames.put(frame)

    async def info(self) -> VideoInfo:
        if self._info is None:
            self._first = await self._next()
            if self._first is None:
                raise DataLoss("no frame could be decoded")
            self._info = VideoInfo(HEIGHT, WIDTH, frame_rate=25.0, container="fake", codec="fake")
        return self._info

    async def next_frame(self) -> Frame | None:
        frame, self._first = (self._first, None) if self._first is not None else (await self._next(), None)
        self.taken += frame is not None
        return frame

    async def _next(self) -> Frame | None:
        frame = await self._frames.get()
        if frame is None:
            self._frames.put_nowait(None)
            return None
        return self._whole(frame)

    @staticmethod
    def _whole(frame: Frame) -> Frame:
        if frame.pixels[0, 0, 0] == BROKEN:
            raise DataLoss("a frame is broken")
        return frame

    async def end(self) -> None:
        await self._frames.put(None)


class FakeClip(FakeSource):
    """Takes a file's bytes, each of which is one frame.

    Attributes:
        redecoded: The frames that each redecoder gave, in the order in which the redecoders were opened.
        open_redecoders: Number of redecoders that are not closed.
        changed: A frame that is not the same when it is decoded again.
    """

    def __init__(self, image_size: int, *, start: asyncio.Event | None = None) -> None:
        super().__init__(image_size, start=start)
        self.redecoded: list[list[int]] = []
        self.open_redecoders = 0
        self.changed: int | None = None
        self._given: list[Frame] = []

    async def feed(self, chunk: bytes) -> None:
        for value in chunk:
            await self.put(value)

    async def next_frame(self) -> Frame | None:
        if (frame := await super().next_frame()) is not None:
            self._given.append(frame)
        return frame

    def redecode(self, frame_index: int) -> FakeRedecoder:
        return FakeRedecoder(self, self._given, frame_index)


class FakeRedecoder:
    """Gives a clip's frames a second time."""

    def __init__(self, clip: FakeClip, given: Sequence[Frame], frame_index: int) -> None:
        self._clip = clip
        self._given = given
        self._next = frame_index
        self._taken: list[int] = []

    async def __aenter__(self) -> FakeRedecoder:
        self._clip.redecoded.append(self._taken)
        self._clip.open_redecoders += 1
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._clip.open_redecoders -= 1

    async def next_frame(self) -> Frame:
        await asyncio.sleep(0)
        if self._next == self._clip.changed:
            raise DataLoss(f"frame {self._next} is not the same")
        frame = self._given[self._next]
        self._taken.append(self._next)
        self._next += 1
        return frame


class FakePictures(FakeSource):
    """Takes pictures, a few ahead."""

    async def feed(self, picture: Picture) -> None:
        await self.put(picture.data[0], picture.pts_seconds)


class FakeLatestPictures(FakePictures):
    """Takes pictures, and gives the latest of them when it is asked for one."""

    def __init__(self, image_size: int, *, max_latency_seconds: float, start: asyncio.Event | None = None) -> None:
        super().__init__(image_size, start=start)
        self.queue: LatestQueue[Frame] = LatestQueue(max_latency_seconds)

    @property
    def has_waiting(self) -> bool:
        self._sort()
        return len(self.queue) > 0

    async def _next(self) -> Frame | None:
        if self.has_waiting:
            return self._whole(self.queue.pop())
        return await super()._next()

    def _sort(self) -> None:
        """Move the frames that were fed into the queue that skips old ones. The end of the video stays where it is."""
        while not self._frames.empty():
            frame = self._frames.get_nowait()
            if frame is None:
                self._frames.put_nowait(None)
                return
            self.queue.push(frame, frame.arrived_seconds, frame.pixels.nbytes)


class FakePackets(FakeSource):
    """Takes packets."""

    async def feed(self, packet: Packet) -> None:
        await self.put(packet.data[0])

    async def packets_taken(self) -> int:
        await asyncio.Event().wait()
        return 0


class FakeDownload:
    """A download of as many frames as the path of its URL says."""

    def __init__(self, url: str) -> None:
        self._frames = int(url.rpartition("/")[2])

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        for _ in range(self._frames):
            yield b"\0"


class FakeSources:
    """Makes fake sources.

    Attributes:
        made: All of them.
        start: Entering a source waits for it.
    """

    def __init__(self) -> None:
        self.made: list[FakeSource] = []
        self.start: asyncio.Event | None = None

    def clip(self, image_size: int) -> FakeClip:
        source = FakeClip(image_size, start=self.start)
        self.made.append(source)
        return source

    def pictures(self, image_size: int, *, live: bool = False) -> FakePictures:
        source = FakePictures(image_size, frames_ahead=4, start=self.start)
        self.made.append(source)
        return source

    def latest_pictures(self, image_size: int, *, max_latency_seconds: float) -> FakeLatestPictures:
        source = FakeLatestPictures(image_size, max_latency_seconds=max_latency_seconds, start=self.start)
        self.made.append(source)
        return source

    def download(self, url: str) -> FakeDownload:
        return FakeDownload(url)

    def packets(self, image_size: int) -> FakePackets:
        source = FakePackets(image_size, start=self.start)
        self.made.append(source)
        return source
