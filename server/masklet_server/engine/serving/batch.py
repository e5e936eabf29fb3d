"""One batch of jobs on the device: from pixels and prompts to masks. Runs on the engine's thread."""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from sam2.modeling.sam2_base import NO_OBJ_SCORE
from torch import Tensor

from masklet.prompts import Prompt
from masklet_server.engine.memory.object_memory import FrameMemory, ObjectMemory
from masklet_server.engine.network.network import Network
from masklet_server.engine.network.tensors import Features
from masklet_server.engine.network.workers import one_thread
from masklet_server.engine.serving.image_predictor import PictureCache, encode_picture, find_picture, segment
from masklet_server.engine.serving.jobs import (
    ApplyPrompt,
    ClearPrompts,
    ConsolidatePrompts,
    FrameInput,
    FrameJob,
    FrameOutput,
    ObjectOutput,
    Track,
    TrackBackward,
    TrackingJob,
)
from masklet_server.engine.serving.mask_runs import MasksOnDevice, runs_of
from masklet_server.engine.serving.out_of_memory import as_answer
from masklet_server.engine.serving.picture_jobs import PictureJob, PictureOutput
from masklet_server.engine.serving.recent_features import EncodedFrame
from masklet_server.engine.serving.step import Step, apply_prompt, consolidate_prompts, track
from masklet_server.masks.drawing import Drawing, Once
from masklet_server.masks.edges import Edges, guide_of
from masklet_server.masks.guided_on_cpu import CpuGuide
from masklet_server.masks.runs import Runs

# Frames that are encoded, and objects that are stepped, in one pass. More of them take several passes, so that the
# device's memory is bounded.
MAX_ENCODE_BATCH = 8
MAX_STEP_BATCH = 16
# Full-size logits, as numbers, that exist at the same time.
MAX_SHOWN_PIXELS = 2**24


class EngineObserver(Protocol):
    """Gets numbers and durations of what the engine does; called on the engine's threads."""

    def on_encode(self, batch_size: int, seconds: float) -> None:
        """So many pictures were encoded together, in so many seconds."""

    def on_step(self, batch_size: int, seconds: float) -> None:
        """So many objects were prompted and tracked together, in so many seconds."""

    def on_queue(self, seconds: float) -> None:
        """A job waited so many seconds for its batch."""


@torch.inference_mode()
def run_jobs(
    network: Network, jobs: Sequence[TrackingJob], observer: EngineObserver | None = None
) -> list[FrameOutput]:
    """Run jobs of several streams together, at most one of each stream. A failure leaves every memory as it was."""
    before = [memory.copy() for job in jobs for memory in job.memories]
    try:
        with network.workers.single_threaded():
            return _run_jobs(network, jobs, observer)
    except BaseException:
        for memory, saved in zip((memory for job in jobs for memory in job.memories), before, strict=True):
            memory.restore(saved)
        raise


def _run_jobs(network: Network, jobs: Sequence[TrackingJob], observer: EngineObserver | None) -> list[FrameOutput]:
    frame_jobs = [job for job in jobs if isinstance(job, FrameJob)]
    encoded = _encode(network, frame_jobs, observer)
    begun = time.perf_counter()
    for job in jobs:
        if isinstance(job, ConsolidatePrompts):
            for memory in job.objects:
                consolidate_prompts(network, memory)
    outputs = iter(_run_on_frames(network, frame_jobs, encoded))
    step_seconds = time.perf_counter() - begun
    if observer is not None and (objects := sum(len(job.memories) for job in jobs)):
        observer.on_step(objects, step_seconds)
    return [
        replace(next(outputs) if isinstance(job, FrameJob) else FrameOutput((), ()), step_seconds=step_seconds)
        for job in jobs
    ]


def _run_on_frames(network: Network, jobs: Sequence[FrameJob], encoded: Sequence[EncodedFrame]) -> list[FrameOutput]:
    """Apply the prompts of all jobs, one by one, then take all their steps in as few passes as possible."""
    prompted = [_apply_prompts(network, job, frame) for job, frame in zip(jobs, encoded, strict=True)]
    steps = [_steps(job, frame) for job, frame in zip(jobs, encoded, strict=True)]
    tracked = iter(track(network, [step for some in steps for step in some], max_batch=MAX_STEP_BATCH))
    found = [[next(tracked) for _ in some] for some in steps]

    rows = [row for each in zip(jobs, found, prompted, strict=True) for row in _shown_by(*each)]
    shown = iter(_show(network, rows))
    return [
        FrameOutput(
            [next(shown) for _ in some],
            [[next(shown) for _ in outcomes] for outcomes in of_prompts],
            encode_seconds=frame.seconds,
        )
        for some, of_prompts, frame in zip(found, prompted, encoded, strict=True)
    ]


@dataclass(frozen=True, eq=False)
class _Shown:
    """An outcome that a job's answer shows.

    Attributes:
        job: The job that asks.
        memory: The outcome, with logits.
        is_own: The mask is the client's own, and its edges stay as they are.
    """

    job: FrameJob
    memory: FrameMemory
    is_own: bool

    @property
    def logits(self) -> Tensor:
        """``float32[1, 4h, 4w]``."""
        assert self.memory.logits is not None
        return self.memory.logits


def _apply_prompts(network: Network, job: FrameJob, encoded: EncodedFrame) -> list[list[FrameMemory]]:
    """What the prompts of a job give, for each of its objects."""
    match job:
        case Track():
            return [[_apply(network, job, encoded, task.memory, p) for p in task.prompts] for task in job.tasks]
        case ApplyPrompt():
            return [[_apply(network, job, encoded, job.memory, job.prompt)]]
        case ClearPrompts():
            job.history.clear_prompts(job.frame.index)
            return [[job.history.outcome(job.frame.index) or _nothing(network)]]
    return []


def _apply(network: Network, job: FrameJob, encoded: EncodedFrame, memory: ObjectMemory, prompt: Prompt) -> FrameMemory:
    step = Step(memory, encoded.features, job.frame.index, job.frame.clip_length)
    return apply_prompt(network, step, prompt, height=job.frame.height, width=job.frame.width)


def _steps(job: FrameJob, encoded: EncodedFrame) -> list[Step]:
    """The objects that the job tracks, on its frame."""
    frame, features = job.frame, encoded.features
    match job:
        case Track():
            return [Step(task.memory, features, frame.index, frame.clip_length) for task in job.tasks]
        case TrackBackward():
            return [Step(one, features, frame.index, frame.clip_length, reverse=True) for one in job.histories]
    return []


@torch.inference_mode()
def run_picture(
    network: Network, job: PictureJob, cache: PictureCache, observer: EngineObserver | None = None
) -> PictureOutput:
    """Segment a picture, and encode it first unless the cache has its features.

    Raises:
        NotFound: The job names a picture that is not in the cache.
        InvalidArgument: A prompt lies outside the picture.
    """
    start = time.perf_counter()
    if isinstance(job.picture, str):
        image_id, picture = job.picture, find_picture(cache, job.model, job.picture)
    else:
        image_id = cache.id_of(job.picture)
        known = cache.get(job.model, image_id)
        picture = known or encode_picture(network, job.picture)
        if known is None:
            cache.put(job.model, image_id, picture)
            if observer is not None:
                observer.on_encode(1, time.perf_counter() - start)
    results = segment(network, picture, job.prompts, multimask=job.multimask_output, edges=job.edges)
    return PictureOutput(image_id, picture.height, picture.width, results)


def _encode(network: Network, jobs: Sequence[FrameJob], observer: EngineObserver | None) -> list[EncodedFrame]:
    """The features of each job's frame. Next frames are encoded in the same pass, or while this batch goes on."""
    known = [None if job.stream.recent is None else job.stream.recent.get(job.frame.index) for job in jobs]
    unknown = [job for job, encoded in zip(jobs, known, strict=True) if encoded is None]
    if network.workers.threads > 1:
        fresh = network.workers.each(lambda job: _encode_one(network, job.frame.pixels, observer), unknown)
    else:
        fresh = _encode_in_passes(network, unknown, observer, alone=len(jobs) == 1)
    for job, encoded in zip(unknown, fresh, strict=True):
        if job.stream.recent is not None:
            job.stream.recent.put(job.frame.index, encoded)
    if network.workers.threads > 1:
        _encode_ahead(network, jobs, observer)
    made = iter(fresh)
    return [next(made) if encoded is None else encoded for encoded in known]


def _encode_one(network: Network, picture: npt.NDArray[np.uint8], observer: EngineObserver | None) -> EncodedFrame:
    start = time.perf_counter()
    (features,) = network.encode_pixels(network.uploads.pictures([picture]))
    seconds = time.perf_counter() - start
    if observer is not None:
        observer.on_encode(1, seconds)
    return EncodedFrame(features, seconds)


def _encode_ahead(network: Network, jobs: Sequence[FrameJob], observer: EngineObserver | None) -> None:
    """Have the next frames encoded by threads that this batch leaves idle."""
    for job in jobs:
        for index, picture in _upcoming(job).items():
            if job.stream.recent is not None and index not in job.stream.recent:
                work = functools.partial(_encode_one, network, picture, observer)
                job.stream.recent.put(index, network.workers.later(work))


def _encode_in_passes(
    network: Network, jobs: Sequence[FrameJob], observer: EngineObserver | None, *, alone: bool
) -> list[EncodedFrame]:
    """The features of the jobs' frames, several frames in a pass, and the next ones of a stream that runs alone."""
    if not jobs:
        return []
    start = time.perf_counter()
    ahead = _upcoming(jobs[0]) if alone else {}
    features = _encode_pixels(network, [*(job.frame.pixels for job in jobs), *ahead.values()])
    seconds = time.perf_counter() - start
    if observer is not None:
        observer.on_encode(len(features), seconds)
    fresh = [EncodedFrame(each, seconds / (1 + len(ahead))) for each in features]
    if (recent := jobs[0].stream.recent) is not None:
        for index, encoded in zip(ahead, fresh[len(jobs) :], strict=False):
            recent.put(index, encoded)
    # Copies: a view would keep the features of all streams in the batch.
    own = [encoded if len(jobs) == 1 else replace(encoded, features=encoded.features.clone()) for encoded in fresh]
    return own[: len(jobs)]


def _upcoming(job: FrameJob) -> dict[int, npt.NDArray[np.uint8]]:
    """Pictures, by frame index, to be encoded before their turn: those that the job's stream can remember."""
    if not isinstance(job, (Track, TrackBackward)) or job.stream.recent is None:
        return {}
    direction = -1 if isinstance(job, TrackBackward) else 1
    pictures = job.upcoming[: MAX_ENCODE_BATCH - 1]
    return {job.frame.index + direction * distance: picture for distance, picture in enumerate(pictures, start=1)}


def _encode_pixels(network: Network, pictures: Sequence[npt.NDArray[np.uint8]]) -> list[Features]:
    features: list[Features] = []
    for start in range(0, len(pictures), MAX_ENCODE_BATCH):
        features += network.encode_pixels(network.uploads.pictures(pictures[start : start + MAX_ENCODE_BATCH]))
    return features


def _nothing(network: Network) -> FrameMemory:
    """What is shown if nothing is known of the object: upstream's placeholder for missing objects."""
    side = network.logits_size
    return FrameMemory(
        pointer=torch.empty(0),
        object_score=torch.tensor([NO_OBJ_SCORE], device=network.device),
        predicted_iou=torch.tensor(0.0, device=network.device),
        logits=torch.full((1, side, side), NO_OBJ_SCORE, device=network.device),
    )


def _prompts(job: FrameJob) -> list[list[bool]]:
    """For each outcome of `_apply_prompts`, whether its prompt is a mask."""
    match job:
        case Track():
            return [[prompt.mask is not None for prompt in task.prompts] for task in job.tasks]
        case ApplyPrompt():
            return [[job.prompt.mask is not None]]
        case ClearPrompts():
            return [[False]]
    return []


def _given_masks(job: FrameJob) -> list[bool]:
    """For each object that the job tracks, whether its mask on this frame is the client's own."""
    if isinstance(job, TrackBackward):
        return [False] * len(job.histories)
    return [any(given) for given in _prompts(job)] if isinstance(job, Track) else []


def _shown_by(job: FrameJob, found: Sequence[FrameMemory], prompted: Sequence[Sequence[FrameMemory]]) -> list[_Shown]:
    """What a job shows: the objects that it tracks, then the outcome of each prompt."""
    outcomes = [outcome for some in prompted for outcome in some]
    are_own = [is_own for some in _prompts(job) for is_own in some]
    rows = [*zip(found, _given_masks(job), strict=True), *zip(outcomes, are_own, strict=True)]
    return [_Shown(job, *row) for row in rows]


def _show(network: Network, rows: Sequence[_Shown]) -> list[ObjectOutput]:
    """Masks at the video's size, and their scores, of a whole batch."""
    if not rows:
        return []
    ious = torch.stack([row.memory.predicted_iou for row in rows])
    scores = torch.cat([row.memory.object_score for row in rows])
    shapes: list[Drawing | Runs]
    if network.device.type == "cpu":
        shapes, numbers = [*_draw_later(network, rows)], [*ious.tolist(), *scores.tolist()]
    else:
        # One transfer for everything, because each transfer waits for the device.
        runs, numbers = _draw_on_device(network, rows).download(torch.cat([ious, scores]))
        shapes = [*runs]
    low = _low_resolution(rows)
    count = len(rows)
    return [
        ObjectOutput(shape, iou, score, logits)
        for shape, iou, score, logits in zip(shapes, numbers[:count], numbers[count:], low, strict=True)
    ]


def _low_resolution(rows: Sequence[_Shown]) -> list[npt.NDArray[np.float32] | None]:
    """The logits of those rows whose stream asks for them; one transfer for all."""
    wanted = [row.logits[0].float() for row in rows if row.job.stream.return_logits]
    if wanted and wanted[0].device.type != "cpu":
        wanted = list(torch.stack(wanted).cpu())
    logits = iter(wanted)
    return [next(logits).numpy() if row.job.stream.return_logits else None for row in rows]


def _draw_later(network: Network, rows: Sequence[_Shown]) -> list[Drawing]:
    """What draws each mask: other threads do, while the engine's thread goes on with the next frame."""
    drawings = []
    for job, of_job in itertools.groupby(rows, key=lambda row: row.job):
        guide = None
        if job.stream.edges is Edges.GUIDED:
            guide = Once(functools.partial(CpuGuide, job.frame.pixels, network.logits_size))
        drawings += [
            Drawing(functools.partial(_draw, network, job.frame, row.logits, None if row.is_own else guide))
            for row in of_job
        ]
    return drawings


def _draw(network: Network, frame: FrameInput, logits: Tensor, guide: Once[CpuGuide] | None) -> Runs:
    """One mask, on the thread that asks for it."""
    with torch.inference_mode(), one_thread():
        try:
            if guide is None:
                return runs_of(network.resize(logits[None], frame.height, frame.width)[:, 0] > 0)[0]
            return guide.get().runs(logits[0], frame.height, frame.width)
        except Exception as error:
            # The scheduler has answered by now, so nobody else names missing memory.
            raise as_answer(error) from error


def _draw_on_device(network: Network, rows: Sequence[_Shown]) -> MasksOnDevice:
    """Masks made for a few objects at a time: full-size logits of many would take gigabytes."""
    drawn = MasksOnDevice()
    for job, of_job in itertools.groupby(rows, key=lambda row: row.job):
        height, width = job.frame.height, job.frame.width
        guide = None
        if job.stream.edges is Edges.GUIDED:
            guide = guide_of(network.uploads.pictures([job.frame.pixels])[0], network.logits_size)
        members = list(of_job)
        at_once = max(1, MAX_SHOWN_PIXELS // (height * width))
        for start in range(0, len(members), at_once):
            some = members[start : start + at_once]
            maps = torch.stack([row.logits for row in some])
            if guide is None or all(row.is_own for row in some):
                masks = network.resize(maps, height, width)[:, 0] > 0
            else:
                masks = guide.draw(maps, height, width)
                for i in (i for i, row in enumerate(some) if row.is_own):
                    masks[i] = network.resize(maps[i : i + 1], height, width)[0, 0] > 0
            drawn.add(masks)
    return drawn
