"""A fast, deterministic engine, for tests of what uses one."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import numpy.typing as npt

from masklet.errors import FailedPrecondition, NotFound
from masklet.prompts import Prompt
from masklet_server.engine.memory.bank import MemoryBank
from masklet_server.engine.memory.history import History
from masklet_server.engine.memory.policies import MemoryPolicy
from masklet_server.engine.memory.tensor_file import TensorFile
from masklet_server.engine.serving.jobs import (
    ApplyPrompt,
    ClearPrompts,
    ConsolidatePrompts,
    EncodeFrame,
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

HEIGHT, WIDTH, IMAGE_SIZE, LOGITS_SIZE = 48, 64, 16, 8


# What a fake bank holds of each frame that can be corrected.
FAKE_CORRECTION_BYTES = 100


class FakeBank:
    """Remembers its frames and prompts, forgets what a real bank forgets, and checks the order of what is done to it.

    Attributes:
        number: Which of the engine's banks it is, from 0.
        correction_window: As of a real bank.
        keeps_prompts: As of a real bank.
        takes_object_id: Its number is that of its object, whichever engine has made it.
        prompts: All prompts that were applied.
        frames: The frames on which it was tracked, in order; after a rewind, only those up to that frame.
        corrected: The frames among them that were corrected, and not tracked again since.
        correctable: The frames among them that can still be corrected.
    """

    def __init__(self, number: int, correction_window: int = 0) -> None:
        self.number = number
        self.correction_window = correction_window
        self.keeps_prompts = False
        self.takes_object_id = False
        self.prompts: list[Prompt] = []
        self.frames: list[int] = []
        self.corrected: set[int] = set()
        self.correctable: set[int] = set()
        self._pending: set[int] = set()

    def was_tracked(self, frame_index: int) -> bool:
        return bool(self.frames) and self.frames[0] <= frame_index <= self.frames[-1]

    def prompt(self, frame_index: int, prompts: Sequence[Prompt]) -> None:
        if self.takes_object_id and not self.prompts:
            self.number = prompts[0].object_id
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
    """Whether the job tracks its frame. Other jobs apply or clear prompts."""
    return isinstance(job, (Track, TrackBackward))


def prompts_in(job: FrameJob) -> list[Prompt]:
    """All prompts that the job applies, in order."""
    return [prompt for _, prompts in _prompts_by_memory(job) for prompt in prompts]


def upcoming(job: FrameJob) -> list[int]:
    """The pixel value of each picture that may be encoded together with the job's own."""
    return [int(picture[0, 0, 0]) for picture in job.upcoming] if isinstance(job, (Track, TrackBackward)) else []


def _prompts_by_memory(job: FrameJob) -> Sequence[tuple[object, Sequence[Prompt]]]:
    """Each object's memory and the prompts that are applied to it."""
    if isinstance(job, Track):
        return [(task.memory, task.prompts) for task in job.tasks]
    prompts = [job.prompt] if isinstance(job, ApplyPrompt) else []
    return [(memory, prompts) for memory in job.memories]


class FakeEngine:
    """Stands in for the engine.

    Attributes:
        jobs: Every job on a frame, in order.
        consolidations: Every other job, in order.
        banks: Every bank that it made, in order.
        policies: The memory policy of each bank.
        looks: Gives the output for a job and the number of a bank; None: the usual one.
        forgotten: The streams that were forgotten.
        open_gate: Jobs wait until it is set.
        refuse: Gives the error in which a job ends, or None.
        numbers_by_object: Banks have the numbers of their objects, so that masks do not depend on the engine.
        running: Number of jobs under way.
        max_running: The greatest number of jobs that were under way at once.
    """

    def __init__(self) -> None:
        model = LoadedModel("fake", IMAGE_SIZE, LOGITS_SIZE, "float32", "cpu", "a fake", 7)
        self.models = {"fake": model, "other": replace(model, name="other")}
        self.default_model = "fake"
        self.jobs: list[FrameJob] = []
        self.consolidations: list[ConsolidatePrompts] = []
        self.pictures: list[PictureJob] = []
        self.banks: list[FakeBank] = []
        self.numbers_by_object = False
        self.policies: list[MemoryPolicy] = []
        self.forgotten: list[str] = []
        self.open_gate = asyncio.Event()
        self.open_gate.set()
        self.looks: Callable[[FrameJob, int], ObjectOutput] | None = None
        self.refuse: Callable[[FrameJob], Exception | None] = lambda _: None
        self.running = self.max_running = 0

    def place(self) -> FakeEngine:
        """The engine for a new session: this one."""
        return self

    def new_bank(
        self, model: str, *, correction_window: int = 0, memory_policy: MemoryPolicy = MemoryPolicy.SAM2
    ) -> MemoryBank:
        assert model in self.models
        self.policies.append(memory_policy)
        self.banks.append(FakeBank(len(self.banks), correction_window))
        self.banks[-1].takes_object_id = self.numbers_by_object
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
        assert job.memories or isinstance(job, EncodeFrame), "a job needs an object"
        if not isinstance(job, FrameJob):
            return FrameOutput([], [])
        error = self.refuse(job)
        if error is not None:
            raise error
        found = [self._find(job, cast("FakeBank", memory), prompts) for memory, prompts in _prompts_by_memory(job)]
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
        """As the real engine does, except that a mask is upside down if time ran backward."""
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
